#!/usr/bin/env bash
# Holds docker/ against the repository and, where one is given, a build: what can be known without a container engine.
#
#   tools/check_containers.sh [BUILD FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/lib.sh
source tools/lib.sh
build=${1:-}

problems=0
problem() {
  echo "check_containers: $*" >&2
  problems=$((problems + 1))
}

# One instruction a line.
instructions() { sed -e '/^#/d' -e ':join' -e '/\\$/{N;s/\\\n */ /;bjoin}' "$1" | grep -v '^ *$'; }
# installed FILE N: packages of the N-th `apt-get install`, one a line.
installed() {
  instructions "$1" | grep -o 'apt-get install [^&]*' | sed -n "$2p" | tr -s ' ' '\n' | grep -vx -e apt-get -e install -e -y \
    -e --no-install-recommends -e '' | sort
}
# NVIDIA's own packages are no affair of tools/lib.sh.
of_debian() { grep -vE '^(cuda-|libcublas|libcudnn|libnccl)' || true; }

declare -A first=([docker/cpu.Dockerfile]=1 [docker/cuda.Dockerfile]=2) # the install of the stage that builds
wanted=$(printf '%s\n' "${build_packages[@]}" | sort)
for file in docker/*.Dockerfile; do
  at=${first[$file]:-}
  [[ -n $at ]] || { problem "$file: which of its installs is the build's? Say so here" && continue; }
  differ=$(diff <(echo "$wanted") <(installed "$file" "$at" | of_debian)) ||
    problem "$file: packages to build with are not those of tools/lib.sh (<: there, >: here)"$'\n'"$differ"
  sources=$(instructions "$file" | grep -c '^COPY ' || true)
  ((sources > 0)) || problem "$file copies nothing"
  while read -r -a words; do
    words=("${words[@]:1}")
    from=
    if [[ ${words[0]} == --from=* ]]; then from=${words[0]#--from=} && words=("${words[@]:1}"); fi
    for source in "${words[@]:0:${#words[@]}-1}"; do
      if [[ -z $from ]]; then
        [[ -e $source ]] || problem "$file copies $source, which does not exist"
      elif [[ -n $build && $source == /build/* && $source != *_cuda.so ]]; then
        [[ -e $build/${source#/build/} ]] || problem "$file copies $source, which a build does not make"
      fi
    done
  done < <(instructions "$file" | grep '^COPY ')
  stages=$(instructions "$file" | sed -n 's/^FROM .* AS \(.*\)/\1/p')
  while read -r from; do
    grep -qx "$from" <<<"$stages" || problem "$file copies from stage $from, which it has not"
  done < <(instructions "$file" | sed -n 's/^COPY --from=\([^ ]*\) .*/\1/p' | sort -u)
  while read -r script; do
    [[ -x .${script#/opt/lockstep} ]] || problem "$file runs $script, which is no program here"
  done < <(instructions "$file" | grep -o '^RUN /opt/lockstep/[^ ]*' | cut -d' ' -f2)

  # What the built files ask for, by the package that has it, on a system of the same release.
  if [[ -n $build ]] && grep -qs '^VERSION_ID="12"' /etc/os-release && command -v dpkg-query >/dev/null; then
    run_with=$(installed "$file" $((at + 1)))
    while read -r library; do
      path=$(ldd "$build/lib/liblockstep.so" | awk -v l="$library" '$1 == l { print $3 }')
      [[ -n $path && $path != "$build"/* ]] || continue
      # /lib is /usr/lib, and packages say either.
      package=$({ dpkg-query -S "$path" "${path#/usr}" "/usr$path" 2>/dev/null || true; } | sed 's/:.*//' | sort -u | head -n 1)
      case $package in
        '') problem "no package has $path" ;;
        libc6 | libgcc-s1 | libstdc++6) continue ;; # in every Debian image
      esac
      grep -qx "$package" <<<"$run_with" || problem "$file: $library is in $package, which the image lacks"
    done < <(objdump -p "$build/lib/liblockstep.so" "$build/bin/lockstep" | awk '/NEEDED/ { print $2 }' | sort -u)
  fi
done

compose=docker/compose.yaml
while read -r file; do
  [[ -f $file ]] || problem "$compose names $file, which does not exist"
done < <(sed -n 's/^ *dockerfile: //p' $compose)
services=$(grep -c '^    image:' $compose)
[[ $(grep -c '^    shm_size:' $compose) == "$services" ]] || problem "$compose: a service has no shm_size"
[[ $(grep -c 'mpirun .*-n 2 lockstep train' $compose) == "$services" ]] || problem "$compose: a service has not two ranks"
while read -r path; do
  [[ -f .${path#/opt/lockstep} ]] || problem "$compose trains $path, which the image has not"
done < <(grep -o '/opt/lockstep/examples/[^} ]*' $compose)
if python3 -c 'import yaml' 2>/dev/null; then
  python3 -c 'import sys, yaml; yaml.safe_load(open(sys.argv[1]))' $compose || problem "$compose is no YAML"
fi

((problems == 0)) || exit 1
echo "check_containers: ${#first[@]} container files and $compose agree with the repository${build:+ and the build}"

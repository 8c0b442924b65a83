#!/usr/bin/env bash
# tools/check_containers.sh finds what it is there to find.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# planted NAME FILE SED-SCRIPT TEXT: with this change it fails and says so.
planted() {
  rm -rf "$work/tree" && mkdir "$work/tree"
  cp -r "$root/docker" "$root/tools" "$root/examples" "$work/tree"
  sed -i "$3" "$work/tree/$2"
  if ! cmp -s "$root/$2" "$work/tree/$2"; then
    if "$work/tree/tools/check_containers.sh" >"$work/out" 2>&1; then
      echo "check_containers_test: $1 was not found" >&2 && exit 1
    fi
    grep -qF -- "$4" "$work/out" && return
  fi
  echo "check_containers_test: $1: no '$4' in" >&2 && cat "$work/out" >&2 && exit 1
}
planted 'a package that is missing' docker/cpu.Dockerfile 's/libcli11-dev//' '< libcli11-dev'
planted 'a package too many' docker/cuda.Dockerfile 's/libxxhash-dev/libxxhash-dev libboost-dev/' '> libboost-dev'
planted 'a source that is not there' docker/cpu.Dockerfile 's/^COPY examples/COPY exmaples/' 'copies exmaples, which does not exist'
planted 'a stage that is not there' docker/cuda.Dockerfile 's/--from=build/--from=biuld/' 'stage biuld'
planted 'a program that is not there' docker/cpu.Dockerfile 's/make_corpus/make_copus/' 'is no program here'
planted 'a service without shm_size' docker/compose.yaml '0,/shm_size/s/shm_size/shm/' 'has no shm_size'
planted 'a job that is not there' docker/compose.yaml 's/quick.yaml/quickest.yaml/' 'which the image has not'
echo 'check_containers_test: passed'

#!/usr/bin/env bash
# Runs the fuzzing targets, one after the other in one process, and prints what each did. Inputs that reach new code stay in
# build/fuzz/corpus for the next time; an input that is a finding stays in build/fuzz/findings and makes the script fail.
set -euo pipefail
cd "$(dirname "$0")/.."

usage='usage: fuzz/run.sh [--no-build] (--seconds N | --executions N) [TARGET...]

  --seconds N      of each target
  --executions N   of each target
  --no-build       take the programs of build/fuzz as they are
  TARGET...        names of fuzz/seeds; without any: all'

amount=()
build=yes
targets=()
while (($#)); do
  case $1 in
    --seconds) amount=("-max_total_time=${2:?$usage}") && shift ;;
    --executions) amount=("-runs=${2:?$usage}") && shift ;;
    --no-build) build=no ;;
    -h | --help) echo "$usage" && exit 0 ;;
    -*) echo "$usage" >&2 && exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
((${#amount[@]})) || { echo "$usage" >&2 && exit 2; }
if ((${#targets[@]} == 0)); then for folder in fuzz/seeds/*/; do targets+=("$(basename "$folder")"); done; fi

if [[ $build == yes ]]; then
  command -v clang++ >/dev/null || { echo 'run.sh: clang is missing: apt-get install clang' >&2 && exit 1; }
  cmake --preset fuzz >/dev/null
  cmake --build --preset fuzz
fi

# Less to be cleaned and to be remembered of each of the many small allocations, which is most of the time.
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=8:malloc_context_size=6}

# The readers read files: from memory, where there is such a place.
scratch=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$scratch"' EXIT

# What others of our files are good seeds of.
more_seeds() {
  case $1 in
    job) find examples -name '*.yaml' ;;
    ds_config) find tests/job/deepspeed examples -name '*.json' ;;
  esac
}

findings=0
printf '%-12s %12s %8s %8s %8s  %s\n' target executions seconds a_second features findings
for target in "${targets[@]}"; do
  corpus=build/fuzz/corpus/$target found=build/fuzz/findings/$target log=build/fuzz/$target.log
  mkdir -p "$corpus" "$found"
  while read -r seed; do cp "$seed" "$corpus/seed-${seed//\//-}"; done < <(more_seeds "$target")
  inputs=("$corpus" "fuzz/seeds/$target")
  [[ -d fuzz/regressions/$target ]] && inputs+=("fuzz/regressions/$target")
  longest=$(sed -n "s/.*{\"$target\", [a-z_]*, \([0-9]*\)}.*/\1/p" fuzz/targets.cpp)
  status=0
  # An input may take 30 seconds of the clock, since a nice process may wait for a CPU that long, and 1 GiB in all; one
  # allocation no more than 128 MiB.
  TMPDIR=$scratch nice -n 19 "build/fuzz/bin/fuzz_$target" "${amount[@]}" -max_len="${longest:?}" -timeout=30 -rss_limit_mb=1024 \
    -malloc_limit_mb=128 -print_final_stats=1 -close_fd_mask=1 -artifact_prefix="$found/" "${inputs[@]}" 2>"$log" || status=$?
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  seconds=$(sed -n 's/^Done [0-9]* runs in \([0-9]*\) second.*/\1/p' "$log")
  features=$(sed -n 's/.* ft: \([0-9]*\) .*/\1/p' "$log" | tail -1)
  printf '%-12s %12s %8s %8s %8s  %s\n' "$target" "${executions:--}" "${seconds:--}" \
    "$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")" "${features:--}" "$([[ $status == 0 ]] && echo 0 || echo "1: $log")"
  ((status == 0)) || findings=$((findings + 1))
done
if ((findings)); then
  echo "run.sh: $findings targets have a finding; a cure comes with its input in fuzz/regressions (CONTRIBUTING.md)" >&2
  exit 1
fi

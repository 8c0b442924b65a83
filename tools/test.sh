#!/usr/bin/env bash
# Sets up a fresh Debian 12, builds everything and runs every test, as CI does. Run it again: only what changed is redone.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/lib.sh
source tools/lib.sh

usage='usage: tools/test.sh [--no-install] [--quick]

  --no-install   install nothing; say what is missing
  --quick        format check, release build and its tests only: no sanitizers'

install=yes
quick=no
while (($#)); do
  case $1 in
    --no-install) install=no ;;
    --quick) quick=yes ;;
    -h | --help) echo "$usage" && exit 0 ;;
    *) echo "$usage" >&2 && exit 2 ;;
  esac
  shift
done

# Every program under AddressSanitizer, those with threads of our own under ThreadSanitizer too. What runs under mpirun
# runs in the release build only: Open MPI itself is not clean under either. Preset tsan leaves the layers out that its
# programs do not need (LOCKSTEP_LEAVE_OUT).
# The longest ones begin first.
asan_programs=(run_test engine_test kernels_test comm_test)
for folder in tests/*/; do
  layer=$(basename "$folder")
  if [[ $layer != program && " ${asan_programs[*]} " != *" ${layer}_test "* ]] && compgen -G "$folder*_test.cpp" >/dev/null; then
    asan_programs+=("${layer}_test")
  fi
done
tsan_programs=(comm_test data_test)
cores=$(nproc)

failed=()
summary=()
# stage NAME COMMAND...: runs one part, times it and notes its result, which is also its status.
stage() {
  local name=$1 begin=$SECONDS
  shift
  say "$name"
  if "$@"; then
    summary+=("$(printf 'passed  %4d s  %s' $((SECONDS - begin)) "$name")")
  else
    summary+=("$(printf 'FAILED  %4d s  %s' $((SECONDS - begin)) "$name")")
    failed+=("$name")
    return 1
  fi
}

# `set -e` does not hold inside a function that `if` calls: every status is passed on by hand.
build() {
  local preset=$1
  shift
  cmake --preset "$preset" >"build/$preset.log" 2>&1 || {
    cat "build/$preset.log"
    return 1
  }
  grep -E '^-- CUDA|CMake Warning' "build/$preset.log" || true
  cmake --build --preset "$preset" -j "$cores" ${1:+--target "$@"}
}

# run_programs PRESET PROGRAM...: whole test programs, one a CPU at a time. Under a sanitizer a process takes longer to
# start than most tests to run, so ctest's one process a test would take several times as long.
run_programs() {
  local preset=$1
  shift
  printf '%s\n' "$@" | xargs -P "$(nproc)" -I '{}' bash -c '
    begin=$SECONDS status=0
    output=$(timeout 1200 "build/$1/bin/$2" --gtest_brief=1 </dev/null 2>&1) || status=$?
    printf "\n== %s: %s, status %d after %d s\n%s\n" "$1" "$2" "$status" "$((SECONDS - begin))" "$output"
    exit $((status > 0))' run "$preset" '{}'
}

# Randomised addresses can collide with ThreadSanitizer's fixed map on kernels newer than its gcc.
thread_sanitized() {
  local fixed=()
  if setarch -R true 2>/dev/null; then fixed=(setarch -R); fi
  OMP_NUM_THREADS=1 "${fixed[@]}" bash -c "$(declare -f run_programs); run_programs \"\$@\"" run tsan "$@"
}

packages=("${build_packages[@]}" "${test_packages[@]}" "${corpus_packages[@]}" "${image_packages[@]}")
install_missing "$install" "${packages[@]}"
use_ccache
mkdir -p build
# The CUDA toolkit's own packages do not put nvcc on the path.
if ! command -v nvcc >/dev/null && [[ -x /usr/local/cuda/bin/nvcc ]]; then PATH+=:/usr/local/cuda/bin; fi
# A test asks for more memory than there is: null, as without the sanitizer.
export ASAN_OPTIONS=${ASAN_OPTIONS:-strict_string_checks=1:allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}

# A failed part does not stop the others: one run shows all that is wrong.
stage 'format' tools/format.sh --check || true
if stage 'release: build' build release all; then
  stage 'release: tests' ctest --preset release -j "$cores" || true
  if command -v nvcc >/dev/null; then
    stage 'device code: registers, spills, 16-byte accesses' tools/check_ptx.py build/release || true
  fi
fi
if [[ $quick == no ]]; then
  if stage 'address and undefined-behaviour sanitizers: build' build asan "${asan_programs[@]}"; then
    stage 'address and undefined-behaviour sanitizers: tests' run_programs asan "${asan_programs[@]}" || true
  fi
  if stage 'thread sanitizer: build' build tsan "${tsan_programs[@]}"; then
    stage 'thread sanitizer: tests' thread_sanitized "${tsan_programs[@]}" || true
  fi
fi

say "summary (${SECONDS} s on $cores CPUs)"
printf '%s\n' "${summary[@]}"
[[ $quick == no ]] || echo 'left out by --quick: both sanitizer builds'
command -v nvcc >/dev/null || echo 'no nvcc here: the CUDA sources ran under the emulator only, and their registers and accesses were not looked at'
if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo 'ALL PASSED'

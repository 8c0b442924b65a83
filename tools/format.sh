#!/usr/bin/env bash
# Formats every C++ and CUDA file with clang-format 14; with --check only says which ones differ.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=(-i)
case ${1-} in
  '') ;;
  --check) mode=(--dry-run --Werror) ;;
  *)
    echo "usage: tools/format.sh [--check]" >&2
    exit 2
    ;;
esac

# Other versions break lines elsewhere, so only 14 decides.
for formatter in clang-format-14 clang-format ''; do
  [[ -n $formatter ]] || {
    echo "format.sh: clang-format 14 is missing: apt-get install clang-format-14" >&2
    exit 1
  }
  command -v "$formatter" >/dev/null && "$formatter" --version | grep -q 'version 14\.' && break
done

folders=()
for folder in core config files safetensors kernels nn optim sched comm data job engine run apps bench examples fuzz tests; do
  [[ -d $folder ]] && folders+=("$folder")
done
find "${folders[@]}" -type f \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' \) -print0 |
  xargs -0 -P "$(nproc)" -n 16 "$formatter" "${mode[@]}"

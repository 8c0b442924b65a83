#!/usr/bin/env bash
# From a fresh Debian 12 to a trained language model: installs, builds lockstep, makes the King James corpus, trains
# examples/gpt_kjv/quick.yaml on two ranks and prints a sample. Run it again: what is done is not done twice.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/lib.sh
source tools/lib.sh

usage='usage: tools/quickstart.sh [--no-install] [--ranks N] [--steps N]

  --no-install   install nothing; say what is missing
  --ranks N      MPI ranks (default 2)
  --steps N      training steps in place of those of examples/gpt_kjv/quick.yaml'

install=yes
ranks=2
overrides=()
while (($#)); do
  case $1 in
    --no-install) install=no ;;
    --ranks | --steps)
      [[ ${2-} =~ ^[1-9][0-9]*$ ]] || die "$1 needs a number of at least 1"
      if [[ $1 == --ranks ]]; then ranks=$2; else overrides=(--set "run.steps=$2"); fi
      shift
      ;;
    -h | --help) echo "$usage" && exit 0 ;;
    *) echo "$usage" >&2 && exit 2 ;;
  esac
  shift
done

install_missing "$install" "${build_packages[@]}" "${corpus_packages[@]}"

say 'building lockstep'
use_ccache
mkdir -p build
cmake --preset release -B build/quickstart -DLOCKSTEP_TESTS=OFF -DLOCKSTEP_CUDA=OFF >build/quickstart.log 2>&1 || {
  cat build/quickstart.log
  die 'cmake could not configure the build; its messages are above'
}
cmake --build build/quickstart --target lockstep_program -j "$(nproc)"
lockstep=build/quickstart/bin/lockstep

say 'making the corpus'
examples/gpt_kjv/make_corpus.sh

set_launcher "$ranks"
say "training: ${launcher[*]} $lockstep train examples/gpt_kjv/quick.yaml ${overrides[*]}"
"${launcher[@]}" "$lockstep" train examples/gpt_kjv/quick.yaml "${overrides[@]}" </dev/null

say 'a sample'
"$lockstep" generate runs/kjv_quick --prompt 'And God said' </dev/null

say "done in $SECONDS s: the run is in runs/kjv_quick, the program is $lockstep"

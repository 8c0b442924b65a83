#!/usr/bin/env bash
# What CI has no time for: kills, fuzzing, headers and clean guard steps by the thousand. It may be stopped at any moment and goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."

usage='usage: tools/gate.sh [--kills N] [--part N] [--fuzz N] [--headers N] [--guard-steps N] [--file PATH] [--program PATH] [--dir PATH]

  --kills N        of a rank or mpirun, in all (default 1000), in parts of
  --part N         kills each (default 50); every part is a `lockstep drill` with a seed of its own
  --fuzz N         executions in all, shared out among the targets (default 20000000)
  --headers N      of safetensors files, judged by our reader and by an independent one (default 1000000), in parts of 100000,
                   each of a seed of its own
  --guard-steps N  clean steps of a job that looks for drift after every tenth (default 10000)
  --file PATH      results, a line each; what stands there is not done again (default build/gate.txt)
  --program PATH   default build/release/bin/lockstep
  --dir PATH       an existing folder for the runs, on the file system that is meant (default: a temporary one)

Any number may be 0. At the end the figures are printed, of all the lines of this commit; exit code 0: nothing failed and all
that was asked for is there.'

kills=1000 part=50 fuzz=20000000 headers=1000000 guard_steps=10000 file=build/gate.txt program=build/release/bin/lockstep dir=
while (($#)); do
  case $1 in
    --kills) kills=${2:?$usage} && shift ;;
    --part) part=${2:?$usage} && shift ;;
    --fuzz) fuzz=${2:?$usage} && shift ;;
    --headers) headers=${2:?$usage} && shift ;;
    --guard-steps) guard_steps=${2:?$usage} && shift ;;
    --file) file=${2:?$usage} && shift ;;
    --program) program=${2:?$usage} && shift ;;
    --dir) dir=${2:?$usage} && shift ;;
    -h | --help) echo "$usage" && exit 0 ;;
    *) echo "$usage" >&2 && exit 2 ;;
  esac
  shift
done
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
program=$(realpath "$program")
commit=$("$program" --version | tr ' ' '-')-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
mkdir -p "$(dirname "$file")" && touch "$file"
file=$(realpath "$file")
scratch=$(mktemp -d "${dir:-${TMPDIR:-/tmp}}/lockstep-gate-XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# A line: commit, what, passed or failed, how many, and what else there is to say.
note() { printf '%s %s %s %s %s\n' "$commit" "$1" "$2" "$3" "${4:-}" >>"$file"; }
total() { awk -v c="$commit" -v w="$1" -v r="$2" '$1 == c && $2 == w && $3 == r { n += $4 } END { print n + 0 }' "$file"; }

# A step takes more than a quarter of a millisecond everywhere: the drill wants a second of them.
cat >"$scratch/kills.yaml" <<'YAML'
model: {type: mlp, hidden: [256, 256]}
data: {type: clusters, classes: 8, features: 64, samples: 4000}
run: {steps: 12000, seed: 3, eval_every: 500, log_every: 0, checkpoint: {every: 100, keep_last: 2}}
train_batch_size: 64
train_micro_batch_size_per_gpu: 32
optimizer: {type: AdamW, params: {lr: 0.001}}
YAML
while (($(total kills passed) + $(total kills failed) < kills)); do
  missing=$((kills - $(total kills passed) - $(total kills failed)))
  now=$((missing < part ? missing : part))
  seed=$((1 + $(grep -c "^$commit kills " "$file" || true)))
  code=0
  (cd "$scratch" && exec "$program" drill kills.yaml --kills "$now" --seed "$seed" --dir "$scratch/runs") >"$scratch/log" 2>&1 || code=$?
  if ((code == 0)); then
    note kills passed "$now" "seed $seed; $(sed -n 's/^kills *//p' "$scratch/log")"
  else
    note kills failed "$(grep -c '^kill ' "$scratch/log" || true)" "seed $seed; exit code $code; $(grep -m1 '^failure' "$scratch/log" || tail -1 "$scratch/log")"
    cp -r "$scratch/runs" "$file.failed-seed-$seed" 2>/dev/null || true
    cat "$scratch/log" >&2
    break # the next one would most likely fail too
  fi
  echo "gate: $(total kills passed) of $kills kills"
done

while (($(total headers passed) + $(total headers failed) < headers)); do
  missing=$((headers - $(total headers passed) - $(total headers failed)))
  now=$((missing < 100000 ? missing : 100000))
  seed=$((1 + $(grep -c "^$commit headers " "$file" || true)))
  if LOCKSTEP_TEST_HEADERS=$now LOCKSTEP_TEST_SEED=$seed "$(dirname "$program")/safetensors_test" \
    --gtest_filter=SafetensorsHeader.AgreesWithAnIndependentReader >"$scratch/log" 2>&1 && ! grep -q SKIPPED "$scratch/log"; then
    note headers passed "$now" "seed $seed"
  else
    note headers failed "$now" "seed $seed"
    cat "$scratch/log" >&2
    break
  fi
  echo "gate: $(total headers passed) of $headers headers"
done

if ((guard_steps > 0 && $(total guard passed) < guard_steps)); then
  if (cd "$scratch" && exec mpirun -n 2 --oversubscribe "$program" train kills.yaml --set run.name=guard --set "run.steps=$guard_steps" \
    --set run.guard.every=10 --set run.checkpoint.every=0 --set run.eval_every=0) >"$scratch/log" 2>&1; then
    note guard passed "$guard_steps" "no alarm in $((guard_steps / 10)) looks"
  else
    note guard failed "$guard_steps" "$(tail -1 "$scratch/log")"
  fi
fi

if ((fuzz > 0 && $(total fuzz passed) < fuzz)); then
  targets=(fuzz/seeds/*/)
  each=$(((fuzz + ${#targets[@]} - 1) / ${#targets[@]}))
  for target in "${targets[@]}"; do
    name=$(basename "$target")
    if grep -q "^$commit fuzz passed $each $name\$" "$file"; then continue; fi
    if fuzz/run.sh --executions "$each" "$name"; then note fuzz passed "$each" "$name"; else note fuzz failed "$each" "$name"; fi
  done
fi

status=0
report() { # WHAT WANTED WORDS
  local passed failed
  passed=$(total "$1" passed) failed=$(total "$1" failed)
  echo "gate: $passed $3 passed of $2, $failed in runs that failed"
  if ((failed > 0 || passed < $2)); then status=1; fi
}
report kills "$kills" kills
report headers "$headers" 'headers'
report guard "$guard_steps" 'clean guard steps'
report fuzz "$fuzz" 'fuzz executions'
if grep -q "^$commit [a-z]* failed " "$file"; then grep "^$commit [a-z]* failed " "$file" >&2 && status=1; fi
exit $status

#!/usr/bin/env bash
# Kills a small training job again and again, under real mpirun, and checks that nobody can tell afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

usage='usage: tools/drill.sh [--kills N] [--ranks R] [--seed S] [--program PATH]

  --kills N       how often (default 100); each time one rank or mpirun gets SIGKILL, at a random moment of starting,
                  training or saving, and the same command goes on
  --ranks R       of the job (default 2)
  --seed S        of the choices (default: the time)
  --program PATH  default build/release/bin/lockstep

At the end metrics.jsonl (but for the clock) and the tensors must equal those of an undisturbed run, every step must stand there
once, and no process, temporary folder or held lock may be left.'

kills=100
ranks=2
seed=$(date +%s)
program=build/release/bin/lockstep
while (($#)); do
  case $1 in
    --kills) kills=$2 && shift ;;
    --ranks) ranks=$2 && shift ;;
    --seed) seed=$2 && shift ;;
    --program) program=$2 && shift ;;
    -h | --help) echo "$usage" && exit 0 ;;
    *) echo "$usage" >&2 && exit 2 ;;
  esac
  shift
done
program=$(realpath "$program")
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
RANDOM=$seed

scratch=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-drill-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
every=20
cat >job.yaml <<YAML
model: {type: mlp, hidden: [256, 256]}
data: {type: clusters, classes: 8, features: 64, samples: 4000}
run: {steps: 1, seed: 3, eval_every: 50, log_every: 0, checkpoint: {every: $every, keep_last: 2}}
train_batch_size: $((32 * ranks))
train_micro_batch_size_per_gpu: 32
optimizer: {type: AdamW, params: {lr: 0.001}}
scheduler: {type: WarmupLR, params: {warmup_max_lr: 0.001, warmup_num_steps: 100}}
YAML
metrics=runs/disturbed/metrics.jsonl
checkpoints=runs/disturbed/checkpoints

train() { # NAME [LOCKSTEP_DRILL]
  LOCKSTEP_DRILL=${2:-} exec mpirun -n "$ranks" --oversubscribe "$program" train job.yaml --set "run.name=$1" \
    --set "run.steps=$steps"
}
lines() { if [[ -f $metrics ]]; then wc -l <"$metrics"; else echo 0; fi; }
now() { date +%s%N; }
pause() { sleep "$(printf '0.%03d' $((RANDOM % $1)))"; } # up to so many milliseconds

# Until COMMAND is true, the job is over, or a minute has passed.
wait_for() {
  local deadline=$((SECONDS + 60))
  until "$@"; do
    kill -0 "$launcher" 2>/dev/null || return 0
    ((SECONDS < deadline)) || { echo "drill: the job does not get on: $*" >&2 && return 1; }
    sleep 0.01
  done
}
# Neither gone nor a zombie that nobody has waited for yet.
lives() { [[ -r /proc/$1/stat ]] && ! grep -q '^[0-9]* (.*) [ZX]' "/proc/$1/stat" 2>/dev/null; }
has_lines() { (($(lines) >= $1)); }
saves() { compgen -G "$checkpoints/.step-*.partial-*" >/dev/null; }
started() { [[ $(pgrep -c -P "$launcher") -ge $ranks ]]; }

# The job must outlast its kills on any machine: each attempt trains for less than a second and a half before it is
# killed, and the fastest steps of a first run say how many that can be.
steps=400
(train calibration) >log 2>&1 || { echo "drill: the job does not run" >&2 && cat log >&2 && exit 1; }
steps=$(python3 - runs/calibration/metrics.jsonl "$kills" "$every" <<'PYTHON'
import json, sys

path, kills, every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
times = sorted(json.loads(line)["step_ms"] for line in open(path))
per_attempt = 1500 / times[len(times) // 10]
print(every * (int(kills * per_attempt + 500) // every))
PYTHON
)

declare -A counts=()
orphans=0
for ((kill = 1; kill <= kills; ++kill)); do
  modes=(start train train save save)
  mode=${modes[RANDOM % ${#modes[@]}]}
  slow=
  [[ $mode == save ]] && slow=slow_save@seconds=0.2
  before=$(lines)
  train disturbed "$slow" >log 2>&1 &
  launcher=$!
  wait_for started
  processes=$(pgrep -P "$launcher" || true)
  case $mode in
    start) pause 900 ;;
    # The file is cut back to the checkpoint first: these are new lines, or old ones again.
    train) wait_for has_lines $((before + 1 + RANDOM % every)) && pause 20 ;;
    save) wait_for saves && pause 260 ;; # in the middle of writing, or while it gets its name, or just after
  esac
  victim=$launcher
  if ((RANDOM % 2)); then
    mapfile -t each <<<"$processes"
    victim=${each[RANDOM % ${#each[@]}]}
  fi
  what=rank && [[ $victim == "$launcher" ]] && what=mpirun
  if ! kill -KILL "$victim" 2>/dev/null; then
    status=0
    wait "$launcher" || status=$?
    echo "drill: attempt $kill ended by itself with exit code $status before it was killed" >&2
    cat log >&2
    exit 1
  fi
  wait "$launcher" 2>/dev/null || true
  counts[$mode/$what]=$((${counts[$mode/$what]:-0} + 1))
  # A rank may take a moment to die, not more.
  killed=$(now)
  for process in $processes; do
    while lives "$process" && (($(now) - killed < 1000000000)); do sleep 0.01; done
    if lives "$process"; then
      echo "drill: kill $kill ($mode, $what): process $process lives on after a second" >&2
      orphans=$((orphans + 1))
      while lives "$process" && (($(now) - killed < 20000000000)); do sleep 0.1; done
    fi
  done
done
echo "drill: $kills kills (seed $seed):$(for key in "${!counts[@]}"; do printf ' %s %s' "$key" "${counts[$key]}"; done), at step $(lines)"

# No step depends on how long the job was to be, so it may end soon.
steps=$((($(lines) / every + 10) * every))
(train disturbed) >log 2>&1 || { echo "drill: the last attempt failed" >&2 && cat log >&2 && exit 1; }
(train undisturbed) >log 2>&1 || { echo "drill: the undisturbed run failed" >&2 && cat log >&2 && exit 1; }

failed=$orphans
complain() { echo "drill: $*" >&2 && failed=1; }
python3 - "$metrics" runs/undisturbed/metrics.jsonl <<'PYTHON' || complain "the metrics differ"
import json, sys

def steps(path):
    result = []
    for number, text in enumerate(open(path), 1):
        line = json.loads(text)
        if line["step"] != number:
            sys.exit(f"drill: {path} line {number} is of step {line['step']}")
        result.append({k: v for k, v in line.items() if not k.endswith("_per_s") and k not in ("step_ms", "memory_bytes")})
    return result

disturbed, undisturbed = map(steps, sys.argv[1:])
if len(disturbed) != len(undisturbed):
    sys.exit(f"drill: {len(disturbed)} lines, expected {len(undisturbed)}")
for a, b in zip(disturbed, undisturbed):
    if a != b:
        sys.exit(f"drill: step {a['step']}: {a}, expected {b}")
print(f"drill: {len(disturbed)} steps, every line equal")
PYTHON
last=step-$steps
for file in "runs/undisturbed/checkpoints/$last"/*.safetensors; do
  cmp "$file" "runs/disturbed/checkpoints/$last/${file##*/}" || complain "the tensors differ"
done
[[ $(ls -A "$checkpoints" | wc -l) == 2 ]] || complain "left in $checkpoints: $(ls -A "$checkpoints")"
left=$(ls -A runs/disturbed | sort | xargs)
[[ $left == "checkpoints job.yaml metrics.jsonl starts.jsonl" ]] || complain "left in the run's folder: $left"
flock -n runs/.disturbed.lock true || complain "the lock is still held"
((failed == 0)) || { echo "drill: FAILED ($orphans processes lived on)" >&2 && exit 1; }
echo "drill: tensors equal; no process, temporary folder or lock left"

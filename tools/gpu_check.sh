#!/usr/bin/env bash
# Takes the lines of docs/gpu_checklist.md that a script can take, on a machine with a GPU, in at most ten minutes. Needs a
# build and nothing that builds: programs are looked for beside this script (pack/bin and pack/tools, or a checkout's build).
# What matters most comes first, and each result is written when it is known, so that a run that is cut off has said
# what it could.
set -uo pipefail
export LC_ALL=C

usage='usage: tools/gpu_check.sh [--bin FOLDER] [--out FOLDER] [--limit SECONDS] [--list]

  --bin FOLDER     where lockstep, kernels_test and engine_test are (default: bin/ or build/{cuda,release}/bin/ here)
  --out FOLDER     for results.tsv and logs (default: gpu_check)
  --limit SECONDS  in all (default: 590)
  --list           only print the ids of the lines that it takes

Exit codes: 0 nothing failed, 1 something did, 2 usage, 77 there is no GPU (or no build for one).'

ids=(module-open device-contract kernels norm-finish scratch conversions matmul attention-own engine copy-bandwidth adam-fp32 adam-bf16 sgd-fp32 norm-time
  step-124m memory-vs-plan gemm-peak gemm attention same-bits fp32-vs-cpu graph-equals-eager graph-gain nccl-two-ranks
  checkpoint-moves memcheck racecheck)

here=$(cd "$(dirname "$0")/.." && pwd)
bin=
out=gpu_check
limit=590
while (($#)); do
  case $1 in
    --bin | --out | --limit)
      (($# > 1)) || { echo "$usage" >&2; exit 2; }
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    --list) printf '%s\n' "${ids[@]}" && exit 0 ;;
    -h | --help) echo "$usage" && exit 0 ;;
    *) echo "$usage" >&2 && exit 2 ;;
  esac
  shift
done
if [[ -z $bin ]]; then
  for folder in "$here/bin" "$here/build/cuda/bin" "$here/build/release/bin"; do
    if [[ -x $folder/lockstep ]]; then bin=$folder && break; fi
  done
fi
[[ -x $bin/lockstep ]] || { echo "gpu_check: no program lockstep in ${bin:-$here/bin}: give --bin" >&2; exit 2; }
bin=$(cd "$bin" && pwd)
lockstep=$bin/lockstep
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
results=$out/results.tsv
jobs=$out/jobs
rm -rf "$jobs" && mkdir -p "$jobs"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

left() { echo $((limit - SECONDS)); }
# run SECONDS LOG COMMAND...: the command's code; 124 where its time, or all of it, is up.
run() {
  local time=$1 log=$out/$2.log most
  shift 2
  most=$(left)
  ((most > time)) || time=$most
  if ((time < 3)); then return 124; fi
  timeout --kill-after=5 "$time" "$@" >"$log" 2>&1 </dev/null
}
# note ID RESULT FIGURE: one line of the results, at once.
failed=0
note() {
  printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$results"
  printf '%-20s %-5s %s\n' "$1" "$2" "$3"
  [[ $2 != FAIL ]] || failed=1
}
why() { # LOG CODE
  if (($2 == 124 || $2 == 137)); then echo "time is up"; else echo "code $2: $(tail -n 1 "$out/$1.log" 2>/dev/null | cut -c1-200)"; fi
}
# A cut-off by our own limit says nothing about the thing.
result_of() { if (($1 == 124 || $1 == 137)); then echo skip; else echo FAIL; fi; }
holds() { awk "BEGIN { exit !($1) }" 2>/dev/null; }  # a figure that is missing holds nothing
judge() { # ID CONDITION FIGURE
  if holds "$2"; then note "$1" pass "$3"; else note "$1" FAIL "$3"; fi
}

# ---- is there a GPU?
# Whatever the limit: without it there is nothing to say.
timeout --kill-after=5 60 "$lockstep" bench optimizer --device cuda --elements 65536 --copy-bytes 1048576 --samples 1 \
  --json "$out/module-open.json" >"$out/module-open.log" 2>&1 </dev/null
code=$?
if ((code != 0)); then
  if [[ -e /dev/nvidia0 || -e /dev/nvidiactl ]] || ((code == 124 || code == 137)); then
    : >"$results"
    note module-open FAIL "$(why module-open $code)"
    exit 1
  fi
  echo "gpu_check: no GPU can be used here, so nothing was checked:"
  sed 's/^/  /' "$out/module-open.log"
  exit 77
fi
# value FILE LINE KEY: of the line with this name in a file of `lockstep bench --json`, which has a key a line.
value() {
  awk -v name="\"name\": \"$2\"," -v key="\"$3\":" '
    index($0, name) { inside = 1 }
    inside && (at = index($0, key)) { text = substr($0, at + length(key)); gsub(/[ ,"]/, "", text); print text; exit }' "$out/$1.json"
}
machine() { awk -v key="\"$1\":" 'at = index($0, key) { text = substr($0, at + length(key)); gsub(/^ "|",?$/, "", text); print text; exit }' "$out/module-open.json"; }
gpu=$(machine device)
clocks=$(timeout 10 nvidia-smi --query-gpu=driver_version,clocks.sm,clocks.mem,power.limit --format=csv,noheader 2>/dev/null | head -n 1)
{
  printf '# date\t%s\n# gpu\t%s\n' "$(date -u +%Y-%m-%d)" "$gpu"
  printf '# driver, clocks, power\t%s\n# commit\t%s\n' "${clocks:-unknown (no nvidia-smi)}" "$(machine commit)"
  printf '# build\t%s\n' "$(machine build)"
} >"$results"
cat "$results"
note module-open pass "$gpu"

# ---- tests
# tests ID PROGRAM FILTER SECONDS
tests() {
  local log=$1 program=$bin/$2 code total skipped bad
  if [[ ! -x $program ]]; then note "$1" skip "no $2 beside lockstep" && return; fi
  run "$4" "$log" "$program" --gtest_filter="$3" --gtest_brief=0
  code=$?
  # Of the summary; the list of the skipped comes after it.
  total=$(sed -n 's/^\[==========\] \([0-9]*\) tests\{0,1\} from .* ran.*/\1/p' "$out/$log.log" | tail -n 1)
  skipped=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) tests\{0,1\}.*/\1/p' "$out/$log.log" | tail -n 1)
  bad=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) tests\{0,1\}.*/\1/p' "$out/$log.log" | tail -n 1)
  if [[ -z $total ]]; then
    note "$1" "$(result_of $code)" "$(why "$log" $code)"
  elif ((code != 0)); then
    note "$1" FAIL "${bad:-?} of $total failed: see $log.log"
  elif ((total == ${skipped:-0})); then
    note "$1" skip "$total tests, all skipped"
  else
    note "$1" pass "$((total - ${skipped:-0})) tests passed, ${skipped:-0} skipped"
  fi
}
tests device-contract kernels_test '*DeviceContract*cuda*' 40
tests kernels kernels_test '*cuda*' 120
tests norm-finish kernels_test '*GradNorm*cuda*' 30
tests scratch kernels_test '*ScratchTest*cuda*' 30
tests conversions kernels_test '*Elementwise*cuda*:*Gelu*cuda*:*CrossEntropy*cuda*' 30
tests matmul kernels_test '*Matmul*cuda*' 60
tests attention-own kernels_test '*Attention*/cuda_own' 60
tests engine engine_test '*cuda*' 60

# ---- speed
# bench NAME SECONDS OPTION...: 0 if NAME.json is there.
bench() {
  local name=$1 time=$2
  shift 2
  run "$time" "bench-$name" "$lockstep" bench "$@" --device cuda --json "$out/$name.json"
}
# share ID FILE LINE LEAST
share() {
  judge "$1" "$(value "$2" "$3" share) >= $4" \
    "$(value "$2" "$3" gb_s) GB/s, $(value "$2" "$3" share) of the copy (at least $4), median $(value "$2" "$3" median) s"
}
bench optimizer 60 optimizer
code=$?
if ((code == 0)); then
  judge copy-bandwidth "$(value optimizer 'copy on the device' gb_s) > 0" "$(value optimizer 'copy on the device' gb_s) GB/s, $(value optimizer 'copy on the device' bytes) bytes of traffic"
  share adam-fp32 optimizer 'adamw fp32' 0.92
  share adam-bf16 optimizer 'adamw fp32 with a bf16 copy' 0.90
  share sgd-fp32 optimizer 'sgd with momentum fp32' 0.90
  judge norm-time "$(value optimizer 'gradient norm' median) <= 0.15e-3" "$(value optimizer 'gradient norm' median) s (at most 0.00015)"
else
  for id in copy-bandwidth adam-fp32 adam-bf16 sgd-fp32 norm-time; do note $id "$(result_of $code)" "$(why bench-optimizer $code)"; done
fi

bench step 150 step
code=$?
if ((code == 0)); then
  judge step-124m "$(value step step items_s) >= 500000" \
    "$(value step step items_s) tokens/s (at least 500000), $(value step step tflop_s) TFLOP/s, $(value step step share) of large products"
  figure() { awk -v key="\"$1\":" 'at = index($0, key) { text = substr($0, at + length(key)); gsub(/[ ,]/, "", text); print text; exit }' "$out/step.json"; }
  planned=$(figure planned_bytes) used=$(figure device_bytes)
  judge memory-vs-plan "${used:-0} > 0 && ($used - $planned)^2 <= (0.05 * $planned)^2" "${used:-0} bytes taken, $planned planned (within 5%)"
else
  for id in step-124m memory-vs-plan; do note $id "$(result_of $code)" "$(why bench-step $code)"; done
fi

bench gemm 60 gemm
code=$?
if ((code == 0)); then
  judge gemm-peak "$(value gemm 'bf16 square product' tflop_s) > 0" "$(value gemm 'bf16 square product' tflop_s) TFLOP/s, wide $(value gemm 'bf16 wide product' tflop_s), fp32 $(value gemm 'fp32 square product' tflop_s)"
  judge gemm "$(value gemm 'bf16 head y' share) > 0" "bf16 shares of it: qkv $(value gemm 'bf16 qkv y' share), fc $(value gemm 'bf16 fc y' share), fc dw $(value gemm 'bf16 fc dw' share), head $(value gemm 'bf16 head y' share)"
else
  for id in gemm-peak gemm; do note $id "$(result_of $code)" "$(why bench-gemm $code)"; done
fi
bench attention 60 attention
code=$?
if ((code == 0)); then
  judge attention "$(value attention 'bf16 backward' tflop_s) > 0" "bf16 forward $(value attention 'bf16 forward' tflop_s) TFLOP/s ($(value attention 'bf16 forward' share)), backward $(value attention 'bf16 backward' tflop_s) ($(value attention 'bf16 backward' share))"
else
  note attention "$(result_of $code)" "$(why bench-attention $code)"
fi

# ---- numbers of small jobs
cd "$jobs" || exit 2
awk 'BEGIN { s = 7; for (i = 0; i < 20000; ++i) { s = (s * 16807) % 2147483647; printf "%c", 97 + s % 8 * (s % 3) } }' >text.txt
cat >job.yaml <<'JOB'
model: {type: gpt2, n_layer: 2, n_head: 2, n_embd: 64, block_size: 64}
data: {type: text, path: text.txt, tokenizer: byte}
run: {steps: 50, eval_every: 0, log_every: 0, resume: never, output_dir: runs}
train_batch_size: 8
optimizer: {type: AdamW, params: {lr: 1.0e-3}}
JOB
# train NAME OPTION...: metrics are in runs/NAME.
train() {
  local name=$1
  shift
  run 60 "train-$name" "$lockstep" train job.yaml --set "run.name=$name" "$@"
}
column() { sed -n "s/.*\"$2\":\"\{0,1\}\([^,\"}]*\).*/\1/p" "runs/$1/metrics.jsonl"; }
# differs A B: the largest difference of losses, relative; 1 if one has fewer steps.
differs() {
  paste <(column "$1" loss) <(column "$2" loss) |
    awk 'NF != 2 { worst = 1 } NF == 2 { d = ($1 - $2) / $2; if (d < 0) d = -d; if (d > worst) worst = d } END { print NR ? worst + 0 : 1 }'
}
same_bits() { [[ -n $(column "$1" loss_bits) && $(column "$1" loss_bits) == "$(column "$2" loss_bits)" ]]; }
# all ID COMMAND...: notes the failure of the first that fails.
all_of() {
  local id=$1 code
  shift
  while (($#)); do
    eval "$1"
    code=$?
    if ((code != 0)); then note "$id" "$(result_of $code)" "$1: $(why "$(sed 's/^train \([^ ]*\).*/train-\1/' <<<"$1")" $code)" && return 1; fi
    shift
  done
}
gpu_job='--set run.device=cuda'
if all_of same-bits "train once $gpu_job" "train twice $gpu_job"; then
  if same_bits once twice; then note same-bits pass "50 steps, fp32"; else note same-bits FAIL "loss_bits differ in 50 steps"; fi
fi
if all_of fp32-vs-cpu "train cpu --set run.device=cpu"; then
  judge fp32-vs-cpu "$(differs once cpu) <= 1e-3" "largest relative difference of the loss in 50 steps $(differs once cpu) (at most 1e-3)"
fi
if "$lockstep" explain run.cuda_graph >/dev/null 2>&1; then
  if all_of graph-equals-eager "train eager $gpu_job --set run.cuda_graph=off" "train graph $gpu_job --set run.cuda_graph=auto"; then
    if same_bits eager graph; then note graph-equals-eager pass "50 steps, fp32"; else note graph-equals-eager FAIL "loss_bits differ"; fi
  fi
  small_step='step --set train_micro_batch_size_per_gpu=4 --set gradient_accumulation_steps=1'
  # shellcheck disable=SC2086  # words
  if bench step-eager 60 $small_step --set run.cuda_graph=off && bench step-graph 60 $small_step --set run.cuda_graph=auto; then
    note graph-gain pass "124M, micro-batch 4: eager $(value step-eager step median) s, graph $(value step-graph step median) s"
  else
    note graph-gain skip "see bench-step-eager.log and bench-step-graph.log"
  fi
else
  for id in graph-equals-eager graph-gain; do note $id skip "this build has no run.cuda_graph"; done
fi
if command -v mpirun >/dev/null; then
  two_ranks() {
    run 90 train-nccl mpirun -n 2 --oversubscribe "$lockstep" train job.yaml --set run.name=nccl $gpu_job --set run.steps=20 \
      --set comm.backend=nccl --set comm.share_gpu=true --set comm.timeout_s=60
  }
  if all_of nccl-two-ranks "train alone $gpu_job --set run.steps=20" two_ranks; then
    judge nccl-two-ranks "$(differs nccl alone) <= 1e-5" "largest relative difference of the loss in 20 steps $(differs nccl alone) (at most 1e-5)"
  fi
else
  note nccl-two-ranks skip "no mpirun"
fi
if all_of checkpoint-moves "train moved $gpu_job --set run.steps=10" "train moved --set run.device=cpu --set run.steps=20 --set run.resume=auto" \
  "train moved $gpu_job --set run.steps=30 --set run.resume=auto" "train stayed --set run.device=cpu --set run.steps=30"; then
  judge checkpoint-moves "$(differs moved stayed) <= 1e-3" "cuda, cpu, cuda: largest relative difference to cpu alone $(differs moved stayed) (at most 1e-3)"
fi
cd "$out" || exit 2

# ---- what takes longest
for tool in memcheck racecheck; do
  if ! command -v compute-sanitizer >/dev/null; then
    note $tool skip "no compute-sanitizer"
  elif [[ ! -x $bin/kernels_test ]]; then
    note $tool skip "no kernels_test beside lockstep"
  else
    run 200 "$tool" compute-sanitizer --tool $tool --error-exitcode 9 "$bin/kernels_test" --gtest_filter='*cuda*' --gtest_brief=1
    code=$?
    summary=$(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$out/$tool.log" | tail -n 1 | sed 's/^=* *//')
    if ((code == 0)); then note $tool pass "${summary:-0 errors}"; else note $tool "$(result_of $code)" "${summary:-$(why $tool $code)}"; fi
  fi
done

echo "== $(grep -c $'\tpass\t' "$results") passed, $(grep -c $'\tFAIL\t' "$results") failed, $(grep -c $'\tskip\t' "$results") left out, $SECONDS s: $results"
exit $failed

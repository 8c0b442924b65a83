#!/usr/bin/env bash
# tools/gpu_check.sh without a GPU: what it says then; that its ids are those of the checklist; and the whole of it with the
# CPU in the GPU's place, so that what it reads from programs is read from the real ones.
#
#   tools/gpu_check_test.sh FOLDER      the folder of the program lockstep
set -euo pipefail
bin=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
check=$root/tools/gpu_check.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

fail() {
  echo "gpu_check_test: $1" >&2
  shift
  for file; do sed 's/^/    /' "$file" >&2; done
  exit 1
}

# ---- ids
rows() { sed -n "s/^| \([a-z0-9-]*\) | .* | $1.*/\1/p" "$root/docs/gpu_checklist.md" | sort; }
taken=$("$check" --list | sort)
[[ -n $taken && -z $(uniq -d <<<"$taken") ]] || fail "ids are missing or twice"
missing=$(comm -23 <(echo "$taken") <(rows '' | sort -u)) && [[ -z $missing ]] || fail "not in docs/gpu_checklist.md: $missing"
[[ $(rows 'check') == "$taken" ]] || fail "lines that say 'check' are not those that it takes:
$(diff <(rows 'check') <(echo "$taken"))"
twice=$(sed -n 's/^| \([a-z0-9-]*\) | .*/\1/p' "$root/docs/gpu_checklist.md" | grep -vx -e id -e --- | sort | uniq -d)
[[ -z $twice ]] || fail "ids that stand twice in docs/gpu_checklist.md: $twice"

# ---- no GPU
if [[ ! -e /dev/nvidia0 ]]; then
  code=0
  "$check" --bin "$bin" --out "$work/none" >"$work/none.txt" 2>&1 || code=$?
  ((code == 77)) || fail "without a GPU its code is $code, not 77" "$work/none.txt"
  grep -q 'no GPU can be used here' "$work/none.txt" || fail "it does not say that there is no GPU" "$work/none.txt"
  [[ ! -e $work/none/results.tsv ]] || fail "without a GPU there are results"
fi

# ---- the CPU in the GPU's place
mkdir -p "$work/bin" "$work/tools" "$work/path"
cp "$check" "$work/tools"
cat >"$work/bin/lockstep" <<STUB
#!/usr/bin/env bash
# The real program, small and on the CPU; what it writes as a GPU would, of a GPU that is as good (or BAD) as can be.
args=() json= previous=
for word; do
  [[ \$previous != --json ]] || json=\$word
  previous=\$word
  case \$word in
    cuda) word=cpu ;;
    run.device=cuda) word=run.device=cpu ;;
    comm.backend=nccl) word=comm.backend=mpi ;;
    run.cuda_graph=*) word=run.seed=1 ;;
  esac
  args+=("\$word")
done
[[ \$1 != explain ]] || exit 0
if [[ \$1 == bench ]]; then
  args+=(--seconds 0)
  [[ " \${args[*]} " == *" --samples "* ]] || args+=(--samples 2)
  case \$2 in
    optimizer) [[ " \${args[*]} " == *" --elements "* ]] || args+=(--elements 50000) ;;
    gemm) args+=(--tokens 16 --width 32 --vocabulary 64 --peak 32) ;;
    attention) args+=(--batch 1 --length 16 --peak 32) ;;
    step) args+=(--peak 32 --set model.n_layer=1 --set model.n_head=2 --set model.n_embd=16 --set model.block_size=16) ;;
  esac
fi
"$bin/lockstep" "\${args[@]}" || exit
[[ -n \$json ]] || exit 0
share=0.95 median=1e-05
[[ -z \${BAD:-} ]] || share=0.5 median=1e-02
planned=\$(sed -n 's/.*"planned_bytes": \([0-9.]*\).*/\1/p' "\$json")
sed -i -e 's/4 reads and 3 writes in place/copy on the device/' -e "s/\"share\": .*/\"share\": \$share,/" \
  -e "s/\"median\": .*/\"median\": \$median,/" -e 's/"items_s": .*/"items_s": 600000.0,/' \
  -e "s/\"engine_bytes\"/\"device_bytes\": \$planned,\n    \"engine_bytes\"/" "\$json"
STUB
for program in kernels_test engine_test; do
  cat >"$work/bin/$program" <<'STUB'
#!/usr/bin/env bash
echo '[==========] Running 12 tests from 3 test suites.'
echo '[==========] 12 tests from 3 test suites ran. (5 ms total)'
echo '[  PASSED  ] 11 tests.'
echo '[  SKIPPED ] 1 test, listed below:'
echo '[  SKIPPED ] Something.On/cuda'
if [[ -n ${BAD:-} ]]; then
  echo '[  FAILED  ] 2 tests, listed below:'
  exit 1
fi
STUB
done
printf '#!/bin/sh\nshift 4\n"$@" >/dev/null && echo "========= ERROR SUMMARY: 0 errors"\n' >"$work/path/compute-sanitizer"
chmod +x "$work"/bin/* "$work/path/compute-sanitizer"

code=0
PATH=$work/path:$PATH "$work/tools/gpu_check.sh" --out "$work/good" >"$work/good.txt" 2>&1 || code=$?
((code == 0)) || fail "of a GPU that is as good as can be its code is $code" "$work/good.txt"
[[ $(grep -v '^#' "$work/good/results.tsv" | cut -f1 | sort) == "$taken" ]] ||
  fail "the results are not a line for each id" "$work/good/results.tsv"
others=$(grep -v '^#' "$work/good/results.tsv" | grep -v $'\tpass\t') && fail "not all passed: $others" "$work/good.txt"
grep -q '11 tests passed, 1 skipped' "$work/good/results.tsv" || fail "tests are not counted" "$work/good/results.tsv"
grep -Eq $'^adam-fp32\tpass\t[0-9.]+ GB/s, 0.95 of the copy' "$work/good/results.tsv" || fail "no figure" "$work/good/results.tsv"
grep -Eq $'^checkpoint-moves\tpass\t.*alone 0 ' "$work/good/results.tsv" || fail "no difference" "$work/good/results.tsv"
grep -q '^# commit' "$work/good/results.tsv" || fail "the results do not say what was measured"

code=0
BAD=1 "$work/tools/gpu_check.sh" --out "$work/bad" --limit 30 >"$work/bad.txt" 2>&1 || code=$?
((code == 1)) || fail "of a bad GPU its code is $code" "$work/bad.txt"
for line in $'kernels\tFAIL\t2 of 12 failed' $'adam-fp32\tFAIL\t' $'norm-time\tFAIL\t'; do
  grep -q "^$line" "$work/bad/results.tsv" || fail "no line '$line'" "$work/bad/results.tsv"
done

code=0
"$work/tools/gpu_check.sh" --out "$work/short" --limit 4 >"$work/short.txt" 2>&1 || code=$?
((code == 0)) || fail "of a run that is cut off its code is $code" "$work/short.txt"
grep -q $'^module-open\tpass\t' "$work/short/results.tsv" || fail "the first line of a run that is cut off" "$work/short.txt"
grep -q $'\tskip\t.*time is up' "$work/short/results.tsv" || fail "nothing is left out when time is up" "$work/short.txt"
echo 'gpu_check_test: passed'

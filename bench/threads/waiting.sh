#!/usr/bin/env bash
# What waiting threads cost: tokens a second alone on the machine and beside one busy process, for several settings in turn.
#
#   bench/threads/waiting.sh JOB [ROUNDS] SETTING [SETTING...]
#
# A setting is an `env` argument list: "LOCKSTEP=build/release/bin/lockstep GOMP_SPINCOUNT=1000"; LOCKSTEP names the program
# (default: build/release/bin/lockstep). Each round runs every setting once in each situation, one after the other, so that
# what else happens on the machine meets all of them; medians over the rounds are printed, ratios to the first setting and,
# beside a busy process, how many times as long a step takes as alone.
# RANKS (default "1x2 2x1") are the ranks x threads to try; STEPS (default 30) the steps of one run.
set -euo pipefail
(($# >= 2)) || { sed -n '4,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
job=$1
shift
rounds=5
if [[ $1 =~ ^[0-9]+$ ]]; then rounds=$1 && shift; fi
settings=("$@")
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
results=$(mktemp)
busy=
trap 'rm -f "$results"; [[ -z $busy ]] || kill "$busy"' EXIT

# tokens_per_s RANKS THREADS SETTING
tokens_per_s() {
  local ranks=$1 threads=$2 words program launcher=()
  read -r -a words <<<"$3"
  program=$(env "${words[@]}" sh -c 'echo "${LOCKSTEP:-build/release/bin/lockstep}"')
  if ((ranks > 1)); then launcher=(mpirun -n "$ranks"); fi
  env "${words[@]}" "${launcher[@]}" "$program" bench step "$job" --samples "${STEPS:-30}" --most-waited 1e6 --classes 63 \
    --set "run.threads=$threads" </dev/null | grep -oE '[0-9]+ (tokens|samples)/s' | cut -d' ' -f1
}

for ((round = 0; round < rounds; ++round)); do
  for situation in alone busy; do
    if [[ $situation == busy ]]; then
      while :; do :; done &
      busy=$!
    fi
    for layout in ${RANKS:-1x2 2x1}; do
      for i in "${!settings[@]}"; do
        rate=$(tokens_per_s "${layout%x*}" "${layout#*x}" "${settings[$i]}")
        echo "$situation $layout $i $rate" >>"$results"
      done
    done
    if [[ -n $busy ]]; then
      kill "$busy"
      wait "$busy" 2>/dev/null || true
      busy=
    fi
  done
done

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'; }
# rate SITUATION LAYOUT SETTING
rate() { awk -v s="$1" -v l="$2" -v i="$3" '$1 == s && $2 == l && $3 == i { print $4 }' "$results" | median; }
median() { sort -n | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'; }
for situation in alone busy; do
  for layout in ${RANKS:-1x2 2x1}; do
    first=
    for i in "${!settings[@]}"; do
      value=$(rate "$situation" "$layout" "$i")
      first=${first:-$value}
      longer=
      if [[ $situation == busy ]]; then longer="$(ratio "$(rate alone "$layout" "$i")" "$value") x alone  "; fi
      printf '%-5s %-4s %9.0f tokens/s  %s  %s%s\n' "$situation" "$layout" "$value" "$(ratio "$value" "$first")" "$longer" \
        "${settings[$i]}"
    done
  done
done

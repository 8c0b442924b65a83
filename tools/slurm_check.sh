#!/usr/bin/env bash
# What the pages say about Slurm, tried on a Slurm of one node that this script starts and ends: srun with pmix, its
# exit codes, a signal by scancel, and examples/slurm/train.sbatch put back into the queue.
#
#   tools/slurm_check.sh --program build/release/bin/lockstep      as root, with slurm-wlm, munge and a free port 6817
#
# Ends with 77 where there is no Slurm or it does not start, as ctest wants it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ ${1:-} == --program && -x ${2:-} ]] || {
  echo "usage: tools/slurm_check.sh --program PATH_OF_LOCKSTEP" >&2
  exit 2
}
program=$(realpath "$2")

skip() {
  echo "skipped: $*"
  exit 77
}
[[ $EUID == 0 ]] || skip "the daemons of Slurm need root"
for command in slurmctld slurmd srun sbatch munged runuser; do
  command -v "$command" > /dev/null || skip "there is no $command (Debian: slurm-wlm, munge)"
done

work=$(mktemp -d /tmp/lockstep-slurm-XXXXXX)
export SLURM_CONF=$work/slurm.conf
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
munge_ours=no
end() {
  local daemon
  scancel --user=root 2> /dev/null || true
  for daemon in slurmd slurmctld; do
    if [[ -s $work/$daemon.pid ]]; then kill "$(cat "$work/$daemon.pid")" 2> /dev/null || true; fi
  done
  if [[ $munge_ours == yes ]]; then pkill -x munged || true; fi
  rm -rf "$work"
}
trap end EXIT

fail() {
  echo "FAILED: $*" >&2
  cat "$work"/out* >&2 || true
  exit 1
}

mkdir "$work/state" "$work/spool"
cpus=$(nproc)
cat > "$SLURM_CONF" << EOF
ClusterName=one
SlurmctldHost=$(hostname)(127.0.0.1)
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
ReturnToService=2
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
if ! pgrep -x munged > /dev/null; then
  install -d -o munge -g munge /run/munge
  runuser -u munge -- munged || skip "munged does not start"
  munge_ours=yes
fi
slurmctld || skip "slurmctld does not start"
slurmd || skip "slurmd does not start"
for _ in {1..50}; do
  [[ $(sinfo -h -o %t 2> /dev/null) == idle ]] && break
  sleep 0.2
done
[[ $(sinfo -h -o %t) == idle ]] || skip "the node does not come up: $(sinfo -h)"
srun --mpi=list 2>&1 | grep -q pmix || skip "this Slurm has no pmix"
((cpus >= 2)) || skip "two ranks need two CPUs"

cd "$work"
mkdir bin
ln -s "$program" bin/lockstep
export PATH=$work/bin:$PATH
cat > job.yaml << EOF
model: {type: mlp, hidden: [16]}
data: {type: clusters, classes: 4, features: 8, samples: 512}
run: {name: r, output_dir: runs, steps: 20, log_every: 1}
train_batch_size: 8
EOF
long=(--set run.steps=100000000 --set run.log_every=1000)

# The value that a command ends with, its output in out.
code_of() {
  local code=0
  "$@" > out 2>&1 || code=$?
  echo "$code"
}
expect() {
  [[ $2 == "$3" ]] || fail "$1: $2 instead of $3"
  echo "ok: $1"
}

expect "srun starts two ranks" "$(code_of srun -n 2 --mpi=pmix lockstep train job.yaml)" 0
grep -q "2 ranks (mpi.*on 1 host" out || fail "the ranks do not know each other"
cp runs/r/checkpoints/step-20/model-00001-of-00002.safetensors of_srun
expect "mpirun on the same node" "$(code_of mpirun --oversubscribe -n 2 lockstep train job.yaml --resume never)" 0
cmp of_srun runs/r/checkpoints/step-20/model-00001-of-00002.safetensors || fail "srun and mpirun train differently"
echo "ok: with the same bits"

expect "an error in the job" "$(code_of srun -n 2 --mpi=pmix lockstep train job.yaml --set run.stepz=1)" 2
expect "srun without an MPI plugin" "$(code_of srun -n 2 --mpi=none lockstep train job.yaml --resume never)" 8
grep -q "srun --mpi=pmix" out || fail "the remedy is not named"

# A signal by scancel goes to every rank; srun returns 75.
srun -n 2 --mpi=pmix lockstep train job.yaml --resume never "${long[@]}" > out 2>&1 &
step=$!
for _ in {1..100}; do grep -q "step .*1000" out && break || sleep 0.1; done
scancel --signal=USR2 "$(squeue -h -o %i | head -1)"
code=0
wait $step || code=$?
expect "scancel --signal=USR2 of a step" "$code" 75
grep -q "^checkpoint" out || fail "nothing was saved"

# The script of the examples, in a batch job; --signal=B:USR2@300 does what this scancel does.
sbatch --ntasks=2 --output=out.batch "$root/examples/slurm/train.sbatch" job.yaml > out 2>&1 || fail "sbatch refuses"
id=$(grep -o '[0-9]*$' out)
for _ in {1..150}; do grep -q "done: 20 steps\|already complete\|nothing to do" out.batch 2> /dev/null && break || sleep 0.2; done
grep -q . out.batch || fail "the batch job wrote nothing"
for _ in {1..50}; do [[ -z $(squeue -h -j "$id" 2> /dev/null) ]] && break || sleep 0.2; done
expect "train.sbatch ends with its run" "$(scontrol show job "$id" | grep -o 'ExitCode=[0-9]*')" ExitCode=0

sed -i 's/steps: 20/steps: 100000000/; s/name: r,/name: long,/; s/log_every: 1}/log_every: 1000}/' job.yaml
sbatch --ntasks=2 --output=out.long "$root/examples/slurm/train.sbatch" job.yaml > out 2>&1 || fail "sbatch refuses"
id=$(grep -o '[0-9]*$' out)
for _ in {1..150}; do grep -q "step .*2000" out.long 2> /dev/null && break || sleep 0.2; done
scancel --batch --signal=USR2 "$id"
for _ in {1..100}; do scontrol show job "$id" | grep -q Restarts=1 && break || sleep 0.2; done
expect "train.sbatch saves and goes back into the queue" "$(scontrol show job "$id" | grep -o 'Restarts=[0-9]*')" \
  Restarts=1
grep -q "^checkpoint" out.long || fail "nothing was saved"
scancel "$id"

#!/usr/bin/env bash
# The paper's run under Slurm, on 4 machines with 8 Ascend 910 each (cc3m_diffdis_32p.yaml), from the repository's directory:
#   sbatch ascend_configs/slurm.sh [key=value ...]
# One task a machine, where tools/launch.sh starts the 8 processes. All machines need this directory and the environment under the same path;
# VENV=DIR picks the environment (default: .venv). 300 s before Slurm takes the machines back the run saves a checkpoint and ends with
# code 143; the same command goes on from there.
#SBATCH --job-name=diffdis
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --signal=B:TERM@300
#SBATCH --output=slurm_%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start it with sbatch}"
export logs=logs/slurm_$SLURM_JOB_ID
mkdir -p "$logs"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1')           # this script runs there (head would end the pipe early)
address=$(getent ahostsv4 "$first" | awk 'NR == 1 { print $1 }')
export address
# Only the first machine's launcher is told: all processes agree to stop at the same step. Signals to all of the job would hit msrun, too.
trap 'kill -TERM "$(cat "$logs/launcher_0")"' TERM
srun --kill-on-bad-exit=1 bash -c 'echo $$ > "$logs/launcher_$SLURM_NODEID"
exec bash tools/launch.sh 8 --nodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --address "$address" --port 8118 --logs "$logs/node_$SLURM_NODEID" \
  --max-restarts 3 tools/train.py --config ascend_configs/cc3m_diffdis_32p.yaml "$@"' diffdis "$@" &
job=$! code=0
while kill -0 "$job" 2> /dev/null; do
  wait "$job" && code=0 || code=$?
done
exit "$code"

#!/usr/bin/env bash
# A comparison as one array job of Slurm: one network a task of the array, then one job that
# measures and writes the report.
#
#   OUT=/shared/results examples/slurm.sh compression --preset small --train-data DIR --test-data DIR
#
# The arguments are those of `run`. OUT is a folder that every node sees (results). SBATCH holds
# options for every job ("--gres=gpu:1 --time=4:00:00"), AT_ONCE how many run at once (50), PYTHON
# the interpreter (python). Give the same command again after a failure: what is stored is not
# trained again, and a network that was stopped goes on from its last checkpoint.
set -euo pipefail

out=${OUT:-results}
read -r -a more <<< "${SBATCH:-}"
program=$(cd "$(dirname "$0")/.." && pwd)/run_bench.py
run=("${PYTHON:-python}" "$program" run "$@" --out "$out")

mkdir -p "$out"
cells=$(cd "$out" && pwd)/cells.txt
"${run[@]}" --dry > "$cells" # a command per missing network
count=$(wc -l < "$cells")
echo "$count networks to train"

after=()
if ((count > 0)); then
    # Each task of the array runs its own line.
    line="sed -n \"\${SLURM_ARRAY_TASK_ID}p\" $(printf '%q' "$cells") | bash"
    array=$(sbatch --parsable "${more[@]}" --array="1-$count%${AT_ONCE:-50}" --wrap "$line")
    after=(--dependency="afterany:${array%%;*}")
fi
sbatch "${more[@]}" "${after[@]}" --wrap "$(printf '%q ' "${run[@]}")"

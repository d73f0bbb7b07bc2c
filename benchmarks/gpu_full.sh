#!/usr/bin/env bash
# Everything that is measured on a GPU, in order: is it right, how fast is each part, how fast to accuracy, beside rivals.
#
#   benchmarks/gpu_full.sh OUT [STAGE ...]
#
# OUT      folder for results and logs; standard.json belongs into benchmarks/results/, loader.json into
#          benchmarks/results/loaders/, the folders of records/ into benchmarks/records/
# STAGE    check loader step suite records rn18 rivals (all of them, in this order, where none is named)
#
# Settings by environment, because a machine that is lent for minutes is told what fits:
#   RUNS      runs of each speed recipe (25)
#   SECONDS_A_STAGE  a stage is stopped after this long (570)
#   COMMIT    the commit of this tree, where it came without its git folder
#   RIVALS    folder with rivals' scripts, each printing {"seconds": .., "accuracy": ..} as its last line (none: no rivals)
#   FASTRESNET_DATA  the real CIFAR-10, as everywhere
# A stage that fails or runs out of time is reported at the end, and the others still run. Exit code 1 if any failed.
set -u
cd "$(dirname "$0")/.."
OUT=${1:?usage: benchmarks/gpu_full.sh OUT [STAGE ...]}
shift
STAGES=${*:-check loader step suite records rn18 rivals}
RUNS=${RUNS:-25}
LIMIT=${SECONDS_A_STAGE:-570}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
commit=${COMMIT:+--commit $COMMIT}
mkdir -p "$OUT/records"
failed=

limited() {  # limited NAME COMMAND...: run with the stage's time limit, keep its output, report its code
    local name=$1 code
    shift
    echo "== $name: $*"
    timeout --signal=INT --kill-after=20 "$LIMIT" "$@" 2>&1 | tee "$OUT/$name.log" | tail -n 25
    code=${PIPESTATUS[0]}
    [ "$code" -eq 0 ] || { failed="$failed $name($code)"; echo "== $name: exit code $code"; }
}

record() {  # record RECIPE RUNS [more]: a record of one recipe, by the protocol
    local recipe=$1 runs=$2
    shift 2
    # shellcheck disable=SC2086  # $commit is an option and its value, or nothing
    limited "record-$recipe" "$PYTHON" benchmarks/reproduce.py --config "$recipe.yaml" --runs "$runs" \
        --out "$OUT/records/$recipe" $commit "$@"
}

"$PYTHON" - <<'PY' || exit 1
import torch
if not torch.cuda.is_available():
    raise SystemExit("error: this script measures a CUDA GPU, and PyTorch sees none here")
print(torch.cuda.get_device_name(0), "torch", torch.__version__)
PY

for stage in $STAGES; do
    case $stage in
    check) limited check "$PYTHON" -m pytest -m gpu -q tests ;;
    loader)
        limited tune "$PYTHON" benchmarks/loader.py --tune --json "$OUT/tune.json"
        limited loader "$PYTHON" benchmarks/loader.py --json "$OUT/loader.json" --plot "$OUT/loader.png"
        ;;
    step) limited step "$PYTHON" benchmarks/run.py --suite standard --only ceilings,step --out "$OUT/step.json" \
        --profile "$OUT/profile" ;;
    suite) limited suite "$PYTHON" benchmarks/run.py --suite standard --out "$OUT/standard.json" ;;
    records)
        record speed94 "$RUNS"
        record speed95 "$((RUNS / 5 + 1))"
        record speed96 "$((RUNS / 5 + 1))"
        ;;
    rn18)
        limited rn18 "$PYTHON" scripts/train.py --config rn18.yaml --run.dir="$OUT/rn18" --run.report=false
        record rn18-94 3
        record rn18-96 3
        ;;
    rivals)
        for script in ${RIVALS:+"$RIVALS"/*.py}; do
            name=$(basename "$script" .py)
            case $name in *96*) recipe=speed96 ;; *) recipe=speed94 ;; esac
            # shellcheck disable=SC2086
            limited "versus-$name" "$PYTHON" benchmarks/reproduce.py --config "$recipe.yaml" --runs "$((RUNS / 5 + 1))" \
                --out "$OUT/records/$recipe-versus-$name" --versus "$PYTHON $script" --versus-name "$name" $commit
        done
        ;;
    *)
        echo "unknown stage $stage: check loader step suite records rn18 rivals" >&2
        exit 2
        ;;
    esac
done

nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,power.limit,temperature.gpu --format=csv > "$OUT/gpu.csv"
echo "== done${failed:+, failed:$failed}"
[ -z "$failed" ]

#!/usr/bin/env bash
# Everything that is measured on a GPU that is lent for minutes: is it right, how fast to accuracy, beside rivals,
# how fast each part.
#
#   benchmarks/gpu_full.sh --pack CARGO [WHEELS]   here: packages and data for that machine, in pieces to send
#   benchmarks/gpu_full.sh OUT [STAGE ...]         there: unpack what came, run stages, results into OUT
#   benchmarks/gpu_full.sh --dry [OUT [STAGE ...]] here: all of it at tiny size on the CPU, from a tree without git
#
# OUT      gets results.tar.gz, packed anew after each stage: folders of records/ belong into benchmarks/records/,
#          step.json into benchmarks/results/, loader.json into benchmarks/results/loaders/; the rest is to read
# STAGE    check speed94 rn18-94 loader speed95 speed96 rivals step: all in this order, where none is named, but
#          those that ended well in an earlier call; and by name tune (changes to speed94 that compute the same,
#          beside it), kernel (the augmentation's block sizes) and suite (the standard suite)
#
# Settings by environment, because what fits is told when the machine is there:
#   CARGO     what was sent, packed by --pack (runs/cargo); pieces may come one call at a time
#   HOLD      what is kept from call to call: packages, betons, unfinished records (runs/gpu)
#   RUNS      runs of speed94 (100); the longer recipes make fewer
#   TOTAL     seconds for all stages of a call together (570: a call may be ended after 600); the same call goes on
#   COMMIT    the commit of this tree, where it came without its git folder
#   RIVALS    folder with rivals' scripts, each printing {"seconds": .., "accuracy": ..} as its last line
#   PYTHON    the interpreter; the dry run takes IMAGE, or what `make image` made: Python and PyTorch of such a machine
# Each stage ends in time, whatever happens: a record stops before a run that would end too late, says how many are
# done, and the same command goes on with it. A missed target is a result; exit code 1 where a stage failed.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
STAGES="check speed94 rn18-94 loader speed95 speed96 rivals step"

pack() {  # pack CARGO [WHEELS]
    "$PYTHON" benchmarks/cargo.py pack "$1" ${2:+--wheels "$2"} ${FASTRESNET_DATA:+--data "$FASTRESNET_DATA"}
}

dry() {  # dry OUT [STAGE ...]: the script itself, in a copy of the tree, on what it packed
    local work python=$PYTHON out=$1 image=${IMAGE:-$PWD/.image/bin/python}
    shift
    work=$(mktemp -d)
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work/tree" "$work/data" "$work/rivals" "$work/bin"
    git archive "$(git stash create || true)$([ -n "$(git status --porcelain -uno)" ] || git rev-parse HEAD)" |
        tar -x -C "$work/tree" || exit 1
    case $python in /*) ;; *) python=$(command -v "$python" || echo "$PWD/$python") ;; esac
    [ -x "$image" ] || image=$python
    "$python" tests/bare_image.py "$work" "$image" || exit 1
    ln -s /usr/local/bin/* /usr/bin/* /bin/* "$work/bin" 2> /dev/null
    rm -f "$work/bin/git"  # such an image may lack it
    echo 'print("{\"seconds\": 1.0, \"accuracy\": 0.1}")' > "$work/rivals/other94.py"
    FASTRESNET_DATA=$work/data pack "$work/cargo" "${WHEELS:-}" || exit 1
    # one thread: work this small gains nothing from more, and two on a busy machine wait for each other
    env -u FASTRESNET_DATA PATH="$work/bin" OMP_NUM_THREADS=1 CARGO="$work/cargo" HOLD="$work/hold" DRY=1 \
        RUNS=2 TOTAL=1470 RIVALS="$work/rivals" COMMIT="$(git rev-parse HEAD)" PYTHON="$work/python" \
        bash "$work/tree/benchmarks/gpu_full.sh" "$out" "$@" || exit 1
}

case ${1:-} in
--pack) pack "${2:?usage: benchmarks/gpu_full.sh --pack CARGO [WHEELS]}" "${3:-}"; exit ;;
--dry) dry "$(realpath -m "${2:-runs/gpu-dry}")" "${@:3}"; exit ;;
esac

OUT=${1:?usage: benchmarks/gpu_full.sh OUT [STAGE ...]}
shift
NAMED=$*
STAGES=${NAMED:-$STAGES}
CARGO=${CARGO:-runs/cargo}
HOLD=$(realpath -m "${HOLD:-runs/gpu}")
RESULTS=$HOLD/results
RUNS=${RUNS:-100}
TOTAL=${TOTAL:-570}
mkdir -p "$OUT" "$RESULTS/records"
export PYTHONPATH=$PWD:$HOLD/packages${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
failed=

if [ -n "${DRY:-}" ]; then  # tiny: does it run?
    TINY="--train.epochs=1 --train.batch_size=64 --eval.batch_size=64 --model.width=0.125 --train.precision=fp32
        --train.compile=off --train.cuda_graph=false --run.device=cpu --data.kernel=rows"
    LOADER="--images 300 --seconds 0.3 --batch-size 100 --device cpu" STEP="--scale tiny --device cpu"
fi

time_for() {  # time_for WANTED: so many seconds, or what is left of all
    local left=$((TOTAL - SECONDS))
    echo $(($1 < left ? $1 : left))
}

limited() {  # limited NAME SECONDS COMMAND...: run at most so long, keep its output, report its code
    local name=$1 wanted=$2 seconds code
    seconds=$(time_for "$wanted")
    shift 2
    # with less than half of its time a stage might only warm up
    [ $((2 * seconds)) -ge "$wanted" ] || { failed="$failed $name(no time left)"; return; }
    echo "== $name (at most $seconds s): $*"
    timeout --signal=INT --kill-after=20 "$seconds" "$@" 2>&1 | tee "$RESULTS/$name.log" | tail -n 25
    code=${PIPESTATUS[0]}
    [ "$code" -eq 0 ] && return
    # a record that is written is a result, be its target missed or its time up
    case $name in record-*) [ -f "$RESULTS/records/${name#record-}/record.json" ] && return ;; esac
    failed="$failed $name($code)"
    echo "== $name: exit code $code"
}

record() {  # record NAME RECIPE RUNS SECONDS [more]: a record of one recipe, by the protocol
    local name=$1 recipe=$2 runs=$3 wanted=$4 seconds
    seconds=$(time_for "$wanted")
    shift 4
    # shellcheck disable=SC2086  # options and their values, or nothing
    limited "record-$name" "$wanted" "$PYTHON" benchmarks/reproduce.py --config "$recipe.yaml" --runs "$runs" \
        --seconds "$((seconds > 90 ? seconds - 60 : 30))" --out "$RESULTS/records/$name" \
        ${COMMIT:+--commit $COMMIT} "$@" ${TINY:-}
}

tune() {  # what computes the same otherwise, the recipe as it is before and after: it tells drift from difference
    local one name seconds change
    for one in as-it-is:100 whiten-32:120:--model.whiten_channels=32 \
        autotuned:250:--train.compile=max-autotune-no-cudagraphs as-it-is-again:80; do
        IFS=: read -r name seconds change <<< "$one"
        case "${TINY:-}" in *"${change%%=*}="*) change= ;; esac  # what is said of tiny runs holds
        record "tune-$name" speed94 "$((RUNS / 4 + 1))" "$seconds" ${change:+"$change"}
    done
}

rivals() {
    local script name recipe
    for script in ${RIVALS:+"$RIVALS"/*.py}; do
        name=$(basename "$script" .py)
        case $name in *95*) recipe=speed95 ;; *96*) recipe=speed96 ;; *) recipe=speed94 ;; esac
        record "$recipe-versus-$name" "$recipe" "$((RUNS / 10 + 2))" 150 --versus "$PYTHON $script" --versus-name "$name"
    done
}

results() {  # all but weights in one archive under 16 MiB; traces go first where it is too large
    local more
    for more in "" "--exclude=profile" "--exclude=*.log"; do
        # shellcheck disable=SC2086
        tar -czf "$OUT/results.tar.gz" -C "$HOLD" --exclude=checkpoints --exclude='*.pt' $more results
        [ "$(stat -c %s "$OUT/results.tar.gz")" -lt $((16 * 1024 * 1024)) ] && return
    done
    failed="$failed results(larger than 16 MiB)"
}

"$PYTHON" benchmarks/cargo.py unpack "$CARGO" "$HOLD" || exit 1
[ -d "$HOLD/betons" ] && export FASTRESNET_DATA=$HOLD/betons
"$PYTHON" - <<'PY' || exit 1
import os
import torch
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(0), "torch", torch.__version__)
elif "DRY" not in os.environ:
    raise SystemExit("error: this script measures a CUDA GPU, and PyTorch sees none here")
PY
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,power.limit,temperature.gpu --format=csv \
    > "$RESULTS/gpu.csv" 2> /dev/null || true

for stage in $STAGES; do
    [ -z "$NAMED" ] && [ -e "$HOLD/$stage.done" ] && continue
    before=$failed
    # shellcheck disable=SC2086
    case $stage in
    # files of processes that begin anew and compile come last; what other versions warn of is told, no failure
    check) limited check 280 env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$PYTHON" -m pytest -m gpu -q -p no:cacheprovider \
        -W default --continue-on-collection-errors $(grep -l "mark\.gpu" tests/test_[!d]*.py tests/test_d*.py) ;;
    speed94) record speed94 speed94 "$RUNS" 300 ;;
    rn18-94) record rn18-94 rn18-94 "$((RUNS / 25 + 1))" 200 ;;
    loader) limited loader 120 "$PYTHON" benchmarks/loader.py --json "$RESULTS/loader.json" ${LOADER:-} ;;
    speed95) record speed95 speed95 "$((RUNS / 5 + 1))" 150 ;;
    speed96) record speed96 speed96 "$((RUNS / 5 + 1))" 240 ;;
    rivals) [ -n "${RIVALS:-}" ] || continue; rivals ;;
    step) limited step 200 "$PYTHON" benchmarks/run.py --suite quick --only ceilings,step --budget 110 \
        --profile "$RESULTS/profile" --out "$RESULTS/step.json" ${STEP:-} ;;
    tune) tune ;;
    kernel) limited kernel 120 "$PYTHON" benchmarks/loader.py --tune --json "$RESULTS/kernel.json" ;;
    suite) limited suite 530 "$PYTHON" benchmarks/run.py --suite standard --budget 500 \
        --out "$RESULTS/standard.json" ;;
    *)
        echo "unknown stage $stage: check speed94 rn18-94 loader speed95 speed96 rivals step tune kernel suite" >&2
        exit 2
        ;;
    esac
    [ "$failed" = "$before" ] && touch "$HOLD/$stage.done"
    results
done
echo "== done${failed:+, failed:$failed}"
[ -z "$failed" ]

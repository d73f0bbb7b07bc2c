"""The command `fastresnet`: one list of names, each a module's main; what is wrong is one line and exit 2."""

import importlib
import inspect
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import fastresnet
from fastresnet import __main__ as command
from fastresnet.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent
SCRIPTS = {*ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/*.py")} - {ROOT / "benchmarks/cargo.py"}


def test_help_and_no_word_at_all_list_every_command_in_a_line(capsys):
    for words in (["--help"], []):
        assert command.main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        for name, (_, what) in COMMANDS.items():
            assert f"{name:<13}{what}" in lines and len(what) < 67


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_main_that_takes_words(name):
    main = importlib.import_module(f"fastresnet.{COMMANDS[name][0]}").main
    argv = inspect.signature(main).parameters["argv"]
    assert argv.default is None and len(inspect.signature(main).parameters) == 1


def test_each_script_calls_the_command_of_its_name_and_no_command_lacks_a_script():
    called = {re.search(r'run\("([\w-]+)"', path.read_text())[1]: path for path in SCRIPTS}
    assert set(called) == set(COMMANDS)
    renamed = {"bench": "run", "loaders": "loader"}
    for name, path in called.items():
        assert path.stem == renamed.get(name, name.replace("-", "_"))
        assert f"See fastresnet/{COMMANDS[name][0].replace('.', '/')}.py" in path.read_text()


@pytest.mark.parametrize(("word", "hint"), [
    ("trian", "Did you mean train?"), ("find_lr", "Did you mean find-lr?"),
    ("xyzzy", "--help lists them all"),
])  # fmt: skip
def test_an_unknown_command_is_one_line_with_what_was_meant(capsys, word, hint):
    assert command.main([word]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.endswith(f"{hint}\n")
    assert err.startswith(f"error: there is no command '{word}'. ")


def test_on_a_terminal_a_command_says_at_once_that_it_begins(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert command.run("compare", ["none.json"]) == 2
    assert capsys.readouterr().err == "starting ...\r\x1b[Kerror: none.json: no such file\n"


def test_a_command_is_called_by_its_name_and_gives_its_exit_code(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fastresnet"])
    with pytest.raises(SystemExit):
        command.main(["find-lr", "--help"])
    assert capsys.readouterr().out.startswith("usage: fastresnet find-lr ")
    assert command.main(["train", "--config", "nothing"]) == 2
    assert "no file and no recipe is called nothing" in capsys.readouterr().err


def test_ctrl_c_while_a_command_is_imported_is_no_traceback(capsys, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert command.run("train", []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_python_m_fastresnet_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "fastresnet", "--version"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, f"{fastresnet.__version__}\n")


# ---- wrong command lines -----------------------------------------------------------------------------------

DEEP = "deep.yaml"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --config deep.yaml", "deep.yaml: broken YAML: it is nested too deeply to be read"),
        ("train --config", "argument --config: expected one argument"),
        ("train --train.epochs", "--train.epochs needs a value"),
        ("train --run.device=gpu", "run.device must be one of auto, cpu, cuda, cuda:1, mps, got 'gpu'"),
        ("train --run.device=mps", "run.device=mps: PyTorch sees no Apple GPU here"),
        ("train --run.device=cuda:7", "run.device=cuda:7: PyTorch sees "),
        ("train --train.resolutions=[[1,3]]", "shares up to 1 and whole px from 8 on, got [[1.0, 3.0]]"),
        ("train --config smoke --train.batch_size=1", "train.batch_size=1 gives model.arch=speednet one"),
        ("train --train.hard_fraction=0.001", "train.hard_fraction=0.001 of train.batch_size=512 is less"),
        ("train --seeds=0", "argument --seeds: must lie between 1 and 1,000, got 0"),
        ("train --seeds=-1", "argument --seeds: must lie between 1 and 1,000, got -1"),
        ("train --seeds=1.5", "argument --seeds: must be a whole number between 1 and 1,000, got 1.5"),
        ("train --seeds=five", "argument --seeds: must be a whole number between 1 and 1,000, got 'five'"),
        ("train --seeds", "argument --seeds: expected one argument"),
        ("train --seeds=2 --run.seed=0", "run.seed=0: a series of n seeds has 0 to n-1: leave run.seed out"),
        ("train --seeds=2 --run.resume=x", "run.resume=x goes on with one run; a series goes on by the same"),
        ("train --sweep=optim.lr", "--sweep=optim.lr: it wants a setting and its values: optim.lr=0.05,0.1"),
        ("train --sweep=optim.learning_rate=1,2", "unknown key optim.learning_rate. Did you mean optim.lr?"),
        ("train --sweep=optim.lr=0.1", "sweep of optim.lr: two values or more are wanted, got [0.1]"),
        ("train --sweep=optim.lr=0.1,x", "sweep: optim.lr must be a number above 0, got 'x'"),
        ("train --sweep=optim.lr=0.1,-1", "sweep: optim.lr must be above 0, got -1"),
        ("train --sweep=optim.lr=0.1,0.1", "sweep of optim.lr: two values are called lr=0.1-s0"),
        ("train --sweep=optim.lr=[0.1,2", "--sweep=optim.lr=[0.1,2: broken YAML"),
        ("train --sweep=optim.lr=1,2 --optim.lr=3", "sweep of optim.lr: it is set too, to 3.0: leave one"),
        ("train --sweep=run.seed=1,2", "sweep of run.seed: it changes no result (several seeds: --seeds"),
        ("train --sweep=optim.name=sgd,sdg", "sweep: optim.name must be one of sgd, adam, adamw, muon, got"),
        ("find-lr --low=0", "argument --low: must be above 0, got 0"),
        ("find-lr --low=x", "argument --low: must be a number above 0, got 'x'"),
        ("find-lr --high=-1", "argument --high: must be above 0, got -1"),
        ("find-lr --steps=3", "argument --steps: must lie between 10 and 10,000, got 3"),
        ("find-lr --plot=x.doc", "argument --plot: must end in one of .png, .svg, .pdf, .jpg, got 'x.doc'"),
        ("find-lr --use=best", "argument --use: invalid choice: 'best'"),
        ("describe model --size=0", "argument --size: must lie between 8 and 65,535, got 0"),
        ("describe model --classes=0", "argument --classes: must lie between 1 and 1,000,000, got 0"),
        ("describe data --images=0", "argument --images: must lie between 1 and 100, got 0"),
        ("describe data --beton=gone.beton", "gone.beton"),
        ("describe everything", "argument what: invalid choice: 'everything'"),
        ("predict", "the following arguments are required: FILE|FOLDER|-, --checkpoint"),
        ("predict x.png --checkpoint=gone", "gone: no such checkpoint"),
        ("predict x.png --checkpoint=gone --top=0", "argument --top: must be at least 1, got 0"),
        ("predict x.png --checkpoint=gone --grid=x.doc", "argument --grid: must end in one of .png"),
        ("predict x.png --checkpoint=gone --gradcam=x", "argument --gradcam: must end in one of .png"),
        ("evaluate --checkpoint=gone", "gone: no such checkpoint"),
        ("evaluate --checkpoint=.", "checkpoints/last.pt"),
        ("evaluate --checkpoint=gone --split=all", "argument --split: invalid choice: 'all'"),
        ("export --checkpoint=gone --formats=doc", "--formats must name some of safetensors, onnx"),
        ("convert --source=disk", "argument --source: invalid choice: 'disk'"),
        ("convert --max-size=0", "argument --max-size: must be at least 1, got 0"),
        ("convert --quality=0 --source=batches --root=.", "data.jpeg_quality must lie between 1 and 100"),
        ("convert --verify=gone.beton", "gone.beton"),
        ("report gone", "gone"),
        ("report", "the following arguments are required: RUN"),
        ("compare gone.json", "gone.json: no such file"),
        ("bench --device=gpu", "--device=gpu: use auto, cpu, cuda, cuda:1 or mps"),
        ("bench --only=nothing", "nothing"),
        ("train --config=nothing", "no file and no recipe is called nothing. The recipes are adam-best"),
        ("train --optim.lr=fast", "--optim.lr must be a number above 0, got 'fast'"),
        ("train --optim.momentum=1.5", "--optim.momentum must lie between 0 and 0.9999, got 1.5"),
        ("train --train.epochs=0", "--train.epochs must be above 0 and at most 100,000, got 0"),
        ("train --train.batch_size=auto", "got 'auto' (train.accumulate=0 finds parts that fit)"),
        ("train --train.precision=fp8", "--train.precision must be one of auto, fp32, tf32, fp16, bf16"),
        ("train --train.compile=fast", "--train.compile must be one of auto, off, default"),
        ("train --train.extras=[blur]", "got ['blur'] (erasing 0.25 is one, say)"),
        ("train --train.checkpoint_every=often", "got 'often' (60s, 500 steps or off)"),
        ("train --model.arch=resnet99", "--model.arch must be one of resnet, speednet, resnet9"),
        ("train --model.arch=nowhere:net", "model.arch=nowhere:net: there is no module nowhere here"),
        ("train --model.depth=17", "model.depth must be one of"),
        ("train --model.stage_widths=64,0", "whole numbers between 1 and 100,000 or null, got [64, 0]"),
        ("train --model.pretrained=gone", "model.pretrained: gone: no such file"),
        ("train --model.freeze=[nothing]", "model.freeze"),
        ("train --data.source=disk", "--data.source must be one of auto, torchvision, parquet, batches"),
        ("train --data.subset=-5", "--data.subset must be above 0, got -5"),
        ("train --data.val_fraction=0.99", "--data.val_fraction must lie between 0 and 0.9, got 0.99"),
        ("train --data.workers=-1", "--data.workers must lie between 0 and 1,024, got -1"),
        ("train --eval.tta=all", "--eval.tta must be one of none, flip, crops, got 'all'"),
        ("train --eval.target=94", "--eval.target must be above 0 and at most 1, got 94"),
        ("train --schedule.name=step", "--schedule.name must be one of onecycle, cosine, linear"),
        ("train --schedule.warmup_fraction=2", "between 0 and 1, got 2 (a share of the run, not epochs)"),
        ("train --run.seed=-1", "--run.seed must lie between 0 and 2,147,483,647, got -1"),
        ("train --run.loggers=[mlflow]", "a list of names from tensorboard, wandb, got ['mlflow']"),
        ("train --run.resume=gone", "gone: no such checkpoint"),
        ("train --run.hang_after=-3", "--run.hang_after must be at least 0, got -3"),
        ("train --data.sorce=auto", "unknown key data.sorce. Did you mean data.source?"),
        ("train --optim=0.1", "unknown option --optim. Did you mean --optim.lr?"),
        ("train surplus", "don't know what to do with 'surplus': a setting is given as --section.key"),
        ("evaluate", "the following arguments are required: --checkpoint"),
        ("export", "the following arguments are required: --checkpoint"),
        ("convert --out", "argument --out: expected one argument"),
        ("convert --source=synthetic --data.synthetic_train=1", "synthetic_train must be at least 10"),
        ("compare", "the following arguments are required: FILE"),
        ("compare gone.json there.json --gate=fast", "argument --gate: 'fast' is no number"),
        ("bench --suite=huge", "argument --suite: invalid choice: 'huge'"),
        ("bench --budget=0", "argument --budget: must be above 0, got 0"),
        ("bench --budget=-1", "argument --budget: must be above 0, got -1"),
        ("bench --only=accuracy", "suite quick has no case in accuracy"),
        ("bench --device=cuda:99", "--device=cuda:99"),
        ("bench --gpu", "unrecognized arguments: --gpu"),
        ("bench --processes=0", "argument --processes: must be at least 1, got 0"),
        ("bench --against=nowhere", "--against nowhere: no folder with a checkout of fastresnet"),
        ("bench --operators=nothing", "no file and no recipe is called nothing"),
        ("reproduce --runs=0", "argument --runs: must lie between 1 and 100,000, got 0"),
        ("reproduce --target=94", "--target must lie between 0 and 1, got 94 (a share, not percent)"),
        ("reproduce --versus=nothing-here", "there is no program 'nothing-here'"),
        ("reproduce --seconds=0", "argument --seconds: must be above 0, got 0"),
        ("search", "the following arguments are required: --space"),
        ("search --space=gone.yaml", "gone.yaml: can't be read: No such file or directory"),
        ("search --space=gone.yaml --trials=0", "argument --trials: must lie between 1 and 100,000, got 0"),
        ("plan --gpu=Voodoo", "--gpu Voodoo: known are B200, H200, H100, A100"),
        ("plan", "the following arguments are required: --gpu"),
        ("leaderboard surplus", "unrecognized arguments: surplus"),
        ("loaders --images=-1", "argument --images: must be at least 1, got -1"),
        ("loaders --only=nothing", "--only nothing: there are resident, stream, ffcv, torchvision"),
        ("loaders --batch-size=0", "argument --batch-size: must be at least 1, got 0"),
        ("loaders --threads=-1", "argument --threads: must be at least 1, got -1"),
        ("loaders --seconds=0", "argument --seconds: must be above 0, got 0"),
        ("loaders --images=100 --device=cpu", "--images 100: two batches of 384 need 768 or more"),
        ("train --run.dir=", "--run.dir must be text (not empty, in UTF-8) or null, got ''"),
        ("train --data.workers=100000", "--data.workers must lie between 0 and 1,024, got 100000"),
        ("train --data.image_size=1", "data.image_size=1: networks here take 8 px or more"),
        ("train --model.stage_blocks=99999", "whole numbers between 1 and 1,000 or null, got [99999]"),
        ("train --model.width=64 --model.stage_widths=99999,99999,99999,99999", "the network's weights"),
        ("train --sweep=optim.lr=1,2 --sweep=optim.momentum=0,0.5", "--sweep: one setting at a time"),
        ("find-lr --steps=99999999999", "argument --steps: must lie between 10 and 10,000"),
        ("describe model --size=999999999999", "argument --size: must lie between 8 and 65,535"),
        ("describe model --classes=999999999999", "argument --classes: must lie between 1 and 1,000,000"),
        ("describe data --images=99999999999", "argument --images: must lie between 1 and 100"),
        ("describe model --train.batch_size=99999999", "train.batch_size must lie between 1 and 1,000,000"),
        ("bench --against=", "a value is missing: '--against=' says nothing"),
        ("bench --operators=", "a value is missing: '--operators=' says nothing"),
        ("reproduce --runs=999999999999", "argument --runs: must lie between 1 and 100,000"),
        ("reproduce --commit=", "a value is missing: '--commit=' says nothing"),
        ("search --space=gone.yaml --trials=999999999", "argument --trials: must lie between 1 and 100,000"),
        ("search --space=gone.yaml --price=.nan", "argument --price: must be a number, got nan"),
        ("loaders --images=inf", "argument --images: must be a whole number at least 1, got 'inf'"),
        ("loaders --plot=x.doc", "argument --plot: must end in one of .png, .svg, .pdf, .jpg, got 'x.doc'"),
        ("plan --gpu=H100 --images=1e300", "--images: must be a whole number at least 1, got 1e+300"),
        ("--completion fish", "--completion is for bash or zsh, got 'fish'"),
        ("paint", "there is no command 'paint'. Did you mean plan?"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_and_exit_2_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEEP).write_text("train: " + "[" * 3000)
    try:
        code = command.main(words.split())
    except SystemExit as left:
        code = left.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1, err[-500:]
    assert message in err
    assert os.listdir(tmp_path) == [DEEP], "nothing is written before the words are understood"


# ---- the wheel ---------------------------------------------------------------------------------------------


@pytest.mark.slow(30)
def test_the_wheel_alone_trains_and_benches_outside_the_checkout(tmp_path):
    """Built, installed without dependencies beside this interpreter's packages, used in an empty folder."""
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", ROOT, source], check=True)
    pip, quiet = [sys.executable, "-m", "pip"], ["-q", "--no-deps"]
    subprocess.run([*pip, "wheel", *quiet, "--no-build-isolation", "-w", tmp_path, source], check=True)
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", *quiet, "-t", site, wheel], check=True)
    heavy = [path for path in sys.path if path.endswith("site-packages")]
    (site / "heavy.pth").write_text("\n".join(heavy))
    away = tmp_path / "away"
    away.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def call(*words):
        python = tmp_path / "venv" / "bin" / "python"
        done = subprocess.run(
            [python, "-m", "fastresnet", *words], cwd=away, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    trained = call("train", "--config=smoke", "--train.max_steps=3", "--run.dir=run")
    assert '"synthetic":true' in trained and (away / "run" / "report.html").is_file()
    call("bench", "--suite", "quick", "--scale", "tiny", "--only", "ceilings", "--out", "bench.json")
    assert "speed94 on H100" in call("plan", "--gpu=H100", "--config=speed94.yaml")
    call("compare", "bench.json", "bench.json", "--html=both.html")
    assert '"commit":null' in trained, "the wheel knows no commit, whatever repository it lies in"
    assert set(os.listdir(away)) <= {"run", "bench.json", "both.html", "data", "runs"}

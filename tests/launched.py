"""Commands started as users start them, in processes of their own: by torchrun, or alone."""

import os
import subprocess
import sys
from pathlib import Path

import betons_by_hand

from fastresnet.sources import synthetic

ROOT = Path(__file__).parent.parent


def environment(**more):
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **more}


def begun(*words, cwd, options=("--standalone", "--nproc-per-node=2"), before=(), **more):
    """torchrun, under way."""
    command = [*before, sys.executable, "-m", "torch.distributed.run", *options, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment(**more), start_new_session=True, **pipes)


def torchrun(*words, cwd, processes=2, options=()):
    options = ["--standalone", f"--nproc-per-node={processes}", *options]
    child = begun(*words, cwd=cwd, options=options)
    try:
        said = child.communicate(timeout=240)
    finally:
        child.kill()
    return subprocess.CompletedProcess(child.args, child.returncode, *said)


def alone(*words, cwd, **more):
    command = [sys.executable, *map(str, words)]
    env = environment(**more)
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, check=False)


def with_betons(folder):
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 303), ("test", 61)):
        images, labels = synthetic.draw(split, count, 16)
        betons_by_hand.make(folder / f"{split}.beton", list(images), labels.tolist())
    return folder

"""What many tests share: small images, the real data where it is, and quiet, repeatable arithmetic."""

import gc
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def tiny_images() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """`tiny_images(n=…)` -> uint8 images (n, size, size, 3), int64 labels (n,), each class in turn."""

    def make(n: int = 40, size: int = 32, classes: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        labels = np.arange(n, dtype=np.int64) % classes
        images = random.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        shade = labels * (192 // classes)
        images[..., 0] = (images[..., 0] // 4 + shade[:, None, None]).astype(np.uint8)
        return images, labels

    return make


@pytest.fixture
def call_script(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`call_script("scripts/train.py", "--help")` -> (exit code, output, errors), in this process."""

    def call(script: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [script, *words])
        monkeypatch.syspath_prepend(str((ROOT / script).parent))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        return (left.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def rapl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The counter, in microjoules, of the only energy meter that this machine has for the test."""
    counter = tmp_path / "powercap" / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text("0\n")
    monkeypatch.setattr("fastresnet.machine.meters.RAPL", counter.parents[1])
    return counter


@pytest.fixture(scope="session")
def cifar_root() -> Path:
    """The folder that FASTRESNET_DATA names; a test that needs the real CIFAR-10 is skipped without it."""
    root = os.environ.get("FASTRESNET_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs the real CIFAR-10: set FASTRESNET_DATA to its folder")
    return Path(root)


@pytest.fixture(scope="session")
def imagenette_root(cifar_root: Path) -> Path:
    """The folder imagenette, Parquet shards of photographs, beside the one that FASTRESNET_DATA names."""
    root = cifar_root.parent / "imagenette"
    if not root.is_dir():
        pytest.skip(f"needs the photographs of Imagenette as Parquet shards in {root}")
    return root


def _seconds(item: pytest.Item) -> float:
    """About how long a slow test takes, as its mark says."""
    return sum(sum(mark.args) for mark in item.iter_markers("slow"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests come longest first, or the last one keeps a worker alone at work; tests marked `gpu` are
    skipped, with the reason, where there is no CUDA GPU."""
    if config.getoption("markexpr") == "slow":
        items.sort(key=_seconds, reverse=True)
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU, and this machine has none"))


def pytest_collection_finish() -> None:
    """All that is imported by now stays: the collector needn't look at it each time anew."""
    gc.collect()
    gc.freeze()


# ---- nothing is left in the work tree ----------------------------------------------------------------------

CACHES = {".git", ".venv", ".image", "__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache"}
_before = pytest.StashKey[set[Path]]()


def _files() -> set[Path]:
    """Every file of the work tree but caches and what git keeps."""
    found = set()
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [name for name in inner if name not in CACHES]
        found |= {Path(folder, name) for name in names}
    return found


def pytest_sessionstart(session: pytest.Session) -> None:
    """What there was before the tests; among several workers the first process alone looks."""
    if not hasattr(session.config, "workerinput"):
        session.config.stash[_before] = _files()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The session fails where tests left files in the work tree: they belong into tmp_path."""
    gc.unfreeze()
    before = session.config.stash.get(_before, None)
    if before is None:
        return
    from fastresnet.base import system

    tracked = system.output("git", "-C", ROOT, "ls-files").splitlines()  # a lent machine may lack git
    left = _files() - before - {ROOT / name for name in tracked}
    if left:
        names = ", ".join(sorted(str(path.relative_to(ROOT)) for path in left)[:5])
        print(f"\nthe tests left {len(left)} files in the work tree: {names}", file=sys.stderr)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

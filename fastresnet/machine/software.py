"""What code runs: versions, PyTorch's switches that change speed, the commit of this package's source."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TypedDict

import torch

from fastresnet.base.system import output
from fastresnet.machine.precision import convolutions_in_tf32

PACKAGES = ("torch", "torchvision", "triton", "numpy", "ffcv", "fastargs", "pillow", "pyarrow")
SOURCE = Path(__file__).parents[1]  # of this package


class GitState(TypedDict):
    """The full hash of a commit, and whether tracked files differ from it; None without a work tree."""

    commit: str | None
    dirty: bool | None


class SpeedSettings(TypedDict):
    """PyTorch's switches that change speed."""

    matmul_precision: str
    cudnn_tf32: bool
    cudnn_benchmark: bool
    deterministic: bool
    threads: int
    allocator: str | None


def versions() -> dict[str, str | None]:
    """Versions of what the speed depends on; None for what isn't installed."""
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": str(cudnn) if cudnn else None,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def caches_in(folder: str | Path) -> dict[str, str]:
    """The environment in which compilers keep all that they make in this folder."""
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "NUMBA_CACHE_DIR", "CUDA_CACHE_PATH")
    return {name: f"{folder}/{name.partition('_')[0].lower()}" for name in names}


def source_digest() -> str:
    """12 digits of the SHA-256 of this package's modules: two states of it differ, committed or not."""
    hashed = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        hashed.update(path.relative_to(SOURCE).as_posix().encode() + path.read_bytes())
    return hashed.hexdigest()[:12]


def speed_settings() -> SpeedSettings:
    """PyTorch's switches as they stand now."""
    return {
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_tf32": convolutions_in_tf32(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
    }


def git_state(source: Path = SOURCE) -> GitState:
    """The commit of the work tree whose root holds the package's folder `source` among its tracked files.

    A package installed inside another project's work tree (in its .venv, say) has none: that commit names
    other code.
    """
    root = output("git", "-C", source, "rev-parse", "--show-toplevel")
    tracked = output("git", "-C", source, "ls-files", "__init__.py")
    if not root or not tracked or Path(root).resolve() != source.parent.resolve():
        return {"commit": None, "dirty": None}
    commit = output("git", "-C", root, "rev-parse", "HEAD")
    changed = output("git", "-C", root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or None, "dirty": bool(changed) if commit else None}

"""For `gpu_full.sh --dry`: a Python with no more than an accelerator's image has, and a tiny data set.

`python tests/bare_image.py FOLDER PYTHON` writes FOLDER/python, PYTHON that finds what such images lack only
where PYTHONPATH brings it, and FOLDER/data with Parquet files as they are sent.
"""

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

IMAGE = """
import sys
from importlib.machinery import PathFinder
class Lacking(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if path is None and name in {names}:
            path = [place for place in sys.path if "site-packages" not in place]
        return super().find_spec(name, path, target)
sys.meta_path[:] = [Lacking if finder is PathFinder else finder for finder in sys.meta_path]
"""
LACKING = set(
    "fastargs terminaltables jsonschema referencing rpds attrs attr sklearn scipy matplotlib tensorboard"
    " wandb onnx onnxscript onnxruntime safetensors pynvml psutil pytest _pytest pluggy iniconfig pygments"
    " xdist ffcv assertpy tqdm ppe cv2".split()
)


def write_python(folder: Path, interpreter: str) -> None:
    """An interpreter that hides what images lack, and has its children do so too."""
    (folder / "image").mkdir()
    (folder / "image" / "sitecustomize.py").write_text(IMAGE.format(names=LACKING))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}/image:$PYTHONPATH" exec {interpreter} "$@"\n')
    python.chmod(0o755)


def write_data(folder: Path) -> None:
    """Parquet shards of noise in the layout of the hub: 320 images to train on, 64 to test."""
    chance = np.random.default_rng(0)
    for split, count in (("train", 320), ("test", 64)):
        payloads = []
        for pixels in chance.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            payloads.append({"bytes": buffer.getvalue(), "path": None})
        labels = pyarrow.array([k % 10 for k in range(count)])
        table = pyarrow.table({"img": pyarrow.array(payloads), "label": labels})
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")


if __name__ == "__main__":
    here = Path(sys.argv[1])
    write_python(here, sys.argv[2])
    write_data(here / "data")

"""The package and everything it needs. Lower bounds were tried together, on Python 3.10 without a GPU."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"', (HERE / "fastresnet/__init__.py").read_text(encoding="utf-8"), re.M
)
assert VERSION is not None, "fastresnet/__init__.py names the version"

setup(
    name="fastresnet",
    version=VERSION[1],
    description="ResNets on CIFAR-10, trained fast and measured fairly",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["fastresnet", "fastresnet.*"]),
    package_data={
        "fastresnet": ["py.typed", "**/*.yaml", "**/*.json", "**/*.css", "**/*.js", "**/*.html", "**/*.svg"]
    },
    entry_points={"console_scripts": ["fastresnet = fastresnet.__main__:main"]},
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=1.26",
        "Pillow>=10.0",
        "fastargs>=1.2.0",
        "PyYAML>=6.0.1",  # fastargs needs it and doesn't say so
        "terminaltables>=3.1",  # fastargs, too
        "pyarrow>=15.0",  # reads Parquet
        "matplotlib>=3.8",  # draws the curves
        "Jinja2>=3.1",  # writes the pages; torch needs it, too
        "MarkupSafe>=2.1",  # what Jinja2 escapes with
    ],
    extras_require={
        # compiled where there is no wheel: scripts/setup.sh installs what that needs, then this extra
        "ffcv": [
            "ffcv>=1.0.2",
            "numba>=0.59",  # its just-in-time compiler, whose settings we read
            "llvmlite",  # numba's, by which we say what numba can't
            "packaging",  # ffcv needs it and doesn't say so
            "setuptools; python_version >= '3.12'",  # ffcv imports distutils
        ],
        "loggers": ["tensorboard>=2.16", "wandb>=0.16"],
        "export": ["safetensors>=0.4", "onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.18"],
        "notebook": ["ipykernel>=6.0", "nbconvert>=7.0"],  # examples/tour.ipynb; Colab has them
        "completion": ["shtab>=1.6"],  # fastresnet --completion
        "dev": [
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "mypy>=1.11",
            "types-PyYAML",
            "jsonschema>=4.18",  # our own checker is held to it
            "scikit-learn>=1.4",
            "tensorboard>=2.16",
            "safetensors>=0.4",
            "onnx>=1.16",
            "onnxscript>=0.1",
            "onnxruntime>=1.18",
            "shtab>=1.6",
            "mkdocs-material>=9.5",
            "mkdocstrings[python]>=0.26",
        ],
    },
)

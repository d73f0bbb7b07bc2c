#!/usr/bin/env bash
# Makes .image, a Python as machines with GPUs have it: 3.12 with PyTorch 2.11, Triton 3.6 and little else. CUDA's
# libraries are those of .venv. With it the tests of benchmarks/gpu_full.sh take no newer one. A second call does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=2.11.0
there() { .image/bin/python -c "import numba, torch, torchvision; assert torch.__version__.startswith('$torch')" 2> /dev/null; }
there && exit

for python in python3.12 "$HOME"/.pyenv/versions/3.12.*/bin/python3.12 none; do
    "$python" -c "import ensurepip" 2> /dev/null && break
done
[ "$python" != none ] || { echo "image: no Python 3.12 was found" >&2; exit 2; }
rm -rf .image
"$python" -m venv .image
quietly() { .image/bin/python -m pip install -q --no-compile "$@" 2> .image/pip.log || { cat .image/pip.log >&2; exit 1; }; }
quietly numpy numba pillow pyarrow matplotlib jinja2 pyyaml sympy networkx fsspec filelock typing-extensions \
    fastargs terminaltables pytest
quietly --no-deps "torch==$torch" triton==3.6.0 torchvision==0.26.0 nvidia-curand
packages=$(.image/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
cp -rsn "$(.venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")"/nvidia/* "$packages/nvidia/"
there || { echo "image: PyTorch $torch can't be imported with .venv's libraries of CUDA" >&2; exit 1; }

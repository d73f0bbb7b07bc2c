"""The Triton kernel against the oracle: interpreted on the CPU everywhere, and on the device where there is a
GPU.

The interpreter's bf16 store truncates instead of rounding, so bf16 is compared on a GPU only.
"""

import importlib.util
import itertools
import os
import sys
from types import ModuleType

import pytest
import torch
from oracle import MEAN, STD, assert_within_twice_the_rounding
from oracle import augment as exactly
from test_kernels import BATCH, HEIGHT, SPECS, STORED, WIDTH

from fastresnet import augment
from fastresnet.augment.kernels import Augment

triton = pytest.importorskip("triton", reason="needs Triton, which isn't installed")


@pytest.fixture(scope="module")
def interpreted() -> ModuleType:
    """The kernel's module once more, decorated for the interpreter; the package's own copy is left as it
    is."""
    found = importlib.util.find_spec("fastresnet.augment.kernels.triton_augment")
    spec = importlib.util.spec_from_file_location("interpreted_triton_augment", found.origin)
    module = importlib.util.module_from_spec(spec)
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before


@pytest.fixture(scope="module")
def stored() -> torch.Tensor:
    return torch.randint(
        0, 256, (STORED, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.fixture(scope="module")
def indices() -> torch.Tensor:
    return torch.randint(0, STORED, (BATCH,), generator=torch.Generator().manual_seed(2))


def run(module, stored, indices, choices, size, dtype, channels_last=True) -> torch.Tensor:
    h, w = size or (HEIGHT, WIDTH)
    shape = (len(indices), h, w, 3) if channels_last else (len(indices), 3, h, w)
    out = torch.full(shape, float("nan"), dtype=dtype, device=stored.device)
    out_NHWC = out if channels_last else out.permute(0, 2, 3, 1)
    module.augment(stored, indices, choices, mean=MEAN, std=STD, size=(h, w), out_NHWC=out_NHWC)
    return out_NHWC.permute(0, 3, 1, 2)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_interpreted_kernel_does_what_the_documentation_says(interpreted, stored, indices, spec):
    few = indices[:7]
    choices = augment.draw(spec, len(few), (HEIGHT, WIDTH), seed=3, epoch=0)
    for size, dtype in ((None, torch.float32), (None, torch.float16), ((9, 10), torch.float32)):
        exact = exactly(stored, few, choices, size)
        plain = augment.apply(stored, few, choices, mean=MEAN, std=STD, size=size, kernel="reference")
        result = run(interpreted, stored, few, choices, size, dtype)
        assert_within_twice_the_rounding(result, plain, exact)


def test_the_interpreted_kernel_writes_both_memory_formats(interpreted, stored, indices):
    choices = augment.draw(SPECS["all, mean"], BATCH, (HEIGHT, WIDTH), seed=3, epoch=0)
    last, first = (
        run(interpreted, stored, indices, choices, None, torch.float32, channels_last)
        for channels_last in (True, False)
    )
    assert torch.equal(last, first)


def test_an_image_that_fills_no_whole_block_is_written_to_its_last_pixel_and_no_further(interpreted, stored):
    one = torch.tensor([0])
    guarded = torch.full((3 * HEIGHT * WIDTH + 50,), 7.0)
    out = guarded[: 3 * HEIGHT * WIDTH].view(1, HEIGHT, WIDTH, 3)
    interpreted.augment(
        stored, one, augment.no_choices(1), mean=MEAN, std=STD, size=(HEIGHT, WIDTH), out_NHWC=out
    )
    assert bool((guarded[3 * HEIGHT * WIDTH :] == 7).all()) and not bool((out == 7).any())


def test_the_kernel_compiles_for_a_gpu_that_is_not_here(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastresnet.augment.kernels.triton_augment import MODES, _kernel

    pointers = dict(
        images="*u8",
        indices="*i64",
        dys="*i32",
        dxs="*i32",
        flips="*u8",
        cut_ys="*i32",
        cut_xs="*i32",
        brightness="*fp32",
        contrast="*fp32",
        out="*bf16",
    )
    scalars = {f"{name}_{channel}": "fp32" for name in ("unit", "centre") for channel in "rgb"}
    constants = dict(
        H=32,
        W=32,
        h=24,
        w=24,
        PAD=4,
        MODE=MODES["reflect"],
        FLIP=True,
        CUT=8,
        BRIGHTNESS=True,
        CONTRAST=True,
        CHANNELS_LAST=True,
        BLOCK=1024,
    )
    names = _kernel.arg_names
    source = ASTSource(
        _kernel,
        signature={name: (pointers | scalars).get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    hopper = GPUTarget("cuda", 90, 32)
    compiled = triton.compile(source, target=hopper, options=dict(num_warps=4, enable_fp_fusion=True))
    assert ".target sm_90" in compiled.asm["ptx"]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_kernel_on_the_gpu_does_what_the_documentation_says(stored, indices, dtype):
    device = torch.device("cuda")
    for spec, size in itertools.product(SPECS.values(), (None, (9, 10))):
        choices = augment.draw(spec, BATCH, (HEIGHT, WIDTH), seed=3, epoch=0)
        exact = exactly(stored, indices, choices, size)
        plain = augment.apply(stored, indices, choices, mean=MEAN, std=STD, size=size, kernel="reference")
        result = augment.apply(
            stored.to(device),
            indices.to(device),
            choices.to(device),
            mean=MEAN,
            std=STD,
            size=size,
            dtype=dtype,
            kernel="triton",
        )
        assert_within_twice_the_rounding(result.cpu(), plain, exact)


@pytest.mark.gpu
def test_a_captured_graph_replays_the_kernel_with_new_choices_in_place(stored, indices):
    device = torch.device("cuda")
    spec = Augment(3, "reflect", "random", 4, 0.1, 0.1)
    here, which = stored.to(device), indices.to(device)
    choices = augment.draw(spec, BATCH, (HEIGHT, WIDTH), seed=3, epoch=0, device=device)
    arguments = dict(mean=MEAN, std=STD, kernel="triton")
    buffer = augment.apply(here, which, choices, **arguments).clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        augment.apply(here, which, choices, out=buffer, **arguments)
    other = augment.draw(spec, BATCH, (HEIGHT, WIDTH), seed=3, epoch=1, device=device)
    for name in ("dy", "dx", "flip", "cut_y", "cut_x", "brightness", "contrast"):
        getattr(choices, name).copy_(getattr(other, name))
    graph.replay()
    assert torch.equal(buffer, augment.apply(here, which, other, **arguments))

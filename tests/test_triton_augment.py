"""The Triton kernel against the oracle, interpreted or on a GPU, and its machine code where there is none.

The interpreter's bf16 store truncates instead of rounding, so bf16 is compared on a GPU only.
"""

import importlib.util
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from oracle import MEAN, STD, assert_within_twice_the_rounding
from oracle import augment as exactly
from test_kernels import HEIGHT, INDICES, SPECS, STORED, WIDTH, drawn, finished

from fastresnet import augment
from fastresnet.augment import Augment
from fastresnet.augment.padding import pad

triton = pytest.importorskip("triton", reason="needs Triton, which isn't installed")


@pytest.fixture(scope="module")
def interpreted() -> ModuleType:
    """The kernel's module once more, decorated for the interpreter; the package's own copy stays."""
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


def run(module, stored, indices, choices, size, dtype, channels_last=True) -> torch.Tensor:
    h, w = size or (HEIGHT, WIDTH)
    shape = (len(indices), h, w, 3) if channels_last else (len(indices), 3, h, w)
    out = torch.full(shape, float("nan"), dtype=dtype, device=stored.device)
    out_NHWC = out if channels_last else out.permute(0, 2, 3, 1)
    module.augment(stored, indices, choices, mean=MEAN, std=STD, size=(h, w), out_NHWC=out_NHWC)
    return out_NHWC.permute(0, 3, 1, 2)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_interpreted_kernel_does_what_the_documentation_says(interpreted, spec):
    few = INDICES[:4]
    choices = drawn(spec, len(few))
    for size, dtype in ((None, torch.float32), (None, torch.float16), ((9, 10), torch.float32)):
        exact = exactly(STORED, few, choices, size)
        plain = finished(choices, "reference", few, size=size)
        result = run(interpreted, STORED, few, choices, size, dtype)
        assert_within_twice_the_rounding(result, plain, exact)


@pytest.mark.parametrize("mode", ["reflect", "zero", "mean"])
def test_a_set_padded_once_gives_the_batch_of_the_set_as_it_is(interpreted, mode):
    spec, few = Augment(2, mode, "random", 5, 0.1, 0.1), INDICES[:7]
    choices, padded = drawn(spec, 7), pad(STORED, spec)
    assert padded.shape == STORED.shape and interpreted._in_words(padded.pixels, WIDTH)
    once, each = (run(interpreted, x, few, choices, None, torch.float32) for x in (padded, STORED))
    plain = finished(choices, "reference", few)
    assert torch.equal(once, each)
    assert_within_twice_the_rounding(once, plain, exactly(STORED, few, choices))
    whole = run(interpreted, padded, few, augment.no_choices(7), None, torch.float32)
    unchanged = finished(augment.no_choices(7), "reference", few)
    torch.testing.assert_close(whole, unchanged)


def test_the_interpreted_kernel_writes_both_memory_formats(interpreted):
    choices = drawn(SPECS["all, mean"])
    last, first = (
        run(interpreted, STORED, INDICES, choices, None, torch.float32, channels_last)
        for channels_last in (True, False)
    )
    assert torch.equal(last, first)


def test_an_image_that_fills_no_whole_block_is_written_to_its_last_pixel_and_no_further(interpreted):
    one = torch.tensor([0])
    guarded = torch.full((3 * HEIGHT * WIDTH + 50,), 7.0)
    out = guarded[: 3 * HEIGHT * WIDTH].view(1, HEIGHT, WIDTH, 3)
    interpreted.augment(
        STORED, one, augment.no_choices(1), mean=MEAN, std=STD, size=(HEIGHT, WIDTH), out_NHWC=out
    )
    assert bool((guarded[3 * HEIGHT * WIDTH :] == 7).all()) and not bool((out == 7).any())


POINTERS = dict(stored="*u8", words="*i32", indices="*i64", flips="*u8", mirror_images="i32")
POINTERS |= dict.fromkeys(("dys", "dxs", "cut_ys", "cut_xs"), "*i32")
POINTERS |= dict.fromkeys(("brightness", "contrast"), "*fp32")
POINTERS |= {f"{name}_{channel}": "fp32" for name in ("unit", "centre") for channel in "rgb"}
ALIGNED = ("stored", "words", "out")  # by PyTorch, to 512 bytes
USUAL = dict(H=32, W=32, h=32, w=32, PAD=4, CROP=True, FLIP=True, ERASE=False, CUT=0, BRIGHTNESS=True)
USUAL |= dict(CONTRAST=True, CHANNELS_LAST=True, WORDS=True, LANES=32)


def compiled(capability: int, out: str, **constants):
    """The kernel for a GPU that needs not be here: its PTX, and what ptxas and the disassembler say of it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastresnet.augment.kernels import triton_augment as module

    by_words = constants.get("WORDS", True)
    block = module.WORD_BLOCK if by_words else module.BLOCK
    names, constants = module._kernel.arg_names, USUAL | dict(BLOCK=block) | constants
    source = ASTSource(
        module._kernel,
        signature={name: (POINTERS | {"out": out}).get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in ALIGNED},
    )
    options = dict(num_warps=module.WORD_WARPS if by_words else module.WARPS, enable_fp_fusion=True)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def tool(name: str, *words: str) -> str:
    path = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    if not path.exists():
        pytest.skip(f"this Triton ships no {name}")
    return subprocess.run([path, *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def for_a_gpu(monkeypatch, tmp_path) -> Callable[..., tuple[str, dict[str, int], int]]:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    def measure(*arguments, **constants) -> tuple[str, dict[str, int], int]:
        """PTX, resources as ptxas counts them, and machine instructions of the kernel."""
        done, cubin = compiled(*arguments, **constants), tmp_path / "kernel.cubin"
        cubin.write_bytes(done.asm["cubin"])
        usage = re.findall(r"([A-Z]+):(\d+)", tool("cuobjdump", "-res-usage", str(cubin)))
        code = re.findall(r"^\s+/\*[0-9a-f]{4}\*/\s+[@A-Z]", tool("nvdisasm", "-c", str(cubin)), re.M)
        return done.asm["ptx"], {name: int(value) for name, value in usage}, len(code)

    return measure


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("out, store", [("*bf16", "st.global.v2.b32"), ("*fp32", "st.global.v4.b32")])
def test_for_a_gpu_rows_are_read_as_words_and_four_values_stored_at_once(for_a_gpu, capability, out, store):
    ptx, used, instructions = for_a_gpu(capability, out)
    assert f".target sm_{capability}" in ptx
    assert set(re.findall(r"st\.global\S*", ptx)) == {store}
    assert ptx.count("ld.global.b8") == 1  # whether the image is mirrored: pixels come as words
    assert not any(used[name] for name in ("STACK", "LOCAL", "SHARED")) and used["REG"] <= 128
    assert 2 * instructions < 1500  # two warps an image; one value at a time it would be 3,800


@pytest.mark.parametrize("capability", [80, 90])
def test_for_a_gpu_neighbouring_threads_take_neighbouring_words(monkeypatch, capability):
    """Left to choose between rows and words, Triton 3.6 gave each thread of a warp a row of its own."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    layouts = re.findall(r"threadsPerWarp = (\[.*?\])", compiled(capability, "*bf16").asm["ttgir"])
    assert layouts and set(layouts) == {"[32, 1]"}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    "constants",
    [dict(ERASE=True, CUT=8), dict(WORDS=False, h=24, w=24), dict(WORDS=False, CHANNELS_LAST=False)],
)
def test_for_a_gpu_no_option_spills_registers(for_a_gpu, capability, constants):
    _, used, _ = for_a_gpu(capability, "*bf16", **constants)
    assert not any(used[name] for name in ("STACK", "LOCAL", "SHARED")) and used["REG"] <= 128


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_kernel_on_the_gpu_does_what_the_documentation_says(dtype):
    device = torch.device("cuda")
    for spec, size in itertools.product(SPECS.values(), (None, (9, 10))):
        choices = drawn(spec)
        exact = exactly(STORED, INDICES, choices, size)
        plain = finished(choices, "reference", size=size)
        there = STORED.to(device), INDICES.to(device), drawn(spec, device=device)
        result = augment.apply(*there, mean=MEAN, std=STD, size=size, dtype=dtype, kernel="triton")
        assert_within_twice_the_rounding(result.cpu(), plain, exact)


@pytest.mark.gpu
def test_a_captured_graph_replays_the_kernel_with_new_choices_in_place():
    device = torch.device("cuda")
    spec = Augment(3, "reflect", "random", 4, 0.1, 0.1)
    here, which = STORED.to(device), INDICES.to(device)
    choices = drawn(spec, device=device)
    arguments = dict(mean=MEAN, std=STD, kernel="triton")
    buffer = augment.apply(here, which, choices, **arguments).clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        augment.apply(here, which, choices, out=buffer, **arguments)
    other = drawn(spec, epoch=1, device=device)
    for name in ("dy", "dx", "flip", "cut_y", "cut_x", "brightness", "contrast"):
        getattr(choices, name).copy_(getattr(other, name))
    graph.replay()
    assert torch.equal(buffer, augment.apply(here, which, other, **arguments))

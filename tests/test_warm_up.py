"""After `warm_up` an epoch compiles nothing: every size and batch size, wherever slices of choices begin."""

import numba
import pytest
import torch
from test_loader import SPEC, loader

from fastresnet.augment import dispatch
from fastresnet.augment.kernels import fused
from fastresnet.augment.padding import Padded

# Batches of 18 begin where no 16 bytes do; the last one is smaller; the size changes within an epoch.
ASKED = dict(count=50, batch_size=18, augment=SPEC, shuffle=True)
ASKED |= dict(resolution=lambda step: 6 if step < 5 else None, sizes=(None, 6))


def two_epochs(subject) -> None:
    for epoch in (0, 1):
        for _ in subject.epoch(epoch):
            pass
    subject.some_images(7)


def test_the_numba_kernel_is_ready_after_the_warm_up(monkeypatch):
    kernel = numba.njit(nogil=True, cache=True)(fused._rows)
    monkeypatch.setattr(fused, "_fill", kernel)
    subject = loader(kernel="fused", **ASKED)
    assert not kernel.signatures
    subject.warm_up()
    ready = list(kernel.signatures)
    two_epochs(subject)
    assert ready and kernel.signatures == ready


def test_the_compiled_kernel_is_ready_after_the_warm_up(monkeypatch):
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(dispatch._reference, dynamic=False, backend=counter)
    calls = {"compiled": compiled, "reference": dispatch._reference}
    monkeypatch.setattr(dispatch, "_call", calls.get)
    subject = loader(kernel="compiled", **ASKED)
    subject.warm_up()
    ready = counter.frame_count
    two_epochs(subject)
    assert ready >= 4 and counter.frame_count == ready
    torch._dynamo.reset()


class Recorder:
    """In place of the Triton kernel: takes down which variants Triton would compile, and launches nothing."""

    def __init__(self, kernel) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import make_backend
        from triton.runtime.jit import create_function_from_signature

        backend = make_backend(GPUTarget("cuda", 90, 32))
        self.bind = create_function_from_signature(kernel.signature, kernel.params, backend)
        self.variants: set[str] = set()

    def __getitem__(self, grid):
        def launch(*arguments, **constants) -> None:
            _, variant, options = self.bind(*arguments, **constants)
            self.variants.add(f"{variant} {options}")

        return launch


@pytest.mark.parametrize("free_bytes, padded", [(2**30, True), (2**14, False)])
def test_the_triton_kernel_has_no_variant_that_the_warm_up_did_not_make(monkeypatch, free_bytes, padded):
    pytest.importorskip("triton", reason="needs Triton, which isn't installed")
    from fastresnet.augment.kernels import triton_augment

    recorder = Recorder(triton_augment._kernel)
    monkeypatch.setattr(triton_augment, "_kernel", recorder)
    monkeypatch.setattr(dispatch, "_impossible", lambda name, device: "")
    monkeypatch.setattr("fastresnet.machine.memory.free_bytes", lambda device: free_bytes)
    dispatch._kernel.cache_clear()
    subject = loader(kernel="triton", **ASKED)
    assert isinstance(subject.stored, Padded) == padded  # a set too large for that is padded batch by batch
    subject.warm_up()
    ready = set(recorder.variants)
    two_epochs(subject)
    dispatch._kernel.cache_clear()
    assert len(ready) == 3 and recorder.variants == ready  # by words, downsampled, and without choices

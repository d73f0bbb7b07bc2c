"""JPEGs decoded in batches straight from a beton's bytes: by nvJPEG on a GPU, on CPU threads otherwise.

Betons are opened elsewhere: this takes encoded bytes and gives uint8 tensors, and says which decoder ran.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fastresnet.base.pictures import PictureError, decode_jpeg
from fastresnet.base.system import on_threads

GPU_BATCH = 1024  # images handed to nvJPEG at a time: bounds the memory that it takes beside the result
BLOCK = 64  # images that a CPU thread decodes between looks at the queue

Fail = Callable[[int, object], None]  # takes the place of a payload, and why it can't be decoded


class JpegError(ValueError):
    """A JPEG that can't be decoded, named by its sample."""


def decoder_for(device: torch.device) -> tuple[str, str]:
    """Which decoder serves `device`, torchcodec, torchvision or pillow, and why: for the record."""
    if device.type != "cuda":
        return "pillow", "on CPU threads: nvJPEG needs a CUDA GPU"
    if _has_torchcodec():
        return "torchcodec", "nvJPEG through torchcodec"
    if importlib.util.find_spec("torchvision") is not None:
        return "torchvision", "nvJPEG through torchvision"
    return "pillow", "on CPU threads: neither torchcodec nor torchvision is installed"


def _has_torchcodec() -> bool:
    """Whether a torchcodec is here that decodes images (0.16 and later)."""
    if importlib.util.find_spec("torchcodec") is None:
        return False
    from torchcodec import decoders

    return hasattr(decoders, "decode_jpeg")


def decode(
    payloads: Sequence[bytes],
    size_hw: tuple[int, int],
    device: torch.device | str = "cpu",
    *,
    decoder: str = "auto",
    threads: int = 0,
    on_error: str = "raise",
    samples: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, str]:
    """Decode JPEGs of one size.

    payloads:  the encoded bytes of each image, or anything with a buffer
    decoder:   auto, torchcodec, torchvision or pillow
    threads:   for pillow (0: one a core)
    on_error:  raise: JpegError names the sample; skip: leave it out
    samples:   the numbers to name (None: 0, 1, …)

    Returns the images, uint8 (n,H,W,3) on `device`; which payloads they are, int64 (n,) on the CPU; and the
    decoder's name.
    """
    device = torch.device(device)
    name = decoder_for(device)[0] if decoder == "auto" else decoder
    images = torch.empty((len(payloads), *size_hw, 3), dtype=torch.uint8, device=device)
    good = np.ones(len(payloads), dtype=bool)

    def fail(index: int, why: object) -> None:
        if on_error == "raise":
            number = index if samples is None else samples[index]
            raise JpegError(f"the JPEG of sample {number} can't be decoded: {why}")
        good[index] = False

    if name == "pillow":
        _on_threads(payloads, images, threads, fail)
    else:
        _on_gpu(payloads, images, name, fail)
    kept = torch.from_numpy(np.flatnonzero(good))
    return (images if good.all() else images.index_select(0, kept.to(device))), kept, name


def _on_threads(payloads: Sequence[bytes], out: Tensor, threads: int, fail: Fail) -> None:
    images = out if out.device.type == "cpu" else torch.empty(out.shape, dtype=torch.uint8)
    pixels, size = images.numpy(), (out.shape[1], out.shape[2])

    def work(start: int) -> None:
        for index in range(start, min(start + BLOCK, len(payloads))):
            try:
                pixels[index] = decode_jpeg(payloads[index], size)
            except PictureError as error:
                fail(index, error)

    on_threads(work, range(0, len(payloads), BLOCK), threads)
    if images is not out:
        out.copy_(images)


def _on_gpu(payloads: Sequence[bytes], out: Tensor, name: str, fail: Fail) -> None:
    call = _nvjpeg(name, out.device)
    for start in range(0, len(payloads), GPU_BATCH):
        encoded = [
            torch.frombuffer(bytearray(p), dtype=torch.uint8) for p in payloads[start : start + GPU_BATCH]
        ]
        try:
            decoded: list[Tensor | None] = list(call(encoded))
        except (RuntimeError, ValueError):  # nvJPEG doesn't say which of them it was
            decoded = [_alone(call, one, start + k, fail) for k, one in enumerate(encoded)]
        for k, image in enumerate(decoded):
            if image is None:
                continue
            if tuple(image.shape) != (3, *out.shape[1:3]):
                fail(start + k, f"it is {tuple(image.shape)}, not {(3, *out.shape[1:3])}")
            else:
                out[start + k].copy_(image.permute(1, 2, 0))


def _alone(
    call: Callable[[list[Tensor]], list[Tensor]], encoded: Tensor, index: int, fail: Fail
) -> Tensor | None:
    try:
        return call([encoded])[0]
    except (RuntimeError, ValueError) as error:
        fail(index, error)
        return None


def _nvjpeg(name: str, device: torch.device) -> Callable[[list[Tensor]], list[Tensor]]:
    """Encoded tensors on the CPU to decoded ones, uint8 (3,H,W), on the GPU."""
    if name == "torchcodec":
        from torchcodec.decoders import decode_jpeg as by_torchcodec

        return lambda encoded: by_torchcodec(encoded, mode="RGB", device=device)
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_jpeg as by_nvjpeg

    def by_torchvision(encoded: list[Tensor]) -> list[Tensor]:
        with warnings.catch_warnings():
            # since 0.29, in favour of torchcodec, which isn't here
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", UserWarning)
            decoded: list[Tensor] = by_nvjpeg(encoded, mode=ImageReadMode.RGB, device=device)
            return decoded

    return by_torchvision

"""JPEGs decoded in batches on a GPU, by nvJPEG, straight from a beton's bytes.

Betons are opened elsewhere, and decoded there on CPU threads where there is no such decoder.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BATCH = 1024  # images handed to nvJPEG at a time: bounds the memory that it takes
Call = Callable[[list[Tensor]], list[Tensor]]  # encoded, uint8 on the CPU -> uint8 (3,H,W) on the GPU


class JpegError(ValueError):
    """A JPEG that can't be decoded, named by its sample."""


def decoder() -> str | None:
    """The package that brings nvJPEG, torchcodec (0.16 or later) or torchvision; None without either."""
    if importlib.util.find_spec("torchcodec") is not None:
        from torchcodec import decoders

        if hasattr(decoders, "decode_jpeg"):
            return "torchcodec"
    return "torchvision" if importlib.util.find_spec("torchvision") is not None else None


def decode(
    payloads: Sequence[bytes], size_hw: tuple[int, int], device: torch.device | str, decoder: str
) -> Tensor:
    """JPEGs of one size, by their encoded bytes, decoded on `device`: uint8 (N,H,W,3) in the host's memory.

    decoder:  as above
    Raises JpegError, naming the first sample that is no JPEG or of another size.
    """
    call, shape = _nvjpeg(decoder, torch.device(device)), (3, *size_hw)
    images = torch.empty((len(payloads), *size_hw, 3), dtype=torch.uint8)
    for start in range(0, len(payloads), BATCH):
        encoded = [torch.frombuffer(bytearray(p), dtype=torch.uint8) for p in payloads[start : start + BATCH]]
        decoded = _decoded(call, encoded, start)
        for sample, image in enumerate(decoded, start):
            if tuple(image.shape) != shape:
                raise _error(sample, f"it is {tuple(image.shape)}, not {shape}")
        images[start : start + BATCH] = torch.stack(decoded).permute(0, 2, 3, 1)
    return images


def _decoded(call: Call, encoded: list[Tensor], first: int) -> list[Tensor]:
    try:
        return call(encoded)
    except (RuntimeError, ValueError):  # nvJPEG doesn't say which of them it was
        return [_alone(call, one, sample) for sample, one in enumerate(encoded, first)]


def _alone(call: Call, encoded: Tensor, sample: int) -> Tensor:
    try:
        return call([encoded])[0]
    except (RuntimeError, ValueError) as error:
        raise _error(sample, error) from None


def _error(sample: int, why: object) -> JpegError:
    return JpegError(f"the JPEG of sample {sample} can't be decoded: {why}")


def _nvjpeg(decoder: str, device: torch.device) -> Call:
    if decoder == "torchcodec":
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

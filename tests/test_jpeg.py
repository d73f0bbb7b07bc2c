"""JPEG decoding in batches by nvJPEG, equal to Pillow's within the decoders' rounding. On a machine without
a GPU torchvision plays the batch call of one on the CPU.
"""

import io

import numpy as np
import pytest
import torch

from fastresnet.data import jpeg

PIL = pytest.importorskip("PIL.Image", reason="needs Pillow, which isn't installed")


def encoded(count: int, height: int = 24, width: int = 32) -> tuple[list[bytes], np.ndarray]:
    """Smooth pictures as JPEGs, and as Pillow decodes them."""
    payloads, images = [], []
    for number in range(count):
        ramp = np.linspace(0, 120, height)[:, None, None] + np.linspace(0, 80, width)[None, :, None]
        picture = (ramp + np.array([0, 2, 4]) * number).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        PIL.fromarray(picture).save(file, "JPEG", quality=90)
        payloads.append(file.getvalue())
        images.append(np.asarray(PIL.open(file)))
    return payloads, np.stack(images)


def test_a_batch_is_decoded_and_the_corrupt_sample_is_named(monkeypatch):
    pytest.importorskip("torchvision", reason="needs torchvision, which isn't installed")
    payloads, images = encoded(5)
    monkeypatch.setattr(jpeg, "BATCH", 2)
    decoded = jpeg.decode(payloads, (24, 32), "cpu", "torchvision")
    assert int((decoded.int() - torch.from_numpy(images).int()).abs().max()) <= 5
    with pytest.raises(jpeg.JpegError, match="sample 0 can't be decoded: it is .3, 24, 32., not .3, 32, 32."):
        jpeg.decode(payloads, (32, 32), "cpu", "torchvision")
    payloads[3] = b"\xff\xd8 no picture"
    with pytest.raises(jpeg.JpegError, match="the JPEG of sample 3 can't be decoded"):
        jpeg.decode(payloads, (24, 32), "cpu", "torchvision")


def test_the_set_is_gathered_in_the_hosts_memory_of_which_it_was_asked_whether_it_fits(monkeypatch):
    monkeypatch.setattr(
        jpeg, "_nvjpeg", lambda *given: lambda encoded: [torch.ones(3, 24, 32)] * len(encoded)
    )
    decoded = jpeg.decode([b"x"] * 5, (24, 32), "cuda:99", "torchvision")
    assert decoded.shape == (5, 24, 32, 3) and decoded.device.type == "cpu" and decoded.eq(1).all()


@pytest.mark.gpu
def test_the_gpu_decodes_as_the_cpu_does_within_rounding():
    payloads, images = encoded(50)
    difference = jpeg.decode(payloads, (24, 32), "cuda", jpeg.decoder()).int()
    difference = (difference - torch.from_numpy(images).int()).abs()
    assert int(difference.max()) <= 12 and float(difference.float().mean()) < 1.5

"""JPEG decoding in batches: on threads here, by nvJPEG where there is a GPU, equal within the decoders'
rounding."""

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


def test_a_cpu_decodes_on_threads_and_says_so():
    payloads, images = encoded(10)
    decoded, kept, name = jpeg.decode(payloads, (24, 32), threads=2)
    assert name == "pillow" and "CPU threads" in jpeg.decoder_for(torch.device("cpu"))[1]
    assert torch.equal(decoded, torch.from_numpy(images)) and kept.tolist() == list(range(10))


@pytest.mark.parametrize("damage", [b"", b"\xff\xd8 no picture", None])
def test_a_corrupt_jpeg_is_named_by_its_sample_or_left_out(damage):
    payloads, images = encoded(6)
    payloads[3] = payloads[3][: len(payloads[3]) // 2] if damage is None else damage
    with pytest.raises(jpeg.JpegError, match="the JPEG of sample 103 can't be decoded"):
        jpeg.decode(payloads, (24, 32), samples=range(100, 106))
    decoded, kept, _ = jpeg.decode(payloads, (24, 32), on_error="skip")
    assert kept.tolist() == [0, 1, 2, 4, 5] and torch.equal(decoded, torch.from_numpy(images[kept]))


def test_a_jpeg_of_another_size_is_an_error_that_gives_both_sizes():
    payloads, _ = encoded(2)
    with pytest.raises(jpeg.JpegError, match="sample 0 can't be decoded: it is 32x24 px, not 32x32 px"):
        jpeg.decode(payloads, (32, 32))


def test_the_gpu_path_names_the_corrupt_sample_and_keeps_the_others(monkeypatch):
    """The batch call of a GPU decoder, played by torchvision on the CPU."""
    pytest.importorskip("torchvision", reason="needs torchvision, which isn't installed")
    payloads, images = encoded(5)
    monkeypatch.setattr(jpeg, "GPU_BATCH", 2)
    decoded, _, name = jpeg.decode(payloads, (24, 32), decoder="torchvision")
    assert name == "torchvision" and int((decoded.int() - torch.from_numpy(images).int()).abs().max()) <= 5
    payloads[3] = b"\xff\xd8 no picture"
    with pytest.raises(jpeg.JpegError, match="the JPEG of sample 3 can't be decoded"):
        jpeg.decode(payloads, (24, 32), decoder="torchvision")
    _, kept, _ = jpeg.decode(payloads, (24, 32), decoder="torchvision", on_error="skip")
    assert kept.tolist() == [0, 1, 2, 4]


@pytest.mark.gpu
def test_the_gpu_decodes_as_the_cpu_does_within_rounding():
    payloads, images = encoded(50)
    decoded, _, name = jpeg.decode(payloads, (24, 32), "cuda")
    assert name in ("torchcodec", "torchvision")
    difference = (decoded.cpu().int() - torch.from_numpy(images).int()).abs()
    assert int(difference.max()) <= 12 and float(difference.float().mean()) < 1.5

"""Image files of every kind that people have, and what isn't one."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastresnet.inference import images


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_an_image_of_the_right_size_is_read_unchanged(tmp_path, colours):
    assert np.array_equal(images.read(save(tmp_path / "a.png", colours), 32), colours)


def test_bytes_are_read_like_files(colours):
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "PNG")
    assert np.array_equal(images.read(buffer.getvalue(), 32), colours)


def test_a_wide_image_keeps_its_centre_and_its_proportions(tmp_path):
    pixels = np.zeros((64, 192, 3), np.uint8)
    pixels[:, 64:128] = 255
    assert images.read(save(tmp_path / "a.png", pixels), 32)[4:-4, 4:-4].min() == 255


def test_grey_becomes_three_equal_channels(tmp_path, colours):
    result = images.read(save(tmp_path / "a.png", colours[..., 0]), 32)
    assert np.array_equal(result, np.repeat(colours[..., :1], 3, axis=2))


def test_sixteen_bits_become_eight(tmp_path, colours):
    path = save(tmp_path / "a.png", colours[..., 0].astype(np.uint16) * 257)
    assert np.array_equal(images.read(path, 32)[..., 0], colours[..., 0])


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:16, :, 3] = 255
    result = images.read(save(tmp_path / "a.png", pixels), 32)
    assert result[:16].max() == 0 and result[16:].min() == 255


def test_a_palette_and_cmyk_are_read(tmp_path, colours):
    Image.fromarray(colours).quantize(16).save(tmp_path / "a.gif")
    Image.fromarray(colours).convert("CMYK").save(tmp_path / "a.jpg")
    assert images.read_all([tmp_path / "a.gif", tmp_path / "a.jpg"], 32).shape == (2, 32, 32, 3)


def test_a_photograph_taken_sideways_is_turned_upright(tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter: the left side is the top
    path = save(tmp_path / "a.png", pixels, exif=exif)
    result = images.read(path, 32)
    assert result[:16].min() == 255 and result[16:].max() == 0


def test_a_text_that_calls_itself_an_image_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("hello")
    with pytest.raises(ValueError, match="a.png is not a readable image"):
        images.read(path, 32)


def test_only_the_formats_meant_are_opened(tmp_path, colours, monkeypatch):
    """EPS is drawn by Ghostscript, a program, whatever the file calls itself."""
    monkeypatch.setattr("subprocess.Popen", lambda *words, **options: pytest.fail("started a program"))
    path = tmp_path / "x.png"
    Image.fromarray(colours).save(path, "EPS")
    with pytest.raises(ValueError, match="x.png is not a readable image: unknown format"):
        images.read(path, 32)
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        Image.fromarray(colours).save(path, kind)
        assert images.read(path, 32).shape == (32, 32, 3)


def test_a_pipe_and_a_device_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", Path("/dev/zero")):
        with pytest.raises(ValueError, match="it is no file but a pipe, a device or a folder"):
            images.read(path, 32)
        with pytest.raises(ValueError, match="no such file"):
            images.find([str(path)])


def test_a_file_cut_off_is_named(tmp_path, colours):
    path = save(tmp_path / "a.png", colours)
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(ValueError, match="a.png is not a readable image"):
        images.read(path, 32)


@pytest.mark.parametrize("side", [11_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = zlib.compress(b"\0" * 100)
    body = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    path = tmp_path / "bomb.png"
    start = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(start + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + body)
    with pytest.raises(ValueError, match="bomb.png: .*million pixels: refused unread"):
        images.read(path, 32)


def test_floating_point_pixels_are_refused_because_white_is_unknown(tmp_path):
    Image.fromarray(np.ones((32, 32), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="floating-point"):
        images.read(tmp_path / "a.tif", 32)


def test_a_folder_means_every_image_below_it_in_order(tmp_path, colours):
    (tmp_path / "b").mkdir()
    wanted = [save(tmp_path / "a.png", colours), save(tmp_path / "b" / "c.PNG", colours)]
    (tmp_path / "notes.txt").write_text("")
    assert images.find([str(tmp_path)]) == wanted


def test_an_empty_folder_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(ValueError, match="a folder without images"):
        images.find([str(tmp_path)])
    with pytest.raises(ValueError, match="no such file"):
        images.find([str(tmp_path / "x.png")])


def test_a_strip_that_would_be_blown_up_to_gigabytes_is_refused(tmp_path):
    path = save(tmp_path / "strip.png", np.zeros((1, 1_000_000, 3), np.uint8))
    with pytest.raises(ValueError, match="strip.png: a strip of 1000000x1 px, more than 100 times as long"):
        images.read(path, 224)

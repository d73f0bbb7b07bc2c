"""Encoded pictures to pixels: the one decoder on CPUs, for files, Parquet, betons and predictions.

Opens nothing but the formats named here, whatever a file calls itself, and nothing of absurd size.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]
# Others start programs (EPS: Ghostscript) or name further files; these are pure decoders.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
ENDINGS = tuple(".png .jpg .jpeg .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .avif .jp2".split())
MAX_PIXELS = 80_000_000  # a larger header is taken for a decompression bomb before anything is decoded
ORIENTATION = 0x0112  # EXIF: how the camera was turned, 1 (upright) to 8
SIDEWAYS = (5, 6, 7, 8)
WHITE_UNKNOWN = "which value is white isn't known; save it with 8 or 16 bits"
WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


class PictureError(ValueError):
    """What is no picture, is cut off, too large, or of a kind whose white isn't known; names the picture."""


def decode(source: Path | bytes, name: str = "") -> Pixels:
    """A picture of any kind as uint8 (H,W,3).

    Turned upright by its EXIF; alpha is laid on white; grey becomes RGB; 16 bits become 8; of an animation
    the first picture counts. PictureError names `name`, or the file.
    """
    with _opened(source, name, FORMATS) as image:
        turn = _orientation(image)
        rgb = _rgb(image, name or str(source))
        return np.asarray(rgb if turn == 1 else _upright(rgb, turn))


def decode_jpeg(payload: bytes, size_hw: tuple[int, int]) -> Pixels:
    """A JPEG of a known size as uint8 (H,W,3), as it is stored; PictureError says why it can't be."""
    with _opened(payload, "", ("JPEG",)) as image:
        if image.size != (size_hw[1], size_hw[0]):
            raise PictureError(
                f"it is {_px(*image.size)}, not {_px(size_hw[1], size_hw[0])} (width x height)"
            )
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) in px that `decode` will give, from the file's header alone; PictureError as there."""
    with _opened(path, "", FORMATS) as image:
        width, height = image.size
        return (width, height) if _orientation(image) in SIDEWAYS else (height, width)


def shrunk(pixels: Pixels, longer_side: int) -> Pixels:
    """The picture with its longer side at most so many px, by area; itself where it is no larger."""
    height, width = pixels.shape[:2]
    new_height, new_width = shrunk_size((height, width), longer_side)
    if (new_height, new_width) == (height, width):
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BOX))


def shrunk_size(size_hw: tuple[int, int], longer_side: int) -> tuple[int, int]:
    """(height, width) of `shrunk`, px."""
    scale = min(1.0, longer_side / max(size_hw))
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


@cache
def _bombs_are_errors() -> None:
    """Pillow's warning of huge pictures becomes an error, for good: threads can't take turns at filters."""
    from PIL import Image

    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@contextmanager
def _opened(source: Path | bytes, name: str, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """The picture with its header read and its size allowed; whatever goes wrong inside is a PictureError."""
    from PIL import Image

    _bombs_are_errors()
    name = name or (str(source) if isinstance(source, Path) else "")
    too_large = PictureError(
        f"{name}: more than {MAX_PIXELS // 10**6} million pixels: refused unread".lstrip(": ")
    )
    try:
        with _stream(source, name) as stream, Image.open(stream, formats=formats) as image:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise too_large
            yield image
    except (PictureError, PermissionError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large from None
    except Exception as error:  # damaged bytes make Pillow raise what it likes
        raise PictureError(f"{name} is not a readable image: " * bool(name) + _reason(error)) from None


def _stream(source: Path | bytes, name: str) -> IO[bytes]:
    """The bytes to decode; a FIFO or a device, at which opening and reading may wait for ever, is refused."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PictureError(f"{name} is not a readable image: it is no file but a pipe, a device or a folder")
    return os.fdopen(descriptor, "rb")


def _reason(error: Exception) -> str:
    """Why Pillow failed, on one line, without the address of the object it read from."""
    text = " ".join(str(error).split())
    return "unknown format" if "cannot identify image file" in text else text or type(error).__name__


def _px(width: int, height: int) -> str:
    return f"{width}x{height} px"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none. A PNG is asked for what stands before its pixels alone."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & set(image.info):
        return 1
    turn = image.getexif().get(ORIENTATION, 1)
    return turn if turn in range(1, 9) else 1


def _upright(image: Image.Image, turn: int) -> Image.Image:
    from PIL import Image

    ways = Image.Transpose
    table = {2: ways.FLIP_LEFT_RIGHT, 3: ways.ROTATE_180, 4: ways.FLIP_TOP_BOTTOM, 5: ways.TRANSPOSE}
    table |= {6: ways.ROTATE_270, 7: ways.TRANSVERSE, 8: ways.ROTATE_90}
    return image.transpose(table[turn])


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """Any mode of Pillow as 8-bit RGB; PictureError where it isn't known which value is white."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode.startswith("I"):  # 16-bit grey: "I;16", or "I" from older files
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError(f"{name}: 32-bit integer pixels: {WHITE_UNKNOWN}")
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise PictureError(f"{name}: floating-point pixels: {WHITE_UNKNOWN}")
    return image.convert("RGB")

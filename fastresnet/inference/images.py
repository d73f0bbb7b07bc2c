"""Image files of any kind and size as the network wants them: uint8, RGB, square. Runs no model."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MAX_PIXELS = 80_000_000  # a larger header is taken for a decompression bomb before anything is decoded
ENDINGS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".avif",
    ".jp2",
)


def find(names: Sequence[str]) -> list[Path]:
    """The image files that `names` mean; a folder stands for all images in and below it, in order.

    Raises ValueError for a name that doesn't exist, and for a folder without images.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file()
            )
            if not inside:
                raise ValueError(f"{path}: a folder without images ({', '.join(ENDINGS[:5])}, ...)")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"{path}: no such file or folder")
    return found


def read(source: Path | bytes, size: int, *, name: str = "standard input") -> np.ndarray:
    """One image as uint8 (size, size, 3): the shorter side is resized to `size`, the centre is kept.

    Turned upright by its EXIF; alpha is laid on white; grey becomes RGB; 16 bits become 8; of an animation
    the first picture counts. Raises ValueError, naming the file, for what is no image, is cut off, or has
    more than MAX_PIXELS.
    """
    from PIL import Image, ImageOps

    name = str(source) if isinstance(source, Path) else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # Pillow's own, milder limit
            opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        with opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ValueError(
                    f"{name}: {width} x {height} px is more than {MAX_PIXELS // 10**6} million pixels: "
                    "refused "
                    "unread (scale it down first)"
                )
            upright = ImageOps.exif_transpose(_to_rgb(opened, name))
            scale = size / min(upright.size)
            width, height = (max(size, round(side * scale)) for side in upright.size)
            fitted = (width, height)
            resized = upright.resize(fitted, Image.Resampling.LANCZOS) if upright.size != fitted else upright
            left, top = ((side - size) // 2 for side in fitted)
            return np.array(resized.crop((left, top, left + size, top + size)), dtype=np.uint8)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name}: more than {MAX_PIXELS // 10**6} million pixels: refused unread") from error
    except (OSError, SyntaxError, EOFError, MemoryError) as error:
        if isinstance(error, PermissionError):
            raise
        text = str(error).replace(str(source), "") if isinstance(source, Path) else "unknown format"
        raise ValueError(
            f"{name}: no image that can be read ({' '.join(text.split()) or type(error).__name__})"
        ) from error


def _to_rgb(image: Any, name: str) -> Any:
    """Any mode of Pillow as 8-bit RGB."""
    from PIL import Image

    exif = image.getexif()
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        result = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert(
            "RGB"
        )
    elif image.mode.startswith("I"):  # 16-bit grey: "I;16", or "I" from older files
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{name}: 32-bit integer pixels ({values.min():.0f}..{values.max():.0f}): which value is "
                "white "
                "isn't known; save it with 8 or 16 bits"
            )
        result = Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    elif image.mode == "F":
        raise ValueError(
            f"{name}: floating-point pixels: which value is white isn't known; save it with 8 or 16 bits"
        )
    else:
        result = image.convert("RGB")
    result.getexif().update(exif)
    return result


def read_all(paths: Sequence[Path], size: int) -> np.ndarray:
    """uint8 (N, size, size, 3); raises like `read`, and ValueError for no paths."""
    if not paths:
        raise ValueError("no images to read")
    return np.stack([read(path, size) for path in paths])

"""Betons made byte by byte with struct, and read back the same way: an independent witness for tests."""

import io
import struct
from mmap import mmap
from pathlib import Path

import numpy as np
from PIL import Image

PAGE = 1 << 21
FIELDS_END = 24 + 2 * 1041
STRIDE = 24


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    """An image as the bytes of a JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


def make(
    path: Path,
    images: list[np.ndarray],
    labels: list[int],
    jpegs: set[int] | None = None,
    page: int = PAGE,
    order: list[int] | None = None,
) -> Path:
    """A beton of these images, the samples in `jpegs` as JPEGs; `order`: in which the data is laid down."""
    jpegs = jpegs or set()
    start = -(-(FIELDS_END + STRIDE * len(images)) // page) * page
    data, table, metadata = bytearray(), [], [b""] * len(images)
    for sample in order or range(len(images)):
        image = images[sample]
        payload = jpeg(image) if sample in jpegs else image.tobytes()
        if len(data) % page + len(payload) > page:
            data += bytes(-len(data) % page)
        pointer = start + len(data)
        data += payload
        height, width = image.shape[:2]
        metadata[sample] = struct.pack(
            "<BHHQ3xq", sample not in jpegs, width, height, pointer, labels[sample]
        )
        table.append(struct.pack("<QQQ", sample, pointer, len(payload)))
    data += bytes(-len(data) % page)
    header = struct.pack("<HHIQQ", 2, 2, page, len(images), start + len(data))
    fields = b"".join(struct.pack("<B16s1024x", kind, name) for kind, name in ((2, b"image"), (1, b"label")))
    front = header + fields + b"".join(metadata)
    path.write_bytes(front + bytes(start - len(front)) + bytes(data) + b"".join(table))
    return path


def read(content: bytes | mmap) -> tuple[list[np.ndarray | None], list[int]]:
    """Images (None: a JPEG that can't be decoded) and labels of a beton of (image, label)."""
    samples, table = struct.unpack_from("<QQ", content, 8)
    sizes = {(sample, pointer): size for sample, pointer, size in struct.iter_unpack("<QQQ", content[table:])}
    images: list[np.ndarray | None] = []
    labels = []
    for sample in range(samples):
        mode, width, height, pointer, label = struct.unpack_from(
            "<BHHQ3xq", content, FIELDS_END + STRIDE * sample
        )
        payload = content[pointer : pointer + sizes[sample, pointer]]
        labels.append(label)
        if mode == 1:
            images.append(np.frombuffer(payload, np.uint8).reshape(height, width, 3))
            continue
        try:
            with Image.open(io.BytesIO(payload), formats=("JPEG",)) as image:
                images.append(np.asarray(image.convert("RGB")) if image.size == (width, height) else None)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            images.append(None)
    return images, labels

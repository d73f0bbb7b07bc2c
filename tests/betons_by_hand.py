"""Betons made byte by byte with struct, and read back the same way: an independent witness for tests."""

import io
import struct
from mmap import mmap
from pathlib import Path

import numpy as np
from PIL import Image

from fastresnet import beton
from fastresnet.beton.pages import checksums
from fastresnet.beton.sidecar import write_sidecar

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


def beside(path: Path, facts: dict) -> Path:
    """The sidecar that the writer puts beside a beton of these facts."""
    layout = beton.open_beton(path)
    write_sidecar(path, {"stored_digest": beton.stored_digest(layout), **facts}, checksums(layout))
    return beton.sidecar_path(path)


def with_fields(path: Path, fields: list[tuple[int, bytes, list[int]]]) -> Path:
    """A beton of three 8 px images whose other fields are these: (type, name, values)."""
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(3)]
    kinds = [(2, b"picture"), *((kind, name) for kind, name, _ in fields)]
    descriptors = b"".join(struct.pack("<B16s1024x", kind, name) for kind, name in kinds)
    start = PAGE
    rows = b"".join(
        struct.pack("<BHHQ3x", 1, 8, 8, start + 192 * i)
        + b"".join(struct.pack("<d" if kind == 0 else "<q", values[i]) for kind, _, values in fields)
        for i in range(3)
    )
    front = struct.pack("<HHIQQ", 2, len(kinds), start, 3, 2 * start) + descriptors + rows
    pixels = b"".join(image.tobytes() for image in images)
    table = b"".join(struct.pack("<QQQ", i, start + 192 * i, 192) for i in range(3))
    path.write_bytes(front.ljust(start, b"\0") + pixels.ljust(start, b"\0") + table)
    return path

"""Betons of (image, label): write through FFCV, read whole with numpy alone, verify. Imports nothing else of
the package."""

from fastresnet.beton.layout import BetonError, Layout, open_beton
from fastresnet.beton.reader import (
    BetonInfo,
    each_image,
    inspect,
    jpeg_payloads,
    labels,
    read,
    read_one,
    read_whole,
    verify,
)
from fastresnet.beton.sidecar import Facts, Stored, read_sidecar, sidecar_path
from fastresnet.beton.writer import Writer, can_write, write

__all__ = [
    "BetonError",
    "BetonInfo",
    "Facts",
    "Layout",
    "Stored",
    "Writer",
    "can_write",
    "each_image",
    "inspect",
    "jpeg_payloads",
    "labels",
    "open_beton",
    "read",
    "read_whole",
    "read_one",
    "read_sidecar",
    "sidecar_path",
    "verify",
    "write",
]

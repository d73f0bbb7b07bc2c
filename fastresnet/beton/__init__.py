"""Betons, FFCV's file format: written through FFCV, read whole with numpy alone, hashed, verified.

Refuses to know settings, sources and training.
"""

from fastresnet.beton.file import BetonError
from fastresnet.beton.layout import Layout, open_beton
from fastresnet.beton.pages import PageCheck, stored_digest
from fastresnet.beton.reader import (
    check_digests,
    each_image,
    jpeg_payloads,
    read,
    read_one,
    read_whole,
    verify,
)
from fastresnet.beton.sidecar import Facts, Stored, read_sidecar, sidecar_path
from fastresnet.beton.writer import Writer, can_write, write

__all__ = [
    "BetonError",
    "Facts",
    "Layout",
    "PageCheck",
    "Stored",
    "Writer",
    "can_write",
    "check_digests",
    "each_image",
    "jpeg_payloads",
    "open_beton",
    "read",
    "read_one",
    "read_sidecar",
    "read_whole",
    "sidecar_path",
    "stored_digest",
    "verify",
    "write",
]

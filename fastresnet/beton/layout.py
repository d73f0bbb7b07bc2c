"""The bytes of a beton, version 2: parsed and checked with numpy alone. Decodes no pixel.

Everything is checked against the file's own size before anything is allocated, so a damaged file can't ask
for memory.
Source of the format: FFCV 1.0.2 (types.py, writer.py, memory_allocator.py).
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page_size", "<u4"), ("samples", "<u8"), ("table", "<u8")]
)
FIELD = np.dtype([("type", "u1"), ("name", "u1", 16), ("arguments", "u1", 1024)])
IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("pointer", "<u8")])
ALLOCATION = np.dtype([("sample", "<u8"), ("pointer", "<u8"), ("size", "<u8")])
FIELD_TYPES = {
    0: np.dtype("<f8"),
    1: np.dtype("<i8"),
    2: IMAGE,
    3: np.dtype([("pointer", "<u8"), ("size", "<u8")]),
    4: np.dtype("<u8"),
    5: np.dtype([("pointer", "<u8"), ("size", "<u8")]),
    6: np.dtype("<u8"),
}
INT, RGB_IMAGE = 1, 2
JPEG, RAW = 0, 1
SMALLEST_PAGE, LARGEST_PAGE = 1 << 21, 1 << 31
CHANNELS = 3
# pixel bytes that a byte of JPEG can stand for, generously: a blank picture reaches a few hundred
MOST_PIXELS = 2000


class BetonError(ValueError):
    """A beton that is missing, damaged, foreign or not what its sidecar says; the message names the file and
    the rule."""


@dataclass(frozen=True)
class Layout:
    """Where everything lies in one beton of (image, label); arrays are per sample, in sample order."""

    path: Path
    file: "BetonFile"
    page_size: int
    data_start: int  # first byte of the first page
    modes: np.ndarray  # (N,) uint8, JPEG or RAW
    heights: np.ndarray  # (N,) int64, px
    widths: np.ndarray  # (N,) int64, px
    pointers: np.ndarray  # (N,) int64, byte offset of the image in the file
    sizes: np.ndarray  # (N,) int64, bytes of the image as stored
    labels: np.ndarray  # (N,) int64
    table_start: int
    field_names: tuple[str, ...]  # all of the file's
    image_field: str
    label_field: str

    def __len__(self) -> int:
        return len(self.modes)

    @property
    def uniform(self) -> bool:
        """Whether all images have one height and one width."""
        return bool((self.heights == self.heights[0]).all() and (self.widths == self.widths[0]).all())

    def size_text(self, index: int) -> str:
        """The size of one image, as people say it."""
        return f"{self.widths[index]}x{self.heights[index]} px"

    def payload(self, index: int) -> bytes:
        """The stored bytes of one image."""
        return self.file.read(int(self.pointers[index]), int(self.sizes[index]))


class BetonFile:
    """An open file, read by offset from any thread.

    Not memory-mapped: a file cut while it is mapped kills the process, a short read is an error with a name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise BetonError(f"{path} does not exist; write it with scripts/convert.py") from None
        except OSError as error:
            raise BetonError(f"{path} can't be read: {error.strerror}") from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BetonError(f"{path} is not a file")
        self.length = status.st_size
        self._stamp = _stamp(status)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""
        buffer = bytearray(length)
        self.read_into(start, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill `target` (bytes) from `start`; BetonError when the file ends before."""
        done = 0
        try:
            while done < len(target):
                got = os.preadv(self._descriptor, [target[done:]], start + done)
                if got == 0:
                    raise BetonError(f"{self.path} was cut off while it was being read")
                done += got
        except OSError as error:
            raise BetonError(f"{self.path} can't be read: {error.strerror}") from None

    def check_unchanged(self) -> None:
        """BetonError when the file under this path was replaced, cut or rewritten since it was opened."""
        try:
            now = _stamp(os.stat(self.path))
        except FileNotFoundError:
            now = (-1, -1)
        if now != self._stamp:
            raise BetonError(f"{self.path} was changed or removed while it was in use; start again")


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def open_beton(path: str | Path) -> Layout:
    """Map a beton and check all that can be checked without decoding an image; BetonError says what is
    wrong and where.

    Checked: version, fields, page size, metadata and table inside the file, table length and pointer,
    data in whole pages, and per sample mode, size, label, its one row in the table, its place inside a page,
    raw size = 3·H·W, no overlap.
    """
    file = BetonFile(Path(path))
    path, length = file.path, file.length
    if length < HEADER.itemsize:
        state = "empty" if not length else f"too short ({length} bytes)"
        raise BetonError(f"{path} is {state}: not a beton, or one whose writing was cut off")
    header = np.frombuffer(file.read(0, HEADER.itemsize), HEADER)[0]
    count, table_start, page = int(header["samples"]), int(header["table"]), int(header["page_size"])
    _check_header(path, length, int(header["version"]), page, count, table_start)
    fields_end = HEADER.itemsize + FIELD.itemsize * int(header["fields"])
    rows = (length - table_start) // ALLOCATION.itemsize
    if not header["fields"] or fields_end > length or not count <= rows <= count * int(header["fields"]):
        raise BetonError(
            f"{path}: {header['fields']} fields, {count} samples and {rows} rows in the allocation table"
            " don't go together; the file is cut off or damaged"
        )
    fields = np.frombuffer(file.read(HEADER.itemsize, fields_end - HEADER.itemsize), FIELD)
    metadata_type, image, label = _fields(path, fields)
    metadata_end = fields_end + metadata_type.itemsize * count
    data_start = -(-metadata_end // page) * page
    if table_start < data_start:
        raise BetonError(
            f"{path}: {count} samples do not fit before the allocation table; the file is cut off or damaged"
        )
    if (table_start - data_start) % page:
        raise BetonError(
            f"{path}: the data is not a whole number of {page}-byte pages; the file is cut off or damaged"
        )
    metadata = np.frombuffer(file.read(fields_end, metadata_end - fields_end), metadata_type)
    images = metadata[image]
    table = np.frombuffer(file.read(table_start, length - table_start), ALLOCATION)
    layout = Layout(
        path,
        file,
        page,
        data_start,
        images["mode"].copy(),
        images["height"].astype(np.int64),
        images["width"].astype(np.int64),
        images["pointer"].astype(np.int64),
        _sizes_from_table(path, images["pointer"], table, count),
        metadata[label].astype(np.int64),
        table_start,
        names := tuple(map(_name, fields)),
        names[int(image[1:])],
        names[int(label[1:])],
    )
    _check_samples(layout)
    return layout


def _check_header(path: Path, length: int, version: int, page: int, count: int, table: int) -> None:
    if version != 2:
        raise BetonError(f"{path}: version {version}, only version 2 can be read; is it a beton at all?")
    if page & (page - 1) or not SMALLEST_PAGE <= page <= LARGEST_PAGE:
        raise BetonError(
            f"{path}: page size {page} is not a power of two between {SMALLEST_PAGE} and {LARGEST_PAGE}; the"
            " file is damaged"
        )
    if table == 0:
        raise BetonError(f"{path} is half written (its allocation table was never set); convert again")
    if count == 0:
        raise BetonError(f"{path} holds no samples")
    if table > length or (length - table) % ALLOCATION.itemsize:
        raise BetonError(
            f"{path}: the allocation table (from byte {table} to the end, {length}) is not a whole number of"
            " rows; the file is cut off"
        )
    if length == table:
        raise BetonError(f"{path}: the allocation table is empty; the file is cut off")


def _name(field: np.void) -> str:
    return bytes(field["name"]).split(b"\0")[0].decode("ascii", "replace")


def _fields(path: Path, fields: np.ndarray) -> tuple[np.dtype, str, str]:
    """The metadata's type and the names, in it, of the first image and of the label field."""
    names = [_name(field) for field in fields]
    unknown = [
        (name, int(kind))
        for name, kind in zip(names, fields["type"], strict=True)
        if int(kind) not in FIELD_TYPES
    ]
    if unknown:
        raise BetonError(
            f"{path}: field {unknown[0][0]!r} is of type {unknown[0][1]}, which only FFCV's own reader with"
            " its custom field can read"
        )
    found = ", ".join(f"{name} (type {kind})" for name, kind in zip(names, fields["type"], strict=True))
    images = [f"f{i}" for i, kind in enumerate(fields["type"]) if kind == RGB_IMAGE]
    ints = [
        (name != "label", f"f{i}")
        for i, (name, kind) in enumerate(zip(names, fields["type"], strict=True))
        if kind == INT
    ]
    if not images or not ints:
        raise BetonError(f"{path}: needs an RGB image field and an integer label field, has {found}")
    layout = np.dtype(
        [(f"f{i}", FIELD_TYPES[int(kind)]) for i, kind in enumerate(fields["type"])], align=True
    )
    return layout, images[0], min(ints)[1]


def _sizes_from_table(path: Path, pointers: np.ndarray, table: np.ndarray, count: int) -> np.ndarray:
    """Bytes stored for each sample's image: the row of the table with its pointer, which must also name the
    sample."""
    order = np.argsort(table["pointer"], kind="stable")
    sorted_pointers = table["pointer"][order]
    place = np.minimum(np.searchsorted(sorted_pointers, pointers), len(order) - 1)
    rows = order[place]
    missing = np.flatnonzero(
        (sorted_pointers[place] != pointers) | (table["sample"][rows] != np.arange(count, dtype=np.uint64))
    )
    if len(missing):
        raise BetonError(
            f"{path}: sample {missing[0]} has no row in the allocation table; the file is damaged or half"
            " written"
        )
    if (table["size"][rows] > LARGEST_PAGE).any():
        raise BetonError(
            f"{path}: sample {int(np.argmax(table['size'][rows]))} claims more bytes than a page holds; the"
            " file is damaged"
        )
    return table["size"][rows].astype(np.int64)


def _check_samples(layout: Layout) -> None:
    """Each image inside the data, inside one page, of a possible size, and overlapping no other."""
    start, end = layout.pointers, layout.pointers + layout.sizes
    area = layout.heights * layout.widths * CHANNELS
    _refuse(layout, layout.modes > RAW, "has an unknown storage mode")
    _refuse(layout, area == 0, "has no height or no width")
    _refuse(
        layout,
        (start < layout.data_start) | (end > layout.table_start) | (end < start),
        "lies outside the data",
    )
    _refuse(
        layout,
        (start - layout.data_start) // layout.page_size != (end - 1 - layout.data_start) // layout.page_size,
        "crosses the border of a page",
    )
    _refuse(
        layout, (layout.modes == RAW) & (layout.sizes != area), "is raw but not 3 x height x width bytes long"
    )
    _refuse(layout, layout.sizes == 0, "is empty")
    _refuse(layout, area > MOST_PIXELS * layout.sizes, "claims more pixels than its JPEG can hold")
    order = np.argsort(start, kind="stable")
    overlap = np.zeros(len(start), bool)
    overlap[order[1:]] = start[order[1:]] < end[order[:-1]]
    _refuse(layout, overlap, "overlaps another")


def _refuse(layout: Layout, wrong: np.ndarray, why: str) -> None:
    if wrong.any():
        raise BetonError(f"{layout.path}: sample {int(np.argmax(wrong))} {why}; the file is damaged")

"""The bytes of a beton, version 2: parsed and checked with numpy alone. Decodes no pixel.

All is checked against the file's own size before anything is allocated, so damage can't ask for memory.
Source of the format: FFCV 1.0.2 (types.py, writer.py, memory_allocator.py).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastresnet.base.digest import Labels
from fastresnet.beton.file import BetonError, BetonFile

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
# Pixel bytes that a byte of JPEG can stand for, generously: a blank picture reaches a few hundred.
MOST_PIXELS = 2000
MOST_CLASSES = 1 << 20
DAMAGED, CUT_OFF = "the file is damaged", "the file is cut off or damaged"

Numbers = NDArray[np.int64]
Records = NDArray[np.void]  # rows of a structured type


@dataclass(frozen=True)
class Layout:
    """Where everything lies in one beton of images and labels; arrays are per sample, in sample order."""

    path: Path
    file: BetonFile
    page_size: int
    data_start: int  # first byte of the first page
    table_start: int  # first byte after the last page
    field_names: tuple[str, ...]  # all of the file's
    image_field: str
    label_field: str
    modes: NDArray[np.uint8]  # (N,), JPEG or RAW
    heights: Numbers  # (N,), px
    widths: Numbers  # (N,), px
    pointers: Numbers  # (N,), byte offset of the image in the file
    sizes: Numbers  # (N,), bytes of the image as stored
    labels: Labels  # (N,), from 0

    def __len__(self) -> int:
        return len(self.modes)

    @property
    def uniform(self) -> bool:
        """Whether all images have one height and one width."""
        return bool((self.heights == self.heights[0]).all() and (self.widths == self.widths[0]).all())

    @property
    def largest(self) -> tuple[int, int]:
        """The greatest height and the greatest width, px."""
        return int(self.heights.max()), int(self.widths.max())

    @property
    def nbytes_pixels(self) -> int:
        """Decoded size of everything, bytes."""
        return int((self.heights * self.widths).sum()) * CHANNELS

    @property
    def stored_as(self) -> dict[str, int]:
        """How many images are stored as "jpg" and as "raw"."""
        jpegs = int((self.modes == JPEG).sum())
        return {"jpg": jpegs, "raw": len(self) - jpegs}

    def size_text(self, index: int) -> str:
        """The size of one image, as people say it."""
        return f"{self.widths[index]}x{self.heights[index]} px"

    def payload(self, index: int) -> bytes:
        """The stored bytes of one image."""
        return self.file.read(int(self.pointers[index]), int(self.sizes[index]))


def open_beton(path: str | Path, label_field: str | None = None) -> Layout:
    """Open a beton and check all that can be checked without decoding; BetonError says what is wrong.

    label_field:  the integer field that holds the labels; None: the one called label, or the only one

    Checked: version, fields, page size, metadata and table inside the file, table length and pointer, data in
    whole pages, and per sample mode, size, label, its one row in the table, its place inside a page,
    raw size = 3·H·W, no overlap.
    """
    file = BetonFile(Path(path))
    header = _header(file)
    count, table_start, page = int(header["samples"]), int(header["table"]), int(header["page_size"])
    fields, table = _fields_and_table(file, int(header["fields"]), count, table_start)
    names = tuple(bytes(field["name"]).split(b"\0")[0].decode("ascii", "replace") for field in fields)
    kinds = [int(kind) for kind in fields["type"]]
    image, label = _image_field(file.path, names, kinds), _label_field(file.path, names, kinds, label_field)
    metadata, data_start = _metadata(file, kinds, count, page, table_start)
    images = metadata[f"f{image}"]
    layout = Layout(
        path=file.path,
        file=file,
        page_size=page,
        data_start=data_start,
        table_start=table_start,
        field_names=names,
        image_field=names[image],
        label_field=names[label],
        modes=images["mode"].copy(),
        heights=images["height"].astype(np.int64),
        widths=images["width"].astype(np.int64),
        pointers=images["pointer"].astype(np.int64),
        sizes=_sizes_from_table(file.path, images["pointer"], table),
        labels=metadata[f"f{label}"].astype(np.int64),
    )
    _check_samples(layout)
    return layout


def _header(file: BetonFile) -> np.void:
    if file.length < HEADER.itemsize:
        state = "empty" if not file.length else f"too short ({file.length} bytes)"
        raise BetonError(f"{file.path} is {state}: not a beton, or one whose writing was cut off")
    header: np.void = np.frombuffer(file.read(0, HEADER.itemsize), HEADER)[0]
    version, page = int(header["version"]), int(header["page_size"])
    count, table = int(header["samples"]), int(header["table"])
    _check_header(file.path, file.length, version, page, count, table)
    return header


def _fields_and_table(file: BetonFile, fields: int, count: int, table_start: int) -> tuple[Records, Records]:
    """The descriptors of the fields, and the allocation table, whose numbers must go together."""
    rows, end = (file.length - table_start) // ALLOCATION.itemsize, HEADER.itemsize + FIELD.itemsize * fields
    if not fields or end > file.length or not count <= rows <= count * fields:
        raise BetonError(
            f"{file.path}: {fields} fields, {count} samples and {rows} rows in the allocation table don't go"
            f" together; {CUT_OFF}"
        )
    descriptors = np.frombuffer(file.read(HEADER.itemsize, end - HEADER.itemsize), FIELD)
    return descriptors, np.frombuffer(file.read(table_start, file.length - table_start), ALLOCATION)


def _metadata(
    file: BetonFile, kinds: list[int], count: int, page: int, table_start: int
) -> tuple[Records, int]:
    """One record a sample, and where the first page begins."""
    kind = np.dtype([(f"f{i}", FIELD_TYPES[kind]) for i, kind in enumerate(kinds)], align=True)
    start = HEADER.itemsize + FIELD.itemsize * len(kinds)
    end = start + kind.itemsize * count
    data_start = -(-end // page) * page
    if table_start < data_start:
        raise BetonError(f"{file.path}: {count} samples do not fit before the allocation table; {CUT_OFF}")
    if (table_start - data_start) % page:
        raise BetonError(f"{file.path}: the data is not a whole number of {page}-byte pages; {CUT_OFF}")
    return np.frombuffer(file.read(start, end - start), kind), data_start


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


def _image_field(path: Path, names: tuple[str, ...], kinds: list[int]) -> int:
    """The number of the first image field; every field must be of a type whose size is known."""
    unknown = [(name, kind) for name, kind in zip(names, kinds, strict=True) if kind not in FIELD_TYPES]
    if unknown:
        raise BetonError(
            f"{path}: field {unknown[0][0]!r} is of type {unknown[0][1]}, which only FFCV's own reader with"
            " its custom field can read"
        )
    if RGB_IMAGE not in kinds or INT not in kinds:
        found = ", ".join(f"{name} (type {kind})" for name, kind in zip(names, kinds, strict=True))
        raise BetonError(f"{path}: needs an RGB image field and an integer label field, has {found}")
    return kinds.index(RGB_IMAGE)


def _label_field(path: Path, names: tuple[str, ...], kinds: list[int], asked: str | None) -> int:
    """The number of the integer field that holds the labels: never a guess where there are several."""
    whole = {name: i for i, (name, kind) in enumerate(zip(names, kinds, strict=True)) if kind == INT}
    if asked is not None and asked not in whole:
        raise BetonError(
            f"{path}: data.label_field={asked}: there is no such integer field, but {', '.join(whole)}"
        )
    name = asked or ("label" if "label" in whole or len(whole) > 1 else next(iter(whole)))
    if name not in whole:
        raise BetonError(
            f"{path} has several integer fields: {', '.join(whole)}; name the one that holds the labels with"
            " data.label_field"
        )
    return whole[name]


def _sizes_from_table(path: Path, pointers: NDArray[np.uint64], table: Records) -> Numbers:
    """Bytes stored of each sample's image: those of the table's row that has its pointer and its number."""
    order = np.argsort(table["pointer"], kind="stable")
    sorted_pointers = table["pointer"][order]
    place = np.minimum(np.searchsorted(sorted_pointers, pointers), len(order) - 1)
    rows = order[place]
    samples = np.arange(len(pointers), dtype=np.uint64)
    missing = np.flatnonzero((sorted_pointers[place] != pointers) | (table["sample"][rows] != samples))
    if len(missing):
        raise BetonError(
            f"{path}: sample {missing[0]} has no row in the allocation table; the file is damaged or half"
            " written"
        )
    sizes: NDArray[np.uint64] = table["size"][rows]
    if (sizes > LARGEST_PAGE).any():
        large = int(np.argmax(sizes))
        raise BetonError(f"{path}: sample {large} claims more bytes than a page holds; {DAMAGED}")
    return sizes.astype(np.int64)


def _check_samples(layout: Layout) -> None:
    """Each label a class; each image inside the data and a page, of a possible size, overlapping no other."""
    start, end = layout.pointers, layout.pointers + layout.sizes
    area = layout.heights * layout.widths * CHANNELS
    first, last = ((at - layout.data_start) // layout.page_size for at in (start, end - 1))
    order = np.argsort(start, kind="stable")
    overlap = np.zeros(len(start), bool)
    overlap[order[1:]] = start[order[1:]] < end[order[:-1]]
    outside = (start < layout.data_start) | (end > layout.table_start) | (end < start)
    _refuse(layout, layout.modes > RAW, "has an unknown storage mode")
    _refuse(layout, area == 0, "has no height or no width")
    _refuse(layout, outside, "lies outside the data")
    _refuse(layout, first != last, "crosses the border of a page")
    wrong_size = (layout.modes == RAW) & (layout.sizes != area)
    _refuse(layout, wrong_size, "is raw but not 3 x height x width bytes long")
    _refuse(layout, layout.sizes == 0, "is empty")
    _refuse(layout, area > MOST_PIXELS * layout.sizes, "claims more pixels than its JPEG can hold")
    _refuse(layout, overlap, "overlaps another")
    no_class = np.flatnonzero((layout.labels < 0) | (layout.labels >= MOST_CLASSES))
    if len(no_class):
        raise BetonError(
            f"{layout.path}: {layout.label_field} {layout.labels[no_class[0]]} of sample {no_class[0]} is no"
            " class: they are numbered from 0"
        )


def _refuse(layout: Layout, wrong: NDArray[np.bool_], why: str) -> None:
    if wrong.any():
        raise BetonError(f"{layout.path}: sample {int(np.argmax(wrong))} {why}; {DAMAGED}")

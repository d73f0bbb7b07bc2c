"""Mutates a beton many times and holds what `beton` says to an independent reader; prints the counts as JSON.

    python tests/fuzz_beton.py COUNT SEED FOLDER

Runs in a process of its own with capped memory, so that a crash, a hang or a blow-up is seen from outside.
"""

import json
import mmap
import os
import resource
import sys
from collections import Counter
from pathlib import Path

import betons_by_hand
import numpy as np

from fastresnet import beton

MEMORY_CAP = 1 << 30  # bytes of address space
INTERESTING = (0, 1, 2, 3, 23, 24, 255, 2**15, 2**16 - 1, 2**21, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)
SAMPLES = 8


def sample_betons(folder: Path) -> list[tuple[str, bytes]]:
    """Small betons of each kind: all raw, all JPEG, both mixed and out of order, images of several sizes."""
    rng = np.random.default_rng(0)
    same = [
        np.kron(rng.integers(0, 256, (2, 2, 3)), np.ones((4, 4, 1))).astype(np.uint8) for _ in range(SAMPLES)
    ]
    mixed = [np.zeros((4 + i, 9 - i % 4, 3), np.uint8) + i for i in range(SAMPLES)]
    labels = list(range(SAMPLES))
    order = [int(i) for i in rng.permutation(SAMPLES)]
    makes = {
        "raw": lambda path: betons_by_hand.make(path, same, labels),
        "jpg": lambda path: betons_by_hand.make(path, same, labels, set(labels)),
        "proportion": lambda path: betons_by_hand.make(path, same, labels, {1, 4, 5}, order=order),
        "sizes": lambda path: betons_by_hand.make(path, mixed, labels, {0, 3}),
    }
    return [(name, make(folder / f"{name}.beton").read_bytes()) for name, make in makes.items()]


def places(content: bytes) -> dict[str, tuple[int, int]]:
    """The parts of a beton that hold something: (start, end)."""
    table = int.from_bytes(content[16:24], "little")
    used = max(
        int.from_bytes(content[i + 8 : i + 16], "little") + int.from_bytes(content[i + 16 : i + 24], "little")
        for i in range(table, len(content), 24)
    )
    metadata_end = betons_by_hand.FIELDS_END + betons_by_hand.STRIDE * SAMPLES
    return {
        "header": (0, 24),
        "fields": (24, betons_by_hand.FIELDS_END),
        "metadata": (betons_by_hand.FIELDS_END, metadata_end),
        "data": (betons_by_hand.PAGE, used),
        "table": (table, len(content)),
    }


def mutate(content: bytes, rng: np.random.Generator) -> tuple[str, dict[int, bytes], int]:
    """(kind, bytes to put at offsets, new length of the file)."""
    parts = places(content)
    part = str(rng.choice(["header", "metadata", "table", "data", "fields"], p=[0.25, 0.3, 0.25, 0.15, 0.05]))
    start, end = parts[part]
    kind = str(
        rng.choice(["byte", "number", "swap", "zeros", "cut", "grow"], p=[0.3, 0.3, 0.1, 0.1, 0.15, 0.05])
    )
    if kind == "cut":
        edge = int(rng.choice([0, *(edge for place in parts.values() for edge in place)]))
        return kind, {}, int(np.clip(edge + rng.integers(-30, 31), 0, len(content) - 1))
    if kind == "grow":
        return kind, {len(content): bytes(rng.integers(0, 256, rng.integers(1, 60), np.uint8))}, -1
    at = int(rng.integers(start, end))
    if kind == "byte":
        return f"{part} byte", {at: bytes([content[at] ^ (1 << int(rng.integers(8)))])}, -1
    if kind == "zeros":
        return f"{part} zeros", {at: bytes(min(int(rng.integers(1, 40)), end - at))}, -1
    size = int(rng.choice([1, 2, 4, 8]))
    at = start + (at - start) // size * size
    if kind == "number":
        near = int.from_bytes(content[at : at + size], "little") + int(rng.integers(-2, 3))
        value = near if rng.random() < 0.4 else INTERESTING[int(rng.integers(len(INTERESTING)))]
        return f"{part} number", {at: (value % (1 << 8 * size)).to_bytes(size, "little")[: end - at]}, -1
    other = start + int(rng.integers(0, max(1, (end - start) // 24))) * 24
    row = start + (at - start) // 24 * 24
    one, two = content[row : min(row + 24, end)], content[other : min(other + 24, end)]
    length = min(len(one), len(two))
    return f"{part} swap", {row: two[:length], other: one[:length]}, -1


def judge(path: Path, skip: bool) -> str:
    """What beton made of the file: refused, same as the witness, or (an assertion) something wrong."""
    try:
        if skip:
            images, labels, skipped = beton.read_whole(beton.open_beton(path), on_error="skip", threads=1)
        else:
            (images, labels), skipped = beton.read(path, threads=1), np.arange(0)
    except beton.BetonError as error:
        assert str(path) in str(error) and "\n" not in str(error), f"a poor message: {error}"
        if "differ in size" not in str(error):
            return "refused"
        seen = list(beton.each_image(beton.open_beton(path))) if _decodes(path) else None
        images, labels, skipped = seen, beton.open_beton(path).labels, np.arange(0)
        if seen is None:
            return "refused"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        expected, expected_labels = betons_by_hand.read(content)
    assert [i for i, image in enumerate(expected) if image is None] == skipped.tolist(), (
        "skipped others than the witness"
    )
    kept = [i for i, image in enumerate(expected) if image is not None]
    assert len(images) == len(kept) and labels.tolist() == [expected_labels[i] for i in kept], "labels differ"
    assert all(np.array_equal(image, expected[i]) for image, i in zip(images, kept)), "pixels differ"
    return "accepted"


def _decodes(path: Path) -> bool:
    try:
        beton.verify(path, threads=1)
    except beton.BetonError:
        return False
    return True


def main() -> None:
    count, seed, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    rng = np.random.default_rng(seed)
    bases = sample_betons(folder)
    for name, _ in bases:
        assert judge(folder / f"{name}.beton", False) == "accepted", f"the unharmed {name} beton was refused"
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_CAP, MEMORY_CAP))
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    files = {name: open(folder / f"{name}.beton", "r+b", buffering=0) for name, _ in bases}
    for number in range(count):
        name, content = bases[number % len(bases)]
        kind, patches, length = mutate(content, rng)
        file = files[name]
        for at, piece in patches.items():
            os.pwrite(file.fileno(), piece, at)
        if length >= 0:
            os.ftruncate(file.fileno(), length)
        try:
            outcome = judge(folder / f"{name}.beton", skip=number % 3 == 0)
        except Exception as error:
            raise SystemExit(
                f"mutation {number} of {name} ({kind}, {patches or length}): {error!r}"
            ) from error
        outcomes[outcome] += 1
        kinds[kind] += 1
        for at, piece in patches.items():
            os.pwrite(file.fileno(), content[at : at + len(piece)], at)
        os.ftruncate(file.fileno(), len(content))
        if length >= 0:
            os.pwrite(file.fileno(), content[length:], length)
    for file in files.values():
        file.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    result = {"outcomes": outcomes, "kinds": kinds, "cpu_seconds": used.ru_utime + used.ru_stime}
    print(json.dumps({**result, "peak_bytes": peak_bytes(used.ru_maxrss)}))


def peak_bytes(maxrss: int) -> int:
    """The most memory this program held. Linux counts in `ru_maxrss` what the process held before it became
    this program (that of the test runner that forked it), /proc does not."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return maxrss if sys.platform == "darwin" else maxrss * 1024
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    main()

"""What a lent machine lacks, packed here and unpacked there: packages as wheels, the data set in pieces.

Here `python benchmarks/cargo.py pack TO --wheels FOLDER --data FOLDER`, there `… unpack FROM HOLD`.

Such a machine reaches no registry and has no FFCV, so the data goes as betons, which every process reads
whole. What may be sent at once is limited: they come in pieces, and `unpack` keeps what has arrived in HOLD.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PIECE_BYTES = 56 * 2**20  # what may be sent at once is 64 MiB, the code included
PACKAGES = "packages.tar"
CONVERT = Path(__file__).parents[3] / "scripts" / "convert.py"
# What the package, FFCV and the tests import and an image with torch, numba and pyarrow may lack.
LACKING = (
    "fastargs", "terminaltables", "pytest", "pluggy", "iniconfig", "packaging", "pygments", "tqdm", "psutil",
    "setuptools",
)  # fmt: skip

TRY = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{name}: {error}")
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Pack or unpack; says what it did, a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    there = verbs.add_parser("pack", help="write packages.tar and the pieces of the data")
    there.add_argument("to", type=Path, metavar="TO")
    there.add_argument(
        "--wheels", type=Path, metavar="FOLDER", help="portable wheels to take along as they are"
    )
    there.add_argument("--data", type=Path, metavar="FOLDER", help="Parquet files of the data set")
    here = verbs.add_parser("unpack", help="install what this Python lacks, put the data together")
    here.add_argument("source", type=Path, metavar="FROM")
    here.add_argument("hold", type=Path, metavar="HOLD")
    asked = parser.parse_args(argv)
    if asked.verb == "pack":
        lines = pack(asked.to, asked.wheels, asked.data)
    else:
        lines = unpack(asked.source, asked.hold)
    for line in lines:
        print(line, flush=True)
    return 0


# ---- packing -----------------------------------------------------------------------------------------------


def pack(to: Path, wheels: Path | None, data: Path | None) -> Iterator[str]:
    """Write what a lent machine lacks into `to`. Raises ValueError where a folder holds nothing to pack."""
    to.mkdir(parents=True, exist_ok=True)
    given = sorted(wheels.glob("*.whl")) if wheels is not None else []
    if wheels is not None and not given:
        raise ValueError(f"--wheels {wheels}: no wheel lies there")
    fetched = to / "wheels"
    yield from fetch([name for name in LACKING if name not in map(_distribution, given)], fetched)
    found = [*given, *sorted(fetched.glob("*.whl"))]
    with tarfile.open(to / PACKAGES, "w") as archive:
        for wheel in found:
            archive.add(wheel, wheel.name)
    shutil.rmtree(fetched, ignore_errors=True)
    yield f"{to / PACKAGES}: {', '.join(map(_distribution, found))}"
    if data is not None:
        betons = to / "betons"
        words = [str(CONVERT), "--source=parquet", f"--root={data}", f"--out={betons}"]
        if subprocess.run([sys.executable, *words], check=False).returncode:
            raise ValueError(f"--data {data}: no betons could be made of it (see above)")
        pieces = cut(sorted(betons.iterdir()), to)
        shutil.rmtree(betons)
        yield f"{to}: betons in {len(pieces)} pieces"


def fetch(names: Sequence[str], to: Path) -> Iterator[str]:
    """Wheels of these packages, without what they need, by pip; a line for each that can't be had."""
    for name in names:  # some are released as source alone, of which pip makes a wheel
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(to), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"not packed: {name} ({(done.stderr.strip() or 'no reason given').splitlines()[-1]})"


def cut(files: Sequence[Path], to: Path) -> list[Path]:
    """One archive of the files in pieces of at most PIECE_BYTES, named <number>-of-<count>.data."""
    whole = to / "whole.tar.gz"
    with tarfile.open(whole, "w:gz", compresslevel=6) as archive:
        for path in files:
            archive.add(path, path.name)
    count = -(-whole.stat().st_size // PIECE_BYTES)
    pieces = [to / f"{number}-of-{count}.data" for number in range(1, count + 1)]
    with open(whole, "rb") as source:
        for piece in pieces:
            piece.write_bytes(source.read(PIECE_BYTES))
    whole.unlink()
    return pieces


# ---- unpacking ---------------------------------------------------------------------------------------------


def unpack(source: Path, hold: Path) -> Iterator[str]:
    """Install the wheels that came and keep the pieces that came; hold/betons is there when all have come."""
    hold.mkdir(parents=True, exist_ok=True)
    if (source / PACKAGES).exists():
        yield from install(source / PACKAGES, hold / "packages")
    betons = hold / "betons"
    if betons.exists():
        yield f"data: betons in {betons}"
        return
    for piece in source.glob("*-of-*.data"):
        shutil.copyfile(piece, hold / piece.name)
    pieces = sorted(hold.glob("*-of-*.data"), key=lambda piece: int(piece.name.split("-")[0]))
    count = int(pieces[0].stem.split("-")[-1]) if pieces else 0
    if count and len(pieces) == count:
        join(pieces, betons)
        yield f"data: betons in {betons}"
    else:
        yield f"data: {len(pieces)} of {count or 'all'} pieces are here"


def install(archive: Path, to: Path) -> Iterator[str]:
    """Those wheels whose modules this Python can't import, by pip into `to`; only what works stays."""
    wheels = to.parent / "wheels"
    _opened(archive, wheels)
    lacking = [wheel for wheel in sorted(wheels.glob("*.whl")) if not all(map(_importable, _modules(wheel)))]
    if lacking:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]
        subprocess.run([*command, "--target", str(to), *map(str, lacking)], check=True)
        importlib.invalidate_caches()
    brought = {module for wheel in lacking for module in _modules(wheel)}
    shutil.rmtree(wheels)
    for line in _broken(brought, to):
        shutil.rmtree(to / line.split(":")[0], ignore_errors=True)
        yield f"left out {line}"
    yield f"installed: {', '.join(map(_distribution, lacking)) or 'nothing, all is here'}"


def _broken(modules: Iterable[str], folder: Path) -> list[str]:
    """`module: why` for each that can't be imported from the folder: what it needs is missing here."""
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", TRY, *sorted(modules)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def join(pieces: Iterable[Path], to: Path) -> None:
    """The files that were cut, in the folder `to`; the pieces are gone afterwards."""
    whole = to.parent / "whole.tar.gz"
    with open(whole, "wb") as file:
        for piece in pieces:
            file.write(piece.read_bytes())
            piece.unlink()
    _opened(whole, to)
    whole.unlink()


def _opened(archive: Path, to: Path) -> None:
    with tarfile.open(archive) as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # since Python 3.11.4
        packed.extractall(to)


def _distribution(wheel: Path) -> str:
    return wheel.name.split("-")[0].lower()


def _modules(wheel: Path) -> set[str]:
    """The top-level modules that a wheel brings."""
    names = {name.partition("/")[0].removesuffix(".py") for name in zipfile.ZipFile(wheel).namelist()}
    return {name for name in names if name.isidentifier()}


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False

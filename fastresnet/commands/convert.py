"""Convert images to betons: `python scripts/convert.py --source parquet --root FOLDER --out FOLDER`.

Writes train.beton and test.beton, each with a .json of facts and checksums beside it, whole or not at all.
"""

import argparse
import sys
import time
from pathlib import Path

from fastresnet import beton, sources
from fastresnet.base import words
from fastresnet.base.sinks import for_terminal
from fastresnet.data import conversion
from fastresnet.settings.command_line import parse_args
from fastresnet.settings.config import Config
from fastresnet.settings.sections import SETTINGS

SHORT = {  # option of this script: the setting it stands for
    "source": "data.source",
    "root": "data.root",
    "name": "data.name",
    "mode": "data.write_mode",
    "quality": "data.jpeg_quality",
    "workers": "data.workers",
}
BAR_WIDTH = 30  # characters


def options(parser: argparse.ArgumentParser) -> None:
    for option, key in SHORT.items():
        rule = SETTINGS[key].rule
        parser.add_argument(
            f"--{option}",
            type=rule.kind,
            choices=rule.choices or None,
            metavar=None if rule.choices else option.upper(),
            help=f"{SETTINGS[key].help} (the same as --{key})",
        )
    shrink = "shrink larger images to this longer side, which makes another data set"
    parser.add_argument("--out", type=Path, help="folder of the betons (default: one under data.betons)")
    parser.add_argument("--max-size", type=int, metavar="PX", help=shrink)
    parser.add_argument("--verify", type=Path, metavar="BETON", help="read, hash and decode all of a beton")


def main() -> None:
    cfg, args = parse_args(None, __doc__, options, default=None)
    if args.verify:
        print(verified(args.verify))
        return
    if args.max_size is not None and args.max_size < 1:
        raise ValueError(f"--max-size must be at least 1 (px), got {args.max_size}")
    cfg = cfg.replace(
        {key: getattr(args, option) for option, key in SHORT.items() if getattr(args, option) is not None}
    )
    source, root = _source(cfg)
    bar, started = Bar(), time.monotonic()
    folder, facts = conversion.convert(
        source, root, cfg.data, out=args.out, max_size=args.max_size, notes=bar.note, progress=bar
    )
    bar.end()
    for split, fact in facts.items():
        path = folder / f"{split}.beton"
        size, name = words.size(path.stat().st_size), for_terminal(fact["name"])
        print(f"{for_terminal(path)}  {fact['count']} images  {size}  {name}  {fact['digest']}")
    print(f"converted in {words.duration(time.monotonic() - started)}")


def _source(cfg: Config) -> tuple[str, str | None]:
    """The source to convert and its folder; ValueError where betons are there already."""
    source, root = cfg.data.source, cfg.data.root
    if source != "auto":
        return source, root
    source, found = sources.resolve_auto(cfg.data.name, root)
    if source == "betons":
        raise ValueError(
            f"{found} holds betons already: nothing to convert (--source and --root name another source)"
        )
    return source, str(found)


def verified(path: Path) -> str:
    """One line about a beton of which every byte was read and is right; BetonError otherwise."""
    info, facts = beton.verify(path)
    size = f"{info.width}x{info.height} px"
    if not info.uniform:
        size = f"up to {info.max_width}x{info.max_height} px"
    stored = ", ".join(f"{count} {mode}" for mode, count in info.modes.items() if count)
    name = (
        f"{facts['name']}, every byte as it was written"
        if facts
        else "no sidecar, so nothing to compare with"
    )
    labels = f"labels {info.labels[0]}..{info.labels[1]}"
    return for_terminal(f"{path}: sound; {info.num_samples} images of {size} ({stored}), {labels}; {name}")


class Bar:
    """Progress on standard error: a bar that moves on a terminal, one line a split elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()

    def __call__(self, split: str, done: int, total: int) -> None:
        """`done` of `total` images of a split are written."""
        if self.live:
            full = BAR_WIDTH * done // total
            bar = f"\r{split:5} [{'#' * full:{BAR_WIDTH}}] {done}/{total}"
            print(bar, end="", file=sys.stderr, flush=True)
        elif done == total:
            print(f"{split}: {total} images written", file=sys.stderr, flush=True)

    def note(self, line: str) -> None:
        """One line of news, below the bar."""
        self.end()
        print(for_terminal(line), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the bar's line."""
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

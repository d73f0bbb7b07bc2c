"""Convert images to betons: `fastresnet convert --source parquet --root FOLDER --out FOLDER`.

Writes train.beton and test.beton, each with a .json of facts and checksums beside it, whole or not at all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fastresnet import beton, sources
from fastresnet.base import words
from fastresnet.base.sinks import for_terminal
from fastresnet.data import conversion
from fastresnet.runs.progress import Heartbeat, Progress
from fastresnet.settings.command_line import at_least_one, parse_args
from fastresnet.settings.config import Config
from fastresnet.settings.overrides import as_words
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
    """What this command takes beside the settings; those that people type most under short names."""
    add = parser.add_argument
    for option, key in SHORT.items():
        rule, what = SETTINGS[key].rule, f"{SETTINGS[key].help} (the same as --{key})"
        shown = None if rule.choices else option.upper()
        add(f"--{option}", type=rule.kind, choices=rule.choices or None, metavar=shown, help=what)
    add("--out", type=Path, help="folder of the betons (default: one under data.betons)")
    shrink = "shrink larger images to this longer side, which makes another data set"
    add("--max-size", type=at_least_one, metavar="PX", help=shrink)
    add("--verify", type=Path, metavar="BETON", help="read, hash and decode all of a beton")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the betons, or check the one that --verify names."""
    cfg, args = parse_args(argv, __doc__, options, default=None)
    if args.verify:
        with Heartbeat(lambda: f"reading {args.verify}", quiet=cfg.run.progress == "off"):
            told = verified(args.verify)
        print(words.fitted(told, sys.stdout))
        return
    given = {key: getattr(args, option) for option, key in SHORT.items()}
    cfg = cfg.replace({key: value for key, value in given.items() if value is not None})
    source, root = _meant(cfg.data.source, cfg.data.root, cfg.data.name)
    with Bar(cfg.run.progress) as bar:
        folder, facts = conversion.convert(
            source, root, cfg.data, out=args.out, max_size=args.max_size, notes=bar.note, progress=bar
        )
    for split, fact in facts.items():
        path = folder / f"{split}.beton"
        size, name = words.size(path.stat().st_size), for_terminal(fact["name"])
        line = f"{for_terminal(path)}  {fact['count']} images  {size}  {name}  {fact['digest']}"
        print(words.fitted(line, sys.stdout))
    print(f"converted in {words.duration(time.monotonic() - bar.began)}")
    if sys.stdout.isatty():
        recipe = args.config or ("photos.yaml" if source == "imagefolder" else "cpu.yaml")
        print(_next(cfg, recipe, folder))


def _next(cfg: Config, recipe: str, folder: Path) -> str:
    """The command that trains on the betons."""
    settings = {f"data.{split}": f"{folder / split}.beton" for split in sources.SPLITS}
    asked = {key: value for key, value in cfg.asked().items() if key == "data.image_size"}
    return words.then("train", f"--config={recipe}", *as_words(settings | asked))


def _meant(source: str, root: str | None, name: str) -> tuple[str, str | None]:
    """The source and its folder; ValueError where auto finds betons, which need no conversion."""
    if source != "auto":
        return source, root
    source, found = sources.resolve_auto(name, root)
    if source == "betons":
        raise ValueError(
            f"{found} holds betons already: nothing to convert (--source and --root name another source)"
        )
    return source, str(found)


def verified(path: Path) -> str:
    """One line about a beton of which every byte was read and is right; BetonError otherwise."""
    layout, facts = beton.verify(path)
    height, width = layout.largest
    size = f"{width}x{height}" if layout.uniform else f"up to {width}x{height}"
    stored = ", ".join(f"{count} {mode}" for mode, count in layout.stored_as.items() if count)
    compared = ", every byte as it was written" if facts else "no sidecar, so nothing to compare with"
    labels = f"labels {layout.labels.min()}..{layout.labels.max()}"
    name = facts["name"] if facts else ""
    sound = f"sound; {len(layout)} images of {size} px ({stored}), {labels}; {name}{compared}"
    return for_terminal(f"{path}: {sound}")


class Bar:
    """What is under way, and for how long: a live line on a terminal, a line a split elsewhere."""

    def __init__(self, mode: str = "auto") -> None:
        self._shown, self._doing, self.began = Progress(mode), "starting", time.monotonic()
        patience, say = (1.0, self._shown.rewrite) if self._shown.live else (None, self._shown.note)
        self._heart = Heartbeat(self._told, patience=patience, say=say)

    def __enter__(self) -> Bar:
        self._heart.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._heart.__exit__(*exc)
        self._shown.clear()

    def __call__(self, split: str, done: int, total: int) -> None:
        """`done` of `total` images of a split are written."""
        self._doing = f"{split:5} [{'#' * (BAR_WIDTH * done // total):{BAR_WIDTH}}] {done}/{total}"
        if self._shown.live:
            self._shown.rewrite(self._told())
        elif done == total:
            self._shown.note(f"{split}: {total} images written")

    def note(self, line: str) -> None:
        """One line of news."""
        self._doing = f"{line} ..."
        self._shown.note(line)

    def _told(self) -> str:
        return f"{words.duration(time.monotonic() - self.began, digits=0)}  {self._doing}"

"""Loaders against each other: `python benchmarks/loader.py [--only ours,theirs] [--json FILE] [--plot FILE]`.

What they make is checked first. They are timed in turns, so that a busy machine is busy for all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fastresnet.augment.dispatch import kernel_for
from fastresnet.base import files, words
from fastresnet.base.system import cores_usable
from fastresnet.bench.contest import contest, outcome, tuning
from fastresnet.bench.contest.contestants import DTYPES, SPEC
from fastresnet.bench.measuring.cases.loading import RECIPES
from fastresnet.machine import hardware
from fastresnet.machine.devices import choose_device
from fastresnet.runs.progress import Heartbeat
from fastresnet.settings import config
from fastresnet.settings.command_line import Parser, above_zero, at_least_one, picture


def main(argv: Sequence[str] | None = None) -> int:
    """Hold the contest, or tune the kernel; print a table, and write what is asked for."""
    options = parse(argv)
    device = choose_device(options.device, option="--device")
    batch = options.batch_size or int(config.load(RECIPES[device.type == "cuda"]).train.batch_size)
    result: dict[str, object] = {
        "benchmark": "loader",
        **hardware.circumstances(),
        "dtype": options.dtype,
        "images": options.images,
        "batch_size": batch,
        "augmentation": repr(SPEC),
    }
    result |= _tuned(device, options.images, batch) if options.tune else _held(device, batch, options)
    if options.json:
        files.write_text(options.json, json.dumps(result, indent=1) + "\n")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises ConfigError for a wrong one."""
    given = Parser(__doc__)
    add = given.add_argument
    add("--images", type=at_least_one, default=20_000, help="images in the set (20000)")
    add("--seconds", type=above_zero, default=10.0, help="measuring time for each loader (10)")
    add("--batch-size", type=at_least_one, help="(what training uses: 1536 on a GPU, 500 on a CPU)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--dtype", choices=tuple(DTYPES), default="fp32")
    add("--only", default="", help="loaders to run, with commas: resident,stream,ffcv,torchvision,dali")
    add("--threads", type=at_least_one, help="for every loader (one a core)")
    add("--tune", action="store_true", help="time the Triton kernel's block sizes instead")
    add("--json", type=Path, help="file for the result")
    add("--plot", type=picture, help="file for the picture (PNG)")
    return given.parse_args(argv)


def _tuned(device: torch.device, images: int, batch: int) -> dict[str, object]:
    found = tuning.tune(device, images, batch)
    for row in found[:12]:
        print(row)
    return {"tuning": found}


def _held(device: torch.device, batch: int, options: argparse.Namespace) -> dict[str, object]:
    contestants = contest.chosen(device, [name.strip() for name in options.only.split(",") if name.strip()])
    workers = options.threads or cores_usable()
    setting = contest.setting_of(options.images, batch, device, DTYPES[options.dtype], workers)
    with Heartbeat(lambda: f"they take turns, {options.seconds:g} s each in all"):
        rows = contest.hold(contestants, setting, options.seconds, print)
    title = f"{hardware.short_name(hardware.describe())}, {options.dtype}, batch {batch}"
    print(f"\n{title}, kernel auto: {kernel_for('auto', device)[0]}")
    print(outcome.table(rows, words.room(sys.stdout)))
    targets = outcome.verdicts(rows, device.type)
    for verdict in targets:
        print(f"{'hit ' if verdict['hit'] else 'MISS'} {verdict['target']}: {verdict['reached']:,.2f}")
    if options.plot:
        outcome.plot(rows, options.plot, title)
    return {"rows": rows, "targets": targets}

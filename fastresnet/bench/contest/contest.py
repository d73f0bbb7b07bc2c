"""Loaders against each other: `python benchmarks/loader.py [--images N] [--seconds S] [--json FILE] [--plot
FILE]`.

What they make is checked first (loader_checks.py). They are timed in turns (A B C A B C), so that a
busy machine is busy for all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from fastresnet import beton
from fastresnet.augment.dispatch import kernel_for
from fastresnet.base import files, statistics
from fastresnet.base.cores import cores_usable
from fastresnet.bench.contest.checks import check, coordinates
from fastresnet.bench.contest.contestants import (
    DTYPES,
    MEAN,
    SIZE,
    SPEC,
    STD,
    Contestant,
    Setting,
    contestants,
)
from fastresnet.machine import hardware, software, timing

CPU_TARGETS = (("ffcv", 4.0), ("torchvision", 20.0))  # resident at least so many times the rival
GPU_TARGET, GPU_RATIO = 100e6, 10.0  # images/s, and times the fastest rival
FIRST_BATCH_TARGET = 2.0  # seconds, imports apart


def cases(
    images: int = 20_000,
    seconds: float = 10.0,
    batch_size: int = 512,
    device: str = "auto",
    dtype: str = "fp32",
    only: Sequence[str] = (),
    threads: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[dict[str, Any]]:
    """Rows of the benchmark, one a contestant, after all were measured in turns.

    seconds:  of measuring for each contestant
    only:     names to keep; a name's first word is enough
    threads:  for every loader (0: one a core)
    """
    workers = threads or cores_usable()
    torch.set_num_threads(workers)
    kind = torch.device(
        "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    )
    pixels, labels = coordinates(images)
    entrants = [c for c in contestants(kind) if not only or {c.name, c.name.split()[0]} & set(only)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.beton"
        if beton.can_write() and any(c.name in ("ffcv", "stream") for c in entrants):
            beton.write(path, pixels, labels)
        setting = Setting(pixels, labels, path, batch_size, kind, DTYPES[dtype], workers)
        for entrant in entrants:
            _begin(entrant, setting, say)
        rounds = 3
        for _ in range(rounds):
            for entrant in entrants:
                if entrant.problem is None:
                    entrant.measure(setting, seconds / rounds)
    yield from (entrant.row() for entrant in entrants)


def _begin(entrant: Contestant, setting: Setting, say: Callable[[str], None]) -> None:
    needs = {"ffcv": "ffcv", "stream": "ffcv", "torchvision": "torchvision", "dali": "nvidia.dali"}.get(
        entrant.name
    )
    try:
        if needs and importlib.util.find_spec(needs.split(".")[0]) is None:
            entrant.problem = f"{needs} isn't installed"
        else:
            check(entrant, setting, entrant.start(setting))
    except Exception as error:  # one loader's failure is a row, and says why
        entrant.problem = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    say(f"{entrant.name}: {entrant.problem or f'ready after {entrant.first_batch:.1f} s, its batches agree'}")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Aligned lines, a contestant each."""
    lines = [
        f"{'loader':20s} {'images/s':>12s} {'p20':>12s} {'p80':>12s} {'n':>4s} {'first s':>8s} {'cores':>6s} "
        f"{'per cpu s':>10s} {'MiB':>7s}"
    ]
    for row in rows:
        speed = row["images_per_second"]
        if speed is None:
            lines.append(f"{row['name']:20s} {row['status']}")
            continue
        lines.append(
            f"{row['name']:20s} {speed['median']:12,.0f} {speed['p20']:12,.0f} {speed['p80']:12,.0f} "
            f"{speed['n']:4d} "
            f"{row['first_batch_seconds']:8.2f} {row['host_cpu_cores']:6.2f} "
            f"{row['images_per_cpu_second']:10,.0f} {row['memory_mib']:7.0f}"
        )
    return "\n".join(lines)


def verdicts(rows: Sequence[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """Each target with what was reached: {target, reached, hit}."""
    speeds = {row["name"]: row["images_per_second"]["median"] for row in rows if row["images_per_second"]}
    best = next(
        (row for row in rows if row["name"] in speeds and row["ours"] and row["name"] != "stream"), None
    )
    found = []
    if best is not None:
        ours = speeds[best["name"]]
        goals = [
            (f"{best['name']} at least {ratio:g} times {rival}", ours / speeds[rival], ratio)
            for rival, ratio in CPU_TARGETS
            if rival in speeds
        ]
        if device == "cuda":
            rivals = [speeds[row["name"]] for row in rows if row["name"] in speeds and not row["ours"]]
            goals = [(f"{best['name']} at least {GPU_TARGET:,.0f} images/s", ours, GPU_TARGET)]
            goals += (
                [(f"at least {GPU_RATIO:g} times the fastest rival", ours / max(rivals), GPU_RATIO)]
                if rivals
                else []
            )
        if "stream" in speeds and "ffcv" in speeds:
            goals.append(("stream no slower than ffcv", speeds["stream"] / speeds["ffcv"], 1.0))
        found = [dict(target=text, reached=reached, hit=reached >= goal) for text, reached, goal in goals]
        first = best["first_batch_seconds"]
        found.append(
            dict(
                target=f"first batch within {FIRST_BATCH_TARGET:g} s",
                reached=first,
                hit=first <= FIRST_BATCH_TARGET,
            )
        )
    return found


def plot(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """A bar a contestant on a logarithmic axis, with the 20th to 80th percentile."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row["images_per_second"]][::-1]
    figure = Figure(figsize=(7, 0.5 * len(shown) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    middle = [row["images_per_second"]["median"] for row in shown]
    spread = [
        [row["images_per_second"]["median"] - row["images_per_second"]["p20"] for row in shown],
        [row["images_per_second"]["p80"] - row["images_per_second"]["median"] for row in shown],
    ]
    colors = ["tab:blue" if row["ours"] else "tab:gray" for row in shown]
    bars = axes.barh([row["name"] for row in shown], middle, xerr=spread, color=colors)
    axes.bar_label(bars, [f" {value:,.0f}" for value in middle])
    axes.set(
        xscale="log", xlabel="augmented images a second", title=title, xlim=(min(middle) / 2, max(middle) * 6)
    )
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:])


def tune(device: torch.device, images: int, batch_size: int) -> list[dict[str, Any]]:
    """Images/s of the Triton kernel for each block size and number of warps, the best first. Needs a GPU."""
    from fastresnet import augment
    from fastresnet.augment.kernels import triton_augment

    if device.type != "cuda":
        raise ValueError("--tune times the Triton kernel, which needs a CUDA GPU")
    stored = augment.stored_for(torch.from_numpy(coordinates(images)[0]).to(device), SPEC, "triton")
    choices = augment.draw(SPEC, batch_size, (SIZE, SIZE), 0, 0, device)
    which = torch.randint(0, images, (batch_size,), device=device)
    found = []
    for dtype in DTYPES.values():
        out = torch.empty((batch_size, SIZE, SIZE, 3), dtype=dtype, device=device)
        for block in (512, 1024, 2048, 4096, 8192):
            for warps in (1, 2, 4, 8):

                def call(block: int = block, warps: int = warps, out: torch.Tensor = out) -> None:
                    triton_augment.augment(
                        stored,
                        which,
                        choices,
                        mean=MEAN,
                        std=STD,
                        size=(SIZE, SIZE),
                        out_NHWC=out,
                        block=block,
                        warps=warps,
                    )

                call()
                seconds = statistics.quantiles(timing.time_calls(call, 20, device, repeats=20))["median"]
                moved = batch_size * SIZE * SIZE * 3 * (1 + out.element_size())
                found.append(
                    dict(
                        dtype=str(dtype),
                        block=block,
                        warps=warps,
                        images_per_second=batch_size / seconds,
                        bytes_per_second=moved / seconds,
                    )
                )
    return sorted(found, key=lambda row: -row["images_per_second"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000, help="images in the set (default 20000)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="measuring time for each loader (default 10)"
    )
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument(
        "--only", default="", help="loaders to run, with commas: resident,stream,ffcv,torchvision,dali"
    )
    parser.add_argument("--threads", type=int, default=0, help="for every loader (default: one a core)")
    parser.add_argument("--tune", action="store_true", help="time the Triton kernel's block sizes instead")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--plot", type=Path, help="file for the picture (PNG)")
    given = parser.parse_args(argv)
    device = (
        "cuda"
        if given.device == "auto" and torch.cuda.is_available()
        else given.device.replace("auto", "cpu")
    )
    machine = hardware.describe()
    result: dict[str, Any] = dict(
        benchmark="loader",
        hardware=machine,
        software=software.versions(),
        git=software.git_state(),
        dtype=given.dtype,
        images=given.images,
        batch_size=given.batch_size,
        augmentation=repr(SPEC),
    )
    if given.tune:
        result["tuning"] = tune(torch.device(device), given.images, given.batch_size)
        for row in result["tuning"][:12]:
            print(row)
    else:
        only = [name for name in given.only.split(",") if name]
        rows = list(
            cases(
                given.images, given.seconds, given.batch_size, device, given.dtype, only, given.threads, print
            )
        )
        result |= dict(rows=rows, targets=verdicts(rows, device))
        print(
            f"\n{hardware.short_name(machine)}, {given.dtype}, batch {given.batch_size}, kernel auto: "
            f"{kernel_for('auto', torch.device(device))[0]}\n{table(rows)}"
        )
        for verdict in result["targets"]:
            print(f"{'hit ' if verdict['hit'] else 'MISS'} {verdict['target']}: {verdict['reached']:,.2f}")
        if given.plot:
            plot(rows, given.plot, f"{hardware.short_name(machine)}, {given.dtype}, batch {given.batch_size}")
    if given.json:
        files.write_text(given.json, json.dumps(result, indent=1) + "\n")
    return 0

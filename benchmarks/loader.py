"""Loaders against each other: `python benchmarks/loader.py [--images N] [--seconds S] [--json FILE] [--plot
FILE]`.

The same images, augmentation (crop with mean padding, mirror, cutout), batch and dtype for each: resident by
each
kernel, ours streaming, FFCV's Loader as in its CIFAR example, torchvision's DataLoader, DALI where it is
installed.
What they make is checked first: equal pixels where choices can be given, else the distribution of crops and
mirrors.
They are timed in turns (A B C A B C), so that a busy machine is busy for all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository: `benchmarks` is a package there

import numpy as np
import torch
from torch import Tensor

from fastresnet import beton, hardware, timing
from fastresnet.augment import Augment, kernel_for
from fastresnet.loader import ResidentLoader

SPEC = Augment(crop_padding_px=4, crop_mode="mean", flip="random", cutout_px=8)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SIZE = 32  # px, and 8 grey levels a row and column tell where a pixel came from
SAMPLE_SECONDS = 0.25
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_TARGETS = (("ffcv", 4.0), ("torchvision", 20.0))  # resident at least so many times the rival
GPU_TARGET, GPU_RATIO = 100e6, 10.0  # images/s, and times the fastest rival
FIRST_BATCH_TARGET = 2.0  # seconds, imports apart


@dataclass(frozen=True)
class Setting:
    """What all contestants share."""

    images: np.ndarray
    labels: np.ndarray
    path: Path
    batch_size: int
    device: torch.device
    dtype: torch.dtype
    workers: int

    def keywords(self) -> dict[str, Any]:
        """For our own loaders."""
        return dict(
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
            augment=SPEC,
            mean=MEAN,
            std=STD,
            shuffle=True,
            drop_last=True,
            seed=0,
        )


@dataclass
class Contestant:
    """One loader: `epochs` opens it and yields one iterator of batches an epoch, for ever."""

    name: str
    epochs: Callable[[Setting], Iterator[Iterator[tuple[Tensor, Tensor]]]]
    exact: bool  # takes our choices: its batches must equal the resident loader's
    ours: bool
    samples: list[float] = field(default_factory=list)  # images/s
    first_batch: float | None = None
    cpu_use: float | None = None  # cores busy
    per_cpu_second: float | None = None  # images: what a busy machine changes least
    memory_mib: float | None = None
    problem: str | None = None
    _batches: Iterator[tuple[Tensor, Tensor]] | None = None

    def start(self, setting: Setting) -> tuple[Tensor, Tensor]:
        """Open, take the first batch and note what that took."""
        before = memory_bytes(setting.device)
        began = timing.now(setting.device)
        opened = self.epochs(setting)
        self._batches = (batch for epoch in opened for batch in epoch)
        batch = next(self._batches)
        self.first_batch = timing.now(setting.device) - began
        self.memory_mib = (memory_bytes(setting.device) - before) / 2**20
        return batch

    def take(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """The next `count` batches, copied."""
        assert self._batches is not None
        return [(x.clone(), y.clone()) for x, y in (next(self._batches) for _ in range(count))]

    def measure(self, setting: Setting, seconds: float) -> None:
        """Samples of images a second for about `seconds`."""
        assert self._batches is not None
        cpu, began, end, total = cpu_seconds(), timing.now(setting.device), time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            start, images = timing.now(setting.device), 0
            while time.perf_counter() - start < SAMPLE_SECONDS:
                for _ in range(8 if setting.device.type == "cuda" else 1):
                    images += len(next(self._batches)[1])
            self.samples.append(images / (timing.now(setting.device) - start))
            total += images
        used = cpu_seconds() - cpu
        self.cpu_use, self.per_cpu_second = used / (timing.now(setting.device) - began), total / used

    def row(self) -> dict[str, Any]:
        """What was measured, for the table and the file."""
        quantiles = timing.quantiles(self.samples) if self.samples else None
        return dict(
            name=self.name,
            ours=self.ours,
            status=self.problem or "ok",
            images_per_second=quantiles,
            first_batch_seconds=self.first_batch,
            host_cpu_cores=self.cpu_use,
            images_per_cpu_second=self.per_cpu_second,
            memory_mib=self.memory_mib,
            samples=[round(value, 1) for value in self.samples],
        )


# The contestants ---------------------------------------------------------------------------------------


def resident(kernel: str) -> Callable[[Setting], Iterator[Any]]:
    """The dataset on the device, augmented by `kernel`."""

    def epochs(setting: Setting) -> Iterator[Any]:
        loader = ResidentLoader(setting.images, setting.labels, kernel=kernel, **setting.keywords())
        return (loader.epoch(k) for k in range(10**9))

    return epochs


def stream(setting: Setting) -> Iterator[Any]:
    """Ours over FFCV's Loader."""
    from fastresnet.stream import StreamLoader

    loader = StreamLoader(setting.path, workers=setting.workers, **setting.keywords())
    return (loader.epoch(k) for k in range(10**9))


def torchvision(setting: Setting) -> Iterator[Any]:
    """DataLoader and v2 transforms."""
    from fastresnet.torchvision_loader import TorchvisionLoader

    loader = TorchvisionLoader(setting.images, setting.labels, workers=setting.workers, **setting.keywords())
    return (loader.epoch(k) for k in range(10**9))


def ffcv(setting: Setting) -> Iterator[Any]:
    """FFCV's Loader with the pipeline of its CIFAR example, padding and cutout as in SPEC, right
    statistics."""
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import (
        Convert,
        Cutout,
        RandomHorizontalFlip,
        RandomTranslate,
        Squeeze,
        ToDevice,
        ToTensor,
        ToTorchImage,
    )
    from torchvision.transforms import Normalize

    mean, std = ([255 * value for value in values] for values in (MEAN, STD))
    fill = tuple(round(value) for value in mean)
    to_device = [ToDevice(setting.device, non_blocking=True)] if setting.device.type == "cuda" else []
    image = [
        SimpleRGBImageDecoder(),
        RandomHorizontalFlip(),
        RandomTranslate(SPEC.crop_padding_px, fill),
        Cutout(SPEC.cutout_px, fill),
        ToTensor(),
        *to_device,
        ToTorchImage(),
        Convert(setting.dtype),
        Normalize(mean, std),
    ]
    label = [IntDecoder(), ToTensor(), *to_device, Squeeze(1)]
    threads = torch.get_num_threads()
    loader = Loader(
        str(setting.path),
        batch_size=setting.batch_size,
        num_workers=setting.workers,
        seed=0,
        order=OrderOption.RANDOM,
        drop_last=True,
        pipelines={"image": image, "label": label},
    )
    torch.set_num_threads(threads)
    return (iter(loader) for _ in range(10**9))


def dali(setting: Setting) -> Iterator[Any]:
    """NVIDIA DALI from the arrays in memory, its augmentations on the device."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    place = "gpu" if setting.device.type == "cuda" else "cpu"
    random = np.random.default_rng(0)

    def samples() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            for rows in random.permutation(len(setting.labels)).reshape(-1, setting.batch_size):
                yield setting.images[rows], setting.labels[rows, None]

    @pipeline_def(
        batch_size=setting.batch_size, num_threads=setting.workers, device_id=0 if place == "gpu" else None
    )
    def pipeline() -> Any:
        images, labels = fn.external_source(samples, num_outputs=2, layout=["HWC", ""])
        if place == "gpu":
            images, labels = images.gpu(), labels.gpu()
        reach, pad = SIZE + 2 * SPEC.crop_padding_px, SPEC.crop_padding_px
        mean, std = ([255 * value for value in values] for values in (MEAN, STD))
        padded = fn.paste(images, ratio=reach / SIZE, fill_value=[round(value) for value in mean])
        cut = fn.erase(
            fn.crop(
                padded,
                crop=(SIZE, SIZE),
                crop_pos_x=fn.random.uniform(range=(0, 1)),
                crop_pos_y=fn.random.uniform(range=(0, 1)),
            ),
            anchor=fn.random.uniform(range=(0, SIZE - pad), shape=(2,)),
            shape=[SPEC.cutout_px] * 2,
            axis_names="HW",
            fill_value=[round(value) for value in mean],
        )
        precise = types.FLOAT if setting.dtype == torch.float32 else types.FLOAT16
        done = fn.crop_mirror_normalize(
            cut, mirror=fn.random.coin_flip(), mean=mean, std=std, dtype=precise, output_layout="CHW"
        )
        return done, labels

    iterator = DALIGenericIterator(pipeline(), ["images", "labels"], size=-1, auto_reset=True)
    batches = ((batch[0]["images"], batch[0]["labels"].view(-1)) for batch in iterator)
    return iter([batches])


def contestants(device: torch.device) -> list[Contestant]:
    """Everything that could run on such a device; ours first."""
    kernels = ["triton"] if device.type == "cuda" else ["rows"]
    found = [
        Contestant(f"resident {name}", resident(name), True, True)
        for name in (*kernels, "compiled", "reference")
    ]
    return [
        *found,
        Contestant("stream", stream, True, True),
        Contestant("ffcv", ffcv, False, False),
        Contestant("torchvision", torchvision, True, False),
        Contestant("dali", dali, False, False),
    ]


# Checking ----------------------------------------------------------------------------------------------


def coordinates(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose red says in which row a pixel was and whose green in which column; labels are numbers."""
    images = np.random.default_rng(0).integers(0, 8, (count, SIZE, SIZE, 3), dtype=np.uint8)
    at = np.arange(SIZE, dtype=np.uint8) * 8
    images[..., 0] += at[:, None]
    images[..., 1] += at[None, :]
    return images, np.arange(count, dtype=np.int64)


def crops_and_mirrors(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where each window of `coordinates` was cut, dy and dx in ±padding, and whether it was mirrored."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    source = ((images.float().cpu() * std + mean) * 255 / 8).floor()
    at = torch.arange(SIZE)
    dy = (source[:, 0] - at[:, None]).flatten(1).median(1).values
    straight, mirrored = ((source[:, 1] - line).flatten(1) for line in (at, SIZE - 1 - at))
    middle, other = straight.median(1).values, mirrored.median(1).values
    flipped = (mirrored == other[:, None]).sum(1) > (straight == middle[:, None]).sum(1)
    return dy.long(), torch.where(flipped, other, middle).long(), flipped


def unlikely(dy: Tensor, dx: Tensor, flipped: Tensor) -> str | None:
    """Why crops and mirrors can't be uniform (chi-square and binomial at p below 0.0001), or None."""
    pad, count = SPEC.crop_padding_px, len(dy)
    for name, values in (("rows", dy), ("columns", dx)):
        if int(values.abs().max()) > pad:
            return f"{name} are shifted by {int(values.abs().max())} px, at most {pad} were asked for"
        counts, expected = torch.bincount(values + pad, minlength=2 * pad + 1).double(), count / (2 * pad + 1)
        statistic = float(((counts - expected) ** 2 / expected).sum())
        if statistic > 32:  # 8 degrees of freedom: p = 0.0001
            return f"shifts of {name} are not uniform: chi-square {statistic:.0f} with {2 * pad} degrees"
    share = float(flipped.double().mean())
    if abs(share - 0.5) > 3.9 * 0.5 / math.sqrt(count):
        return f"{share:.3f} of the images are mirrored"
    return None


def check(contestant: Contestant, setting: Setting, first: tuple[Tensor, Tensor]) -> None:
    """ValueError where a contestant's batches aren't what the others make."""
    images, labels = first
    if images.shape != (setting.batch_size, 3, SIZE, SIZE) or images.dtype != setting.dtype:
        raise ValueError(f"its batches are {images.dtype} {tuple(images.shape)}")
    if contestant.exact:
        keywords = setting.keywords() | dict(device="cpu", kernel="reference")
        same, same_labels = next(ResidentLoader(setting.images, setting.labels, **keywords).epoch(0))
        off = (images.float().cpu() - same.float()).abs().max()
        if not torch.equal(labels.cpu(), same_labels) or off > (
            1e-4 if setting.dtype == torch.float32 else 0.04
        ):
            raise ValueError(f"its first batch differs from the reference by {float(off):.2g}")
    needed = max(1, 4000 // setting.batch_size)
    batches = contestant.take(min(needed, len(setting.labels) // setting.batch_size - 1))
    if setting.dtype == torch.float32:  # lower precision can't hold the coordinates
        found = crops_and_mirrors(torch.cat([x for x, _ in batches]))
        if why := unlikely(*found):
            raise ValueError(why)


# Measuring ---------------------------------------------------------------------------------------------


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
    workers = threads or os.cpu_count() or 1
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


def cpu_seconds() -> float:
    """Processor time of this process and its children, ended or alive."""
    ended, ticks = os.times(), 0
    for child in multiprocessing.active_children():
        try:
            parts = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            ticks += int(parts[11]) + int(parts[12])
        except (OSError, IndexError):
            continue  # it ended in between, or there is no /proc
    return (
        time.process_time() + ended.children_user + ended.children_system + ticks / os.sysconf("SC_CLK_TCK")
    )


def memory_bytes(device: torch.device) -> int:
    """Memory in use now: allocated on a GPU, resident in this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except OSError:
        return 0


# Telling -----------------------------------------------------------------------------------------------


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
    figure.savefig(path, dpi=150)


def tune(device: torch.device, images: int, batch_size: int) -> list[dict[str, Any]]:
    """Images/s of the Triton kernel for each block size and number of warps, the best first. Needs a GPU."""
    from fastresnet import augment
    from fastresnet.kernels import triton_augment

    if device.type != "cuda":
        raise ValueError("--tune times the Triton kernel, which needs a CUDA GPU")
    stored = torch.from_numpy(coordinates(images)[0]).to(device)
    choices = augment.draw(SPEC, batch_size, (SIZE, SIZE), 0, 0, device)
    which = torch.randint(0, images, (batch_size,), device=device)
    found = []
    for dtype in DTYPES.values():
        out = torch.empty((batch_size, SIZE, SIZE, 3), dtype=dtype, device=device)
        for block in (256, 512, 1024, 2048, 4096):
            for warps in (1, 2, 4, 8):

                def call(block: int = block, warps: int = warps, out: Tensor = out) -> None:
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
                seconds = timing.quantiles(timing.time_calls(call, 20, device, repeats=20))["median"]
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
        software=hardware.software(),
        git=hardware.git_state(Path(__file__).parent),
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
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

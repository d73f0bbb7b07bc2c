"""What several GPUs could make of a recipe: the floor of a step by each resource, computed and not measured.

A step takes at least its arithmetic and its bytes, shared out, what the host needs to queue it, and the
exchange of its gradients; the largest of them is a floor, not a forecast. Refuses to know whether any of it
overlaps: a floor assumes that all does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from fastresnet import models
from fastresnet.base import words
from fastresnet.bench.judging import machines
from fastresnet.bench.judging.costs import Cost
from fastresnet.models.flops import flops_per_image
from fastresnet.optim.sharing import flops as newton_schulz_flops
from fastresnet.settings import config
from fastresnet.settings.config import Config

PUBLISHED = "H200", "bf16"  # what docs/costs.md and docs/scaling.md say the seconds of
GPUS = (1, 8, 64, 512)
OF_A_HOST = 8  # GPUs
# bytes/s that a GPU sends in an all-reduce: NVLink 4 in one direction (NVIDIA H100 and H200 data sheets), and
# one 400 Gbit/s adapter for each GPU (DGX H100 data sheet)
NVLINK, NETWORK = 450e9, 50e9
# seconds, by NCCL's own model of its trees with the LL protocol (src/graph/tuning.cc): to begin, for a hop by
# NVLink, how much slower that is where there is a network, for a hop by the network
BEGIN, HOP, SLOWER, NETWORK_HOP = 4.4e-6, 0.52e-6, 1.8, 5.0e-6
IMAGENET, IMAGE_BYTES = 1_281_167, 107_000  # training images, and bytes of a JPEG: 137 GB in all


@dataclass(frozen=True)
class Floor:
    """Seconds that one step takes at least, by what would limit it."""

    gpus: int
    arithmetic: float
    memory: float
    launches: float
    exchange: float

    def least(self, *, queued: bool) -> tuple[str, float]:
        """(what limits the step, seconds); with `queued` the host queues every operation alone."""
        parts = {"arithmetic": self.arithmetic, "memory": self.memory, "exchange": self.exchange}
        parts |= {"launches": self.launches} if queued else {}
        return max(parts.items(), key=lambda part: part[1])


def exchange_seconds(count: int, gpus: int) -> float:
    """An all-reduce of `count` bytes: its latency and its bytes over the slowest link of each GPU."""
    if gpus == 1:
        return 0.0
    hosts = max(1, gpus // OF_A_HOST)
    hop = HOP * (SLOWER if hosts > 1 else 1.0)
    latency = BEGIN + 2 * ((min(gpus, OF_A_HOST) - 1) * hop + math.log2(hosts) * NETWORK_HOP)
    # between hosts the GPUs of a host send an eighth each, over their own adapters
    sent = 2 * (gpus - 1) / gpus * count
    return latency + (sent / NVLINK if hosts == 1 else sent / (NETWORK * OF_A_HOST))


def floor(cost: Cost, gradient_bytes: int, gpus: int) -> Floor:
    """The floors of a recipe's step on so many GPUs that share its batch."""
    seconds, steps = cost.seconds(machines.find(PUBLISHED[0]), PUBLISHED[1]), cost.steps
    return Floor(
        gpus,
        seconds["arithmetic"] / steps / gpus,
        seconds["memory, fused"] / steps / gpus,
        seconds["launches by the host"] / steps,
        exchange_seconds(gradient_bytes, gpus),
    )


def _matrix_rate() -> float:
    """FLOP/s of the GPU that docs/costs.md speaks of."""
    return machines.find(PUBLISHED[0]).rates[PUBLISHED[1]]


def _learning(cfg: Config) -> list[nn.Parameter]:
    """The parameters that a recipe trains on CIFAR-10, by their shapes alone."""
    with torch.device("meta"):
        return [p for p in models.build(cfg.model, 10, 32).parameters() if p.requires_grad]


def table(costs: Iterable[Cost]) -> str:
    """Markdown: a row for each recipe and number of GPUs."""
    heads = ["recipe", "GPUs", "images a GPU", "arithmetic", "launches", "exchange"]
    heads += ["whole run, captured", "eager"]
    rows = [heads]
    for cost in costs:
        cfg = config.load(f"{cost.recipe}.yaml")
        sent = 4 * sum(p.numel() for p in _learning(cfg))
        for gpus in GPUS:
            found = floor(cost, sent, gpus)
            cells = [f"`{cost.recipe}`", str(gpus), f"{cfg.train.batch_size / gpus:,.4g}"]
            cells += [_micro(found.arithmetic), _micro(found.launches), _micro(found.exchange)]
            for queued in (False, True):
                what, least = found.least(queued=queued)
                cells.append(f"{least * cost.steps:.2f} s ({what})")
            rows.append(cells)
    return "\n".join([*words.markdown(rows, range(1, len(heads))), ""])


def imagenet_table(batch: int = 256, epochs: int = 18) -> str:
    """Markdown: ResNet-50 at 224 px with `batch` images a GPU, by the number of GPUs."""
    with torch.device("meta"):
        model = models.build(config.load(None, {"model.depth": 50}).model, 1000, 224)
    arithmetic = 3 * batch * flops_per_image(model, 224) / _matrix_rate()
    sent = 4 * sum(p.numel() for p in model.parameters())
    heads = ["GPUs", "batch", "arithmetic", "exchange", f"{epochs} epochs", "images/s to decode"]
    heads += ["JPEG bytes/s a host"]
    rows = [heads]
    for gpus in GPUS:
        step = max(arithmetic, exchange_seconds(sent, gpus))
        rate = batch * gpus / step
        took = words.duration(epochs * IMAGENET / rate)
        by_host = rate / max(1, gpus / OF_A_HOST) * IMAGE_BYTES
        cells = [str(gpus), f"{batch * gpus:,}", _micro(arithmetic), _micro(exchange_seconds(sent, gpus))]
        rows.append([*cells, took, f"{rate:,.0f}", f"{by_host / 1e9:.1f} GB"])
    return "\n".join([*words.markdown(rows, range(len(heads))), ""])


def muon_table() -> str:
    """Markdown: what sharing Newton-Schulz over so many GPUs saves and costs in a step of speed94."""
    cfg = config.load("speed94.yaml")
    shapes = [p.shape for p in _learning(cfg) if p.ndim == 4]
    work = [newton_schulz_flops(shape, cfg.optim.muon_steps) for shape in shapes]
    sent = 4 * sum(shape.numel() for shape in shapes)
    rows = [["GPUs", "saved", "one all-gather"]]
    for gpus in GPUS[1:]:
        saved = (sum(work) - max(max(work), sum(work) / gpus)) / _matrix_rate()
        # an all-gather is half an all-reduce: each byte travels once
        rows.append([str(gpus), _micro(saved), _micro(exchange_seconds(sent, gpus) / 2)])
    return "\n".join([*words.markdown(rows, range(3)), ""])


def _micro(seconds: float) -> str:
    return f"{1e6 * seconds:,.3g} µs" if seconds < 1e-3 else f"{1e3 * seconds:,.3g} ms"

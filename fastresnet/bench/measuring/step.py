"""The training step: how fast a model runs forward, forward and backward, and through the Trainer's whole
step.

Each variant is first held to the plain one (fp32, eager, contiguous): a fast wrong step isn't timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet import models, optim
from fastresnet.bench.measuring.ceilings import check_format
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case, Disagrees, Measured, NotAvailable, free_memory, sample
from fastresnet.machine import memory, meters, precision
from fastresnet.models.flops import on_meta
from fastresnet.settings import config
from fastresnet.training import trainer
from fastresnet.training.step import StepOptions

PART = "step"
MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {"model.depth": 18},
    "resnet50": {"model.depth": 50},
    "speednet": {
        "model.arch": "speednet",
        "model.activation": "gelu",
        "optim.name": "muon",
        "train.label_smoothing": 0.2,
        "train.loss_reduction": "sum",
    },
}
WORK = {
    "forward": 1,
    "forward+backward": 3,
    "step": 3,
}  # arithmetic in forward passes; a backward pass is about two
TOLERANCE = {
    "fp32": 1e-3,
    "tf32": 5e-3,
    "fp16": 1e-2,
    "bf16": 5e-2,
}  # of the loss: 10x a format's unit roundoff, summed
LARGEST_TRIED = 16384  # images; beyond that convolutions meet 32-bit indices
MAX_STEPS = 10**6  # more than any sample takes: the schedule's table must not end


def cases(context: Context) -> list[Case]:
    """The variants worth comparing on this device, the plain baseline of each model first."""
    fast, gpu = context.fast_precision(), context.on_gpu
    if context.tiny:
        return [
            _case(context, "speednet", 8, "fp32", "contiguous"),
            _case(context, "speednet", 8, fast),
            _case(context, "resnet18", 4, fast, work="forward"),
        ]
    base = (
        {"resnet18": 512, "resnet50": 256, "speednet": 2000}
        if gpu
        else {"resnet18": 32, "resnet50": 8, "speednet": 125}
    )
    found = []
    for name, batch in base.items():
        found.append(_case(context, name, batch, "fp32", "contiguous"))
        found.append(_case(context, name, batch, fast))
    found += [
        _case(context, "resnet18", base["resnet18"], fast, work=work)
        for work in ("forward", "forward+backward")
    ]
    if context.suite == "quick":
        return found
    for name, batch in base.items():
        found += [_case(context, name, batch, fast, "contiguous")] if fast != "fp32" else []
        found += [_case(context, name, batch, p) for p in ("fp32", "tf32", "fp16", "bf16") if p != fast]
    for name in ("resnet18", "resnet50", "speednet"):
        sizes = (128, 1024, 2048, 4096) if gpu else (8, 128, 512)
        found += [_case(context, name, batch, fast) for batch in sizes if batch != base[name]]
        found.append(_case(context, name, 0, fast))
    if gpu:
        found += [
            _case(context, name, base[name], fast, compile=mode)
            for name in ("resnet18", "speednet")
            for mode in ("default", "max-autotune", "graph")
        ]
    if context.suite == "full":
        found += [
            _case(context, name, batch, fast, work=work)
            for name, batch in base.items()
            if name != "resnet18"
            for work in ("forward", "forward+backward")
        ]
        found += [_case(context, "resnet50", base["resnet50"], fast, compile="default")]
        found += [] if gpu else [_case(context, "resnet18", 32, fast, compile="default")]
    return found


def _case(
    context: Context,
    model: str,
    batch: int,
    precision_name: str,
    layout: str = "channels_last",
    *,
    work: str = "step",
    compile: str = "off",
) -> Case:
    size = f"b{batch}" if batch else "largest"
    parts = [model, work, size, precision_name, layout, *([compile] if compile != "off" else [])]
    settings = {
        "model": model,
        "work": work,
        "batch_size": batch or "largest",
        "precision": precision_name,
        "memory_format": layout,
        "compile": compile,
    }
    variant = Variant(context, model, batch, precision_name, layout, work, compile)
    cost = 2.0 if compile != "off" else 1.5 if not batch else 1.0
    return Case(
        PART, "/".join(parts), settings, variant.measure, weight=cost, estimate=variant.shortest_seconds
    )


class Variant:
    """One model, batch size, precision, memory format and way to run it."""

    def __init__(
        self,
        context: Context,
        model: str,
        batch: int,
        precision_name: str,
        layout: str,
        work: str,
        compile: str,
    ) -> None:
        self.context, self.device = context, context.device
        self.model_name, self.batch, self.precision_name = model, batch, precision_name
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.work, self.compile = work, compile

    def config(self) -> config.Config:
        return config.load(None, MODELS[self.model_name])

    def new_model(self) -> nn.Module:
        """The same weights for every variant of a model."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return models.build(self.config().model, 10, 32)

    def shortest_seconds(self) -> float:
        """A guess from below: five passes at half the matrix-multiply ceiling, and the compiler's time."""
        if not self.batch:
            return 0.0
        try:
            check_format(self.device, self.precision_name)
        except NotAvailable:
            return 0.0
        flops = WORK[self.work] * self.batch * models.flops_per_image(self.new_model(), 32)
        return 5 * flops / (0.5 * self.context.ceiling(self.precision_name)) + (
            15.0 if self.compile != "off" else 0.0
        )

    # ---- measuring -------------------------------------------------------------------------

    def measure(self, seconds: float) -> Measured:
        """Check, then time. Raises NotAvailable, Disagrees, or out of memory."""
        check_format(self.device, self.precision_name)
        if self.compile == "graph" and self.device.type != "cuda":
            raise NotAvailable("CUDA graphs need a CUDA GPU")
        resolved = precision.resolve(self.precision_name, self.device)
        precision.apply_globally(resolved, self.device)
        batch = self.batch or self.largest_batch(resolved)
        run, images, labels = self.prepare(batch, resolved)
        memory.reset_peak(self.device)
        calls = 0

        def call() -> None:
            nonlocal calls
            calls += 1
            run(images, labels)

        with meters.EnergyMeter(self.device) as meter:
            samples = sample(call, self.device, seconds, fewest=3)
        figures = self.figures(batch, samples)
        figures["joules_per_image"] = None if meter.joules is None else meter.joules / (calls * batch)
        return Measured(samples, figures)

    def batch_of(self, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Random images (count,3,32,32) and labels, the same for every variant."""
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(count, 3, 32, 32, generator=generator).to(
            self.device, dtype, memory_format=self.format
        )
        return images, torch.randint(0, 10, (count,), generator=generator).to(self.device)

    def prepare(
        self, batch: int, resolved: precision.Precision
    ) -> tuple[Callable[[Tensor, Tensor], Any], Tensor, Tensor]:
        """What is timed, and its arguments."""
        images, labels = self.batch_of(batch, resolved.compute)
        model = self.new_model().to(self.device).to(memory_format=self.format)
        if self.work == "step":
            stepper = self.new_trainer(model, resolved)
            compiled = (
                self.compile != "off"
            )  # a compiled step knows one shape, so it is checked on the whole batch
            self.check(stepper, *((images, labels) if compiled else (images[:8], labels[:8])))
            return stepper.step, images, labels

        def forward(images: Tensor, labels: Tensor) -> None:
            with torch.inference_mode(), resolved.autocast(self.device):
                model(images)

        def forward_backward(images: Tensor, labels: Tensor) -> None:
            with resolved.autocast(self.device):
                logits_NK = model(images)
            F.cross_entropy(logits_NK.float(), labels).backward()
            model.zero_grad()

        model.train(self.work != "forward")
        return (forward if self.work == "forward" else forward_backward), images, labels

    def new_trainer(self, model: nn.Module, resolved: precision.Precision) -> trainer.Trainer:
        cfg, graph = self.config(), self.compile == "graph"
        options = StepOptions(
            label_smoothing=cfg.train.label_smoothing,
            loss_reduction=cfg.train.loss_reduction,
            compile="default" if graph else self.compile,
            cuda_graph=graph,
        )
        optimizer = optim.build(model, cfg.optim, device=self.device, capturable=graph)
        model.train()
        factor = [1e-3] * MAX_STEPS  # small, so that training on noise stays finite
        return trainer.Trainer(
            model, optimizer, factor, device=self.device, precision=resolved, options=options
        )

    def check(self, stepper: trainer.Trainer, images: Tensor, labels: Tensor) -> None:
        """The loss of the first step must be what fp32, eager and contiguous, gives on the CPU or the same
        GPU."""
        plain = self.new_model().to(self.device).train()
        with torch.no_grad():
            logits_NK = plain(images.float().contiguous())
        cfg = self.config()
        wanted = F.cross_entropy(
            logits_NK, labels, label_smoothing=cfg.train.label_smoothing, reduction="sum"
        ).item()
        stepper.totals.zero_()
        stepper.step(images, labels)
        got = float(stepper.totals[0])
        if not math.isclose(got, wanted, rel_tol=TOLERANCE[self.precision_name]):
            raise Disagrees(f"the first step's loss is {got:.6g}, fp32 eager contiguous gives {wanted:.6g}")

    def largest_batch(self, resolved: precision.Precision) -> int:
        """The largest batch that one step fits in, to an eighth. GPUs alone: a CPU swaps before it fails."""
        if not self.context.on_gpu:
            raise NotAvailable("a CPU's memory is the machine's: time ends the search before memory does")

        def fits(batch: int) -> bool:
            try:
                run, images, labels = self.prepare(batch, resolved)
                run(images, labels)
                return True
            except torch.OutOfMemoryError:
                return False
            finally:
                free_memory(self.device)

        low, high = 64, LARGEST_TRIED
        if fits(high):
            return high
        while low * 2 < high and fits(low * 2):
            low *= 2
        high = min(high, low * 2)
        while high - low > max(low // 8, 1):
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    # ---- figures ---------------------------------------------------------------------------

    def figures(self, batch: int, samples: list[float]) -> dict[str, Any]:
        """Rates and what they mean beside the ceilings."""
        middle = sorted(samples)[len(samples) // 2]
        model = self.new_model()
        per_image, work = models.flops_per_image(model, 32), WORK[self.work]
        traffic, operations = estimate_traffic(
            model, batch, torch.finfo(_dtype(self.precision_name)).bits // 8, work
        )
        ceiling = self.context.ceiling(self.precision_name)
        return {
            "images_per_second": batch / middle,
            "batch_size": batch,
            "flops_per_image": float(per_image),
            "flops": float(work * per_image * batch),
            "bytes": float(traffic),
            "operations": operations,
            "flops_per_second": work * per_image * batch / middle,
            "mfu": work * per_image * batch / middle / ceiling,
            "ceiling_flops_per_second": ceiling,
            "peak_memory_bytes": memory.peak_bytes(self.device),
        }


def _dtype(name: str) -> torch.dtype:
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(name, torch.float32)


def estimate_traffic(model: nn.Module, batch: int, width: int, work: int) -> tuple[float, int]:
    """(bytes, operations) of one pass, estimated: each layer's output is written and read once, `work` times
    in all; weights are read as often, and a step touches each with its gradient and momentum in fp32.

    width: bytes of an activation
    """
    outputs, layers = 0, 0

    def count(layer: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal outputs, layers
        outputs, layers = outputs + output.numel(), layers + 1

    ghost = on_meta(model)
    for layer in ghost.modules():
        if not list(layer.children()):
            layer.register_forward_hook(count)
    with torch.no_grad():
        ghost(torch.empty(1, 3, 32, 32, device="meta"))
    weights = sum(p.numel() for p in model.parameters())
    update = 5 * 4 * weights if work > 1 else 0  # weight and momentum read and written, gradient read
    return 2.0 * work * outputs * batch * width + work * weights * width + update, work * layers

"""One variant of the training step: forward, forward and backward, or the Trainer's whole step.

Each is first held to the plain one (fp32, eager, contiguous): a fast wrong step isn't timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet import models, optim
from fastresnet.base.statistics import quantiles
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.file import Figure
from fastresnet.bench.measuring.harness import Disagrees, Measured, NotAvailable, sample
from fastresnet.bench.measuring.operations import DTYPES, check_format
from fastresnet.machine import memory, meters, timing
from fastresnet.machine.precision import Precision, apply_globally, resolve
from fastresnet.models.flops import layer_outputs
from fastresnet.settings import config
from fastresnet.training import trainer
from fastresnet.training.step import StepOptions

MODELS: dict[str, dict[str, object]] = {
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
# arithmetic in forward passes; a backward pass is about two
WORK = {"forward": 1, "forward+backward": 3, "step": 3}
# of the loss: 10x a format's unit roundoff, summed
TOLERANCE = {"fp32": 1e-3, "tf32": 5e-3, "fp16": 1e-2, "bf16": 5e-2}
# images; beyond that convolutions meet 32-bit indices
LARGEST_TRIED = 16384
# images of a pass that is held to the plain one
CHECKED = 8
# more than any sample takes: the schedule's table must not end
MAX_STEPS = 10**6
# seconds that a compiler takes at least
COMPILING = 15.0


@dataclass(frozen=True)
class Variant:
    """One model, batch size (0: the largest that fits), precision, memory format, and way to run it."""

    context: Context
    model: str
    batch: int
    precision: str
    layout: str = "channels_last"
    work: str = "step"
    compile: str = "off"

    @property
    def device(self) -> torch.device:
        return self.context.device

    @property
    def format(self) -> torch.memory_format:
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    @property
    def name(self) -> str:
        size = f"b{self.batch}" if self.batch else "largest"
        compiled = [self.compile] if self.compile != "off" else []
        return "/".join([self.model, self.work, size, self.precision, self.layout, *compiled])

    def settings(self) -> dict[str, object]:
        """What two rows must share to be compared."""
        return {
            "model": self.model,
            "work": self.work,
            "batch_size": self.batch or "largest",
            "precision": self.precision,
            "memory_format": self.layout,
            "compile": self.compile,
        }

    @cached_property
    def config(self) -> config.Config:
        return config.load(None, MODELS[self.model])

    def new_model(self) -> nn.Module:
        """The same weights for every variant of a model."""
        return models.build(self.config.model, 10, 32, seed=0)

    def shortest_seconds(self) -> float:
        """A guess from below: five passes at half the ceiling, and the compiler's time."""
        if not self.batch:
            return 0.0
        try:
            check_format(self.device, self.precision)
        except NotAvailable:
            return 0.0
        flops = WORK[self.work] * self.batch * models.flops_per_image(self.new_model(), 32)
        return 5 * flops / (0.5 * self.context.ceiling(self.precision)) + COMPILING * (self.compile != "off")

    # ---- measuring -----------------------------------------------------------------------------------------

    def measure(self, seconds: float) -> Measured:
        """Check, then time. Raises NotAvailable, Disagrees, or out of memory."""
        check_format(self.device, self.precision)
        if self.compile == "graph" and self.device.type != "cuda":
            raise NotAvailable("CUDA graphs need a CUDA GPU")
        resolved = resolve(self.precision, self.device)
        apply_globally(resolved, self.device)
        batch = self.batch or self.largest_batch(resolved)
        run, images, labels = self.prepare(batch, resolved)
        memory.reset_peak(self.device)
        calls = 0

        def call() -> None:
            nonlocal calls
            calls += 1
            run(images, labels)

        alone = timing.turns().alone  # else a meter tells of the others' work too
        with meters.EnergyMeter(self.device) as meter:
            samples = sample(call, self.device, seconds, fewest=3)
        joules = meter.joules / (calls * batch) if alone and meter.joules is not None else None
        return Measured(samples, self.figures(batch, samples) | {"joules_per_image": joules})

    def batch_of(self, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Random images (count,3,32,32) and labels (count,), the same for every variant."""
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(count, 3, 32, 32, generator=generator)
        labels = torch.randint(0, 10, (count,), generator=generator)
        return images.to(self.device, dtype, memory_format=self.format), labels.to(self.device)

    def prepare(
        self, batch: int, resolved: Precision
    ) -> tuple[Callable[[Tensor, Tensor], None], Tensor, Tensor]:
        """What is timed, checked and compiled, and its arguments."""
        images, labels = self.batch_of(batch, resolved.compute)
        model = self.new_model().to(self.device).to(memory_format=self.format)
        if self.work == "step":
            stepper = self.new_trainer(model, resolved)
            # a compiled step knows one shape, so it is checked on the whole batch
            few = batch if self.compile != "off" else CHECKED
            stepper.totals.zero_()
            stepper.step(images[:few], labels[:few])
            self.check(float(stepper.totals[0]), images[:few], labels[:few])
            return stepper.step, images, labels
        with resolved.autocast(self.device):
            loss = self.loss(model.train(), images[:CHECKED], labels[:CHECKED])
        self.check(loss, images[:CHECKED], labels[:CHECKED])

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

    def new_trainer(self, model: nn.Module, resolved: Precision) -> trainer.Trainer:
        train, graph = self.config.train, self.compile == "graph"
        options = StepOptions(
            label_smoothing=train.label_smoothing,
            loss_reduction=train.loss_reduction,
            compile="default" if graph else self.compile,
            cuda_graph=graph,
        )
        optimizer = optim.build(model, self.config.optim, device=self.device, capturable=graph)
        model.train()
        factor = [1e-3] * MAX_STEPS  # small, so that training on noise stays finite
        return trainer.Trainer(
            model, optimizer, factor, device=self.device, precision=resolved, options=options
        )

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Of all images together, with the model's label smoothing."""
        with torch.no_grad():
            logits_NK = model(images).float()
        smoothing = self.config.train.label_smoothing
        return F.cross_entropy(logits_NK, labels, label_smoothing=smoothing, reduction="sum").item()

    def check(self, got: float, images: Tensor, labels: Tensor) -> None:
        """Raise Disagrees where the first loss isn't what fp32, eager and contiguous, gives."""
        plain = self.new_model().to(self.device).train()
        wanted = self.loss(plain, images.float().contiguous(), labels)
        if not math.isclose(got, wanted, rel_tol=TOLERANCE[self.precision]):
            raise Disagrees(f"the first loss is {got:.6g}, fp32 eager contiguous gives {wanted:.6g}")

    def largest_batch(self, resolved: Precision) -> int:
        """The largest batch that one step fits in, to an eighth. GPUs alone: a CPU swaps before it fails."""
        if not self.context.on_gpu:
            raise NotAvailable("a CPU's memory is the machine's: time ends the search before memory does")
        low, high = 64, LARGEST_TRIED
        if self._fits(high, resolved):
            return high
        while low * 2 < high and self._fits(low * 2, resolved):
            low *= 2
        high = min(high, low * 2)
        while high - low > max(low // 8, 1):
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(middle, resolved) else (low, middle)
        return low

    def _fits(self, batch: int, resolved: Precision) -> bool:
        try:
            run, images, labels = self.prepare(batch, resolved)
            run(images, labels)
            return True
        except torch.OutOfMemoryError:
            return False
        finally:
            memory.give_back(self.device)

    # ---- figures -------------------------------------------------------------------------------------------

    def figures(self, batch: int, samples: list[float]) -> dict[str, Figure]:
        """Rates and what they mean beside the ceilings."""
        middle = quantiles(samples)["median"]
        model = self.new_model()
        per_image, work = models.flops_per_image(model, 32), WORK[self.work]
        width = DTYPES[self.precision].itemsize
        traffic, operations = estimate_traffic(model, batch, width, work)
        return {
            "images_per_second": batch / middle,
            "batch_size": batch,
            "flops_per_image": float(per_image),
            "flops": float(work * per_image * batch),
            "bytes": traffic,
            "operations": operations,
            "peak_memory_bytes": memory.peak_bytes(self.device),
            **self.context.utilisation(self.precision, work * per_image * batch / middle),
        }


def estimate_traffic(
    model: nn.Module, batch: int, width: int, work: int, size: int = 32
) -> tuple[float, int]:
    """(bytes, operations) of one pass, estimated.

    Each layer's output is written and read once, `work` times in all; weights are read as often, and a step
    touches each with its gradient and momentum in fp32.

    width:  bytes of an activation
    size:   height and width of the images in px
    work:   forward passes that the arithmetic amounts to, above 1 where weights are updated
    """
    sizes = [output.numel() for _, _, output in layer_outputs(model, size)]
    weights = sum(p.numel() for p in model.parameters())
    update = 5 * 4 * weights if work > 1 else 0  # weight and momentum read and written, gradient read
    return 2.0 * work * sum(sizes) * batch * width + work * weights * width + update, work * len(sizes)

"""Which images are worth training on, of a batch or of the whole set: those with the largest loss.

Judged by the model itself, a small net that learns beside it, or each image's last loss. Makes no batches.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol, Sequence, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastresnet.machine.distributed import ALONE, World
from fastresnet.machine.precision import Precision
from fastresnet.optim.optimizers import Optimizers, OptimizersState
from fastresnet.optim.rates import Rates
from fastresnet.ranks import collectives
from fastresnet.training.capture import Snapshot, compiled

# images (B,3,h,w) in the compute dtype, labels (B,) int64 or (B,K) weights, both on the device
Batch = tuple[Tensor, Tensor]


class SelectionState(TypedDict, total=False):
    """What a bit-exact continuation needs of a selection; its keys tell kinds apart."""

    fraction: float
    model: dict[str, Any]  # as nn.Module.state_dict has it
    optimizer: OptimizersState
    step: int
    losses: Tensor
    basis: Tensor
    times: Tensor
    epoch: int


def layout(images: Tensor) -> torch.memory_format:
    """How they lie in memory: channels last, or first."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


class Chosen(Protocol):
    """A loader as a selection sees it.

    choose:  what it asks which images an epoch shows, see `Memory.choose`
    rows:    int64 (B,), those of the batch that it yielded last
    """

    choose: Callable[[Tensor, int], tuple[Tensor, Tensor]] | None
    rows: Tensor


class Selection:
    """What is trained on; this one takes all that comes.

    model:      the net that judges, if one does
    remembers:  whether a step is to tell the loss of each image
    """

    model: nn.Module | None = None
    remembers = False

    def count(self, batch_size: int) -> int:
        """How many images of a batch are kept."""
        return batch_size

    def learns(self, step: int) -> bool:
        """Whether a net of its own learns in that step of the run, from 0."""
        return False

    def __call__(self, images: Tensor, labels: Tensor, learns: bool = False) -> Batch:
        """images (B,3,h,w), labels (B,) -> those that are kept; `learns`, as that says of the step."""
        return images, labels

    def follow(self, loader: Chosen) -> None:
        """Choose for that loader, and learn from it what was trained on."""

    def tell(self, losses_B: Tensor, first: int) -> None:
        """The losses of the batch's images from `first` on, in nats, before label smoothing."""

    def note(self) -> None:
        """The step is done: keep what was told of the images that the loader yielded last."""

    def reset(self) -> None:
        """Forget everything, in place, so that captured graphs stay valid."""

    def snapshots(self) -> list[Snapshot]:
        """Everything that a call changes, to be put back after warming up or capturing."""
        return []

    def state_dict(self) -> SelectionState:
        """What a bit-exact continuation needs."""
        return {}

    def load_state_dict(self, state: SelectionState) -> None:
        """The inverse of `state_dict`."""


class HardExamples(Selection):
    """Keeps the hardest `fraction` of each batch, hardest first, judged by `model` in evaluation mode.

    The count depends on the batch's size alone, so the host waits for nothing.

    fraction:  of the batch, rounded, at least one image
    compile:   torch.compile's mode for the judging pass, or off
    """

    model: nn.Module

    def __init__(
        self,
        model: nn.Module,
        fraction: float,
        *,
        precision: Precision,
        device: torch.device,
        compile: str = "off",
    ) -> None:
        if not 0.0 < fraction <= 1.0:
            raise ValueError(f"train.hard_fraction must be above 0 and at most 1, got {fraction}")
        self.model, self.fraction, self.precision, self.device = model, fraction, precision, device
        self._losses = compiled(self._plain_losses, compile)

    def count(self, batch_size: int) -> int:
        return max(1, round(self.fraction * batch_size))

    def __call__(self, images: Tensor, labels: Tensor, learns: bool = False) -> Batch:
        """images (B,3,h,w), labels (B,) -> the round(fraction * B) with the largest loss."""
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad():
            losses_B = self._losses(images, labels, 0.0)
        self.model.train(was_training)
        return self._keep(images, labels, self._hardest(losses_B))

    def _plain_losses(self, images: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        with self.precision.autocast(self.device):
            logits_NK = self.model(images)
        return F.cross_entropy(logits_NK.float(), labels, reduction="none", label_smoothing=label_smoothing)

    def _hardest(self, losses_B: Tensor) -> Tensor:
        return losses_B.detach().topk(self.count(len(losses_B))).indices

    @staticmethod
    def _keep(images: Tensor, labels: Tensor, rows: Tensor) -> Batch:
        kept = images.index_select(0, rows).contiguous(memory_format=layout(images))
        return kept, labels.index_select(0, rows)

    def state_dict(self) -> SelectionState:
        return {"fraction": self.fraction}


class Memory(Selection):
    """The loss that each image had when it was last trained on, by which an epoch's images are chosen.

    Those never seen come first, then those with the largest loss; what is left out keeps its loss and comes
    back when others have fallen below it. Costs no pass of any net.

    images:  how many there are
    shown:   how many of them an epoch shows
    batch:   images in the largest batch
    place:   this process among those that share each batch: all of them learn what each has seen
    last:    losses of the batch that was trained on last, (batch,)
    loader:  says which images those were, see `follow`
    """

    remembers = True

    def __init__(
        self, images: int, shown: int, batch: int, device: torch.device, place: World = ALONE
    ) -> None:
        self.losses = torch.full((images,), torch.inf, device=device)
        self.basis = self.losses.clone()  # what they were at the beginning of `epoch`
        self.times = torch.zeros(images, dtype=torch.int64, device=device)  # how often each was chosen
        self.shown, self.epoch, self.place = shown, -1, place
        self.last = torch.zeros(batch, device=device)
        self.loader: Chosen | None = None

    def follow(self, loader: Chosen) -> None:
        self.loader, loader.choose = loader, self.choose

    def choose(self, order: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Which images an epoch shows, and how often each was chosen before: int64 (shown,), both.

        They are told by their places in `order` (N,), which image comes when; places rise.
        """
        if begins := epoch != self.epoch:
            self.basis.copy_(self.losses)
            self.epoch = epoch
        hardest = self.basis.index_select(0, order).argsort(descending=True, stable=True)[: self.shown]
        places = hardest.sort().values
        rows = order.index_select(0, places)
        if begins:
            self.times[rows] += 1
        return places, self.times.index_select(0, rows) - 1

    def tell(self, losses_B: Tensor, first: int) -> None:
        self.last[first : first + len(losses_B)] = losses_B

    def note(self) -> None:
        if self.loader is not None and len(self.loader.rows):
            seen = self.loader.rows, self.last[: len(self.loader.rows)]
            rows, losses = (torch.cat(collectives.gather(part, self.place)) for part in seen)
            self.losses.index_copy_(0, rows, losses)

    def reset(self) -> None:
        self.losses.fill_(torch.inf)
        self.times.zero_()
        self.epoch = -1

    def state_dict(self) -> SelectionState:
        return {"losses": self.losses, "basis": self.basis, "times": self.times, "epoch": self.epoch}

    def load_state_dict(self, state: SelectionState) -> None:
        self.losses.copy_(state["losses"])
        self.basis.copy_(state["basis"])
        self.times.copy_(state["times"])
        self.epoch = state["epoch"]


class ProxyNet(HardExamples):
    """A small net that is trained on what it picks, along the run's own schedule.

    After Jordan 2024 (arXiv 2404.00498), Jiang et al. 2019 and Mindermann et al. 2022.

    model:      the proxy, on the device, in training mode while it judges
    optimizer:  of the proxy, as `optim.build` makes it; capturable where the step is captured in a CUDA graph
    lr_factor:  one entry a step, a share of each group's base_lr
    every:      steps, in the first of which it learns; in the others it only judges
    Raises ValueError in fp16, whose gradients would need scaling.
    """

    def __init__(
        self,
        model: nn.Module,
        fraction: float,
        optimizer: Optimizers,
        lr_factor: Sequence[float],
        *,
        precision: Precision,
        device: torch.device,
        label_smoothing: float = 0.0,
        loss_reduction: str = "mean",
        compile: str = "off",
        every: int = 1,
    ) -> None:
        super().__init__(model, fraction, precision=precision, device=device, compile=compile)
        if precision.scales_loss:
            raise ValueError(
                "train.proxy_width trains its proxy without loss scaling, which fp16 needs: "
                "use train.precision=bf16, tf32 or fp32"
            )
        self.optimizer, self.every = optimizer, every
        self.label_smoothing, self.loss_reduction = label_smoothing, loss_reduction
        capturable = any(isinstance(group["lr"], Tensor) for group in optimizer.param_groups)
        self.rates = Rates(optimizer, lr_factor, None, {}, device if capturable else None)
        counter = self.rates.counter
        self.step_done = torch.zeros(1, dtype=torch.int64) if counter is None else counter

    def learns(self, step: int) -> bool:
        return step % self.every == 0

    def __call__(self, images: Tensor, labels: Tensor, learns: bool = True) -> Batch:
        """images (B,3,h,w), labels (B,) -> the hardest ones, from which the proxy learns too, if it does."""
        self.model.train()
        if self.rates.counter is not None:
            self.rates.set_on_device()
        else:
            self.rates.set(int(self.step_done))
            self.step_done += 1
        with torch.set_grad_enabled(learns):
            losses_B = self._losses(images, labels, self.label_smoothing)
        rows = self._hardest(losses_B)
        if learns:
            hard = losses_B.index_select(0, rows)
            (hard.sum() if self.loss_reduction == "sum" else hard.mean()).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self._keep(images, labels, rows)

    def snapshots(self) -> list[Snapshot]:
        return [Snapshot(self.model, self.optimizer, [self.step_done])]

    def reset(self) -> None:
        self.optimizer.forget()
        self.step_done.zero_()

    def state_dict(self) -> SelectionState:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": int(self.step_done),
        }

    def load_state_dict(self, state: SelectionState) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_done.fill_(state["step"])

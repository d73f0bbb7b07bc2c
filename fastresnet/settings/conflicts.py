"""Settings that can't stand together, though each is right by itself. Knows no device and no data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastresnet.base import strict_yaml
from fastresnet.settings.sections import Data, Model, Optim, Run, Schedule, Train

SMALLEST = 8  # px: height and width below which no network here takes images


def found(
    data: Data, model: Model, optim: Optim, schedule: Schedule, train: Train, run: Run
) -> Iterator[str]:
    """Each conflict in words that name the settings at fault by their full names."""
    yield from _of_data(data)
    yield from _of_schedule(schedule)
    yield from _of_weights(model, optim, train)
    yield from _of_scaling(optim, train)
    yield from _of_batches(model, train)
    yield from _of_capture(schedule, train)
    yield from _of_determinism(train, run)


def _of_data(data: Data) -> Iterator[str]:
    if data.subset is not None and data.subset >= 1 and data.subset != int(data.subset):
        yield f"data.subset must be a share below 1 or a whole count, got {data.subset}"
    if (data.train is None) != (data.test is None):
        yield "data.train and data.test come together: name both betons or neither"
    if 0 < data.image_size < SMALLEST:
        yield f"data.image_size={data.image_size}: networks here take {SMALLEST} px or more (0: as stored)"


def _of_schedule(schedule: Schedule) -> Iterator[str]:
    points = schedule.points
    if schedule.name == "piecewise" and not points:
        yield "schedule.name=piecewise needs schedule.points, for example [[0, 0.2], [3, 1], [8, 0]]"
    if points and not _rising_pairs(points, jumps=True):
        told = strict_yaml.write(points)
        yield f"schedule.points must be [[epoch, factor], ...] with rising epochs, got {told}"
    low, high, name = schedule.momentum_low, schedule.momentum_high, schedule.name
    both = "schedule.momentum_low and schedule.momentum_high"
    if (low is None) != (high is None):
        yield f"{both} come together: set both or neither"
    if low is not None and high is not None and (name != "onecycle" or low > high):
        yield f"{both} belong to schedule.name=onecycle, low at most high: got {name}, {low} and {high}"
    if name == "piecewise" and (schedule.floor_factor or schedule.tail_fraction):
        yield (
            "schedule.floor_factor and schedule.tail_fraction belong to schedules by share of the run; with "
            "schedule.name=piecewise say it in schedule.points"
        )


def _of_weights(model: Model, optim: Optim, train: Train) -> Iterator[str]:
    if optim.name in ("sgd", "muon") and optim.nesterov and optim.momentum == 0:
        yield "optim.nesterov needs optim.momentum above 0; for plain SGD set optim.nesterov=false"
    if train.ema_decay and train.average_tail:
        yield "train.ema_decay and train.average_tail both average the weights: set one of them to 0"
    if train.freeze_epochs is not None and not model.freeze:
        yield "train.freeze_epochs says how long model.freeze holds: name a part (trunk, say) or set null"


def _of_scaling(optim: Optim, train: Train) -> Iterator[str]:
    if optim.lr_scaling == "none":
        return
    rule = f"optim.lr_scaling={optim.lr_scaling}"
    if optim.lr_base_batch is None:
        yield f"{rule} needs optim.lr_base_batch, the batch that the rates were chosen for"
    if train.loss_reduction == "sum":
        yield f"{rule} scales what train.loss_reduction=sum scales already: a sum grows with the batch"
    if optim.lr_scaling == "linear" and optim.name in ("adam", "adamw", "muon"):
        yield f"{rule} is SGD's rule: optim.name={optim.name} takes steps of its own length, take sqrt"


def _of_batches(model: Model, train: Train) -> Iterator[str]:
    sizes = train.resolutions
    if sizes and not (
        _rising_pairs(sizes) and sizes[-1][0] <= 1 and all(px == int(px) >= SMALLEST for _, px in sizes)
    ):
        yield (
            "train.resolutions must be [[until share of the run, px], ...] with rising shares up to 1 and "
            f"whole px from {SMALLEST} on, got {strict_yaml.write(sizes)}"
        )
    if train.accumulate > train.batch_size:
        yield (
            f"train.accumulate={train.accumulate} cuts train.batch_size={train.batch_size} into parts of "
            "less than one image"
        )
    if model.arch == "speednet" and train.batch_size < 2 * max(1, train.accumulate):
        yield (
            f"train.batch_size={train.batch_size} gives model.arch=speednet one image at a time, and it "
            "normalises over images: take 2 or more"
        )
    if train.hard_fraction * train.batch_size < 1:
        yield (
            f"train.hard_fraction={train.hard_fraction} of train.batch_size={train.batch_size} is less than "
            "one image"
        )
    if train.hard_fraction < 1 and train.epoch_share < 1:
        yield "train.hard_fraction and train.epoch_share both pick the hardest images: leave one of them 1"
    if train.proxy_width and train.hard_fraction == 1:
        yield "train.proxy_width picks the hardest images: set train.hard_fraction below 1 with it"
    if train.proxy_every > 1 and not train.proxy_width:
        yield f"train.proxy_every={train.proxy_every} is for the net of train.proxy_width: set that too"


def _of_capture(schedule: Schedule, train: Train) -> Iterator[str]:
    if train.cuda_graph and train.compile in ("reduce-overhead", "max-autotune"):
        yield (
            f"train.cuda_graph captures the step and so does train.compile={train.compile}: use "
            "train.compile=default with it"
        )
    if train.cuda_graph and schedule.momentum_low is not None:
        yield (
            "train.cuda_graph can't follow a momentum schedule: leave schedule.momentum_low and "
            "schedule.momentum_high null"
        )


def _of_determinism(train: Train, run: Run) -> Iterator[str]:
    if run.deterministic and train.compile.startswith("max-autotune"):
        yield (
            f"run.deterministic=true repeats bit for bit, and train.compile={train.compile} picks kernels by "
            "their speed in each process: use train.compile=default with it"
        )


def _rising_pairs(points: Sequence[Sequence[float]], jumps: bool = False) -> bool:
    """Whether these are pairs whose first items rise; `jumps`: two in a row may be equal."""
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        return False
    return all(a[0] < b[0] or (jumps and a[0] == b[0]) for a, b in zip(points, points[1:]))

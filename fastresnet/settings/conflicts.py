"""Settings that can't stand together, though each is right by itself. Knows no device and no data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastresnet.base import strict_yaml
from fastresnet.settings.sections import Data, Optim, Schedule, Train

Conflict = tuple[tuple[str, ...], str]


def found(data: Data, optim: Optim, schedule: Schedule, train: Train) -> Iterator[Conflict]:
    """Settings that can't stand together: (their names, the rule in words)."""
    show = strict_yaml.write
    if data.subset is not None and data.subset >= 1 and data.subset != int(data.subset):
        yield ("data.subset",), f"data.subset must be a share below 1 or a whole count, got {data.subset}"
    if (data.train is None) != (data.test is None):
        both = ("data.train", "data.test")
        yield both, "data.train and data.test come together: name both betons or neither"
    if schedule.name == "piecewise" and not schedule.points:
        yield (
            ("schedule.name",),
            "schedule.name=piecewise needs schedule.points, for example [[0, 0.2], [3, 1], [8, 0]]",
        )
    if schedule.points and not _rising_pairs(schedule.points, jumps=True):
        yield (
            ("schedule.points",),
            f"schedule.points must be [[epoch, factor], ...] with rising epochs, got {show(schedule.points)}",
        )
    if train.resolutions and not (
        _rising_pairs(train.resolutions)
        and train.resolutions[-1][0] <= 1
        and all(px == int(px) for _, px in train.resolutions)
    ):
        yield (
            ("train.resolutions",),
            "train.resolutions must be [[until share of the run, px], ...] with "
            f"rising shares up to 1 and whole px, got {show(train.resolutions)}",
        )
    if (schedule.momentum_low is None) != (schedule.momentum_high is None):
        yield (
            ("schedule.momentum_low", "schedule.momentum_high"),
            "schedule.momentum_low and schedule.momentum_high come together: set both or neither",
        )
    if optim.name in ("sgd", "muon") and optim.nesterov and optim.momentum == 0:
        yield (
            ("optim.momentum", "optim.nesterov"),
            "optim.nesterov needs optim.momentum above 0; for plain SGD set optim.nesterov=false",
        )
    if train.ema_decay and train.average_tail:
        yield (
            ("train.ema_decay", "train.average_tail"),
            "train.ema_decay and train.average_tail both average the weights: set one of them to 0",
        )
    if train.accumulate > train.batch_size:
        yield (
            ("train.accumulate", "train.batch_size"),
            f"train.accumulate={train.accumulate} cuts a batch "
            f"of {train.batch_size} into parts of less than one image",
        )
    if train.proxy_width and train.hard_fraction == 1:
        yield (
            ("train.proxy_width",),
            "train.proxy_width picks the hardest images: set train.hard_fraction below 1 with it",
        )
    if train.cuda_graph and train.compile in ("reduce-overhead", "max-autotune"):
        yield (
            ("train.cuda_graph", "train.compile"),
            "train.cuda_graph captures the step and so does "
            f"train.compile={train.compile}: use train.compile=default with it",
        )
    if train.cuda_graph and schedule.momentum_low is not None:
        yield (
            ("train.cuda_graph", "schedule.momentum_low"),
            "train.cuda_graph can't follow a momentum "
            "schedule: leave schedule.momentum_low and schedule.momentum_high null",
        )


def _rising_pairs(points: Sequence[Sequence[float]], jumps: bool = False) -> bool:
    """Whether these are pairs whose first items rise; `jumps`: two in a row may be equal."""
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        return False
    return all(a[0] < b[0] or (jumps and a[0] == b[0]) for a, b in zip(points, points[1:]))

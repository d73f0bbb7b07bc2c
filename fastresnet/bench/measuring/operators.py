"""Where a training step's time goes, by kind of operation: seconds, arithmetic and bytes beside the ceilings.

Operations are seen at PyTorch's dispatcher and timed by its profiler, one by one, so the step is the eager
one: a compiled step has no parts. Refuses to share out what belongs to no operation: that is a row too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.profiler import profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from fastresnet import data
from fastresnet.base import files, words
from fastresnet.bench.measuring import experiments, profiles
from fastresnet.bench.measuring.context import Context
from fastresnet.machine import hardware, timing
from fastresnet.training.experiment import Experiment

STEPS = 3  # profiled, and as many timed without the profiler before and after them
AUGMENTATION, FORWARD = "augmentation, batch", "convolution, forward"
BY_INPUT, BY_WEIGHT = "convolution, by input", "convolution, by weight"
OPTIMIZER, OTHER, BETWEEN = "optimizer", "casts, sums, copies", "between operations"
NAMES = {  # words in the names of operations, the first that fits
    BY_WEIGHT: ("by_weight",),
    BY_INPUT: ("by_input",),
    FORWARD: ("convolution",),
    "linear layers": ("mm",),
    "norm": ("batch_norm", "layer_norm", "group_norm"),
    "activation": ("elu", "silu", "threshold", "sigmoid", "tanh"),  # relu and gelu are elus by name
    "pool": ("pool",),
    "loss": ("softmax", "nll_loss", "argmax"),
}
ROWS = (AUGMENTATION, FORWARD, BY_INPUT, BY_WEIGHT, *list(NAMES)[3:], OPTIMIZER, OTHER, BETWEEN)
BACKWARD = torch.ops.aten.convolution_backward.default
Watch = contextlib.AbstractContextManager[object]
RANGE = "fastresnet: "  # before a row's name in the profiler
OVERWRITING = {"copy_", "fill_", "zero_", "_foreach_copy_", "_foreach_zero_"}  # their first argument unread


@dataclass
class Work:
    """Operations of one kind: how many, FLOPs, and bytes that they read and write."""

    calls: int = 0
    flops: float = 0.0
    bytes: float = 0.0


class Operations(TorchDispatchMode):
    """Counts what reaches the dispatcher in its block, by name: operations that compute or move something."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.kinds: dict[str, Work] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.done(func.overloadpacket.__name__, func, args, kwargs or {})

    def done(
        self, kind: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], unread: object = None
    ) -> Any:
        """What `func` gives, booked under `kind`. unread: the argument that it has no need of."""
        result = self.call(kind, func, args, kwargs)
        name = func.overloadpacket.__name__
        if not func.is_view and name != "_unsafe_view" and "empty" not in name:
            count = flop_registry.get(func.overloadpacket, lambda *_, **__: 0)
            work = self.kinds.setdefault(kind, Work())
            work.calls += 1
            work.flops += count(*args, **kwargs, out_val=result)
            work.bytes += _moved(func, args, kwargs, result) - _bytes(unread)
        return result

    def call(self, kind: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)


def _moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: object) -> int:
    """Bytes of what an operation reads and of what it writes; what it changes in place counts as both."""
    schema, moved, fresh = func._schema.arguments, 0, {id(one): one for one in tree_leaves(result)}
    named = [(one, kwargs[one.name]) for one in schema if one.name in kwargs]
    for argument, value in [*zip(schema, args), *named]:
        changes = argument.alias_info is not None and argument.alias_info.is_write
        unseen = changes and (argument.kwarg_only or func.overloadpacket.__name__ in OVERWRITING)
        for one in tree_leaves(value):
            fresh.pop(id(one), None)
            moved += _bytes(one) * (changes + (not unseen))
    return moved + sum(map(_bytes, fresh.values()))


def _bytes(one: object) -> int:
    """Of a tensor, counting once what an expanded one repeats; of all else none."""
    if not isinstance(one, Tensor):
        return 0
    return one.itemsize * math.prod(size for size, stride in zip(one.shape, one.stride()) if stride)


class Timed(Operations):
    """Books operations under their row of the table; the profiler has a range of its name for each."""

    optimizing = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is BACKWARD:
            return self._halves(*args)
        return self.done(self._row(func.overloadpacket.__name__), func, args, kwargs or {})

    def call(self, kind: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with record_function(RANGE + kind):
            return func(*args, **kwargs)

    def _row(self, name: str) -> str:
        if self.optimizing:
            return OPTIMIZER
        return next((row for row, parts in NAMES.items() if any(part in name for part in parts)), OTHER)

    def _halves(self, *args: Any) -> tuple[Any, Any, Any]:
        """A convolution's backward pass as two operations, each of which leaves out what the other makes."""
        *given, (by_input, by_weight, by_bias) = args
        first, second = [None] * 3, [None] * 3
        if by_input:
            first = self.done(BY_INPUT, BACKWARD, (*given, [True, False, False]), {}, unread=given[1])
        if by_weight or by_bias:
            asked = [False, by_weight, by_bias]
            second = self.done(BY_WEIGHT, BACKWARD, (*given, asked), {}, unread=given[2])
        return first[0], second[1], second[2]


@dataclass(frozen=True)
class Row:
    """One kind of work in a step: operations, seconds of the device, FLOPs, bytes."""

    kind: str
    calls: float
    seconds: float
    flops: float
    bytes: float


@dataclass(frozen=True)
class Operators:
    """A step taken apart. `step_seconds` were measured without a profiler, the batch's making included.

    explained:        the rows of operations together, as a share of them
    flops_ceiling:    FLOP/s in the step's precision; `bytes_ceiling`: bytes/s of a copy; both measured
    """

    recipe: str
    device: str
    precision: str
    batch_size: int
    image_size: int
    step_seconds: float
    flops_ceiling: float
    bytes_ceiling: float
    rows: list[Row] = field(default_factory=list)

    @property
    def explained(self) -> float:
        return sum(row.seconds for row in self.rows if row.kind != BETWEEN) / self.step_seconds


# ---- measuring ---------------------------------------------------------------------------------------------


def measure(context: Context, recipe: str) -> Operators:
    """Take a step of the recipe's last epoch apart: its largest images, what freezes frozen.

    Raises ValueError on a device whose operations the profiler doesn't time.
    """
    if (kind := context.device.type) not in ("cpu", "cuda"):
        raise ValueError(f"--operators needs a CPU or a CUDA GPU: nothing times what {kind} does")
    cfg = context.config(recipe, {"train.compile": "off", "train.cuda_graph": False})
    splits = context.splits() if context.tiny else data.prepare(cfg, context.say)
    with experiments.opened(cfg, splits) as experiment:
        experiment.initialise()
        step_seconds, rows = _apart(experiment)
        (batch, size), name = experiment.batch_of(_first(experiment)), experiment.precision.name
    limits = context.ceiling(name), context.bandwidth()
    return Operators(cfg.recipe, kind, name, batch, size, step_seconds, *limits, rows)


def _first(experiment: Experiment) -> int:
    """The first step of the last epoch."""
    return (experiment.num_epochs - 1) * experiment.steps_per_epoch


def _apart(experiment: Experiment) -> tuple[float, list[Row]]:
    """(seconds of a step, its rows): steps without a profiler, with it, and without it again."""
    once, plain = _stepping(experiment), contextlib.nullcontext()
    taken = [once(plain) for _ in range(1 + STEPS)][1:]
    timed = Timed()
    on_gpu = experiment.device.type == "cuda"
    with profiles.recorder(on_gpu=on_gpu) as recorded, _telling_of_the_optimizer(experiment, timed):
        for _ in range(STEPS):
            once(timed)
    taken += [once(plain) for _ in range(STEPS)]
    made, stepped = (median(times) for times in zip(*taken))
    seconds = _seconds(recorded, on_gpu=on_gpu) | {AUGMENTATION: made}
    seconds[BETWEEN] = max(made + stepped - sum(seconds.values()), 0.0)
    return made + stepped, [_row(kind, seconds, timed.kinds) for kind in ROWS if kind in seconds]


def _row(kind: str, seconds: dict[str, float], kinds: dict[str, Work]) -> Row:
    work = kinds.get(kind, Work())
    return Row(kind, work.calls / STEPS, seconds[kind], work.flops / STEPS, work.bytes / STEPS)


def _stepping(experiment: Experiment) -> Callable[[Watch], tuple[float, float]]:
    """A call makes a batch and does one and the same step on it: (seconds of the batch, of the step)."""
    trainer, first = experiment.trainer, _first(experiment)
    batches = itertools.chain.from_iterable(
        experiment.train_loader.epoch(experiment.num_epochs - 1) for _ in itertools.count()
    )
    experiment.model.train()

    def once(watched: Watch) -> tuple[float, float]:
        watch = timing.Stopwatch(experiment.device)
        images, labels = next(batches)
        made = watch.lap("batch")
        trainer.steps_done = first
        with watched:
            trainer.step(images, labels)
        return made, watch.lap("step")

    return once


@contextlib.contextmanager
def _telling_of_the_optimizer(experiment: Experiment, timed: Timed) -> Iterator[None]:
    """In the block `timed` knows when an optimizer steps."""

    def tell(now: bool) -> Callable[..., None]:
        return lambda *_: setattr(timed, "optimizing", now)

    with contextlib.ExitStack() as stack:
        for part in experiment.optimizer.parts:
            stack.callback(part.register_step_pre_hook(tell(True)).remove)
            stack.callback(part.register_step_post_hook(tell(False)).remove)
        yield


def _seconds(recorded: profile, *, on_gpu: bool) -> dict[str, float]:
    """Seconds a step of each row that was seen: the kernels' on a GPU, else of the operations themselves."""
    found = {}
    for event in recorded.key_averages():
        if event.key.startswith(RANGE) and "CPU" in str(event.device_type):
            total = event.device_time_total if on_gpu else event.cpu_time_total
            found[event.key.removeprefix(RANGE)] = total / 1e6 / STEPS
    return found


# ---- telling -----------------------------------------------------------------------------------------------


def table(found: Operators) -> str:
    """Aligned columns, a line a row, and what they sum up to."""
    lines = [["", "ms", "share", "calls", "FLOP/s", "of rate", "B/s", "of memory"]]
    lines += [_cells(row, found) for row in found.rows]
    head = f"{found.recipe} on {found.device}, {found.precision}, eager: a step of "
    head += (
        f"{found.batch_size} images of {found.image_size} px takes {words.amount(found.step_seconds, 's')}"
    )
    rate, copied = words.amount(found.flops_ceiling, "FLOP/s"), words.amount(found.bytes_ceiling, "B/s")
    last = f"operations sum up to {words.percent(found.explained, digits=0)} of the step; "
    last += f"ceilings: products {rate}, copies {copied}"
    return "\n".join([head, *words.columns(lines, range(1, len(lines[0]))), last])


def _cells(row: Row, found: Operators) -> list[str]:
    cells = [row.kind, f"{1e3 * row.seconds:.2f}", words.percent(row.seconds / found.step_seconds, digits=1)]
    cells.append(f"{row.calls:.0f}" if row.calls else "")
    rates = (row.flops, "FLOP/s", found.flops_ceiling), (row.bytes, "B/s", found.bytes_ceiling)
    for amount, unit, ceiling in rates:
        rate = amount / row.seconds if row.seconds else 0.0
        cells += [words.amount(rate, unit), words.percent(rate / ceiling, digits=0)] if rate else ["", ""]
    return cells


def write(path: Path, found: Operators) -> None:
    """The same as JSON, with the machine and the versions."""
    content = {"kind": "operators", **asdict(found), "explained": found.explained, **hardware.circumstances()}
    files.write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

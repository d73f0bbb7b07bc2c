"""Where a run's numbers first stopped being finite: its steps done again, and the guilty one layer by layer.

A run's own steps are not watched. Their summed loss, which is kept on the device anyway, says that something
went wrong; the same steps from the same state give the same bits, and may stop and look. Refuses to mend
anything.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastresnet.base import words
from fastresnet.base.exits import StopRequest
from fastresnet.optim.freezing import Frozen
from fastresnet.ranks import collectives
from fastresnet.training.experiment import Experiment
from fastresnet.training.selection import Batch, Selection
from fastresnet.training.step import Step
from fastresnet.training.trainer import Diverged, scale_is_lost, sick

LONGEST = 600.0  # s that looking may take; from one checkpoint to the next is less
LAST = math.inf  # what is only seen when the step is done


class Found(NamedTuple):
    """Something that is not finite: when it was made, counted in what was looked at, and what it is."""

    when: float
    what: str


def traced(error: Diverged, experiment: Experiment, rewind: Callable[[], str], stop: StopRequest) -> Diverged:
    """The same error and where it began, found by repeating what led there. Every process calls it.

    rewind:  goes back to an earlier step, and says what repeats the run from there
    stop:    ends the looking after the step that is under way
    """
    reached = experiment.trainer.steps_done
    try:
        return Diverged(f"{error}; {cause(experiment, reached, rewind(), stop)}")
    except (ValueError, RuntimeError, MemoryError, OSError) as other:
        return Diverged(f"{error}; where it began can't be told ({other})")


def cause(experiment: Experiment, last: int, again: str, stop: StopRequest) -> str:
    """Do the steps from where the trainer stands to number `last` again; what was first not finite, in words.

    again:  what repeats them
    stop:   as in `traced`
    """
    trainer, place = experiment.trainer, experiment.place
    began, first = time.monotonic(), trainer.steps_done + 1
    trainer.model.train()
    for images, labels in _batches(experiment, last):
        before = {name: value.clone() for name, value in experiment.model.state_dict().items()}
        trainer.step(images, labels)
        spent = time.monotonic() - began
        here = torch.tensor([not _sound(experiment), stop.asked or spent > LONGEST], dtype=torch.int64)
        unsound, enough = collectives.sum_over(here, place).tolist()
        if unsound:
            experiment.model.load_state_dict(before)
            collectives.share_buffers(experiment.model, place)
            found = examined(experiment, images, labels, trainer.kind_at(trainer.steps_done - 1).frozen)
            what = earliest(collectives.of_each(found, place))
            return f"it began in {_named(experiment)}: {what}; it comes again with {again}"
        if enough:
            told = f"steps {first} to {trainer.steps_done} are sound"
            return f"{told}, those after them were not looked at ({words.duration(spent)} spent)"
    return (
        f"steps {first} to {last} stayed finite when they were done again: what isn't part of a checkpoint "
        "(a callback, random numbers that aren't PyTorch's), arithmetic that doesn't repeat itself "
        "(run.deterministic=true does) or the hardware did it"
    )


def earliest(found: Sequence[Found]) -> str:
    """What came first, and on which ranks of several: in the others it may be what followed from that."""
    first = min(found)
    ranks = [rank for rank, one in enumerate(found) if one.when == first.when]
    if len(found) == 1:
        return first.what
    if len(ranks) == len(found):
        return f"on all ranks {first.what}"
    return f"on rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))} {first.what}"


def _sound(experiment: Experiment) -> bool:
    trainer = experiment.trainer
    finite = math.isfinite(trainer.totals[0]) and not sick(trainer)
    return finite and not scale_is_lost(trainer.update.scaler)


def _batches(experiment: Experiment, last: int) -> Iterator[Batch]:
    """Those of the steps up to number `last`; whoever takes one does its step."""
    trainer, per_epoch = experiment.trainer, experiment.steps_per_epoch
    while trainer.steps_done < last:
        epoch, done = divmod(trainer.steps_done, per_epoch)
        if not done:
            trainer.totals.zero_()
        with closing(experiment.batches(epoch)) as batches:
            yield from itertools.islice(batches, done, last - epoch * per_epoch)


def _named(experiment: Experiment) -> str:
    """The last step: what it is called, and what it was done with."""
    step = experiment.trainer.steps_done
    place = f"batch {(step - 1) % experiment.steps_per_epoch + 1} of epoch {experiment.epoch + 1}"
    rate = experiment.trainer.rates.base_lr(step - 1)
    return f"step {step} ({place}, seed {experiment.seed}, learning rate {rate:.4g})"


def examined(experiment: Experiment, images: Tensor, labels: Tensor, frozen: Frozen) -> Found:
    """What is first not finite in one step of the model as it is, on this process's images.

    Steps no optimizer. Does the whole step, whatever it finds: a synchronised norm waits for all processes.
    """
    trainer, model = experiment.trainer, experiment.model
    plain = dataclasses.replace(trainer.options, compile="off", cuda_graph=False)
    step = Step(
        model,
        trainer.optimizer,
        plain,
        device=experiment.device,
        precision=experiment.precision,
        select=Selection(),
        freeze=trainer.freeze,
    )
    step.scaler = trainer.update.scaler
    images, labels = trainer.select(images, labels)
    step.optimizer.zero_grad()
    with looking(model) as seen:
        step.gradients(images, labels, frozen)
    step.optimizer.zero_grad()
    if not torch.isfinite(images).all():
        return Found(0, "the images of its batch are not finite")
    loss_sum, _, count = step.totals.tolist()
    return _judged(seen + [Found(LAST, name) for name in sick(trainer)], loss_sum / count)


def _judged(seen: list[Found], loss: float) -> Found:
    """The first of what was seen, in words; last in it are buffers: running statistics, say."""
    when, what = seen[0] if seen else (LAST, "")
    if what.startswith(OUTPUT):
        return Found(when, f"{what} is not finite")
    if not math.isfinite(loss):
        return Found(when, f"the loss is {loss}, of finite logits")
    if seen:
        return Found(when, f"{what} is not finite, though all outputs and the loss ({loss:.4g}) are")
    told = f"the optimizer's update is not finite, though the loss ({loss:.4g}) and all gradients are"
    return Found(when, told)


OUTPUT, SLOPE = "the output of ", "the gradient at the output of "


def _spoilt(values: Tensor) -> int:
    """How many rows hold what isn't finite: one image can be broken, or what is learned."""
    return int((~torch.isfinite(values.detach())).reshape(len(values), -1).any(1).sum())


@contextmanager
def looking(model: nn.Module) -> Iterator[list[Found]]:
    """Outputs and gradients that are not finite, by name, in the order in which `model` makes them."""
    seen: list[Found] = []
    looks = itertools.count(1)

    def look(what: str, value: Tensor | None) -> None:
        when = next(looks)
        if value is not None and not torch.isfinite(value).all():
            seen.append(Found(when, what))

    def after_layer(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim:
            look(f"{OUTPUT}{name} ({_spoilt(output)} of {len(output)} images)", output)
            if output.requires_grad:
                output.register_hook(partial(look, SLOPE + name))

    def after_gradient(name: str, weight: Tensor) -> None:
        look(f"the gradient of {name}", weight.grad)

    leaves = ((name, layer) for name, layer in model.named_modules() if not list(layer.children()))
    layers = {name or "the model": layer for name, layer in leaves}
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    hooks = [layer.register_forward_hook(partial(after_layer, name)) for name, layer in layers.items()]
    hooks += [w.register_post_accumulate_grad_hook(partial(after_gradient, n)) for n, w in weights.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()

"""Optimizers: which parameters are trained together, at what rate and decay, and by what.

Knows no schedule and no loop.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Callable, Iterable, TypedDict, cast

import torch
from torch import Tensor, nn

from fastresnet.base import parts
from fastresnet.machine.distributed import ALONE, World
from fastresnet.models.layers import head, members
from fastresnet.optim.blocks import depths
from fastresnet.optim.muon import Coefficients, Muon, renormalising
from fastresnet.optim.sharing import worthwhile
from fastresnet.settings.sections import Optim

# A parameter group as torch.optim has it, with "name", "base_lr" and "scale" (by optim.layer_decay) besides.
Group = dict[str, Any]
GROUPS = ("filters", "head", "biases", "whiten_bias")  # in this order; empty ones are left out


class OptimizersState(TypedDict):
    """What `Optimizers.load_state_dict` takes: one state a part, as torch.optim has it."""

    parts: list[dict[str, Any]]


class Optimizers:
    """One or more torch optimizers that step together.

    parts:         the optimizers themselves
    param_groups:  all their groups; each has "name", "base_lr" (the peak rate) and "lr". The dictionaries
                   stay the same objects for life, also when a state is loaded.
    """

    def __init__(self, parts: Iterable[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        self.param_groups: list[Group] = [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """One step of each part."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def states(self) -> list[Tensor]:
        """The tensors that the optimizers keep from step to step."""
        kept = (value for part in self.parts for state in part.state.values() for value in state.values())
        return [value for value in kept if isinstance(value, Tensor)]

    def forget(self) -> None:
        """No gradients, and every state zero in place: a fresh one for SGD, Adam and Muon."""
        self.zero_grad()
        for value in self.states():
            value.zero_()

    def state_dict(self) -> OptimizersState:
        """The parts' states: tensors and plain numbers."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: OptimizersState) -> None:
        """Take over what a stored optimizer kept from step to step; rates and the like stay as they are here.

        A run may go on on another device, captured or not. Raises ValueError for other groups than its own.
        """
        saved = state.get("parts", [])
        names = [[group.get("name") for group in part["param_groups"]] for part in saved]
        own = [[group["name"] for group in part.param_groups] for part in self.parts]
        if names != own:
            raise ValueError(
                f"the saved optimizer has parameter groups {names}, this one {own}: resume with the settings "
                "that the run was started with (optim.name, model.*)"
            )
        for part, part_state in zip(self.parts, saved):
            _load_in_place(part, part_state)


def _load_in_place(part: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load a state; groups and states that exist stay the same objects: captured graphs know them."""
    groups, states = part.param_groups, {p: dict(state) for p, state in part.state.items()}
    part.load_state_dict(copy.deepcopy(saved))  # which else would step on with the stored tensors
    part.param_groups = groups
    for p, state in states.items():
        for key, value in state.items():
            if isinstance(value, Tensor):  # one that the saved optimizer lacks is fresh there: zero
                loaded = part.state[p].get(key)
                part.state[p][key] = value.zero_() if loaded is None else value.copy_(loaded)


@dataclass(frozen=True)
class Run:
    """What an optimizer may have to know of its run: see `build`."""

    device: torch.device
    capturable: bool
    total_steps: int
    compile: Callable[[Any], Any]
    place: World = ALONE
    products: torch.dtype | None = None


Maker = Callable[[list[Group], Optim, Run], list[torch.optim.Optimizer]]


class DecoupledSGD(torch.optim.SGD):
    """SGD whose decay shrinks the weights directly, by lr * decay a step, and stays out of the momentum.

    Loshchilov and Hutter 2019 (arXiv 1711.05101). Each group carries its "decay".
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Shrink, then an ordinary step without decay."""
        assert closure is None, "DecoupledSGD takes no closure"
        taken = 1.0 - getattr(self, "found_inf", 0.0)  # 0 where fp16's loss scaler leaves the step out
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["decay"] and params:
                torch._foreach_mul_(params, 1.0 - group["lr"] * group["decay"] * taken)
        super().step()


def grouped(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The trainable parameters by kind, each exactly once; of an ensemble those of all members.

    filters: weights of two and more dimensions; head: the last linear layer's weight; biases: everything of
    one dimension (biases, norms); whiten_bias: the bias of a model's `whiten` convolution
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for net in members(getattr(model, "module", model)).values():
        last = head(net)
        own = {id(last[1].weight): "head"} if last else {}
        own[id(getattr(getattr(net, "whiten", None), "bias", None))] = "whiten_bias"
        for parameter in net.parameters():
            if parameter.requires_grad:
                kind = "filters" if parameter.ndim >= 2 else "biases"
                groups[own.get(id(parameter), kind)].append(parameter)
    return {name: some for name, some in groups.items() if some}


def build(
    model: nn.Module,
    settings: Optim,
    *,
    device: torch.device | str,
    capturable: bool = False,
    total_steps: int = 0,
    compile: Callable[[Any], Any] = lambda function: function,
    place: World = ALONE,
    products: torch.dtype | None = None,
) -> Optimizers:
    """The optimizer that `settings` (the section `optim`) describes, for the trainable parameters of `model`.

    Peak rates: optim.lr, but optim.lr_head for the head and optim.lr_bias for biases, norms and the whitening
    bias. Decay: at the peak a step shrinks weights by optim.lr * optim.weight_decay, whatever the group's own
    rate; with Muon by optim.weight_decay, and filters by optim.filter_decay. Biases and norms only with
    optim.decay_norms_and_biases. Adam puts the decay into the gradient (L2), AdamW decouples it. With
    optim.layer_decay rate and decay of a block are that share of those of the block after it.

    capturable:   rates are tensors on `device` and a step is free of host work, so that a CUDA graph can hold
                  it
    total_steps:  of the run, which optim.renormalize_slower goes by
    compile:      what makes a fast function of one (torch.compile), for Muon's products of matrices
    place:        this process among those that hold the same weights: they share Muon's products
    products:     number format of these; None: bf16 on a GPU, elsewhere fp32
    Raises ValueError for a model without trainable parameters and for an unknown name.
    """
    make = cast(Maker, parts.find(parts.OPTIMIZERS, "optim.name", settings.name))
    above = depths(model) if settings.layer_decay < 1 else {}
    groups = [
        group for name, some in grouped(model).items() for group in _by_depth(name, some, settings, above)
    ]
    if not groups:
        raise ValueError("the model has no trainable parameters")
    run = Run(torch.device(device), capturable, total_steps, compile, place, products)
    if capturable:
        for group in groups:
            group["lr"] = torch.full((), group["lr"], device=run.device)
    return Optimizers(make(groups, settings, run))


def _by_depth(name: str, all_of: list[nn.Parameter], settings: Optim, above: dict[int, int]) -> list[Group]:
    """One group, or one for each block, the last first; `above`: as `blocks.depths`."""
    deep: dict[int, list[nn.Parameter]] = defaultdict(list)
    for parameter in all_of:
        deep[above.get(id(parameter), 0)].append(parameter)
    return [_group(name, some, settings, settings.layer_decay**depth) for depth, some in sorted(deep.items())]


def _group(name: str, params: list[nn.Parameter], settings: Optim, scale: float) -> Group:
    own = {"head": settings.lr_head, "biases": settings.lr_bias, "whiten_bias": settings.lr_bias}.get(name)
    lr = float(settings.lr if own is None else own)
    decays = name in ("filters", "head") or settings.decay_norms_and_biases
    decay = settings.weight_decay * settings.lr / lr if decays else 0.0
    rate = {"base_lr": lr * scale, "lr": lr * scale, "scale": scale}
    return {"params": params, "name": name, **rate, "weight_decay": decay}


def sgd(groups: list[Group], settings: Optim, run: Run) -> list[torch.optim.Optimizer]:
    """SGD with momentum."""
    return [_plain_sgd(groups, settings, settings.momentum)]


def _plain_sgd(groups: list[Group], settings: Optim, momentum: float) -> torch.optim.Optimizer:
    nesterov = settings.nesterov and momentum > 0
    if settings.decoupled:
        groups = [{**group, "weight_decay": 0.0, "decay": group["weight_decay"]} for group in groups]
    kind = DecoupledSGD if settings.decoupled else torch.optim.SGD
    optimizer = kind(groups, momentum=momentum, nesterov=nesterov, fused=True)
    # From the start: a fused step can't take parameters of which some have stepped before and some haven't.
    for p in (p for group in groups for p in group["params"] if momentum):
        optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
    return optimizer


def adam(groups: list[Group], settings: Optim, run: Run) -> list[torch.optim.Optimizer]:
    """Adam, whose decay goes into the gradient."""
    return [_an_adam(torch.optim.Adam, groups, settings, run)]


def adamw(groups: list[Group], settings: Optim, run: Run) -> list[torch.optim.Optimizer]:
    """Adam, whose decay shrinks the weights directly."""
    return [_an_adam(torch.optim.AdamW, groups, settings, run)]


def _an_adam(
    kind: type[torch.optim.Adam], groups: list[Group], settings: Optim, run: Run
) -> torch.optim.Adam:
    capturable = run.capturable and run.device.type == "cuda"
    betas = (settings.beta1, settings.beta2)
    optimizer = kind(groups, lr=settings.lr, betas=betas, eps=settings.eps, fused=True, capturable=capturable)
    # A capture needs ordinary steps before it, on which PyTorch would warn that they aren't captured.
    optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer


def muon(groups: list[Group], settings: Optim, run: Run) -> list[torch.optim.Optimizer]:
    """Muon for the filters, if any, and SGD for the rest."""
    for group in groups:
        group["weight_decay"] /= settings.lr
    filters = [group for group in groups if group["name"] == "filters"]
    rest = [group for group in groups if group["name"] != "filters"]
    parts: list[torch.optim.Optimizer] = []
    if filters:
        if settings.filter_decay is not None or settings.renormalize_every:
            for group in filters:
                group["weight_decay"] = (settings.filter_decay or 0.0) / settings.lr
        all_filters = [parameter for group in filters for parameter in group["params"]]
        every, slower = settings.renormalize_every, settings.renormalize_slower
        muon = Muon(
            filters,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            steps=settings.muon_steps,
            coefficients=_coefficients(settings.newton_schulz),
            renormalize=renormalising(run.total_steps, every, slower),
            capturable=run.capturable,
            products=run.products,
            compile=run.compile,
            share=worthwhile(all_filters, settings.muon_steps, run.place, run.device),
        )
        parts.append(muon)
    if rest:
        parts.append(_plain_sgd(rest, settings, settings.bias_momentum))
    return parts


def _coefficients(given: list[float]) -> Coefficients:
    if len(given) != 3:
        raise ValueError(f"optim.newton_schulz must be three numbers, a, b and c, got {given}")
    return given[0], given[1], given[2]

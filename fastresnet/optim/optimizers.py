"""Optimizers: which parameters are trained together, at what rate and decay, and by what. Knows no schedule
and no loop."""

from __future__ import annotations

from typing import Any, Iterable

import torch
from torch import Tensor, nn

from fastresnet.optim.muon import Muon

GROUPS = ("filters", "head", "biases", "whiten_bias")  # in this order; empty ones are left out


class Optimizers:
    """One or more torch optimizers that step together.

    parts:         the optimizers themselves
    param_groups:  all their groups; each has "name", "base_lr" (the peak rate) and "lr". The dictionaries
                   stay the same objects for life, also when a state is loaded.
    """

    def __init__(self, parts: Iterable[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        self.param_groups: list[dict[str, Any]] = [
            group for part in self.parts for group in part.param_groups
        ]

    def step(self) -> None:
        """One step of each part."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The parts' states in one dictionary of tensors and plain numbers."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. Raises ValueError where it comes from another optimizer or other
        groups."""
        saved = state.get("parts", [])
        names = [[group.get("name") for group in part["param_groups"]] for part in saved]
        own = [[group["name"] for group in part.param_groups] for part in self.parts]
        if names != own:
            raise ValueError(
                f"the saved optimizer has parameter groups {names}, this one {own}: resume with the settings "
                "that the run was started with (optim.name, model.*)"
            )
        for part, part_state in zip(self.parts, saved):
            groups = part.param_groups
            part.load_state_dict(part_state)
            for group, loaded in zip(groups, part.param_groups):
                lr = group["lr"]
                group.update(loaded)
                if isinstance(lr, Tensor):  # a captured graph reads this very tensor
                    group["lr"] = lr.copy_(torch.as_tensor(loaded["lr"]))
            part.param_groups = groups


class DecoupledSGD(torch.optim.SGD):
    """SGD whose decay shrinks the weights directly, by lr * decay a step, and stays out of the momentum
    (Loshchilov and Hutter 2019, arXiv 1711.05101). Each group carries its "decay"."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Shrink, then an ordinary step without decay."""
        assert closure is None, "DecoupledSGD takes no closure"
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["decay"] and params:
                torch._foreach_mul_(params, 1.0 - group["lr"] * group["decay"])
        super().step()


def grouped(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The trainable parameters by kind, each exactly once.

    filters: weights of two and more dimensions; head: the last linear layer's weight; biases: everything of
    one dimension (biases, norms); whiten_bias: the bias of a model's `whiten` convolution
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    head = linears[-1].weight if linears else None
    whiten = getattr(getattr(model, "module", model), "whiten", None)
    whiten_bias = getattr(whiten, "bias", None)
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for parameter in model.parameters():
        if parameter.requires_grad:
            name = (
                "head"
                if parameter is head
                else "whiten_bias"
                if parameter is whiten_bias
                else "filters"
                if parameter.ndim >= 2
                else "biases"
            )
            groups[name].append(parameter)
    _assert_partition(model, groups)
    return {name: members for name, members in groups.items() if members}


def _assert_partition(model: nn.Module, groups: dict[str, list[nn.Parameter]]) -> None:
    members = [id(parameter) for group in groups.values() for parameter in group]
    wanted = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(members) == len(set(members)) and set(members) == wanted, (
        "each trainable parameter is in exactly one group"
    )


def build(
    model: nn.Module, settings: Any, *, device: torch.device | str, capturable: bool = False
) -> Optimizers:
    """The optimizer that `settings` (the section `optim`) describes, for the trainable parameters of `model`.

    Peak rates: optim.lr, but optim.lr_head for the head and optim.lr_bias for biases, norms and the whitening
    bias.
    Decay: at the peak a step shrinks weights by optim.lr * optim.weight_decay, whatever the group's own rate;
    with Muon by optim.weight_decay, and filters that are renormalised don't decay. Biases and norms only with
    optim.decay_norms_and_biases. Adam puts the decay into the gradient (L2), AdamW decouples it.
    capturable: rates are tensors on `device` and a step is free of host work, so that a CUDA graph can hold
    it.
    Raises ValueError for a model without trainable parameters and for an unknown name.
    """
    device = torch.device(device)
    groups = [
        _group(name, members, settings, device if capturable else None)
        for name, members in grouped(model).items()
    ]
    if not groups:
        raise ValueError("the model has no trainable parameters")
    if settings.name == "sgd":
        return Optimizers([_sgd(groups, settings, settings.momentum)])
    if settings.name in ("adam", "adamw"):
        return Optimizers([_adam(groups, settings, capturable and device.type == "cuda")])
    if settings.name == "muon":
        filters = [group for group in groups if group["name"] == "filters"]
        rest = [group for group in groups if group["name"] != "filters"]
        parts = [_muon(filters, settings, capturable)] if filters else []
        return Optimizers([*parts, *([_sgd(rest, settings, settings.bias_momentum)] if rest else [])])
    raise ValueError(f"optim.name must be one of sgd, adam, adamw, muon, got {settings.name!r}")


def _group(
    name: str, members: list[nn.Parameter], settings: Any, lr_device: torch.device | None
) -> dict[str, Any]:
    own = {"head": settings.lr_head, "biases": settings.lr_bias, "whiten_bias": settings.lr_bias}.get(name)
    base_lr = float(settings.lr if own is None else own)
    muon = settings.name == "muon"
    decays = name in ("filters", "head") or settings.decay_norms_and_biases
    if muon and name == "filters" and settings.renormalize_every:
        decays = False
    decay = settings.weight_decay * (1.0 if muon else settings.lr) / base_lr if decays else 0.0
    lr = base_lr if lr_device is None else torch.tensor(base_lr, device=lr_device)
    return {"params": members, "name": name, "base_lr": base_lr, "lr": lr, "weight_decay": decay}


def _sgd(groups: list[dict[str, Any]], settings: Any, momentum: float) -> torch.optim.Optimizer:
    nesterov = settings.nesterov and momentum > 0
    if settings.decoupled:
        groups = [{**group, "weight_decay": 0.0, "decay": group["weight_decay"]} for group in groups]
        return DecoupledSGD(groups, momentum=momentum, nesterov=nesterov, foreach=True)
    return torch.optim.SGD(groups, momentum=momentum, nesterov=nesterov, fused=True)


def _adam(groups: list[dict[str, Any]], settings: Any, capturable: bool) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    betas = (settings.beta1, settings.beta2)
    optimizer = kind(groups, lr=settings.lr, betas=betas, eps=settings.eps, fused=True, capturable=capturable)
    # A capture needs ordinary steps before it, on which PyTorch would warn that they aren't captured.
    optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer


def _muon(groups: list[dict[str, Any]], settings: Any, capturable: bool) -> torch.optim.Optimizer:
    return Muon(
        groups,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        steps=settings.muon_steps,
        renormalize_every=settings.renormalize_every,
        capturable=capturable,
    )

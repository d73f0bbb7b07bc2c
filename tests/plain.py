"""A second, plain implementation of a training run: one parameter at a time, formulas as in the papers.

Shares nothing with the package but the networks and the batches that it is given.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = dict[str, Tensor]


def factors(schedule: Any, steps: int, per_epoch: int) -> list[tuple[float, float | None]]:
    """(share of the peak rate, momentum or None) of each step; onecycle as PyTorch's own scheduler has it."""
    warm, first, last = schedule.warmup_fraction, schedule.initial_factor, schedule.final_factor
    if schedule.name == "onecycle":
        return _torchs_onecycle(schedule, steps)
    made = []
    for step in range(steps):
        done = step / steps
        if schedule.name == "constant":
            factor = 1.0
        elif schedule.name == "piecewise":
            (e0, f0), (e1, f1) = schedule.points
            factor = f0 + (f1 - f0) * min(1.0, max(0.0, (step / per_epoch - e0) / (e1 - e0)))
        elif done < warm:
            factor = first + (1 - first) * done / warm
        elif schedule.name == "linear":
            factor = 1 - (1 - last) * (done - warm) / (1 - warm)
        else:
            factor = last + (1 - last) * (1 + math.cos(math.pi * (done - warm) / (1 - warm))) / 2
        made.append((factor, None))
    return made


def _torchs_onecycle(schedule: Any, steps: int) -> list[tuple[float, float | None]]:
    low, high = schedule.momentum_low, schedule.momentum_high
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps, pct_start=schedule.warmup_fraction,
        anneal_strategy=schedule.anneal, div_factor=1 / schedule.initial_factor,
        final_div_factor=schedule.initial_factor / max(schedule.final_factor, 1e-12),
        cycle_momentum=low is not None, base_momentum=low or 0.0, max_momentum=high or 0.0,
    )  # fmt: skip
    made = []
    for step in range(steps):
        group = optimizer.param_groups[0]
        made.append((group["lr"], None if low is None else group["momentum"]))
        optimizer.step()
        if step < steps - 1:
            theirs.step()
    return made


def kind_of(name: str, parameter: Tensor, model: nn.Module) -> str:
    linears = [f"{path}.weight" for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if name == linears[-1]:
        return "head"
    if name == "whiten.bias":
        return "whiten_bias"
    return "filters" if parameter.ndim > 1 else "biases"


def train(
    cfg: Any, model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], per_epoch: int
) -> list[Weights]:
    """Train `model` in place on these batches; its parameters and buffers after each step, the first at 0."""
    optim, options = cfg.optim, cfg.train
    state: dict[str, Any] = {}
    history = [_copy(model)]
    slow = _copy(model)
    table = factors(cfg.schedule, len(batches), per_epoch)
    thawed = math.inf if options.freeze_epochs is None else options.freeze_epochs * per_epoch
    for step, (images, labels) in enumerate(batches):
        held = tuple(f"{part}." for part in cfg.model.freeze) if step < thawed else ()
        model.train()
        for part in held:
            model.get_submodule(part[:-1]).eval()
        model.zero_grad()
        F.cross_entropy(
            model(images), labels, label_smoothing=options.label_smoothing, reduction=options.loss_reduction
        ).backward()
        learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        trained = {name: p for name, p in learning if not name.startswith(held)}
        gradients = {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}
        if options.clip_norm:
            norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients.values()))
            gradients = {name: g * min(1.0, options.clip_norm / norm) for name, g in gradients.items()}
        factor, momentum = table[step]
        for name, parameter in trained.items():
            kind = kind_of(name, parameter, model)
            freeze = options.freeze_whiten_after * per_epoch
            share = max(0.0, 1 - step / freeze) if kind == "whiten_bias" and freeze else factor
            with torch.no_grad():
                own = state.setdefault(name, {})
                depth = optim.layer_decay ** blocks_above(name) if optim.layer_decay < 1 else 1.0
                _update(optim, kind, parameter, gradients[name], own, step, share, momentum, depth)
        if optim.lookahead:
            _look_ahead(optim, model, slow, step + 1, len(batches))
        history.append(_copy(model))
    return history


def blocks_above(name: str) -> int:
    """How many blocks of a SpeedNet of three groups lie between a parameter and the output."""
    order = ("head.", "groups.2.", "groups.1.", "groups.0.", "whiten.")
    return next(above for above, block in enumerate(order) if name.startswith(block))


def _copy(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _update(
    optim: Any, kind: str, p: Tensor, g: Tensor, own: Any, step: int, factor: float, momentum: float | None,
    depth: float,
) -> None:  # fmt: skip
    peak = optim.lr
    if kind == "head" and optim.lr_head is not None:
        peak = optim.lr_head
    if kind in ("biases", "whiten_bias") and optim.lr_bias is not None:
        peak = optim.lr_bias
    lr, factor = peak * depth * factor, depth * factor
    decays = kind in ("filters", "head") or optim.decay_norms_and_biases
    shrink = factor * optim.weight_decay * (1.0 if optim.name == "muon" else optim.lr) if decays else 0.0
    if optim.name == "muon" and kind == "filters":
        _muon(optim, p, g, own, step, lr, 0.0 if optim.renormalize_every else shrink)
    elif optim.name in ("adam", "adamw"):
        _adam(optim, p, g, own, lr, shrink)
    else:
        usual = optim.bias_momentum if optim.name == "muon" else optim.momentum
        _sgd(optim, p, g, own, lr, shrink, usual if momentum is None else momentum)


def _sgd(optim: Any, p: Tensor, g: Tensor, own: Any, lr: float, shrink: float, momentum: float) -> None:
    if optim.decoupled:
        p *= 1 - shrink
    elif lr:
        g = g + shrink / lr * p
    own["m"] = momentum * own.get("m", 0) + g
    p -= lr * (g + momentum * own["m"] if optim.nesterov else own["m"])


def _adam(optim: Any, p: Tensor, g: Tensor, own: Any, lr: float, shrink: float) -> None:
    if optim.name == "adamw":
        p *= 1 - shrink
    elif lr:
        g = g + shrink / lr * p
    own["m"] = optim.beta1 * own.get("m", 0) + (1 - optim.beta1) * g
    own["v"] = optim.beta2 * own.get("v", 0) + (1 - optim.beta2) * g * g
    own["n"] = own.get("n", 0) + 1
    mean, square = own["m"] / (1 - optim.beta1 ** own["n"]), own["v"] / (1 - optim.beta2 ** own["n"])
    p -= lr * mean / (square.sqrt() + optim.eps)


def _muon(optim: Any, p: Tensor, g: Tensor, own: Any, step: int, lr: float, shrink: float) -> None:
    own["m"] = optim.momentum * own.get("m", 0) + g
    direction = g + optim.momentum * own["m"] if optim.nesterov else own["m"]
    if optim.renormalize_every and (step + 1) % optim.renormalize_every == 0:
        p *= math.sqrt(len(p)) / p.norm()
    p *= 1 - shrink
    x = direction.flatten(1).double()
    wide = x if x.shape[0] <= x.shape[1] else x.T
    wide = wide / wide.norm()
    for _ in range(optim.muon_steps):
        square = wide @ wide.T
        wide = 3.4445 * wide - 4.7750 * square @ wide + 2.0315 * square @ square @ wide
    x = wide if x.shape[0] <= x.shape[1] else wide.T
    p -= lr * x.view(p.shape).float()


def _look_ahead(optim: Any, model: nn.Module, slow: Weights, step: int, steps: int) -> None:
    last = optim.lookahead_ramp and step == steps
    if step % optim.lookahead and not last:
        return
    ramp = (step / steps) ** 3 if optim.lookahead_ramp else 1.0
    share = 0.0 if last else 1 - (1 - optim.lookahead_alpha) * ramp
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            slow[name] += share * (value - slow[name])
            value.copy_(slow[name])


def ema(history: Sequence[Weights], decay: float) -> Weights:
    """The exponential average of the weights after each step, the n-th with at most (1+n)/(10+n)."""
    kept = {name: value.double() for name, value in history[0].items()}
    for n, weights in enumerate(history[1:]):
        d = min(decay, (1 + n) / (10 + n))
        kept = {name: d * kept[name] + (1 - d) * value.double() for name, value in weights.items()}
    return kept


def mean_of_tail(history: Sequence[Weights], share: float) -> Weights:
    """The mean of the weights after each of the last `share` of the steps, at least one."""
    steps = len(history) - 1
    last = history[-max(1, round(share * steps)) :]
    return {name: torch.stack([one[name].double() for one in last]).mean(0) for name in last[0]}

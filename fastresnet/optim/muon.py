"""Muon: momentum whose updates are orthogonalised, for convolution filters. Other parameters belong to SGD,
not here.

K. Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". A filter bank (O,I,kh,kw) is
the matrix (O, kh*kw*I); filter banks of one shape are orthogonalised in one batch.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (
    3.4445,
    -4.7750,
    2.0315,
)  # a x + b x³ + c x⁵: steepest at 0 with all singular values sent near 1


def orthogonalized(matrices_NRC: Tensor, steps: int) -> Tensor:
    """Each matrix (R,C) of the batch with its singular values moved to about 1 (0.7 to 1.2), in the dtype
    given.

    `steps` Newton-Schulz iterations with the quintic polynomial NEWTON_SCHULZ; small singular values need
    more of them.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.mT if tall else matrices_NRC
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for filters (O,I,kh,kw) and matrices (O,I).

    lr:                 how far an update of singular values near 1 moves; a number or a tensor on the device
    momentum:           of the gradient, with Nesterov's look ahead where `nesterov`
    steps:              Newton-Schulz iterations
    renormalize_every:  so many steps apart each filter bank is scaled to the norm sqrt(O), before its update
                        (0: never)
    weight_decay:       share of a weight lost in a step, times lr, decoupled
    capturable:         no host work in `step`: lr is a tensor, the step is counted on the device

    Raises ValueError for parameters with fewer than two dimensions.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.24,
        momentum: float = 0.6,
        nesterov: bool = True,
        steps: int = 3,
        renormalize_every: int = 1,
        weight_decay: float = 0.0,
        capturable: bool = False,
    ) -> None:
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                nesterov=nesterov,
                steps=steps,
                weight_decay=weight_decay,
                renormalize_every=renormalize_every,
                capturable=capturable,
            ),
        )
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim < 2:
                    raise ValueError(
                        f"Muon needs matrices or filters, got a parameter of shape {tuple(p.shape)}"
                    )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every parameter that has a gradient."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step(group, params)

    def _step(self, group: dict[str, Any], params: list[Tensor]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        directions = self._directions(params, momentum, group["nesterov"])
        if group["renormalize_every"]:
            self._renormalize(group, params)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1.0 - lr * group["weight_decay"])
        by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
        matrices = [_as_matrix(direction) for direction in directions]
        for i, matrix in enumerate(matrices):
            by_shape[(matrix.shape[0], matrix.shape[1])].append(i)
        updates: dict[int, Tensor] = {}
        for members in by_shape.values():
            batch = torch.stack([matrices[i] for i in members])
            batch = batch.to(torch.bfloat16) if batch.is_cuda else batch.float()
            result = orthogonalized(batch, group["steps"]).to(params[0].dtype)
            updates.update((i, _as_filters(matrix, params[i])) for i, matrix in zip(members, result.unbind()))
        ordered = [updates[i] for i in range(len(params))]
        if isinstance(lr, Tensor):
            torch._foreach_mul_(ordered, -lr)
            torch._foreach_add_(params, ordered)
        else:
            torch._foreach_add_(params, ordered, alpha=-lr)

    def _directions(self, params: list[Tensor], momentum: float, nesterov: bool) -> list[Tensor]:
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        gradients = [p.grad for p in params if p.grad is not None]
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        return list(torch._foreach_add(gradients, buffers, alpha=momentum)) if nesterov else buffers

    def _renormalize(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Scale filter banks to the norm sqrt(O) at steps 0, n, 2n … The counter is the state "step" of the
        first one."""
        every, state = group["renormalize_every"], self.state[group["params"][0]]
        if "step" not in state:
            state["step"] = torch.zeros((), device=params[0].device if group["capturable"] else "cpu")
        step = state["step"]
        if group["capturable"] or int(step) % every == 0:
            norms = torch._foreach_norm(params)
            scales = [p.shape[0] ** 0.5 / norm for p, norm in zip(params, norms)]
            if group["capturable"] and every > 1:
                due = step.remainder(every) == 0
                scales = [torch.where(due, scale, 1.0) for scale in scales]
            torch._foreach_mul_(params, scales)
        step += 1


def _as_matrix(filters: Tensor) -> Tensor:
    """(O,I,kh,kw) -> (O, kh*kw*I): the order that channels-last filters have in memory, so that nothing is
    moved.
    The order of columns makes no difference to orthogonalising."""
    return filters.permute(0, 2, 3, 1).flatten(1) if filters.ndim == 4 else filters.flatten(1)


def _as_filters(matrix: Tensor, like: Tensor) -> Tensor:
    if like.ndim != 4:
        return matrix.view(like.shape)
    out, inputs, height, width = like.shape
    return matrix.view(out, height, width, inputs).permute(0, 3, 1, 2)

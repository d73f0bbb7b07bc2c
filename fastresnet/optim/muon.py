"""Muon: momentum whose updates are orthogonalised, for convolution filters; the rest is SGD's.

K. Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". A filter bank (O,I,kh,kw) is
the matrix (O, kh*kw*I). Those of one shape, or one height, are orthogonalised in one batch.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastresnet.optim.sharing import Share

# a x + b x³ + c x⁵: steepest at 0 with all singular values sent near 1
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
Coefficients = tuple[float, float, float]


def orthogonalized(
    matrices_NRC: Tensor,
    steps: int,
    coefficients: Coefficients = NEWTON_SCHULZ,
    compute: torch.dtype | None = None,
) -> Tensor:
    """Each matrix (R,C) of the batch with its singular values moved to about 1 (0.7 to 1.2).

    `steps` Newton-Schulz iterations with the quintic polynomial; small singular values need more of them. The
    products are made in `compute`, or in the matrices' own dtype.
    """
    a, b, c = coefficients
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.mT if tall else matrices_NRC
    x = x.to(compute or x.dtype)
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).to(matrices_NRC.dtype)


def orthogonal_updates(
    directions: Sequence[Tensor],
    steps: int,
    coefficients: Coefficients,
    compute: torch.dtype,
    padded: bool = True,
) -> list[Tensor]:
    """Each direction orthogonalised, in its own shape and memory layout.

    Matrices of one shape share a batch; `padded`, all of one height (the smaller side) do: columns of zeros
    make them equally wide, which changes neither norm nor products. That saves launches and costs arithmetic:
    right for a captured step, wrong for a CPU.
    """
    matrices = [_as_matrix(direction) for direction in directions]
    wide = [matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, matrix in enumerate(wide):
        alike[tuple(matrix.shape[: 1 if padded else 2])].append(i)
    updates: dict[int, Tensor] = {}
    for members in alike.values():
        width = max(wide[i].shape[1] for i in members)
        batch = torch.stack([F.pad(wide[i], (0, width - wide[i].shape[1])) for i in members])
        for i, result in zip(members, orthogonalized(batch, steps, coefficients, compute).unbind()):
            matrix = result[:, : wide[i].shape[1]]
            updates[i] = _as_filters(matrix if wide[i] is matrices[i] else matrix.mT, directions[i])
    return [updates[i] for i in range(len(directions))]


def renormalising(total_steps: int, every: int, slower: float) -> list[bool]:
    """At which steps filters are renormalised, to be read in a circle: empty for never.

    After `every` steps each; with `slower` after every + int(slower * share of the run done), so that the
    pauses grow.
    """
    if not every:
        return []
    if not slower:
        return [False] * (every - 1) + [True]
    due, last = [], 0
    for step in range(1, total_steps + 1):
        due.append(step - last >= every + int(slower * step / total_steps))
        last = step if due[-1] else last
    return due


class Muon(torch.optim.Optimizer):
    """Muon for filters (O,I,kh,kw) and matrices (O,I).

    lr:            how far an update of singular values near 1 moves; a number or a tensor on the device
    momentum:      of the gradient, with Nesterov's look ahead where `nesterov`
    steps:         Newton-Schulz iterations, with `coefficients`
    renormalize:   for each step, in a circle: is each filter bank scaled to the norm sqrt(O) before its
                   update?
    weight_decay:  share of a weight lost in a step, times lr, decoupled
    capturable:    no host work in `step`: lr is a tensor, the step is counted on the device
    products:      number format of the products of matrices; None: bf16 on a GPU, elsewhere fp32
    compile:       what makes a fast function of one (torch.compile), for the orthogonalising
    share:         how several processes that hold the same gradients share it; None: each does all

    Raises ValueError for parameters with fewer than two dimensions.
    """

    def __init__(
        self,
        params: Iterable[Any],  # as torch.optim.Optimizer has it: tensors, or groups of them
        lr: float | Tensor = 0.24,
        momentum: float = 0.6,
        nesterov: bool = True,
        steps: int = 3,
        coefficients: Coefficients = NEWTON_SCHULZ,
        renormalize: Sequence[bool] = (True,),
        weight_decay: float = 0.0,
        capturable: bool = False,
        products: torch.dtype | None = None,
        compile: Callable[[Any], Any] = lambda function: function,
        share: Share | None = None,
    ) -> None:
        defaults = dict(
            lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, capturable=capturable
        )
        super().__init__(params, defaults)
        self.steps, self.coefficients, self.renormalize = steps, coefficients, tuple(renormalize)
        self.updates, self.share, self.products = compile(orthogonal_updates), share, products
        flat = [p for group in self.param_groups for p in group["params"] if p.ndim < 2]
        if flat:
            shape = tuple(flat[0].shape)
            raise ValueError(f"Muon needs matrices or filters, got a parameter of shape {shape}")
        self._due: Tensor | None = None  # `renormalize` on the device
        self._norms: dict[tuple[int, ...], Tensor] = {}  # wanted, of banks with so many filters
        self._plans: dict[tuple[torch.Size, ...], Share] = {}  # for some of the filters

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # a closure is never called
        """One update of every parameter that has a gradient."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step(group, params)

    def _step(self, group: dict[str, Any], params: list[Tensor]) -> None:
        lr: float | Tensor = group["lr"]
        directions = self._directions(params, group["momentum"], group["nesterov"])
        if self.renormalize:
            self._renormalize(group, params)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1.0 - lr * group["weight_decay"])
        products = self.products or (torch.bfloat16 if params[0].is_cuda else torch.float32)

        def orthogonal(some: Sequence[Tensor]) -> list[Tensor]:
            return list(self.updates(some, self.steps, self.coefficients, products, group["capturable"]))

        share = self._shared(directions)
        updates = orthogonal(directions) if share is None else share.of_all(directions, orthogonal)
        torch._foreach_mul_(updates, -lr)
        torch._foreach_add_(params, updates)

    def _shared(self, directions: Sequence[Tensor]) -> Share | None:
        """How these are shared: one block's alone, or those that aren't frozen, by a plan of their own."""
        shapes = tuple(direction.shape for direction in directions)
        if self.share is None or shapes == tuple(self.share.shapes):
            return self.share
        if shapes not in self._plans:
            self._plans[shapes] = Share(shapes, self.steps, self.share.place)
        return self._plans[shapes]

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
        """Scale filter banks to the norm sqrt(O) where due; the state "step" of the first one counts."""
        state, capturable = self.state[group["params"][0]], group["capturable"]
        if "step" not in state:
            state["step"] = torch.zeros((), device=params[0].device if capturable else "cpu")
        step = state["step"]
        if capturable or self.renormalize[int(step) % len(self.renormalize)]:
            norms = torch.stack(torch._foreach_norm(params)).clamp_min(1e-12)  # a bank of zeros stays one
            scales = self._wanted_norms(params) / norms
            if capturable and not all(self.renormalize):
                scales = torch.where(self._due_now(step), scales, 1.0)
            torch._foreach_mul_(params, list(scales.unbind()))
        step += 1

    def _wanted_norms(self, params: list[Tensor]) -> Tensor:
        heights = tuple(p.shape[0] for p in params)
        if heights not in self._norms:
            self._norms[heights] = torch.tensor(heights, dtype=torch.float32).sqrt().to(params[0].device)
        return self._norms[heights]

    def _due_now(self, step: Tensor) -> Tensor:
        if self._due is None:
            self._due = torch.tensor(self.renormalize).to(step.device)
        return self._due.index_select(0, step.remainder(len(self._due)).long().view(1))


def _as_matrix(filters: Tensor) -> Tensor:
    """(O,I,kh,kw) -> (O, kh*kw*I): channels-last filters lie so in memory, and nothing is moved.

    The order of columns makes no difference to orthogonalising.
    """
    return filters.permute(0, 2, 3, 1).flatten(1) if filters.ndim == 4 else filters.flatten(1)


def _as_filters(matrix: Tensor, like: Tensor) -> Tensor:
    if like.ndim != 4:
        return matrix.reshape(like.shape)
    out, inputs, height, width = like.shape
    return matrix.reshape(out, height, width, inputs).permute(0, 3, 1, 2)

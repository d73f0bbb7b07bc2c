"""Muon's Newton-Schulz shared by processes that hold the same gradients: each orthogonalises some filters.

Then all get all, bit for bit the same. What it saves and costs is counted by `worthwhile`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastresnet.machine.distributed import World
from fastresnet.ranks import collectives

# Of one process on a CPU core, between processes of one machine by gloo: about what an AMD EPYC reaches.
CPU_RATE, CPU_BANDWIDTH, CPU_LATENCY = 50e9, 1e9, 300e-6  # FLOP/s, bytes/s, s


class Share:
    """Which process orthogonalises which of the directions whose shapes are given.

    The costliest first, each to the process that has least to do: all come to the same plan.
    """

    def __init__(self, shapes: Sequence[torch.Size], steps: int, place: World) -> None:
        self.place, self.shapes = place, list(shapes)
        self.members: list[list[int]] = [[] for _ in range(place.size)]
        self.loads = [0.0] * place.size
        costs = [flops(shape, steps) for shape in shapes]
        for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
            least = self.loads.index(min(self.loads))
            self.members[least].append(i)
            self.loads[least] += costs[i]
        self.longest = max(sum(shapes[i].numel() for i in some) for some in self.members)

    def of_all(
        self, directions: Sequence[Tensor], orthogonal: Callable[[Sequence[Tensor]], list[Tensor]]
    ) -> list[Tensor]:
        """What `orthogonal` makes of all directions, in their layouts; every process calls it."""
        assert len(directions) == len(self.shapes), "DDP gives every filter a gradient"
        mine = self.members[self.place.rank]
        made = orthogonal([directions[i] for i in mine]) if mine else []
        sent = directions[0].new_zeros(self.longest)
        if made:
            flat = torch.cat([update.reshape(-1) for update in made])
            sent[: len(flat)] = flat
        updates = [torch.empty_like(direction) for direction in directions]
        for some, part in zip(self.members, collectives.gather(sent, self.place)):
            pieces = part.split([self.shapes[i].numel() for i in some] + [self._rest(some)])
            for i, piece in zip(some, pieces):
                updates[i].copy_(piece.view(self.shapes[i]))
        return updates

    def _rest(self, some: Sequence[int]) -> int:
        return self.longest - sum(self.shapes[i].numel() for i in some)


def flops(shape: torch.Size, steps: int) -> float:
    """Of so many Newton-Schulz iterations of a matrix (rows, all else): three products, 2 a multiply-add."""
    rows = shape[0]
    small, large = sorted((rows, shape.numel() // rows))
    return steps * (4.0 * small**2 * large + 2.0 * small**3)


def worthwhile(filters: Sequence[Tensor], steps: int, place: World, device: torch.device) -> Share | None:
    """How to share these filters' orthogonalising, None where each process is quicker alone.

    On a GPU always: there compiled or unlike kernels may round otherwise in each process, and weights would
    drift apart; it costs one all-gather of the filters a step, and saves what docs/scaling.md counts.
    """
    if place.size == 1:
        return None
    share = Share([value.shape for value in filters], steps, place)
    saved = (sum(share.loads) - max(share.loads)) / CPU_RATE
    received = 4.0 * share.longest * (place.size - 1)
    return share if device.type == "cuda" or saved > CPU_LATENCY + received / CPU_BANDWIDTH else None

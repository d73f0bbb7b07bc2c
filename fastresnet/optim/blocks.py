"""The blocks of any network in order from its input to its head: for rates and freezing that go by depth.

Containers (nn.Sequential, nn.ModuleList) are opened; each other module is a block, in the order in which the
network named it. A norm alone belongs to the block before it. Knows no rates and no steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from fastresnet.models.layers import members

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # these alone, not what is made from them
Roots = list[str]  # names of modules, or of the network's own parameters
TRUNK = "trunk"  # all blocks but the last


def blocks(model: nn.Module) -> list[Roots]:
    """What each block consists of, the input's first; modules without parameters and buffers are left out.

    A ResNet's are [conv1, bn1], [layer1.0], …, [fc]. The network's own parameters belong to the first.
    An ensemble's consist of its members'.
    """
    nets = [
        [[prefix + name for name in roots] for roots in _of_one(net)]
        for prefix, net in members(model).items()
    ]
    return [list(itertools.chain(*alike)) for alike in zip(*nets)]


def _of_one(model: nn.Module) -> list[Roots]:
    found: list[Roots] = []
    for name, module in _opened(model):
        tensors = [*module.parameters(), *module.buffers()]
        if tensors and found and all(tensor.ndim < 2 for tensor in tensors):
            found[-1].append(name)
        elif tensors:
            found.append([name])
    own = [name for name, _ in model.named_parameters(recurse=False)]
    if own:
        found[:1] = [own + (found[0] if found else [])]
    return found


def _opened(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if type(child) in CONTAINERS:
            yield from _opened(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def depths(model: nn.Module) -> dict[int, int]:
    """The `id` of each parameter -> how many blocks lie between it and the network's output."""
    order = blocks(model)
    return {
        id(parameter): above
        for above, roots in enumerate(reversed(order))
        for name, parameter in model.named_parameters()
        if within(name, roots)
    }


def roots_of(model: nn.Module, wanted: Sequence[str], key: str = "model.freeze") -> Roots:
    """The modules that `wanted` names, TRUNK for all blocks but the last. ValueError for what isn't there."""
    order = blocks(model)
    roots: Roots = []
    names = [name for name, _ in model.named_parameters()]
    for one in wanted:
        inside = [one, *(prefix + one for prefix in members(model) if prefix)]
        if one == TRUNK:
            inside = [root for block in order[:-1] for root in block]
        if not any(within(name, inside) for name in names):
            there = ", ".join(block[0] for block in order)
            raise ValueError(f"{key}={one}: this network has no such part; its blocks are {there}")
        roots += inside
    return roots


def within(name: str, roots: Iterable[str]) -> bool:
    """Whether a parameter or module is one of `roots` or inside one."""
    return any(name == root or name.startswith(f"{root}.") for root in roots)

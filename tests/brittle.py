"""A network that breaks in one of its training passes, forward or backward."""

import math

import torch
from torch import nn


class Brittle(nn.Module):
    """Passes its input on; in its training pass number `at` it breaks, forward or backward."""

    def __init__(self, at, way):
        super().__init__()
        self.at, self.way = at, way
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, values):
        if not self.training:
            return values
        self.passes += 1
        if int(self.passes) != self.at:
            return values
        return values * math.inf if self.way == "forward" else values + (0.0 * values).abs().sqrt()


def net(at, way):
    """A function that makes a network which breaks in that pass."""

    def made(classes, size):
        layers = nn.Linear(3 * size * size, 16), nn.BatchNorm1d(16), Brittle(at, way), nn.Linear(16, classes)
        return nn.Sequential(nn.Flatten(), *layers)

    return made

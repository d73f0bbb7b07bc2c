"""What changes the weights: parameter groups, optimizers, averages of weights, schedules, rates, freezing.

Refuses to know data, loops and files.
"""

from fastresnet.optim.averaging import Average, Ema, Lookahead, TailAverage
from fastresnet.optim.muon import Muon
from fastresnet.optim.optimizers import DecoupledSGD, Optimizers, build, grouped

__all__ = [
    "Average",
    "DecoupledSGD",
    "Ema",
    "Lookahead",
    "Muon",
    "Optimizers",
    "TailAverage",
    "build",
    "grouped",
]

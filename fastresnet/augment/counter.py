"""Random numbers that are functions of seed, epoch, purpose and place alone: counted, not drawn in turn.

Whole-number arithmetic in plain PyTorch: the same on every device, and nothing waits for the host.
"""

from __future__ import annotations

import zlib

import numpy as np
from torch import Tensor

# splitmix64 (Steele, Lea & Flood 2014) as a counter: number i is its finaliser at key + i·GOLDEN.
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Draws:
    """The numbers of one epoch, a row for each of `places`; calls with one purpose give one answer.

    places:  int64 (n,), non-negative, on the device where the numbers are wanted
    """

    def __init__(self, seed: int, epoch: int, places: Tensor) -> None:
        self.seed, self.epoch, self.places = seed, epoch, places

    def bits(self, purpose: str) -> Tensor:
        """64 random bits each: int64 (n,)."""
        words = [self.seed, self.epoch, zlib.crc32(purpose.encode())]
        key = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
        state = self.places * _signed(GOLDEN)
        state += _signed(key)
        for shift, factor in ((30, FIRST), (27, SECOND)):
            state ^= _shifted(state, shift)
            state *= _signed(factor)
        state ^= _shifted(state, 31)
        return state

    def below(self, purpose: str, end: int) -> Tensor:
        """Whole numbers 0 … end-1, int32 (n,), end < 2^31; off from uniform by less than end/2^32."""
        return (_shifted(self.bits(purpose), 32) * end >> 32).int()

    def uniform(self, purpose: str) -> Tensor:
        """float32 (n,) in [0, 1), multiples of 2^-24."""
        return _shifted(self.bits(purpose), 40).float().mul_(2.0**-24)

    def coin(self, purpose: str, share: float = 0.5) -> Tensor:
        """bool (n,), true for `share` of all."""
        return self.uniform(purpose) < share

    def permutation(self, purpose: str) -> Tensor:
        """The places in random order, int64 (n,): sorted by random bits, the lowest of them the place itself.

        No two keys are equal, so every device sorts alike. Places must be less than n.
        """
        low = (1 << len(self.places).bit_length()) - 1
        keys = self.bits(purpose).bitwise_and_(~low).bitwise_or_(self.places)
        return keys.sort().values.bitwise_and_(low)


def _signed(word: int) -> int:
    """The int64 of the same bits: PyTorch multiplies and adds modulo 2^64."""
    return word - (1 << 64) if word >> 63 else word


def _shifted(words: Tensor, places: int) -> Tensor:
    """Shifted to the right as unsigned numbers are."""
    return (words >> places).bitwise_and_((1 << (64 - places)) - 1)

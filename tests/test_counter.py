"""Counted random numbers: uniform, independent of each other, and never a wait for the host."""

import functools
import itertools

import pytest
import torch
from torch._subclasses import FakeTensorMode

from fastresnet import augment
from fastresnet.augment import Augment
from fastresnet.augment.counter import FIRST, GOLDEN, SECOND, Draws, _signed

MANY = 1 << 15
PLACES = torch.arange(MANY)
# What may differ between two streams: seed, epoch, purpose. 0 and 1 are the likeliest values, and the worst.
STREAMS = list(itertools.product((0, 1), (0, 1), ("dy", "dx")))


@functools.cache
def signs(seed: int, epoch: int, purpose: str) -> torch.Tensor:
    """The 64 bits of each number as ±1: float32 (MANY, 64), whose sums are exact."""
    bits = Draws(seed, epoch, PLACES).bits(purpose)
    return ((bits[:, None] >> torch.arange(64)) & 1).float() * 2 - 1


def test_numbers_are_those_of_splitmix64(monkeypatch):
    state, expected = 1234567, []
    for _ in range(5):  # the published generator: state += GOLDEN, then its finaliser, modulo 2^64
        state = (state + GOLDEN) % 2**64
        word = (state ^ (state >> 30)) * FIRST % 2**64
        word = (word ^ (word >> 27)) * SECOND % 2**64
        expected.append(word ^ (word >> 31))
    key = 1234567
    monkeypatch.setattr(
        "numpy.random.SeedSequence", lambda words: type("", (), {"generate_state": lambda *_: [key]})
    )
    counted = Draws(0, 0, torch.arange(1, 6)).bits("any")
    assert [int(word) % 2**64 for word in counted] == expected
    assert [_signed(word) for word in (2**63 - 1, 2**63, 2**64 - 1)] == [2**63 - 1, -(2**63), -1]
    assert expected[0] == 6457827717110365317  # of seed 1234567, as Vigna's splitmix64.c prints it


def test_every_bit_is_a_fair_coin_and_no_two_bits_agree_more_than_chance():
    one = signs(0, 0, "dy")
    assert one.mean(0).abs().max() < 5 / MANY**0.5
    both = (one.T @ one / MANY).fill_diagonal_(0)
    assert both.abs().max() < 5.5 / MANY**0.5


@pytest.mark.parametrize("one, other", list(itertools.combinations(STREAMS, 2)))
def test_seeds_epochs_and_purposes_are_independent(one, other):
    together = signs(*one).T @ signs(*other) / MANY
    assert together.abs().max() < 5.5 / MANY**0.5


def test_neighbouring_places_are_independent():
    numbers = Draws(0, 0, PLACES).uniform("any").double() - 0.5
    for lag in (1, 2, 3, 512, 20_000):
        assert abs(float((numbers[lag:] * numbers[:-lag]).mean())) * 12 < 5 / (MANY - lag) ** 0.5


def test_a_permutation_holds_every_place_once_and_sends_each_anywhere():
    for count in (1, 2, 3, 1000, MANY + 1):
        order = augment.order(count, 0, 0)
        assert torch.equal(order.sort().values, torch.arange(count))
    counts = torch.zeros(5, 5)
    for epoch in range(2000):
        counts[torch.arange(5), augment.order(5, 0, epoch)] += 1
    assert ((counts - 400) ** 2 / 400).sum() < 43  # 16 degrees of freedom: p = 0.0003


def test_uniform_numbers_are_below_one_and_whole_ones_below_their_end():
    draws = Draws(3, 4, PLACES)
    numbers, whole = draws.uniform("any"), draws.below("any", 7)
    assert 0 <= numbers.min() and numbers.max() < 1 and numbers.dtype == torch.float32
    assert set(whole.tolist()) == set(range(7)) and whole.dtype == torch.int32
    assert draws.below("any", 2**31 - 1).min() >= 0


def test_drawing_on_a_gpu_would_never_wait_for_it():
    """A fake tensor has no values: whoever reads one on the host, as `.item()` and `if` do, gets an error."""
    spec = Augment(4, "reflect", "alternating", 8, 0.1, 0.1, (("erasing", 0.5), ("grayscale", 0.5)))
    with FakeTensorMode(), torch.device("cuda"):
        order = augment.order(1000, 1, 2, "cuda")
        choices = augment.draw(spec, 1000, (32, 32), 1, 2, "cuda", samples=order).select(order)
    drawn = (order, choices.dy, choices.flip, choices.cut_x, choices.contrast, *choices.extras.values())
    assert {values.device.type for values in drawn} == {"cuda"}


@pytest.mark.gpu
def test_a_gpu_draws_what_a_cpu_draws():
    spec = Augment(4, "reflect", "alternating", 8, 0.1, 0.1, (("grayscale", 0.5),))
    here, there = (augment.draw(spec, 50_000, (32, 32), 1, 2, device) for device in ("cpu", "cuda"))
    for name in ("dy", "dx", "flip", "cut_y", "cut_x", "brightness", "contrast"):
        assert torch.equal(getattr(here, name), getattr(there, name).cpu())
    assert torch.equal(here.extras["grayscale"], there.extras["grayscale"].cpu())
    assert torch.equal(augment.order(50_000, 1, 2), augment.order(50_000, 1, 2, "cuda").cpu())

"""The loader benchmark measures what it says: it recovers crops from pixels, notices wrong ones, and prints
ratios."""

from types import SimpleNamespace

import pytest
import torch

from fastresnet import augment
from fastresnet.bench.contest import checks, contestants
from fastresnet.bench.contest import contest as bench


def finished(choices: augment.Choices) -> torch.Tensor:
    pixels = torch.from_numpy(checks.coordinates(choices.count)[0])
    return augment.apply(
        pixels, torch.arange(choices.count), choices, mean=contestants.MEAN, std=contestants.STD
    )


def test_crops_and_mirrors_are_read_off_the_pixels():
    choices = augment.draw(contestants.SPEC, 500, (contestants.SIZE, contestants.SIZE), seed=0, epoch=0)
    dy, dx, flipped = checks.crops_and_mirrors(finished(choices))
    pad = contestants.SPEC.crop_padding_px
    assert torch.equal(flipped, choices.flip)
    assert torch.equal(dy, choices.dy.long() - pad) and torch.equal(dx, choices.dx.long() - pad)
    assert checks.unlikely(dy, dx, flipped) is None


def test_wrong_distributions_are_noticed():
    dy = torch.arange(900) % 9 - 4
    flipped = torch.arange(900) % 2 == 0
    assert checks.unlikely(dy, dy, flipped) is None
    assert "not uniform" in checks.unlikely(dy // 2, dy, flipped)
    assert "shifted by 5 px" in checks.unlikely(dy, dy + 1, flipped)
    assert "mirrored" in checks.unlikely(dy, dy, torch.zeros(900, dtype=torch.bool))


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return list(
        bench.cases(images=1024, seconds=0.3, batch_size=128, device="cpu", only=["resident rows"], threads=1)
    )


def test_a_small_run_checks_and_measures(rows):
    (row,) = rows
    assert (
        row["status"] == "ok" and row["images_per_second"]["median"] > 0 and row["images_per_cpu_second"] > 0
    )
    assert "resident rows" in bench.table(rows)


def test_ratios_are_held_against_the_targets(rows):
    slow = dict(
        rows[0], name="ffcv", ours=False, images_per_second=dict(rows[0]["images_per_second"], median=1e-3)
    )
    found = bench.verdicts([*rows, slow], "cpu")
    assert found[0]["target"] == "resident rows at least 4 times ffcv" and found[0]["hit"]
    missing = dict(slow, images_per_second=None, status="not installed")
    assert "not installed" in bench.table([missing]) and len(bench.verdicts([*rows, missing], "cpu")) == 1


def test_a_loader_that_fails_is_a_row_that_says_why(rows):
    contestant = contestants.Contestant("broken", lambda setting: 1 / 0, True, False)
    bench._begin(contestant, SimpleNamespace(device=torch.device("cpu")), print)
    assert contestant.problem == "ZeroDivisionError: division by zero"


def test_the_picture_is_a_png(rows, tmp_path):
    bench.plot(rows, tmp_path / "loader.png", "two cores")
    assert (tmp_path / "loader.png").read_bytes().startswith(b"\x89PNG")

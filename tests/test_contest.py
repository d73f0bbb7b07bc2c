"""contest: it recovers crops from pixels, notices wrong ones, times in turns, and prints ratios."""

import json

import pytest
import torch

from fastresnet import augment
from fastresnet.bench.commands import loaders
from fastresnet.bench.contest import checks, contest, contestants, entrants, outcome
from fastresnet.bench.contest.contestants import Contestant
from fastresnet.settings import config

CPU = torch.device("cpu")


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
def rows() -> list[contestants.Row]:
    setting = contest.setting_of(1024, 128, CPU, torch.float32, workers=1)
    return contest.hold(contest.chosen(CPU, ["resident rows"]), setting, seconds=0.3)


def test_a_small_run_checks_and_measures(rows):
    (row,) = rows
    assert row["status"] == "ok" and row["images_per_second"]["median"] > 0
    assert row["images_per_cpu_second"] > 0 and row["batch_size"] == 128
    assert "resident rows" in outcome.table(rows)


def test_ratios_are_held_against_the_targets(rows):
    slow = dict(
        rows[0], name="ffcv", ours=False, images_per_second=dict(rows[0]["images_per_second"], median=1e-3)
    )
    found = outcome.verdicts([*rows, slow], "cpu")
    assert found[0]["target"] == "resident rows at least 4 times ffcv" and found[0]["hit"]
    missing = dict(slow, images_per_second=None, status="not installed")
    assert "not installed" in outcome.table([missing])
    assert len(outcome.verdicts([*rows, missing], "cpu")) == 1


def test_a_rival_that_runs_in_several_ways_is_held_to_its_fastest(rows):
    ours, q = dict(rows[0], name="resident fused"), rows[0]["images_per_second"]
    slow, fast = (
        dict(rows[0], name=name, ours=False, images_per_second=dict(q, median=q["median"] / times))
        for name, times in (("ffcv", 9.0), ("ffcv by its table", 2.0))
    )
    found = outcome.verdicts([ours, slow, fast], "cpu")
    assert found[0]["reached"] == pytest.approx(2.0) and not found[0]["hit"]


def test_on_a_gpu_the_batch_of_training_and_an_epoch_at_once_are_held_apart(rows):
    made = [one.name for one in entrants.entrants(torch.device("cuda")) if one.on_device]
    assert made[:2] == ["resident triton", "resident triton, an epoch at once"]
    fast = dict(rows[0]["images_per_second"], median=2e8)
    batch, epoch = (dict(rows[0], name=name) for name in made[:2])
    targets = outcome.verdicts([batch, epoch | {"images_per_second": fast}], "cuda")
    assert [(one["target"], one["hit"]) for one in targets[:2]] == [
        ("resident triton at least 100,000,000 images/s", False),
        ("resident triton, an epoch at once at least 100,000,000 images/s", True),
    ]


def test_an_epoch_at_once_is_one_batch(rows):
    setting = contest.setting_of(512, 128, CPU, torch.float32, workers=1)
    whole = Contestant("whole", entrants.resident("rows"), True, True, at_once=True)
    (row,) = contest.hold([whole], setting, seconds=0.05)
    assert row["status"] == "ok" and row["batch_size"] == 512


def test_processor_time_is_that_of_all_rounds(monkeypatch):
    setting = contest.setting_of(512, 128, CPU, torch.float32, workers=1)
    one = Contestant("ours", entrants.resident("rows"), True, True)
    one.start(setting)
    spent = iter((0.0, 2.0, 2.0, 2.0))  # the second round finds a clock that stands still
    monkeypatch.setattr(contestants, "cpu_seconds", lambda: next(spent))
    for _ in range(2):
        one.measure(setting, 0.01)
    one.close()
    assert one.row["images_per_cpu_second"] == one._made / 2.0 and one._made % 128 == 0


def test_a_loader_that_fails_is_a_row_that_says_why():
    contestant = Contestant("broken", lambda setting: 1 / 0, True, False)
    setting = contest.setting_of(64, 8, CPU, torch.float32, workers=1)
    (row,) = contest.hold([contestant], setting, seconds=0.1)
    assert row["status"] == "ZeroDivisionError: division by zero" and row["images_per_second"] is None
    assert outcome.table([row]).splitlines()[-1] == f"{row['name']}: ZeroDivisionError: division by zero"


def test_every_loader_ends_with_the_contest():
    """FFCV's threads, left in the middle of an epoch, abort the process when it exits."""
    ended = []

    def epochs(setting):
        def epoch():
            try:
                while True:
                    yield torch.zeros(8, 3, 32, 32), torch.zeros(8, dtype=torch.int64)
            finally:
                ended.append("epoch")

        return iter([epoch()])

    setting = contest.setting_of(64, 8, CPU, torch.float32, workers=1)
    contest.hold([Contestant("endless", epochs, False, False)], setting, seconds=0.1)
    assert ended == ["epoch"]


def test_the_picture_is_a_png(rows, tmp_path):
    outcome.plot(rows, tmp_path / "loader.png", "two cores")
    assert (tmp_path / "loader.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_takes_the_batch_that_training_uses(tmp_path):
    out = tmp_path / "loader.json"
    arguments = ["--images", "1024", "--seconds", "0.1", "--only", "resident rows", "--json", str(out)]
    assert loaders.main([*arguments, "--device", "cpu"]) == 0
    assert json.loads(out.read_text())["batch_size"] == config.load("cpu.yaml").train.batch_size

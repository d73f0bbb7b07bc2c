"""Every shipped recipe loads, says where it comes from, and trains: a few steps on drawn images, made small
by overrides that leave its net's shape, optimizer, schedule and augmentation alone."""

import math

import pytest
from drawn import splits

from fastresnet.optim import Lookahead
from fastresnet.settings import config
from fastresnet.settings.reading import RECIPES, recipes
from fastresnet.training.experiment import Experiment

RACERS = ("speed90-cpu", "speed94-cpu", "speed94", "speed95", "speed96", "dawn94", "ffcv93", "airbench94",
          "hlb94", "rn18-94", "rn18-96")  # fmt: skip
SMALL = {
    "model.width": 0.125,
    "train.epochs": 2,
    "train.batch_size": 32,
    "train.precision": "fp32",
    "train.compile": "off",
    "train.cuda_graph": False,
    "eval.batch_size": 32,
    "run.device": "cpu",
}


@pytest.mark.parametrize("name", sorted(recipes()))
def test_a_recipe_loads_and_names_its_source(name):
    config.load(name)
    head = (RECIPES / name).read_text(encoding="utf-8")
    assert head.startswith("# ") and "\n# Source: " in head


@pytest.mark.parametrize("name", RACERS)
def test_a_racer_trains_on_the_synthetic_set(name):
    cfg = config.load(f"{name}.yaml", SMALL)
    experiment = Experiment(cfg, splits=splits(64, 32))
    experiment.reset(0)
    experiment.initialise()
    before = experiment.evaluate("test").loss
    results = [experiment.fit_epoch(epoch) for epoch in range(experiment.num_epochs)]
    assert experiment.trainer.steps_done == 4 == experiment.total_steps
    assert all(math.isfinite(result.loss) for result in results)
    assert experiment.evaluate("test", tta=cfg.eval.tta).loss != before
    assert results[-1].loss < 2 * math.log(10)


@pytest.mark.parametrize("name", ["dawn94", "ffcv93", "airbench94", "hlb94", "speed94", "speed95", "speed96"])
def test_a_named_record_tells_its_published_figure_and_machine(name):
    head = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\nmodel:")[0]
    published = head.partition("# Published: ")[2]
    assert "%" in published and " s" in published and ("A100" in published or "V100" in published)


@pytest.mark.parametrize("name", [name for name in RACERS if "cpu" not in name])
def test_a_racer_for_gpus_names_its_target(name):
    assert config.load(f"{name}.yaml").eval.target >= 0.925


MUON = ("airbench94", "speed94", "speed95", "speed96", "cpu", "speed90-cpu", "speed94-cpu")


@pytest.mark.parametrize("name", MUON)
def test_decay_and_head_scale_follow_batch_and_width(name):
    cfg = config.load(f"{name}.yaml")
    assert cfg.optim.weight_decay == pytest.approx(2e-6 * cfg.train.batch_size)
    assert cfg.model.head_scale == pytest.approx(1 / cfg.model.stage_widths[-1])
    assert cfg.optim.decay_norms_and_biases and cfg.train.loss_reduction == "sum"


def test_speed96s_lookahead_falls_along_the_run():
    cfg = config.load("speed96.yaml", {**SMALL, "train.epochs": 6})
    lookahead, *rest = Experiment(cfg, splits=splits(64, 32)).averages
    assert isinstance(lookahead, Lookahead) and not rest
    assert (lookahead.steps, lookahead.ramp_steps, lookahead.alpha) == (
        5,
        12,
        pytest.approx(1 - 0.95**5, abs=1e-3),
    )

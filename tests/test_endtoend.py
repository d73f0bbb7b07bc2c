"""endtoend: a short run has every image size in the recipe's proportion, and counts the arithmetic it did."""

import pytest
import torch

from fastresnet.bench.measuring import experiments
from fastresnet.bench.measuring.cases import endtoend
from fastresnet.bench.measuring.context import Context
from fastresnet.models import flops_per_image
from fastresnet.training.experiment import Experiment

# as fast as may be; the sizes are the recipe's
SMALL = {"train.precision": "fp32", "model.stage_widths": [8, 16, 16], "train.compile": "off"}


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(torch.device("cpu"), tiny=True)


def sizes(experiment: Experiment) -> list[int]:
    return [experiment.batch_of(step)[1] for step in range(experiment.total_steps)]


@pytest.mark.parametrize("recipe", ["cpu.yaml", "speed94.yaml"])
def test_a_short_run_has_every_size_in_the_proportion_of_the_whole(context, recipe, monkeypatch):
    monkeypatch.setattr(experiments, "FEWEST_TINY", 20)
    cfg = context.config(recipe, SMALL | {"train.cuda_graph": False, "train.epochs": 60.0})
    with experiments.opened(cfg, context.splits()) as whole:
        full = sizes(whole)
    with experiments.opened(experiments.shortened(context, cfg, 0.0), context.splits()) as short:
        few = sizes(short)
    assert len(few) == 20 < len(full) and len(set(full)) > 1
    for size in set(full):
        assert few.count(size) / len(few) == pytest.approx(full.count(size) / len(full), abs=0.05)


def test_all_sizes_are_trained_on_and_their_flops_counted(context, monkeypatch):
    """One size timed and another counted once made an MFU of 1.07."""
    seen = []
    fit = Experiment.fit_epoch

    def watched(experiment, epoch, **more):
        step = type(experiment.trainer).step

        def note(trainer, images, labels):
            seen.append(images.shape[-1])
            return step(trainer, images, labels)

        with monkeypatch.context() as patch:
            patch.setattr(type(experiment.trainer), "step", note)
            return fit(experiment, epoch, **more)

    monkeypatch.setattr(Experiment, "fit_epoch", watched)
    halves = SMALL | {"train.resolutions": [[0.5, 24], [1.0, 32]]}
    measured = endtoend._runs(context, "cpu.yaml", halves, 0.02)
    assert seen.count(24) == seen.count(32) > 0
    with experiments.opened(context.config("cpu.yaml", halves), context.splits()) as experiment:
        small, large = (3 * flops_per_image(experiment.model, size) for size in (24, 32))
    assert measured.figures["flops_per_image"] == pytest.approx((small + large) / 2)
    expected = measured.figures["flops_per_image"] * measured.figures["images_per_second"]
    assert measured.figures["flops_per_second"] == pytest.approx(expected)


def test_nothing_is_compiled_while_samples_are_taken(context, monkeypatch):
    """What a run must build, loaders' kernels too, is built in the run that is thrown away."""
    order = []
    monkeypatch.setattr(experiments, "warm", lambda experiment: order.append("warm"))
    monkeypatch.setattr(experiments, "train", lambda *_, **__: order.append("train") or 1.0)
    endtoend._runs(context, "cpu.yaml", SMALL, 0.02)
    assert order[0] == "warm" and order.count("warm") == 1 and order.count("train") >= 7


def test_what_determinism_costs_is_measured_in_turn_and_the_switch_put_back(context, monkeypatch):
    seen = []

    def train(experiment):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return (3.0 if seen[-1] else 2.0) * experiment.total_steps

    monkeypatch.setattr(experiments, "train", train)
    measured = endtoend._repeating(context, "cpu.yaml", 0.01)
    assert seen[:4] == [False, True, False, True] and len(seen) == 2 * (len(measured.samples) + 1)
    assert measured.samples[0] == 3.0 and measured.figures == {"usual_step_seconds": 2.0, "cost": 0.5}
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_standard_suite_has_the_cost_of_determinism_and_the_quick_one_has_not():
    for suite, there in (("standard", True), ("quick", False)):
        names = [case.name for case in endtoend.cases(Context(torch.device("cpu"), suite, tiny=True))]
        assert ("deterministic/cpu.yaml" in names) == there

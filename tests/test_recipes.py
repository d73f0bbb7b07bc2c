"""Every shipped recipe loads, says where it comes from, and trains: a few steps on drawn images, made small
by overrides that leave its net's shape, optimizer, schedule and augmentation alone."""

import math

import pytest
import torch
from drawn import splits

from fastresnet import models
from fastresnet.machine import precision
from fastresnet.optim.muon import renormalising
from fastresnet.settings import config
from fastresnet.settings.reading import RECIPES
from fastresnet.training.assembly import Course, new_trainer
from fastresnet.training.experiment import Experiment
from fastresnet.training.selection import Memory, ProxyNet, Selection

RACERS = ("speed90-cpu", "speed94-cpu", "speed95-cpu", "speed96-cpu", "speed94", "speed95", "speed96",
          "dawn94", "ffcv93", "airbench94", "airbench96", "e1-94", "hlb94", "rn18-94", "rn18-96")  # fmt: skip
SMALL = {
    "model.width": 0.125, "train.epochs": 2, "train.batch_size": 32, "train.precision": "fp32",
    "train.compile": "off", "train.cuda_graph": False, "eval.batch_size": 32, "run.device": "cpu",
}  # fmt: skip


@pytest.mark.parametrize("name", RACERS)
def test_a_racer_trains_on_the_synthetic_set(name):
    cfg = config.load(f"{name}.yaml", SMALL)
    experiment = Experiment(cfg, splits=splits(64, 32))
    experiment.reset(0)
    experiment.initialise()
    before = experiment.evaluate("test").loss
    results = [experiment.fit_epoch(epoch) for epoch in range(experiment.num_epochs)]
    assert experiment.trainer.steps_done == experiment.total_steps == 2 * experiment.steps_per_epoch
    assert all(math.isfinite(result.loss) for result in results)
    assert experiment.evaluate("test", tta=cfg.eval.tta).loss != before
    assert results[-1].loss < 2 * math.log(10)


@pytest.mark.parametrize(
    "name", ["dawn94", "ffcv93", "airbench94", "airbench96", "hlb94", "speed94", "speed95", "speed96"]
)
def test_a_named_record_tells_its_published_figure_and_machine(name):
    head = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\nmodel:")[0]
    published = head.partition("# Published: ")[2]
    assert "%" in published and " s" in published and ("A100" in published or "V100" in published)


@pytest.mark.parametrize("name", [name for name in RACERS if "cpu" not in name])
def test_a_racer_for_gpus_names_its_target(name):
    assert config.load(f"{name}.yaml").eval.target >= 0.925


MUON = ("airbench94", "speed94", "speed95", "speed96", "cpu",
        "speed90-cpu", "speed94-cpu", "speed95-cpu", "speed96-cpu")  # fmt: skip


@pytest.mark.parametrize("name", MUON)
def test_decay_and_head_scale_follow_batch_and_width(name):
    cfg = config.load(f"{name}.yaml")
    an_image = 2e-6 if name == "airbench94" else 1.0418e-6
    images = cfg.train.batch_size * cfg.train.hard_fraction  # of a step
    assert cfg.optim.weight_decay == pytest.approx(an_image * images, rel=1e-3)
    assert cfg.model.head_scale == pytest.approx(1 / cfg.model.stage_widths[-1])
    assert cfg.optim.decay_norms_and_biases and cfg.train.loss_reduction == "sum"


def test_rates_and_decay_of_airbench96_are_those_it_gives_for_1024_images():
    """9 and 0.012 a step of so many, shared out by what momentum makes of a constant gradient."""
    optim, batch = config.load("airbench96.yaml").optim, 1024
    grows = 1 + 1 / (1 - optim.momentum)
    assert optim.lr == pytest.approx(9 / batch / grows, rel=1e-4)
    assert optim.lr_bias == pytest.approx(64 * optim.lr, rel=1e-3) and optim.lr_head is None
    assert optim.lr * optim.weight_decay == pytest.approx(0.012 / grows, rel=1e-4)
    assert optim.lookahead_alpha == pytest.approx(1 - 0.95**5, rel=2e-3)


# ---- what a recipe asks for arrives where it acts ----------------------------------------------------------


@pytest.fixture(params=RACERS, scope="module")
def built(request):
    """A racer as it is, but on the CPU, narrow, in small batches of few images: (settings, experiment)."""
    small = {key: value for key, value in SMALL.items() if key != "train.epochs"}
    cfg = config.load(f"{request.param}.yaml", small)
    experiment = Experiment(cfg, splits=splits(352, 32))
    yield cfg, experiment
    experiment.close()


def test_rates_momenta_and_decay_arrive_in_their_groups(built):
    cfg, experiment = built
    optim, muon = cfg.optim, cfg.optim.name == "muon"
    for group in experiment.optimizer.param_groups:
        name = group["name"]
        own = {"filters": None, "head": optim.lr_head}.get(name, optim.lr_bias)
        assert group["base_lr"] == (optim.lr if own is None else own)
        assert group["momentum"] == (optim.bias_momentum if muon and name != "filters" else optim.momentum)
        assert group["nesterov"] == optim.nesterov
        shrink = optim.weight_decay * (1 if muon else optim.lr)
        if name not in ("filters", "head") and not optim.decay_norms_and_biases:
            shrink = 0
        if muon and name == "filters":
            shrink = optim.filter_decay or 0
        assert group["base_lr"] * group["weight_decay"] == pytest.approx(shrink)


def test_muon_renormalises_and_iterates_as_asked(built):
    cfg, experiment = built
    if cfg.optim.name != "muon":
        return
    muon, optim = experiment.optimizer.parts[0], cfg.optim
    assert (muon.steps, list(muon.coefficients)) == (optim.muon_steps, optim.newton_schulz)
    due = renormalising(experiment.total_steps, optim.renormalize_every, optim.renormalize_slower)
    assert True in due and list(muon.renormalize) == due


def test_the_step_smooths_sums_and_freezes_as_asked(built):
    cfg, experiment = built
    trainer, train = experiment.trainer, cfg.train
    assert trainer.options.label_smoothing == train.label_smoothing
    assert trainer.options.loss_reduction == train.loss_reduction
    if cfg.model.arch == "speednet":
        whitening, *late = trainer.freeze
        assert whitening.names == tuple(f"{prefix}whiten.bias" for prefix in models.members(experiment.model))
        assert whitening.from_step == round(train.freeze_whiten_after * experiment.steps_per_epoch)
        from_steps = [round(float(text.split()[1]) * experiment.total_steps) for text in train.freeze_late]
        assert [one.from_step for one in late] == from_steps
    else:
        assert not trainer.freeze
    assert (type(trainer.select) is not Selection) == (train.hard_fraction < 1 or train.epoch_share < 1)
    if isinstance(trainer.select, Memory):
        assert trainer.select.shown == round(train.epoch_share * len(experiment.splits.train))
    elif trainer.select.model is not None:
        assert trainer.select.fraction == train.hard_fraction
        assert isinstance(trainer.select, ProxyNet) == (train.proxy_width > 0)
        assert getattr(trainer.select, "every", 1) == train.proxy_every


def test_averages_arrive_with_their_shares(built):
    cfg, experiment = built
    kinds = {type(average).__name__: average for average in experiment.averages}
    wanted = {
        "Lookahead": cfg.optim.lookahead,
        "Ema": cfg.train.ema_decay,
        "TailAverage": cfg.train.average_tail,
    }
    assert set(kinds) == {name for name, asked in wanted.items() if asked}
    if "Ema" in kinds:
        assert kinds["Ema"].decay == cfg.train.ema_decay
    if "Lookahead" in kinds:
        found, total = kinds["Lookahead"], experiment.total_steps
        assert (found.steps, found.alpha) == (cfg.optim.lookahead, cfg.optim.lookahead_alpha)
        assert found.ramp_steps == (total if cfg.optim.lookahead_ramp else 0)
        assert found.start_step == round(cfg.optim.lookahead_after * total)


def test_the_net_and_its_images_are_as_asked(built):
    cfg, experiment = built
    if cfg.model.arch == "speednet":
        norms = [m for m in experiment.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert norms and {norm.momentum for norm in norms} == {cfg.model.norm_momentum}
        names = {"gelu": torch.nn.GELU, "silu": torch.nn.SiLU}
        first = cfg.model.whiten_activation or cfg.model.activation
        nets = models.members(experiment.model).values()
        assert len(nets) == cfg.model.members
        for net in nets:
            assert net.head_scale == cfg.model.head_scale
            assert isinstance(net.groups[0].act, names[cfg.model.activation])
            assert isinstance(net.act, names[first])
    sizes = [experiment.batch_of(step)[1] for step in range(experiment.total_steps)]
    assert sizes == sorted(sizes) and sizes[-1] == 32
    assert set(sizes) == {int(px) for _, px in cfg.train.resolutions or [[1, 32]]}


def test_e1s_run_is_the_published_one_step_by_step():
    """284 steps of 1,536 images: decay over 272, 24 px for 96, 28 px until 192, an average from 264 on."""
    cfg, device = config.load("e1-94.yaml", {"train.cuda_graph": False}), torch.device("cpu")
    course = Course(284, 32, device, precision.resolve("bf16", device))
    assert round(cfg.train.epochs * (50_000 // cfg.train.batch_size)) == course.total_steps
    model = models.build(cfg.model, 10, 32)
    trainer = new_trainer(cfg.replace({"train.compile": "off"}), model, None, course)
    assert [trainer.rates.factors[0][step] for step in (0, 136, 258, 259, 271, 283)] == pytest.approx(
        [1.0, 0.5, 1 - 258 / 272, 0.05, 0.05, 0.05]
    )
    falling = trainer.rates.factors[[g["name"] for g in trainer.rates.groups].index("whiten_bias")]
    assert falling[:8] == pytest.approx([1 - step / 7 for step in range(7)] + [0.0])
    (lookahead,) = trainer.averages
    assert (lookahead.start_step, lookahead.steps, lookahead.alpha) == (264, 4, pytest.approx(0.3))
    due, published, last = trainer.optimizer.parts[0].renormalize, [], 0
    for step in range(1, 285):
        published.append(step - last >= 2 + int(15 * step / 272))
        last = step if published[-1] else last
    assert list(due) == published
    until = [share * 284 for share, _ in cfg.train.resolutions]
    assert [round(end) for end in until] == [96, 192, 284]
    filters = trainer.optimizer.param_groups[0]
    assert filters["weight_decay"] == pytest.approx(1.0418e-6 * 1536, rel=1e-3)

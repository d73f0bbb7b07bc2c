"""Every setting acts: changing it alone changes what it is about. A setting without its row here fails."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import betons_by_hand
import numpy as np
import observed
import pytest
import torch
from PIL import Image
from test_data import write_betons

from fastresnet.settings import config
from fastresnet.settings.sections import SETTINGS
from fastresnet.sources import SPLITS

NET = {"model.arch": "speednet", "model.stage_widths": [8, 8, 8]}
RESNET = {"model.arch": "resnet", "model.stage_blocks": [1, 1], "model.stage_widths": [8, 16]}
CIFAR_FAMILY = {"model.arch": "resnet", "model.depth": 20, "model.width": 0.5}
MUON = {"optim.name": "muon", "optim.lr": 0.1, "optim.lr_bias": 0.05, "optim.lr_head": 0.2}
ADAM = {"optim.name": "adam", "optim.lr": 0.01}
LOOKAHEAD = {"optim.lookahead": 2}
DECAY = {"optim.weight_decay": 0.1}
CYCLE = {"schedule.momentum_low": 0.8, "schedule.momentum_high": 0.95}
PIECES = {"schedule.name": "piecewise", "schedule.points": [[0, 0.5], [1, 1]]}
TTA = {"eval.tta": "flip"}
STARTED = {"model.pretrained": "{weights}"}
SMALL = {
    **NET, "train.batch_size": 8, "train.epochs": 2, "train.precision": "fp32", "train.crop_padding_px": 2,
    "schedule.warmup_fraction": 0.5, "data.workers": 1, "eval.batch_size": 100, "run.device": "cpu",
    "run.threads": 1, "run.progress": "off", "run.report": False, "run.save_checkpoints": False,
    "run.dir": "{folder}",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What a setting is changed to, and where that shows. Texts may name a place of `places`: "{pictures}".

    value:   of the setting
    look:    what is compared
    beside:  settings beside which it acts
    needs:   a package that may not be installed
    """

    value: Any
    look: Callable[[config.Config], Any]
    beside: dict[str, Any] = field(default_factory=dict)
    needs: str = ""


data, stored, streamed = observed.prepared, observed.stored, observed.streamed
weights, averaged, batches, rates = observed.weights, observed.averaged, observed.batches, observed.rates
machinery, beginning, run = observed.machinery, observed.beginning, observed.run
PICTURES = {"data.source": "imagefolder", "data.root": "{pictures}", "data.betons": "{nothing}"}
DRAWN = {"data.source": "synthetic", "data.synthetic_train": 24, "data.synthetic_test": 10,
         "data.synthetic_size": 16, "data.betons": "{nothing}"}  # fmt: skip
BY_NAME = {"data.source": "auto", "data.name": "cifar100", "data.betons": "{betons}"}
GIVEN = {"data.train": "{betons}/cifar100/train.beton", "data.test": "{betons}/cifar100/test.beton"}

TABLE: dict[str, Row] = {
    "data.source": Row("synthetic", data, PICTURES),
    "data.root": Row("{others}", data, PICTURES),
    "data.name": Row("svhn", data, BY_NAME),
    "data.train": Row("{betons}/svhn/train.beton", data, GIVEN),
    "data.test": Row("{betons}/svhn/test.beton", data, GIVEN),
    "data.label_field": Row("other", data, {"data.train": "{fields}", "data.test": "{fields}"}),
    "data.betons": Row("{more_betons}", data, BY_NAME),
    "data.loader": Row("torchvision", machinery, {"data.loader": "resident"}, "torchvision"),
    "data.subset": Row(0.5, data, DRAWN),
    "data.test_fraction": Row(0.5, data, {**PICTURES, "data.root": "{flat}"}),
    "data.val_fraction": Row(0.25, data, DRAWN),
    "data.allow_synthetic": Row(True, data, {**DRAWN, "data.source": "auto"}, "torchvision"),
    "data.synthetic_train": Row(20, data, DRAWN),
    "data.synthetic_test": Row(12, data, DRAWN),
    "data.synthetic_size": Row(24, data, DRAWN),
    "data.write_mode": Row("jpg", stored, DRAWN),
    "data.jpeg_quality": Row(20, stored, {**DRAWN, "data.write_mode": "jpg"}),
    "data.workers": Row(2, machinery, {"data.loader": "torchvision"}, "torchvision"),
    "data.on_error": Row("skip", data, {**PICTURES, "data.root": "{spoilt}"}),
    "data.order": Row("sequential", streamed, {**GIVEN, "data.loader": "ffcv"}, "ffcv"),
    "data.kernel": Row("reference", machinery, {"data.kernel": "rows"}),
    "data.image_size": Row(12, data, {**PICTURES, "data.root": "{uneven}"}),
    "model.arch": Row("resnet9", weights),
    "model.depth": Row(32, weights, CIFAR_FAMILY),
    "model.members": Row(2, weights),
    "model.width": Row(2.0, weights),
    "model.stem": Row("imagenet", weights, RESNET),
    "model.block": Row("preactivation", weights, RESNET),
    "model.shortcut": Row("projection", weights, CIFAR_FAMILY),
    "model.stage_blocks": Row([1, 2], weights, RESNET),
    "model.stage_widths": Row([8, 16, 8], weights),
    "model.convs_per_block": Row(3, weights),
    "model.zero_init_last_norm": Row(False, weights, RESNET),
    "model.activation": Row("silu", weights),
    "model.whiten_activation": Row("silu", weights),
    "model.pretrained": Row("{weights}", weights),
    "model.freeze": Row(["groups.0"], weights, STARTED),
    "model.whiten": Row(False, weights),
    "model.whiten_channels": Row(32, observed.shapes),
    "model.residual": Row(True, weights),
    "model.head_scale": Row(0.5, weights),
    "model.head_std": Row(0.3, weights),
    "model.norm_momentum": Row(0.9, weights),
    "model.dirac_init": Row(False, weights),
    "optim.name": Row("adamw", weights),
    "optim.lr": Row(0.2, weights),
    "optim.lr_scaling": Row("linear", rates, {"optim.lr_base_batch": 4}),
    "optim.lr_base_batch": Row(16, rates, {"optim.lr_scaling": "linear", "optim.lr_base_batch": 4}),
    "optim.momentum": Row(0.5, weights),
    "optim.nesterov": Row(False, weights),
    "optim.beta1": Row(0.5, weights, ADAM),
    "optim.beta2": Row(0.9, weights, ADAM),
    "optim.eps": Row(0.1, weights, ADAM),
    "optim.weight_decay": Row(0.1, weights),
    "optim.decoupled": Row(True, weights, DECAY),
    "optim.decay_norms_and_biases": Row(True, weights, DECAY),
    "optim.layer_decay": Row(0.5, weights),
    "optim.lr_bias": Row(0.5, weights),
    "optim.lr_head": Row(0.5, weights),
    "optim.bias_momentum": Row(0.2, weights, MUON),
    "optim.muon_steps": Row(5, weights, MUON),
    "optim.renormalize_every": Row(2, weights, MUON),
    "optim.renormalize_slower": Row(9.0, weights, MUON),
    "optim.newton_schulz": Row([3.0, -3.0, 1.0], weights, MUON),
    "optim.filter_decay": Row(0.2, weights, MUON),
    "optim.lookahead": Row(2, weights),
    "optim.lookahead_alpha": Row(0.2, weights, LOOKAHEAD),
    "optim.lookahead_ramp": Row(True, weights, LOOKAHEAD),
    "optim.lookahead_after": Row(0.25, weights, LOOKAHEAD),
    "schedule.name": Row("linear", rates),
    "schedule.warmup_fraction": Row(0.2, rates),
    "schedule.initial_factor": Row(0.5, rates),
    "schedule.final_factor": Row(0.5, rates),
    "schedule.floor_factor": Row(0.7, rates),
    "schedule.tail_fraction": Row(0.5, rates),
    "schedule.momentum_low": Row(0.7, rates, CYCLE),
    "schedule.momentum_high": Row(0.9, rates, CYCLE),
    "schedule.points": Row([[0, 1], [1, 0.5]], rates, PIECES),
    "schedule.anneal": Row("linear", rates),
    "train.epochs": Row(3, rates),
    "train.max_steps": Row(3, run),
    "train.batch_size": Row(10, batches),
    "train.precision": Row("bf16", weights),
    "train.compile": Row("max-autotune", observed.compiled),
    "train.cuda_graph": Row(True, beginning),
    "train.channels_last": Row(False, observed.layout),
    "train.label_smoothing": Row(0.2, weights),
    "train.loss_reduction": Row("sum", weights),
    "train.clip_norm": Row(0.01, weights),
    "train.cpu_kernels": Row("off", observed.own_kernels),
    "train.sync_batch_norm": Row(True, observed.kinds),
    "train.accumulate": Row(2, weights),
    "train.ema_decay": Row(0.5, averaged),
    "train.average_tail": Row(0.9, averaged),
    "train.drop_last": Row(False, batches, {"train.batch_size": 16}),
    "train.crop_padding_px": Row(3, batches),
    "train.crop_mode": Row("zero", batches),
    "train.flip": Row("alternating", batches),
    "train.cutout_px": Row(6, batches),
    "train.brightness": Row(0.2, batches),
    "train.contrast": Row(0.2, batches),
    "train.extras": Row(["grayscale 0.9"], batches),
    "train.resolutions": Row([[0.3, 12], [1, 16]], batches),
    "train.freeze_epochs": Row(0.4, weights, {**STARTED, "model.freeze": ["trunk"]}),
    "train.freeze_whiten_after": Row(0.2, weights),
    "train.freeze_late": Row(["groups.0 0"], weights),
    "train.epoch_share": Row(0.5, weights),
    "train.hard_fraction": Row(0.5, weights),
    "train.proxy_width": Row(0.5, weights, {"train.hard_fraction": 0.5}),
    "train.proxy_every": Row(2, weights, {"train.hard_fraction": 0.5, "train.proxy_width": 0.5}),
    "train.checkpoint_every": Row("2 steps", run, {"run.save_checkpoints": True}),
    "eval.batch_size": Row(50, machinery),
    "eval.tta": Row("flip", run),
    "eval.tta_share": Row(0.25, observed.tta_logits, TTA),
    "eval.every": Row(0, run),
    "eval.best_on": Row("test", run),
    "eval.target": Row(0.5, observed.judged),
    "run.seed": Row(1, run),
    "run.device": Row("cuda", beginning),
    "run.dir": Row("{elsewhere}", run),
    "run.resume": Row("{stopped}", run),
    "run.loggers": Row(["tensorboard"], run, {}, "tensorboard"),
    "run.deterministic": Row(True, run),
    "run.hang_after": Row(0, observed.watched),
    "run.threads": Row(2, machinery),
    "run.save_checkpoints": Row(True, run),
    "run.report": Row(True, run),
    "run.progress": Row("plain", run),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Callable[[str], str]:
    """A text with its places filled in: made once; `folder`, `nothing` and `elsewhere` are new each time."""
    root = tmp_path_factory.mktemp("places")
    random = np.random.default_rng(0)

    def pictures(name: str, sizes: tuple[int, ...] = (8,), spoilt: bool = False, splits=SPLITS) -> None:
        for split in splits:
            for number in range(6):
                path = root / name / split / "ab"[number % 2] / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                side = sizes[number % len(sizes)]
                Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
        if spoilt:
            path.with_name("broken.png").write_bytes(b"no picture")

    pictures("pictures")
    pictures("others")
    pictures("uneven", sizes=(16, 20, 24))
    pictures("spoilt", spoilt=True)
    pictures("flat", splits=(".",))
    for folder in ("betons", "more_betons"):
        for name in ("cifar100", "svhn"):
            images = {split: (random.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8), np.arange(n) % 4)
                      for split, n in (("train", 12), ("test", 8))}  # fmt: skip
            write_betons(root / folder / name, images, name=name)
    betons_by_hand.with_fields(root / "fields", [(1, b"label", [0, 1, 2]), (1, b"other", [2, 1, 0])])
    started = observed.experiment(settings({"run.seed": 5}, lambda text: text))
    with started as one:
        torch.save(one.model.state_dict(), root / "weights.pt")
    made = {
        name: str(root / name)
        for name in ("pictures", "others", "uneven", "spoilt", "flat", "betons", "more_betons", "fields")
    }
    made["weights"] = str(root / "weights.pt")

    def fill(text: str) -> str:
        new = {name: str(tmp_path_factory.mktemp("new") / name)
               for name in ("folder", "nothing", "elsewhere") if f"{{{name}}}" in text}  # fmt: skip
        return text.format(**made, **new)

    observed.run(settings({"run.dir": str(root / "stopped"), "train.max_steps": 3,
                           "run.save_checkpoints": True}, fill))  # fmt: skip
    made["stopped"] = str(root / "stopped")
    return fill


def settings(changes: dict[str, Any], fill: Callable[[str], str]) -> config.Config:
    """The small configuration with these changes; places are filled in."""
    given = {**SMALL, **changes}
    return config.load(None, {key: fill(v) if isinstance(v, str) else v for key, v in given.items()})


@pytest.fixture(scope="module")
def seen(places) -> Callable[..., Any]:
    """`seen(look, changes)`: what `look` sees of the small configuration with these changes; kept."""
    kept: dict[str, Any] = {}

    def see(look: Callable[[config.Config], Any], changes: dict[str, Any], again: bool = False) -> Any:
        key = f"{look.__name__} {sorted(changes.items())}"
        if again or key not in kept:
            kept[key] = look(settings(changes, places))
        return kept[key]

    return see


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder without FASTRESNET_DATA: no data is found by chance."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTRESNET_DATA", raising=False)


def test_every_setting_has_its_row():
    assert set(TABLE) == set(SETTINGS), "a new setting needs a row: what does changing it change?"


@pytest.mark.parametrize("key", TABLE)
def test_a_setting_changed_alone_changes_what_it_is_about(key, seen):
    row = TABLE[key]
    if row.needs:
        pytest.importorskip(row.needs, reason=f"needs {row.needs}, which isn't installed")
    before = seen(row.look, row.beside)
    after = seen(row.look, {**row.beside, key: row.value})
    acts = not observed.same(before, after)
    assert acts, f"{row.look.__name__} doesn't notice {key}={row.value!r}"


LOOKS = {row.look.__name__: row for row in TABLE.values()}


@pytest.mark.parametrize("name", LOOKS)
def test_an_observation_repeats_itself_so_that_a_change_means_something(name, seen):
    row = LOOKS[name]
    if row.needs:
        pytest.importorskip(row.needs, reason=f"needs {row.needs}, which isn't installed")
    assert observed.same(seen(row.look, row.beside), seen(row.look, row.beside, again=True))

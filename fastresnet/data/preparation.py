"""From settings to splits: what is found is read, checked against each other, and cut. Trains nothing.

Where images came from is in `info`, for the record. Synthetic ones never stand in for real ones unasked.
"""

from __future__ import annotations

import sys

import torch

from fastresnet import sources
from fastresnet.beton import Facts
from fastresnet.data.conversion import Notes
from fastresnet.data.cutting import cut, subset_facts
from fastresnet.data.finding import find
from fastresnet.data.reading import Found, Wanted
from fastresnet.data.splits import Info, Splits, rgb
from fastresnet.settings.config import Config
from fastresnet.settings.keys import DEFAULT
from fastresnet.settings.sections import Data
from fastresnet.sources import SourceError

BANNER = """\
***************************************************************************
*  SYNTHETIC DATA: these are drawn shapes, not the data set named in the  *
*  settings. Accuracies on them say nothing about CIFAR-10.               *
***************************************************************************"""


def prepare(cfg: Config, progress: Notes | None = None) -> Splits:
    """The data that `cfg.data` describes, converted to betons first where there are none yet.

    progress is called with one line for each choice and step. ValueError (SourceError, BetonError) where
    data is missing or wrong.
    """
    notes = progress or (lambda line: None)
    stored = ("write_mode", "jpeg_quality")
    asked = frozenset(key for key in stored if cfg.provenance[f"data.{key}"] != DEFAULT)
    found = find(Wanted(cfg.data, asked, _decoding_device(cfg), notes))
    if found["train"].facts["synthetic"]:
        print(BANNER, file=sys.stderr, flush=True)
    _tell_how_drawn(cfg, found["train"].facts, notes)
    return cut_up(found, cfg.data.subset, cfg.data.val_fraction, notes)


def cut_up(found: Found, subset: float | None, val_fraction: float, notes: Notes) -> Splits:
    """Splits of what was found, after data.subset and data.val_fraction. SourceError where sets disagree."""
    class_names = _check_agree(found)
    train, val = cut(found["train"].split, subset, val_fraction)
    facts = subset_facts(found["train"], subset)
    info = _info(found, facts, len(class_names))
    info |= {"train_size": len(train), "val_size": len(val) if val else 0}
    sizes = f"{len(train)} training{f', {len(val)} validation' if val else ''}"
    notes(f"data: {facts['name']} ({facts['source']}), {sizes} and {info['test_size']} test images")
    mean, std = rgb(facts["mean"]), rgb(facts["std"])
    return Splits(train, val, found["test"].split, mean, std, class_names, info)


def _decoding_device(cfg: Config) -> torch.device | None:
    """The GPU, where the run may use one; None: JPEGs are decoded by CPU threads."""
    return torch.device("cuda") if cfg.run.device != "cpu" and torch.cuda.is_available() else None


def _info(found: Found, train: Facts, classes: int) -> Info:
    """What the record says of the data. The digests are those of what was read; see `Facts`."""
    whole, test = found["train"].split, found["test"].facts
    info: Info = {
        "name": train["name"],
        "digest": train["stored_digest"],
        "source_digest": train["digest"],
        "test_digest": test["stored_digest"],
        "checked": found["train"].checked,
        "synthetic": train["synthetic"],
        "source": train["source"],
        "beton": whole.path is not None,
        "write_mode": train.get("mode"),
        "jpeg_quality": train.get("quality") if train.get("mode") != "raw" else None,
        "test_size": len(found["test"].split),
        "full_train_size": len(whole),
        "classes": classes,
        "image_shape": list(whole.image_shape),
        "decoder": whole.decoder,
        "counted": train["counted"],
    }
    return {**info, "test_drawn": train["test_drawn"]} if "test_drawn" in train else info


def _tell_how_drawn(cfg: Config, facts: Facts, notes: Notes) -> None:
    """Say how a test set was drawn; SourceError where data.test_fraction was set and none was."""
    drawn = facts.get("test_drawn")
    if drawn:
        twice = f"{drawn['duplicates']:g} of them are in training too, byte for byte"
        notes(f"a folder of classes: {100 * drawn['fraction']:g} % of each class are the test set; {twice}")
    elif cfg.data.test_fraction != Data().test_fraction:
        raise SourceError("data.test_fraction cuts a folder of classes; this data has a test set of its own")


def _check_agree(found: Found) -> tuple[str, ...]:
    """The class names of both sets, which must agree, as must the labels; real and synthetic don't mix."""
    train, test = found["train"].facts, found["test"].facts
    if train["synthetic"] != test["synthetic"]:
        raise SourceError("one of training and test set is synthetic, the other is not")
    names = sources.shared_class_names(train["class_names"], test["class_names"])
    for name, part in found.items():
        sources.check_labels(f"{name} set", part.split.labels, len(names))
    return names

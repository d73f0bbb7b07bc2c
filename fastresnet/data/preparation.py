"""From settings to splits: what is found is read, checked against each other, and cut. Trains nothing.

Where the images came from is in `info`, for the record. Synthetic images never stand in for real ones unasked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch

from fastresnet import sources
from fastresnet.data import finding
from fastresnet.data.conversion import Notes
from fastresnet.data.cutting import cut
from fastresnet.data.reading import Found, Wanted
from fastresnet.data.splits import Splits
from fastresnet.sources import SourceError

BANNER = """\
**************************************************************************
*  SYNTHETIC DATA: these are drawn shapes, not the data set named in the  *
*  settings. Accuracies on them say nothing about CIFAR-10.               *
**************************************************************************"""


def prepare(cfg: Any, progress: Notes | None = None) -> Splits:
    """The data that `cfg.data` describes, converted to betons first where there are none yet.

    progress is called with one line for each choice and step. ValueError (SourceError, BetonError) where
    data is missing or wrong.
    """
    notes = progress or (lambda line: None)
    asked = {key for key in ("write_mode", "jpeg_quality") if _is_set(cfg, f"data.{key}")}
    found = finding.find(Wanted(cfg.data, frozenset(asked), _decoding_device(cfg), notes))
    if found["train"].facts["synthetic"]:
        print(BANNER, file=sys.stderr, flush=True)
    class_names = _check_agree(found)
    train, val = cut(found["train"].split, cfg.data.subset, cfg.data.val_fraction)
    facts = found["train"].facts
    splits = Splits(
        train, val, found["test"].split, _triple(facts["mean"]), _triple(facts["std"]), class_names, {}
    )
    splits.info.update(_info(found, splits))
    held = f", {len(val)} validation" if val else ""
    sizes = f"{len(train)} training{held} and {len(splits.test)} test images"
    notes(f"data: {facts['name']} ({facts['source']}), {sizes}")
    return splits


def _is_set(cfg: Any, key: str) -> bool:
    """Whether somebody asked for this setting's value."""
    return bool(cfg.provenance.get(key, "default") != "default")


def _decoding_device(cfg: Any) -> torch.device | None:
    """The GPU, where the run may use one; None: JPEGs are decoded by CPU threads."""
    return torch.device("cuda") if cfg.run.device != "cpu" and torch.cuda.is_available() else None


def _info(found: Found, splits: Splits) -> dict[str, Any]:
    """What the record says of the data."""
    train, whole = found["train"].facts, found["train"].split
    return {
        "name": train["name"],
        "digest": train["digest"],
        "test_digest": found["test"].facts["digest"],
        "synthetic": train["synthetic"],
        "source": train["source"],
        "beton": whole.path is not None,
        "train_size": len(splits.train),
        "val_size": len(splits.val) if splits.val else 0,
        "test_size": len(splits.test),
        "full_train_size": len(whole),
        "classes": len(splits.class_names),
        "image_shape": list(splits.train.image_shape),
        "decoder": whole.decoder,
    }


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _check_agree(found: Found) -> tuple[str, ...]:
    """The class names of both sets, which must agree, as must the labels; real and synthetic don't mix."""
    train, test = found["train"].facts, found["test"].facts
    if train["synthetic"] != test["synthetic"]:
        raise SourceError("one of training and test set is synthetic, the other is not")
    names = sources.shared_class_names(train["class_names"], test["class_names"])
    for name, part in found.items():
        sources.check_labels(f"{name} set", part.split.labels, len(names))
    return names

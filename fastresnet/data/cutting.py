"""Parts of a set, the classes in proportion: a subset, which is another data set, and a validation split."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from fastresnet import beton
from fastresnet.base.digest import Labels, content_digest
from fastresnet.base.pictures import Pixels
from fastresnet.beton import Facts, Layout
from fastresnet.data.conversion import statistics
from fastresnet.data.reading import Part
from fastresnet.data.splits import Indices, Split
from fastresnet.sources import SourceError

SPLIT_SEED = 0  # the same images whatever run.seed is, so that runs compare
COUNTED = 1000  # images of a streamed part at most that its mean and deviation are counted over


def cut(whole: Split, subset: float | None, val_fraction: float) -> tuple[Split, Split | None]:
    """The training split after data.subset, and the validation split held out of it."""
    kept = whole if subset is None else whole.take(stratified_subset(whole.labels, subset, SPLIT_SEED))
    if not val_fraction:
        return kept, None
    train, held = split_validation(kept.labels, val_fraction, SPLIT_SEED)
    if not len(train):
        raise SourceError(
            f"data.val_fraction={val_fraction:g} of {len(kept)} images leaves none for training"
        )
    return kept.take(train), kept.take(held)


def subset_facts(whole: Part, subset: float | None) -> Facts:
    """What is known of the training set after data.subset: a part has its own name, digest and statistics.

    Those of a streamed part are counted over COUNTED of its images at most, evenly spread.
    """
    if subset is None:
        return {**whole.facts, "counted": whole.facts["count"]}
    part = whole.split.take(stratified_subset(whole.split.labels, subset, SPLIT_SEED))
    facts: Facts = {**whole.facts, "name": f"{whole.facts['name']}-{len(part)}", "count": len(part)}
    facts["digest"] = facts["stored_digest"] = _digest_of(part, whole.layout)
    counted = np.arange(0, len(part), 1 if part.images is not None else -(-len(part) // COUNTED))
    mean, std = statistics(part.images if part.images is not None else _some(part, counted, whole.layout))
    return {**facts, "mean": list(mean), "std": list(std), "counted": len(counted)}


def _some(part: Split, places: Indices, layout: Layout | None) -> Iterator[Pixels]:
    """Images of a streamed part, one by one; the stream will tell of one that can't be decoded."""
    assert layout is not None and part.indices is not None
    for sample in part.indices[places].tolist():
        with suppress(beton.BetonError):
            yield beton.read_one(layout, sample)


def _digest_of(part: Split, layout: Layout | None) -> str:
    """The digest of a split: of what its beton stores, or of the pixels where there is none."""
    if layout is not None:
        return beton.stored_digest(layout, part.indices)
    assert part.images is not None
    return content_digest(part.images, part.labels)


def stratified_subset(labels: Labels, count_or_share: float, seed: int) -> Indices:
    """Sorted indices of a seeded subset: a count (1 or more) or a share (below 1), classes in proportion.

    The exact number asked for comes back: places left over by rounding go to the classes with the largest
    remainders.
    """
    wanted = _number(count_or_share, len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    share = counts * wanted / len(labels)
    take = np.floor(share).astype(int)
    rng = np.random.default_rng([seed, 2])
    leftover = np.lexsort((rng.permutation(len(classes)), take - share))[: wanted - take.sum()]
    take[leftover] += 1
    drawn = [rng.permutation(np.flatnonzero(labels == k))[:n] for k, n in zip(classes, take, strict=True)]
    return np.sort(np.concatenate(drawn))


def _number(count_or_share: float, total: int) -> int:
    """How many images of `total` are meant; SourceError where it can't be so many."""
    wanted = round(count_or_share * total) if count_or_share < 1 else int(count_or_share)
    if count_or_share >= 1 and count_or_share != wanted:
        raise SourceError(f"data.subset must be a whole count or a share below 1, got {count_or_share}")
    if not 1 <= wanted <= total:
        raise SourceError(f"data.subset={count_or_share:g} asks for {wanted} images, the set has {total}")
    return wanted


def split_validation(labels: Labels, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """(training indices, validation indices), sorted, disjoint, together everything; stratified, seeded."""
    everything = np.arange(len(labels))
    if fraction == 0:
        return everything, everything[:0]
    held = stratified_subset(labels, max(1, round(fraction * len(labels))), seed)
    return np.setdiff1d(everything, held, assume_unique=True), held

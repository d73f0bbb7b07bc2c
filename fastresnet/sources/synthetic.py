"""Drawn images: ten kinds of shape and texture, learnable but not by colour or position. Reads nothing.

Every image has its own place, size, turn, two colours, light gradient, clutter and noise, so that a linear
model stays poor while a small convolutional net learns the classes. Drawn only when asked for.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastresnet.base.digest import Labels
from fastresnet.base.pictures import Pixels
from fastresnet.sources.image_set import ImageSet
from fastresnet.sources.request import Origin, Request, Source

Plane = NDArray[np.float32 | np.float64]

CLASS_NAMES = tuple("disc square triangle cross ring stripes checker flower crescent wave".split())
_CHUNK = 512  # images drawn at once: keeps the temporaries near 50 MB at 32 px
_SPLITS = {"train": 0, "test": 1}


def read(request: Request, split: str) -> ImageSet:
    """The drawn set of a request; SourceError where it would need more memory than it may take."""
    count, size = request.counts[split], request.size
    request.check_memory(f"data.synthetic_{split}={count}", count * size * size * 3)
    images, labels = draw(split, count, size, request.seed)
    return ImageSet(images, labels, CLASS_NAMES, f"synthetic-{size}px", split, "synthetic", True)


def _origin(request: Request) -> Origin:
    return {**request.counts, "size": request.size}


def draw(split: str, count: int, size: int = 32, seed: int = 0) -> tuple[Pixels, Labels]:
    """Images uint8 (count, size, size, 3) and labels int64 (count,), as many of each class as can be.

    The same arguments give the same bytes; train and test share no random stream.
    """
    if split not in _SPLITS:
        raise ValueError(f"synthetic: split must be train or test, got {split!r}")
    if count < 1 or size < 8:
        raise ValueError(f"synthetic: needs at least 1 image of at least 8 px, got {count} of {size} px")
    rng = np.random.default_rng([seed, _SPLITS[split]])
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASS_NAMES))
    images = np.empty((count, size, size, 3), np.uint8)
    for start in range(0, count, _CHUNK):
        chunk = labels[start : start + _CHUNK]
        images[start : start + len(chunk)] = _paint(chunk, size, rng)
    return images, labels


def _paint(labels: Labels, size: int, rng: np.random.Generator) -> Pixels:
    """One chunk of images (n, size, size, 3) uint8: shape over clutter, lit unevenly, with noise."""
    n = len(labels)
    y, x = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2, indexing="ij")

    def random(low: float, high: float, *shape: int) -> Plane:
        return rng.uniform(low, high, (n, *shape)).astype(np.float32).reshape(n, *(shape or (1, 1)))

    turn, scale = random(-0.6, 0.6), random(0.35, 0.75)
    dx, dy = x - random(-0.35, 0.35), y - random(-0.35, 0.35)
    u = (np.cos(turn) * dx + np.sin(turn) * dy) / scale
    v = (np.cos(turn) * dy - np.sin(turn) * dx) / scale
    distance = np.empty((n, size, size), np.float32)
    for label, outline in enumerate(_OUTLINES):
        here = labels == label
        distance[here] = outline(u[here], v[here])
    softness = 3.0 / (size * scale)  # about three pixels from inside to outside
    mask = np.clip(0.5 - distance / softness, 0, 1)[..., None]

    back, front = random(0.1, 0.9, 1, 1, 3), random(0.1, 0.9, 1, 1, 3)
    alike = np.abs(front - back).max(axis=-1, keepdims=True) < 0.3
    front = np.where(alike, 1 - back * 0.5 - 0.5 * (back > 0.5), front)  # the opposite colour can be seen
    angle, frequency = random(0, 2 * np.pi), random(2, 7)
    clutter = np.sin((np.cos(angle) * x + np.sin(angle) * y) * frequency + random(0, 2 * np.pi))
    image = back + (front - back) * mask + random(0, 0.12)[..., None] * clutter[..., None]
    image *= 1 + random(-0.3, 0.3)[..., None] * x[..., None] + random(-0.3, 0.3)[..., None] * y[..., None]
    image += rng.standard_normal(image.shape, dtype=np.float32) * 0.08
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


# Signed distances in the shape's own coordinates: negative inside, about 1 unit from centre to rim.
def _triangle(u: Plane, v: Plane) -> Plane:
    return np.maximum(0.866 * np.abs(u) + 0.5 * v, -v) - 0.5


def _cross(u: Plane, v: Plane) -> Plane:
    along, across = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    outline: Plane = np.maximum(along - 1, across - 0.3)
    return outline


_OUTLINES: tuple[Callable[[Plane, Plane], Plane], ...] = (
    lambda u, v: np.hypot(u, v) - 0.85,
    lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.8,
    _triangle,
    _cross,
    lambda u, v: np.abs(np.hypot(u, v) - 0.75) - 0.2,
    lambda u, v: np.maximum(np.sin(6 * u) * 0.17, np.hypot(u, v) - 1.1),
    lambda u, v: np.maximum(np.sin(5 * u) * np.sin(5 * v) * 0.2, np.hypot(u, v) - 1.1),
    lambda u, v: np.maximum(0.35 - np.hypot(np.sin(3 * u), np.sin(3 * v)) * 0.5, np.hypot(u, v) - 1.1),
    lambda u, v: np.maximum(np.hypot(u, v) - 0.9, 0.75 - np.hypot(u - 0.45, v)),
    lambda u, v: np.maximum(np.abs(v - 0.35 * np.sin(4 * u)) - 0.2, np.abs(u) - 1.1),
)

SOURCE = Source(read, origin=_origin)

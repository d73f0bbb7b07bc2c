"""The look of a page: one self-contained HTML file, light and dark, readable on a phone. Knows no runs.

HTML is Jinja2's work, which torch brings along: templates lie in `assets`, and all that they are given is
escaped. Colours are Okabe and Ito's, darkened or brightened until they can be read on their background.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fastresnet.base import words

if TYPE_CHECKING:
    from PIL import Image

HOME = "fastresnet.reports"
LARGEST_PICTURE = 160  # px of the longer side; a photograph is shown smaller
SMALL_PICTURE = 64  # px up to which a picture's pixels are kept as they are
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)  # blue and vermilion, seen on a light and on a dark background


@cache
def _environment(room: str) -> Environment:
    loader = ChoiceLoader([PackageLoader(name, "assets") for name in dict.fromkeys((room, HOME))])
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(percent=words.percent, duration=words.duration, picture=picture)
    return made


def render(template: str, values: Mapping[str, object], room: str = HOME) -> Markup:
    """A template of a room's `assets`, or of this one's, filled in. What isn't Markup is escaped."""
    return Markup(_environment(room).get_template(template).render(values))


def picture(image_HWC: np.ndarray) -> str:
    """A uint8 (H, W, 3) image as a data URI: small ones to the pixel, photographs as small JPEGs."""
    from PIL import Image

    image = Image.fromarray(image_HWC)
    image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    return _data_uri(image, "png" if max(image.size) <= SMALL_PICTURE else "jpeg")


def heat(shades_KK: np.ndarray) -> str:
    """A confusion matrix as a picture, a pixel a cell, the background clear; a data URI.

    shades_KK:  of `shades`; mistakes by the root of theirs, or single ones could not be seen
    """
    from PIL import Image

    right = np.eye(len(shades_KK), dtype=bool)
    colour = np.where(right[..., None], RIGHT, WRONG)
    alpha = 255 * np.where(right, 0.2 + 0.8 * shades_KK, np.sqrt(shades_KK))
    return _data_uri(Image.fromarray(np.dstack([colour, alpha]).astype(np.uint8)), "png")


def _data_uri(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def shades(counts_KK: np.ndarray) -> np.ndarray:
    """How dark each cell of a confusion matrix is, 0..1: right answers and mistakes each by their largest."""
    shares = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(counts_KK), dtype=bool)
    low, high = float(shares[right].min()), float(shares[right].max())
    most = max(float(shares[~right].max(initial=0.0)), 1e-12)
    return np.where(right, (shares - low) / max(high - low, 1e-12), shares / most)

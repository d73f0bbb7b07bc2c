"""Random choices are drawn for a whole epoch, then one kernel applies them to a batch.

Refuses to know files, models and loaders.
"""

from fastresnet.augment.choices import Augment, Choices, draw, from_settings, no_choices, order
from fastresnet.augment.dispatch import apply, kernel_for, mixed, stored_for

__all__ = [
    "Augment",
    "Choices",
    "apply",
    "draw",
    "from_settings",
    "kernel_for",
    "mixed",
    "no_choices",
    "order",
    "stored_for",
]

"""Random choices are drawn for a whole epoch, then one kernel applies them to a batch.

Refuses to know files, models and loaders.
"""

from fastresnet.augment.dispatch import apply, draw, generator, kernel_for, no_choices, order
from fastresnet.augment.kernels import Augment, Choices

__all__ = ["Augment", "Choices", "apply", "draw", "generator", "kernel_for", "no_choices", "order"]

"""From settings to splits: betons found or made, read, cut into training, validation and test set.

Refuses to augment, to make batches and to train.
"""

from fastresnet.data.conversion import convert
from fastresnet.data.preparation import prepare
from fastresnet.data.reading import Pictures
from fastresnet.data.splits import Info, Split, Splits

__all__ = ["Info", "Pictures", "Split", "Splits", "convert", "prepare"]

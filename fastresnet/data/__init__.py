"""From settings to splits: betons found or made, read, cut into training, validation and test set.

Refuses to augment, to make batches and to train.
"""

from fastresnet.data.preparation import Split, Splits, prepare

__all__ = ["Split", "Splits", "prepare"]

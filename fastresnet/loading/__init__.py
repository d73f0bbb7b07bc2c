"""Finished batches, whoever makes them: from memory, streamed from a beton, or by torchvision; one interface.

Refuses to know models and training.
"""

from fastresnet.loading.choice import build, choose
from fastresnet.loading.interface import Batch, Batching, Loader

__all__ = ["Batch", "Batching", "Loader", "build", "choose"]

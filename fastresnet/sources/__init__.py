"""Where images come from: files, downloads or drawings, each as one checked set of pixels and labels.

Refuses to know betons, settings and training.
"""

from fastresnet.sources.choosing import detect, load, origin, resolve_auto
from fastresnet.sources.image_set import (
    SPLITS,
    FolderSet,
    ImageSet,
    SourceError,
    check_labels,
    numbered,
    shared_class_names,
)
from fastresnet.sources.known import CIFAR10_CLASSES, CIFAR10_DIGESTS, COUNTS, LOOKALIKE
from fastresnet.sources.request import Request, Source

__all__ = [
    "CIFAR10_CLASSES",
    "CIFAR10_DIGESTS",
    "COUNTS",
    "LOOKALIKE",
    "SPLITS",
    "FolderSet",
    "ImageSet",
    "Request",
    "Source",
    "SourceError",
    "check_labels",
    "detect",
    "load",
    "numbered",
    "origin",
    "resolve_auto",
    "shared_class_names",
]

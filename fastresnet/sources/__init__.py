"""Where images come from: files, downloads or drawings, each as one checked set of pixels and labels.

Refuses to know betons, settings and training.
"""

from fastresnet.sources.formats import FolderSet
from fastresnet.sources.sets import (
    CIFAR10_CLASSES,
    CIFAR10_DIGESTS,
    COUNTS,
    SPLITS,
    ImageSet,
    SourceError,
    check_images,
    check_labels,
    content_digest,
    detect,
    fingerprint,
    load,
    resolve_auto,
    shared_class_names,
    split_validation,
    stratified_subset,
)

__all__ = [
    "CIFAR10_CLASSES",
    "CIFAR10_DIGESTS",
    "COUNTS",
    "SPLITS",
    "FolderSet",
    "ImageSet",
    "SourceError",
    "check_images",
    "check_labels",
    "content_digest",
    "detect",
    "fingerprint",
    "load",
    "resolve_auto",
    "shared_class_names",
    "split_validation",
    "stratified_subset",
]

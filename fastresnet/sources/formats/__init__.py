"""Reads the file formats in which image sets are handed around: pixels, labels, class names. Decides nothing.

Every complaint about a file is a ValueError that names the file.
"""

from fastresnet.sources.formats.batches import batches_folder, read_batches
from fastresnet.sources.formats.downloads import read_torchvision
from fastresnet.sources.formats.folders import (
    IMAGE_ENDS,
    FolderSet,
    class_folders,
    read_imagefolder,
    split_folder,
)
from fastresnet.sources.formats.parquet import parquet_shards, read_parquet

__all__ = [
    "IMAGE_ENDS",
    "FolderSet",
    "batches_folder",
    "class_folders",
    "parquet_shards",
    "read_batches",
    "read_imagefolder",
    "read_parquet",
    "read_torchvision",
    "split_folder",
]

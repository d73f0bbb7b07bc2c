"""The names under which a split's files and folders are found."""

SPLIT_ALIASES = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}

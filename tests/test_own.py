"""A caller's own images: every form gives the same splits, and wrong ones are told of in a line."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastresnet.data import own


class Pictures:
    """As torchvision's datasets are: (picture, label) and the classes' names."""

    classes = ["dark", "bright"]

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), int(self.labels[index])


@pytest.fixture
def pair():
    random = np.random.default_rng(0)
    labels = np.arange(20) % 2
    images = (random.integers(0, 100, (20, 8, 8, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    return images, labels


def forms(images, labels):
    tensor = torch.from_numpy(images)
    return {
        "arrays": (images, labels),
        "tensors": (tensor, torch.from_numpy(labels)),
        "channels first": (tensor.permute(0, 3, 1, 2), labels),
        "floating point": (tensor.float() / 255, labels.tolist()),
        "a dataset": Pictures(images, labels),
    }


@pytest.mark.parametrize("form", ["arrays", "tensors", "channels first", "floating point", "a dataset"])
def test_every_form_gives_the_same_images(pair, form):
    splits = own.splits_of((forms(*pair)[form], pair))
    assert np.array_equal(splits.train.images, pair[0]) and np.array_equal(splits.train.labels, pair[1])
    assert splits.info["digest"] == splits.info["test_digest"] and not splits.info["synthetic"]
    assert splits.mean == pytest.approx(pair[0].mean(axis=(0, 1, 2)) / 255)
    assert splits.std == pytest.approx(pair[0].std(axis=(0, 1, 2)) / 255)


def test_a_datasets_names_and_grey_images_are_kept(pair):
    images, labels = pair
    dataset = Pictures(images, labels)
    assert own.splits_of((dataset, dataset)).class_names == ("dark", "bright")
    grey = own.splits_of(((images[..., 0], labels), (images[..., 0], labels))).train.images
    assert grey.shape == images.shape and np.array_equal(grey[..., 2], images[..., 0])


def test_a_part_is_held_back_for_validation_and_a_subset_is_another_set(pair):
    splits = own.splits_of((pair, pair), subset=16, val_fraction=0.25)
    kept = np.sort(np.concatenate([splits.train.indices, splits.val.indices]))
    assert splits.info["name"] == "given-16" and splits.info["digest"] != splits.info["test_digest"]
    assert splits.mean == pytest.approx(pair[0][kept].mean(axis=(0, 1, 2)) / 255)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (12, 4, 20)
    assert splits.info["train_size"] == 12 and splits.info["full_train_size"] == 20


def test_a_channel_that_never_changes_is_0_once_normalised(pair):
    images, labels = pair[0].copy(), pair[1]
    images[..., 2] = 100
    splits = own.splits_of(((images, labels), (images, labels)))
    assert splits.mean[2] == pytest.approx(100 / 255) and splits.std[2] == 1


@pytest.mark.parametrize(("wrong", "says"), [
    (lambda x, y: x, "must be a pair"),
    (lambda x, y: ((x, y), "photos"), "test set must be .* got str"),
    (lambda x, y: ((x, y[:5]), (x, y)), "20 images and 5 labels"),
    (lambda x, y: ((x[..., :2], y), (x, y)), r"must be \(N,H,W,3\)"),
    (lambda x, y: ((x.astype(np.int32), y), (x, y)), "must be uint8.*int32"),
    (lambda x, y: ((x / 10.0, y), (x, y)), "lie in 0..1"),
    (lambda x, y: ((x, y / 2), (x, y)), "whole numbers"),
    (lambda x, y: ((x, y - 1), (x, y)), "labels must lie between"),
    (lambda x, y: ((x, y), (x[:, :4], y)), "differ in size"),
    (lambda x, y: ((x, y + 10**9), (x, y)), "a label is 1000000001, and more than 100,000 classes"),
    (lambda x, y: (([x[0], x[1, :4]], [0, 1]), (x, y)), "make one array, all of one size"),
    (lambda x, y: (Pictures([], []), (x, y)), "training set holds no images"),
    (lambda x, y: (Pictures([x[0], x[1, :4]], y[:2]), (x, y)), "of one size"),
])  # fmt: skip
def test_what_fits_nothing_is_refused_in_one_line(pair, wrong, says):
    with pytest.raises(ValueError, match=says) as error:
        own.splits_of(wrong(*pair))
    assert "\n" not in str(error.value)

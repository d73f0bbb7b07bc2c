"""Boxes for larger images: inside, of the area and shape asked for, and functions of seed and epoch."""

import numpy as np

from fastresnet.augment.boxes import centre_boxes, random_boxes

RANDOM = np.random.default_rng(0)
HEIGHTS, WIDTHS = RANDOM.integers(20, 500, 3000), RANDOM.integers(20, 500, 3000)


def inside(boxes: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> bool:
    top, left, h, w = boxes.T
    return bool(
        ((top >= 0) & (left >= 0) & (h > 0) & (w > 0) & (top + h <= heights) & (left + w <= widths)).all()
    )


def test_boxes_lie_within_their_images():
    assert inside(random_boxes(HEIGHTS, WIDTHS, 0, 0), HEIGHTS, WIDTHS)
    assert inside(centre_boxes(HEIGHTS, WIDTHS), HEIGHTS, WIDTHS)
    thin = np.array([1, 1, 400]), np.array([400, 1, 1])
    assert inside(random_boxes(*thin, 0, 0), *thin) and inside(centre_boxes(*thin), *thin)


def test_area_and_shape_are_those_asked_for():
    square = np.full(5000, 400)
    _, _, h, w = random_boxes(square, square, 0, 0, scale=(0.25, 0.5)).T
    share, shape = h * w / 400**2, w / h
    assert 0.24 < share.min() and share.max() < 0.51 and abs(share.mean() - 0.375) < 0.01
    assert 0.74 < shape.min() and shape.max() < 1.35 and abs(np.log(shape).mean()) < 0.02


def test_boxes_depend_on_seed_and_epoch_alone():
    one = random_boxes(HEIGHTS, WIDTHS, 1, 2)
    assert np.array_equal(one, random_boxes(HEIGHTS, WIDTHS, 1, 2))
    assert not np.array_equal(one, random_boxes(HEIGHTS, WIDTHS, 1, 3))
    assert not np.array_equal(one, random_boxes(HEIGHTS, WIDTHS, 2, 2))


def test_the_centre_is_the_share_of_the_shorter_edge():
    assert centre_boxes(np.array([256]), np.array([512])).tolist() == [[16, 144, 224, 224]]

"""The synthetic set: repeatable, balanced, learnable by a small net and not by colour alone."""

import numpy as np
import pytest
import torch
from torch import nn

from fastresnet.sources import synthetic


def test_the_same_seed_draws_the_same_images_and_another_does_not() -> None:
    images, labels = synthetic.draw("train", 40, 16, seed=3)
    again, labels_again = synthetic.draw("train", 40, 16, seed=3)
    assert np.array_equal(images, again) and np.array_equal(labels, labels_again)
    for other in (synthetic.draw("train", 40, 16, seed=4), synthetic.draw("test", 40, 16, seed=3)):
        assert not np.array_equal(images, other[0])


@pytest.mark.parametrize("count, size", [(1, 8), (25, 33), (600, 32)])
def test_any_count_and_size_gives_bytes_and_balanced_labels(count: int, size: int) -> None:
    images, labels = synthetic.draw("test", count, size)
    assert images.shape == (count, size, size, 3) and images.dtype == np.uint8 and labels.dtype == np.int64
    per_class = np.bincount(labels, minlength=10)
    assert per_class.max() - per_class.min() <= 1 and len(synthetic.CLASS_NAMES) == 10


@pytest.mark.parametrize("arguments", [("val", 10, 32), ("train", 0, 32), ("train", 10, 4)])
def test_impossible_requests_are_refused(arguments: tuple[str, int, int]) -> None:
    with pytest.raises(ValueError, match="synthetic: "):
        synthetic.draw(*arguments)


def test_a_small_net_learns_what_a_linear_model_does_not() -> None:
    images, labels = synthetic.draw("train", 3000, 32)
    test_images, test_labels = synthetic.draw("test", 500, 32)
    flat, test_flat = [x.reshape(len(x), -1) / 255 - 0.5 for x in (images, test_images)]
    ridge = np.linalg.solve(
        flat[:, ::3].T @ flat[:, ::3] + 50 * np.eye(1024), flat[:, ::3].T @ np.eye(10)[labels]
    )
    linear = float((np.argmax(test_flat[:, ::3] @ ridge, 1) == test_labels).mean())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.AvgPool2d(2)]
        for width, before in zip((16, 32, 64), (3, 16, 32)):
            layers += [
                nn.Conv2d(before, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        net = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        x, y = torch.from_numpy(flat).float().view(-1, 32, 32, 3).movedim(3, 1), torch.from_numpy(labels)
        for step in range(110):
            batch = slice(step % 30 * 100, step % 30 * 100 + 100)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
        net.eval()
        answers = net(torch.from_numpy(test_flat).float().view(-1, 32, 32, 3).movedim(3, 1)).argmax(1).numpy()
    small_net = float((answers == test_labels).mean())
    assert linear < 0.35 and 0.5 < small_net < 0.999, (linear, small_net)

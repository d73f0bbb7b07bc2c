"""DataLoader with v2 transforms gives the resident loader's batches."""

import numpy as np
import pytest
import torch

from fastresnet.augment import Augment
from fastresnet.loading import Batching
from fastresnet.loading.resident import ResidentLoader

pytest.importorskip("torchvision", reason="needs torchvision, which isn't installed")
from fastresnet.loading.torchvision_loader import TorchvisionLoader

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3), dtype=np.uint8)
COMMON = dict(batch_size=16, seed=3, shuffle=True, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))


@pytest.mark.parametrize("mode", ["reflect", "zero", "mean"])
def test_batches_equal_the_resident_loaders_within_rounding(mode):
    keywords = COMMON | dict(
        augment=Augment(3, mode, "random", 5, 0.1, 0.2), resolution=lambda step: 8 if step > 1 else None
    )
    rival = TorchvisionLoader(IMAGES, np.arange(40), Batching(**keywords), workers=-1)
    resident = ResidentLoader(IMAGES, np.arange(40), Batching(**keywords))
    assert len(rival) == len(resident) == 3
    for (one, one_labels), (other, other_labels) in zip(rival.epoch(2), resident.epoch(2), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert torch.equal(one_labels, other_labels)
        assert one.is_contiguous(memory_format=torch.channels_last)


def test_processes_give_the_same_batches_and_end_with_the_epoch():
    keywords = COMMON | dict(augment=Augment(3, "reflect", "random"))
    here = TorchvisionLoader(IMAGES, np.arange(40), Batching(**keywords), workers=-1)
    there = TorchvisionLoader(IMAGES, np.arange(40), Batching(**keywords), workers=2)
    state = torch.get_rng_state()
    for (one, _), (other, _) in zip(there.epoch(0), here.epoch(0), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_batches_are_normalised_and_nothing_else():
    keywords = COMMON | dict(shuffle=False, dtype=torch.bfloat16)
    one, labels = next(TorchvisionLoader(IMAGES, np.arange(40), Batching(**keywords), workers=-1).epoch(0))
    other, _ = next(ResidentLoader(IMAGES, np.arange(40), Batching(**keywords)).epoch(0))
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)
    assert labels.tolist() == list(range(16))

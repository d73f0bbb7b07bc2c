"""The measured ceiling of matrix products."""

import torch

from fastresnet.machine.ceiling import matmul_ceiling


def test_the_matmul_ceiling_is_of_a_plausible_order():
    rate = matmul_ceiling("cpu", torch.float32, seconds=0.1)
    assert 1e9 < rate < 1e14

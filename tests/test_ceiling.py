"""The measured ceiling of matrix products, and what must not raise it."""

import torch

from fastresnet.machine.ceiling import matmul_ceiling, tf32_where_asked
from fastresnet.machine.precision import convolutions_in_tf32


def test_the_matmul_ceiling_is_of_a_plausible_order():
    rate = matmul_ceiling("cpu", torch.float32, seconds=0.1)
    assert 1e9 < rate < 1e14


def test_no_convolution_of_an_fp32_ceiling_rounds_to_tf32():
    before = convolutions_in_tf32(), convolutions_in_tf32(True)
    with tf32_where_asked("fp32"):
        assert not convolutions_in_tf32()
        with tf32_where_asked("tf32"):
            assert convolutions_in_tf32()
    assert convolutions_in_tf32()
    convolutions_in_tf32(before[0])

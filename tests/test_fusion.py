"""What the compiler makes of pooling, norm and activation between convolutions: few passes over memory."""

import copy
import re

import pytest
import torch
from torch._inductor.utils import run_and_get_code

from fastresnet.models.speednet import Group
from fastresnet.training.capture import compiled

KERNEL = re.compile(r"^(cpp_fused\w*) = async_compile", re.M)


@pytest.mark.slow
def test_between_convolutions_statistics_and_activation_take_a_pass_each_and_no_gradient_is_scattered():
    """Compiled for a CPU, where the same parts are fused as on a GPU; docs/costs.md says what they move."""
    torch.manual_seed(0)
    plain = Group(24, 32, 2, False, "silu", 0.44).to(memory_format=torch.channels_last)
    block = copy.deepcopy(plain)
    images = torch.randn(8, 24, 15, 15).contiguous(memory_format=torch.channels_last)
    plain(images).square().sum().backward()
    step = compiled(block, "default")
    with torch._inductor.config.patch({"cpp.threads": 2}):  # one thread adds without saying so
        _, sources = run_and_get_code(lambda: step(images).square().sum().backward())
    torch._dynamo.reset()
    for one, other in zip(plain.parameters(), block.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)
    assert len(sources) == 2, "one graph forward and one backward"
    forward, backward = (KERNEL.findall(source) for source in sources)
    assert not re.search(r"atomic_add|scatter", sources[1])
    assert len(forward) <= 3 and len(backward) <= 2

"""Operations of ours for a network that learns on a CPU, on the threads that PyTorch's own run on.

Refuses to run elsewhere than it was measured: on other devices, in evaluation, compiled, in other layouts.
"""

from fastresnet.cpu.choice import choose, left_out, warm_up

__all__ = ["choose", "left_out", "warm_up"]

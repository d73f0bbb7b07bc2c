"""Batch norm over the batch of all processes: the mean and variance that one process would see."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastresnet.ranks.collectives import Summed


class SynchronisedNorm(nn.BatchNorm2d):
    """What nn.SyncBatchNorm does, which refuses tensors on a CPU; every process has equally many images."""

    def forward(self, images: Tensor) -> Tensor:
        """(N,C,h,w) -> the same shape and dtype."""
        if not self.training or not dist.is_initialized():
            return super().forward(images)
        processes, x = dist.get_world_size(), images.to(torch.promote_types(images.dtype, torch.float32))
        mean_C = Summed.apply(x.mean((0, 2, 3))) / processes
        centred = x - mean_C[:, None, None]
        variance_C = Summed.apply(centred.square().mean((0, 2, 3))) / processes
        self._remember(mean_C.detach(), variance_C.detach(), processes * x[:, 0].numel())
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        return (centred * scale_C[:, None, None] + self.bias[:, None, None]).to(images.dtype)

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, variance_C: Tensor, count: int) -> None:
        """Draw the running statistics to these, the variance without bias, as nn.BatchNorm2d does."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C * (count / (count - 1)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


def synchronise(model: nn.Module, device: torch.device) -> None:
    """Turn every batch norm of `model` into a synchronised one, in place; names and weights stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SynchronisedNorm

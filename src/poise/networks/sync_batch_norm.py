"""Batch norm with the statistics of a whole batch that is divided among several ranks.

PyTorch's `SyncBatchNorm` is for GPUs only, and its backward pass can't be differentiated again, as penalties on
gradients need. The layers here are made of operations that can.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from poise.core.hooks import LayerContext
from poise.core.ranks import ALONE
from poise.core.types import to_float32


class SyncBatchNorm(_BatchNorm):
    """Normalises by the mean and the variance of the samples of all ranks, of which each has equally many.

    With the mean m_r and the biased variance v_r of rank r, they are m = mean_r m_r and mean_r (v_r + (m_r - m)^2).
    Alone, in evaluation mode and between moves it is PyTorch's batch norm. Parts of a batch that are computed one after
    another have statistics of their own.

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167); over devices as in BigGAN (Brock et al. 2019, arXiv:1809.11096).
    """

    layer_context: LayerContext

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions after the channels."""

    def forward(self, input: Tensor) -> Tensor:
        """B x C x ..., to the same shape."""
        move = self.layer_context.current
        ranks = ALONE if move is None else move.ranks.simultaneous
        if ranks.size == 1 or not self.training:
            return super().forward(input)
        dims, broadcast = [0, *range(2, input.dim())], (..., *(None for _ in input.shape[2:]))
        precise = to_float32(input)
        own_variance, own_mean = torch.var_mean(precise, dims, correction=0)
        mean = ranks.differentiable_mean(own_mean)
        variance = ranks.differentiable_mean(own_variance + (own_mean - mean).square())
        self._update_running_statistics(mean, variance, input.numel() // input.shape[1] * ranks.size)
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return (precise * scale[broadcast] + shift[broadcast]).to(input.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """As PyTorch does: an exponential average of the means and of the unbiased variances."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)


class SyncBatchNorm1d(SyncBatchNorm, nn.BatchNorm1d):
    """`SyncBatchNorm` in place of `nn.BatchNorm1d`."""


class SyncBatchNorm2d(SyncBatchNorm, nn.BatchNorm2d):
    """`SyncBatchNorm` in place of `nn.BatchNorm2d`."""


SYNCHRONISED: dict[type[nn.Module], type[SyncBatchNorm]] = {
    nn.BatchNorm1d: SyncBatchNorm1d,
    nn.BatchNorm2d: SyncBatchNorm2d,
}


def synchronise_(net: nn.Module, layer_context: LayerContext) -> None:
    """Change every batch norm of a network, in place, to a `SyncBatchNorm` with the same weights and statistics.

    Args:
        net: the network.
        layer_context: gives the current move, whose ranks have the other parts of the batch.
    """
    for module in net.modules():
        if (changed := SYNCHRONISED.get(type(module))) is not None:
            module.__class__ = changed
            assert isinstance(module, SyncBatchNorm)
            module.layer_context = layer_context

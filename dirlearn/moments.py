"""Count, mean and spread of rows, bin by bin, in one stream: memory for the bins, not the rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, distributed

from dirlearn.covariance import Covariance

_BLOCK = 1 << 14  # rows that are merged at once: few merges, and short float32 sums
# Numbers worked on at once: on a CPU what stays in a core's cache, elsewhere what fits in memory.
_CHUNK = {"cpu": 1 << 18}
_LARGE_CHUNK = 1 << 26


class Moments:
    r"""Running count n, mean and sum of products of deviations M of each of K bins.

    Blocks of rows are merged by the rule of Chan et al. (1983), which never subtracts large sums
    from one another:

    .. math::
        \delta = \bar z_{new} - \bar z, \qquad
        \bar z \mathrel{+}= \tfrac{n_{new}}{n + n_{new}}\, \delta, \qquad
        M \mathrel{+}= M_{new} + \tfrac{n\, n_{new}}{n + n_{new}}\, \delta\delta^\top

    Parameters
    ----------
    bins, features : int
        K and C.
    covariance : Covariance
        What a product of deviations is.

    Examples
    --------
    >>> from dirlearn.covariance import Diagonal
    >>> moments = Moments(2, 1, Diagonal(), torch.float32)
    >>> moments.add(torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([0, 0, 1]))
    >>> moments.count, moments.mean.flatten(), moments.spread.flatten()
    (tensor([2, 1]), tensor([2., 7.]), tensor([2., 0.]))
    """

    def __init__(
        self, bins: int, features: int, covariance: Covariance, dtype: torch.dtype
    ) -> None:
        self.covariance = covariance
        self.count = torch.zeros(bins, dtype=torch.int64)
        self.mean = torch.zeros(bins, features, dtype=dtype)
        self.products = torch.zeros(bins, *covariance.shape(features), dtype=dtype)

    @property
    def spread(self) -> Tensor:
        """Unbiased variance or covariance, (K, *S); 0 for a bin of fewer than two rows."""
        return self.products / self._per_bin(self.products, (self.count - 1).clamp_min(1))

    def add(self, rows: Tensor, index: Tensor) -> None:
        """Take in ``rows`` (M, C), each in the bin that ``index`` (M,) names."""
        self.to(rows.device, self.mean.dtype)
        if len(rows) == 0:
            return
        for part, where in zip(torch.split(rows, _BLOCK), torch.split(index, _BLOCK), strict=True):
            self._merge(*self._block(part, where))

    @torch.inference_mode(False)  # or they could not be added to outside of it
    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move to a device, or to another precision."""
        self.count = self.count.to(device)
        self.mean = self.mean.to(device, dtype)
        self.products = self.products.to(device, dtype)

    def clear(self) -> None:
        """Forget every row."""
        for tensor in (self.count, self.mean, self.products):
            tensor.zero_()

    def all_reduce(self) -> None:
        """Sum over the processes of a distributed run, if this is one."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        count, total = self.count.clone(), self.mean * self._per_bin(self.mean, self.count)
        distributed.all_reduce(count)
        distributed.all_reduce(total)
        mean = total / self._per_bin(total, count.clamp_min(1))
        delta = self.mean - mean
        products = self.covariance.product(delta, delta)
        products = self.products + products * self._per_bin(products, self.count)
        distributed.all_reduce(products)
        self.count.copy_(count)
        self.mean.copy_(mean)
        self.products.copy_(products)

    def _block(self, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count, mean and products of one block, in two passes: sums, then deviations."""
        total, products = torch.zeros_like(self.mean), torch.zeros_like(self.products)
        count = torch.zeros_like(self.count).index_add_(0, index, torch.ones_like(index))
        near = self._some_row(rows, index)
        for deviation, where in self._deviations(rows, index, near):
            total.index_add_(0, where, deviation)
        mean = near + total / self._per_bin(total, count.clamp_min(1))
        rest = total.zero_()
        for deviation, where in self._deviations(rows, index, mean):
            rest.index_add_(0, where, deviation)
            products.index_add_(0, where, self.covariance.product(deviation, deviation))
        # What rounding left in the mean is taken out of both.
        rest /= self._per_bin(rest, count.clamp_min(1))
        correction = self.covariance.product(rest, rest)
        products -= correction * self._per_bin(correction, count)
        return count, mean + rest, products

    def _some_row(self, rows: Tensor, index: Tensor) -> Tensor:
        """One row of each bin, to sum the distances from: float32 sums of large numbers stray."""
        place = torch.arange(len(rows), device=rows.device)
        first = torch.full_like(self.count, len(rows)).scatter_reduce_(0, index, place, "amin")
        some = rows.index_select(0, first.clamp_max(len(rows) - 1)).to(self.mean.dtype)
        return torch.where(first[:, None] < len(rows), some, 0.0)

    def _deviations(
        self, rows: Tensor, index: Tensor, centre: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows less their bin's ``centre``, and their bins, a chunk at a time."""
        numbers = _CHUNK.get(rows.device.type, _LARGE_CHUNK)
        size = max(1, numbers // self.products[0].numel())
        for part, where in zip(torch.split(rows, size), torch.split(index, size), strict=True):
            deviation = centre.index_select(0, where)
            # Written over the centres: a chunk stays in the cache, and takes no memory anew.
            yield torch.sub(part.to(centre.dtype), deviation, out=deviation), where

    def _merge(self, count: Tensor, mean: Tensor, products: Tensor) -> None:
        total = self.count + count
        share = self._per_bin(mean, count) / self._per_bin(mean, total.clamp_min(1))
        delta = mean - self.mean
        between = self.covariance.product(delta, delta * share)
        self.products += products + between * self._per_bin(between, self.count)
        self.mean += delta * share
        self.count += count

    @staticmethod
    def _per_bin(like: Tensor, count: Tensor) -> Tensor:
        """Counts (K,) with the trailing axes of ``like``, to multiply or divide it by."""
        return count.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))

"""How features spread within a bin: each on its own, or all together; and how to match spreads."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Covariance(Protocol):
    """What FDS asks of a spread, be it a variance per feature or a whole matrix.

    Shapes: K bins, C features; a spread is (K, *S) with S = (C,) or (C, C).
    """

    def shape(self, features: int) -> tuple[int, ...]:
        """S, the shape of one bin's spread."""

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """Products of deviations (M, C), whose sum over samples makes the spread: (M, *S)."""

    def regular(self, spread: Tensor, count: Tensor) -> Tensor:
        """Shrink where samples are too few to tell the spread: (K, *S) and (K,) to (K, *S)."""

    def match(self, own: Tensor, other: Tensor, clip: tuple[float, float]) -> Tensor:
        """Map that gives deviations of spread ``own`` the spread ``other``: (K, *S)."""

    def apply(self, change: Tensor, z: Tensor, shift: Tensor) -> Tensor:
        """Map each row of ``z`` (M, C) by its own ``change`` (M, *S), and move it by its ``shift``.

        The result is written over ``shift`` (M, C), which saves an array of the size of the batch.
        """

    def identity(self, like: Tensor) -> Tensor:
        """The map that changes nothing, of shape S."""


class Diagonal:
    """A variance per feature; correlations are left as they are.

    Examples
    --------
    >>> Diagonal().match(torch.tensor([[1.0, 4.0]]), torch.tensor([[4.0, 4.0]]), (0.1, 10.0))
    tensor([[2., 1.]])
    """

    def shape(self, features: int) -> tuple[int, ...]:
        """One variance per feature."""
        return (features,)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """Feature by feature."""
        return left * right

    def regular(self, spread: Tensor, count: Tensor) -> Tensor:  # noqa: ARG002  # nothing is singular
        """As it is."""
        return spread

    def match(self, own: Tensor, other: Tensor, clip: tuple[float, float]) -> Tensor:
        """Root of the ratio; 1 for a feature that does not vary, which no factor could change."""
        ratio = torch.where(own > 0, other / own.clamp_min(torch.finfo(own.dtype).tiny), 1.0)
        return ratio.clamp(*clip).sqrt()

    def apply(self, change: Tensor, z: Tensor, shift: Tensor) -> Tensor:
        """Feature by feature."""
        return shift.addcmul_(change, z)

    def identity(self, like: Tensor) -> Tensor:
        """Ones."""
        return torch.ones_like(like[0])


class Full:
    r"""The whole covariance matrix, as the equations of Yang et al. (2021) have it.

    Where a bin has no more samples than features, its sample covariance :math:`S` is singular, and
    is shrunk towards :math:`(\operatorname{tr} S / C)\, I` as far as the oracle-approximating rule
    of Chen et al. (2010, equation 23) says.

    Examples
    --------
    >>> own, other = torch.eye(2)[None], 4 * torch.eye(2)[None]
    >>> Full().match(own, other, (0.1, 10.0))
    tensor([[[2., 0.],
             [0., 2.]]])
    """

    def shape(self, features: int) -> tuple[int, ...]:
        """A matrix."""
        return (features, features)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """Outer products."""
        return left[:, :, None] * right[:, None, :]

    def regular(self, spread: Tensor, count: Tensor) -> Tensor:
        """Shrink the singular ones."""
        features = spread.shape[-1]
        trace = spread.diagonal(dim1=-2, dim2=-1).sum(-1)
        square = spread.square().sum((-2, -1))
        n = count.to(spread.dtype)
        above = (1 - 2 / features) * square + trace.square()
        below = (n + 1 - 2 / features) * (square - trace.square() / features)
        weight = torch.where(below > 0, above / below.clamp_min(1e-30), 1.0).clamp(0, 1)
        weight = torch.where(count > features, 0.0, weight)[:, None, None]
        target = (trace / features)[:, None, None] * torch.eye(features).to(spread)
        return torch.lerp(spread, target, weight)

    def match(self, own: Tensor, other: Tensor, clip: tuple[float, float]) -> Tensor:
        """Symmetric root of ``other`` after the inverse one of ``own``, singular values clipped.

        Directions in which ``own`` has no spread stay as they are.
        """
        values, vectors = torch.linalg.eigh(own)
        least = values.amax(-1, keepdim=True) * own.shape[-1] * torch.finfo(own.dtype).eps
        flat = values <= least.clamp_min(torch.finfo(own.dtype).tiny)
        inverse = torch.where(flat, 0.0, values.clamp_min(1e-30).rsqrt())
        whiten = (vectors * inverse[..., None, :]) @ vectors.mT
        values, basis = torch.linalg.eigh(other)
        colour = (basis * values.clamp_min(0).sqrt()[..., None, :]) @ basis.mT
        left, stretch, right = torch.linalg.svd(colour @ whiten)
        low, high = clip
        change = (left * stretch.clamp(low**0.5, high**0.5)[..., None, :]) @ right
        still = (vectors * flat[..., None, :].to(own.dtype)) @ vectors.mT
        matched: Tensor = change - change @ still + still
        return matched

    def apply(self, change: Tensor, z: Tensor, shift: Tensor) -> Tensor:
        """One matrix-vector product per row."""
        with torch.autocast(z.device.type, enabled=False):
            return shift.add_((change @ z[..., None])[..., 0])

    def identity(self, like: Tensor) -> Tensor:
        """The unit matrix."""
        return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)

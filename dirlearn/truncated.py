"""The mean of a Gaussian that is cut to the range of the labels, and its scale."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dirlearn.arrays import ArrayT, floating_like, to_numpy

# Nodes in (0, 1) and weights of Gauss and Legendre, from the eigenvectors of the recurrence of the
# polynomials (Golub and Welsch 1969), for numpy.polynomial is slow to load. 32 are enough for a
# Gaussian cut where it has fallen to exp(-_DROP).
_DROP = 40.0
_ORDER = np.arange(1, 32)
_NODES, _VECTORS = np.linalg.eigh(np.diag(_ORDER / np.sqrt(4 * _ORDER**2 - 1), -1))
_NODES, _LOG_WEIGHTS = (_NODES + 1) / 2, np.log(_VECTORS[0] ** 2)


def truncated_mean(location: ArrayT, sigma: float | Tensor, low: float, high: float) -> ArrayT:
    r"""Mean of a normal distribution cut to [low, high]: a prediction inside the labels' range.

    .. math:: \int_{\text{low}}^{\text{high}} y\, e^{-(y - \hat y)^2 / 2\sigma^2}\, \mathrm dy \Big/
              \int_{\text{low}}^{\text{high}} e^{-(y - \hat y)^2 / 2\sigma^2}\, \mathrm dy

    A network trained with :class:`BalancedMSE` or :class:`GAILoss` gives the location
    :math:`\hat y` of that density, which may lie outside the range, and by the more, the larger
    sigma is. This is the expected label where all labels in the range are equally common. It rises
    with the location, and moves less than it.

    Parameters
    ----------
    location : array or tensor of any shape
        What the network puts out.
    sigma : float or tensor of one element
        The loss's sigma, such as ``criterion.sigma``.
    low, high : float
        The ends of the range in which labels can lie: of the scale, not of a batch.

    Raises
    ------
    ValueError
        If ``low`` < ``high`` does not hold, or one is infinite, or ``sigma`` is not positive.

    Notes
    -----
    By quadrature over the part of the range that carries the mass, instead of the textbook formula,
    whose numerator and denominator vanish together a few sigma outside: exact to a few units of
    the last digit for any location, in ``float32`` as in ``float64``, and differentiable. It makes
    32 numbers of each location; give large maps in pieces.

    Examples
    --------
    >>> truncated_mean(np.array([-20.0, -1.0, 2.0, 5.5]), sigma=1.0, low=0.0, high=5.0).round(3)
    array([0.05 , 0.525, 2.051, 4.359])

    Derived in the chapter *Balanced MSE*.
    """
    low, high = float(low), float(high)
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"low must be below high, and both finite, got {low} and {high}")
    if not isinstance(location, Tensor):
        array = to_numpy(location, "location")
        held = sigma.detach().cpu() if isinstance(sigma, Tensor) else sigma
        inside = truncated_mean(torch.from_numpy(array.astype(np.float64)), held, low, high)
        return floating_like(inside.numpy(), array)
    wide = location.to(torch.promote_types(location.dtype, torch.float32))
    scale = positive(sigma, wide)
    nodes, log_weights = (torch.from_numpy(part).to(wide) for part in (_NODES, _LOG_WEIGHTS))
    # In steps of sigma from the point of the range that is nearest to the location, where the
    # density is largest; finite for a location at infinity, whose mean is the end of the range.
    nearest = wide.clamp(low, high)
    tilt = ((nearest - wide) / scale).clamp(-1e18, 1e18)
    reach = (2 * _DROP / (tilt.abs() + (tilt.square() + 2 * _DROP).sqrt())).detach()
    left = ((low - nearest) / scale).maximum(-reach)[..., None]
    right = ((high - nearest) / scale).minimum(reach)[..., None]
    step = left + (right - left) * nodes
    share = (log_weights - step * (step / 2 + tilt[..., None])).softmax(dim=-1)
    mean = nearest + scale * (share * step).sum(dim=-1)
    return mean.to(location.dtype if location.is_floating_point() else wide.dtype)


def positive(sigma: float | Tensor, reference: Tensor) -> Tensor:
    """Sigma as a scalar; the value of a tensor is not looked at, for that would mean to wait."""
    if isinstance(sigma, Tensor):
        if sigma.numel() != 1:
            raise ValueError(
                f"sigma must hold one number for all targets, got shape {tuple(sigma.shape)}"
            )
        return sigma.reshape(()).to(reference)
    if not 0 < sigma < math.inf:
        raise ValueError(
            f"sigma must be positive and finite, in the unit of the target, got {sigma}"
        )
    return torch.tensor(sigma, dtype=reference.dtype, device=reference.device)

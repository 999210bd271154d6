"""Feature distribution smoothing as the released code of Yang et al. (2021) computes it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dirlearn import fds
from dirlearn.bins import Bins
from dirlearn.lds import Clip
from dirlearn.moments import Moments
from dirlearn.released.lds import KernelName, kernel_window


class FDS(fds.FDS):
    r"""Feature distribution smoothing as the released code computes it (``agedb-dir/fds.py``).

    Used as :class:`dirlearn.FDS`; parameters that are not listed are the same. The differences:

    - *Lag.* :meth:`step` smooths the statistics before it updates them, so features are coloured
      with statistics of one epoch earlier, and the second epoch still passes unchanged.
    - *Alias.* The whitening, through an alias of the running buffers, uses the updated ones:
      :math:`\tilde z = \sqrt{\tilde v^{(e-1)} / v^{(e)}}\, (z - \mu^{(e)}) + \tilde\mu^{(e-1)}`.
      Even without smoothing, features are moved back by what their mean moved in an epoch.
    - *Empty bins* hold mean 0 and variance 1, and leak into their neighbours through the kernel.
      A bin first met in a later epoch starts from there as well. Beyond the ends of the axis the
      statistics are reflected.
    - A *bin with one sample* has variance 0. Features of variance 0 pass unchanged.
    - The *window* is :func:`kernel_window`.

    Two more lie in the training script, and are the caller's to mirror. Its separate pass over the
    training set runs with the model in training mode; and since the calibration there writes into
    the features, what it collects is already calibrated: give :meth:`observe` the output of the
    layer. Not mirrored: labels between whole numbers, of which the code keeps the last group of a
    bin, and labels beyond the edge bins, which it calibrates only in batches that hold an edge bin.

    Examples
    --------
    >>> fds = FDS(num_features=1, bins=Bins.uniform(0, 3, 1), kernel="triangular", size=3)
    >>> z, y = torch.tensor([[0.0], [2.0], [6.0], [8.0]]), torch.tensor([0.5, 0.5, 1.5, 1.5])
    >>> for epoch in range(3):
    ...     fds.observe(z + epoch, y)
    ...     fds.step()
    ...     print(f"{fds.running_mean[0].item():.2f} {fds(z, y)[0].item():.2f}")
    1.00 0.00
    1.10 2.90
    1.29 2.81

    Measured in the chapter *Feature distribution smoothing*.
    """

    def __init__(
        self,
        num_features: int,
        bins: Bins,
        kernel: KernelName = "gaussian",
        size: int = 5,
        sigma: float = 2.0,
        momentum: float = 0.9,
        clip: Clip = (0.1, 10.0),
        channel_dim: int = 1,
    ) -> None:
        window = kernel_window(kernel, size, sigma)
        super().__init__(
            num_features,
            bins,
            window,
            momentum=momentum,
            clip=clip,
            channel_dim=channel_dim,
            track=False,
        )
        if size // 2 >= len(bins):
            raise ValueError(
                f"the reflected statistics of {len(bins)} bins cannot fill a window of {size}; use "
                f"a size below {2 * len(bins)}"
            )
        self.running_cov.fill_(1.0)
        self.register_buffer("steps", torch.tensor(0))

    steps: Tensor

    def _renew(self, epoch: Moments) -> None:
        lagged = self.smoothed_mean, self.smoothed_cov
        self._update(epoch)
        if self.steps:
            self._freeze(*lagged)
        self.steps += 1

    def _update(self, epoch: Moments) -> None:
        old = self.momentum if self.steps else 0.0
        for running, now in ((self.running_mean, epoch.mean), (self.running_cov, epoch.spread)):
            mixed = torch.lerp(now, running.to(now), old)
            running.copy_(torch.where(epoch.count[:, None] > 0, mixed, running.to(now)))
        self.count.copy_(torch.maximum(self.count, epoch.count))

    def _freeze(self, smoothed_mean: Tensor, smoothed_cov: Tensor) -> None:
        own = self.running_cov
        still = (own == 0) | (own.sum(dim=1, keepdim=True) < 1e-10)
        change = self._spread.match(own, smoothed_cov, self.clip)
        self.change.copy_(torch.where(still, 1.0, change))
        shift = smoothed_mean - self.change * self.running_mean
        self.shift.copy_(torch.where(still, 0.0, shift))

    def _smooth(self, values: Tensor, known: Tensor) -> Tensor:  # noqa: ARG002  # empty bins leak
        half = len(self.window) // 2
        padded = F.pad(values.T[:, None], (half, half), mode="reflect")
        return F.conv1d(padded, self.window.to(padded)[None, None])[:, 0].T

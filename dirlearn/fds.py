"""Feature distribution smoothing (Yang et al. 2021): features of near labels share statistics."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dirlearn.arrays import to_numpy
from dirlearn.bins import Bins, check_bins
from dirlearn.covariance import Covariance, Diagonal, Full
from dirlearn.kernels import Kernel, kernel_window
from dirlearn.lds import Clip, check_clip
from dirlearn.moments import Moments


def _check_features(number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise TypeError(f"num_features must be a whole number, got {number!r}")
    if number < 1:
        raise ValueError(f"num_features must be at least 1, got {number}")


_COVARIANCES: dict[str, Covariance] = {"diagonal": Diagonal(), "full": Full()}


class FDS(nn.Module):
    r"""Calibrate training features to the smoothed statistics of their label's neighbourhood.

    Between encoder and last regressor (Yang et al. 2021, section 3.2). For each bin b of the target
    axis, with mean :math:`\mu_b` and covariance :math:`\Sigma_b` of its features,

    .. math::
        \tilde\mu_b = \sum_{b'} k_{b - b'}\, \mu_{b'}, \qquad
        \tilde\Sigma_b = \sum_{b'} k_{b - b'}\, \Sigma_{b'}, \qquad
        \tilde z = \tilde\Sigma_b^{1/2} \Sigma_b^{-1/2} (z - \mu_b) + \tilde\mu_b .

    The statistics are those of the epochs before, so two lines are added to a training loop::

        features = encoder(x)
        prediction = head(fds(features, y))     # y: the batch's targets
        ...
        fds.step()                              # after the last batch of an epoch

    In training mode the layer calibrates out of place, passes gradients on, and takes the features
    as they came in into the statistics of the epoch, as batch normalisation does. Before the first
    step, and in evaluation mode, where no label is known, features pass unchanged: a loop without
    :meth:`step` trains as if the layer were not there.

    Parameters
    ----------
    num_features : int
        C, the number of features.
    bins : Bins
        The target axis, K bins, each wide enough to hold several samples. With ``outside="error"``
        labels in another unit are refused; by default they all count in an edge bin.
    kernel, size, sigma
        As for :func:`dirlearn.kernel_window`; the defaults are the paper's.
    momentum : float
        Share of the old statistics in the running ones, :math:`\mu \leftarrow \alpha \mu +
        (1 - \alpha) \mu^{epoch}`, from 0 to below 1. Default 0.9 (the paper's). The first epoch
        that meets a bin counts in full.
    covariance : {"diagonal", "full"}
        A variance per feature, as the released code has it, or the matrix of the equations, which
        costs memory K C² and is shrunk where a bin has no more samples than features.
    clip : (low, high)
        Limits on the ratio of smoothed to own variance; for a full covariance on the squared
        singular values of :math:`\tilde\Sigma^{1/2} \Sigma^{-1/2}`. Default (0.1, 10) (released
        code for images; (0.5, 2) for text and (0.2, 5) for depth there). None leaves a side open,
        and (None, None) both.
    channel_dim : int
        Axis of the features; 1 serves (N, C) and (N, C, H, W).
    track : bool
        Whether a training forward takes features into the statistics. With False, show them to
        :meth:`observe` in a pass of your own over the training set, as the paper does.

    Attributes
    ----------
    count : Tensor of shape (K,)
        The most samples that the bin had in one epoch.
    running_mean : Tensor of shape (K, C)
    running_cov : Tensor of shape (K, C), or (K, C, C)

    Raises
    ------
    ValueError
        If a number is out of its range, ``covariance`` is another word, or no window can be built.
    TypeError
        If ``bins`` is not a :class:`Bins`.

    Notes
    -----
    *Empty bins* take no part: the kernel is renormalised over the bins that have data, also at the
    ends of the axis. *A bin with one sample* has no spread of its own: it borrows the smoothed one,
    so its features are only shifted. *A label in a bin never met* passes unchanged.

    Memory is O(K C) whatever the number of samples. In a distributed run :meth:`step` sums over
    the processes; call it in all of them. Activation checkpointing shows a batch twice: use
    ``track=False`` and :meth:`observe` with it. The state dict carries a half-finished epoch as
    well; it can be loaded into a layer of the same bins and kernel only.

    The released code differs in ways that matter: see :class:`dirlearn.released.FDS`.

    Examples
    --------
    >>> fds = FDS(num_features=2, bins=Bins.uniform(0, 3, 1), kernel="triangular", size=3)
    >>> z = torch.tensor([[0.0, 0.0], [2.0, 4.0], [6.0, 0.0], [8.0, 2.0]])
    >>> y = torch.tensor([0.5, 0.5, 1.5, 1.5])
    >>> _ = fds(z, y)                             # an epoch of one batch
    >>> fds.step()
    >>> fds.running_mean
    tensor([[1., 2.],
            [7., 1.],
            [0., 0.]])
    >>> fds(z, y).round(decimals=3)               # mean of bin 0, first: (2 * 1 + 1 * 7) / 3
    tensor([[ 2.0000, -0.0650],
            [ 4.0000,  3.3990],
            [ 4.0000, -0.0810],
            [ 6.0000,  2.7480]])
    >>> fds.eval()(z) is z
    True

    Derived in the chapter *Feature distribution smoothing*.
    """

    window: Tensor
    count: Tensor
    running_mean: Tensor
    running_cov: Tensor
    change: Tensor
    shift: Tensor

    def __init__(
        self,
        num_features: int,
        bins: Bins,
        kernel: Kernel = "gaussian",
        size: int = 5,
        sigma: float = 2.0,
        momentum: float = 0.9,
        covariance: Literal["diagonal", "full"] = "diagonal",
        clip: Clip = (0.1, 10.0),
        channel_dim: int = 1,
        track: bool = True,
    ) -> None:
        super().__init__()
        check_bins(bins)
        _check_features(num_features)
        if not 0 <= momentum < 1:
            raise ValueError(
                f"momentum must lie in [0, 1), got {momentum}: it is the share of the old "
                "statistics, 0.9 in the paper (torch's BatchNorm calls 0.1 what is 0.9 here)"
            )
        if covariance not in _COVARIANCES:
            raise ValueError(f'covariance must be "diagonal" or "full", got {covariance!r}')
        self.num_features, self.bins = num_features, bins
        self.momentum, self.covariance = momentum, covariance
        self.clip = check_clip(clip)
        if not self.clip[0] <= 1 <= self.clip[1]:
            raise ValueError(f"clip must allow a ratio of 1, which changes nothing, got {clip}")
        self.channel_dim, self.track = channel_dim, track
        self._spread = _COVARIANCES[covariance]
        shape = self._spread.shape(num_features)
        window = to_numpy(kernel_window(kernel, size, sigma), "kernel")
        if not window[window.size // 2] > 0:
            raise ValueError(
                "the kernel must be positive in its middle, or a bin with empty neighbours would "
                f"have no statistics to take; got {window}"
            )
        self.register_buffer("window", torch.from_numpy(window).float(), persistent=False)
        self.register_buffer("count", torch.zeros(len(bins), dtype=torch.int64))
        self.register_buffer("running_mean", torch.zeros(len(bins), num_features))
        self.register_buffer("running_cov", torch.zeros(len(bins), *shape))
        # Calibration is change(z) + shift, a map per bin, frozen for an epoch.
        same = self._spread.identity(self.running_cov)
        self.register_buffer("change", same.repeat(len(bins), *[1] * same.ndim))
        self.register_buffer("shift", torch.zeros(len(bins), num_features))
        # No buffers: DistributedDataParallel overwrites those with the first process's own.
        self._epoch = Moments(len(bins), num_features, self._spread, torch.float32)

    def extra_repr(self) -> str:
        """What distinguishes this layer, for ``print``."""
        return f"{self.num_features}, {self.bins}, covariance={self.covariance!r}"

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Calibrate the features of a training batch; in evaluation mode give back ``z`` itself.

        Parameters
        ----------
        z : Tensor of shape (N, C) or (N, C, ...), features on ``channel_dim``
        y : Tensor of the shape of ``z`` without that axis
            Targets, in the unit of the bins; not needed in evaluation mode.

        Returns
        -------
        Tensor of the shape and dtype of ``z``

        Raises
        ------
        ValueError
            If shapes do not fit, ``y`` is missing in training mode, a target is NaN or infinite, or
            outside bins that refuse it.
        TypeError
            If ``z`` is not a floating-point tensor.
        """
        if not self.training:
            return z
        rows, index = self._rows(z, y)
        if self.track:
            self._take_in(rows.detach(), index)
        change, shift = (table.index_select(0, index) for table in (self.change, self.shift))
        return self._restore(self._spread.apply(change, rows.to(change.dtype), shift), z)

    @torch.no_grad()
    def observe(self, z: Tensor, y: Tensor) -> None:
        """Take features into the statistics of the epoch, in either mode, and calibrate nothing.

        Shapes and errors are those of :meth:`forward`.
        """
        self._take_in(*self._rows(z, y))

    @torch.no_grad()
    def step(self) -> None:
        """End an epoch: sum over processes, update the running statistics, smooth, and freeze them.

        Raises
        ------
        RuntimeError
            If no features were observed since the last step.
        FloatingPointError
            If features were NaN, infinite or too large to square; the statistics are then as before
            the epoch. If a layer in half precision cannot hold its statistics.
        """
        epoch = self._epoch
        epoch.to(self.running_mean.device, self._precision)
        epoch.all_reduce()
        if not epoch.count.any():
            raise RuntimeError(
                "no features were observed since the last step(): call fds(z, y) in training mode "
                "with track=True, or fds.observe(z, y), before fds.step()"
            )
        if not (epoch.mean.isfinite().all() and epoch.products.isfinite().all()):
            epoch.clear()
            raise FloatingPointError(
                "features observed in this epoch were NaN, infinite or too large to square, so the "
                "step was not taken; "
                "lower the learning rate, or look for NaN in the inputs"
            )
        with torch.autocast(self.running_mean.device.type, enabled=False):
            self._renew(epoch)
        epoch.clear()
        kept = (self.running_mean, self.running_cov, self.change, self.shift)
        if not all(table.isfinite().all() for table in kept):
            raise FloatingPointError(
                f"the statistics are beyond the range of {self.running_mean.dtype}; keep this "
                "layer in single precision: fds.float()"
            )

    @property
    def smoothed_mean(self) -> Tensor:
        """Smoothed running means, (K, C); a bin without data in its window holds zeros."""
        return self._smooth(self.running_mean.to(self._precision), self.count > 0)

    @property
    def smoothed_cov(self) -> Tensor:
        """Smoothed running variances or covariances, of the shape of ``running_cov``."""
        return self._smooth(self._own_cov(), self._varies)

    def _renew(self, epoch: Moments) -> None:
        """First the running statistics, then the calibration made of them: nothing lags."""
        self._update(epoch)
        self._freeze(self.smoothed_mean, self.smoothed_cov)

    @property
    def _precision(self) -> torch.dtype:
        """What statistics are computed in: that of the module, but ``float32`` at least."""
        return torch.promote_types(self.running_mean.dtype, torch.float32)

    @property
    def _varies(self) -> Tensor:
        """Whether a bin has a spread: not if its samples are one, perhaps shown several times."""
        return (self.count > 1) & (self.running_cov.flatten(1) != 0).any(dim=1)

    def _own_cov(self) -> Tensor:
        return self._spread.regular(self.running_cov.to(self._precision), self.count)

    def _take_in(self, rows: Tensor, index: Tensor) -> None:
        self._epoch.to(rows.device, self._precision)
        self._epoch.add(rows, index)

    def _update(self, epoch: Moments) -> None:
        for running, now, least in (
            (self.running_mean, epoch.mean, 1),
            (self.running_cov, epoch.spread, 2),
        ):
            known = (epoch.count >= least).view(-1, *[1] * (now.ndim - 1))
            before = (self.count >= least).view_as(known)
            mixed = torch.where(before, torch.lerp(now, running.to(now), self.momentum), now)
            running.copy_(torch.where(known, mixed, running.to(now)))
        self.count.copy_(torch.maximum(self.count, epoch.count))

    def _freeze(self, smoothed_mean: Tensor, smoothed_cov: Tensor) -> None:
        """Turn statistics into one map per bin: identity where a bin has none of its own."""
        met, spread = self.count > 0, self._varies
        change = self._spread.match(self._own_cov(), smoothed_cov, self.clip)
        same = self._spread.identity(change)
        change = torch.where(spread.view(-1, *[1] * same.ndim), change, same)
        shift = self._spread.apply(-change, self.running_mean.to(change), smoothed_mean.clone())
        self.change.copy_(change)
        self.shift.copy_(torch.where(met[:, None], shift, 0.0))

    def _smooth(self, values: Tensor, known: Tensor) -> Tensor:
        """Average over the window, of the bins that are known, along the axis of the bins."""
        flat = torch.where(known[:, None], values.flatten(1), 0.0)
        half = len(self.window) // 2
        padded = F.pad(torch.cat([flat, known[:, None].to(flat)], dim=1), (0, 0, half, half))
        # A convolution of torch would round to TF32 on a GPU, and to bfloat16 under autocast.
        summed = torch.zeros_like(padded[: len(flat)])
        for j, k in enumerate(self.window):
            summed += k * padded[j : j + len(flat)]
        total = summed[:, -1:]
        mean = torch.where(total > 0, summed[:, :-1] / total.clamp_min(1e-30), 0.0)
        return mean.view_as(values)

    def _rows(self, z: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Features as rows (M, C), and the bin of each (M,)."""
        if not isinstance(z, Tensor) or not z.is_floating_point():
            got = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise TypeError(
                f"z must be a floating-point tensor, got {got}; call .float() on it, or "
                "torch.as_tensor on an array"
            )
        if y is None:
            raise ValueError(
                "in training mode FDS needs the targets: fds(z, y); to predict, call eval()"
            )
        y = torch.as_tensor(y, device=z.device)
        there = -z.ndim <= self.channel_dim < z.ndim
        last = z.movedim(self.channel_dim, -1) if there else z
        if not there or last.shape != (*y.shape, self.num_features):
            raise ValueError(
                f"z has shape {tuple(z.shape)} and y {tuple(y.shape)}; z needs {self.num_features} "
                f"features on axis {self.channel_dim} (channel_dim), and y the shape of z without "
                "that axis: squeeze a trailing 1 from y, expand one label per image to the map, or "
                "resize one of the two"
            )
        return last.reshape(-1, self.num_features), self.bins.index(y.reshape(-1))

    def _restore(self, rows: Tensor, like: Tensor) -> Tensor:
        """Rows back in the shape and dtype of the features they came from."""
        shape = like.movedim(self.channel_dim, -1).shape
        return rows.to(like.dtype).view(shape).movedim(-1, self.channel_dim)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Statistics of the epoch under way, so that training resumes in its middle."""
        epoch = self._epoch
        return {
            "edges": torch.from_numpy(self.bins.edges.copy()),
            "window": self.window.clone(),
            "count": epoch.count.clone(),
            "mean": epoch.mean.clone(),
            "products": epoch.products.clone(),
        }

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take up the statistics of an epoch under way.

        Raises
        ------
        ValueError
            If they are of other bins or of another kernel, whose calibration would be kept.
        """
        edges = torch.from_numpy(self.bins.edges.copy())
        for name, mine in (("edges", edges), ("window", self.window.cpu().float())):
            theirs = state[name].cpu().to(mine.dtype)
            # To two digits: the state may have been kept in half precision.
            if theirs.shape != mine.shape or not torch.allclose(theirs, mine, rtol=1e-2):
                raise ValueError(
                    f"the saved state is of an FDS layer with another {name}, {theirs.tolist()}, "
                    f"than this one, {mine.tolist()}; make the layer with the same bins and kernel"
                )
        for name in ("count", "mean", "products"):
            if state[name].shape != getattr(self._epoch, name).shape:
                raise ValueError(
                    f"the saved state is of an FDS layer whose {name} has shape "
                    f"{tuple(state[name].shape)}, here it is "
                    f"{tuple(getattr(self._epoch, name).shape)}; make the layer with the same "
                    "num_features and covariance"
                )
        for name in ("count", "mean", "products"):
            setattr(self._epoch, name, state[name].clone())

"""Momentum contrast (He et al. 2020): many negatives from a queue, by an encoder that lags."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from dirlearn.contrast import check_temperature, info_nce, unit
from dirlearn.retrain import Frozen
from dirlearn.ssp import projection_head


class MoCo(nn.Module):
    r"""An encoder that learns to find an image's key among those of many earlier images.

    Called with two views of a batch of images, it gives :func:`dirlearn.info_nce` of the queries,
    which the encoder makes of the first view, and the keys, which a second encoder makes of the
    second; the negatives are the keys of earlier batches. In training mode each call then

    - has first moved the key encoder, :math:`\theta_k \leftarrow m\,\theta_k + (1 - m)\,\theta_q`
      (He et al. 2020, (2)), so that keys of different age are comparable;
    - puts its keys in the place of the oldest in the queue.

    In evaluation mode it only gives the loss. When trained, take ``encoder``.

    Parameters
    ----------
    encoder : Module
        Maps images (N, C, H, W) to features (N, D); must have the attribute ``num_features`` = D.
        It is copied for the keys.
    dim : int
        Width of the projections. Default 128 (the paper's).
    queue_size : int
        Keys held, a multiple of the batch size. Default 65536 (the paper's, for a million images).
        With few images take fewer: a queue that holds all of them counts an image's own older keys
        among its negatives.
    momentum : float
        m, at least 0 and below 1. Default 0.999 (the paper's, for hundreds of thousands of steps);
        1 / (1 - m) is the number of steps that the key encoder lags behind.
    temperature : float
        Default 0.2 (MoCo v2, and the released code of Yang and Xu 2020).

    Attributes
    ----------
    encoder, head : Module
        What is trained: the features, and two layers from them to the queries (MoCo v2).
    key : Module
        The lagging copy of both. Its weights are buffers: in the state dict, but not among
        ``parameters()``, so that no optimizer holds them.
    queue : tensor of shape (queue_size, dim)
        Keys of length 1; random directions at first.
    position : integer tensor
        Place in the queue of the oldest key, which goes next.

    Raises
    ------
    ValueError
        If a setting is out of its range, or a batch normalisation of the encoder keeps no running
        statistics; at a call, if views differ in shape, or ``queue_size`` is
        not a multiple of the batch; and as :func:`dirlearn.info_nce`.
    TypeError
        If the encoder does not say how many features it gives, or ``temperature`` is no number.
    RuntimeError
        At a call in training among several processes, each of which would have a queue of its own.

    Notes
    -----
    Batch normalisation can betray which key belongs to which query, since both carry the statistics
    of their batch. He et al. shuffle keys between GPUs, which needs several. Here the key encoder
    stays in evaluation mode: a key depends on its image alone. Its batch normalisation uses running
    statistics that are themselves moving averages of the encoder's, at the same momentum m (Cai et
    al. 2021, "Exponential Moving Average Normalization"). Dropout is off in it.

    Examples
    --------
    >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    >>> encoder.num_features = 8
    >>> model, images = MoCo(encoder, dim=4, queue_size=20), torch.rand(5, 1, 4, 4)
    >>> model(images, images.flip(-1)).shape, int(model.position)
    (torch.Size([]), 5)

    Derived in the chapter *Self-supervised pre-training*.
    """

    queue: Tensor
    position: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        dim: int = 128,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        if not 0 <= momentum < 1:
            raise ValueError(
                f"momentum must be at least 0 and below 1, got {momentum}; at 1 the key encoder "
                "would never move"
            )
        if queue_size < 1 or dim < 2:
            raise ValueError(
                f"queue_size must be 1 or more and dim 2 or more, got {queue_size} and {dim}"
            )
        for name, part in encoder.named_modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
                raise ValueError(
                    f"encoder.{name} keeps no running statistics, so that keys would carry those "
                    "of their batch; give it track_running_stats=True"
                )
        self.encoder = encoder
        self.head = projection_head(encoder, dim)
        self.key = Frozen(_buffers_only(deepcopy(nn.Sequential(encoder, self.head))))
        self.momentum, self.temperature = momentum, temperature
        self.register_buffer("queue", unit(torch.randn(queue_size, dim)))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Loss of two views of a batch of images, each (N, C, H, W)."""
        if query.shape != key.shape or not len(query):
            raise ValueError(
                f"query and key must be two views of one batch of images, got shapes "
                f"{tuple(query.shape)} and {tuple(key.shape)}"
            )
        if len(self.queue) % len(query):
            raise ValueError(
                f"queue_size must be a multiple of the batch, got {len(self.queue)} and "
                f"{len(query)} images; choose another of the two, and let the loader leave out a "
                "last, short batch (drop_last=True)"
            )
        if self.training:
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                raise RuntimeError("MoCo keeps one queue, in one process; train it in one")
            self._follow()
        q, k = self.head(self.encoder(query)), self.key(key)
        # A copy: the backward pass needs the queue as it is now.
        loss = info_nce(q, k.to(q.dtype), self.temperature, self.queue.clone())
        if self.training:
            self._enqueue(k)
        return loss

    def extra_repr(self) -> str:
        """Show the settings when printed."""
        size, dim = self.queue.shape
        return (
            f"dim={dim}, queue_size={size}, momentum={self.momentum:g}, "
            f"temperature={self.temperature:g}"
        )

    @torch.no_grad()
    def _follow(self) -> None:
        """Move weights and running statistics of the key encoder towards the encoder's."""
        ahead = nn.Sequential(self.encoder, self.head).state_dict()
        for name, mine in self.key.module.state_dict().items():  # shares the memory
            if mine.is_floating_point():
                mine.lerp_(ahead[name].to(mine.dtype), 1 - self.momentum)
            else:  # a number of batches
                mine.copy_(ahead[name])

    @torch.no_grad()
    def _enqueue(self, keys: Tensor) -> None:
        places = (self.position + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = unit(keys).to(self.queue.dtype)
        self.position.add_(len(keys)).remainder_(len(self.queue))


def _buffers_only(module: nn.Module) -> nn.Module:
    """Make buffers of all parameters, in place."""
    for part in module.modules():
        for name, parameter in [*part.named_parameters(recurse=False)]:
            delattr(part, name)
            part.register_buffer(name, parameter.detach().clone())
    return module

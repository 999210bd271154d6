"""Small encoders and heads, kept apart so that methods can act on the features between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

from torch import Tensor, nn


class Regressor(nn.Module):
    """An encoder, then a linear head whose output is scaled to the unit of the target.

    Parameters
    ----------
    encoder : Module
        Maps inputs (N, ...) to features (N, D); must have the attribute ``num_features`` = D.
    offset, scale : float
        The prediction is ``offset + scale * head(features)``; take the middle and about a quarter
        of the target's range, so that the head starts in the right place.
    fds : Module, optional
        Called as ``fds(features, y)`` between encoder and head, such as :class:`dirlearn.FDS`.

    Called with inputs alone the model gives predictions of shape (N,). Called with inputs and
    targets, as in training, it gives predictions and features, the features as the encoder made
    them, and the predictions from what ``fds`` made of them.

    Examples
    --------
    >>> import torch
    >>> model = Regressor(conv_encoder(), offset=50.0, scale=25.0)
    >>> model(torch.zeros(8, 1, 28, 28)).shape
    torch.Size([8])
    >>> prediction, features = model(torch.zeros(8, 1, 28, 28), torch.zeros(8))
    >>> features.shape
    torch.Size([8, 64])
    """

    def __init__(
        self, encoder: nn.Module, offset: float, scale: float, fds: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(int(encoder.num_features), 1)  # type: ignore[arg-type]  # an int, not a module
        self.fds = fds
        self.offset, self.scale = offset, scale

    @overload
    def forward(self, x: Tensor) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]: ...

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        features: Tensor = self.encoder(x)
        if y is None and (self.fds is None or not self.training):
            return self._predict(features)
        calibrated = features if self.fds is None else self.fds(features, y)  # refuses no y
        return self._predict(calibrated), features

    def _predict(self, features: Tensor) -> Tensor:
        prediction: Tensor = self.offset + self.scale * self.head(features).squeeze(-1)
        return prediction


class Classifier(nn.Module):
    """An encoder, then a head with one logit per class.

    Parameters
    ----------
    encoder : Module
        As in :class:`Regressor`.
    classes : int
    head : callable
        ``head(num_features, classes)``, a module; by default a linear layer.

    Examples
    --------
    >>> import torch
    >>> Classifier(conv_encoder(), classes=100)(torch.zeros(8, 1, 28, 56)).shape
    torch.Size([8, 100])
    """

    def __init__(
        self,
        encoder: nn.Module,
        classes: int,
        head: Callable[[int, int], nn.Module] = nn.Linear,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head(int(encoder.num_features), classes)  # type: ignore[arg-type]  # as above

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(x))
        return logits


class Encoder(nn.Sequential):
    """Layers in sequence that say how many features they give."""

    def __init__(self, *layers: nn.Module, num_features: int) -> None:
        super().__init__(*layers)
        self.num_features = num_features


def conv_encoder(
    num_features: int = 64, last: nn.Module | None = None, channels: int = 1
) -> Encoder:
    """Three convolutions, a linear layer and a ``last`` one, for small images of any size.

    ``last`` is by default a ReLU, so that no feature is negative. Grey images have one channel.

    Examples
    --------
    >>> sum(p.numel() for p in conv_encoder().parameters())
    60608
    """
    return Encoder(
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.AdaptiveMaxPool2d(3),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(576, num_features),
        nn.ReLU() if last is None else last,
        num_features=num_features,
    )


def table_encoder(inputs: int, num_features: int = 64, dropout: float = 0.0) -> Encoder:
    """Two hidden layers for a table of ``inputs`` columns, with dropout between them, if any.

    Examples
    --------
    >>> import torch
    >>> table_encoder(9)(torch.zeros(4, 9)).shape
    torch.Size([4, 64])
    """
    return Encoder(
        nn.Linear(inputs, 128),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(128, num_features),
        nn.ReLU(),
        num_features=num_features,
    )

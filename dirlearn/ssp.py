"""Self-supervised pre-training: tasks that an encoder learns from images without their labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dirlearn.contrast import check_temperature, nt_xent


def rotate_batch(x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    r"""Turn each image by 0, 90, 180 or 270 degrees at random, and say by which.

    The pretext task of Gidaris et al. (2018): a network that can tell how an image was turned has
    learned what upright things look like, and needed no label for it. One turn for each image, as
    in Yang and Xu (2020), whose code deals the four out evenly within a batch; Gidaris et al. put
    all four turns of an image into it.

    Parameters
    ----------
    x : tensor of shape (N, C, H, H)
        Images, of any dtype, as high as wide.
    generator : torch.Generator, optional
        Draws the turns; by default torch's global generator of the images' device.

    Returns
    -------
    images : tensor of shape (N, C, H, H)
        ``torch.rot90(x[i], labels[i], dims=(-2, -1))``, counter-clockwise; a new tensor.
    labels : integer tensor of shape (N,)
        Number of quarter turns, each of 0 to 3 with the same probability.

    Raises
    ------
    ValueError
        If images are not square, there is none, or ``x`` has not four dimensions.
    TypeError
        If ``x`` is not a tensor, or ``generator`` is a seed.

    Examples
    --------
    >>> image = torch.tensor([[[[1, 2], [3, 4]]]])
    >>> images, labels = rotate_batch(image, torch.Generator().manual_seed(1))
    >>> labels, images[0, 0]
    (tensor([1]), tensor([[2, 4],
            [1, 3]]))

    Derived in the chapter *Self-supervised pre-training*.
    """
    _check_images(x)
    if x.shape[-1] != x.shape[-2]:
        raise ValueError(
            f"images must be as high as wide, for a quarter turn swaps the two, got "
            f"{x.shape[-2]} x {x.shape[-1]}; crop or pad them"
        )
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {type(generator).__name__}; "
            "torch.Generator().manual_seed(0) makes one"
        )
    device = x.device if generator is None else generator.device
    labels = torch.randint(4, (len(x),), generator=generator, device=device).to(x.device)
    images = x.clone()
    for turns in (1, 2, 3):  # without waiting for an accelerator to say which are turned
        mine = (labels == turns)[:, None, None, None]
        images = torch.where(mine, torch.rot90(x, turns, dims=(-2, -1)), images)
    return images, labels


class RotationPrediction(nn.Module):
    """An encoder, then a linear head that says by how many quarter turns an image was rotated.

    Train it with the cross-entropy on what :func:`rotate_batch` gives, then take ``encoder``.

    Parameters
    ----------
    encoder : Module
        Maps images (N, C, H, W) to features (N, D); must have the attribute ``num_features`` = D.

    Raises
    ------
    TypeError
        If the encoder does not say how many features it gives.

    Examples
    --------
    >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    >>> encoder.num_features = 8
    >>> task = RotationPrediction(encoder)
    >>> images, labels = rotate_batch(torch.rand(5, 1, 4, 4))
    >>> nn.functional.cross_entropy(task(images), labels).shape
    torch.Size([])

    Derived in the chapter *Self-supervised pre-training*.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(features_of(encoder), 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the four turns, (N, 4)."""
        logits: Tensor = self.head(self.encoder(x))
        return logits


class SimCLR(nn.Module):
    """An encoder and a projection head that learn to tell images apart (Chen et al. 2020).

    Called with two views of a batch of images, it gives the loss, :func:`dirlearn.nt_xent` of their
    projections. When trained, take ``encoder``: features before the head serve better than behind.

    Parameters
    ----------
    encoder : Module
        Maps images (N, C, H, W) to features (N, D); must have the attribute ``num_features`` = D.
    dim : int
        Width of the projections. Default 128 (the paper's).
    temperature : float
        Of the loss. Default 0.5 (the paper's appendix B.9, CIFAR-10).

    Raises
    ------
    TypeError
        If the encoder does not say how many features it gives, or ``temperature`` is no number.
    ValueError
        If ``temperature`` is not positive and finite; at a call, if views differ in shape; and as
        :func:`dirlearn.nt_xent`.

    Notes
    -----
    Both views of all images go through the encoder in one batch, so that batch normalisation sees
    them together and cannot tell the first views from the second.

    Examples
    --------
    >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    >>> encoder.num_features = 8
    >>> model, images = SimCLR(encoder), torch.rand(5, 1, 4, 4)
    >>> model(images, images.flip(-1)).shape
    torch.Size([])

    Derived in the chapter *Self-supervised pre-training*.
    """

    def __init__(self, encoder: nn.Module, dim: int = 128, temperature: float = 0.5) -> None:
        super().__init__()
        check_temperature(temperature)
        self.encoder = encoder
        self.head = projection_head(encoder, dim)
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of two views of a batch of images, each (N, C, H, W)."""
        if first.shape != second.shape:  # or the halves below would not be the two views
            raise ValueError(
                "first and second must be two views of one batch of images, got shapes "
                f"{tuple(first.shape)} and {tuple(second.shape)}"
            )
        one, other = self.head(self.encoder(torch.cat([first, second]))).chunk(2)
        return nt_xent(one, other, self.temperature)


def projection_head(encoder: nn.Module, dim: int) -> nn.Sequential:
    """Two layers from the features to ``dim`` numbers, on which a contrastive loss looks.

    Examples
    --------
    >>> encoder = nn.Linear(2, 8)
    >>> encoder.num_features = 8
    >>> projection_head(encoder, 4)[-1]
    Linear(in_features=8, out_features=4, bias=True)
    """
    width = features_of(encoder)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))


def features_of(encoder: Any) -> int:
    """Say how many features an encoder gives: its ``num_features``.

    Examples
    --------
    >>> features_of(nn.Linear(2, 3))
    Traceback (most recent call last):
    TypeError: encoder must say how many features it gives; set encoder.num_features, an int
    """
    width = getattr(encoder, "num_features", None)
    if not isinstance(encoder, nn.Module) or not isinstance(width, int):
        raise TypeError(
            "encoder must say how many features it gives; set encoder.num_features, an int"
        )
    return width


def _check_images(x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor of images, got {type(x).__name__}")
    if x.ndim != 4 or x.numel() == 0:
        raise ValueError(
            f"x must hold images of shape (N, C, H, W), one at least, got {tuple(x.shape)}; add "
            "the channel of grey ones with x[:, None]"
        )

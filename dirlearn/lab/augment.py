"""Two random views of each image of a batch, made at once and on the device of the training.

The affine part is torch's ``affine_grid`` and ``grid_sample``: kornia (0.9.0) draws from torch's
global state alone, so that no generator could be saved, and its ``RandomGrayscale`` raises.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R BT.601)


@dataclass(frozen=True)
class Views:
    """Draw two views of each image: an ``augment`` of :func:`dirlearn.lab.training.fit`.

    Each view has its own crop, turn and jitter. Called with images (N, C, H, W) in [0, 1] and a
    generator, it gives (N, 2, C, H, W) in [0, 1].

    Parameters
    ----------
    zoom : float
        Smallest side of the crop as a share of the image's; drawn between it and 1.
    turn : float
        Largest turn, in degrees, either way.
    brightness, contrast, saturation : float
        A factor between 1 minus this and 1 plus this scales the image, its distance from its mean,
        and (in colour) its distance from grey.
    flip : bool
        Mirror half of the views, left to right.
    grey : float
        Share of the views whose colour is taken away.

    Examples
    --------
    >>> views = GREY(torch.rand(5, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> views.shape
    torch.Size([5, 2, 1, 28, 28])
    >>> COLOUR(torch.rand(5, 3, 32, 32), torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2, 3, 32, 32])

    Used in the chapter *Self-supervised pre-training*.
    """

    zoom: float = 0.6
    turn: float = 15.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.0
    flip: bool = False
    grey: float = 0.0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Two views of each image."""
        twice = images.repeat_interleave(2, dim=0)
        moved = self._moved(twice, generator)
        jittered = self._jittered(moved, generator)
        return jittered.reshape(len(images), 2, *images.shape[1:])

    def _moved(self, x: Tensor, generator: torch.Generator) -> Tensor:
        angle = torch.deg2rad(_uniform(x, generator, -self.turn, self.turn))
        side = _uniform(x, generator, self.zoom, 1.0)
        mirror = torch.ones_like(side)
        if self.flip:
            mirror = torch.where(_uniform(x, generator, 0.0, 1.0) < 0.5, -mirror, mirror)
        cos, sin = side * angle.cos(), side * angle.sin()
        # Where the crop's middle is, so that it stays inside.
        across = (1 - side) * _uniform(x, generator, -1.0, 1.0)
        down = (1 - side) * _uniform(x, generator, -1.0, 1.0)
        first = torch.stack([mirror * cos, -sin, across], dim=1)
        second = torch.stack([mirror * sin, cos, down], dim=1)
        rows = torch.stack([first, second], dim=1)
        grid = F.affine_grid(rows, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    def _jittered(self, x: Tensor, generator: torch.Generator) -> Tensor:
        def factor(spread: float) -> Tensor:
            return _uniform(x, generator, 1 - spread, 1 + spread)[:, None, None, None]

        x = x * factor(self.brightness)
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = mean + factor(self.contrast) * (x - mean)
        if self.saturation or self.grey:
            grey = torch.einsum("nchw,c->nhw", x, x.new_tensor(LUMA))[:, None]
            keep = _uniform(x, generator, 0.0, 1.0)[:, None, None, None] >= self.grey
            x = grey + factor(self.saturation) * keep * (x - grey)
        return x.clamp(0, 1)


GREY = Views()
COLOUR = Views(turn=0.0, saturation=0.4, flip=True, grey=0.2)  # after Chen et al. (2020)


def _uniform(x: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """One number for each image, drawn where the generator lives."""
    drawn = torch.rand(len(x), generator=generator, device=generator.device, dtype=x.dtype)
    return (low + (high - low) * drawn).to(x.device)

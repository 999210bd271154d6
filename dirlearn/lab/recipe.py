"""How the long-tailed benchmarks of photographs are trained: crops, flips, SGD and its steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dirlearn.lab.training import shift

# Mean and spread of CIFAR-10's channels as the benchmarks' code has them; the spread is a mean of
# the images' own, less than that of all pixels (0.247, 0.243, 0.262).
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cut each image (N, C, H, W) out of a black frame of 4 pixels, and mirror half of them.

    All at once and on the device of the images: an ``augment`` of
    :func:`dirlearn.lab.training.fit`.

    Examples
    --------
    >>> crop_and_flip(torch.ones(2, 3, 32, 32), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 32, 32])
    """
    cropped = shift(images, generator, pixels=4)
    coins = torch.rand(len(images), generator=generator, device=generator.device)
    mirror = (coins < 0.5).to(images.device)[:, None, None, None]
    return torch.where(mirror, cropped.flip(-1), cropped)


def sgd(parameters: Iterator[nn.Parameter]) -> Optimizer:
    """Momentum 0.9, learning rate 0.1, weight decay 0.0002: the settings of Yang & Xu (2020)."""
    return SGD(parameters, lr=0.1, momentum=0.9, weight_decay=2e-4)


def staircase(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Warm up over 5 of 200 epochs; a hundredth of the rate after 160, a ten-thousandth after 180.

    The schedule of Yang & Xu (2020) and Cao et al. (2019), stretched to ``steps``. The released
    code of the former asks for the 160 first, so that its second step down never comes.

    Examples
    --------
    >>> optimizer = sgd(iter([nn.Parameter(torch.zeros(1))]))
    >>> f"{staircase(optimizer, steps=200).get_last_lr()[0]:.2f}"
    '0.02'
    """

    def factor(step: int) -> float:
        epoch = min(200 * step // steps, 199) + 1  # of 200, counted from 1
        if epoch <= 5:
            return epoch / 5
        return 1e-4 if epoch > 180 else 1e-2 if epoch > 160 else 1.0

    return LambdaLR(optimizer, factor)


class Standardised(nn.Module):
    """An encoder that first subtracts each channel's mean and divides by its spread.

    Examples
    --------
    >>> from dirlearn.lab.resnet import cifar_resnet
    >>> Standardised(cifar_resnet(8), CIFAR_MEAN, CIFAR_STD)(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 64])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_features = encoder.num_features
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.encoder((x - self.mean) / self.std)
        return features

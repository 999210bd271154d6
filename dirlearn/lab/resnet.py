"""ResNet-32 for photographs of 32 by 32 pixels, the network of the long-tailed benchmarks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dirlearn.lab.models import Encoder


def cifar_resnet(depth: int = 32, channels: int = 3) -> Encoder:
    """The residual network of He et al. (2016), section 4.2, without its last layer.

    A convolution, then three stages of 2n + 2n + 2n convolutions of 16, 32 and 64 filters, where
    ``depth`` = 6n + 2, at full, half and a quarter of the resolution; then the mean over the
    picture. Shortcuts are their option A: where a stage begins, they skip every other pixel, fill
    the new channels with zeros and have no parameters. Weights are drawn as by He et al. (2015).

    With a linear layer for ten classes, depth 32 has the 0.46 million parameters of their table 6.

    Returns
    -------
    encoder : Module
        Images (N, ``channels``, H, W) to features (N, 64); ``num_features`` is 64.

    Raises
    ------
    ValueError
        If ``depth`` is not 8, 14, 20, ...: 6n + 2.

    Examples
    --------
    >>> sum(p.numel() for p in cifar_resnet().parameters()) + 64 * 10 + 10  # and a head
    464154

    Used in the chapter *Self-supervised pre-training*.
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise ValueError(f"depth must be 6n + 2, such as 20 or 32, got {depth}")
    layers: list[nn.Module] = [
        nn.Conv2d(channels, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    width = 16
    for planes in (16, 32, 64):
        for place in range(blocks):
            stride = 2 if planes > 16 and place == 0 else 1
            layers.append(_Block(width, planes, stride))
            width = planes
    encoder = Encoder(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), num_features=64)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return encoder


class _Block(nn.Module):
    """Two convolutions, and a shortcut around them."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new = stride, planes - inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, planes, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(),
            nn.Conv2d(planes, planes, 3, padding=1, bias=False),
            nn.BatchNorm2d(planes),
        )

    def forward(self, x: Tensor) -> Tensor:
        # Half of the new channels before the old ones and half after, as the released code has it.
        padding = (0, 0, 0, 0, self.new // 2, self.new - self.new // 2)
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], padding)
        return F.relu(self.body(x) + shortcut)

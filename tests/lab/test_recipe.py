from __future__ import annotations

import pytest
import torch
from torch import nn

from dirlearn.lab.recipe import CIFAR_MEAN, CIFAR_STD, Standardised, crop_and_flip, sgd, staircase


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def test_each_image_is_one_of_the_crops_or_its_mirror():
    """Against an explicit loop over the 81 crops of the padded image and their mirrors."""
    images = torch.rand(12, 3, 8, 8, generator=generator(1))
    out = crop_and_flip(images, generator())
    padded = nn.functional.pad(images, (4,) * 4)
    flips = 0
    for image, got in zip(padded, out, strict=True):
        crops = [image[:, i : i + 8, j : j + 8] for i in range(9) for j in range(9)]
        plain = any(torch.equal(got, crop) for crop in crops)
        mirrored = any(torch.equal(got, crop.flip(-1)) for crop in crops)
        assert plain != mirrored
        flips += mirrored
    assert 0 < flips < 12


def test_half_are_mirrored_and_every_crop_is_drawn():
    image = torch.zeros(4000, 1, 9, 9)
    image[:, 0, 4, 4] = 1
    image[:, 0, 4, 5] = 0.5  # right of the bright one, unless mirrored
    out = crop_and_flip(image, generator())
    # A crop may cut either off; where both remain, their order tells.
    place = out[:, 0].flatten(1).argmax(dim=1)
    assert len(place[out.amax(dim=(1, 2, 3)) == 1].unique()) == 81
    left = nn.functional.pad(out, (1, 0))[:, 0, :, :9].flatten(1).gather(1, place[:, None])[:, 0]
    right = nn.functional.pad(out, (0, 1))[:, 0, :, 1:].flatten(1).gather(1, place[:, None])[:, 0]
    mirrored, plain = (left == 0.5).sum(), (right == 0.5).sum()
    assert float(mirrored / (mirrored + plain)) == pytest.approx(0.5, abs=0.04)


def test_the_generator_decides(device):
    images = torch.rand(6, 3, 8, 8).to(device)
    first, again = (crop_and_flip(images, generator(2, device)) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, crop_and_flip(images, generator(3, device)))
    assert first.device.type == torch.device(device).type


@pytest.mark.parametrize("per_epoch", [1, 7, 110])
def test_rates_are_those_of_the_epochs(per_epoch):
    optimizer = sgd(iter([nn.Parameter(torch.zeros(1))]))
    schedule = staircase(optimizer, 200 * per_epoch)
    expected = {1: 0.02, 2: 0.04, 5: 0.1, 6: 0.1, 160: 0.1, 161: 1e-3, 180: 1e-3, 181: 1e-5}
    for epoch in range(1, 201):
        for _ in range(per_epoch):
            if epoch in expected:
                assert optimizer.param_groups[0]["lr"] == pytest.approx(expected[epoch])
            optimizer.step()
            schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-5)  # and stays there


def test_settings_are_those_of_the_paper():
    group = sgd(iter([nn.Parameter(torch.zeros(1))])).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 2e-4)


def test_standardised_channels(device):
    encoder = nn.Identity()
    encoder.num_features = 3
    x = torch.rand(5, 3, 4, 4, device=device)
    out = Standardised(encoder, CIFAR_MEAN, CIFAR_STD).to(device)(x)
    for c in range(3):
        torch.testing.assert_close(out[:, c], (x[:, c] - CIFAR_MEAN[c]) / CIFAR_STD[c])

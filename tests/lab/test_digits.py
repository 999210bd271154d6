from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate as scipy_rotate

from dirlearn.lab.digits import digit_pools, rotate


def test_pools_split_every_digit_alike_and_share_no_image():
    pools, labels = digit_pools(), digit_pools(labels=True)
    for part, number in (("train", 300), ("val", 50), ("test", 150)):
        assert torch.bincount(labels[part]).tolist() == [number] * 10
    images = torch.cat(list(pools.values())).flatten(1)
    assert len(images) == 5000
    assert len(np.unique(images.numpy(), axis=0)) == len(images)


def test_images_belong_to_their_labels():
    # Ones have the least ink and zeros the most, in every pool.
    pools, labels = digit_pools(), digit_pools(labels=True)
    for part, images in pools.items():
        ink = [float(images[labels[part] == digit].mean()) for digit in range(10)]
        assert int(np.argmin(ink)) == 1
        assert int(np.argmax(ink)) == 0


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_quarter_turns_are_exact(quarter_turns):
    images = torch.rand(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    turned = rotate(images, torch.full((3,), 90.0 * quarter_turns))
    expected = torch.rot90(images, quarter_turns, dims=(2, 3))
    torch.testing.assert_close(turned, expected, atol=1e-4, rtol=0)


def test_odd_angles_agree_with_scipy():
    image = digit_pools()["train"][0, 0]
    turned = rotate(image[None, None], torch.tensor([33.0]))[0, 0]
    expected = scipy_rotate(image.numpy(), 33.0, reshape=False, order=1)
    assert np.abs(turned.numpy() - expected).max() < 0.02


def test_each_image_gets_its_own_angle():
    images = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    turned = rotate(images, torch.tensor([0.0, 90.0]))
    torch.testing.assert_close(turned[0], images[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(turned[1], images[1].rot90(1, (1, 2)), atol=1e-5, rtol=0)

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from dirlearn.lab.augment import COLOUR, GREY, LUMA, Views

STILL = Views(zoom=1.0, turn=0.0, brightness=0.0, contrast=0.0)
EVERY = pytest.mark.parametrize("views", [GREY, COLOUR], ids=["grey", "colour"])


def images(n=8, channels=3, side=12, device="cpu"):
    drawn = torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1))
    return drawn.to(device)


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def only(**settings):
    return dataclasses.replace(STILL, **settings)


def test_without_any_change_both_views_are_the_image(device):
    x = images(device=device)
    views = STILL(x, seeded())
    assert views.shape == (8, 2, 3, 12, 12)
    for place in (0, 1):
        assert_close(views[:, place], x)


@EVERY
def test_views_differ_from_each_other_and_from_image_to_image(views):
    same = images(1).expand(6, -1, -1, -1)
    flat = views(same, seeded()).flatten(0, 1).flatten(1)
    apart = torch.cdist(flat, flat) + torch.eye(12)
    assert apart.min() > 0.01


@EVERY
def test_the_generator_decides_alone(views, device):
    x = images(device=device)
    state = torch.get_rng_state()
    first, again, other = (views(x, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@EVERY
def test_the_range_is_kept_and_the_batch_unwritten(views):
    x = images(50)
    before = x.clone()
    seen = views(x, seeded())
    assert torch.equal(x, before)
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert 0.3 < seen.std() / x.std() < 1.5


def test_the_grey_views_serve_one_channel():
    assert GREY(images(channels=1), seeded()).shape == (8, 2, 1, 12, 12)


def test_a_flip_mirrors_half_of_the_views():
    x = images(400, channels=1, side=4)
    views = only(flip=True)(x, seeded())
    mirrored = torch.isclose(views, x.flip(-1)[:, None], atol=1e-5).flatten(2).all(dim=2)
    kept = torch.isclose(views, x[:, None], atol=1e-5).flatten(2).all(dim=2)
    assert (mirrored ^ kept).all()
    assert 0.43 < mirrored.float().mean() < 0.57
    assert (mirrored[:, 0] != mirrored[:, 1]).any()  # one view without the other


def test_a_turn_is_as_large_as_asked_and_crops_stay_inside():
    """Ramps along both axes, from -1 to 1: a view's middle says where it looks, its slope how."""
    line = (torch.arange(41.0) - 20) * 2 / 41
    across, down = torch.meshgrid(line, line, indexing="xy")
    ramps = torch.stack([across, down])[None].expand(300, 2, 41, 41)

    def seen(views):
        out = views._moved(ramps.repeat_interleave(2, dim=0), seeded())
        right = out[:, :, 20, 21] - out[:, :, 20, 19]  # of two pixels to the right
        return right * 41 / 4, out[:, :, 20, 20]

    step, _ = seen(only(turn=30.0))
    angle = torch.rad2deg(torch.atan2(step[:, 1], step[:, 0]))
    assert 25 < angle.max() <= 30.01
    assert -30.01 <= angle.min() < -25
    assert_close(step.norm(dim=1), torch.ones(600), rtol=1e-3, atol=1e-3)
    step, middle = seen(only(zoom=0.5))
    side = step.norm(dim=1)
    assert 0.49 < side.min() < 0.55
    assert 0.95 < side.max() < 1.001
    assert (middle.abs() <= 1 - side[:, None] + 1e-3).all()  # the crop does not leave the image
    assert middle.abs().max() > 0.4


def test_jitter_scales_brightness_contrast_and_colour():
    x = 0.25 + images(300, side=4) / 4  # far from where it would be cut off
    bright = only(brightness=0.4)(x, seeded())[:, 0]
    assert_close(bright / x, (bright / x)[:, :1, :1, :1].expand_as(x))
    factor = (bright / x)[:, 0, 0, 0]
    assert 0.6 <= factor.min() < 0.65
    assert 1.35 < factor.max() <= 1.4
    contrast = only(contrast=0.4)(x, seeded())[:, 0]
    assert_close(contrast.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3)))
    spread = contrast.std(dim=(1, 2, 3)) / x.std(dim=(1, 2, 3))
    assert 0.6 <= spread.min() < 0.65
    colour = only(saturation=0.4)(x, seeded())[:, 0]
    luma = torch.tensor(LUMA)[:, None, None]
    assert_close((colour * luma).sum(dim=1), (x * luma).sum(dim=1))  # as bright as before
    assert not torch.allclose(colour, x, atol=0.01)


def test_grey_takes_the_colour_from_a_share_of_the_views():
    views = only(grey=0.3)(images(500, side=4), seeded())
    colourless = (views.amax(dim=2) - views.amin(dim=2)).flatten(2).amax(dim=2) < 1e-6
    assert 0.25 < colourless.float().mean() < 0.35

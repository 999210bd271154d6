import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn
from torch.testing import assert_close

from dirlearn import RotationPrediction, SimCLR, nt_xent, rotate_batch


def encoder(side=6, features=8):
    made = nn.Sequential(nn.Flatten(), nn.Linear(side * side, features), nn.ReLU())
    made.num_features = features
    return made


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


# ---- rotate_batch


@given(n=st.integers(1, 9), channels=st.integers(1, 3), side=st.integers(1, 7))
def test_each_image_is_turned_by_its_label(n, channels, side):
    x = torch.arange(n * channels * side**2).reshape(n, channels, side, side)
    images, labels = rotate_batch(x, seeded())
    for image, turned, label in zip(x, images, labels, strict=True):
        assert torch.equal(turned, torch.rot90(image, int(label), dims=(-2, -1)))
        assert np.array_equal(turned, np.rot90(image.numpy(), int(label), axes=(1, 2)))
    assert (images.dtype, labels.dtype) == (x.dtype, torch.int64)


def test_turns_are_uniform_and_independent_of_their_place():
    _, labels = rotate_batch(torch.zeros(8000, 1, 2, 2), seeded())
    assert chisquare(torch.bincount(labels, minlength=4)).pvalue > 0.01
    pairs = torch.bincount(4 * labels[0::2] + labels[1::2], minlength=16)
    assert chisquare(pairs).pvalue > 0.01


def test_the_generator_decides_and_the_global_one_is_left_alone(device):
    x = torch.rand(50, 1, 4, 4, device=device)
    state = torch.get_rng_state()
    first, again, other = (rotate_batch(x, seeded(s))[1] for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    one = rotate_batch(x)[1]
    torch.manual_seed(1)
    assert torch.equal(rotate_batch(x)[1], one)


def test_the_input_is_not_written_to_and_its_layout_does_not_matter():
    x = torch.rand(20, 3, 4, 4)
    before, strange = x.clone(), x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    images, _ = rotate_batch(x, seeded())
    images.zero_()
    assert torch.equal(x, before)
    assert torch.equal(rotate_batch(strange, seeded())[0], rotate_batch(x, seeded())[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64, torch.bool])
def test_any_type_is_turned(dtype):
    x = torch.eye(3).expand(4, 1, 3, 3).to(dtype)
    assert rotate_batch(x, seeded())[0].dtype == dtype


def test_what_cannot_be_turned_is_refused():
    with pytest.raises(ValueError, match=r"as high as wide.* got 4 x 5"):
        rotate_batch(torch.zeros(2, 1, 4, 5))
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\).*got \(2, 4, 4\)"):
        rotate_batch(torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match=r"one at least, got \(0, 1, 4, 4\)"):
        rotate_batch(torch.zeros(0, 1, 4, 4))
    with pytest.raises(TypeError, match="a tensor of images, got ndarray"):
        rotate_batch(np.zeros((2, 1, 4, 4)))


# ---- RotationPrediction


def test_rotations_are_learned_from_images_that_have_an_up(device):
    """A bright edge on top tells the turn; a disc, which has none, tells nothing."""
    edge = torch.zeros(64, 1, 6, 6, device=device)
    edge[:, :, 0] = 1
    model = RotationPrediction(encoder()).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(60):
        images, labels = rotate_batch(edge, seeded(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    images, labels = rotate_batch(edge, seeded(99))
    assert (model(images).argmax(dim=1) == labels).all()


@pytest.mark.parametrize("made", [RotationPrediction, SimCLR])
def test_the_encoder_is_the_callers_own_and_must_say_its_width(made):
    mine = encoder()
    assert made(mine).encoder is mine
    with pytest.raises(TypeError, match=r"set encoder\.num_features"):
        made(nn.Flatten())


# ---- SimCLR


def test_simclr_is_the_loss_of_the_projections():
    model = SimCLR(encoder(), dim=5, temperature=0.3)
    first, second = torch.rand(2, 7, 1, 6, 6)
    z = [model.head(model.encoder(view)) for view in (first, second)]
    assert z[0].shape == (7, 5)
    assert_close(model(first, second), nt_xent(*z, 0.3))


def test_simclr_normalises_both_views_together():
    made = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 8))
    made.num_features = 8
    model = SimCLR(made)
    first, second = torch.rand(2, 7, 1, 6, 6)
    model(first, second)
    assert int(made[1].num_batches_tracked) == 1
    both = torch.cat([first, second]).flatten(1)
    assert_close(made[1].running_mean, 0.1 * both.mean(dim=0))


def test_simclr_trains_encoder_and_head():
    model = SimCLR(encoder())
    model(*torch.rand(2, 7, 1, 6, 6)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("other", [9, 6])
def test_simclr_refuses_views_that_are_no_pair(other):
    """Nine and seven would otherwise be halved to eight and eight, and pair the wrong images."""
    with pytest.raises(ValueError, match=r"two views of one batch.*\(7, 1, 6, 6\)"):
        SimCLR(encoder())(torch.rand(7, 1, 6, 6), torch.rand(other, 1, 6, 6))


def test_simclr_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match="temperature must be positive"):
        SimCLR(encoder(), temperature=0)


def test_a_seed_is_no_generator():
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got int"):
        rotate_batch(torch.zeros(2, 1, 4, 4), 0)

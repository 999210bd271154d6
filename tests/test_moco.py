import copy
import pickle
from collections import deque

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dirlearn import MoCo, info_nce


def encoder(features=8):
    made = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, features)
    )
    made.num_features = features
    return made


def moco(**settings):
    torch.manual_seed(0)
    return MoCo(encoder(), **({"dim": 5, "queue_size": 24, "momentum": 0.9} | settings))


def views(n=6, seed=0, device="cpu"):
    return torch.rand(2, n, 1, 6, 6, generator=torch.Generator().manual_seed(seed)).to(device)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


# ---- the queue


@pytest.mark.parametrize("batches", [[6] * 3, [6] * 9, [8, 8, 8, 8], [4, 6, 8, 2, 12, 3, 8, 24]])
def test_the_queue_is_first_in_first_out_and_wraps_round(batches, device):
    model = moco().to(device)
    expected = deque(model.queue.tolist(), maxlen=24)
    for step, n in enumerate(batches):
        first, second = views(n, seed=step, device=device)
        model(first, second)
        keys = model.key(second)  # the key encoder has moved already, and moves no more
        expected.extend(nn.functional.normalize(keys).tolist())
        oldest_first = model.queue.roll(-int(model.position), dims=0)
        assert_close(oldest_first, torch.tensor(list(expected), device=device))
        assert int(model.position) == sum(batches[: step + 1]) % 24


def test_the_queue_starts_with_directions_of_length_one():
    queue = moco(queue_size=4000, dim=6).queue
    assert_close(queue.norm(dim=1), torch.ones(4000))
    assert queue.mean(dim=0).abs().max() < 0.05


def test_the_loss_is_info_nce_with_the_queue_as_it_was_before_the_call():
    model = moco(temperature=0.3)
    queue = model.queue.clone()
    first, second = views()
    before = copy.deepcopy(model)
    value = model(first, second)
    q = before.head(before.encoder(first))
    assert_close(value, info_nce(q, before.key(second), 0.3, queue))


@pytest.mark.parametrize("n", [5, 7, 9, 48])
def test_a_queue_that_is_no_multiple_of_the_batch_is_refused_before_anything_moves(n):
    model = moco()
    before = state(model)
    with pytest.raises(ValueError, match=rf"multiple of the batch, got 24 and {n}.*drop_last=True"):
        model(*views(n))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ---- the key encoder


def test_it_follows_by_the_closed_form():
    """After t steps towards what stands still: m**t of the start, and 1 - m**t of the goal."""
    model = moco()
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(torch.randn_like(p))
    model.encoder[1].running_mean.add_(1.0)
    model.encoder.eval()  # so that its running statistics stand still too
    goal, start = state(nn.Sequential(model.encoder, model.head)), state(model.key.module)
    for t in range(1, 5):
        model._follow()
        for name, mine in model.key.module.state_dict().items():
            if mine.is_floating_point():
                assert_close(mine, 0.9**t * start[name] + (1 - 0.9**t) * goal[name])
    assert not torch.equal(start["0.1.running_mean"], goal["0.1.running_mean"])


def test_running_statistics_of_the_keys_are_moving_averages_of_the_encoders():
    model = moco()
    average = torch.zeros(4)
    for step in range(4):
        average = 0.9 * average + 0.1 * model.encoder[1].running_mean  # as before the call
        model(*views(seed=step))
        assert_close(model.key.module[0][1].running_mean, average)
    assert average.abs().sum() > 0
    # Moved at the start of a call, before the encoder has seen that call's batch.
    assert int(model.key.module[0][1].num_batches_tracked) == 3
    assert int(model.encoder[1].num_batches_tracked) == 4


def test_momentum_zero_copies():
    model = moco(momentum=0.0)
    with torch.no_grad():
        model.encoder[0].weight.normal_()
    model._follow()
    assert torch.equal(model.key.module[0][0].weight, model.encoder[0].weight)


@pytest.mark.parametrize("mode", [True, False])
def test_a_key_does_not_depend_on_who_else_is_in_its_batch(mode):
    """Batch normalisation in training mode would leak; the encoder of the queries shows it."""
    model = moco().train(mode)
    _, second = views()
    changed = second.clone()
    changed[1:] = 10 * torch.rand_like(changed[1:])
    assert torch.equal(model.key(second)[:1], model.key(changed)[:1])
    for n in (6, 12):  # and through a whole step
        one, other = copy.deepcopy(model), copy.deepcopy(model)
        first, second = views(n)
        changed = second.clone()
        changed[1:] = 10 * torch.rand_like(changed[1:])
        one.train()(first, second)
        other.train()(first, changed)
        assert torch.equal(one.queue[0], other.queue[0])
        assert not torch.equal(one.queue[1], other.queue[1])


def test_the_queries_do_depend_on_their_batch_so_the_test_above_says_something():
    model = moco()
    first, _ = views()
    changed = first.clone()
    changed[1:] = 10 * torch.rand_like(changed[1:])
    assert not torch.allclose(model.encoder(first)[0], model.encoder(changed)[0])


def test_the_key_encoder_stays_in_evaluation_mode():
    model = moco()
    for mode in (False, True):
        model.train(mode)
        assert not any(part.training for part in model.key.modules())
        assert model.encoder.training is mode


# ---- gradients and optimizers


def test_keys_and_queue_carry_no_gradient():
    model = moco()
    first, second = views()
    first, second = first.requires_grad_(), second.requires_grad_()
    model(first, second).backward()
    assert second.grad is None
    assert first.grad.abs().sum() > 0
    assert not any(buffer.requires_grad for buffer in model.buffers())
    assert all(p.grad.abs().sum() > 0 for p in model.head.parameters())


def test_the_key_encoder_is_no_parameter_but_is_in_the_state():
    model = moco()
    names = [name for name, _ in model.named_parameters()]
    assert names
    assert not any(name.startswith("key.") for name in names)
    saved = {name for name in model.state_dict() if name.startswith("key.")}
    assert {"key.module.0.0.weight", "key.module.0.1.running_var", "key.module.1.2.bias"} <= saved


def test_weight_decay_does_not_reach_the_keys():
    model = moco()
    before = state(model.key)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1.0)
    model(*views()).backward()
    optimizer.step()
    for name, value in model.key.state_dict().items():
        assert_close(value, before[name])  # it follows at the next call


# ---- saving, modes, learning


def test_state_goes_on_where_it_was(tmp_path):
    model, other = moco(), MoCo(encoder(), dim=5, queue_size=24, momentum=0.9)
    for step in range(3):
        model(*views(seed=step))
    other.load_state_dict(model.state_dict())
    thawed = pickle.loads(pickle.dumps(model))
    values = [m(*views(seed=9)) for m in (model, other, thawed)]
    assert values[0] == values[1] == values[2]
    assert torch.equal(model.queue, other.queue)


def test_evaluation_mode_gives_the_loss_and_changes_nothing():
    model = moco().eval()
    before = state(model)
    assert model(*views()).isfinite()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_learns_to_tell_images_apart(device):
    model = moco(queue_size=32, dim=16).to(device)
    images = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(5)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def match():
        model.eval()
        q = nn.functional.normalize(model.head(model.encoder(images)), dim=1)
        k = nn.functional.normalize(model.key(images + 0.05), dim=1)
        model.train()
        return ((q @ k.T).argmax(dim=1) == torch.arange(8, device=device)).float().mean()

    for step in range(120):
        noise = 0.05 * views(8, seed=step, device=device)
        optimizer.zero_grad()
        model(images + noise[0], images + noise[1]).backward()
        optimizer.step()
    assert match() >= 0.75


def test_half_precision_inputs_under_autocast(device):
    model = moco().to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        value = model(*views(device=device))
    assert value.dtype == torch.float32
    value.backward()
    assert model.queue.dtype == torch.float32
    assert_close(model.queue[:6].norm(dim=1), torch.ones(6, device=device))


# ---- refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1.0"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"momentum": float("nan")}, "momentum must be"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"queue_size": 0}, "queue_size must be 1 or more"),
        ({"dim": 1}, "dim 2 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        moco(**settings)


def test_batch_normalisation_without_running_statistics_is_refused():
    """It would normalise keys by their batch in evaluation mode too."""
    made = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36, track_running_stats=False))
    made.num_features = 36
    with pytest.raises(ValueError, match=r"encoder\.1 keeps no running statistics"):
        MoCo(made, queue_size=6)


def test_views_that_are_no_pair_are_refused():
    first, second = views()
    with pytest.raises(ValueError, match="two views of one batch"):
        moco()(first, second[:3])
    with pytest.raises(ValueError, match="two views of one batch"):
        moco()(first[:0], second[:0])
    with pytest.raises(TypeError, match=r"set encoder\.num_features"):
        MoCo(nn.Flatten())


def test_settings_are_shown():
    assert "dim=5, queue_size=24, momentum=0.9, temperature=0.2" in repr(moco())

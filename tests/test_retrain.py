import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from dirlearn import Frozen, reinitialise, weighted_mse


class Encoder(nn.Module):
    """Features that, in training mode, depend on the batch and on luck."""

    num_features = 4

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.layers[1].running_mean.fill_(0.3)

    def forward(self, x, scale=1.0):
        return scale * self.layers(x)

    def describe(self):
        return f"{self.num_features} features"


def copied(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def train_head(model, steps=5, seed=0):
    """A few steps on data whose statistics are far from those that the encoder has seen."""
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(steps):
        model.train()
        x = 5 + 3 * torch.randn(16, 3, generator=generator)
        loss = weighted_mse(model(x.to(device)).squeeze(-1), x.sum(1).to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# ---- Frozen


def test_training_changes_the_head_and_nothing_of_the_encoder(device):
    encoder, head = Encoder().to(device), nn.Linear(4, 1).to(device)
    before, head_before = copied(encoder), copied(head)
    train_head(nn.Sequential(Frozen(encoder), head))
    for name, value in encoder.state_dict().items():
        assert_close(value, before[name], rtol=0, atol=0)
    assert all((value != head_before[name]).any() for name, value in head.state_dict().items())


def test_released_freezing_lets_the_running_statistics_move():
    # agedb-dir/train.py: requires_grad = False, then model.train()
    encoder = Encoder()
    before = copied(encoder)
    encoder.requires_grad_(False)
    train_head(nn.Sequential(encoder, nn.Linear(4, 1)))
    changed = {
        name for name, value in encoder.state_dict().items() if (value != before[name]).any()
    }
    assert changed == {
        f"layers.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_features_are_those_of_evaluation_whatever_the_batch(device):
    encoder = Encoder().to(device)
    x = 5 + torch.randn(8, 3, device=device)
    expected = encoder.eval()(x)
    frozen = Frozen(encoder.train())
    for mode in (True, False):
        assert frozen.train(mode) is frozen
        assert not any(part.training for part in frozen.modules())
        assert_close(frozen(x), expected, rtol=0, atol=0)
        assert_close(frozen(x[:1]), expected[:1])  # in training mode, one item is refused
    assert_close(frozen(x, scale=2.0), 2 * expected)


def test_an_outer_train_call_leaves_it_frozen():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(Frozen(Encoder())))
    model.train()
    assert model[0].training
    assert not model[1][0].module.layers[2].training


def test_no_graph_is_built_even_if_gradients_are_asked_for_again():
    frozen = Frozen(Encoder())
    x = torch.randn(2, 3, requires_grad=True)
    assert not frozen(x).requires_grad
    assert not any(p.requires_grad for p in frozen.parameters())
    frozen.requires_grad_(True)
    assert not frozen(x).requires_grad


def test_a_head_may_keep_the_features_for_its_gradient():
    model = nn.Sequential(Frozen(Encoder()), nn.Linear(4, 1))
    model(torch.randn(2, 3)).sum().backward()
    assert model[1].weight.grad is not None
    assert model[0].module.layers[0].weight.grad is None


def test_attributes_pass_through_and_unknown_ones_are_refused():
    frozen = Frozen(Encoder())
    assert frozen.num_features == 4
    assert frozen.describe() == "4 features"
    assert frozen.layers is frozen.module.layers
    with pytest.raises(AttributeError, match="'Encoder' object has no attribute 'width'"):
        frozen.width  # noqa: B018  # asking for it is the test


@pytest.mark.parametrize(
    "twin", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_are_frozen_too(twin):
    frozen = Frozen(Encoder())
    other = twin(frozen)
    assert type(other) is Frozen
    x = torch.randn(5, 3)
    assert_close(other.train()(x), frozen(x))
    assert not any(p.requires_grad for p in other.parameters())


def test_a_module_that_copies_itself_is_not_taken_for_its_wrapper():
    class Own(nn.Linear):
        def __deepcopy__(self, memo):
            return Own(self.in_features, self.out_features)

    other = copy.deepcopy(Frozen(Own(2, 2)))
    assert type(other) is Frozen
    assert type(other.module) is Own


def test_state_dict_goes_round(tmp_path):
    frozen, other = Frozen(Encoder()), Frozen(Encoder())
    torch.save(frozen.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    x = torch.randn(5, 3)
    assert_close(other(x), frozen(x))
    assert set(frozen.state_dict()) == {f"module.{name}" for name in Encoder().state_dict()}
    # and back to a model whose encoder is not wrapped
    plain = Encoder().eval()
    plain.load_state_dict(frozen.module.state_dict())
    assert_close(plain(x), frozen(x))


def test_undone_it_trains_again():
    encoder = Encoder()
    before = copied(encoder)
    frozen = Frozen(encoder)
    frozen.module.requires_grad_().train()
    train_head(nn.Sequential(frozen.module, nn.Linear(4, 1)))
    assert all((value != before[name]).any() for name, value in encoder.state_dict().items())


def test_dtype_moves_with_the_module():
    assert Frozen(Encoder()).double()(torch.randn(2, 3, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("bad", [Encoder, lambda x: x, None], ids=type)
def test_only_modules_can_be_frozen(bad):
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got"):
        Frozen(bad)


# ---- reinitialise


def head_of(device="cpu"):
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1)).to(device)


def test_it_is_what_the_layers_do_when_they_are_made(device):
    torch.manual_seed(7)
    fresh = head_of()
    head = head_of(device)
    head(torch.randn(9, 4, device=device))  # the running statistics have moved
    for value in head.state_dict().values():
        value.fill_(9)
    assert reinitialise(head, seed=7) is head
    for name, value in head.state_dict().items():
        assert_close(value.cpu(), fresh.state_dict()[name], rtol=0, atol=0)


def test_the_seed_decides_and_the_global_state_is_left_alone():
    head = nn.Linear(4, 1)
    state = torch.get_rng_state()
    first = copied(reinitialise(head, seed=1))
    second = copied(reinitialise(head, seed=2))
    assert (first["weight"] != second["weight"]).any()
    torch.randn(3)
    again = reinitialise(head, seed=1).state_dict()
    assert_close(again["weight"], first["weight"], rtol=0, atol=0)
    torch.set_rng_state(state)
    expected = torch.randn(3)
    torch.set_rng_state(state)
    reinitialise(head, seed=1)
    assert_close(torch.randn(3), expected, rtol=0, atol=0)


def test_an_optimizer_still_holds_the_parameters():
    head = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    weight = reinitialise(head, seed=0).weight
    assert weight is optimizer.param_groups[0]["params"][0]
    assert weight.requires_grad
    assert weight.is_leaf


def test_a_head_that_cannot_be_drawn_anew_is_refused():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

    head = nn.Sequential(nn.Linear(4, 1), Scale())
    before = copied(head)
    with pytest.raises(ValueError, match=r"1 \(Scale\) holds parameters .* no reset_parameters"):
        reinitialise(head, seed=0)
    assert all((value == before[name]).all() for name, value in head.state_dict().items())
    with pytest.raises(ValueError, match=r"the module \(Scale\)"):
        reinitialise(Scale(), seed=0)
    # A normed weight is computed: drawing it would change nothing.
    with pytest.raises(ValueError, match="holds parameters or buffers"):
        reinitialise(parametrizations.weight_norm(nn.Linear(4, 1)), seed=0)
    with pytest.raises(ValueError, match="ReLU has no layer"):
        reinitialise(nn.ReLU(), seed=0)


def test_bad_seeds_and_modules_are_refused():
    with pytest.raises(TypeError, match="integer"):
        reinitialise(nn.Linear(1, 1), seed=0.5)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got OrderedDict"):
        reinitialise(nn.Linear(1, 1).state_dict(), seed=0)


def test_what_a_module_draws_for_its_parts_is_the_last_word():
    class ZeroHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
            self.reset_parameters()

        def reset_parameters(self):
            nn.init.zeros_(self.layers[1].weight)
            nn.init.constant_(self.layers[1].bias, 50.0)

    torch.manual_seed(4)
    fresh = ZeroHead()
    head = ZeroHead()
    for parameter in head.parameters():
        nn.init.ones_(parameter)
    reinitialise(head, seed=4)
    for name, value in head.state_dict().items():
        assert_close(value, fresh.state_dict()[name], rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.weight_norm])
def test_a_weight_that_a_hook_computes_is_refused(norm, used):
    head = nn.Sequential(nn.Linear(3, 4), norm(nn.Linear(4, 1)))
    if used:
        with torch.no_grad():
            head(torch.ones(1, 3))
    before = copied(head)
    with pytest.raises(ValueError, match=r"cannot be copied|is not drawn anew"):
        reinitialise(head, seed=0)
    for name, value in head.state_dict().items():
        assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_a_lazy_layer_is_refused():
    with pytest.raises(ValueError, match=r"the module \(LazyLinear\) has no shapes yet"):
        reinitialise(nn.LazyLinear(1), seed=0)


def test_frozen_stays_so_when_the_module_itself_is_told_to_train():
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    frozen = Frozen(encoder)
    encoder.train()
    before = encoder[1].running_mean.clone()
    frozen(torch.randn(8, 3))
    assert torch.equal(encoder[1].running_mean, before)
    assert not encoder[1].training


def test_an_older_optimizer_moves_nothing_that_is_frozen():
    encoder = nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(encoder.parameters())
    encoder(torch.randn(8, 3)).sum().backward()
    before = encoder.weight.clone()
    Frozen(encoder)
    optimizer.step()
    assert torch.equal(encoder.weight, before)


def test_what_is_frozen_is_not_drawn_anew():
    model = nn.Sequential(Frozen(nn.Linear(3, 4)), nn.Linear(4, 1))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"0 is Frozen, .* give the head alone"):
        reinitialise(model, seed=0)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())

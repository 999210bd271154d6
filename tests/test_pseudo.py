from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, TensorDataset

from dirlearn import (
    Bins,
    Frozen,
    PseudoLabels,
    lds_weights,
    pseudo_label,
    pseudo_target_weights,
    relabel_epochs,
)


def network(device="cpu"):
    """What differs between training and evaluation mode: normalisation and dropout."""
    return nn.Sequential(
        nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4)
    ).to(device)


def inputs(n=50, seed=0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


# ---- from logits


def test_pseudo_labels_by_hand(device):
    logits = torch.tensor([[1.0, 3.0], [9.0, 1.0]], device=device).log()
    found = PseudoLabels.from_logits(logits, threshold=0.8)
    assert found.labels.tolist() == [1, 0]
    assert found.labels.dtype == torch.int64
    assert_close(found.confidence, torch.tensor([0.75, 0.9], device=device))
    assert found.kept.tolist() == [False, True]
    assert {value.device.type for value in found} == {device.type}


@given(st.integers(0, 10_000), st.floats(-50, 50), st.floats(0, 1))
def test_confidence_is_the_largest_probability_whatever_the_offset(seed, offset, threshold):
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = PseudoLabels.from_logits(logits, threshold)
    moved = PseudoLabels.from_logits(logits + offset, threshold)
    assert (found.labels == moved.labels).all()
    assert_close(found.confidence, moved.confidence)
    slow = [max(np.exp(row) / np.exp(row).sum()) for row in logits.numpy()]
    np.testing.assert_allclose(found.confidence, slow)
    assert (found.kept == (found.confidence >= threshold)).all()


def test_no_threshold_and_zero_keep_all_and_one_keeps_the_certain():
    logits = torch.tensor([[0.0, 0.0], [0.0, 400.0]])
    assert PseudoLabels.from_logits(logits).kept.all()
    assert PseudoLabels.from_logits(logits, 0).kept.all()
    assert PseudoLabels.from_logits(logits, 1).kept.tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_logits_get_wide_probabilities(dtype, device):
    logits = torch.tensor([[60000.0, 59000.0], [1.0, 2.0]], device=device).to(dtype)
    found = PseudoLabels.from_logits(logits)
    assert found.labels.tolist() == [0, 1]
    assert found.confidence.dtype == torch.float32
    assert_close(found.confidence[1].item(), 1 / (1 + np.exp(-1.0)), rtol=1e-2, atol=0)


def test_strided_logits_and_a_gradient_that_stops():
    logits = torch.randn(4, 6, requires_grad=True)
    found = PseudoLabels.from_logits(logits.T)
    assert not found.confidence.requires_grad
    assert_close(found.labels, logits.detach().T.contiguous().argmax(1))


def test_no_sample_no_pseudo_label():
    assert PseudoLabels.from_logits(torch.empty(0, 3)).labels.shape == (0,)


@pytest.mark.parametrize(
    ("logits", "error", "said"),
    [
        (torch.zeros(4), ValueError, r"shape \(N, C\).*pseudo_target_weights"),
        (torch.zeros(4, 1), ValueError, "at least two classes"),
        (torch.zeros(4, 2, 2), ValueError, r"\(4, 2, 2\)"),
        (torch.zeros(4, 2, dtype=torch.int64), TypeError, "int64"),
        (np.zeros((4, 2)), TypeError, "float64"),
        (torch.tensor([[0.0, 1.0], [torch.nan, 0.0], [torch.inf, 0.0]]), ValueError, "2 of 3"),
    ],
)
def test_logits_that_are_none_are_refused(logits, error, said):
    with pytest.raises(error, match=said):
        PseudoLabels.from_logits(logits)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(ValueError, match=r"threshold must be a probability"):
        PseudoLabels.from_logits(torch.zeros(2, 2), threshold)
    with pytest.raises(ValueError, match=r"threshold must be a probability"):
        pseudo_label(nn.Linear(3, 2), inputs(), threshold)


# ---- from a model


def test_the_model_is_asked_in_evaluation_mode_and_left_as_it_was(device):
    model = network(device).train()
    model(inputs().to(device))  # running statistics of its own
    model[1].eval()  # a part that someone has put to rest
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    assert not all(modes)
    found = pseudo_label(model, inputs(), batch_size=7)
    assert [part.training for part in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert_close(value, before[name], rtol=0, atol=0)
    with torch.no_grad():
        expected = model.eval()(inputs().to(device)).cpu()
    assert_close(found.confidence, expected.softmax(1).amax(1))
    assert_close(found.labels, expected.argmax(1))
    assert found.labels.device.type == "cpu"  # where the inputs came from
    assert not found.confidence.requires_grad


def test_a_model_in_evaluation_mode_stays_so_and_a_frozen_part_too():
    model = nn.Sequential(Frozen(network()), nn.Linear(4, 2)).eval()
    pseudo_label(model, inputs())
    assert not any(part.training for part in model.modules())


def test_the_mode_is_restored_when_labelling_fails():
    model = network().train()
    with pytest.raises(RuntimeError):
        pseudo_label(model, torch.zeros(5, 2))
    assert all(part.training for part in model.modules())


def test_tensor_loader_and_batches_agree():
    model, x = network().eval(), inputs()
    whole = pseudo_label(model, x)
    data = TensorDataset(x, torch.zeros(50))
    for loader in (
        DataLoader(data, batch_size=8),
        DataLoader(x, batch_size=8),
        [x[:20], x[20:20], x[20:]],
        ((part, "name", 3) for part in x.split(9)),
    ):
        for mine, theirs in zip(pseudo_label(model, loader), whole, strict=True):
            assert_close(mine, theirs)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(inputs(5))


def test_a_stream_has_its_own_order():
    assert len(pseudo_label(network(), DataLoader(Stream(), batch_size=2)).labels) == 5


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(inputs(), batch_size=8, shuffle=True),
        DataLoader(inputs(), batch_size=8, drop_last=True),
        DataLoader(inputs(), batch_sampler=BatchSampler(RandomSampler(inputs()), 8, False)),
        DataLoader(
            inputs(), sampler=BatchSampler(RandomSampler(inputs()), 8, False), batch_size=None
        ),
    ],
    ids=["shuffled", "dropping", "batch sampler", "sampler of batches"],
)
def test_a_loader_whose_order_is_lost_is_refused(loader):
    with pytest.raises(ValueError, match="nobody knows whose labels"):
        pseudo_label(network(), loader)


@pytest.mark.parametrize(
    "nothing", [torch.empty(0, 3), [], DataLoader(TensorDataset(torch.empty(0, 3)))]
)
def test_nothing_to_label_is_refused(nothing):
    with pytest.raises(ValueError, match="nothing to label"):
        pseudo_label(network(), nothing)


def test_other_bad_input_is_refused():
    with pytest.raises(TypeError, match=r"torch.nn.Module, got function"):
        pseudo_label(lambda x: x, inputs())
    with pytest.raises(TypeError, match="begin with a tensor, got ndarray"):
        pseudo_label(network(), [np.zeros((2, 3))])
    with pytest.raises(ValueError, match="6 rows of logits for 2 samples"):
        pseudo_label(nn.Flatten(0, 1), torch.zeros(2, 3, 4)[:, :3, :])


def test_a_diverged_model_is_found_out():
    model = network()
    with torch.no_grad():
        model[-1].bias[0] = torch.nan
    with pytest.raises(ValueError, match="has the model diverged"):
        pseudo_label(model, inputs())


# ---- the schedule


def test_the_paper_labels_once_and_first():
    assert relabel_epochs(200) == (0,)


@given(st.integers(1, 400), st.data())
def test_rounds_are_even_start_at_zero_and_never_coincide(epochs, data):
    rounds = data.draw(st.integers(1, epochs))
    made = relabel_epochs(epochs, rounds)
    assert made[0] == 0
    assert len(set(made)) == rounds
    gaps = np.diff([*made, epochs])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
    even = np.arange(rounds) * epochs / rounds
    assert np.abs(np.array(made) - even).max() <= 0.5  # the nearest epochs


@pytest.mark.parametrize("rounds", [0, 11, -1])
def test_rounds_that_do_not_fit_are_refused(rounds):
    with pytest.raises(ValueError, match="between 1 and the 10 epochs"):
        relabel_epochs(10, rounds)
    with pytest.raises(TypeError):
        relabel_epochs(10, 2.5)


# ---- continuous targets

AGES = Bins.uniform(0, 100, 1)


@pytest.mark.parametrize("options", [{}, {"power": 1.0, "kernel": None}, {"clip": (3, None)}])
def test_weights_follow_the_density_of_both_together(options):
    rng = np.random.default_rng(0)
    labels, predicted = rng.uniform(0, 100, 40), rng.normal(50, 5, 200)
    w, w_predicted = pseudo_target_weights(labels, predicted, AGES, **options)
    joint = lds_weights(np.concatenate([labels, predicted]), AGES, **{"power": 0.5, **options})
    np.testing.assert_allclose(np.concatenate([w, w_predicted]), joint)
    assert np.concatenate([w, w_predicted]).mean() == pytest.approx(1)
    # What the model predicts too often counts for less.
    assert w_predicted.mean() < w.mean()


def test_weights_by_hand():
    w, w_predicted = pseudo_target_weights(
        np.array([10.0, 20.0]), np.array([20.0, 20.0]), AGES, power=1.0, kernel=None
    )
    np.testing.assert_allclose(w, [2.0, 2 / 3])
    np.testing.assert_allclose(w_predicted, [2 / 3, 2 / 3])


def test_weights_are_the_kind_of_array_that_came(device):
    labels = torch.tensor([10.0, 20.0], device=device)
    w, w_predicted = pseudo_target_weights(labels, torch.tensor([20.0], device=device), AGES)
    assert w.shape == (2,)
    assert w_predicted.shape == (1,)
    assert {w.dtype, w_predicted.dtype} == {torch.float32}
    assert {w.device.type, w_predicted.device.type} == {device.type}


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16, torch.int64])
def test_weights_keep_the_dtype_of_their_own(narrow):
    labels, predicted = torch.tensor([10.0, 20.0]), torch.tensor([20.0, 30.0, 30.0])
    expected = pseudo_target_weights(labels, predicted, AGES)
    w, w_predicted = pseudo_target_weights(labels.to(narrow), predicted.double(), AGES)
    assert w.dtype == (narrow if narrow.is_floating_point else torch.float32)
    assert w_predicted.dtype == torch.float64
    torch.testing.assert_close(w.double(), expected[0].double(), rtol=1e-2, atol=0)
    torch.testing.assert_close(w_predicted, expected[1].double())


def test_predictions_beyond_the_axis_fall_into_its_last_bin_or_are_refused():
    labels, predicted = np.array([50.0]), np.array([150.0])
    w, w_predicted = pseudo_target_weights(labels, predicted, AGES, kernel=None)
    assert (w, w_predicted) == (1.0, 1.0)
    strict = Bins(AGES.edges, outside="error")
    with pytest.raises(ValueError, match="150"):
        pseudo_target_weights(labels, predicted, strict)


@pytest.mark.parametrize(
    ("labels", "predicted", "said"),
    [
        (np.array([]), np.array([1.0]), "labels must hold"),
        (np.array([1.0]), np.array([]), "predicted must hold"),
        (np.array([1.0]), np.array([[1.0]]), r"predicted must hold .* got shape \(1, 1\)"),
        (np.array([1.0]), np.array([np.nan]), "NaN"),
    ],
)
def test_targets_that_are_none_are_refused(labels, predicted, said):
    with pytest.raises(ValueError, match=said):
        pseudo_target_weights(labels, predicted, AGES)

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from dirlearn import BalancedMSE, Bins, GAILoss, balanced_mse, truncated_mean

DOUBLE = torch.float64


def batch(shape=(7,), dtype=DOUBLE, device="cpu"):
    return [(3 * torch.randn(shape, dtype=DOUBLE)).to(device, dtype) for _ in range(2)]


def bmc_by_loop(pred, target, sigma):
    """Of each sample: minus log of its own label's share among the batch's, times 2 sigma^2."""
    terms = []
    for p, y in zip(pred, target, strict=True):
        likelihood = [
            math.exp(-sum((a - b) ** 2 for a, b in zip(p, other, strict=True)) / (2 * sigma**2))
            for other in target
        ]
        own = math.exp(-sum((a - b) ** 2 for a, b in zip(p, y, strict=True)) / (2 * sigma**2))
        terms.append(-2 * sigma**2 * math.log(own / sum(likelihood)))
    return terms


# ---- BMC: the batch's labels


@pytest.mark.parametrize("sigma", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(2,), (7,), (7, 1), (6, 3)])
def test_bmc_is_the_loop(shape, sigma, device):
    pred, target = batch(shape, device=device)
    rows = [tensor.reshape(shape[0], -1).tolist() for tensor in (pred, target)]
    terms = bmc_by_loop(*rows, sigma)
    assert balanced_mse(pred, target, sigma, "none").tolist() == pytest.approx(terms)
    assert balanced_mse(pred, target, sigma, "sum").item() == pytest.approx(sum(terms))
    mean = pytest.approx(sum(terms) / shape[0])
    assert balanced_mse(pred, target, sigma).item() == mean
    assert BalancedMSE(sigma).to(device, DOUBLE)(pred, target).item() == mean
    tensor = torch.tensor([sigma], dtype=DOUBLE, device=device)
    assert balanced_mse(pred, target, tensor).item() == mean


def test_equal_labels_cannot_be_told_apart():
    pred, target = batch((5,))
    loss = balanced_mse(pred, torch.full_like(target, 2.0), 1.5, "none")
    assert_close(loss, torch.full_like(loss, 2 * 1.5**2 * math.log(5)))


def test_for_a_small_sigma_it_is_the_squared_error_beyond_the_nearest_label():
    """The sum is then its largest term: that of the label nearest to the prediction."""
    pred, target = batch((9,))
    nearest = (pred[:, None] - target).square().min(dim=1).values
    expected = (pred - target).square() - nearest
    assert_close(balanced_mse(pred, target, 1e-3, "none"), expected, atol=1e-4, rtol=0)


@given(
    pairs=st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=9),
    sigma=st.floats(0.01, 100), scale=st.floats(0.01, 100), move=st.floats(-100, 100),
)  # fmt: skip
def test_bmc_is_positive_and_moves_and_scales_as_a_squared_error_does(pairs, sigma, scale, move):
    pred, target = torch.tensor(pairs, dtype=DOUBLE).T
    loss = balanced_mse(pred, target, sigma, "none")
    assert (loss >= 0).all()
    scaled = balanced_mse(scale * pred + move, scale * target + move, scale * sigma, "none")
    assert_close(scaled, scale**2 * loss, rtol=1e-6, atol=1e-6 * scale**2 * (1 + sigma**2))
    turned = balanced_mse(-pred, -target, sigma, "none")
    assert_close(turned, loss)


@pytest.mark.parametrize("shape", [(6,), (5, 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_of_prediction_and_target(shape, reduction, device):
    inputs = [tensor.requires_grad_() for tensor in batch(shape, device=device)]
    assert gradcheck(lambda p, y: balanced_mse(p, y, 1.3, reduction), inputs)


def test_sigma_s_gradient_is_that_of_the_likelihood(device):
    pred, target = batch(device=device)
    sigma = torch.tensor(1.3, dtype=DOUBLE, device=device, requires_grad=True)
    balanced_mse(pred, target, sigma).backward()

    def likelihood(value):
        rows = [tensor.reshape(-1, 1).tolist() for tensor in (pred, target)]
        return np.mean(bmc_by_loop(*rows, value)) / (2 * value**2)

    slope = (likelihood(1.3 + 1e-5) - likelihood(1.3 - 1e-5)) / 2e-5
    assert sigma.grad.item() == pytest.approx(2 * 1.3**2 * slope, rel=1e-6)


# ---- GAI: the labels as a mixture


def gai_by_quadrature(pred, target, sigma, weights, means, variances):
    """Minus log of p(y | x), proportional to N(y; pred, sigma^2) p_train(y), integrated."""

    def mixture(y):
        return sum(
            w * norm.pdf(y, m, math.sqrt(v))
            for w, m, v in zip(weights, means, variances, strict=True)
        )

    normaliser, _ = quad(lambda y: norm.pdf(y, pred, sigma) * mixture(y), -60, 60, points=(-5, 5))
    return -2 * sigma**2 * math.log(norm.pdf(target, pred, sigma) / normaliser)


@pytest.mark.parametrize("sigma", [0.6, 2.0])
def test_gai_is_the_likelihood_by_quadrature(sigma, device):
    mixture = [0.7, 0.2, 0.1], [0.0, 2.0, 6.0], [1.0, 0.3, 2.0]
    pred, target = batch((4,), device=device)
    criterion = GAILoss(*mixture, sigma).to(device, DOUBLE)
    expected = [
        gai_by_quadrature(p, y, sigma, *mixture)
        for p, y in zip(pred.tolist(), target.tolist(), strict=True)
    ]
    assert criterion(pred, target).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_gai_is_bmc_over_a_huge_batch_of_a_mixture_s_labels():
    generator = np.random.default_rng(0)
    centre = generator.choice([0.0, 4.0], 20_000, p=[0.8, 0.2])
    labels = torch.from_numpy(generator.normal(centre, 1.0))
    pred, sigma = torch.linspace(-3, 8, 12, dtype=DOUBLE), 0.9
    # The first twelve are the batch's own; the others stand for the population.
    padded = torch.cat([pred, torch.zeros(len(labels) - 12, dtype=DOUBLE)])
    logits = -(padded[:12, None] - labels).square() / (2 * sigma**2)
    bmc = 2 * sigma**2 * (logits.logsumexp(1) - logits[:, :12].diagonal())
    gai = GAILoss([0.8, 0.2], [0.0, 4.0], [1.0, 1.0], sigma).double()
    ours = torch.stack([gai(p[None], y[None]) for p, y in zip(pred, labels[:12], strict=True)])
    assert_close(bmc - 2 * sigma**2 * math.log(len(labels)), ours.detach(), atol=0.1, rtol=0.02)
    # And the packaged BMC on the same batch, for fewer labels.
    few = labels[:2000]
    whole = balanced_mse(torch.cat([pred, padded[12:2000]]), few, sigma, "none")[:12]
    assert_close(whole - 2 * sigma**2 * math.log(2000), ours.detach(), atol=0.3, rtol=0.05)


def test_from_counts_is_a_component_per_bin_that_holds_a_label(device):
    bins = Bins([0.0, 1.0, 2.0, 4.0])
    criterion = GAILoss.from_counts([3, 0, 1], bins, sigma=0.5)
    assert_close(criterion.log_weights.exp(), torch.tensor([0.75, 0.25]))
    assert criterion.means.tolist() == [0.5, 3.0]
    assert_close(criterion.variances, torch.tensor([1 / 12, 4 / 12]))
    pred, target = batch((5,), device=device)
    twin = GAILoss([0.75, 0.25], [0.5, 3.0], [1 / 12, 1 / 3], sigma=0.5)
    assert_close(criterion.to(device)(pred, target), twin.to(device)(pred, target))


def test_a_scikit_learn_mixture_is_taken_as_it_is():
    labels = np.random.default_rng(0).normal(3, 2, 500)
    fitted = GaussianMixture(2, random_state=0).fit(labels[:, None])
    criterion = GAILoss(fitted.weights_, fitted.means_, fitted.covariances_, sigma=1.0)
    assert_allclose(criterion.means, fitted.means_.ravel(), rtol=1e-6)
    assert_allclose(criterion.variances, fitted.covariances_.ravel(), rtol=1e-6)
    assert_allclose(criterion.log_weights.exp(), fitted.weights_, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1,), (5, 1), (2, 1, 3, 4)])
def test_gai_takes_every_element_by_itself(shape, device):
    pred, target = batch(shape, device=device)
    criterion = GAILoss([1, 3], [0.0, 5.0], [1.0, 2.0], sigma=1.5).to(device, DOUBLE)
    each = [criterion(p[None], y[None]) for p, y in zip(pred.ravel(), target.ravel(), strict=True)]
    assert_close(criterion(pred, target), torch.stack(each).mean())


def test_gai_s_gradients(device):
    inputs = [tensor.requires_grad_() for tensor in batch((6,), device=device)]
    criterion = GAILoss([1, 3], [0.0, 5.0], [1.0, 2.0], sigma=1.5).to(device, DOUBLE)
    assert gradcheck(criterion, inputs)
    pred, target = (tensor.detach() for tensor in inputs)
    criterion(pred, target).backward()

    def likelihood(log_sigma):
        held = GAILoss([1, 3], [0.0, 5.0], [1.0, 2.0], math.exp(log_sigma)).double()
        held.log_sigma.data.fill_(log_sigma)
        return held(pred.cpu(), target.cpu()).item() / (2 * math.exp(2 * log_sigma))

    log_sigma = math.log(1.5)
    slope = (likelihood(log_sigma + 1e-5) - likelihood(log_sigma - 1e-5)) / 2e-5
    assert criterion.log_sigma.grad.item() == pytest.approx(2 * 1.5**2 * slope, rel=1e-5)


# ---- what they learn: x is y plus noise, so that balanced predictions have slope 1


def noisy_labels(n, spread=1.5, noise=0.8):
    y = spread * torch.randn(n, dtype=DOUBLE)
    return y + noise * torch.randn(n, dtype=DOUBLE), y


def fitted(criterion, x, y):
    slope = torch.zeros(1, dtype=DOUBLE, requires_grad=True)
    optimizer = torch.optim.LBFGS([slope, *criterion.parameters()], max_iter=100, lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = criterion(slope * x, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return slope.item(), criterion.sigma.item()


@pytest.mark.parametrize("kind", ["BMC", "GAI"])
@pytest.mark.parametrize("sigma", [0.4, 0.8, 2.0])
def test_with_sigma_held_the_slope_of_gaussian_labels_is_the_closed_form(kind, sigma):
    """E[y | x] has slope t^2 / (t^2 + v^2); the loss multiplies it by 1 + sigma^2 / t^2."""
    x, y = noisy_labels(1000)
    moments = (y.square().mean(), (x * y).mean() / x.square().mean())
    expected = (moments[1] * (1 + sigma**2 / moments[0])).item()
    assert moments[1] < 0.85  # the mean squared error would shrink
    if kind == "BMC":
        criterion = BalancedMSE(sigma, learn_sigma=False)
    else:
        criterion = GAILoss([1.0], [0.0], [moments[0].item()], sigma, learn_sigma=False)
    slope, _ = fitted(criterion.double(), x, y)
    assert slope == pytest.approx(expected, rel=0.03 if kind == "BMC" else 1e-4)


@pytest.mark.parametrize("kind", ["BMC", "GAI"])
def test_learned_sigma_is_that_of_the_noise_and_the_slope_is_1(kind):
    x, y = noisy_labels(1000)
    criterion = (
        BalancedMSE(0.5)
        if kind == "BMC"
        else GAILoss([1.0], [0.0], [y.square().mean().item()], 0.5)
    )
    slope, sigma = fitted(criterion.double(), x, y)
    assert slope == pytest.approx(1.0, abs=0.05)
    assert sigma == pytest.approx(0.8, abs=0.05)


def test_batches_of_two_learn_the_same():
    x, y = noisy_labels(20_000)

    class Pairs(BalancedMSE):
        def forward(self, pred, target):
            other = target.roll(1)
            far = [(pred - label).square() / (2 * self.sigma**2) for label in (target, other)]
            return nn.functional.softplus(far[0] - far[1]).mean()

    pairs = Pairs(0.5).double()
    assert_close(
        2 * 0.25 * pairs(x[:2], y[:2]), BalancedMSE(0.5).double()(x[:2], y[:2])
    )  # the same loss, two at a time
    slope, sigma = fitted(pairs, x, y)
    assert slope == pytest.approx(1.0, abs=0.06)
    assert sigma == pytest.approx(0.8, abs=0.06)


# ---- sigma as a parameter


@pytest.mark.parametrize("make", [BalancedMSE, lambda *a: GAILoss([1.0], [0.0], [1.0], *a)])
def test_sigma_is_learned_or_held_and_kept_by_the_state(make):
    learned, held = make(2.5), make(2.5, False)
    assert [name for name, _ in learned.named_parameters()] == ["log_sigma"]
    assert list(held.parameters()) == []
    assert learned.sigma.item() == held.sigma.item() == pytest.approx(2.5)
    other = make(0.1)
    other.load_state_dict(held.state_dict())
    assert other.sigma.item() == pytest.approx(2.5)
    assert copy.deepcopy(learned).double().sigma.dtype == DOUBLE
    assert "sigma=2.5, learned" in repr(learned)
    assert "sigma=2.5, held" in repr(held)


# ---- precision, strides, compilers


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, DOUBLE])
@pytest.mark.parametrize("kind", ["BMC", "GAI"])
def test_half_precision_is_widened(kind, dtype, device):
    pred, target = ((100 * tensor).to(device, dtype) for tensor in batch((32,)))
    criterion = BalancedMSE(20.0) if kind == "BMC" else GAILoss([1], [0.0], [9e4], 20.0)
    pred.requires_grad_()
    value = criterion.to(device)(pred, target)  # errors of 1000, whose squares float16 cannot hold
    assert value.dtype == (DOUBLE if dtype == DOUBLE else torch.float32)
    exact = criterion(pred.double(), target.double())
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    value.backward()
    assert pred.grad.dtype == dtype
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["BMC", "GAI"])
def test_autocast(kind, device):
    layer = nn.Linear(3, 1).to(device)
    x, target = torch.randn(16, 3, device=device), 300 + torch.randn(16, device=device)
    criterion = BalancedMSE(5.0) if kind == "BMC" else GAILoss([1], [300.0], [1.0], 5.0)
    criterion.to(device)
    exact = criterion(layer(x).squeeze(1), target)
    with torch.autocast(device.type, torch.bfloat16):
        value = criterion(layer(x).squeeze(1), target)
    value.backward()
    assert value.item() == pytest.approx(exact.item(), rel=0.05)
    assert criterion.log_sigma.grad.isfinite()


def test_huge_and_diverged_predictions_show():
    target = torch.tensor([0.0, 1.0])
    assert balanced_mse(torch.tensor([1e10, 0.0]), target, 1.0).isfinite()
    assert balanced_mse(torch.tensor([torch.nan, 0.0]), target, 1.0).isnan()
    gai = GAILoss([1], [0.0], [1.0], 1.0)
    assert gai(torch.tensor([1e10, 0.0]), target).isfinite()
    assert gai(torch.tensor([torch.nan, 0.0]), target).isnan()


def test_strides_do_not_matter():
    pred, target = batch((4, 6))
    assert_close(
        balanced_mse(pred.T, target.T, 1.0),
        balanced_mse(*(t.T.contiguous() for t in (pred, target)), 1.0),
    )
    assert_close(
        balanced_mse(pred[:, 0], target[:, 0], 1.0), balanced_mse(pred[:, :1], target[:, :1], 1.0)
    )


# torch warns of torch: its compiler imports and calls what torch itself deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning:torch")
@pytest.mark.parametrize("kind", ["BMC", "GAI", "mean"])
def test_compiled_it_is_the_same(kind, device):
    torch.compiler.reset()
    criterion = {
        "BMC": BalancedMSE(1.0),
        "GAI": GAILoss([1], [0.0], [1.0], 1.0),
        "mean": lambda pred, target: truncated_mean(pred, 1.0, -2.0, 2.0),
    }[kind]
    if kind != "mean":
        criterion.to(device)
    compiled = torch.compile(criterion, backend="aot_eager", fullgraph=True)
    pred, target = batch((8,), torch.float32, device)
    assert_close(compiled(pred, target), criterion(pred, target))


# ---- bad input


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match=r"holds one sample.*drop_last=True.*GAILoss"):
        balanced_mse(torch.ones(1), torch.ones(1), 1.0)
    with pytest.raises(ValueError, match="holds one sample"):
        BalancedMSE(1.0)(torch.ones(1, 3), torch.ones(1, 3))


@pytest.mark.parametrize("shape", [(), (3, 2, 2)])
def test_maps_are_refused_by_bmc(shape):
    with pytest.raises(ValueError, match=r"shape \(N,\) or \(N, D\).*GAILoss"):
        balanced_mse(torch.ones(shape), torch.ones(shape), 1.0)


@pytest.mark.parametrize("loss", [BalancedMSE(1.0), GAILoss([1], [0.0], [1.0], 1.0)], ids=repr)
def test_shapes_and_types_are_checked(loss):
    with pytest.raises(ValueError, match=r"target has shape \(5,\), pred has \(5, 1\)"):
        loss(torch.ones(5, 1), torch.ones(5))
    with pytest.raises(ValueError, match="batch is empty"):
        loss(torch.ones(0), torch.ones(0))
    with pytest.raises(TypeError, match="target must be floating point"):
        loss(torch.ones(5), torch.ones(5, dtype=torch.int64))
    with pytest.raises(TypeError, match="pred must be a tensor"):
        loss(np.ones(5), torch.ones(5))


@pytest.mark.parametrize("sigma", [0, -1.0, math.nan, math.inf])
def test_a_sigma_that_is_not_positive_is_refused(sigma):
    for make in (
        BalancedMSE,
        lambda s: GAILoss([1], [0.0], [1.0], s),
        lambda s: balanced_mse(torch.ones(2), torch.ones(2), s),
        lambda s: truncated_mean(torch.ones(2), s, 0, 5),
        lambda s: truncated_mean(np.ones(2), s, 0, 5),
    ):
        with pytest.raises(ValueError, match="sigma must be positive and finite"):
            make(sigma)


def test_a_sigma_for_each_target_is_refused():
    with pytest.raises(ValueError, match=r"one number for all targets, got shape \(2,\)"):
        balanced_mse(torch.ones(2), torch.ones(2), torch.ones(2))


@pytest.mark.parametrize(
    ("mixture", "words"),
    [
        (([], [], []), "one of them positive"),
        (([0, 0], [1, 2], [1, 1]), "one of them positive"),
        (([1, -1], [1, 2], [1, 1]), "weights must be 0 or more"),
        (([1, 1], [1, 2], [1, -1]), "variances must be 0 or more"),
        (([1, 1], [1, 2], [1]), "got 2, 2 and 1"),
        (([1, np.nan], [1, 2], [1, 1]), "weights holds 1 value that is NaN"),
        (([1, 1], [1, np.inf], [1, 1]), "means holds 1 value"),
        (([1, 1], [1, 2], [np.nan, 1]), "variances holds 1 value"),
    ],
    ids=str,
)
def test_a_bad_mixture_is_refused(mixture, words):
    with pytest.raises(ValueError, match=words):
        GAILoss(*mixture, sigma=1.0)


def test_from_counts_wants_a_count_per_bin():
    with pytest.raises(ValueError, match=r"shape \(2,\), one per bin, got \(3,\)"):
        GAILoss.from_counts([1, 2, 3], Bins([0, 1, 2]), 1.0)
    with pytest.raises(TypeError, match=r"bins must be a dirlearn\.Bins"):
        GAILoss.from_counts([1, 2], [0, 1, 2], 1.0)


@pytest.mark.parametrize("bad", [-1.0, 0.0, math.nan, math.inf])
def test_a_module_looks_at_the_sigma_of_a_tensor(bad):
    with pytest.raises(ValueError, match="sigma must be positive and finite"):
        BalancedMSE(torch.tensor(bad))


@pytest.mark.parametrize("learn", [False, True])
def test_a_module_takes_the_value_of_another_s_sigma(learn):
    other = BalancedMSE(2.0)
    criterion = copy.deepcopy(BalancedMSE(other.sigma, learn_sigma=learn))
    assert_close(criterion.sigma.detach(), torch.tensor(2.0))
    assert criterion.log_sigma.is_leaf
    assert criterion.log_sigma.requires_grad is learn

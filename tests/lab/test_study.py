from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from dirlearn.bins import Bins
from dirlearn.lab.intervals import crossed_interval
from dirlearn.lab.study import METRICS, REGIONS, Results, Run, Study, claim

BINS = Bins([0, 1, 2, 3, 4])
COUNTS = (150, 50, 10, 0)  # one bin of each region
METHODS = {"plain": {"spread": 1.0}, "better": {"spread": 0.5}}


def make_run(log=None, fail=None, counts=COUNTS, shift_target=False):
    """A run function; a closure, so that worker processes get it by value, as from a notebook."""

    def run(method, seed, size=40):
        if log is not None:
            with log.open("a") as file:
                file.write(f"{method['spread']} {seed}\n")
        if fail is not None and (method["spread"], seed) == fail[0]:
            raise fail[1](*fail[2:])
        rng = np.random.default_rng(seed)  # the same noise for all methods: paired
        y = np.linspace(0, 4, size) + shift_target * seed
        prediction = y + method["spread"] * (rng.normal() + rng.normal(size=size))
        extra = {"threads": torch.get_num_threads(), "train_mae": method["spread"]}
        return Run(y, prediction, counts, extra)

    return run


def make_study(run=None, **changes):
    study = Study("a study", run or make_run(), METHODS, seeds=range(3), bins=BINS)
    return replace(study, **changes)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "calls.txt"


@pytest.fixture
def results(tmp_path):
    return make_study().execute(tmp_path / "runs", progress=False)


def calls(log):
    return log.read_text().split("\n")[:-1] if log.exists() else []


def assert_same(a, b):
    assert a.methods == b.methods
    assert a.seeds == b.seeds
    assert a.bins == b.bins
    for name in ("target", "predictions", "train_counts"):
        assert_array_equal(getattr(a, name), getattr(b, name))
    pd.testing.assert_frame_equal(a.table(), b.table())


# ---- runs


def test_run_takes_tensors_and_keeps_arrays():
    weight = torch.ones(3, requires_grad=True)
    run = Run(torch.arange(3), weight * 2, torch.tensor([3, 0]), {"mae": torch.tensor(0.5)})
    assert_array_equal(run.prediction, [2.0, 2.0, 2.0])
    assert run.target.dtype == run.prediction.dtype == np.float64
    assert run.train_counts.dtype == np.int64
    assert run.extra == {"mae": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": np.zeros((3, 1))}, r"got \(3,\) and \(3, 1\); squeeze"),
        ({"target": [], "prediction": []}, r"share a shape \(T,\)"),
        ({"prediction": [0, np.nan, np.inf]}, "prediction is NaN or infinite for 2 of 3 .* item 1"),
        ({"target": [0, 1, np.nan]}, "target is NaN or infinite for 1 of 3"),
        ({"train_counts": [1, -1]}, "whole numbers .* none negative"),
        ({"train_counts": [1.5, 1]}, "whole numbers"),
        ({"train_counts": [[1, 2]]}, r"shape \(K,\)"),
    ],
)
def test_run_refuses_what_no_study_can_use(change, message):
    good = {"target": [0, 1, 2], "prediction": [0, 1, 2], "train_counts": [1, 2]}
    with pytest.raises(ValueError, match=message):
        Run(**{**good, **change})


# ---- plans


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": {}},
        {"seeds": []},
        {"seeds": [1, 1]},
        {"methods": {"a": {"x": 1}, "b": {"x": 1}}},
    ],
)
def test_study_refuses_an_empty_or_repeated_plan(changes):
    with pytest.raises(ValueError, match=r"needs methods and distinct seeds|same settings"):
        make_study(**changes)


def test_study_refuses_functions_without_a_name_and_settings_that_json_cannot_hold():
    with pytest.raises(TypeError, match="function with a name"):
        make_study(run=lambda method, seed: None)
    with pytest.raises(TypeError, match="JSON can hold"):
        make_study(settings={"size": np.zeros(3)})
    with pytest.raises(TypeError, match="JSON can hold"):
        make_study(methods={"a": {"rate": float("nan")}})


def test_subset_is_a_slice_in_the_order_asked_for():
    part = make_study().subset(["better"], [2, 0])
    assert list(part.methods) == ["better"]
    assert part.seeds == (2, 0)
    assert make_study().subset().seeds == (0, 1, 2)
    with pytest.raises(ValueError, match="unknown method 'best'; known are plain, better"):
        make_study().subset(["best"])
    with pytest.raises(ValueError, match="unknown seed 7; known are 0, 1, 2"):
        make_study().subset(seeds=[7])
    with pytest.raises(ValueError, match="needs methods"):
        make_study().subset(methods=[])


# ---- execution


def test_results_hold_each_run_in_its_place(results):
    run = make_run()
    for i, method in enumerate(results.methods):
        for j, seed in enumerate(results.seeds):
            expected = run(METHODS[method], seed)
            assert_allclose(results.predictions[i, j], expected.prediction, atol=0.005 + 1e-6)
            assert_array_equal(results.train_counts[i, j], COUNTS)
    assert_array_equal(results.target, np.linspace(0, 4, 40))
    extra = results.extra.set_index(["method", "seed", "name"])["value"]
    assert extra["better", 1, "train_mae"] == 0.5
    assert (extra[:, :, "seconds"] > 0).all()


def test_a_finished_run_is_not_repeated(tmp_path, log):
    study = make_study(make_run(log))
    first = study.execute(tmp_path, progress=False)
    assert len(calls(log)) == 6
    assert_same(study.execute(tmp_path, progress=False), first)
    assert len(calls(log)) == 6
    study.subset(seeds=[1]).execute(tmp_path, progress=False)
    assert len(calls(log)) == 6


def test_an_interrupted_study_goes_on_where_it_stopped(tmp_path, log):
    with pytest.raises(KeyboardInterrupt):
        make_study(make_run(log, fail=((1.0, 1), KeyboardInterrupt))).execute(
            tmp_path, progress=False
        )
    assert calls(log) == ["1.0 0", "0.5 0", "1.0 1"]
    resumed = make_study(make_run(log)).execute(tmp_path, progress=False)
    assert calls(log)[3:] == ["1.0 1", "0.5 1", "1.0 2", "0.5 2"]
    assert_same(resumed, make_study().execute(tmp_path / "fresh", progress=False))


def test_a_failing_run_does_not_lose_the_others(tmp_path, log):
    broken = make_study(make_run(log, fail=((0.5, 1), ZeroDivisionError, "no data")))
    with pytest.raises(RuntimeError, match=r"method 'better', seed 1: .*no data") as caught:
        broken.execute(tmp_path, progress=False)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert any("in run" in note for note in caught.value.__cause__.__notes__)
    assert len(calls(log)) == 6
    make_study(make_run(log)).execute(tmp_path, progress=False)
    assert calls(log)[6:] == ["0.5 1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another study"},
        {"methods": {"plain": {"spread": 1.5}, "better": {"spread": 0.75}}},
        {"settings": {"size": 41}},
        {"seeds": (7, 8)},
        {"bins": Bins([0, 1, 2, 3, 5])},
    ],
)
def test_changed_settings_never_reuse_an_old_run(tmp_path, log, changes):
    make_study(make_run(log)).execute(tmp_path, progress=False)
    changed = make_study(make_run(log), **changes)
    changed.execute(tmp_path, progress=False)
    assert len(calls(log)) == 6 + len(changed.methods) * len(changed.seeds)


def test_another_run_function_never_reuses_an_old_run(tmp_path, log):
    make_study(make_run(log)).execute(tmp_path, progress=False)
    again = make_run(log)
    again.__qualname__ = "another"
    make_study(again).execute(tmp_path, progress=False)
    assert len(calls(log)) == 12


def test_parallel_processes_give_what_one_gives(tmp_path, results, log):
    """Failures and all: one start of the workers serves the whole story."""

    class LocalError(Exception):  # known to no other process by name
        def __init__(self, number, reason):
            super().__init__(f"{reason} {number}")

    broken = make_study(make_run(log, fail=((1.0, 2), LocalError, 5, "reason")))
    with pytest.raises(RuntimeError, match=r"method 'plain', seed 2: .*LocalError: reason 5"):
        broken.execute(tmp_path, n_jobs=2, progress=False)
    assert len(calls(log)) == 6
    parallel = make_study().execute(tmp_path, n_jobs=2, progress=False)
    assert_same(parallel, results)
    assert (parallel.extra.query("name == 'threads'")["value"] == 1).all()
    assert parallel.provenance["n_jobs"] == 2


def test_one_thread_a_run_and_the_callers_threads_given_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = make_study().execute(tmp_path, progress=False)
        assert (results.extra.query("name == 'threads'")["value"] == 1).all()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_progress_counts_what_the_folder_held_and_is_quiet_when_told(tmp_path, capsys):
    make_study(seeds=[0]).execute(tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")
    make_study().execute(tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/6" in err
    assert "6/6" in err


def test_half_written_files_are_no_runs(tmp_path, log):
    study = make_study(make_run(log))
    study.execute(tmp_path, progress=False)
    first, second, *_ = sorted(tmp_path.glob("*.npz"))
    first.rename(first.with_suffix(".part"))  # killed before the rename
    second.write_bytes(second.read_bytes()[:100])  # cut short by something else
    study.execute(tmp_path, progress=False)
    assert len(calls(log)) == 8


def test_a_run_is_written_under_its_name_only_when_whole(tmp_path, monkeypatch):
    def killed(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", killed)
    with pytest.raises(KeyboardInterrupt):
        make_study().execute(tmp_path, progress=False)
    assert not list(tmp_path.glob("*.npz"))


def test_runs_that_are_no_runs_are_named(tmp_path):
    def diverging(method, seed):
        return Run([0.0, 1.0], [0.0, np.nan if seed == 2 else 1.0], COUNTS)

    def other(method, seed):
        return 3.0

    with pytest.raises(RuntimeError, match=r"2 of 6 runs failed(.|\n)*'plain', seed 2: .*NaN"):
        make_study(diverging).execute(tmp_path, progress=False)
    with pytest.raises(RuntimeError, match="must return a Run, got float"):
        make_study(other).execute(tmp_path, progress=False)
    with pytest.raises(RuntimeError, match="study's 4 bins, got 3"):
        make_study(make_run(counts=(1, 2, 3))).execute(tmp_path, progress=False)


def test_one_test_set_for_all_runs(tmp_path):
    with pytest.raises(ValueError, match="method 'plain', seed 1 has another test target"):
        make_study(make_run(shift_target=True)).execute(tmp_path, progress=False)


def test_a_run_cannot_change_the_plan(tmp_path):
    def greedy(method, seed):
        method["layers"].append(seed)
        return Run([0.0, 1.0], [0.0, float(len(method["layers"]))], COUNTS)

    study = make_study(greedy, methods={"a": {"layers": []}})
    assert (study.execute(tmp_path, progress=False).predictions[..., 1] == 1).all()


def test_provenance_says_how_and_where(results):
    said = results.provenance
    assert said["study"] == "a study"
    assert said["methods"] == METHODS
    assert said["seeds"] == [0, 1, 2]
    assert {"settings", "started", "n_jobs", "seconds"} <= said.keys()
    assert set(said["seconds"]["plain"]) == {"0", "1", "2"}
    (environment,) = said["environments"]
    assert environment["torch"] == torch.__version__
    assert {"python", "numpy", "scipy", "dirlearn", "device", "cpu"} <= environment.keys()
    assert all(environment.values())


# ---- figures


def small_results(predictions, target, counts, methods=("plain", "better"), decimals=2):
    predictions = np.asarray(predictions, float)
    seeds = tuple(range(predictions.shape[1]))
    return Results(
        name="small",
        methods=methods,
        seeds=seeds,
        bins=BINS,
        target=np.asarray(target, float),
        predictions=predictions,
        train_counts=np.asarray(counts),
        extra=pd.DataFrame({"method": [], "seed": [], "name": [], "value": []}),
        provenance={"study": "small", "methods": dict.fromkeys(methods), "seeds": list(seeds)},
        decimals=decimals,
    )


@pytest.fixture
def small():
    """Two methods, two seeds, three test items; the third item changes region with the seed."""
    predictions = [[[1, 3, 2.5], [0, 1, 4.5]], [[0.5, 2.5, 2.5], [0.5, 1.5, 3.5]]]
    counts = [[[150, 50, 10, 0], [150, 5, 10, 0]]] * 2
    return small_results(predictions, [0.5, 1.5, 2.5], counts)


def test_table_by_hand(small):
    table = small.table().set_index(["method", "seed", "region", "metric"])
    assert len(table) == 2 * 2 * len(REGIONS) * len(METRICS)
    plain = table.loc["plain"]
    assert plain.loc[(0, "all", "mae"), "value"] == pytest.approx((0.5 + 1.5 + 0) / 3)
    assert plain.loc[(0, "all", "mse"), "value"] == pytest.approx((0.25 + 2.25 + 0) / 3)
    assert plain.loc[(1, "all", "gm"), "value"] == pytest.approx((0.5 * 0.5 * 2) ** (1 / 3))
    assert plain.loc[(0, "all", "gm"), "value"] == pytest.approx((0.5 * 1.5 * 0.005) ** (1 / 3))
    assert plain.loc[(0, "medium", "mae"), "value"] == 1.5
    assert plain.loc[(0, "few", "mae"), "value"] == 0
    assert plain.loc[(1, "few", "mae"), "value"] == pytest.approx((0.5 + 2) / 2)
    assert plain.loc[(1, "few", "mae"), "count"] == 2


def classes(predictions=((0, 1, 2, 2), (0, 1, 1, 2)), target=(0, 1, 2, 3)):
    """One method, two seeds, four test items of four classes."""
    counts = [[[150, 50, 10, 5]] * len(predictions)]
    return replace(
        small_results([predictions], target, counts, methods=("plain",), decimals=0),
        metrics=("error",),
    )


def test_of_classes_the_share_that_is_wrong_is_measured():
    results = classes()
    table = results.table().set_index(["seed", "region"])
    assert set(table["metric"]) == {"error"}
    assert table["value"].loc[[(0, "all"), (1, "all")]].tolist() == [25, 50]
    assert table["value"].loc[[(0, "few"), (1, "few")]].tolist() == [50, 100]
    estimate = results.mean("plain")
    assert (estimate.value, estimate.metric) == (37.5, "error")
    assert results.summary().columns.name == "error (%)"
    with pytest.raises(ValueError, match="unknown metric 'mae'; known are error"):
        results.mean("plain", metric="mae")


def test_results_of_classes_survive_the_disk(tmp_path):
    classes().save(tmp_path / "small")
    back = Results.load(tmp_path / "small")
    assert back.metrics == ("error",)
    pd.testing.assert_frame_equal(back.table(), classes().table())


def test_a_study_says_what_is_measured(tmp_path):
    with pytest.raises(ValueError, match="metrics must be"):  # before anything is trained
        make_study(metrics=("accuracy",))
    study = make_study(metrics=("error",))
    assert study.execute(tmp_path, progress=False).metrics == ("error",)
    with pytest.raises(ValueError, match="metrics must be"):
        replace(classes(), metrics=("accuracy",))


def test_an_empty_region_is_nan_with_count_zero(small):
    empty = small.table().query("region == 'zero' or (region == 'medium' and seed == 1)")
    assert len(empty) == 2 * 3 * len(METRICS)
    assert empty["value"].isna().all()
    assert (empty["count"] == 0).all()
    nothing = small.mean("plain", "zero")
    assert (np.isnan(nothing.value), nothing.n_seeds, nothing.n_test) == (True, 0, 0)
    assert str(small.difference("better", "plain", "zero")) == "n/a"
    alone = small.mean("plain", "medium")
    assert (alone.value, alone.n_seeds, alone.n_test) == (1.5, 1, 1)
    assert np.isnan(alone.low)


def test_zero_is_apart_from_few(results):
    count = results.table().groupby("region")["count"].first()
    assert count[["many", "medium", "few", "zero"]].tolist() == [10, 10, 10, 10]


@pytest.mark.parametrize("metric", METRICS)
def test_mean_is_the_tables_mean_with_the_crossed_interval(results, metric):
    few = results.table().query(f"method == 'plain' and region == 'few' and metric == '{metric}'")
    estimate = results.mean("plain", "few", metric)
    values = np.log(few["value"]).mean() if metric == "gm" else few["value"].mean()
    assert estimate.value == pytest.approx(np.exp(values) if metric == "gm" else values)
    error = np.abs(results.predictions[0] - results.target)
    power = {"mae": error, "mse": error**2, "gm": np.log(np.maximum(error, 0.005))}[metric]
    few_items = np.tile((results.target >= 2) & (results.target < 3), (3, 1))
    _, low, high = crossed_interval(power, few_items)
    back = np.exp if metric == "gm" else np.asarray
    assert_allclose((estimate.low, estimate.high), (back(low), back(high)))
    assert (estimate.metric, estimate.region, estimate.method) == (metric, "few", "plain")


def test_difference_is_method_minus_baseline_and_paired(results):
    gain = results.difference("better", "plain")
    expected = results.mean("better").value - results.mean("plain").value
    assert gain.value == pytest.approx(expected)
    assert gain.value < 0  # the better method errs less; a flipped sign fails here
    assert claim("The better method is better.", gain, "lower").verdict == "holds"
    assert (gain.method, gain.baseline, gain.n_seeds, gain.n_test) == ("better", "plain", 3, 40)
    turned = results.difference("plain", "better")
    assert_allclose((-turned.value, -turned.high, -turned.low), (gain.value, gain.low, gain.high))
    zero = results.difference("plain", "plain")
    assert (zero.value, zero.low, zero.high) == (0, 0, 0)


def test_pairing_sees_what_unpaired_seeds_would_drown():
    rng = np.random.default_rng(0)
    target = np.linspace(0, 4, 50)
    plain = target + 1 + 5 * rng.random((10, 1)) + 3 * rng.random((1, 50))
    better = plain - 0.2 + 0.05 * rng.normal(size=(10, 50))
    results = small_results([plain, better], target, np.full((2, 10, 4), 150))
    assert claim("Better.", results.difference("better", "plain"), "lower").verdict == "holds"
    means = results.mean("plain"), results.mean("better")
    assert means[1].high > means[0].low  # apart, the two intervals overlap


def test_difference_of_geometric_means_is_the_log_of_their_ratio(results):
    ratio = results.mean("better", metric="gm").value / results.mean("plain", metric="gm").value
    estimate = results.difference("better", "plain", metric="gm")
    assert estimate.value == pytest.approx(np.log(ratio))
    assert estimate.metric == "log gm"


def test_methods_with_other_regions_are_no_pair(small):
    counts = small.train_counts.copy()
    counts[1, 1, 1] = 50
    other = replace(small, train_counts=counts)
    with pytest.raises(ValueError, match=r"'few' holds other test items .* under seed 1"):
        other.difference("better", "plain", "few")
    assert other.difference("better", "plain").n_test == 3


def test_unknown_names_list_what_is_known(results):
    with pytest.raises(ValueError, match="unknown method 'best'; known are plain, better"):
        results.mean("best")
    with pytest.raises(ValueError, match="unknown method 'best'; known are plain, better"):
        results.difference("plain", "best")
    with pytest.raises(ValueError, match="unknown method 'best'"):
        results.summary(baseline="best")
    with pytest.raises(ValueError, match="unknown region 'low'; known are all, many, medium, few"):
        results.mean("plain", "low")
    with pytest.raises(ValueError, match="unknown metric 'RMSE'; known are mae, mse, gm"):
        results.mean("plain", metric="RMSE")


def test_summary_shows_estimates(small, results):
    means = results.summary()
    assert list(means.index) == ["plain", "better"]
    assert list(means.columns) == list(REGIONS)
    assert means.loc["plain", "few"] == results.mean("plain", "few")
    assert str(results.mean("plain", "few")) in means.to_html()
    gains = results.summary("mse", baseline="plain", regions=["few", "all"])
    assert list(gains.index) == ["better"]
    assert list(gains.columns) == ["few", "all"]
    assert gains.loc["better", "all"] == results.difference("better", "plain", metric="mse")
    assert gains.columns.name == "MSE against plain"
    assert list(small.summary().columns) == ["all", "many", "medium", "few"]  # none is "zero"


def test_agreement_compares_what_both_have(tmp_path, results):
    slice_ = make_study().subset(["better"], [2, 1]).execute(tmp_path, progress=False)
    same = results.agreement(slice_)
    assert list(same.columns) == ["method", "seed", "here", "there", "difference"]
    assert sorted(same["seed"]) == [1, 2]
    assert (same["difference"] == 0).all()
    moved = replace(slice_, predictions=slice_.predictions + 100)
    assert (results.agreement(moved)["difference"] < -90).all()
    with pytest.raises(ValueError, match="test sets differ"):
        results.agreement(replace(slice_, target=slice_.target + 1))
    with pytest.raises(ValueError, match="nothing in common"):
        results.agreement(replace(slice_, seeds=(8, 9)))


# ---- the record


def test_what_is_saved_is_what_was_measured(tmp_path, results):
    path = tmp_path / "deep" / "LDS+FDS v1.0"  # a dot in the name is no suffix
    results.save(path)
    assert sorted(f.suffix for f in path.parent.iterdir()) == [".csv", ".json", ".npz"]
    loaded = Results.load(path)
    assert_same(loaded, results)
    assert loaded.summary(baseline="plain").equals(results.summary(baseline="plain"))
    assert loaded.provenance == results.provenance
    pd.testing.assert_frame_equal(loaded.extra, results.extra, check_dtype=False)
    assert json.loads((tmp_path / "deep" / "LDS+FDS v1.0.json").read_text())["study"] == "a study"


def test_predictions_are_rounded_once_and_exactly(tmp_path):
    values = np.array([[[1.23456, -1000.005, 123456.789, 0.004]]])
    results = small_results(values, [0, 1, 2, 3], [[COUNTS]], methods=("plain",), decimals=3)
    assert_array_equal(results.predictions[0, 0], np.float32([1.235, -1000.005, 123456.789, 0.004]))
    results.save(tmp_path / "record")
    assert_same(Results.load(tmp_path / "record"), results)


def test_saving_twice_gives_the_same_bytes(tmp_path, results):
    results.save(tmp_path / "a")
    Results.load(tmp_path / "a").save(tmp_path / "b")
    for suffix in ("npz", "csv", "json"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def tamper(old, new):
    def change(path):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        ("csv", tamper(",40\n", ",41\n"), "disagrees with the .npz in 1 rows, first in line 2"),
        ("csv", tamper(",all,mae,0", ",all,mae,9"), r"disagrees .* predictions give"),
        ("csv", tamper(",all,mae,0", ",all,mae,x"), "disagrees"),
        ("csv", tamper("plain,", "vanilla,"), "disagrees"),
        ("csv", tamper(",nan,0", ",good,0"), r"disagrees .* in 1 rows"),
        ("csv", lambda path: path.write_text("method\n"), "has columns"),
        ("json", tamper('"plain"', '"vanilla"'), "of another study"),
        ("json", tamper('"a study"', '"b study"'), "of another study"),
    ],
)
def test_a_tampered_record_is_refused(tmp_path, results, suffix, change, message):
    everywhere_many = np.full_like(results.train_counts, 150)  # so that some regions are empty
    replace(results, train_counts=everywhere_many).save(tmp_path / "record")
    change(tmp_path / f"record.{suffix}")
    with pytest.raises(ValueError, match=message):
        Results.load(tmp_path / "record")


@pytest.mark.parametrize("name", ["predictions", "train_counts"])
def test_a_record_with_wrong_shapes_is_refused(tmp_path, results, name):
    results.save(tmp_path / "record")
    with np.load(tmp_path / "record.npz") as saved:
        held = dict(saved)
    held[name] = held[name][:, :2]
    np.savez_compressed(tmp_path / "record.npz", **held)
    with pytest.raises(ValueError, match=f"{name} must have shape .* got"):
        Results.load(tmp_path / "record")


def test_a_record_of_changed_predictions_is_refused(tmp_path, results):
    results.save(tmp_path / "record")
    replace(results, predictions=results.predictions + 0.5).save(tmp_path / "other")
    (tmp_path / "other.npz").replace(tmp_path / "record.npz")
    with pytest.raises(ValueError, match="disagrees"):
        Results.load(tmp_path / "record")


def test_a_missing_file_is_named(tmp_path, results):
    with pytest.raises(FileNotFoundError, match=r"record.npz.npz is missing; give .* without"):
        Results.load(tmp_path / "record.npz")


def test_results_refuse_predictions_that_are_not_finite(results):
    with pytest.raises(ValueError, match="finite"):
        replace(results, predictions=results.predictions * np.nan)


def test_a_cut_short_or_incomplete_record_is_refused(tmp_path, results):
    results.save(tmp_path / "record")
    whole = (tmp_path / "record.npz").read_bytes()
    (tmp_path / "record.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short or damaged"):
        Results.load(tmp_path / "record")
    with np.load(BytesIO(whole)) as saved:
        np.savez(tmp_path / "record.npz", **{k: saved[k] for k in saved.files if k != "edges"})
    with pytest.raises(ValueError, match="lacks edges"):
        Results.load(tmp_path / "record")


def test_bound_methods_are_refused():
    class Experiment:
        def run(self, method, seed):
            raise NotImplementedError

    with pytest.raises(TypeError, match="a function with a name"):
        make_study(run=Experiment().run)


def test_rounding_that_would_drown_the_errors_is_refused(small):
    with pytest.raises(ValueError, match="give the study more decimals"):
        replace(small, predictions=small.predictions / 1000, target=small.target / 1000)


def test_the_global_generator_is_seeded_by_the_seed_alone(tmp_path):
    study = Study("dropout", draw_globally, {"a": {"x": 1}, "b": {"x": 2}}, [0, 1], Bins([0, 2]))
    before = torch.get_rng_state()
    drawn = study.execute(tmp_path, progress=False).predictions
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[:, 0] != drawn[:, 1]).any()
    assert torch.equal(torch.get_rng_state(), before)


def draw_globally(method, seed):
    return Run(np.ones(3), torch.rand(3), [5])

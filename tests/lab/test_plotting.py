from __future__ import annotations

import sys
from base64 import b64decode

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from dirlearn.bins import REGIONS, Bins
from dirlearn.lab import plotting
from dirlearn.lab.study import Run, Study

mpl.use("Agg")
BINS = Bins.uniform(0, 4, 1)


@pytest.fixture
def ax():
    with mpl.rc_context():
        plotting.use_style()
        figure, axes = plotting.panels()
        yield axes
        figure.canvas.draw()  # what cannot be drawn fails here
        plt.close(figure)


def test_histogram_colours_each_bar_by_its_region(ax):
    plotting.histogram([150, 30, 5, 0], BINS, ax)
    assert [bar.get_height() for bar in ax.patches] == [150, 30, 5, 0]
    colors = [to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
    assert colors == [plotting.REGION_COLORS[region] for region in REGIONS]
    assert list(ax.lines[0].get_xdata()) == [3.5]  # the mark of the empty bin


def test_density_draws_counts_and_each_smoothed_line(ax):
    smoothed = {"narrow": [1, 2, 3, 4], "wide": [2.5] * 4}
    plotting.density([4, 0, 2, 4], smoothed, BINS, ax)
    assert [bar.get_height() for bar in ax.patches] == [4, 0, 2, 4]
    for line, (name, values) in zip(ax.lines, smoothed.items(), strict=True):
        assert line.get_label() == name
        np.testing.assert_array_equal(line.get_xdata(), BINS.centers)
        np.testing.assert_array_equal(line.get_ydata(), values)


def test_error_by_label_shows_the_mean_and_range_over_seeds(ax):
    errors = np.array([[1.0, 2, 3, 4], [3.0, 2, 5, 8]])
    plotting.error_by_label({"a": errors}, BINS, ax, counts=[9, 9, 1, 0], unit="degrees")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [2, 2, 4, 6])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1
    assert band[:, 1].max() == 8
    assert "degrees" in ax.get_ylabel()


def off_by(method, seed):
    target = np.array([0.5, 1.5] * 20)
    noise = np.random.default_rng(seed).normal(0, 0.05, target.size)
    return Run(target, target + 1 + method["off"] + noise, [150, 0, 0, 0])


def test_comparison_puts_better_left_and_colours_by_the_interval(ax, tmp_path):
    methods = {"base": {"off": 0.0}, "better": {"off": -0.5}, "worse": {"off": 0.5}}
    study = Study("colours", off_by, methods, range(4), BINS)
    results = study.execute(tmp_path, progress=False)
    plotting.comparison(results, "base", [ax], regions=["all"], unit="degrees")
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [round(float(dot.get_xdata()[0]), 1) for dot in dots] == [-0.5, 0.5]
    assert [dot.get_color() for dot in dots] == list(plotting.COLORS[:2])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["better", "worse"]


def test_page_shows_through_and_figures_repeat(tmp_path):
    with mpl.rc_context({"svg.hashsalt": None}):
        plotting.use_style()
        files = []
        for name in ("a.svg", "b.svg"):
            figure, ax = plotting.panels()
            plotting.histogram([5, 0, 2, 1], BINS, ax)
            figure.savefig(tmp_path / name, metadata={"Date": None})
            plt.close(figure)
            files.append((tmp_path / name).read_text())
        assert files[0] == files[1]
        assert mpl.rcParams["savefig.transparent"]


def test_share_hands_over_a_described_picture(ax, monkeypatch):
    myst_nb = pytest.importorskip("myst_nb", reason="the book's tools are not installed")
    handed = {}
    monkeypatch.setattr(myst_nb, "glue", lambda name, it, display: handed.update({name: it}))
    plotting.share(ax.figure, "headline", alt='5 < 6 & "so on"')
    html = handed["headline"]._repr_html_()
    assert 'alt="5 &lt; 6 &amp; &quot;so on&quot;"' in html
    picture = b64decode(html.split("base64,")[1].split('"')[0])
    assert b"<svg" in picture


def test_share_does_nothing_without_the_books_tools(ax, monkeypatch):
    monkeypatch.setattr(plotting, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "myst_nb", None)  # importing it would fail
    plotting.share(ax.figure, "headline", alt="nothing")


def test_region_legend_names_each_colour(ax):
    plotting.region_legend(ax.figure)
    (legend,) = ax.figure.legends
    found = {
        text.get_text(): to_hex(patch.get_facecolor()).upper()
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }
    assert found == {f"{region}-shot": plotting.REGION_COLORS[region] for region in REGIONS}


def test_error_by_label_puts_the_training_counts_behind(ax):
    plotting.error_by_label({"a": [1.0, 2.0]}, Bins([0, 1, 2]), ax, counts=[9, 4])
    behind = next(other for other in ax.figure.axes if other is not ax)
    assert [bar.get_height() for bar in behind.patches] == [9, 4]


def test_scoreboard_gives_percent_and_colours_only_what_is_decided(ax, tmp_path):
    methods = {"base": {"off": 0.0}, "better": {"off": -0.5}, "same": {"off": 0.0001}}
    results = Study("board", off_by, methods, range(4), BINS).execute(tmp_path, progress=False)
    plotting.scoreboard(results, ax, "base", regions=["all"])
    assert [text.get_text() for text in ax.texts] == ["−50", "+0"]
    faces = [patch.get_facecolor() for patch in ax.patches]
    assert faces[0][2] > faces[0][0]  # more blue than red
    assert faces[1][3] == 0  # transparent
    assert [label.get_text() for label in ax.get_yticklabels()] == ["better", "same"]

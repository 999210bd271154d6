from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import nbformat
import pytest

from dirlearn import released
from dirlearn.lab.differences import (
    CONFIRMED,
    Effect,
    differences,
    differences_table,
    links,
    percent,
    relative,
)
from dirlearn.lab.experiments import record
from dirlearn.lab.intervals import Estimate

BOOK = Path(__file__).resolve().parents[2] / "book"
ROWS = differences()
each_row = pytest.mark.parametrize("key", ROWS.index)
SHARE = Estimate(1.0, 0.5, 1.5, n_seeds=10, n_test=100)


# ---- the table


def test_keys_are_unique_and_say_what_they_are():
    assert ROWS.index.is_unique
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", key) for key in ROWS.index)
    assert not ROWS.duplicated(["method", "title"]).any()


@each_row
def test_a_row_has_its_source_its_chapter_and_its_measure_or_a_reason(key):
    row = ROWS.loc[key]
    assert all(row[["method", "title", "paper", "code"]])
    assert row["confirmed"] in CONFIRMED
    for text, address in links(row["source"]):
        assert text
        assert re.match(r"https://(github\.com/[\w.-]+/[\w.-]+/blob/\w+/|arxiv\.org/abs/)", address)
    assert (BOOK / f"{row['chapter']}.ipynb").exists()
    assert bool(row["measure"]) != bool(row["reason"])  # one of the two


def test_what_was_read_in_the_authors_code_has_commit_and_lines():
    read = ROWS[ROWS["source"].str.startswith("YyzHarry/imbalanced-regression")]
    assert len(read) > 30
    assert read["source"].str.contains("@a6fdc45 ").all()
    unlined = {"fds-all", "no-seeds", "capped-test", "shhs-data", "smoter-code"}  # of a whole file
    assert set(read.index[~read["source"].str.contains(r" L\d+", regex=True)]) <= unlined


def test_every_measure_is_on_the_page():
    """That each of them runs, and that no other is there, a cell of the page asserts itself."""
    words = set()
    for cell in nbformat.read(BOOK / "released.ipynb", as_version=4).cells[1:]:
        if cell.cell_type == "code":
            nodes = ast.walk(ast.parse(cell.source))
            words |= {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert set(ROWS["measure"]) - {""} <= words


def test_every_public_name_of_the_released_code_is_in_the_table():
    public = {
        name
        for name, value in vars(released).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__.startswith("dirlearn.released")
    }
    assert {"FDS", "reweight", "kernel_window", "ranksim_loss", "sts_b_shots"} <= public
    assert set(ROWS["released"]) - {""} == public


# ---- links


def test_a_source_names_several_places():
    found = links("o/n@0123abc a/b.py L5-L7, L9; c.py; p/q@89abcde d.py L1")
    assert [text for text, _ in found] == ["a/b.py L5-L7", "L9", "c.py", "d.py L1"]
    assert [address.partition("github.com/")[2] for _, address in found] == [
        "o/n/blob/0123abc/a/b.py#L5-L7",
        "o/n/blob/0123abc/a/b.py#L9",
        "o/n/blob/0123abc/c.py",
        "p/q/blob/89abcde/d.py#L1",
    ]
    assert links("arXiv 2503.00876 Table 2")[0][1] == "https://arxiv.org/abs/2503.00876"


@pytest.mark.parametrize("source", ["", "fds.py L5", "o/n@0123abc  fds.py"])
def test_a_source_that_cannot_be_read_is_refused(source):
    with pytest.raises(ValueError, match="a source reads"):
        links(source)


# ---- effects


def test_relative_is_a_percentage_of_vanilla():
    study = record("lds_rough")
    figures = study.table().query("region == 'few' and metric == 'mae'")
    mean = figures.groupby("method")["value"].mean()
    got = relative(study.difference("INV", "vanilla", "few"), study.mean("vanilla", "few"))
    assert got.value == pytest.approx(100 * (mean["INV"] / mean["vanilla"] - 1))
    assert got.low < got.value < got.high < 0
    assert (got.method, got.baseline, got.region) == ("INV", "vanilla", "few")


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((1.04, -0.26, 2.34), "+1.0 % [−0.3, 2.3]"),
        ((-0.02, -0.06, 0.02), "−0.02 % [−0.06, 0.02]"),
        ((0.0, 0.0, 0.0), "+0.0 % [0.0, 0.0]"),
    ],
)
def test_percent_keeps_the_digits_that_an_interval_needs(ends, text):
    assert percent(Estimate(*ends, 10, 100)) == text


def test_an_effect_shows_the_most_telling_figure_it_has():
    assert str(Effect("n", share=SHARE, few=SHARE)) == "+1.0 % [0.5, 1.5]"
    assert str(Effect("n", few=SHARE)) == "few-shot: +1.0 % [0.5, 1.5]"
    assert str(Effect("n")) == "n"


def test_the_table_shows_effects_reasons_and_links():
    rows = ROWS.loc[["fds-alias", "fds-device"]].assign(title=["a < b", "c"])
    effects = {"fds-alias": Effect("more", share=SHARE, few=SHARE, task="here")}
    page = differences_table(rows, effects, {"fds": "F & S", "released": "-"})._repr_html_()
    assert "a &lt; b</span>" in page
    assert "+1.0 % [0.5, 1.5] of vanilla's error" in page.replace("&#x27;", "'")
    assert "here; few-shot labels: +1.0 % [0.5, 1.5]; more" in page
    assert '<a href="fds.html">F &amp; S</a>' in page
    assert "not measured" in page
    assert ROWS.loc["fds-device", "reason"] in page
    assert "blob/a6fdc45/agedb-dir/fds.py#L54-L56" in page
    assert "released.html" not in page


def test_a_measure_or_a_chapter_that_is_missing_is_refused():
    rows = ROWS.loc[["fds-alias"]]
    with pytest.raises(KeyError, match="fds-alias"):
        differences_table(rows, {}, {"fds": ""})
    with pytest.raises(KeyError, match="fds"):
        differences_table(rows, {"fds-alias": Effect("")}, {})

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dirlearn.lab import datasets, facts
from dirlearn.lab.facts import published_papers, published_results


def test_histograms_and_folder_are_found_beside_the_data_sets():
    assert datasets.label_histogram is facts.label_histogram
    assert datasets.data_folder is facts.data_folder


REGIONS = {"all", "many", "median", "few", "with data", "interpolation", "extrapolation"}
METRICS = {"MAE", "MSE", "RMSE", "GM", "bMAE", "Pearson x100", "top-1 error %"}
STS = {f"STS-B-DIR ({split})" for split in ("DIR split", "RankSim split", "split not stated")}


def test_published_rows_carry_source_and_evidence():
    table = published_results()
    assert table.notna().all(axis=None)
    text = table.select_dtypes(exclude=["number", "bool"])
    assert (text == text.apply(lambda column: column.str.strip())).all(axis=None)
    assert set(table["evidence"]) == {"primary", "secondary"}
    assert set(table["region"]) == REGIONS
    assert set(table["metric"]) == METRICS
    assert {name for name in table["dataset"] if name.startswith("STS-B-DIR")} == STS
    second_hand = table["source"].str.contains("quoted in|digest|leaderboard")
    assert (second_hand == (table["evidence"] == "secondary")).all()
    assert (table["value"] > 0).all()
    assert table.loc[table["metric"] == "Pearson x100", "value"].between(1, 100).all()


def test_published_rows_are_single_and_copies_agree():
    table = published_results()
    figure = ["paper", "dataset", "architecture", "method", "metric", "region"]
    assert not table.duplicated([*figure, "source"]).any()
    assert (table.groupby(figure)["value"].nunique() == 1).all()
    # Spelling: no two names of methods or data sets differ in case, spaces or hyphens only.
    for column in ("method", "dataset", "paper", "architecture"):
        names = table[column].drop_duplicates()
        bare = names.str.lower().str.replace(r"[\s_-]", "", regex=True)
        assert not bare.duplicated().any()


def test_each_paper_has_its_year_and_citation():
    papers, table = published_papers(), published_results()
    assert set(papers.index) == set(table["paper"])
    assert papers.index.is_unique
    assert papers["year"].between(2020, 2026).all()
    named = table["paper"].str.extract(r"(20\d\d)")[0].dropna().astype(int)
    assert (table.loc[named.index, "year"] == named).all()
    bibliography = Path(__file__).resolve().parents[2] / "book" / "references.bib"
    keys = set(re.findall(r"^@\w+\{([^,]+),", bibliography.read_text(), re.MULTILINE))
    assert set(papers["citation"]) - {""} <= keys


def test_own_says_who_ran_a_method():
    own = published_results("AgeDB-DIR").set_index(["paper", "method"])["own"]
    assert own["DIR (Yang et al. ICML 2021)", "SQINV+LDS"].all()
    assert not own["DIR (Yang et al. ICML 2021)", "SMOTER"].any()
    assert own["SRL (Dong et al. CVPR 2025)", "SRL+ConR"].all()
    assert not own["SRL (Dong et al. CVPR 2025) re-runs"].any()


def test_one_benchmark_at_a_time():
    rows = published_results("STS-B-DIR (DIR split)")
    assert set(rows["dataset"]) == {"STS-B-DIR (DIR split)"}
    vanilla = rows.query("method == 'Vanilla' and metric == 'MSE' and region == 'few'")
    assert vanilla["value"].tolist() == [0.984]
    with pytest.raises(ValueError, match=r"must be one of AgeDB-DIR, .* got 'STS-B'"):
        published_results("STS-B")

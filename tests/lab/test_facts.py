from __future__ import annotations

import pytest

from dirlearn.lab import datasets, facts
from dirlearn.lab.facts import published_results


def test_histograms_and_folder_are_found_beside_the_data_sets():
    assert datasets.label_histogram is facts.label_histogram
    assert datasets.data_folder is facts.data_folder


def test_published_rows_carry_source_and_evidence():
    table = published_results()
    assert table[["source", "evidence"]].notna().all(axis=None)
    assert set(table["evidence"]) == {"primary", "secondary"}
    assert set(table["region"]) == {"all", "many", "median", "few"}
    keys = ["paper", "dataset", "method", "metric", "region"]
    assert not table.duplicated(keys).any()
    quoted = table[table["source"].str.startswith("quoted in")]
    assert set(quoted["evidence"]) == {"secondary"}


def test_one_benchmark_at_a_time():
    rows = published_results("STS-B-DIR (DIR split)")
    assert set(rows["dataset"]) == {"STS-B-DIR (DIR split)"}
    vanilla = rows.query("method == 'Vanilla' and metric == 'MSE' and region == 'few'")
    assert vanilla["value"].tolist() == [0.984]
    with pytest.raises(ValueError, match=r"STS-B-DIR .RankSim split., AgeDB-DIR, got 'STS-B'"):
        published_results("STS-B")

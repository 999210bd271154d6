from __future__ import annotations

import csv
import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dirlearn.lab.datasets import SCORES, sts_b_dir
from dirlearn.lab.facts import data_folder, label_histogram
from dirlearn.lab.sentences import PARTS, sentence_pairs

FOLDER = data_folder() / "text"
SCRIPT = Path(__file__).parents[2] / "data" / "text" / "make_sts_b_dir.py"  # not in a wheel


def held():
    with np.load(FOLDER / "sts_b_dir.npz") as file:
        return {name: file[name] for name in file.files}


def maker():
    spec = importlib.util.spec_from_file_location("make", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_counts_per_bin_are_those_of_the_released_split():
    path = data_folder() / "histograms" / "sts_b_dir.csv"
    published = np.loadtxt(path, delimiter=",", skiprows=1)[:, 2:]
    data = sts_b_dir()
    for part, counts in zip(PARTS, published.T, strict=True):
        np.testing.assert_array_equal(SCORES.counts(getattr(data, part).y), counts)
    assert (len(data.train), len(data.val), len(data.test)) == (5249, 1000, 1000)
    assert data.bins == label_histogram("sts_b_dir").bins


def test_parts_are_those_of_the_split_file_row_by_row():
    with (FOLDER / "sts_b_dir_split.csv").open(newline="", encoding="utf-8") as file:
        rows = [(r["sts_file"], int(r["row"]), r["split"]) for r in csv.DictReader(file)]
    assert len({row[:2] for row in rows}) == 7249  # no pair is in two parts
    names = np.array(["train", "dev", "test"])
    np.testing.assert_array_equal(names[held()["split"]], [row[2] for row in rows])


def test_a_pair_is_made_of_two_unit_vectors():
    file = held()
    embedding = file["embedding"] * file["step"][:, None].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=3e-3)
    assert (np.abs(file["embedding"].astype(int)).max(axis=1) == 127).all()
    x, y = sentence_pairs("val")
    rows = np.flatnonzero(file["split"] == 1)
    for place in (0, 17, 999):
        a, b = (embedding[file["pair"][rows[place], side]] for side in (0, 1))
        by_hand = [abs(p - q) for p, q in zip(a, b, strict=True)] + list(a * b)
        np.testing.assert_allclose(x[place], by_hand, atol=1e-7)
        assert float(y[place]) == file["score"][rows[place]]
    assert x.dtype == y.dtype == torch.float32


def test_features_know_the_score():
    """The cosine of a pair, the sum of its second half, follows the score as it should."""
    x, y = sentence_pairs("test")
    assert 0.7 < np.corrcoef(x[:, 384:].sum(dim=1), y)[0, 1] < 0.95
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    assert abs(np.corrcoef(x[order, 384:].sum(dim=1), y)[0, 1]) < 0.1


def test_caller_cannot_change_what_the_next_one_gets():
    x, y = sentence_pairs("test")
    x.zero_()
    y.zero_()
    again = sentence_pairs("test")
    assert again[0].abs().sum() > 0
    assert again[1].abs().sum() > 0


def test_unknown_part_lists_the_known():
    with pytest.raises(ValueError, match="train, val, test, got 'dev'"):
        sentence_pairs("dev")


# ---- the script that made the file


def test_quantisation_moves_no_entry_by_more_than_half_a_step():
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    whole, step = maker().quantised(vectors)
    assert whole.dtype == np.int8
    assert (np.abs(whole * step[:, None] - vectors) <= 0.5001 * step[:, None]).all()
    one = np.abs(vectors).max() / 127  # one step for all would be coarser
    assert (
        np.abs(np.rint(vectors / one) * one - vectors).mean()
        > np.abs(whole * step[:, None] - vectors).mean()
    )


def test_script_reads_both_files_and_refuses_another(tmp_path):
    make = maker()
    wheel, split = tmp_path / "text.whl", tmp_path / "split.csv"
    line = "genre\tfile\tyear\t{}\t{}\t{}\t{}\n"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"{make.TEXTS}/sts-train.csv", line.format(0, "4.250", "A", "B"))
        dev = line.format(0, "1", "C", "D") + line.format(1, "0.067", "E", "F\tsource")
        file.writestr(f"{make.TEXTS}/sts-dev.csv", dev)
    split.write_text("sts_file,row,split\nsts-dev,1,test\nsts-train,0,train\n")
    assert make.rows(wheel, split) == [("E", "F", 0.067, 2), ("A", "B", 4.25, 0)]
    with pytest.raises(SystemExit, match=r"SHA-256 .* expected"):
        make.checked(wheel, "text")


def test_script_expects_the_split_file_as_it_lies():
    make = maker()
    assert make.checked(FOLDER / "sts_b_dir_split.csv", "split").exists()

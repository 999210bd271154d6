import csv
from pathlib import Path

import numpy as np

from dirlearn import Bins
from dirlearn.released import sts_b_shots

HISTOGRAMS = Path(__file__).resolve().parents[2] / "data" / "histograms"


def test_released_shot_regions_are_the_stale_ones():
    table = np.loadtxt(HISTOGRAMS / "sts_b_dir.csv", delimiter=",", skiprows=1)
    train, test = table[:, 2].astype(int), table[:, 4].astype(int)
    listed, counted = sts_b_shots(), Bins.uniform(0, 5, 0.1).shots(train)
    misfiled = np.flatnonzero(listed != counted)
    assert misfiled.tolist() == [15, 25, 33, 45, 47]
    assert train[misfiled].tolist() == [22, 27, 22, 20, 25]
    assert set(listed[misfiled]) == {"few"}
    assert set(counted[misfiled]) == {"medium"}
    assert test[listed == "few"].sum() == 74
    assert test[counted == "few"].sum() == 37
    # As counted in the repository: bins, training and test pairs of each region.
    with (HISTOGRAMS / "shot_regions.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["dataset"] == "STS-B-DIR (dir repo)"]
    for row in rows:
        mine = listed == row["region"]
        figures = [mine.sum(), train[mine].sum(), test[mine].sum()]
        assert figures == [int(row[k]) for k in ("n_bins", "train_samples", "test_samples")]

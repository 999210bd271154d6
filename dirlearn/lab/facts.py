"""Small published facts from ``data/``: label histograms and tables of results."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dirlearn.bins import Bins

Counts = npt.NDArray[np.int64]


def data_folder() -> Path:
    """Folder of the small published facts: inside an installed package, or beside it in a checkout.

    Examples
    --------
    >>> (data_folder() / "histograms" / "agedb_dir.csv").exists()
    True
    """
    installed = Path(str(files("dirlearn"))) / "data"
    return installed if installed.exists() else installed.parents[1] / "data"


@dataclass(frozen=True)
class LabelHistogram:
    """Labels per bin of a published training set, with its thresholds for shot regions."""

    name: str
    counts: Counts
    bins: Bins
    unit: str
    samples: str
    many: int
    few: int
    source: str

    @property
    def shots(self) -> npt.NDArray[np.str_]:
        """Shot region of each bin, shape (K,)."""
        return self.bins.shots(self.counts, self.many, self.few)


_DIR = "Yang et al. (2021), split files of their repository at commit a6fdc45"
# name: bins, unit, what is counted, many, few, source; in the file's second column unless it says.
_HISTOGRAMS: dict[str, tuple[Bins, str, str, int, int, str]] = {
    "agedb_dir": (Bins.uniform(0, 102, 1), "years", "images", 100, 20, _DIR),
    "imdb_wiki_dir": (Bins.uniform(0, 121, 1), "years", "images", 100, 20, _DIR),
    "sts_b_dir": (Bins.uniform(0, 5, 0.1), "similarity score", "sentence pairs", 100, 20, _DIR),
    "nyud2_dir": (
        Bins.uniform(0, 10, 0.1),
        "metres",
        "pixels",
        26_000_000,
        10_000_000,
        _DIR + "; thresholds inferred from their lists of depth bins",
    ),
}


def label_histogram(name: str) -> LabelHistogram:
    """Training-label counts of a benchmark of Yang et al. (2021), from ``data/histograms/``.

    Parameters
    ----------
    name : {"agedb_dir", "imdb_wiki_dir", "sts_b_dir", "nyud2_dir"}
        Ages of faces (two sets), sentence similarity, depth of pixels.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> ages = label_histogram("agedb_dir")
    >>> int(ages.counts.sum()), int(ages.bins.centers[ages.counts.argmax()])
    (12208, 35)
    """
    if name not in _HISTOGRAMS:
        raise ValueError(f"name must be one of {', '.join(_HISTOGRAMS)}, got {name!r}")
    facts = _HISTOGRAMS[name]
    path = data_folder() / "histograms" / f"{name}.csv"
    header = path.read_text().split("\n", 1)[0].split(",")
    column = next(i for i, title in enumerate(header) if "train" in title)
    counts = np.loadtxt(path, delimiter=",", skiprows=1, usecols=column, dtype=np.int64)
    return LabelHistogram(name, counts, *facts)


def published_papers() -> pd.DataFrame:
    """Papers and repositories behind :func:`published_results`, one row each.

    Returns
    -------
    DataFrame
        Index paper; columns year, venue, citation (its key in the book's bibliography, if it is
        there) and own: a pattern for the methods that are the authors' own, empty where they ran
        methods of others only.

    Examples
    --------
    >>> int(published_papers().loc["ConR (Keramati et al. ICLR 2024)", "year"])
    2024
    """
    path = data_folder() / "published_papers.csv"
    return pd.read_csv(path, keep_default_na=False).set_index("paper")


def published_results(dataset: str | None = None) -> pd.DataFrame:
    """Figures that papers and repositories print, from ``data/published_results.csv``.

    Derived in the chapter *What the papers report*.

    Parameters
    ----------
    dataset : str, optional
        Keep the rows of this benchmark; all rows by default.

    Returns
    -------
    DataFrame
        Columns paper, dataset, architecture, method, metric, region, value, source and evidence:
        ``"primary"`` where the source is the paper or repository itself, ``"secondary"`` where
        another text quotes it. ``"median"``, the papers' word for the middle shot region, is kept.
        From :func:`published_papers`: year, and own, whether the authors of a method ran it.

    Raises
    ------
    ValueError
        If no row is of that benchmark.

    Examples
    --------
    >>> published_results("STS-B-DIR (DIR split)")["evidence"].unique().tolist()
    ['secondary', 'primary']
    """
    table = pd.read_csv(data_folder() / "published_results.csv")
    papers = published_papers()
    table["year"] = table["paper"].map(papers["year"])
    own = table["paper"].map(papers["own"])
    table["own"] = [
        bool(pattern and re.search(pattern, method))
        for pattern, method in zip(own, table["method"], strict=True)
    ]
    if dataset is None:
        return table
    known = table["dataset"].unique()
    if dataset not in known:
        raise ValueError(f"dataset must be one of {', '.join(known)}, got {dataset!r}")
    return table[table["dataset"] == dataset].reset_index(drop=True)

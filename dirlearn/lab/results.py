"""What a study found: every run's predictions, the tables and intervals that follow, the record."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dirlearn.arrays import Array
from dirlearn.bins import REGIONS as SHOTS
from dirlearn.bins import Bins
from dirlearn.lab.intervals import Estimate, crossed_interval, title

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

REGIONS = ("all", *SHOTS)
METRICS = ("mae", "mse", "gm")
CLASS_METRICS = ("error",)  # of a class: per cent of the predictions that are wrong

# What the .npz of a record holds.
_EXTRA = {"method": str, "seed": np.int64, "name": str, "value": np.float64}
_SAVED = {"name", "methods", "seeds", "edges", "outside", "target", "predictions", "train_counts"}
_SAVED |= {"decimals", *(f"extra_{column}" for column in _EXTRA)}


@dataclass(frozen=True, eq=False)
class Results:
    """Every run's predictions on the test set, and all that follows from them.

    Predictions are rounded to ``decimals`` digits on entry, so that what is computed now and what
    is computed from the saved record are the same.

    Parameters
    ----------
    name, methods, seeds, bins, decimals
        As in :class:`Study`.
    target : (T,)
    predictions : (methods, seeds, T)
    train_counts : (methods, seeds, K)
    extra : DataFrame
        Columns method, seed, name, value.
    provenance : dict
        Settings, versions, machine, date and durations: what JSON can hold.
    metrics : tuple of str
        As in :class:`Study`; the first is what :meth:`mean` and the others give by default.

    Raises
    ------
    ValueError
        If the shapes do not fit together, a metric is unknown or a prediction is not finite.
    """

    name: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    bins: Bins
    target: Array
    predictions: Array
    train_counts: Array
    extra: pd.DataFrame
    provenance: Mapping[str, Any]
    decimals: int = 2
    metrics: tuple[str, ...] = METRICS

    def __post_init__(self) -> None:
        """Check the shapes and round the predictions."""
        check_metrics(self.metrics)
        cells = (len(self.methods), len(self.seeds))
        for name, expected in (
            ("target", (len(self.target),)),
            ("predictions", (*cells, len(self.target))),
            ("train_counts", (*cells, len(self.bins))),
        ):
            if getattr(self, name).shape != expected:
                raise ValueError(
                    f"{name} must have shape {expected} for {cells[0]} methods, {cells[1]} seeds, "
                    f"{len(self.target)} test items and {len(self.bins)} bins, got "
                    f"{getattr(self, name).shape}; the record is incomplete"
                )
        rounded = np.round(self.predictions.astype(np.float64), self.decimals).astype(np.float32)
        if not (np.isfinite(rounded).all() and np.isfinite(self.target).all()):
            raise ValueError(
                "predictions and target must be finite, also as float32; rescale the target"
            )
        moved = float(np.abs(rounded - self.predictions).mean())
        size = float(np.abs(self.predictions - self.target).mean())
        if moved > 0.05 * size:
            raise ValueError(
                f"rounding to {self.decimals} digits moves predictions by {moved:.2g} on average, "
                f"where errors are {size:.2g}; give the study more decimals"
            )
        object.__setattr__(self, "predictions", rounded)

    def errors(self, method: str, metric: str | None = None) -> Array:
        """One figure per seed and test item, (S, T); its mean (for GM: exp of it) is the metric."""
        metric = self._metric(metric)
        row = self.methods.index(known(method, self.methods, "method"))
        error: Array = np.abs(self.predictions[row] - self.target)
        if metric == "error":
            return np.asarray(np.where(error == 0, 0.0, 100.0))
        if metric == "gm":  # an error of zero is known to half of the last digit kept
            return np.log(np.maximum(error, 0.5 * 10.0**-self.decimals))
        return error if metric == "mae" else error**2

    def mask(self, method: str, region: str) -> Array:
        """Whether each test item is in the region under each seed's training labels, (S, T)."""
        if known(region, REGIONS, "region") == "all":
            return np.ones((len(self.seeds), len(self.target)), bool)
        counts = self.train_counts[self.methods.index(known(method, self.methods, "method"))]
        return np.array([self.bins.shots(c) == region for c in counts])[:, self._index]

    def _metric(self, metric: str | None) -> str:
        return str(known(self.metrics[0] if metric is None else metric, self.metrics, "metric"))

    @cached_property
    def _index(self) -> Array:
        return self.bins.index(self.target)

    def table(self) -> pd.DataFrame:
        """Tidy figures: columns method, seed, region, metric, value, count.

        ``count`` is the number of test items in the region; where it is 0, ``value`` is NaN. Shot
        regions are those of :meth:`dirlearn.bins.Bins.shots`: ``"zero"`` is apart from ``"few"``.
        GM takes errors below half of the last digit kept for that half, so that none is zero.
        """
        index = pd.MultiIndex.from_product(
            [self.methods, self.seeds, REGIONS, self.metrics],
            names=["method", "seed", "region", "metric"],
        )
        shape = (len(self.methods), len(self.seeds), len(REGIONS), len(self.metrics))
        value, count = np.empty(shape), np.empty(shape, np.int64)
        for i, method in enumerate(self.methods):
            masks = np.stack([self.mask(method, region) for region in REGIONS], 1)  # (S, R, T)
            count[i] = masks.sum(-1)[..., None]
            figures = [self.errors(method, metric) for metric in self.metrics]
            errors = np.stack(figures, -1)  # (S, T, Q)
            total = masks.astype(np.float64) @ errors
            value[i] = np.where(count[i] > 0, total / np.maximum(count[i], 1), np.nan)
        if "gm" in self.metrics:
            gm = self.metrics.index("gm")
            value[..., gm] = np.exp(value[..., gm])
        frame = pd.DataFrame({"value": value.ravel(), "count": count.ravel()}, index=index)
        return frame.reset_index()

    def mean(self, method: str, region: str = "all", metric: str | None = None) -> Estimate:
        """Average a metric over seeds; its interval is for new seeds and new test items.

        See :func:`dirlearn.lab.intervals.crossed_interval`. GM is averaged on the log scale.

        Raises
        ------
        ValueError
            If the method, region or metric is unknown.
        """
        metric = self._metric(metric)
        errors, mask = self.errors(method, metric), self.mask(method, region)
        ends = crossed_interval(errors, mask)
        if metric == "gm":
            ends = np.exp(ends[0]), np.exp(ends[1]), np.exp(ends[2])
        return _estimate(ends, mask, metric=metric, region=region, method=method)

    def difference(
        self, method: str, baseline: str, region: str = "all", metric: str | None = None
    ) -> Estimate:
        """Paired difference, ``method`` minus ``baseline``: below zero, the method errs less.

        Pairs share the seed and the test item. For GM it is the log of the ratio of the two, called
        ``"log gm"``: -0.1 says that the method's GM is about a tenth lower.

        Raises
        ------
        ValueError
            If a name is unknown, or training labels differ so that the two regions do.
        """
        metric = self._metric(metric)
        errors = self.errors(method, metric) - self.errors(baseline, metric)
        mask = self.mask(method, region)
        differ = (mask != self.mask(baseline, region)).any(-1)
        if differ.any():
            raise ValueError(
                f"region {region!r} holds other test items for {method!r} than for {baseline!r} "
                f"under seed {self.seeds[int(differ.argmax())]}: not a pair. Have runs return the "
                "training counts before any resampling"
            )
        return _estimate(
            crossed_interval(errors, mask),
            mask,
            metric="log gm" if metric == "gm" else metric,
            region=region,
            method=method,
            baseline=baseline,
        )

    def summary(
        self,
        metric: str | None = None,
        baseline: str | None = None,
        regions: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """Estimates, methods by regions: means, or differences from ``baseline``.

        ``regions`` are by default those that hold a test item. Errors are those of :meth:`mean` and
        :meth:`difference`.
        """
        metric = self._metric(metric)
        if regions is None:
            regions = [r for r in REGIONS if any(self.mask(m, r).any() for m in self.methods)]
        rows = [method for method in self.methods if method != baseline]
        columns = {
            region: [
                self.mean(method, region, metric)
                if baseline is None
                else self.difference(method, baseline, region, metric)
                for method in rows
            ]
            for region in regions
        }
        frame = pd.DataFrame(columns, index=pd.Index(rows, name="method"))
        heading = title(metric) if baseline is None else f"{title(metric)} against {baseline}"
        return frame.rename_axis(columns=heading)

    def agreement(self, other: Results) -> pd.DataFrame:
        """First metric here and there, and the difference, for each method and seed of both.

        Raises
        ------
        ValueError
            If the test sets differ, or no method and seed is common.
        """
        if not np.array_equal(self.target, other.target):
            raise ValueError(
                f"the test sets differ ({len(self.target)} and {len(other.target)} items, or other "
                "labels): compare results of one study"
            )
        here, there = (
            frame[(frame["region"] == "all") & (frame["metric"] == self.metrics[0])]
            .set_index(["method", "seed"])["value"]
            .rename(name)
            for frame, name in ((self.table(), "here"), (other.table(), "there"))
        )
        both = pd.concat([here, there], axis=1, join="inner")
        if both.empty:
            raise ValueError(
                f"nothing in common: {self.methods} with seeds {self.seeds} here, {other.methods} "
                f"with seeds {other.seeds} there"
            )
        return both.assign(difference=both["here"] - both["there"]).reset_index()

    def save(self, path: str | Path) -> None:
        """Write ``path.npz`` (what was measured), ``.csv`` (:meth:`table`) and ``.json``.

        The .npz is the record; the .csv, to six digits, is for people and diffs; the .json holds
        the provenance.
        """
        extra = {f"extra_{c}": self.extra[c].to_numpy(t) for c, t in _EXTRA.items()}
        npz, csv, provenance = _record_paths(path)
        npz.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            npz,
            name=self.name,
            methods=np.array(self.methods),
            seeds=np.array(self.seeds),
            edges=self.bins.edges,
            outside=self.bins.outside,
            target=self.target,
            predictions=self.predictions,
            train_counts=self.train_counts,
            decimals=self.decimals,
            metrics=np.array(self.metrics),
            **extra,
        )
        self.table().to_csv(
            csv, index=False, float_format="%.6g", na_rep="nan", lineterminator="\n"
        )
        provenance.write_text(json.dumps(self.provenance, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read what :meth:`save` wrote; derive every figure again and hold the .csv against it.

        Raises
        ------
        FileNotFoundError
            If one of the three files is missing.
        ValueError
            If they are damaged or contradict one another.
        """
        npz, csv, provenance = _record_paths(path)
        for file in (npz, csv, provenance):
            if not file.exists():
                raise FileNotFoundError(f"{file} is missing; give the record's path without suffix")
        try:
            with npz.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
                held = {key: saved[key] for key in saved.files}
            said = dict(json.loads(provenance.read_text(encoding="utf-8")))
            written = pd.read_csv(csv, dtype=str, keep_default_na=False)
        except (EOFError, zipfile.BadZipFile, zlib.error, TypeError, ValueError) as error:
            raise ValueError(
                f"a file of the record {path} is cut short or damaged: {error}"
            ) from error
        if missing := _SAVED - held.keys():
            raise ValueError(f"{npz} lacks {', '.join(sorted(missing))}; save the results again")
        outside: Any = str(held["outside"])
        results = cls(
            name=str(held["name"]),
            methods=tuple(map(str, held["methods"])),
            seeds=tuple(map(int, held["seeds"])),
            bins=Bins(held["edges"], outside),
            target=held["target"],
            predictions=held["predictions"],
            train_counts=held["train_counts"],
            extra=pd.DataFrame({column: held[f"extra_{column}"] for column in _EXTRA}),
            provenance=said,
            decimals=int(held["decimals"]),
            metrics=tuple(map(str, held.get("metrics", METRICS))),
        )
        results._check_copies(written, csv, provenance)
        return results

    def _check_copies(self, written: pd.DataFrame, csv: Path, provenance: Path) -> None:
        said = self.provenance
        plan = (said.get("study"), list(said.get("methods", ())), said.get("seeds"))
        if plan != (self.name, list(self.methods), list(self.seeds)):
            raise ValueError(
                f"{provenance} is of another study than the .npz: {plan}; save both again"
            )
        derived = self.table()
        if list(written.columns) != list(derived.columns) or len(written) != len(derived):
            raise ValueError(
                f"{csv} has columns {list(written.columns)} and {len(written)} rows; the .npz "
                f"gives {list(derived.columns)} and {len(derived)}; save the results again"
            )
        value = pd.to_numeric(written["value"], errors="coerce")
        same = np.isclose(value, derived["value"], rtol=1e-5, atol=0, equal_nan=True)
        same &= (written["value"] == "nan").to_numpy() == derived["value"].isna().to_numpy()
        for column in derived.columns.drop("value"):
            same &= (written[column] == derived[column].astype(str)).to_numpy()
        if not same.all():
            row = int(same.argmin())
            raise ValueError(
                f"{csv} disagrees with the .npz in {(~same).sum()} rows, first in line {row + 2}: "
                f"it says {written.iloc[row].tolist()}, the predictions give "
                f"{derived.iloc[row].tolist()}; save the results again, never edit them"
            )


def check_metrics(metrics: Any) -> None:
    """Refuse what is neither :data:`METRICS` nor :data:`CLASS_METRICS`.

    Examples
    --------
    >>> check_metrics(["error"])
    Traceback (most recent call last):
    ValueError: metrics must be ('mae', 'mse', 'gm') or ('error',), got ['error']
    """
    if metrics not in (METRICS, CLASS_METRICS):
        raise ValueError(f"metrics must be {METRICS} or {CLASS_METRICS}, got {metrics}")


def known(value: Any, choices: Iterable[Any], what: str) -> Any:
    """Return ``value`` if it is among the ``choices``; if not, refuse it and list them.

    Examples
    --------
    >>> known("INVERSE", ["INV", "SQINV"], "method")
    Traceback (most recent call last):
    ValueError: unknown method 'INVERSE'; known are INV, SQINV
    """
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}; known are {', '.join(map(str, choices))}")
    return value


def _estimate(ends: Sequence[Any], mask: Array, **about: Any) -> Estimate:
    value, low, high = map(float, ends)
    return Estimate(value, low, high, int(mask.any(1).sum()), int(mask.any(0).sum()), **about)


def _record_paths(path: str | Path) -> tuple[Path, Path, Path]:
    return Path(f"{path}.npz"), Path(f"{path}.csv"), Path(f"{path}.json")

"""Paired-seed studies: methods times seeds on one fixed test set, in parallel, resumable."""

from __future__ import annotations

import copy
import hashlib
import json
import operator
import pickle
import traceback
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from dirlearn.bins import Bins
from dirlearn.lab.intervals import Claim, Estimate, claim, claims_table, over_seeds
from dirlearn.lab.results import METRICS, REGIONS, Results, check_metrics, known
from dirlearn.lab.runs import Record, Run, environment, read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# Who runs studies finds here whatever it takes.
__all__ = ["METRICS", "REGIONS", "Claim", "Estimate", "Results", "Run", "Study"]
__all__ += ["claim", "claims_table", "over_seeds"]


@dataclass(frozen=True)
class Study:
    """Methods times seeds: the plan, and :meth:`execute` to carry it out.

    Parameters
    ----------
    name : str
    run : function
        Called as ``run(method, seed, **settings)`` with one method's settings; returns a
        :class:`Run`. For the same seed it must give every method the same data, initialisation and
        batch order: the differences are paired on that. Any function with a name will do, also
        one of a notebook.
    methods : mapping of str to mapping
        Each method's settings, no two alike.
    seeds : sequence of int
    bins : Bins
        The bins of ``train_counts``, for the shot regions.
    settings : mapping
        What all runs share. Settings are what JSON can hold.
    decimals : int
        Digits kept of a prediction, in :class:`Results` and on disk alike.
    metrics : tuple of str
        What is measured: :data:`METRICS` of a number, or ``("error",)``, per cent of predicted
        classes that are wrong.

    Raises
    ------
    TypeError
        If ``run`` has no name of its own (a lambda, a partial, a bound method), or settings are
        not JSON's.
    ValueError
        If there is no method or seed, or one is there twice; or a metric is unknown.

    Examples
    --------
    >>> import tempfile
    >>> def run(method, seed, size):
    ...     y = np.linspace(0, 2, size)
    ...     noise = np.random.default_rng(seed).normal(size=size)
    ...     return Run(y, y + method["spread"] * noise, train_counts=[150, 10])
    >>> study = Study("noise", run, {"wide": {"spread": 2.0}, "narrow": {"spread": 1.0}},
    ...               seeds=range(5), bins=Bins([0, 1, 2]), settings={"size": 100})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = study.execute(folder, progress=False)
    >>> results.summary(baseline="wide", regions=["all", "few"])
    MAE against wide                   all                   few
    method
    narrow            -0.77 [-0.86, -0.68]  -0.78 [-0.89, -0.67]
    """

    name: str
    run: Callable[..., Run]
    methods: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    bins: Bins
    settings: Mapping[str, Any] = field(default_factory=dict)
    decimals: int = 2
    metrics: tuple[str, ...] = METRICS

    def __post_init__(self) -> None:
        """Refuse a plan that could not be told apart from another, or paired."""
        nameless = "<lambda>" in getattr(self.run, "__qualname__", "<lambda>")
        if nameless or hasattr(self.run, "__self__"):  # a method carries state that no key holds
            raise TypeError(
                f"run must be a function with a name, by which its runs are found again, got "
                f"{self.run!r}; use def, and put fixed arguments into settings"
            )
        object.__setattr__(self, "seeds", tuple(map(operator.index, self.seeds)))
        if not self.methods or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"a study needs methods and distinct seeds, got methods {list(self.methods)} and "
                f"seeds {list(self.seeds)}"
            )
        check_metrics(self.metrics)  # now, not when all is trained
        first: dict[str, str] = {}
        for method in self.methods:
            twin = first.setdefault(self._key(method, self.seeds[0]), method)
            if twin != method:
                raise ValueError(
                    f"methods {twin!r} and {method!r} have the same settings, "
                    f"{dict(self.methods[method])}; drop one, or tell them apart"
                )

    def _key(self, method: str, seed: int) -> str:
        identity = {
            "study": self.name,
            "run": f"{self.run.__module__}.{self.run.__qualname__}",
            "method": dict(self.methods[method]),
            "seed": seed,
            "settings": dict(self.settings),
            "edges": self.bins.edges.tolist(),
            "outside": self.bins.outside,
        }
        try:
            text = json.dumps(identity, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"settings must be what JSON can hold, got {identity['method']} for {method!r} and "
                f"{identity['settings']} for all ({error}); give numbers, words, lists and dicts"
            ) from error
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def subset(
        self, methods: Iterable[str] | None = None, seeds: Iterable[int] | None = None
    ) -> Study:
        """Keep some methods and seeds, in the order given: a slice to run live.

        Raises
        ------
        ValueError
            If the study has no such method or seed.
        """
        names = self.methods if methods is None else methods
        kept = self.seeds if seeds is None else seeds
        return replace(
            self,
            methods={known(m, self.methods, "method"): self.methods[m] for m in names},
            seeds=[known(s, self.seeds, "seed") for s in kept],
        )

    def execute(self, folder: str | Path, n_jobs: int = 1, progress: bool = True) -> Results:
        """Carry out what ``folder`` does not hold yet, ``n_jobs`` runs at a time.

        Each finished run is written at once to ``folder/<key>.npz``, the key being a hash of the
        study's name, the run function's name, the method's settings, the seed, the shared settings
        and the bins. So an interrupted study repeats no finished run, and changed settings never
        meet an old one. Code, and what a closure holds, is not in the key: after a change to it,
        use a fresh folder. Every run has one torch thread, whatever ``n_jobs``, and finds torch's
        global generator seeded. ``progress`` shows a bar on stderr.

        Raises
        ------
        RuntimeError
            After all other runs have finished, if some failed: it names their methods and seeds.
        ValueError
            If runs do not share one test set.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {
            (method, seed): folder / f"{self._key(method, seed)}.npz"
            for seed in self.seeds  # seeds first: what an interruption leaves is paired
            for method in self.methods
        }
        missing = [cell for cell, path in paths.items() if read(path) is None]
        failures: list[tuple[str, int, Exception]] = []
        with tqdm(
            total=len(paths),
            initial=len(paths) - len(missing),
            desc=self.name,
            disable=not progress,
        ) as bar:
            workers = joblib.Parallel(
                n_jobs=n_jobs, backend="loky", return_as="generator_unordered"
            )
            tasks = (joblib.delayed(_perform)(self, *cell, paths[cell]) for cell in missing)
            for failure in workers(tasks):
                bar.update()
                if failure is not None:
                    failures.append(failure)
        if failures:
            lines = [f"method {m!r}, seed {s}: {type(e).__name__}: {e}" for m, s, e in failures]
            raise RuntimeError(
                f"{len(failures)} of {len(paths)} runs failed; the others are kept in {folder}, so "
                "mend the cause and execute again\n" + "\n".join(lines)
            ) from failures[0][2]
        return self._collect({cell: read(path) for cell, path in paths.items()}, n_jobs)

    def _collect(self, records: Mapping[tuple[str, int], Record | None], n_jobs: int) -> Results:
        found = {cell: record for cell, record in records.items() if record is not None}
        if len(found) < len(records):
            raise RuntimeError(
                "finished runs cannot be read back; was the folder changed meanwhile?"
            )
        grid = [[found[m, s] for s in self.seeds] for m in self.methods]
        target = grid[0][0].run.target
        for (method, seed), record in found.items():
            if not np.array_equal(record.run.target, target):
                raise ValueError(
                    f"method {method!r}, seed {seed} has another test target than the first run; a "
                    "study has one fixed test set, so no seed may choose it; use a fresh folder"
                )
        return Results(
            name=self.name,
            methods=tuple(self.methods),
            seeds=tuple(self.seeds),
            bins=self.bins,
            target=target,
            predictions=np.array([[r.run.prediction for r in row] for row in grid]),
            train_counts=np.array([[r.run.train_counts for r in row] for row in grid]),
            extra=pd.DataFrame(
                [(m, s, k, v) for (m, s), r in found.items() for k, v in r.run.extra.items()],
                columns=["method", "seed", "name", "value"],
            ),
            provenance=self._provenance(found, n_jobs),
            decimals=self.decimals,
            metrics=self.metrics,
        )

    def _provenance(self, found: Mapping[tuple[str, int], Record], n_jobs: int) -> dict[str, Any]:
        made = [record.made for record in found.values()]
        environments = [m["environment"] for m in made]
        seconds = {cell: round(record.run.extra["seconds"], 3) for cell, record in found.items()}
        said = {
            "study": self.name,
            "methods": {method: dict(mine) for method, mine in self.methods.items()},
            "settings": dict(self.settings),
            "seeds": self.seeds,
            "started": min(m["started"] for m in made),
            "n_jobs": n_jobs,
            "seconds": {m: {s: seconds[m, s] for s in self.seeds} for m in self.methods},
            # One, unless the study went on elsewhere after an interruption.
            "environments": [e for i, e in enumerate(environments) if e not in environments[:i]],
        }
        return dict(json.loads(json.dumps(said)))  # as it will be read back


def _perform(study: Study, method: str, seed: int, path: Path) -> tuple[str, int, Exception] | None:
    """One run, in a worker: written to ``path``, or handed back as a failure."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), perf_counter()
    try:
        mine, shared = copy.deepcopy((dict(study.methods[method]), dict(study.settings)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # for what takes no generator, such as dropout
            run = study.run(mine, seed, **shared)
        if not isinstance(run, Run):
            raise TypeError(f"the run function must return a Run, got {type(run).__name__}")
        if len(run.train_counts) != len(study.bins):
            raise ValueError(
                f"train_counts must hold one count for each of the study's {len(study.bins)} bins, "
                f"got {len(run.train_counts)}; use the study's bins.counts(y_train)"
            )
        extra = {**run.extra, "seconds": perf_counter() - clock}
        made = {"started": started, "environment": environment()}
        write(path, Record(replace(run, extra=extra), made))
    except Exception as error:  # the other runs go on
        return method, seed, _portable(error)
    finally:
        torch.set_num_threads(threads)
    return None


def _portable(error: Exception) -> Exception:
    """Note the traceback on the error; take a stand-in where it would not survive the journey."""
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a foreign class may raise
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"In the run:\n{trace}")
    return error

"""One finished run of a study: what it holds, and its file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy
import torch

from dirlearn.arrays import Array, to_numpy

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, eq=False)
class Run:
    """What one training gives back; arrays or tensors, kept as NumPy arrays.

    Parameters
    ----------
    target, prediction : (T,)
        The test labels, which all runs of a study share, and what the network says.
    train_counts : (K,) integers
        Training labels per bin, before any resampling; they decide the shot regions.
    extra : dict of float
        Anything else worth a number, such as the training error. The study adds ``seconds``.

    Raises
    ------
    ValueError
        If shapes differ, or a figure is NaN, infinite or (in ``train_counts``) negative.

    Examples
    --------
    >>> Run(target=[1.0, 2.0], prediction=[[1.0], [2.0]], train_counts=[5, 0])
    Traceback (most recent call last):
    ValueError: target and prediction must share a shape (T,), got (2,) and (2, 1); squeeze the ...
    """

    target: Array
    prediction: Array
    train_counts: Array
    extra: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Convert, then refuse what no study can use."""
        for name in ("target", "prediction", "train_counts"):
            object.__setattr__(self, name, to_numpy(getattr(self, name), name))
        target, prediction, counts = self.target, self.prediction, self.train_counts
        if target.ndim != 1 or not target.size or target.shape != prediction.shape:
            raise ValueError(
                f"target and prediction must share a shape (T,), got {target.shape} and "
                f"{prediction.shape}; squeeze the last dimension of a network's (T, 1) output"
            )
        for name, values in (("target", target), ("prediction", prediction)):
            bad = np.flatnonzero(~np.isfinite(values))
            if bad.size:
                raise ValueError(
                    f"{name} is NaN or infinite for {bad.size} of {values.size} test items, first "
                    f"for item {bad[0]}; has the training diverged? Lower its learning rate"
                )
        if counts.ndim != 1 or (counts < 0).any() or (counts != np.round(counts)).any():
            raise ValueError(
                f"train_counts must be whole numbers of shape (K,), none negative, got {counts}; "
                "bins.counts(y_train) gives them"
            )
        object.__setattr__(self, "target", target.astype(np.float64))
        object.__setattr__(self, "prediction", prediction.astype(np.float64))
        object.__setattr__(self, "train_counts", counts.astype(np.int64))
        object.__setattr__(self, "extra", {k: float(v) for k, v in self.extra.items()})


class Record(NamedTuple):
    """A finished run, and where and when it was made."""

    run: Run
    made: dict[str, Any]


def write(path: Path, record: Record) -> None:
    """Write beside, then rename: under its own name, a file is whole or absent."""
    run = record.run
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez_compressed(
                file,
                target=run.target,
                prediction=run.prediction,
                train_counts=run.train_counts,
                extra=json.dumps(run.extra),
                made=json.dumps(record.made),
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> Record | None:
    """Read a finished run; None where there is none, or not a whole one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            extra, made = (json.loads(str(saved[key])) for key in ("extra", "made"))
            run = Run(saved["target"], saved["prediction"], saved["train_counts"], extra)
            return Record(run, made)
    except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None


def environment() -> dict[str, str]:
    """Versions and machine; the device is a GPU if this process has used one by now."""
    try:
        version = importlib.metadata.version("dirlearn")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    info = Path("/proc/cpuinfo")  # where platform.processor() is empty
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "dirlearn": version,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cpu": models[0] if models else platform.processor() or platform.machine(),
    }

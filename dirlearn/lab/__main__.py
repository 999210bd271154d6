"""Redo a recorded study of the book: ``python -m dirlearn.lab lds_rough --jobs 2``."""

from __future__ import annotations

import argparse
import sys
from hashlib import sha256
from pathlib import Path

import dirlearn
from dirlearn.lab.experiments import STUDIES, UNRECORDED


def code() -> str:
    """Short name of the package's code as it stands: runs of other code are not taken up again."""
    files = sorted(Path(dirlearn.__file__).parent.rglob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def main(arguments: list[str] | None = None) -> None:
    """Train what a study lacks and write its record."""
    studies = {**STUDIES, **UNRECORDED}
    parser = argparse.ArgumentParser(
        prog="python -m dirlearn.lab", description="Redo a recorded study of the book."
    )
    parser.add_argument(
        "names", nargs="+", choices=studies, metavar="NAME", help=", ".join(studies)
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("_build/studies") / code(),
        help="folder of finished runs, where an interrupted study goes on (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("_build/results"),
        help="folder of the new records (default: %(default)s; the book reads data/results)",
    )
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        parser.error(f"give the NAME of a study: {', '.join(studies)}")
    options = parser.parse_args(given)
    if options.jobs == 0:
        parser.error("--jobs must not be 0; -1 takes all cores")
    options.out.mkdir(parents=True, exist_ok=True)  # better to fail now than after the training
    for name in options.names:
        runs = options.runs / name
        try:
            results = studies[name].execute(runs, n_jobs=options.jobs)
        except RuntimeError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # data that only their owner has
                raise SystemExit(f"\n{error.__cause__}") from None
            raise
        except KeyboardInterrupt:
            kept = len(list(runs.glob("*.npz")))
            raise SystemExit(
                f"\nInterrupted: {kept} finished runs are kept in {runs}; "
                "the same command goes on from there"
            ) from None
        results.save(options.out / name)
        print(results.summary().to_string())
        print(f"Written to {options.out / name}.npz, .csv and .json")


if __name__ == "__main__":
    main()

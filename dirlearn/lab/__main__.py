"""Redo a recorded study of the book: ``python -m dirlearn.lab lds_rough --jobs 2``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dirlearn.lab.datasets import data_folder
from dirlearn.lab.experiments import STUDIES


def main(arguments: list[str] | None = None) -> None:
    """Train what a study lacks and write its record."""
    parser = argparse.ArgumentParser(
        prog="python -m dirlearn.lab", description="Redo a recorded study of the book."
    )
    parser.add_argument(
        "names", nargs="+", choices=STUDIES, metavar="NAME", help=", ".join(STUDIES)
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("_build/studies"),
        help="folder of finished runs, where an interrupted study goes on (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=data_folder() / "results",
        help="folder of the records (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    for name in options.names:
        results = STUDIES[name].execute(options.runs / name, n_jobs=options.jobs)
        results.save(options.out / name)
        print(results.summary().to_string())
        print(f"Written to {options.out / name}.npz, .csv and .json")


if __name__ == "__main__":
    main()

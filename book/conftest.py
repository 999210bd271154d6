"""Hand what nbval has just run to jupyter-book: after `make test`, `make book` executes nothing.

myst-nb looks for an executed notebook in ``_build/.jupyter_cache`` before it runs one. A chapter
goes there when every cell of it ran and passed; any other chapter is left for the book to run.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import nbformat
import pytest
from filelock import FileLock

CACHE = Path(__file__).resolve().parents[1] / "_build" / ".jupyter_cache"
collect_ignore = ["_ext", "_static"]  # parts of the build, with no tests in them

# Path of a chapter -> number of a code cell -> its outputs, None where the cell did not pass.
_runs: defaultdict[Path, dict[int, list[Any] | None]] = defaultdict(dict)
_seconds: defaultdict[Path, float] = defaultdict(float)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Refuse a cell that draws a figure without a caption: only a run can tell which cells draw."""
    result = yield
    drawn = any(
        kind.startswith("image/")
        for out in getattr(item, "test_outputs", [])
        for kind in out.get("data", {})
    )
    if drawn and "figure" not in item.cell.metadata.get("mystnb", {}):
        pytest.fail(
            "this cell draws a figure: give it a caption and alt text (see CONTRIBUTING.md)",
            pytrace=False,
        )
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if call.when == "call" and hasattr(item, "test_outputs"):  # a cell of nbval's
        _runs[item.path][item.cell_num] = item.test_outputs if report.passed else None
        _seconds[item.path] += call.duration
    return report


def pytest_sessionfinish() -> None:
    """Under xdist, each worker does this with the chapters it ran: the lock keeps them apart."""
    for path, outputs in _runs.items():
        _store(path, outputs)


def _store(path: Path, outputs: dict[int, list[Any] | None]) -> None:
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code):
        found = outputs.get(number)
        if found is None:  # failed, skipped or never run
            return
        cell.outputs = [nbformat.from_dict(output) for output in found]
        cell.execution_count = number + 1
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE.with_name(".jupyter_cache.lock")):
        bundle = CacheBundleIn(
            notebook, path, data={"execution_seconds": _seconds[path]}
        )
        get_cache(CACHE).cache_notebook_bundle(
            bundle, check_validity=False, overwrite=True
        )

"""Who may import whom: the contracts in pyproject.toml, and what the library takes from outside."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES = {Requirement(text).name for text in PROJECT["dependencies"]}
PACKAGE = ROOT / "dirlearn"
LIBRARY = sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("released/*.py")])


def test_import_contracts_hold() -> None:
    # Beside the interpreter, for no shell has to have the environment active.
    ran = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of the packages that a module imports, wherever in it it does so."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_library_imports_its_dependencies_only(path: Path) -> None:
    outside = (
        imported(ast.parse(path.read_text(encoding="utf-8")))
        - sys.stdlib_module_names
        - {"dirlearn"}
    )
    assert outside <= DEPENDENCIES

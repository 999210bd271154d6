"""What is stated in several places is stated alike: the address, the version, the dependencies."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

_spec = importlib.util.spec_from_file_location("address", ROOT / ".github" / "address.py")
address = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(address)

HOLD_THE_ADDRESS = [
    "_config.yml",
    "CITATION.cff",
    "README.md",
    "CONTRIBUTING.md",
    ".github/ISSUE_TEMPLATE/config.yml",
]
REQUIREMENTS = [
    Requirement(text)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for text in group
]


@pytest.mark.parametrize("name", HOLD_THE_ADDRESS)
def test_file_holds_the_address(name: str) -> None:
    assert address.spellings(address.stated())[0] in (ROOT / name).read_text(encoding="utf-8"), (
        "run `make address`"
    )


def test_config_and_citation_state_the_address() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert config["repository"]["url"] == citation["repository-code"] == address.stated(), (
        "run `make address`"
    )


def test_no_file_holds_another_address() -> None:
    """An address that ends in our name is ours, or `make address` left it behind."""
    name = address.stated().rsplit("/", 1)[1]
    ours = address.spellings(address.stated())
    pattern = re.compile(
        rf"github\.com/[\w.-]+/{name}\b|/github/[\w.-]+/{name}/|[\w-]+\.github\.io/{name}\b"
    )
    for path in address.files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        assert set(pattern.findall(text)) <= set(ours), f"{path}: run `make address`"


def test_make_address_carries_every_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project.urls]\nRepository = "https://github.com/new/book"\n'
    )
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/old/name\n")
    (tmp_path / "page.md").write_text(
        "github.com/old/name/issues colab/github/old/name/blob old.github.io/name other/old/name"
    )
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.setattr(address, "ROOT", tmp_path)
    address.main()
    assert (tmp_path / "page.md").read_text() == (
        "github.com/new/book/issues colab/github/new/book/blob new.github.io/book other/old/name"
    )
    assert "github.com/new/book" in (tmp_path / "_config.yml").read_text()


def test_changelog_has_the_version() -> None:
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_dependency_is_bounded_on_both_sides(requirement: Requirement) -> None:
    signs = {specifier.operator for specifier in requirement.specifier}
    assert "==" in signs or {">=", "<"} <= signs


def test_library_dependencies_stay_few() -> None:
    assert {Requirement(text).name for text in PROJECT["dependencies"]} == {
        "torch",
        "numpy",
        "scipy",
        "torchmetrics",
    }


README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_readme_example_runs(block: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr

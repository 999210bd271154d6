"""What is true of every chapter and page of the book."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

import dirlearn

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
    "Repository"
]

FIRST_CELL = f"""\
# On Colab only: install the package, and what the chapters use.
import sys

if "google.colab" in sys.modules:
    %pip install --quiet "dirlearn[lab] @ git+{ADDRESS}\""""

CHECK = "# NBVAL_CHECK_OUTPUT"

CHAPTERS = sorted(BOOK.glob("*.ipynb"))
PAGES = sorted([*BOOK.glob("*.md"), *CHAPTERS])
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    """The text of a page without its code cells."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    )


def toc_files(node: Any) -> set[str]:
    """Every file that the table of contents names, at any depth."""
    if isinstance(node, list):
        return set().union(*map(toc_files, node))
    if isinstance(node, dict):
        own = {node[key] for key in ("root", "file") if key in node}
        return own.union(*(toc_files(value) for value in node.values()))
    return set()


# ---- the notebook as a file


@each_chapter
def test_first_cell_installs_on_colab_only(path: Path) -> None:
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "code"
    assert first.source == FIRST_CELL
    assert first.metadata.get("tags") == ["remove-cell"]


@each_chapter
def test_metadata_names_the_kernel_and_nothing_that_changes(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert set(notebook.metadata.get("language_info", {})) <= {"name"}


@each_chapter
def test_outputs_are_stored_on_checked_cells_only(path: Path) -> None:
    """A check with no stored output passes whatever happens; stored output elsewhere goes stale."""
    for cell in code_cells(path):
        checked = CHECK in cell.source.splitlines()
        assert bool(cell.outputs) == checked, cell.source
        assert cell.execution_count is not None or not checked, cell.source
        assert ("keep_output" in cell.metadata.get("tags", [])) == checked, cell.source
        assert checked or "NBVAL_CHECK_OUTPUT" not in cell.source, (
            "the marker stands alone on its line"
        )


@each_chapter
def test_every_cell_runs(path: Path) -> None:
    for cell in code_cells(path):
        assert "NBVAL_SKIP" not in cell.source
        assert not {"nbval-skip", "skip-execution"} & set(cell.metadata.get("tags", []))


# ---- figures (book/conftest.py refuses, when it runs, a cell that draws without a caption)


@each_chapter
def test_figures_are_captioned_and_described(path: Path) -> None:
    names = set()
    for cell in code_cells(path):
        show = cell.metadata.get("mystnb", {})
        if "figure" not in show:
            assert "plt.show(" not in cell.source, cell.source
            continue
        assert show["figure"]["caption"].strip().endswith((".", "?")), "a caption is a sentence"
        assert len(show["image"]["alt"]) > 20, "alt text says what is to be seen"
        assert show["figure"]["name"] not in names
        names.add(show["figure"]["name"])


def test_every_label_names_one_thing() -> None:
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in CHAPTERS
        for cell in code_cells(path)
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    text = "\n".join(map(prose, PAGES))
    names += re.findall(r"^:label: (\S+)", text, flags=re.MULTILINE)
    names += re.findall(r"^\$\$ \((\S+)\)", text, flags=re.MULTILINE)
    names += re.findall(r"^\((\S+)\)=$", text, flags=re.MULTILINE)
    assert [name for name, number in Counter(names).items() if number > 1] == []
    assert len(names) > 100


@each_chapter
@pytest.mark.parametrize("banned", [r"\.set_title\(", r"\.suptitle\(", r"plt\.title\("])
def test_no_title_inside_a_figure(path: Path, banned: str) -> None:
    for cell in code_cells(path):
        assert not re.search(banned, cell.source), cell.source


@each_chapter
@pytest.mark.parametrize(
    "banned", [r"rcParams", r"plt\.rc\(", r"plt\.style", r"%matplotlib", r"seaborn"]
)
def test_one_style_for_the_whole_book(path: Path, banned: str) -> None:
    for cell in code_cells(path):
        assert not re.search(banned, cell.source), "styles live in dirlearn.lab.plotting"


@each_chapter
def test_chapters_run_on_any_device(path: Path) -> None:
    for cell in code_cells(path):
        assert ".cuda(" not in cell.source


# ---- pages together


@each_page
def test_page_is_in_the_table_of_contents(path: Path) -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert path.relative_to(ROOT).with_suffix("").as_posix() in toc_files(toc)


CITED = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")


@each_page
def test_citations_are_in_the_bibliography(path: Path) -> None:
    keys = set(
        re.findall(
            r"^@\w+\{\s*([^,\s]+)",
            (BOOK / "references.bib").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    cited = {key.strip() for group in CITED.findall(prose(path)) for key in group.split(",")}
    assert cited <= keys


@each_page
def test_page_is_finished_and_stands_on_its_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX|TBD)\b", text)
    # A path that leads up must lead to what the repository holds; an absolute one leads nowhere.
    for up in re.findall(r"\.\./([\w.-]+)", text):
        assert (ROOT / up).exists(), f"../{up}"
    assert not re.search(r"""(?<![\w.:/])/(home|root|tmp|work|Users|mnt|farm)/""", text)


@pytest.mark.parametrize("name", sorted(getattr(dirlearn, "__all__", [])))
def test_api_page_has_every_public_name(name: str) -> None:
    assert re.search(rf"\b{re.escape(name)}\b", (BOOK / "api.md").read_text(encoding="utf-8"))


@each_chapter
def test_code_reads_as_python(path: Path) -> None:
    """All but the magic of the first cell, so that a chapter can be copied into a script."""
    for cell in code_cells(path)[1:]:
        ast.parse(cell.source)

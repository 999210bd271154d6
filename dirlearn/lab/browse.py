"""A long table to browse in a page: filters, search and sorting, and plain HTML without script."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd


def browse(table: pd.DataFrame, filters: Iterable[str], name: str, label: str) -> Shown:
    """Show a table with a menu for each column of ``filters``, a search field, and sortable heads.

    Script and style travel with the table: no file, no network. Where scripts do not run, all rows
    stand in a box that scrolls.

    Parameters
    ----------
    table : DataFrame
        Values are shown as ``str`` gives them; the index is left out.
    filters : iterable of str
        Columns that get a menu of their values.
    name : str
        The element's id, unique on its page.
    label : str
        What the table is, for those who hear it.

    Raises
    ------
    ValueError
        If a filter names no column, or the name is not an identifier.

    Examples
    --------
    >>> import pandas as pd
    >>> shown = browse(pd.DataFrame({"method": ["LDS"], "error": [7.6]}), ["method"], "errors", "")
    >>> "<td>LDS</td><td>7.6</td>" in shown.html
    True
    """
    filters = list(filters)
    if unknown := [column for column in filters if column not in table.columns]:
        raise ValueError(
            f"filters must be columns of the table, got {unknown}; it has {list(table.columns)}"
        )
    if not name.isidentifier():
        raise ValueError(f"name must be an identifier, for the page's script, got {name!r}")
    here = files("dirlearn.lab")
    style = (here / "browse.css").read_text(encoding="utf-8")
    script = (here / "browse.js").read_text(encoding="utf-8")
    head = "".join(
        f'<th scope="col"{" data-filter" if column in filters else ""}>{escape(column)}</th>'
        for column in table.columns
    )
    body = "\n".join(
        "<tr>" + "".join(f"<td>{_breakable(value)}</td>" for value in row) + "</tr>"
        for row in table.itertuples(index=False)
    )
    # The class dataframe is the one that the book's theme knows as a table of ours.
    return Shown(
        f"<style>{style}</style>\n"
        f'<div class="browse" id="{name}">\n'
        f'<div class="browse-box" role="region" tabindex="0" aria-label="{escape(label)}">\n'
        f'<table class="dataframe"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>'
        f'</table></div></div>\n<script>({script.strip()})("{name}");</script>'
    )


def _breakable(value: object) -> str:
    """HTML of a value whose line may break after a plus or a slash: columns fit a phone."""
    return escape(str(value)).replace("+", "+<wbr>").replace("/", "/<wbr>")


@dataclass(frozen=True)
class Shown:
    """HTML that a notebook shows."""

    html: str

    def _repr_html_(self) -> str:
        return self.html

"""Where papers and released code differ: rows of ``data/paper_vs_code.csv``, and their table."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import floor, log10

import pandas as pd

from dirlearn.lab.facts import data_folder
from dirlearn.lab.intervals import Estimate

# How a row was found, as the page says it.
CONFIRMED = {
    "run": "found by reading, confirmed by running",
    "read": "found by reading",
    "described": "from a description, since the code is not freely licensed",
}
_PLACE = re.compile(r"(?:([\w.-]+/[\w.-]+)@([0-9a-f]{7,40}|HEAD) )?(\S+)(?: (L.+))?")


def differences() -> pd.DataFrame:
    """Differences between papers and released code, a row each, by key.

    Returns
    -------
    DataFrame
        Columns ``method``, ``title``, what the ``paper`` says and what the ``code`` does, in our
        words; ``source`` (repository@commit, paths, lines); ``confirmed``, a key of
        :data:`CONFIRMED`; ``released``, the name in :mod:`dirlearn.released` that behaves so;
        ``chapter``, where the book discusses it; ``measure``, the name of what yields its effect,
        or, where that is empty, the ``reason`` why nothing does.

    Examples
    --------
    >>> differences().loc["fds-lag", "title"]
    'statistics one epoch late'
    """
    table = pd.read_csv(data_folder() / "paper_vs_code.csv", keep_default_na=False)
    return table.set_index("key")


def links(source: str) -> list[tuple[str, str]]:
    """Text and address of each place that a ``source`` names, in order.

    Raises
    ------
    ValueError
        If a place cannot be read, or no repository is named before it.

    Examples
    --------
    >>> for text, address in links("owner/name@0123abc fds.py L5-L7, L9; utils.py"):
    ...     print(text, address)
    fds.py L5-L7 https://github.com/owner/name/blob/0123abc/fds.py#L5-L7
    L9 https://github.com/owner/name/blob/0123abc/fds.py#L9
    utils.py https://github.com/owner/name/blob/0123abc/utils.py
    """
    if source.startswith("arXiv "):
        return [(source, f"https://arxiv.org/abs/{source.split()[1]}")]
    found, tree = [], ""
    for place in source.split("; "):
        parts = _PLACE.fullmatch(place)
        if parts is None or not (parts[1] or tree):
            raise ValueError(
                f'a source reads "owner/name@commit path L1-L2, L5; path L7", got {source!r}'
            )
        if parts[1]:
            tree = f"https://github.com/{parts[1]}/blob/{parts[2]}"
        path, spans = parts[3], (parts[4] or "").split(", ")
        for number, span in enumerate(spans):
            text = f"{path} {span}".strip() if number == 0 else span
            found.append((text, f"{tree}/{path}" + f"#{span}" * bool(span)))
    return found


@dataclass(frozen=True)
class Effect:
    """What a difference does: an error measured by training, an exact figure, or both.

    Parameters
    ----------
    note : str
        The exact figure, or what else belongs to the number.
    share : Estimate, optional
        Error with the difference minus error without, over all labels, in percent of the error of
        vanilla training on the same task.
    few : Estimate, optional
        The same over few-shot labels, in percent of vanilla's error there.
    task : str
        Where ``share`` was measured.

    Examples
    --------
    >>> print(Effect("weights times 0.90 to 1.65"))
    weights times 0.90 to 1.65
    >>> print(Effect("", share=Estimate(1.53, 0.24, 2.82, 10, 1500)))
    +1.5 % [0.2, 2.8]
    """

    note: str = ""
    share: Estimate | None = None
    few: Estimate | None = None
    task: str = ""

    def __str__(self) -> str:
        """Print the share if there is one, else that of few-shot labels, else the note."""
        if self.share:
            return percent(self.share)
        return f"few-shot: {percent(self.few)}" if self.few else self.note


def percent(share: Estimate) -> str:
    """A share with its interval, to a tenth of a percent, or finer where the interval is.

    Examples
    --------
    >>> percent(Estimate(-0.234, -0.51, 0.04, 10, 1500))
    '−0.2 % [−0.5, 0.0]'
    """
    half = max(share.high - share.value, share.value - share.low)
    digits = max(1, -floor(log10(half))) if half > 0 else 1
    ends = f"[{share.low:.{digits}f}, {share.high:.{digits}f}]"
    return f"{share.value:+.{digits}f} % {ends}".replace("-", "−")


def relative(difference: Estimate, vanilla: Estimate) -> Estimate:
    """``difference`` in percent of the error of vanilla training, whose own spread is left out.

    Examples
    --------
    >>> gain = Estimate(-0.3, -0.5, -0.1, 10, 1500)
    >>> relative(gain, Estimate(15.0, 14.0, 16.0, 10, 1500)).value
    -2.0
    """
    scale = 100 / vanilla.value
    return replace(
        difference,
        value=scale * difference.value,
        low=scale * difference.low,
        high=scale * difference.high,
        metric="percent of vanilla's error",
    )


class DifferencesTable(pd.DataFrame):  # type: ignore[misc]  # pandas carries no types
    """Differences and their effects side by side, and the rest behind a click on a row."""

    def _repr_html_(self) -> str:
        style = "text-align: left; white-space: normal"
        rows = "\n".join(
            f'<tr><td style="{style}"><details id="{key}"><summary>'
            f"{_beside(row.title, str(row.effect))}</summary>{''.join(_details(row))}</details>"
            "</td></tr>"
            for key, row in zip(self.index, self.itertuples(), strict=True)
        )
        head = f'<tr><th style="{style}; padding-left: 1.5rem">{_beside("difference", "effect")}'
        return (  # the class keeps it readable where the page is dark
            '<table class="dataframe" style="width: 100%">\n'
            f"<thead>{head}</th></tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
        )


def _beside(left: str, right: str) -> str:
    """Two texts in columns that also a narrow screen has room for."""
    return "".join(
        f'<span style="display: inline-block; vertical-align: top; width: {width}%; '
        'box-sizing: border-box; padding-right: .5rem">'
        f"{html.escape(text)}</span>"
        for text, width in ((left, 52), (right, 42))
    )


def differences_table(
    rows: pd.DataFrame, effects: Mapping[str, Effect], titles: Mapping[str, str]
) -> DifferencesTable:
    """Rows of :func:`differences` with the effect of each measure; the reason where there is none.

    Parameters
    ----------
    rows : DataFrame
        Some rows of :func:`differences`.
    effects : mapping
        Effect by name of the measure.
    titles : mapping
        Title of each chapter, by the stem of its file.

    Raises
    ------
    KeyError
        If a row names a measure that is not among ``effects``, or a chapter not among ``titles``.

    Examples
    --------
    >>> rows = differences().loc[["fds-lag", "fds-device"]]
    >>> table = differences_table(rows, {"fds-lag": Effect("none")}, {"fds": "FDS", "released": ""})
    >>> [str(effect) for effect in table["effect"]]
    ['none', 'not measured']
    """
    missing = Effect("not measured")
    shown = rows.assign(
        effect=[effects[name] if name else missing for name in rows["measure"]],
        chapter_title=[titles[chapter] for chapter in rows["chapter"]],
    )
    return DifferencesTable(shown)


def _details(row: object) -> Iterator[str]:
    """The lines behind a row, as paragraphs."""
    about = row._asdict()  # type: ignore[attr-defined]  # a named tuple of itertuples
    effect: Effect = about["effect"]
    lines = {
        "Paper": html.escape(about["paper"]),
        "Code": html.escape(about["code"]),
        "Effect": html.escape("; ".join(_effect_in_words(effect, about["reason"]))),
        "Source": ", ".join(
            f'<a href="{address}">{html.escape(text)}</a>'
            for text, address in links(about["source"])
        )
        + f" ({CONFIRMED[about['confirmed']]})",
    }
    if about["released"]:
        lines["To try it"] = f"<code>dirlearn.released.{about['released']}</code>"
    if about["chapter"] != "released":
        link = f'<a href="{about["chapter"]}.html">{html.escape(about["chapter_title"])}</a>'
        lines["Chapter"] = link
    for name, text in lines.items():
        yield f'<p style="margin: .3rem 0"><strong>{name}.</strong> {text}</p>'


def _effect_in_words(effect: Effect, reason: str) -> Iterator[str]:
    if reason:
        yield reason
        return
    if effect.share:
        yield f"{percent(effect.share)} of vanilla's error, all labels, {effect.task}"
    if effect.few:
        yield f"few-shot labels: {percent(effect.few)}"
    if effect.note:
        yield effect.note

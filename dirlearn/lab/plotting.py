"""The book's figures: one style, colours that colour-blind readers can tell apart."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import rcsetup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from dirlearn.arrays import to_numpy
from dirlearn.bins import REGIONS, Bins
from dirlearn.lab.study import Results

# Okabe and Ito (2008): told apart with every common colour blindness.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
REGION_COLORS = {"many": "#0072B2", "medium": "#56B4E9", "few": "#E69F00", "zero": "#D55E00"}
INK, FAINT = "#333333", "#BBBBBB"
WIDTH = 7.2  # inches: the text column of the book

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.prop_cycle": rcsetup.cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.figsize": (WIDTH, 3.0),
    "font.size": 10,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.transparent": True,  # the page behind shows, light or dark
    "svg.hashsalt": "dirlearn",  # the same figure is the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def use_style() -> None:
    """Set the book's style for all figures that follow; a notebook shows them as SVG."""
    mpl.rcParams.update(STYLE)
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # no notebook, no format to choose
        return
    set_matplotlib_formats("svg")  # type: ignore[no-untyped-call]  # IPython carries no types


def panels(
    columns: int = 1, rows: int = 1, height: float = 3.0, **kwargs: Any
) -> tuple[Figure, Any]:
    """Panels side by side that fill the width of a page; ``height`` in inches, of each row.

    Examples
    --------
    >>> figure, axes = panels(2)
    >>> len(axes)
    2
    """
    return plt.subplots(rows, columns, figsize=(WIDTH, rows * height), **kwargs)


def share(figure: Figure, name: str, alt: str) -> None:
    """Let other pages of the book show this figure, as ``{glue}`` with this name.

    Where the book's tools are not installed, there are no other pages, and nothing happens.

    Examples
    --------
    >>> share(panels()[0], "headline", alt="Nothing yet.")
    """
    if find_spec("myst_nb") is None:
        return
    from myst_nb import glue

    glue(name, _Picture(figure, alt), display=False)


class _Picture:
    """A figure as HTML with the picture inside: glue carries no SVG to another page."""

    def __init__(self, figure: Figure, alt: str) -> None:
        svg = BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        data = b64encode(svg.getvalue()).decode()
        source = f"data:image/svg+xml;base64,{data}"
        self.html = f'<figure><img alt="{escape(alt)}" src="{source}"></figure>'

    def _repr_html_(self) -> str:
        return self.html


def histogram(
    counts: Any,
    bins: Bins,
    ax: Axes,
    shots: Any = None,
    log: bool = True,
    samples: str = "labels",
) -> Axes:
    """Label counts as bars coloured by shot region; a tick under the axis marks an empty bin.

    ``shots`` are by default those of :meth:`dirlearn.Bins.shots`.

    Examples
    --------
    >>> bins = Bins.uniform(0, 4, 1)
    >>> len(histogram([150, 30, 5, 0], bins, panels()[1]).patches)
    4
    """
    counts = to_numpy(counts, "counts")
    shots = bins.shots(counts) if shots is None else shots
    colors = [REGION_COLORS[region] for region in shots]
    # Edges in the colour of the bars: without them a vector figure shows hairlines between bars.
    ax.bar(
        bins.edges[:-1],
        counts,
        np.diff(bins.edges),
        align="edge",
        color=colors,
        edgecolor=colors,
        linewidth=0.4,
    )
    empty = bins.centers[np.asarray(shots) == "zero"]
    if empty.size:  # a line without points would still ask for room, in the corner of the figure
        ax.plot(
            empty,
            np.full(len(empty), -0.02),
            "|",
            color=REGION_COLORS["zero"],
            transform=ax.get_xaxis_transform(),
            clip_on=False,
        )
    if log:
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.7)
    ax.set_ylabel(samples)
    return ax


def region_legend(figure: Figure) -> None:
    """Name the colours of the shot regions in one row above the panels."""
    patches = [Patch(color=REGION_COLORS[region], label=f"{region}-shot") for region in REGIONS]
    figure.legend(handles=patches, loc="outside upper center", ncols=len(patches))


def density(
    counts: Any, smoothed: Mapping[str, Any], bins: Bins, ax: Axes, samples: str = "labels"
) -> Axes:
    """Raw counts as pale bars, smoothed ones as lines, one for each entry of ``smoothed``.

    Examples
    --------
    >>> ax = density([4, 0, 2], {"LDS": [2, 2, 2]}, Bins.uniform(0, 3, 1), panels()[1])
    >>> [line.get_label() for line in ax.lines]
    ['LDS']
    """
    heights = to_numpy(counts, "counts")
    ax.bar(bins.edges[:-1], heights, np.diff(bins.edges), align="edge", color=FAINT, label="counts")
    for name, values in smoothed.items():
        ax.plot(bins.centers, to_numpy(values, name), label=name)
    ax.set_ylabel(samples)
    ax.legend()
    return ax


def error_by_label(
    errors: Mapping[str, Any], bins: Bins, ax: Axes, counts: Any = None, unit: str = ""
) -> Axes:
    """Error of each bin as a line per method, over bars of the training counts.

    ``errors`` maps a method to an array of shape (K,), NaN where no target fell, or (S, K) for S
    seeds: then the line is their mean and the band reaches from the smallest to the largest.

    Examples
    --------
    >>> ax = error_by_label({"vanilla": [1.0, np.nan]}, Bins([0, 1, 2]), panels()[1], [5, 0])
    >>> ax.get_ylabel()
    'mean absolute error'
    """
    for name, values in errors.items():
        table = np.atleast_2d(to_numpy(values, name))
        (line,) = ax.plot(bins.centers, table.mean(axis=0), label=name)
        if len(table) > 1:
            ax.fill_between(
                bins.centers,
                table.min(axis=0),
                table.max(axis=0),
                color=line.get_color(),
                alpha=0.2,
                linewidth=0,
            )
    ax.set_ylabel(f"mean absolute error{f' ({unit})' if unit else ''}")
    ax.set_ylim(bottom=0)
    if counts is not None:
        behind = ax.twinx()
        behind.bar(
            bins.edges[:-1],
            to_numpy(counts, "counts"),
            np.diff(bins.edges),
            align="edge",
            color=FAINT,
            alpha=0.6,
        )
        behind.set_ylabel("training labels")
        behind.spines["right"].set_visible(True)
        ax.set_zorder(behind.get_zorder() + 1)
        ax.patch.set_visible(False)
    if len(errors) > 1:
        ax.legend()
    return ax


def comparison(
    results: Results,
    baseline: str,
    axes: Axes | Iterable[Axes],
    regions: Iterable[str] = ("all", "many", "medium", "few", "zero"),
    methods: Iterable[str] | None = None,
    metric: str | None = None,
    unit: str = "",
) -> None:
    """Paired differences from ``baseline`` with 95 % intervals, one panel for each region.

    Left of the line a method errs less than the baseline. Colour says what the interval decides:
    better, worse, or neither.
    """
    boxes = [axes] if isinstance(axes, Axes) else list(axes)
    methods = [m for m in (methods or results.methods) if m != baseline]
    for first, (ax, region) in enumerate(zip(boxes, regions, strict=True)):
        for row, method in enumerate(methods):
            gain = results.difference(method, baseline, region, metric)
            color = COLORS[0] if gain.high < 0 else COLORS[1] if gain.low > 0 else "#777777"
            ax.plot([gain.low, gain.high], [row, row], color=color, solid_capstyle="butt")
            ax.plot(gain.value, row, "o", color=color, markersize=6)
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.set_yticks(range(len(methods)), methods if first == 0 else [])
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.set_xlabel(f"{region} ({unit})" if unit else region)
        ax.margins(x=0.12)
        ax.grid(axis="x", color=FAINT, linewidth=0.5)


def scoreboard(
    results: Results,
    ax: Axes,
    baseline: str = "vanilla",
    regions: Sequence[str] = ("all", "many", "medium", "few"),
    methods: Sequence[str] | None = None,
    limit: float = 40.0,
) -> None:
    """Change against ``baseline`` in percent of its error: methods by regions, as coloured cells.

    Blue is less error, orange more, at full strength beyond ``limit`` percent. A cell whose 95 %
    interval holds zero is left white, with its number in grey.
    """
    methods = [m for m in (methods or results.methods) if m != baseline]
    colors = LinearSegmentedColormap.from_list("", [COLORS[0], "white", COLORS[1]])
    ax.set(xlim=(-0.5, len(regions) - 0.5), ylim=(len(methods) - 0.5, -0.5))
    for column, region in enumerate(regions):
        scale = 100 / results.mean(baseline, region).value
        for row, method in enumerate(methods):
            gain = results.difference(method, baseline, region)
            decided = gain.low > 0 or gain.high < 0
            change = scale * gain.value
            strength = 0.5 + 0.5 * float(np.clip(change / limit, -1, 1)) * 0.8
            cell = Rectangle((column - 0.5, row - 0.5), 1, 1, linewidth=0)
            cell.set_facecolor(colors(strength) if decided else "none")
            ax.add_patch(cell)
            ax.text(
                column,
                row,
                f"{change:+.0f}".replace("-", "−"),
                ha="center",
                va="center",
                fontsize=8,
                color=INK if decided else "#888888",
            )
    ax.set_xticks(range(len(regions)), regions)
    ax.set_yticks(range(len(methods)), methods)
    ax.tick_params(length=0, labelsize=8)
    ax.spines[:].set_visible(False)

"""Make the built book readable with no network.

MathJax comes from the ``sphinx-mathjax-offline`` wheel, cut down to the files that the book uses.
Thebe goes: jupyter-book always loads it, from the network, and twice, which is a script error on
every page.
"""

from __future__ import annotations

import shutil
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

SCRIPT = "tex-chtml-full.js"
FONTS = "output/chtml/fonts/woff-v2"


def use_local_mathjax(app: Sphinx, config: Config) -> None:
    config.mathjax_path = f"mathjax/{SCRIPT}"


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    wheel = Path(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline"))
    source, target = wheel / "static" / "mathjax", Path(app.outdir) / "_static" / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source / SCRIPT, target / SCRIPT)
    shutil.copytree(source / FONTS, target / FONTS, dirs_exist_ok=True)


def drop_thebe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    def is_thebe(script: Any) -> bool:
        return (
            "thebe"
            in f"{getattr(script, 'filename', script)}{getattr(script, 'attributes', '')}".lower()
        )

    context["script_files"] = [s for s in context.get("script_files", []) if not is_thebe(s)]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", use_local_mathjax)
    app.connect("html-page-context", drop_thebe, priority=900)  # after everyone has added scripts
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

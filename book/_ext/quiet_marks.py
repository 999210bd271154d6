"""Keep the test marks of a chapter (``# NBVAL_...``) out of the rendered page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

MARK = re.compile(r"^# NBVAL_\w+\n", re.MULTILINE)


def drop_marks(app: Sphinx, doctree: nodes.document) -> None:
    for block in doctree.findall(nodes.literal_block):
        text = block.astext()
        if MARK.search(text):
            block.rawsource = MARK.sub("", text)
            block.children = [nodes.Text(block.rawsource)]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", drop_marks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

from __future__ import annotations

import pandas as pd
import pytest

from dirlearn.lab.browse import browse

TABLE = pd.DataFrame({"method": ["LDS", "a < b & c"], "value": [7.67, 8.0]})


def test_every_row_stands_in_plain_html():
    html = browse(TABLE, ["method"], "errors", "Errors")._repr_html_()
    assert html.count("<tr>") == 3
    assert "<td>LDS</td><td>7.67</td>" in html
    assert "<td>a &lt; b &amp; c</td>" in html
    assert '<th scope="col" data-filter>method</th><th scope="col">value</th>' in html


def test_nothing_is_loaded_from_elsewhere():
    html = browse(TABLE, [], "errors", "Errors").html
    assert "http" not in html
    assert "src=" not in html
    assert "@import" not in html
    assert "url(" not in html


def test_label_and_name_reach_the_page():
    html = browse(TABLE, [], "errors", 'the "best" errors').html
    assert 'id="errors"' in html
    assert html.endswith('("errors");</script>')
    assert 'aria-label="the &quot;best&quot; errors"' in html


def test_an_empty_table_has_its_head():
    assert "<th" in browse(TABLE.iloc[:0], ["value"], "errors", "Errors").html


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match=r"got \['year'\]; it has \['method', 'value'\]"):
        browse(TABLE, ["method", "year"], "errors", "Errors")
    with pytest.raises(ValueError, match=r"identifier.*got '\"\);'"):
        browse(TABLE, [], '");', "Errors")

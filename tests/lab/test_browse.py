from __future__ import annotations

import pandas as pd
import pytest

from dirlearn.lab.browse import browse
from tests.test_offline import CHROMIUM, Browser

TABLE = pd.DataFrame({"method": ["LDS", "a < b & c"], "value": [7.67, 8.0]})


def test_every_row_stands_in_plain_html():
    html = browse(TABLE, ["method"], "errors", "Errors")._repr_html_()
    assert html.count("<tr>") == 3
    assert "<td>LDS</td><td>7.67</td>" in html
    assert "<td>a &lt; b &amp; c</td>" in html
    assert '<th scope="col" data-filter>method</th><th scope="col">value</th>' in html


def test_a_long_name_may_break_after_a_plus():
    html = browse(pd.DataFrame({"method": ["LDS+FDS"]}), [], "errors", "Errors").html
    assert "<td>LDS+<wbr>FDS</td>" in html


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


SHOWN = "[...document.querySelectorAll('#errors tbody tr:not([hidden])')].map(r => r.innerText)"
COUNT = "document.querySelector('#errors output').value"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome to open the table in")
def test_menus_search_and_heads_work_in_a_browser(tmp_path):
    table = pd.DataFrame(
        {
            "method": ["L+S", "FDS", "L+S", "FDS"],
            "set": ["a", "a", "b", "c"],
            "value": [9, 10, 8, 7],
        }
    )
    page = tmp_path / "page.html"
    shown = browse(table, ["method", "set"], "errors", "Errors").html
    page.write_text(f"<!doctype html><meta charset=utf-8>{shown}", encoding="utf-8")

    def rows():
        return [row.split("\t") for row in browser.evaluate(SHOWN)]

    def fill(element, value):
        target = f"document.querySelectorAll('#errors :is(select, input)')[{element}]"
        browser.evaluate(f"{target}.value = {value!r}")
        browser.evaluate(f"{target}.dispatchEvent(new Event('input', {{bubbles: true}}))")

    browser = Browser(tmp_path / "profile")
    try:
        browser.connect()
        browser.open(page)
        assert browser.evaluate(COUNT) == "4 of 4 rows"
        fill(0, "L+S")
        assert rows() == [["L+S", "a", "9"], ["L+S", "b", "8"]]
        offered = "[...document.querySelectorAll('#errors select')[1].options].map(o => o.text)"
        assert browser.evaluate(offered) == ["all", "a (1)", "b (1)"]
        fill(2, "B")
        assert rows() == [["L+S", "b", "8"]]
        assert browser.evaluate(COUNT) == "1 of 4 rows"
        browser.evaluate("document.querySelector('#errors [type=reset]').click()")
        browser.evaluate("new Promise(done => setTimeout(done, 50))")
        assert len(rows()) == 4
        heads = "document.querySelectorAll('#errors thead button')"
        browser.evaluate(f"{heads}[2].click()")
        assert [row[2] for row in rows()] == ["7", "8", "9", "10"]
        browser.evaluate(f"{heads}[2].click()")
        assert [row[2] for row in rows()] == ["10", "9", "8", "7"]
        assert browser.complaints() == []
    finally:
        browser.close()

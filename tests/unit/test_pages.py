"""Tables as pages."""

import pandas as pd

from ddgm.pages import page_of_markdown, page_of_tables


def test_markdown_becomes_a_page_with_its_tables_and_words():
    rows = "| A\\|B | **0.1 ± 0.0** |\n| DPS* | 0.2 |\n"
    text = f"| method | MSE ↓ |\n| --- | --- |\n{rows}\n16 images.\n"
    page = page_of_markdown(text, "Table 1: <work> & accuracy")
    assert page.startswith("<!doctype html>")
    assert "<h1>Table 1: &lt;work&gt; &amp; accuracy</h1>" in page
    assert "<strong>0.1 ± 0.0</strong>" in page
    assert "<td>DPS*</td>" in page
    assert "<td>A|B</td>" in page
    assert "<p>16 images.</p>" in page


def test_tables_become_a_page_with_numbers_rounded_and_words_escaped():
    table = pd.DataFrame(
        {"job": ["<train>", "b"], "seconds": [1.23456, float("nan")], "jobs": [3, 4]}
    )
    page = page_of_tables({"Steps & jobs": table, "": table[["job"]]}, "Run times")
    assert page.count("<h2>") == 1
    assert "Steps &amp; jobs" in page
    assert "&lt;train&gt;" in page
    assert ">1.23<" in page
    assert ">–<" in page
    assert ">3<" in page
    assert page == page_of_tables({"Steps & jobs": table, "": table[["job"]]}, "Run times")

"""Tables as pages."""

import pandas as pd

from ddgm.pages import page_of_tables


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

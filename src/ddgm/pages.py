"""Tables as HTML pages that need nothing else, for the report."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

_PAGE = Environment(autoescape=True).from_string("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2em; }
h1, h2 { font-size: 1.15em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-bottom: 1.5em; }
th, td { padding: 0.3em 0.9em; text-align: left; vertical-align: top; border: 0; }
thead th { border-bottom: 2px solid #222; }
tbody tr { border-bottom: 1px solid #ddd; }
td.number { text-align: right; }
</style>
<h1>{{ title }}</h1>
{{ body }}
{% if note %}<p>{{ note }}</p>{% endif %}
""")


def page_of_tables(tables: Mapping[str, pd.DataFrame], title: str, note: str = "") -> str:
    """Return tables as an HTML page.

    Parameters
    ----------
    tables : mapping
        The tables under their headings; an empty heading is left out. Cells of markupsafe's
        `Markup` are HTML already.
    title : str
        Heading of the page.
    note : str
        What stands below the tables.
    """
    parts = []
    for number, (heading, table) in enumerate(tables.items()):
        if heading:
            parts.append(Markup("<h2>{}</h2>").format(heading))
        styled = (
            table.style.set_uuid(str(number))
            .hide(axis="index")
            .format(precision=2, na_rep="–", escape="html")
        )
        numbers = table.select_dtypes("number").columns
        classes = pd.DataFrame("number", index=table.index, columns=numbers)
        parts.append(Markup(styled.set_td_classes(classes).to_html()))
    return _PAGE.render(title=title, body=Markup("\n").join(parts), note=note)

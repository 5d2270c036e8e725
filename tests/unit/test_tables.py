import math
import re

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from ddgm.blind import BlindChoice
from ddgm.errors import DdgmError
from ddgm.selection import Choice
from ddgm.tables import (
    Row,
    blind_choices,
    blind_choices_to_html,
    blind_choices_to_markdown,
    selected,
    selected_to_html,
    selected_to_markdown,
    table_1,
    to_html,
    to_latex,
    to_markdown,
)


def row(label, method, centre, *, gradient, network, count=20, seed=0):
    rng = np.random.default_rng(seed)
    metrics = pd.DataFrame(
        {
            "image": range(count),
            "mse": centre + 0.05 * rng.random(count),
            "ssim": 1 - centre - 0.05 * rng.random(count),
            "psnr": 20 + rng.random(count),
            "data_error": 12 + rng.random(count),
            "gradient_evals": gradient,
            "adjoint_evals": 1,
            "network_evals": network,
            "network_gradient_evals": 0,
        }
    )
    return Row(label, method, metrics)


@pytest.fixture
def rows():
    return [
        row("DDGM", "ddgm", 0.15, gradient=2250, network=150, seed=1),
        row("DDGM, N=50", "ddgm", 0.1, gradient=1250, network=50, seed=2),
        row("Algebraic", "algebraic", 0.3, gradient=100, network=0, seed=3),
    ]


def markdown_rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


def latex_rows(text):
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    return [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in lines]


def html_rows(text):
    page = BeautifulSoup(text, "html.parser")
    return [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.find_all("tr")]


def test_means_and_standard_errors_are_over_images(rows):
    table = table_1(rows)
    assert list(table["method"]) == ["DDGM", "DDGM, N=50", "Algebraic"]
    for entry, (_, line) in zip(rows, table.iterrows(), strict=True):
        for name in ("mse", "ssim", "psnr", "data_error"):
            values = entry.metrics[name].to_numpy()
            assert line[name] == pytest.approx(values.mean(), rel=1e-12)
            expected = np.std(values, ddof=1) / math.sqrt(20)
            assert line[f"{name}_se"] == pytest.approx(expected, rel=1e-12)
        assert line["images"] == 20


def test_evaluations_are_those_that_were_counted(rows):
    table = table_1(rows)
    assert list(table["gradient_evals"]) == [2250, 1250, 100]
    assert list(table["network_evals"]) == [150, 50, 0]


def test_a_method_on_fewer_images_is_marked_and_cannot_be_the_best(rows):
    rows[2] = Row("DPS*", "dps", rows[1].metrics.head(4).assign(mse=0.001, ssim=0.999))
    cells = [[cell.strip() for cell in line] for line in markdown_rows(to_markdown(table_1(rows)))]
    assert [line[7] for line in (cells[0], *cells[2:])] == ["images", "20", "20", "4"]
    assert not any("**" in cell for cell in cells[4])
    assert "20 test images unless the last column says fewer" in to_markdown(table_1(rows))
    text = to_latex(table_1(rows))
    assert {len(line) for line in latex_rows(text)} == {8}
    assert r"\begin{tabular}{lccrrllr}" in text


def test_a_method_without_gradient_steps_has_a_dash_as_in_the_paper(rows):
    rows[0] = row("DDRM", "ddrm", 0.15, gradient=0, network=10)
    assert markdown_rows(to_markdown(table_1(rows)))[2][3].strip() == "–"


def test_requirements_are_those_of_the_method(rows):
    table = table_1(rows)
    assert not table["requires_svd"].any()
    assert not table["requires_network_gradient"].any()


def test_an_image_without_a_value_is_not_silently_left_out(rows):
    rows[0].metrics.loc[3, "ssim"] = math.nan
    with pytest.raises(DdgmError, match=r"DDGM has no ssim for image 3"):
        table_1(rows)


def test_markdown_has_as_many_cells_in_every_row(rows):
    cells = markdown_rows(to_markdown(table_1(rows)))
    assert len(cells) == 5
    assert {len(line) for line in cells} == {7}
    assert all(set(cell.strip()) == {"-"} for cell in cells[1])
    assert [line[0].strip() for line in cells[2:]] == ["DDGM", "DDGM, N=50", "Algebraic"]
    assert [line[3].strip() for line in cells[2:]] == ["2250", "1250", "100"]


def test_markdown_says_over_how_many_images(rows):
    assert "20 test images" in to_markdown(table_1(rows))


def test_markdown_shows_the_best_of_each_measure_in_bold(rows):
    rows[2].metrics["ssim"] = 0.99
    cells = [[cell.strip() for cell in line] for line in markdown_rows(to_markdown(table_1(rows)))]
    bold = [(line[0], at) for line in cells for at, cell in enumerate(line) if "**" in cell]
    assert bold == [("DDGM, N=50", 5), ("Algebraic", 6)]
    best = cells[3][5]
    assert best.startswith("**")
    assert best.endswith("**")
    assert f"{rows[1].metrics['mse'].mean():.4f}" in best


def test_html_says_what_markdown_says(rows):
    rows[0] = Row("p(x<y) & <i>", "ddgm", rows[0].metrics)
    rows[2] = Row("DPS", "dps", rows[1].metrics.head(4))
    text, markdown = to_html(table_1(rows)), to_markdown(table_1(rows))
    head, _, *body = [[cell.strip() for cell in line] for line in markdown_rows(markdown)]
    assert html_rows(text) == [head, *([cell.strip("*") for cell in line] for line in body)]
    page = BeautifulSoup(text, "html.parser")
    assert [bold.get_text() for bold in page.find_all("b")] == [
        body[1][5].strip("*"),
        body[1][6].strip("*"),
    ]
    assert page.p.get_text() == markdown.splitlines()[-1]
    assert text == to_html(table_1(rows))


def test_a_vertical_bar_in_a_label_does_not_add_a_column(rows):
    rows[0] = Row("p(x|y)", "ddgm", rows[0].metrics)
    assert {len(line) for line in markdown_rows(to_markdown(table_1(rows)))} == {7}


def test_latex_has_as_many_cells_in_every_row_as_its_tabular_has_columns(rows):
    text = to_latex(table_1(rows))
    columns = re.search(r"\\begin\{tabular\}\{([lcr]+)\}", text)
    assert columns is not None
    cells = latex_rows(text)
    assert len(cells) == 4
    assert {len(line) for line in cells} == {len(columns[1])} == {7}
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count("\\" + rule) == 1
    assert text.count(r"\begin{") == text.count(r"\end{") == 1


def test_latex_shows_the_best_of_each_measure_in_bold(rows):
    rows[2].metrics["ssim"] = 0.99
    cells = latex_rows(to_latex(table_1(rows)))
    bold = [(line[0].strip(), at) for line in cells for at, cell in enumerate(line) if "bf" in cell]
    assert bold == [("DDGM, N=50", 5), ("Algebraic", 6)]
    assert re.fullmatch(r"\\textbf\{\d\.\d{4} \$\\pm\$ \d\.\d{4}\}", cells[2][5].strip())


def test_latex_escapes_what_it_would_not_print(rows):
    rows[0] = Row("A_1 & B, 50% #{$}", "ddgm", rows[0].metrics)
    text = to_latex(table_1(rows))
    assert r"A\_1 \& B, 50\% \#\{\$\}" in text
    assert {len(line) for line in latex_rows(text)} == {7}


@pytest.mark.parametrize("letter", ["\\", "~", "^"])
def test_latex_escapes_letters_that_have_no_backslashed_form(rows, letter):
    # \\ ends a row, \~ and \^ are accents on the next letter: each needs a command of its own.
    rows[0] = Row(f"a{letter}b", "ddgm", rows[0].metrics)
    line = to_latex(table_1(rows)).splitlines()[4]
    label = line.split("&")[0].strip()
    command = {"\\": r"\textbackslash", "~": r"\textasciitilde", "^": r"\textasciicircum"}[letter]
    assert label.startswith("a" + command)
    assert label.endswith("b")


def choice(**changes):
    values = {
        "sweep": "sigma1",
        "method": "ddgm",
        "settings": {"N": 50, "K": 25, "sigma_1": 3.0},
        "network_evals": 50,
        "mse": 0.12345,
        "mse_se": 0.00321,
        "images": 32,
        "points": 14,
    }
    return Choice(**{**values, **changes})


def test_selected_settings_are_listed_in_words():
    table = selected({"ddgm_50": choice(), "ddgm": choice(sweep="other", mse=0.1)})
    assert list(table["row"]) == ["ddgm_50", "ddgm"]
    assert table["settings"][0] == "N = 50, K = 25, sigma_1 = 3"
    assert table["mse"][0] == 0.12345
    head, _, first, second = markdown_rows(selected_to_markdown(table))
    assert [cell.strip() for cell in head][:4] == ["row", "sweep", "settings", "net evals"]
    assert [cell.strip() for cell in first] == [
        "ddgm_50",
        "sigma1",
        "N = 50, K = 25, sigma_1 = 3",
        "50",
        "0.1235 ± 0.0032",
        "32",
        "14",
    ]
    assert second[1].strip() == "other"
    assert html_rows(selected_to_html(table))[1] == [cell.strip() for cell in first]


def test_settings_chosen_without_the_truth_are_listed_with_what_they_cost():
    chosen = BlindChoice("discrepancy", '{"K": 50}', 0.21, '{"K": 100}', 0.2)
    table = blind_choices({"algebraic": [chosen]})
    assert table["excess"][0] == pytest.approx(0.05)
    text = blind_choices_to_markdown(table, 4.087, 4.1)
    cells = [cell.strip() for cell in markdown_rows(text)[2]]
    assert cells == ["algebraic", "discrepancy", "K = 50", "0.2100", "K = 100", "0.2000", "5.0%"]
    assert "4.087; simulated with 4.1." in text
    page = blind_choices_to_html(table, 4.087, 4.1)
    assert html_rows(page)[1] == cells
    assert "4.087; simulated with 4.1." in page

"""What the guides say to do is done as they say it."""

import ast
import re
import shutil
import sys
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from checkouts import Checkout
from pages import named_blocks

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDE = REPOSITORY / "docs" / "guides" / "add_a_method.md"


def enter(registry, block):
    """Write what the guide adds to the list of methods into the list as it is."""
    text = registry.read_text(encoding="utf-8")
    (imported,) = re.findall(r"^from ddgm\.methods\.\w+ import \w+$", block, re.MULTILINE)
    old = re.findall(r'^    "\w+": \w+,$', text, re.MULTILINE)
    (entry,) = set(re.findall(r'^    "\w+": \w+,$', block, re.MULTILINE)) - set(old)
    text = text.replace(f"\n{old[-1]}\n", f"\n{old[-1]}\n{entry}\n", 1)
    first = "from ddgm.methods.algebraic import Algebraic\n"
    registry.write_text(text.replace(first, f"{first}{imported}\n", 1), encoding="utf-8")


@pytest.fixture
def extended(finished, tmp_path):
    """A finished checkout with a library of its own, to which the guide's method is added."""
    shutil.copytree(finished.root, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    shutil.copytree(REPOSITORY / "src", tmp_path / "src")
    blocks = named_blocks(GUIDE)
    registry = blocks.pop("src/ddgm/methods/__init__.py")
    for name, content in blocks.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    enter(tmp_path / "src/ddgm/methods/__init__.py", registry)
    # The guide's row, in the table of the run at hand.
    table = {"table_1": ["ddgm_50", "ddrm", "diffpir", "algebraic"]}
    (tmp_path / "config/few.yaml").write_text(yaml.safe_dump(table))
    return type(finished)(tmp_path)


def test_a_method_added_by_the_guide_is_a_row_of_table_1_and_reruns_no_other(extended):
    arguments = ("table_1", "--configfile", "config/tiny.yaml", "config/diffpir.yaml")
    environment = {"PYTHONPATH": str(extended.root / "src")}
    status, output = extended.snakemake(*arguments, "config/few.yaml", **environment)
    assert status == 0, output
    assert re.search(r"^reconstruct +1$", output, re.MULTILINE)
    assert re.search(r"^total +3$", output, re.MULTILINE)  # with metrics and table_1
    table = pd.read_csv(extended.root / "results/tiny/tables/table_1.csv").set_index("method")
    assert table.loc["DiffPIR", "network_evals"] == 20
    assert table.loc["DiffPIR", "mse"] < 1  # that of an empty image

    sweep = ("sweep_diffpir", *arguments[1:], "config/diffpir_swept.yaml")
    status, output = extended.snakemake("-n", *sweep, **environment)
    assert status == 0, output
    assert re.search(r"^sweep_diffpir_point +2$", output, re.MULTILINE)  # a job a line


def test_the_tests_of_methods_cover_one_that_the_guide_adds(tmp_path):
    """They run over the list; of another method they would have to know nothing."""
    shutil.copytree(REPOSITORY / "src", tmp_path / "src")
    shutil.copytree(REPOSITORY / "tests" / "unit", tmp_path / "tests" / "unit")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    blocks = named_blocks(GUIDE)
    (tmp_path / "src/ddgm/methods/diffpir.py").write_text(blocks["src/ddgm/methods/diffpir.py"])
    enter(
        tmp_path / "src/ddgm/methods/__init__.py",
        blocks["src/ddgm/methods/__init__.py"],
    )
    checkout = Checkout(tmp_path)
    files = ("tests/unit/test_methods.py", "tests/unit/test_gaussian_prior.py")
    status, output = checkout.run(
        [sys.executable, "-m", "pytest", "-q", *files, "-k", "diffpir"],
        timeout=300,
        PYTHONPATH=str(tmp_path / "src"),
    )
    assert status == 0, output
    assert int(re.search(r"(\d+) passed", output)[1]) > 10


HOW = REPOSITORY / "docs" / "guides" / "how_it_works.md"


def table_rows(page, first):
    """Return the rows of the table whose first heading is this, as lists of cells."""
    lines = page.read_text(encoding="utf-8").split(f"\n| {first} |", 1)[1].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def names_in(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_the_drawing_and_the_table_of_stages_are_those_of_the_rules(checkout):
    stage_of = {
        re.sub("<.*?>", "*", rule): stage
        for stage, rules, _ in table_rows(HOW, "stage")
        for rule in names_in(rules)
    }
    status, output = checkout.snakemake(
        "-n", "paper", "--rulegraph", "--configfile", "config/demo.yaml"
    )
    assert status == 0, output
    rules = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)"', output, re.MULTILINE))
    assert len(rules) > 20, output

    def stage(number):
        found = [s for pattern, s in stage_of.items() if fnmatch(rules[number], pattern)]
        assert found, f"{HOW.name} has no stage for the rule {rules[number]}"
        return found[0]  # the more particular patterns come first

    edges = {
        (stage(before), stage(after))
        for before, after in re.findall(r"^\s*(\d+) -> (\d+)", output, re.MULTILINE)
    }
    edges = {(before, after) for before, after in edges if before != after}
    list(TopologicalSorter({a: {b for b, c in edges if c == a} for _, a in edges}).static_order())
    # Arrows that say no more than others do are not drawn.
    reached = set(edges)
    while more := {(a, d) for a, b in reached for c, d in reached if b == c} - reached:
        reached |= more
    needed = {
        (a, c)
        for a, c in edges
        if not any((a, b) in reached and (b, c) in reached for _, b in edges)
    }
    drawing = ElementTree.parse(REPOSITORY / "docs/images/data_path.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    titles = {
        kind: [
            each.findtext(f"{space}title") for each in drawing.iter() if each.get("class") == kind
        ]
        for kind in ("arrow", "stage")
    }
    assert {tuple(title.split(" → ")) for title in titles["arrow"]} == needed
    assert set(titles["stage"]) == set(stage_of.values())


def test_imports_of_the_library_run_one_way():
    """At run time; a name that annotations alone use may come from anywhere."""
    library = REPOSITORY / "src" / "ddgm"
    layer = {
        name: number
        for number, (_, names) in enumerate(table_rows(HOW, "layer"))
        for name in names_in(names)
    }
    modules = {
        path.relative_to(library).parts[0].removesuffix(".py") for path in library.rglob("*.py")
    }
    modules -= {"__init__", "__main__"}
    assert sorted(modules ^ set(layer)) == [], f"{HOW.name} names each module once"
    wrong = []
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library).parts[0].removesuffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ddgm."):
                used = node.module.split(".")[1]
                if name in layer and layer[used] > layer[name]:
                    wrong.append(f"{name} imports {used}")
    assert wrong == []

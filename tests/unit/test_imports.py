"""Jobs start fast: what takes seconds to load is loaded by the scripts that need it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"

# What each script may load before it starts to work, in groups of which each may load all that the
# one before it may. Scripts that stand nowhere are of the second group. All others may come within
# functions, when they are needed.
LIGHT = (
    "configuration",
    "gather_rows",
    "run_times",
    "select_settings",
    "selected",
    "sweep",
    "synthesize",
    "table_1",
    "training_curve",
    "versions",
)
COMPARE = ("metrics", "slab_table", "sweep_point", "viewer")
STORAGE = ("download", "export")
ELSEWHERE = ("train",)  # which needs nearly all
HEAVY = ["astra", "cloudvolume", "dask", "distributed", "lightning", "tensorboard"]
SLOW = ["torchmetrics", "scipy.signal", "scipy.stats"]

LOAD = """
import json, sys
for name, imports, unwanted in json.load(sys.stdin):
    exec(imports)
    loaded = [package for package in unwanted if package in sys.modules]
    if loaded:
        sys.exit(f"{name} loads {', '.join(loaded)}")
"""


def imports_of(path):
    """Return a script's import statements, as they stand at its head."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return "\n".join(ast.unparse(s) for s in body if isinstance(s, (ast.Import, ast.ImportFrom)))


def offender(groups):
    """Load what the scripts of each group load, in one process; returns what it complains of."""
    steps = [
        (name, imports_of(SCRIPTS / f"{name}.py"), unwanted)
        for names, unwanted in groups
        for name in names
    ]
    result = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps(steps),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return result.stderr.strip()


def test_a_script_loads_no_heavy_package_that_it_can_do_without():
    listed = {*LIGHT, *COMPARE, *STORAGE, *ELSEWHERE}
    others = sorted({path.stem for path in SCRIPTS.glob("*.py")} - listed)
    groups = [(LIGHT, ["torch", *SLOW, *HEAVY]), (others, SLOW + HEAVY), (COMPARE, HEAVY)]
    assert offender(groups) == ""


def test_copying_and_exporting_a_volume_needs_no_pytorch():
    heavy = [package for package in HEAVY if package != "cloudvolume"]
    assert offender([(STORAGE, ["torch", *SLOW, *heavy])]) == ""

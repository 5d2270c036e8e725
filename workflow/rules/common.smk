import ast
import functools
import hashlib
import json
import shutil
from pathlib import Path

import ddgm
import snakemake
from ddgm.config import (
    SYNTHETIC,
    check_meaning,
    check_schema,
    given_network,
    held_out_views,
    image_geometry,
    resolve_address,
    selections_of,
    settings_of,
    sweeps_of,
    volume_names,
)
from ddgm.engine import cached_path, is_fused
from ddgm.errors import DdgmError
from ddgm.methods import METHODS
from ddgm.slurm_jobs import (
    LeftoverError,
    note_end,
    note_start,
    refuse_leftovers,
    refuse_short_memory,
)
from ddgm.sweep_tables import group_points
from ddgm.training_settings import INCIDENTAL, TrainingSettings
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

RESULTS = f"results/{config.get('run')}"
LIBRARY = Path(ddgm.__file__).parent
SCRIPTS = Path(workflow.current_basedir).parent / "scripts"


def stop(error):
    """End with one line on the terminal, before any job has started."""
    print(error, file=sys.stderr, flush=True)
    # Snakemake would add the place in this file, and its own words, to any exception.
    os._exit(1)


def check_once(sources):
    """Check what the configuration means: seconds, so remembered until it or ddgm changes."""
    digest = hashlib.sha256(json.dumps([config, sources], sort_keys=True).encode())
    network = given_network(config)
    if network is not None and network.is_file():
        digest.update(network.read_bytes())
    tables = [sweep.table for sweep in sweeps_of(config).values()]
    for path in [*sorted(LIBRARY.rglob("*.py")), *tables]:
        digest.update(path.read_bytes())
    mark = Path(".snakemake") / "ddgm-checked" / digest.hexdigest()
    if not mark.exists():
        check_meaning(config)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def check_container(image):
    """Refuse --sdm apptainer without an image: Snakemake would run the jobs outside of any."""
    if DeploymentMethod.APPTAINER not in workflow.deployment_settings.deployment_method:
        return
    if image is None:
        raise DdgmError("config: container = None: --sdm apptainer needs an image")
    if "://" not in image and not Path(image).exists():
        raise DdgmError(f"config: container = {image!r}: no such file")


# Jobs load this file again; what has been checked once need not be checked by each of them.
if workflow.is_main_process:
    try:
        check_schema(config, workflow.source_path("../schemas/config.schema.yaml"))
        check_container(config["container"])
        check_once([resolve_address(config, name) for name in volume_names(config)])
    except DdgmError as error:
        stop(error)

GEOMETRY = image_geometry(config)
GIVEN_NETWORK = given_network(config)
SWEEPS = sweeps_of(config)
SWEEP_JOBS = {
    name: group_points(sweep.points, config["sweeps"]["job"]) for name, sweep in SWEEPS.items()
}
SELECTIONS = selections_of(config)
BLIND = config["sweeps"]["blind"]
BLIND_SWEEPS = [name for name in BLIND["sweeps"] if name in SWEEPS]

# Jobs in a conda environment of their own find the library of this checkout.
SOURCE = Path("src").absolute()
if SOURCE.is_dir():
    # An empty entry would stand for the working directory.
    entries = filter(None, [str(SOURCE), os.getenv("PYTHONPATH")])
    os.environ.update(PYTHONPATH=os.pathsep.join(entries))


wildcard_constraints:
    volume="train|eval|slab",
    set="validation|test",
    method="|".join(config["methods"]),
    sweep=r"\w+",
    points="[^/]+",
    geometry="[0-9a-f]+",


# Most files decide the output of many rules.
@functools.cache
def code_in(path):
    """What a file of Python says to the interpreter, less its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree).encode()


def code_of(*modules, script):
    """A digest of what library modules and a script do: a change of them reruns what they made.

    Comments, docstrings and layout do not count.
    """
    paths = [SCRIPTS / f"{script}.py"]
    for module in modules:
        path = LIBRARY / module
        paths += sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(code_in(path))
    return digest.hexdigest()[:16]


def drawn(name, category, caption=None, **labels):
    """The files of a figure; the report shows the image, since browsers show no PDF in place."""
    return {
        "pdf": f"{RESULTS}/figures/{name}.pdf",
        "png": report(
            f"{RESULTS}/figures/{name}.png",
            caption=f"../report/{caption or name}.rst",
            category=category,
            labels=labels,
        ),
    }


def page_of(name, category, **labels):
    """The page of a table, which the report shows."""
    return report(
        f"{RESULTS}/tables/{name}.html",
        caption=f"../report/{name}.rst",
        category=category,
        labels=labels,
    )


UNCERTAINTY = config["uncertainty"]


def posteriors_of(set_):
    """The runs of every method whose spread is looked at."""
    return [f"{RESULTS}/uncertainty/{set_}/{name}.npz" for name in UNCERTAINTY["methods"]]


PAPER = "Figures of the paper"


def figure(number, shows):
    """The files of a figure of the paper."""
    # The report sorts by words, in which 10 comes before 2.
    return drawn(f"figure_{number}", PAPER, figure=f"{number:2}", shows=shows)


def impossible(name, reason):
    """An input that ends the run with one line, if the rule is wanted."""
    return lambda wildcards: stop(f"config: {name} cannot be drawn: {reason}")


def has_points(sweep, only):
    """Whether a sweep has points with these values."""
    settings = map(SWEEPS[sweep].settings, SWEEPS[sweep].points)
    return any(only.items() <= each.items() for each in settings)


def more(amount):
    """Memory or minutes that a job asks for, more each time that it is given to a cluster again."""
    return lambda wildcards, attempt: amount * attempt


def gpus(device):
    """GPUs that a job asks for."""
    return 0 if device == "cpu" else 1


def training_nodes(training, cores=16):
    """What training asks for; several nodes are a matter of SLURM's srun."""
    devices = TrainingSettings(**training).processes
    with_gpu = training["accelerator"] != "cpu"
    # A process for each GPU, and others that read for it; without GPUs they share what there is.
    each = 8 if with_gpu else max(1, cores // devices)
    asked = {"mem_mb": more(16000 + 16000 * devices)}
    if training["nodes"] == 1:
        return {**asked, "cpus_per_task": each * devices, "gpu": devices if with_gpu else 0}
    return {
        **asked,
        "mpi": "srun",
        "nodes": training["nodes"],
        "cpus_per_task": each,
        # SLURM's plugin takes tasks_per_node for more than one alone.
        **({"tasks_per_node": devices} if devices > 1 else {"tasks": training["nodes"]}),
        # So many on each node, which `gpu` would not say; the negative number keeps the plugin from
        # asking for tasks by GPU as well.
        **({"gres": f"gpu:{devices}", "tasks_per_gpu": -1} if with_gpu else {}),
    }


def volume_workers(cluster, device):
    """What the job asks for that reconstructs a slab, with the workers in it or elsewhere."""
    if cluster["kind"] == "local":
        return {"mem_mb": more(16000), "cpus_per_task": 16, "gpu": gpus(device)}
    return {"mem_mb": more(8000), "cpus_per_task": 2, "gpu": 0}


def reconstruction_code(kind, *modules, script):
    """A digest of what reconstructs with a kind of method: a new method reruns no other."""
    own = [each.__module__ for each in METHODS[kind].__mro__]
    own = [str(Path(*name.split(".")[1:])) for name in own if name.startswith("ddgm.")]
    return code_of(*dict.fromkeys((*RECONSTRUCTION_CODE, *own, *modules)), script=script)


def made_source(wildcards):
    """The synthetic source that a download has to wait for, if any."""
    if config["volumes"][wildcards.volume]["address"] == SYNTHETIC:
        return [f"{RESULTS}/source/{wildcards.volume}"]
    return []


def network_of(kind):
    """The network file that a kind of method needs, if any."""
    return [NETWORK] if METHODS[kind].needs_network else []


def decided_by(method):
    """The file with the settings that the sweeps have decided for a method, if any."""
    return [f"{RESULTS}/selected/{method}.json"] if method in SELECTIONS else []


def given_settings(method):
    """A method's name and settings, less what sweeps decide and what changes no result."""
    row = config["methods"][method]
    settings = {} if method in SELECTIONS else settings_of(row)
    return {"method": row["method"], **settings}


def points_of(sweep):
    """The files of a sweep's points, one a job."""
    return [f"{RESULTS}/sweeps/{sweep}/points/{job}.parquet" for job in SWEEP_JOBS[sweep]]


def finished_points_of(sweep):
    """Where the jobs of a sweep keep points that are done, whatever becomes of the job."""
    return f"{RESULTS}/sweeps/{sweep}/finished"


def keep_asking_squeue(seconds):
    """Let SLURM's plugin look at jobs by squeue alone, every so many seconds.

    Before each look it asks for MinJobAge. While the controller is away it has no answer, and turns
    to sacct, which without accounting fails until the plugin gives up all jobs and waits for ever.
    As long as no job ends it waits 10 s more each time, up to three minutes, whatever
    --seconds-between-status-checks says.
    """
    import snakemake_executor_plugin_slurm as plugin

    age = plugin.get_min_job_age()
    refuse_short_memory(age, seconds)
    plugin.get_min_job_age = lambda: age
    plugin.Executor.next_seconds_between_status_checks = property(
        lambda executor: seconds, lambda executor, longer: None
    )


def refuse_second_writers():
    """Start no run beside jobs that an earlier one has left in SLURM."""
    on_slurm = workflow.executor_plugin.name == "slurm"
    try:
        refuse_leftovers(".")
        if on_slurm and workflow.executor_settings.status_command == "squeue":
            keep_asking_squeue(workflow.remote_execution_settings.seconds_between_status_checks)
    except DdgmError as error:
        # A run on this machine needs no SLURM that answers.
        if on_slurm or isinstance(error, LeftoverError):
            raise WorkflowError(str(error)) from None
        logger.warning(f"{error}; jobs left behind by an earlier run cannot be seen")
    note_start()


def forget_forced_points():
    """Points that are to be computed by force are not to be found finished."""
    forced = workflow.dag_settings
    for sweep in SWEEPS:
        if forced.forceall or any(
            each == f"sweep_{sweep}_point" or each.startswith(f"{RESULTS}/sweeps/{sweep}/")
            for each in map(str, forced.forcerun)
        ):
            shutil.rmtree(finished_points_of(sweep), ignore_errors=True)


def values_of_points(sweep):
    """A function that returns what is to be computed for the points of one job of a sweep."""

    def values(wildcards):
        return [
            {"swept": dict(point.values), "settings": SWEEPS[sweep].settings(point)}
            for point in SWEEP_JOBS[sweep][wildcards.points]
        ]

    return values


def shown_of_run(path, what, form):
    """A file that the report lists among what is known about the run."""
    return report(
        path,
        category="Run",
        caption=f"../report/{Path(path).stem}.rst",
        labels={"shows": what, "as": form},
    )


# The eigenbasis belongs to the geometry and to no run: every run of a checkout shares it.
OPERATORS = "results/operators"
EIGENBASES = {}


def eigenbasis_of(geometry):
    """The file of a geometry's eigenbasis, if it has one."""
    if not is_fused(geometry):
        return []
    path = cached_path(geometry, OPERATORS)
    EIGENBASES[path.stem.removeprefix("eigenbasis-")] = geometry
    return [path]


EIGENBASIS = eigenbasis_of(GEOMETRY)
# Of the views that are left when some are held out, to choose settings without the truth.
KEPT_EIGENBASIS = (
    eigenbasis_of(GEOMETRY.of_views(held_out_views(config)[0])) if BLIND_SWEEPS else []
)
NETWORK = str(GIVEN_NETWORK or f"{RESULTS}/network/denoiser.safetensors")

SLAB = config["slab"]
HAS_SLAB = bool(SLAB["tilt_series"] or config["volumes"]["slab"])

# Modules that decide how a reconstruction comes out, besides that of its method.
RECONSTRUCTION_CODE = (
    "denoiser",
    "eigenbasis",
    "engine",
    "fused",
    "iterative",
    "methods/problem",
    "network",
    "noise",
    "preconditioner",
    "projector",
    "reconstruction",
    "schedules",
    "strip_projector",
)

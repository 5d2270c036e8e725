import hashlib
import json
from pathlib import Path

import ddgm
from ddgm.config import SYNTHETIC, check_meaning, check_schema, resolve_address
from ddgm.errors import DdgmError
from ddgm.methods import METHODS

RESULTS = f"results/{config.get('run')}"
LIBRARY = Path(ddgm.__file__).parent


def stop(error):
    """End with one line on the terminal, before any job has started."""
    print(error, file=sys.stderr, flush=True)
    # Snakemake would add the place in this file, and its own words, to any exception.
    os._exit(1)


def check_once(sources):
    """Check what the configuration means: seconds, so remembered until it or ddgm changes."""
    digest = hashlib.sha256(json.dumps([config, sources], sort_keys=True).encode())
    for path in sorted(LIBRARY.rglob("*.py")):
        digest.update(path.read_bytes())
    mark = Path(".snakemake") / "ddgm-checked" / digest.hexdigest()
    if not mark.exists():
        check_meaning(config)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


# Jobs load this file again; what has been checked once need not be checked by each of them.
if workflow.is_main_process:
    try:
        check_schema(config, workflow.source_path("../schemas/config.schema.yaml"))
        check_once([resolve_address(config, name) for name in config["volumes"]])
    except DdgmError as error:
        stop(error)

# Jobs in a conda environment of their own find the library of this checkout.
os.environ.update(PYTHONPATH=str(LIBRARY.parent))


wildcard_constraints:
    volume="train|eval",
    set="validation|test",
    method="|".join(config["methods"]),


def address(volume):
    """Where a volume comes from; a synthetic one is made in the results first."""
    resolved = resolve_address(config, volume)
    if resolved == SYNTHETIC:
        return f"precomputed://file://{Path(RESULTS).absolute()}/source/{volume}"
    return resolved


def made_source(wildcards):
    """The synthetic source that a download has to wait for, if any."""
    if config["volumes"][wildcards.volume]["address"] == SYNTHETIC:
        return [f"{RESULTS}/source/{wildcards.volume}"]
    return []


def network_of(method):
    """The network file that a method needs, if any."""
    kind = METHODS[config["methods"][method]["method"]]
    return [NETWORK] if kind.needs_network else []


def settings_of(method):
    """A method's name and settings; its label changes no result, so that it reruns nothing."""
    return {key: value for key, value in config["methods"][method].items() if key != "label"}


NETWORK = config["network"]["path"] or f"{RESULTS}/network/denoiser.safetensors"

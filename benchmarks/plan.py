"""What a run of the whole paper asks a cluster for: docs/cluster_plan.md.

    make plan, or .venv/bin/python benchmarks/plan.py docs/cluster_plan.md

Takes the plan of `snakemake --cores all --profile slurm -n`, so that it needs neither a cluster nor
the network. GPU hours are those that the paper's training took, divided in proportion to the
evaluations of the network.
"""

import math
import re
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import yaml

from ddgm.blending import patch_starts
from ddgm.config import settings_of, sweeps_of
from ddgm.volume import Box

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
COMMAND = (SNAKEMAKE, "--cores", "all", "--profile", "slurm", "-n")
SHOWN = "snakemake --cores all --profile slurm -n"
PROFILE = Path("workflow/profiles/slurm/config.yaml")
PAPER_GPU_HOURS = 20 * 8  # of training, as the paper says
TRAINING_COST = 3  # forward and backward, in evaluations
GRADIENT_COST = 3  # of a method that needs the network's gradient, in evaluations
PREPARED = ("patches", "sinograms", "statistics")  # one group
HEAD = """# What the paper asks a cluster for

What `make plan` wrote, from `{command}` with config/config.yaml: {seconds:.1f} s of
one core and {memory:.2f} GB of memory.

**{submitted} jobs of SLURM** do the {total} steps, of which {local} run where Snakemake does. A
group computes up to {group} points of sweeps, one after the other, with the memory and the GPU of
one.

| rule | steps | jobs | cores | memory, GB | limit, h | GPUs | evaluations | GPU hours |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
FOOT = """
Memory and limit are what a job asks for the first time; after a failure it gets twice that, then
three times. The limit of a group is that of its points together.

GPU hours are estimated, since there was no GPU to measure on: those of the paper's training, 20
hours on 8 GPUs, are divided by evaluations of the network: {training:.1f} million there, the way
back counted as two, of {flops:.0f} GFLOP each. That makes {hours:.0f} hours in all. Evaluations are
on one image; to choose settings without the truth adds those of {blind} images to some sweeps.

| disk | GB |
| --- | --- |
{disk}

Volumes are compressed without loss, to {ratio:.2f} of their size as FIB-25 at 16 nm is.
"""
COMPRESSED = 0.86


def main():
    # Away from the checkout's own results, which would not be planned again.
    with tempfile.TemporaryDirectory() as folder:
        for name in ("Snakefile", "workflow", "config", "envs", "slurm", "profiles"):
            Path(folder, name).symlink_to(Path(name).absolute())
        planned = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6
    config = yaml.safe_load(Path("config/config.yaml").read_text())
    group = int(re.search(r"sweep=(\d+)", PROFILE.read_text())[1])
    rules = read_plan(planned.stdout + planned.stderr)
    text = page(config, rules, group, seconds, memory)
    Path(sys.argv[1]).write_text(text)


def read_plan(text):
    """Return the resources of all steps by rule."""
    rules = defaultdict(list)
    for line in text.splitlines():
        if found := re.match(r"\s*rule (\w+):$", line):
            name = found[1]
        elif found := re.match(r"\s+resources: (.*)", line):
            asked = dict(each.split("=", 1) for each in found[1].split(", ") if "=" in each)
            rules[name].append(asked)
    return rules


def is_local(steps):
    """Tell whether steps run where Snakemake does: those ask for nothing."""
    return "runtime" not in steps[0]


def page(config, rules, group, seconds, memory):
    """Write the table."""
    evaluations = count_evaluations(config)
    per_hour = evaluations["train"] / PAPER_GPU_HOURS
    rows, submitted, hours = [], 0, 0.0
    points = sum(len(steps) for name, steps in rules.items() if name.endswith("_point"))
    local = sum(len(steps) for steps in rules.values() if is_local(steps))
    for name, steps in sorted(rules.items()):  # Snakemake's own order differs between runs
        if is_local(steps):
            continue
        first, counted = steps[0], evaluations.get(name)
        grouped = name.endswith("_point") or name in PREPARED
        cells = [
            name,
            len(steps),
            "in groups" if grouped else len(steps),
            first.get("cpus_per_task", 1),
            f"{int(first['mem_mb']) / 1000:g}",
            f"{int(first['runtime']) / 60:.3g}",
            first.get("gpu", 0),
            f"{counted / 1e6:.2f} M" if counted else "–",
            f"{counted / per_hour:.1f}" if counted else "–",
        ]
        rows.append(f"| {' | '.join(map(str, cells))} |")
        submitted += 0 if grouped else len(steps)
        hours += (counted or 0) / per_hour
    submitted += math.ceil(points / group) + 1
    head = HEAD.format(
        command=SHOWN,
        seconds=seconds,
        memory=memory,
        submitted=submitted,
        total=sum(map(len, rules.values())),
        local=local,
        group=group,
    )
    foot = FOOT.format(
        training=evaluations["train"] / 1e6,
        flops=flops(config) / 1e9,
        hours=hours,
        disk="\n".join(f"| {name} | {size / 1e9:.2f} |" for name, size in disk(config)),
        ratio=COMPRESSED,
        blind=config["sweeps"]["blind"]["images"],
    )
    return head + "\n".join(rows) + "\n" + foot


def count_evaluations(config):
    """Return evaluations of the network, on one image, by rule."""
    training = config["training"]
    counts = {"train": TRAINING_COST * training["steps"] * training["batch"]}
    images, methods = config["patches"], config["methods"]
    each = {row: cost(methods[row]["method"], settings_of(methods[row])) for row in methods}
    compared = {*config["table_1"], *config["comparison"]["methods"]}
    sets = [
        ("test", compared),
        ("validation", {config[key]["method"] for key in ("prior", "more")}),
    ]
    counts["reconstruct"] = sum(
        each[row] * (methods[row].get("images") or images[name])
        for name, rows in sets
        for row in rows
    )
    for name, sweep in sweeps_of(config).items():
        counts[f"sweep_{name}_point"] = (sweep.images or images["validation"]) * sum(
            cost(sweep.method, sweep.settings(point)) for point in sweep.points
        )
    slab = config["slab"]
    (x, y, z), blending = Box(**config["volumes"]["slab"]["box"]).shape, slab["blending"]
    patches = [len(patch_starts(n, blending["patch"], blending["stride"])) for n in (y, z)]
    counts["reconstruct_volume"] = x * math.prod(patches) * sum(map(each.get, slab["methods"]))
    return counts


def cost(method, settings):
    """Return what an image costs, in evaluations of the network."""
    return settings.get("N", 0) * (GRADIENT_COST if method == "dps" else 1)


def flops(config):
    """Count the operations of one evaluation on one patch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ddgm.config import architecture_of
    from ddgm.network import UNet

    size = config["training"]["patch_size"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        UNet(architecture_of(config["network"]))(torch.zeros(1, size, size))
    return counter.get_total_flops()


def disk(config):
    """Return what is kept, in bytes."""
    for name, volume in config["volumes"].items():
        voxels = math.prod(Box(**volume["box"]).shape)
        yield f"volume {name}, {voxels / 1e9:.3f} · 10⁹ voxels", voxels * COMPRESSED
    x, y, z = Box(**config["volumes"]["slab"]["box"]).shape
    series = x * y * config["geometry"]["views"] * 4
    yield "tilt series of the slab, at most", series
    count = len(config["slab"]["methods"])
    yield f"reconstructed slabs, {count}, and their exports, at most", 2 * count * x * y * z
    size, sets = config["patches"]["size"], config["patches"]
    images = sets["test"] * len(config["table_1"]) + sets["validation"]
    yield "reconstructions and sinograms", 4 * size * size * (images + 2 * sets["test"])
    yield "operators, networks and checkpoints", 2 * 4 * size**4 // 4 + 5 * 4 * 8.3e6


if __name__ == "__main__":
    main()

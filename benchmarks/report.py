"""Write what the benchmarks measured as a Markdown table of ratios.

Usage: report.py RESULTS.json TABLE.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

HEAD = """# Benchmark

What `make bench` wrote, from [benchmark.json](benchmark.json). Ratios are between candidates that
took turns within one run: each is the median, over the rounds, of the ratio within a round. Times
in the second table are medians and hold for this machine, as busy as it was.
"""


class Row(NamedTuple):
    """A measured value against what it should be; without a limit it has no target."""

    device: str
    quantity: str
    value: float
    form: str
    limit: float | None = None
    at_least: bool = False

    def cells(self) -> list[str]:
        """Return device, quantity, value, target and whether it is met."""
        if self.limit is None:
            target, met = "–", "–"
        else:
            target = f"{'≥' if self.at_least else '≤'} {self.form.format(self.limit)}"
            good = self.value >= self.limit if self.at_least else self.value <= self.limit
            met = "yes" if good else "**no**"
        return [self.device, self.quantity, self.form.format(self.value), target, met]


class Results:
    """The benchmarks of one device, by name."""

    def __init__(self, entries: list[dict[str, Any]], device: str) -> None:
        self.device = device
        self._entries = [e for e in entries if e["extra_info"]["device"] == device]

    def find(self, name: str, **facts: object) -> dict[str, Any] | None:
        """Return the benchmark of a function with these facts, if it ran."""
        for entry in self._entries:
            info = entry["extra_info"]
            if entry["name"].split("[")[0] == name and facts.items() <= info.items():
                return {**info, "seconds": entry["stats"]["data"]}
        return None

    def all(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield all benchmarks of a function."""
        for entry in self._entries:
            if entry["name"].split("[")[0] == name:
                yield {**entry["extra_info"], "seconds": entry["stats"]["data"]}


def times_faster(entry: dict[str, Any], rival: str) -> float:
    """Return how many times as long the rival took, the median over the rounds."""
    pairs = zip(entry["rivals"][rival], entry["seconds"], strict=True)
    return median(theirs / ours for theirs, ours in pairs)


def ratios(results: Results) -> Iterator[Row]:
    """Yield the rows of the table of ratios."""
    name = results.device
    if entry := results.find("test_gradient_steps"):
        what = f"fused data step (K = {entry['steps']}, batch {entry['batch']})"
        astra, network = times_faster(entry, "astra"), times_faster(entry, "network")
        looped, floor = times_faster(entry, "looped"), times_faster(entry, "read")
        yield Row(
            name, f"{what}, times as fast as ASTRA's CPU projector ¹", astra, "{:.0f}", 100, True
        )
        yield Row(
            name, f"{what}, times as fast as a loop of sparse products", looped, "{:.1f}", 5, True
        )
        yield Row(name, f"{what}, of one evaluation of the network", 1 / network, "{:.1%}", 0.03)
        yield Row(name, f"{what}, times its memory floor ²", 1 / floor, "{:.2f}")
    for entry in results.all("test_proximal_step"):
        faster = times_faster(entry, "conjugate_gradients")
        what = (
            f"exact proximal step at σ = {entry['sigma']:g}, times as fast as conjugate gradients "
            f"({entry['products']} products)"
        )
        yield Row(name, what, faster, "{:.1f}")
    full = results.find("test_gradient_steps")
    if entry := results.find("test_compute"):
        if full:
            evaluations = entry["used"] / median(full["rivals"]["network"])
            what = "computing the eigenbasis, in evaluations of the network on 16 patches ³"
            yield Row(name, what, evaluations, "{:.1f}")
        yield Row(name, "computing the eigenbasis, seconds", entry["used"], "{:.0f}", 300)
        yield Row(name, "its peak memory, GB", entry["peak_bytes"] / 1e9, "{:.2f}", 4)
        if entry["peak_gpu_bytes"]:
            yield Row(name, "its peak GPU memory, GB", entry["peak_gpu_bytes"] / 1e9, "{:.2f}")
    for entry in results.all("test_load"):
        how = "dropped from the page cache" if entry["evicted"] else "in the page cache"
        what = f"loading the eigenbasis and using it once, file {how}"
        plain = median(a / b for a, b in zip(entry["used"], entry["plain_read"], strict=True))
        yield Row(name, f"{what}, seconds", median(entry["used"]), "{:.2f}", 2)
        if not entry["evicted"]:
            yield Row(name, f"{what}, times a plain read of it", plain, "{:.1f}")
    for entry in results.all("test_network"):
        fraction = entry["flops"] / entry["gemm_flops"] * times_faster(entry, "gemm")
        dtype = "bfloat16 (autocast)" if entry["half"] else "float32"
        what = f"network in {dtype}, batch {entry['batch']}, of the rate of a 4096³ matrix product"
        yield Row(name, what, fraction, "{:.0%}", None if entry["half"] else 0.6, True)
    for entry in results.all("test_training_step"):
        fraction = entry["flops"] / entry["gemm_flops"] * times_faster(entry, "gemm")
        dtype = "bfloat16 (autocast)" if entry["half"] else "float32"
        what = f"training step in {dtype}, batch {entry['batch']}, of that rate ⁴"
        yield Row(name, what, fraction, "{:.0%}", 0.5, True)
    for entry in results.all("test_loader"):
        workers = f"{entry['workers']} worker{'s' if entry['workers'] > 1 else ''}"
        what = f"training patches of 128 × 128 a second from Zarr, {workers}"
        yield Row(name, what, entry["rate"], "{:.0f}", 2000, True)
        # Bricks of the volume are read one by one until as many are held as are mixed.
        grown = entry["memory"][-1] / entry["memory"][2]
        what = f"memory of the loader after 10,000 batches, times that after 3,000, {workers}"
        yield Row(name, what, grown, "{:.2f}", 1.1)


def seconds(results: Results) -> Iterator[list[str]]:
    """Yield the rows of the table of times."""

    def row(what: str, times: list[float]) -> list[str]:
        return [results.device, what, f"{median(times):.3g}"]

    if entry := results.find("test_gradient_steps"):
        rivals, batch = entry["rivals"], entry["batch"]
        yield row("fused data step", entry["seconds"])
        yield row("loop of sparse products", rivals["looped"])
        yield row("loop of ASTRA's CPU projector ¹", rivals["astra"])
        yield row(f"network, float32, batch {batch}", rivals["network"])
        rate = entry["bytes_read"] / median(rivals["read"]) / 1e9
        yield row(f"reading {entry['bytes_read'] / 1e6:.0f} MB ² ({rate:.1f} GB/s)", rivals["read"])
    for entry in results.all("test_proximal_step"):
        yield row(f"exact proximal step, σ = {entry['sigma']:g}", entry["seconds"])
        yield row(
            f"conjugate gradients, σ = {entry['sigma']:g} (to {entry['difference']:.1g} of exact)",
            entry["rivals"]["conjugate_gradients"],
        )
    for entry in results.all("test_network"):
        dtype = "bfloat16" if entry["half"] else "float32"
        rate = entry["flops"] / median(entry["seconds"]) / 1e12
        gemm = entry["gemm_flops"] / median(entry["rivals"]["gemm"]) / 1e12
        what = f"network, {dtype}, batch {entry['batch']} ({rate:.3g} TFLOP/s; product: {gemm:.3g})"
        yield row(what, entry["seconds"])
    for entry in results.all("test_training_step"):
        dtype = "bfloat16" if entry["half"] else "float32"
        rate = entry["flops"] / median(entry["seconds"]) / 1e12
        what = f"training step, {dtype}, batch {entry['batch']} ({rate:.3g} TFLOP/s)"
        yield row(what, entry["seconds"])


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def notes(results: Results) -> str:
    """Return what the footnotes say."""
    text = [
        "The operator is the paper's: 128 × 128 pixels, 128 tilts over ±60°. The network is the "
        "full-size one, without gradients."
    ]
    if entry := results.find("test_gradient_steps"):
        cores = max(1.0, entry["astra_cores"])
        text += [
            "¹ Real projections and backprojections by ASTRA's `strip` projector on the CPU, image "
            "by image, algorithms and data made once and linked. 5 steps on 2 of the images were "
            f"timed and scaled linearly. ASTRA kept {cores:.1f} cores busy.",
            "² The time that a sum takes to read as many bytes as the step reads of eigenvectors "
            f"({entry['bytes_read'] / 1e6:.0f} MB), in the same rounds.",
        ]
    text.append("³ The paper's DDGM reconstruction takes 150. These two did not take turns.")
    text.append(
        "⁴ Forward and backward passes, counted as three forward ones, and Adam; the patches are "
        "in memory."
    )
    return "\n\n".join(text) + "\n"


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    content = json.loads(source.read_text())
    entries, machine = content["benchmarks"], content["machine_info"]
    devices = list(dict.fromkeys(entry["extra_info"]["device"] for entry in entries))
    results = [Results(entries, device) for device in devices]
    where = (
        f"Machine: {machine['cpu']}{' with AMX' if machine['amx'] else ''}, "
        f"{machine['cores']} cores, {machine['threads']} threads; {machine['gpu'] or 'no GPU'}. "
        f"{machine['system']}, Python {machine['python']}, PyTorch {machine['torch']}.\n"
    )
    rows = [row.cells() for result in results for row in ratios(result)]
    times = [row for result in results for row in seconds(result)]
    parts = [
        HEAD,
        where,
        table(["device", "quantity", "measured", "target", "met"], rows),
        notes(results[0]),
        "## Times\n",
        table(["device", "what", "seconds"], times),
    ]
    target.write_text("\n".join(parts))
    print(target.read_text())


if __name__ == "__main__":
    main()

"""``ddgm info``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ddgm.cli.common import running


def info(
    source: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A file, a folder, the address of a precomputed volume, or a network in the box.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what something is: volume, tilt series, sinograms, reconstruction, network, MRC file."""
    with running():
        from ddgm.describe import describe

        found = describe(source)
        if as_json:
            print(json.dumps({"kind": found.kind, **found.facts}, ensure_ascii=False))
            return
        width = max(map(len, found.facts))
        print(f"{source}: {found.kind}")
        for name, value in found.facts.items():
            first, *more = value if isinstance(value, list) and value else [value]
            print(f"  {name.ljust(width)}  {first}")
            for each in more:
                print(f"  {' ' * width}  {each}")

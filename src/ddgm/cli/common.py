"""What the commands have in common."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from ddgm.console import session
from ddgm.errors import DdgmError

if TYPE_CHECKING:
    from ddgm.volume import Volume

WARNING = (
    "Where the views say little, the network fills in what usually is there: such structure looks "
    "real and may be wrong."
)
DEFAULT_NETWORK = "fib25-16nm"

Network = Annotated[
    str, typer.Option(help="Trained network: one in the box by name, or a safetensors file.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto is a GPU if there is one.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is random.")]
VOLUME = "The volume"
Mip = Annotated[
    int, typer.Option(min=0, help="Scale of a precomputed volume.", rich_help_panel=VOLUME)
]
Part = Annotated[
    str | None,
    typer.Option(
        metavar="X:X,Y:Y,Z:Z",
        help="Part of a precomputed volume, in voxels of that mip, stop excluded.",
        show_default="all of it",
        rich_help_panel=VOLUME,
    ),
]
Axes = Annotated[
    str,
    typer.Option(
        help="Which axes of a precomputed volume are tilt axis, depth and detector.",
        rich_help_panel=VOLUME,
    ),
]
NoiseStd = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="σ_y, standard deviation of the views' noise in their own unit.",
        show_default="what the file states; else estimated from the views",
    ),
]


@contextmanager
def running() -> Iterator[None]:
    """Run a command: errors in one line, and an interruption without a traceback."""
    with session(plain=True):
        for chatty in ("ddgm.cluster", "ddgm.download"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        try:
            yield
        except KeyboardInterrupt:
            print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr)
            sys.exit(130)


@contextmanager
def reading(path: Path | str, what: str) -> Iterator[None]:
    """Read an archive that may be one of another kind.

    Raises
    ------
    DdgmError
        If it is.
    """
    try:
        yield
    except KeyError as error:
        raise DdgmError(f"{path} has no {error}: it is no {what} (ddgm info says what)") from error


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Turn ``K=25`` and its like into values.

    Raises
    ------
    DdgmError
        If there is no ``=``, or a name twice.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise DdgmError(f"--set {setting}: write a setting and its value, such as N=20")
        if name in values:
            raise DdgmError(f"--set {name} is given twice")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def attribute_help(kind: type[Any]) -> dict[str, str]:
    """Return what a dataclass's docstring (numpydoc) says of each attribute, in one line."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")[2]
    told: dict[str, str] = {}
    for names, body in re.findall(r"^(\w[\w, ]*) : .*\n((?:    .*\n?|\n)*)", text, re.MULTILINE):
        words = " ".join(body.replace("``", "").replace("`", "").split())
        told |= {name.strip(): words for name in names.split(",")}
    return told


def with_options_of(
    *kinds: type[Any], without: Collection[str] = (), metavars: dict[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of dataclasses, with their help and defaults.

    The command takes them as ``**options``; what its own parameters name already is left alone.
    Fields that are not plain numbers, words or switches become words, for the command to parse.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = [
            each
            for each in inspect.signature(command, eval_str=True).parameters.values()
            if each.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        for kind in kinds:
            told, hints = attribute_help(kind), get_type_hints(kind)
            for field in dataclasses.fields(kind):
                if field.name in without:
                    continue
                plain = hints[field.name] in (int, float, bool, str)
                default = field.default if plain else words_of(field.default)
                option = typer.Option(
                    f"--{field.name.replace('_', '-')}"
                    + (
                        f"/--no-{field.name.replace('_', '-')}" if hints[field.name] is bool else ""
                    ),
                    help=told.get(field.name, ""),
                    metavar=(metavars or {}).get(field.name),
                    rich_help_panel=kind.__name__,
                )
                parameters.append(
                    inspect.Parameter(
                        field.name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=default,
                        annotation=Annotated[hints[field.name] if plain else str, option],
                    )
                )
        vars(command)["__signature__"] = inspect.Signature(parameters)
        return command

    return decorate


def words_of(value: Any) -> str:
    """Write a number, or several, as an option takes them."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def whole_numbers(text: str, option: str) -> int | tuple[int, ...]:
    """Read what `words_of` wrote: one whole number, or several.

    Raises
    ------
    DdgmError
        If it is anything else.
    """
    try:
        numbers = tuple(int(each) for each in text.split(","))
    except ValueError:
        raise DdgmError(f"{option} {text}: whole numbers with commas between are needed") from None
    return numbers[0] if len(numbers) == 1 else numbers


def read_range(text: str | None, option: str) -> tuple[int, int] | None:
    """Read ``100:120``; first and one past the last."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise DdgmError(f"{option} {text}: write first and last (excluded), such as 100:120")
    return int(match[1]), int(match[2])


def is_address(source: str) -> bool:
    """Tell whether a volume is a precomputed one, by its address or as a folder."""
    return "://" in source or (Path(source) / "info").is_file()


def fetch_volume(
    source: str, destination: Path, *, mip: int, box: str | None, axes: str, progress: bool
) -> Volume:
    """Open a Zarr volume, or copy one from its address first; goes on where it stopped.

    Raises
    ------
    DdgmError
        If there is none, or a box is asked of one that is on disk.
    """
    from ddgm.download import download
    from ddgm.precomputed import read_info
    from ddgm.volume import Box, open_volume

    if not is_address(source):
        if box is not None:
            raise DdgmError(f"--box goes with the address of a precomputed volume, not {source}")
        return open_volume(source)
    address = source if "://" in source else f"file://{Path(source).absolute()}"
    bounds = read_info(address, mip).bounds
    wanted = bounds if box is None else Box(*_corners(box))
    return download(
        address, destination, mip=mip, box=wanted, axes=axes, workers=8, progress=progress
    )


def _corners(text: str) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    ranges = [read_range(each, "--box") for each in text.split(",")]
    if len(ranges) != 3 or None in ranges:
        raise DdgmError(f"--box {text}: write x, y, z in voxels, such as 0:500,98:226,0:15")
    (a, b), (c, d), (e, f) = (each for each in ranges if each is not None)
    return (a, c, e), (b, d, f)


def elapsed(started: float) -> str:
    """Return the time since `time.monotonic` was so much, as hours:minutes:seconds."""
    seconds = round(time.monotonic() - started)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

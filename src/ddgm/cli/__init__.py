"""``ddgm`` on the command line: the library's steps for one measurement, without a workflow.

A module a command. They load what they need when they run, so that help appears at once.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import typer

from ddgm.cli import evaluate, export, info, reconstruct, simulate, train

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Images from limited-angle tilt series, with a diffusion prior (DDGM).",
    epilog="Where the views say little, the network fills in what usually is there: it looks real "
    "and may be wrong.",
)
commands: dict[str, Callable[..., Any]] = {
    "reconstruct": reconstruct.reconstruct,
    "simulate": simulate.simulate,
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "export": export.export,
    "info": info.info,
}
for name, command in commands.items():
    # Paragraphs in one line: Typer breaks them where the docstring does.
    told = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(each.split()) for each in told)
    app.command(name, help=text, no_args_is_help=True)(command)


def main() -> None:
    """Run the program; a wrong command line is told in one line and exit status 2."""
    # Typer has its own copy of click, whose errors it exports in part.
    try:
        status = app(standalone_mode=False, prog_name="ddgm")
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        context: Any = getattr(error, "ctx", None)
        where = context.command_path if context else "ddgm"
        message = " ".join(error.format_message().split())
        if message:
            print(f"error: {message} (see {where} --help)", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))
    except typer.Abort:
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)

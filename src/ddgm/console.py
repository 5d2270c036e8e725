"""Messages of a program for people: a log file, the terminal, and errors of one line."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddgm.errors import DdgmError

# Lightning repeats advice and hardware that nobody asked about; Dask tells of every connection.
_CHATTY = (
    "distributed",
    "lightning.pytorch",
    "lightning.fabric",
    "lightning.pytorch.utilities.rank_zero",
)


@contextmanager
def session(log: Path | str | None = None, *, plain: bool = False) -> Iterator[None]:
    """Run a program's main part.

    Messages go to the terminal and to a log file. A `DdgmError` ends the program with exit status 1
    and its one line; any other error keeps its traceback, which goes to the log too. SIGTERM, with
    which SLURM ends a job, unwinds the program like an error: what it has opened is closed.

    Parameters
    ----------
    log : path-like, optional
        File for messages; added to, so that a rerun does not hide why the last run failed.
    plain : bool
        Messages without time and, but for warnings and errors, level: for somebody at a terminal.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log is not None:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log, mode="a", encoding="utf-8"))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=handlers
    )
    if plain:
        handlers[0].setFormatter(_Plain())
    logging.captureWarnings(True)
    for handler in handlers:  # levels of loggers are set anew by the libraries, once loaded
        handler.addFilter(
            lambda record: record.levelno >= logging.ERROR or not record.name.startswith(_CHATTY)
        )
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=".*Sparse (CSR|invariant).*")
    if threading.current_thread() is threading.main_thread():
        _unwind_on_termination()
    try:
        yield
    except DdgmError as error:
        logging.getLogger("ddgm").error("%s", error)
        sys.exit(1)
    except Exception:
        logging.getLogger("ddgm").exception("this is a bug in ddgm, or a fault of the machine")
        sys.exit(1)
    finally:
        logging.shutdown()


class _Plain(logging.Formatter):
    """A message, after its level if that is one to be noticed."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


def _unwind_on_termination() -> None:
    own = os.getpid()

    def unwind(number: int, _: object) -> None:
        if os.getpid() != own:  # a process forked from this one has nothing of its own to close
            os._exit(128 + number)
        # Once: a second signal while things are being closed would leave them open.
        signal.signal(number, signal.SIG_IGN)
        logging.getLogger("ddgm").error("ended from outside (SIGTERM)")
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, unwind)


def show_progress() -> bool:
    """Tell whether progress bars are wanted; the environment's DDGM_PROGRESS=0 turns them off."""
    return os.environ.get("DDGM_PROGRESS", "1") != "0"

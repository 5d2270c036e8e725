"""The commands of the guide for people with a tilt series, one after the other as it gives them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDE = REPOSITORY / "docs" / "guides" / "your_tilt_series.md"


def blocks(language):
    tokens = MarkdownIt().parse(GUIDE.read_text(encoding="utf-8"))
    return [each.content for each in tokens if each.type == "fence" and each.info == language]


def commands():
    text = re.sub(r"\s*\\\n\s*", " ", "".join(blocks("bash")))
    return [shlex.split(line) for line in text.splitlines() if line.startswith("ddgm ")]


def test_the_guides_commands_run_one_after_the_other(tmp_path):
    given = commands()
    assert {"simulate", "info", "reconstruct", "evaluate", "export", "train"} <= {
        each[1] for each in given
    }
    told = []
    for _, *arguments in given:
        ended = subprocess.run(
            [sys.executable, "-m", "ddgm", *arguments],
            cwd=tmp_path,
            env={**os.environ, "DDGM_PROGRESS": "0", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert ended.returncode == 0, (arguments, ended.stderr)
        told += ended.stdout.splitlines()
    # What the guide shows of the answers is what they are, but for numbers that depend on the
    # machine: times, and the last digits of errors.
    shown = [line for block in blocks("text") for line in block.splitlines() if line.strip()]
    assert shown
    plain = [without_numbers(line) for line in told]
    for line in shown:
        assert without_numbers(line) in plain, f"not said any more: {line}"


def without_numbers(line):
    """Return a line without what differs from one machine to another."""
    line = re.sub(r"\d+:\d\d:\d\d", "TIME", line)
    return " ".join(re.sub(r"\d+\.\d+", "NUMBER", line).split())

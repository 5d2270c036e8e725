"""What the pages of the documentation tell their readers to write and to do."""

import re
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "config/README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "docs/guides").glob("*.md")),
    *sorted((REPOSITORY / "src/ddgm/networks").glob("*.md")),
]
SHELL = ("sh", "bash", "console", "shell")


def fenced(page, *languages):
    """Return the fenced blocks of a page in these languages."""
    return [
        token.content
        for token in MarkdownIt().parse(page.read_text(encoding="utf-8"))
        if token.type == "fence" and token.info in languages
    ]


def commands(page):
    """Return the commands of a page: lines of indented blocks, and of fenced ones of a shell.

    Comments, and settings of the environment in front of a command, do not count.
    """
    found = []
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "code_block" or (token.type == "fence" and token.info in SHELL):
            text = re.sub(r"\s*\\\n\s*", " ", token.content)
            lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines()]
            found += [re.sub(r"^([A-Z_]+=\S+ )+", "", line) for line in lines if line]
    return found


def named_blocks(page):
    """Return the fenced blocks of a page that begin with a file's name, by that name."""
    blocks = {}
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        name = re.match(r"# ([\w./]+/[\w.]+)\n", token.content) if token.type == "fence" else None
        if name is not None:
            assert name[1] not in blocks, f"{page.name} writes {name[1]} twice"
            blocks[name[1]] = token.content[name.end() :]
    return blocks

"""The trained networks that come with the library."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "networks"
SUFFIX = ".safetensors"


def pretrained_names() -> list[str]:
    """Return the names of the networks in the box; each has a model card, ``<name>.md``."""
    return sorted(path.name.removesuffix(SUFFIX) for path in FOLDER.glob(f"*{SUFFIX}"))


def network_path(name_or_path: str | Path) -> Path:
    """Return the file of a network in the box, by its name, or the given path.

    Parameters
    ----------
    name_or_path : str or path-like
        A name (see `pretrained_names`), or a path.
    """
    if str(name_or_path) in pretrained_names():
        return FOLDER / f"{name_or_path}{SUFFIX}"
    return Path(name_or_path)

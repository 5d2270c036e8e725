"""Where to compute."""

from __future__ import annotations

import torch

from ddgm.errors import DdgmError


def pick_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if there is one.

    Raises
    ------
    DdgmError
        If a GPU is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DdgmError("reconstruction: device is cuda, but PyTorch sees no GPU; use auto or cpu")
    return torch.device(name)

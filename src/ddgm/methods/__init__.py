"""Reconstruction methods, one module each.

To add one, write a frozen dataclass with the interface of `Method`, and enter it in `METHODS`. The
configuration can then name it, and it becomes a row of Table 1. This package loads without PyTorch,
so that the workflow can ask what a method needs.
"""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from ddgm.errors import SettingError
from ddgm.methods.algebraic import Algebraic
from ddgm.methods.ddgm import DDGM
from ddgm.methods.ddrm import DDRM
from ddgm.methods.dds import DDS
from ddgm.methods.dps import DPS
from ddgm.methods.generation import Generation
from ddgm.methods.problem import Evaluations, Method, Problem
from ddgm.methods.proximal import Proximal

__all__ = [
    "DDGM",
    "DDRM",
    "DDS",
    "DPS",
    "METHODS",
    "Algebraic",
    "Evaluations",
    "Generation",
    "Method",
    "Problem",
    "Proximal",
    "check_noise_levels",
    "make_method",
]

METHODS: dict[str, type[Any]] = {
    "algebraic": Algebraic,
    "ddgm": DDGM,
    "ddrm": DDRM,
    "dds": DDS,
    "dps": DPS,
    "generation": Generation,
    "proximal": Proximal,
}


def make_method(name: str, settings: dict[str, Any]) -> Method:
    """Build a method from its name and settings.

    Parameters
    ----------
    name : str
        A key of `METHODS`.
    settings : dict
        Values of the method's fields; those not given keep their defaults.

    Raises
    ------
    SettingError
        If the method or one of the settings does not exist, or a value is not allowed.
    """
    if name not in METHODS:
        raise SettingError(
            "method", name, f"does not exist; there are {', '.join(sorted(METHODS))}"
        )
    kind = METHODS[name]
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        key = unknown[0]
        raise SettingError(key, settings[key], f"is unknown; {name} takes {', '.join(known)}")
    hints = get_type_hints(kind)
    for key, value in settings.items():
        if not _fits(value, hints[key]):
            raise SettingError(key, value, f"is not allowed; {name} takes {hints[key].__name__}")
    method: Method = kind(**settings)
    return method


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a value read from a file will do for a field; only plain types are judged."""
    if kind in (int, float):
        allowed = (int, float) if kind is float else int
        return isinstance(value, allowed) and not isinstance(value, bool)
    return kind not in (bool, str) or isinstance(value, kind)


def check_noise_levels(method: Method, low: float, high: float) -> None:
    """Refuse noise levels on which the network was not trained.

    Parameters
    ----------
    method : Method
        A method; one without a noise schedule passes.
    low, high : float
        Lowest and highest noise level of the training, in network units.

    Raises
    ------
    SettingError
        If the method's first or last noise level lies outside.
    """
    levels = method.schedule()
    for name, sigma in zip(("sigma_1", "sigma_N"), (*levels[:1], *levels[-1:]), strict=False):
        # A level that was solved for may miss the limit by rounding.
        if not low * (1 - 1e-6) <= sigma <= high * (1 + 1e-6):
            raise SettingError(
                name,
                sigma,
                f"is outside the noise levels that the network is trained on, {low:g} to {high:g}",
            )

"""JSON schemas, checked with Python's notion of numbers."""

from __future__ import annotations

import math
from typing import Any

import jsonschema

# JSON takes 32.0 for an integer and knows neither nan nor inf; Python's numbers are stricter.
StrictValidator: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and math.isfinite(value)
            ),
        }
    ),
)

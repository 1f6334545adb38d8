"""One setting: a field of a dataclass that knows its description, its choices and its range."""

from __future__ import annotations

import dataclasses
from typing import Any


def setting(default: Any, text: str, *, choices: tuple[str, ...] = (), low: float = 0, high: float = 0) -> Any:
    """A field of a dataclass of settings; parameters of the node and flags of commands are made from it.

    Args:
        default: the value without a choice of the user's.
        text: its description.
        choices: the values that it may have; () for any.
        low: the least number of its closed range.
        high: the greatest; 0 for any number.
    """
    return dataclasses.field(default=default, metadata={"text": text, "choices": choices, "low": low, "high": high})


def check_settings(settings: Any) -> None:
    """Check each field against its choices and its range.

    Raises:
        ValueError: a value is none of the choices or outside the range; it names the field.
    """
    for entry in dataclasses.fields(settings):
        value, limits = getattr(settings, entry.name), entry.metadata
        if limits["choices"] and value not in limits["choices"]:
            raise ValueError(f"{entry.name}: {value!r} is none of {', '.join(limits['choices'])}")
        if limits["high"] and not limits["low"] <= value <= limits["high"]:
            raise ValueError(f"{entry.name}: {value} is outside {limits['low']} to {limits['high']}")

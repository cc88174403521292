"""The checklist in its order: ten modules, forty-one boxes."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from verdigris.checklist.box import SECTIONS, Box

if TYPE_CHECKING:
    from verdigris.evidence.judgement import Subject


@cache
def boxes() -> dict[str, tuple[str, Box[Subject]]]:
    """Return every box under its name, with its number ("1.3"), in the checklist's order."""
    for section in SECTIONS:
        if find_spec(f"verdigris.checklist.{section}") is not None:
            import_module(f"verdigris.checklist.{section}")
    numbered: dict[str, tuple[str, Box[Subject]]] = {}
    for place, section in enumerate(SECTIONS, 1):
        names = [name for name in Box.registry if name.startswith(f"{section}/")]
        for ordinal, name in enumerate(names, 1):
            numbered[name] = (f"{place}.{ordinal}", Box.registry[name]())
    return numbered

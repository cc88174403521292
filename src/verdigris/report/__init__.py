"""The Report and its renderers: one small file for each form."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from verdigris.report.report import Report
    from verdigris.report.style import Style

Renderer: TypeAlias = "Callable[[Report, Style], str]"

_RENDERERS: Mapping[str, str] = {
    "terminal": "terminal:render",
    "full": "terminal:render_full",
    "concise": "concise:render",
    "quiet": "terminal:render_quiet",
    "json": "json:render",
    "html": "html:render",
    "sarif": "sarif:render",
    "github": "github:render",
    "junit": "junit:render",
}
FORMATS = tuple(name for name in _RENDERERS if name != "quiet")


def renderer(name: str) -> Renderer:
    """Import the renderer of a format; each loads only what it needs."""
    module, _, function = _RENDERERS[name].partition(":")
    return cast("Renderer", getattr(import_module(f"verdigris.report.{module}"), function))

"""The settings of pytest: what its files say, and what the commands that start it do."""

from __future__ import annotations

import configparser
import re
import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_NATIVE = {"pytest.toml", ".pytest.toml"}  # since pytest 9
_INI = {"pytest.ini": "pytest", ".pytest.ini": "pytest", "tox.ini": "pytest", "setup.cfg": "tool:pytest"}


def section(path: str, text: str) -> Mapping[str, Any] | None:
    """Return the settings of pytest in a file, if it holds any."""
    name = path.rpartition("/")[2]
    if name == "pyproject.toml" or name in _NATIVE:
        return _toml(text, native=name in _NATIVE)
    return _ini(text, _INI[name]) if name in _INI else None


def given(options: Mapping[str, Any], name: str) -> str | None:
    """Return a setting, where it is not written under its name from the options that `addopts` gives."""
    if name in options:
        return str(options[name])
    added = options.get("addopts", "")
    return commanded(added if isinstance(added, str) else " ".join(map(str, added)), name)


def commanded(text: str, name: str) -> str | None:
    """Return a setting from a command line in a text: `--asyncio-mode=auto`, `-o asyncio_mode=auto`."""
    found = re.search(rf"(?:--{name.replace('_', '-')}[= ]|-o[ =]?{name}=)[\"']?(\w+)", text)
    return found[1] if found else None


def _toml(text: str, *, native: bool) -> Mapping[str, Any] | None:
    """Read `[tool.pytest.ini_options]`, or `[tool.pytest]` and `[pytest]` of pytest 9, in TOML's own types."""
    try:
        table = tomllib.loads(text)
        found = table.get("pytest") if native else table.get("tool", {}).get("pytest")
    except (tomllib.TOMLDecodeError, AttributeError):
        return None
    return found.get("ini_options", found) if isinstance(found, dict) else None


def _ini(text: str, name: str) -> Mapping[str, Any] | None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    return dict(parser[name]) if parser.has_section(name) else None

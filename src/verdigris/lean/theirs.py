"""What SQLAlchemy keeps to itself and the short ways rest on, by name: where a release lacks a name, none is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

#: The names that were looked for and are not there.
MISSING: list[str] = []


class _Nothing:
    """Stands for what is not there: nothing is of this type, nor the same as this."""

    def __getattr__(self, name: str) -> _Nothing:
        return self

    def __call__(self, *_: object) -> _Nothing:
        return self


def theirs(module: ModuleType, *names: str) -> Any:
    """Return what a module has under the first of these names, which are those of several releases."""
    for name in names:
        if name in vars(module):
            return vars(module)[name]
    MISSING.append(f"{module.__name__}.{names[0]}")
    return _Nothing()

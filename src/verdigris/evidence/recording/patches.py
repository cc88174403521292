"""Putting recording versions in the place of public methods, now or when their module comes, and taking them out."""

from __future__ import annotations

import sys
from functools import wraps
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_ABSENT = object()


class Patches:
    """What was replaced, for putting it back in the opposite order."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def method(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace a method of a class or an instance by `make(original)`; do nothing where there is none."""
        original = getattr(owner, name, None)
        if original is None:
            return
        before = vars(owner).get(name, _ABSENT)
        made = make(original)
        replacement = wraps(original)(made) if isinstance(owner, type) else made
        setattr(owner, name, replacement)

        def undo() -> None:
            if vars(owner).get(name) is not replacement:
                return  # somebody else's version lies over ours and calls it: ours only passes on from now
            if before is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, before)

        self._undo.append(undo)

    def class_method(self, owner: type, name: str, make: Callable[[Any], Any]) -> None:
        """Replace a class method by `make(original)`, where both take the class as their first argument."""
        before: classmethod[Any, Any, Any] = vars(owner)[name]
        replacement = classmethod(wraps(before.__func__)(make(before.__func__)))
        setattr(owner, name, replacement)

        def undo() -> None:
            if vars(owner).get(name) is replacement:
                setattr(owner, name, before)

        self._undo.append(undo)

    def later(self, undo: Callable[[], None]) -> None:
        """Remember something else to undo."""
        self._undo.append(undo)

    def restore(self) -> None:
        """Put everything back."""
        while self._undo:
            self._undo.pop()()


class Arrivals(MetaPathFinder):
    """Calls back when a module of a given name has been imported, at once for those that are already there."""

    def __init__(self, wanted: dict[str, Callable[[ModuleType], None]]) -> None:
        self._wanted = dict(wanted)

    def start(self) -> None:
        """Watch imports from now on."""
        sys.meta_path.insert(0, self)
        for name in list(self._wanted):
            module = sys.modules.get(name)
            if module is not None and not _initialising(module):
                self._wanted.pop(name)(module)

    def stop(self) -> None:
        """Watch no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._wanted:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                self._announce(spec)
                return spec
        return None

    def _announce(self, spec: ModuleSpec) -> None:
        loader: Any = spec.loader
        run = getattr(loader, "exec_module", None)
        arrived = self._wanted.get(spec.name)
        if run is None or arrived is None:
            return

        def exec_module(module: ModuleType) -> None:
            run(module)
            if self._wanted.pop(spec.name, None) is not None:
                arrived(module)

        loader.exec_module = exec_module


def _initialising(module: ModuleType) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))

"""Python's garbage collector under a service, whose requests make many objects that need no collector."""

from __future__ import annotations

import gc
import logging
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("verdigris")
_DEFAULT = 2_000 if sys.version_info >= (3, 13) else 700


@dataclass(slots=True)
class _Shared:
    """What the applications of this process have in common: the collector is one."""

    applications: int = 0
    before: tuple[int, int, int] = (0, 0, 0)
    during: tuple[int, int, int] = (0, 0, 0)

    def begin(self, objects: int) -> bool:
        """Change the collector, or join who has changed it; False where somebody else has a say."""
        now = gc.get_threshold()
        if not (self.applications and now == self.during):
            if now[0] != _DEFAULT or not gc.isenabled():
                return False
            self.before, self.during = now, (objects, *now[1:])
            gc.set_threshold(*self.during)
            log.info("the garbage collector runs for each %d new objects, not %d", objects, _DEFAULT)
        self.applications += 1
        return True

    def end(self) -> None:
        """Change it back behind the last one, unless somebody else has changed it meanwhile."""
        self.applications -= 1
        if not self.applications and gc.get_threshold() == self.during:
            gc.set_threshold(*self.before)


_shared = _Shared()


def checked_objects(objects: int | None) -> None:
    """Raise ConfigurationError for a number of objects that would switch the collector off, or is none."""
    if objects is not None and (isinstance(objects, bool) or objects < 1):
        raise ConfigurationError(
            f"collect_after={objects!r} is no number of objects.",
            why="Python's garbage collector would be off for the whole process, and what refers to itself never freed.",
            do=["Leave the collector alone:   install(app, db, collect_after=None)"],
            page="docs/reads.md",
        )


@contextmanager
def patient(objects: int | None) -> Iterator[None]:
    """Let the collector run for each so many new objects while the block lasts; with None, as it does.

    By itself it runs for each 2,000 more than were freed: one page of a hundred orders with their lines. What it goes
    through then is alive and counts as long-lived from that moment on, which leads to walks through the whole heap; and
    all of it is freed without the collector as soon as the answers are written. A collector that is off, or that the
    application has set itself, is left alone.
    """
    if objects is None or not _shared.begin(objects):
        yield
        return
    try:
        yield
    finally:
        _shared.end()

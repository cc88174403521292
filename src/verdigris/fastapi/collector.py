"""Python's garbage collector under a service, whose requests make many objects that need no collector."""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("verdigris")
_DEFAULTS = frozenset({700, 2_000})  # of Python 3.11 and of the later ones; any other was chosen by somebody


@contextmanager
def patient(objects: int | None) -> Iterator[None]:
    """Let the collector run for each so many new objects while the block lasts; with None, as it does.

    By itself it runs for each 2,000 more than were freed: one page of a hundred orders with their lines. What it goes
    through then is alive and counts as long-lived from that moment on, which leads to walks through the whole heap; and
    all of it is freed without the collector as soon as the answers are written. A collector that is off, or that the
    application has set itself, is left alone.
    """
    young, *older = gc.get_threshold()
    if objects is None or young not in _DEFAULTS:
        yield
        return
    gc.set_threshold(objects, *older)
    log.info("the garbage collector runs for each %d new objects, not %d", objects, young)
    try:
        yield
    finally:
        if gc.get_threshold()[0] == objects:
            gc.set_threshold(young, *older)

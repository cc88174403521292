"""What can go wrong with a private server, told in the reader's own names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class EmbeddedError(RuntimeError):
    """A private PostgreSQL could not be found, started or used; `what`, `why`, `do` and `page` are its parts.

    They are those of a `VerdigrisError`, which it is not: this package needs the standard library alone.
    """

    def __init__(self, what: str, *, why: str, do: Sequence[str] = (), page: str = "docs/embedded.md") -> None:
        super().__init__("\n  ".join([what, why, *do, *([f"verdigris explain {page}"] if page else [])]))
        self.what = what
        self.why = why
        self.do = tuple(do)
        self.page = page

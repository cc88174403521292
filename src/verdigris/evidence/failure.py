"""What cannot be had, in the reader's own names: what happened, why it is an error, what to do, where to read on."""

from __future__ import annotations


class ToldError(Exception):
    """Something that was asked for cannot be had; `what`, `why`, `do` and `page` are the parts of its text."""

    def __init__(self, what: str, *, why: str, do: tuple[str, ...] = (), page: str = "") -> None:
        super().__init__("\n  ".join([what, why, *do, *([page] if page else [])]))
        self.what = what
        self.why = why
        self.do = do
        self.page = page


class EvidenceError(ToldError):
    """Evidence that was asked for could not be gathered."""

"""What can go wrong while evidence is gathered, told in the reader's own names."""

from __future__ import annotations


class EvidenceError(Exception):
    """Evidence that was asked for could not be gathered; `what`, `why`, `do` and `page` are its parts."""

    def __init__(self, what: str, *, why: str, do: tuple[str, ...] = (), page: str = "") -> None:
        super().__init__("\n  ".join([what, why, *do, *([page] if page else [])]))
        self.what = what
        self.why = why
        self.do = do
        self.page = page

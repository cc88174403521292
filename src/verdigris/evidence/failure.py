"""What can go wrong while evidence is gathered, told in the reader's own names."""

from __future__ import annotations

from verdigris.checker.usage import UsageError


class EvidenceError(UsageError):
    """Evidence that was asked for could not be gathered; `what`, `why`, `do` and `page` are its parts."""

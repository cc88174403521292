"""Wrong use of a command or of the configuration."""

from __future__ import annotations

from verdigris.evidence.failure import ToldError


class UsageError(ToldError):
    """A command or a configuration asks for something that cannot be had; the command ends with exit code 2."""

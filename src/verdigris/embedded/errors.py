"""What can go wrong with a private server, told in the reader's own names."""

from __future__ import annotations


class EmbeddedError(RuntimeError):
    """A private PostgreSQL could not be found, started or used; `what`, `why`, `do` and `page` are its parts."""

    def __init__(
        self, what: str, *, why: str, do: tuple[str, ...] = (), page: str = "verdigris explain docs/embedded.md"
    ) -> None:
        super().__init__("\n  ".join([what, why, *do, *([page] if page else [])]))
        self.what = what
        self.why = why
        self.do = do
        self.page = page

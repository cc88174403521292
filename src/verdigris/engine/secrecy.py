"""What keeps a password out of tracebacks: error trackers send the local variables of every frame away."""

from __future__ import annotations


class Password:
    """A password that does not show in a frame; asyncpg calls it for the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Password(…)"


def without_frames(error: BaseException) -> BaseException:
    """Take the frames off an error and off all that led to it: for errors raised where a password is at hand.

    In the driver's frames it is in the clear. The frames of those who called us come on again as the error rises.
    """
    step: BaseException | None = error
    seen: set[int] = set()
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        step.__traceback__ = None
        step = step.__cause__ or step.__context__
    return error

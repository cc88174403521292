"""Options, read by argparse and refused in our own form: what is wrong, why, and the nearest thing there is."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from verdigris.checker.naming import nearest

if TYPE_CHECKING:
    from collections.abc import Callable


class Parser(argparse.ArgumentParser):
    """The parser of one command."""

    def __init__(self, command: str, description: str, usage: str | None = None) -> None:
        super().__init__(prog=f"verdigris {command}", description=description, usage=usage, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage."""
        from verdigris.checker.usage import UsageError  # what is read well needs none of it

        what = message.removeprefix("argument ")
        raise UsageError(
            what if what.endswith((".", "?")) else f"{what}.",
            why=f"{self.prog} could not be read as it was written.",
            page=f"{self.prog} --help",
        )

    def read(self, given: list[str]) -> argparse.Namespace:
        """Parse, and name the nearest option for one that is not there."""
        found, unknown = self.parse_known_args(given)
        if not unknown:
            return found
        from verdigris.checker.usage import UsageError  # as above

        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            why = f"{self.prog} takes no further one."
            raise UsageError(f"`{word}` is one argument too many.", why=why, page=f"{self.prog} --help")
        options = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        alike = [option for option in options if option.startswith(f"-{word}")]  # `-o`: no option has a short form
        raise UsageError(
            f"`{word}` is no option of {self.prog}.",
            why="An option that nobody reads would be ignored in silence.",
            do=(nearest(alike[0] if alike else word, options, "There is"),),
            page=f"{self.prog} --help",
        )


def choice(*words: str) -> Callable[[str], str]:
    """Return a reader of one of these words."""

    def read(word: str) -> str:
        if word not in words:
            raise argparse.ArgumentTypeError(f"`{word}` is not known. {nearest(word, words, 'There is')}")
        return word

    return read


def positive(word: str) -> int:
    """Read a positive number."""
    if not (word.isascii() and word.isdigit()) or int(word) < 1:
        raise argparse.ArgumentTypeError(f"`{word}` is no positive number")
    return int(word)


def words(texts: list[str]) -> list[str]:
    """Split what may be given with commas, repeated, or both."""
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]

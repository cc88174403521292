"""Words by which people name boxes, settings and commands: what they match, and what was probably meant.

It is loaded by commands that start at once, so it imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its cost
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def nearest(word: str, known: Iterable[str], there_is: str) -> str:
    """Return a sentence that names what the word was probably meant to be, else everything there is."""
    import difflib

    names = list(known)
    close = difflib.get_close_matches(word.strip(), names, n=1, cutoff=0.5)
    return f"Did you mean `{close[0]}`?" if close else f"{there_is}: {', '.join(names)}."


def matching(patterns: Iterable[str], known: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the boxes that the patterns name, each with its pattern; `known` is every box's number by its name.

    A pattern is a box's name or number, a section, or a glob. One that names nothing raises UsageError.
    """
    from fnmatch import fnmatchcase

    sections = list(dict.fromkeys(name.partition("/")[0] for name in known))
    found: dict[str, str] = {}
    for pattern in patterns:
        word = pattern.strip().rstrip("/")
        names = [
            name
            for name, number in known.items()
            if word in {name, number, name.partition("/")[0]} or fnmatchcase(name, word)
        ]
        if not names:
            from verdigris.checker.usage import UsageError

            near = nearest(word, [*known, *sections], "There is")
            raise UsageError(
                f"{where} names `{pattern}`, which is no box.",
                why="A box that does not exist would be left out in silence.",
                do=(near if near.startswith("Did") else f"The sections are: {', '.join(sections)}.",),
                page="verdigris boxes",
            )
        found.update(dict.fromkeys(names, pattern))
    return found

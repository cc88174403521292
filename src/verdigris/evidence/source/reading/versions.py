"""Which releases of packages a project runs on: what its lock files say, else what it asks for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.files import Role, role_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.reading.files import Files


def _asked(files: Files, package: str) -> Iterator[str]:
    """Yield what requirements and pyproject.toml ask for of a package: `>=0.115,<1`."""
    named = package.replace("-", "[-_.]")
    pattern = re.compile(
        rf"""["'\s]{named}(?:\[[^\]]*\])?["']?\s*(?:=\s*["{{]?(?:.*?version\s*=\s*)?["']?)?\s*([^"'\n;}}]*)""",
        re.IGNORECASE,  # packages are
    )
    for path, text in files.settings.items():
        if path.endswith((".txt", "pyproject.toml")):
            yield from (match[1] for match in pattern.finditer("\n" + text))  # it may be the very first word


def _locked(files: Files, package: str) -> list[str]:
    return [
        version
        for path, versions in files.locked.items()
        if role_of(path) is not Role.EXAMPLE
        for version in versions.get(package, ())
    ]


def below(files: Files, package: str) -> int | None:
    """Return the minor version that a project stays below of a package whose versions begin with 0: 118 for 0.118.

    A lock file says it, else what the project asks for. Of several lock files the newest version counts: nobody knows
    which one is deployed.
    """
    locked = _locked(files, package)
    if locked:
        minors = [re.match(r"0\.(\d+)", version) for version in locked]
        known = [int(minor[1]) + 1 for minor in minors if minor is not None]
        return max(known) if len(known) == len(locked) else None
    return min((bound for asked in _asked(files, package) for bound in _upper(asked)), default=None)


def at_least(files: Files, package: str, release: tuple[int, ...]) -> bool | None:
    """Tell whether a project has this release of a package or a later one; None where its files do not settle it."""
    locked = _locked(files, package)
    if locked:
        told = {_numbers(version) >= release for version in locked}
        return told.pop() if len(told) == 1 else None
    lowest = [_lower(asked) for asked in _asked(files, package)]
    settled = bool(lowest) and all(each is not None and each >= release for each in lowest)
    return True if settled else None


def is_before(files: Files, package: str, release: tuple[int, ...]) -> bool:
    """Tell whether a project's files say that it has an older release of a package than this one."""
    locked = _locked(files, package)
    if locked:
        return any(_numbers(version) < release for version in locked)
    return any(_all_before(asked, release) for asked in _asked(files, package))


def _all_before(requirement: str, release: tuple[int, ...]) -> bool:
    """Tell whether each alternative of a requirement, `^1.4 || ^2.0`, keeps a release out."""
    alternatives = requirement.split("||")
    return all(any(_ends_before(part, release) for part in each.split(",")) for each in alternatives)


def _ends_before(part: str, release: tuple[int, ...]) -> bool:
    """Tell whether one bound of a requirement keeps a release out: `<2`, `==1.4.46`, `~=1.4`, `^1.4`."""
    found = re.match(r"\s*(<=|<|==|~=|\^|~|=)\s*(\d[\d.]*)", part)
    if found is None:
        return False
    bound = _numbers(found[2])
    return bound < release or (found[1] == "<" and _trimmed(bound) == _trimmed(release))


def _trimmed(version: tuple[int, ...]) -> tuple[int, ...]:
    while version and version[-1] == 0:
        version = version[:-1]
    return version


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found is not None else ()


def _upper(requirement: str) -> Iterator[int]:
    """Yield what a requirement's version stays below: `<0.116`, `==0.115.0`, and poetry's `^0.115` and `0.115.*`."""
    for part in requirement.split(","):
        match = re.match(r"\s*(<=|<|==|~=|\^|~|=)?\s*0\.(\d+)(?:\.(\d+))?", part)
        if match is None:
            continue
        sign, minor, patch = match[1], int(match[2]), match[3]
        if sign == "<":
            yield minor + (1 if patch and int(patch) else 0)
        elif sign in {"<=", "==", "^", "~", None, "="} or (sign == "~=" and patch is not None):
            yield minor + 1


def _lower(requirement: str) -> tuple[int, ...] | None:
    """Return the lowest version that a requirement lets in; None if it names none."""
    parts = (re.match(r"\s*(?:>=|==|~=|\^|~|=)\s*(\d[\d.]*)", part) for part in requirement.split(","))
    return max((_numbers(part[1]) for part in parts if part is not None), default=None)

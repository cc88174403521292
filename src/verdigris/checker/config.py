"""`[tool.verdigris]` in the nearest pyproject.toml: read, checked key by key, and nothing merged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verdigris.checker.naming import nearest
from verdigris.checker.usage import UsageError
from verdigris.evidence.judgement import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PAGE = "verdigris explain docs/configuration.md"
KEYS: Mapping[str, str] = {
    "evidence": 'an array of "source", "recording", "database"',
    "select": "an array of boxes, sections or globs",
    "ignore": 'a table of box = "reason"',
    "accept": 'a table of box = "reason"',
    "workers": "a positive number: how many processes serve the application",
    "exclude": "an array of paths or globs, relative to this file",
    "recording": "an array of recordings' paths, relative to this file",
    "baseline": "a path, relative to this file",
}


@dataclass(frozen=True, slots=True)
class Config:
    """What a project has decided; `folder` is where its pyproject.toml lies, and its paths are relative to that."""

    folder: Path
    file: Path | None = None
    evidence: tuple[Kind, ...] = ()
    select: tuple[str, ...] = ()
    ignore: Mapping[str, str] = field(default_factory=dict)
    accept: Mapping[str, str] = field(default_factory=dict)
    workers: int | None = None
    exclude: tuple[str, ...] = ()
    recording: tuple[Path, ...] = ()
    baseline: Path | None = None


def find(start: Path) -> Config:
    """Read the nearest pyproject.toml with `[tool.verdigris]`, from the checked path up to the repository's root."""
    first = start if start.is_dir() else start.parent
    for folder in (first, *first.parents):
        file = folder / "pyproject.toml"
        table = _table(file) if file.is_file() else None
        if table is not None:
            return _config(table, file)
        if (folder / ".git").exists():
            break
    return Config(first)


def _table(file: Path) -> dict[str, Any] | None:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read.", why=f"{error}.", page=PAGE) from error
    if "verdigris" not in text:
        return None
    import tomllib

    try:
        tool = tomllib.loads(text).get("tool", {})
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{file} is not TOML.", why=f"{error}.", page=PAGE) from error
    table = tool.get("verdigris") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"`tool.verdigris` in {file} is no table.", why="Settings are keys of one.", page=PAGE)
    return table


def _config(table: dict[str, Any], file: Path) -> Config:
    reader = _Reader(table, file)
    for key in table:
        if key not in KEYS:
            raise UsageError(
                f"`{key}` in [tool.verdigris] of {file} is no setting.",
                why="A setting that nobody reads would be ignored in silence.",
                do=(nearest(key, KEYS, "There is"),),
                page=PAGE,
            )
    folder = file.parent
    baseline = reader.text("baseline")
    return Config(
        folder,
        file,
        tuple(reader.kind(word) for word in reader.texts("evidence")),
        reader.texts("select"),
        reader.reasons("ignore"),
        reader.reasons("accept"),
        reader.positive("workers"),
        reader.texts("exclude"),
        tuple(folder / path for path in reader.texts("recording")),
        None if baseline is None else folder / baseline,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes values of the right type out of the table."""

    table: dict[str, Any]
    file: Path

    def _wrong(self, key: str, why: str = "") -> UsageError:
        what = f"`{key}` in [tool.verdigris] of {self.file} is {_named(self.table[key])}."
        return UsageError(what, why=why or f"It has to be {KEYS[key]}.", do=(f"{key} = {_EXAMPLES[key]}",), page=PAGE)

    def text(self, key: str) -> str | None:
        value = self.table.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key)
        return tuple(value)

    def reasons(self, key: str) -> dict[str, str]:
        value = self.table.get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key)
        for box, reason in value.items():
            if not isinstance(reason, str) or not reason.strip():
                raise self._wrong(key, f"`{box}` has no reason; the reader of the report will ask for one.")
        return value

    def positive(self, key: str) -> int | None:
        value = self.table.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise self._wrong(key)
        return value

    def kind(self, word: str) -> Kind:
        return kind(word, f"`evidence` in [tool.verdigris] of {self.file}")


_EXAMPLES = {
    "evidence": '["source", "recording"]',
    "select": '["engine", "loading/all-loaded"]',
    "ignore": '{ "performance/explained" = "reviewed monthly by the data team" }',
    "accept": '{ "engine/recycle" = "the proxy never closes idle connections" }',
    "workers": "4",
    "exclude": '["legacy/"]',
    "recording": '["recording.json"]',
    "baseline": '"verdigris-baseline.json"',
}


def _named(value: Any) -> str:
    return {
        bool: "true or false",
        str: "a text",
        int: "a number",
        float: "a number",
        list: "an array",
        dict: "a table",
    }.get(type(value), f"a {type(value).__name__}") + (f" ({value})" if isinstance(value, int | float) else "")


def kind(word: str, where: str) -> Kind:
    """Read the name of a kind of evidence; raise UsageError with the nearest one otherwise."""
    try:
        return Kind(word.strip())
    except ValueError:
        raise UsageError(
            f"{where} names `{word.strip()}`, which is no kind of evidence.",
            why="There are three kinds: source, recording, database.",
            do=(nearest(word, list(Kind), "There is"),),
        ) from None

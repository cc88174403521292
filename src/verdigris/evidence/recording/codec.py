"""Recordings as JSON: each dataclass is an object, each tuple an array, each mapping an object."""

from __future__ import annotations

import json
import os
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, Union, get_args, get_origin, get_type_hints

from verdigris.evidence.failure import EvidenceError
from verdigris.evidence.recording.artefact import FORMAT, SCHEMA_VERSION, Recording

_AGAIN = "Record the run again:   verdigris record --output FILE -- CMD"


class ArtefactError(EvidenceError):
    """A file that was given as a recording cannot be read as one."""

    def __init__(self, what: str, *, why: str, do: tuple[str, ...] = (_AGAIN,)) -> None:
        super().__init__(what, why=why, do=do, page="verdigris explain docs/recording.md")


class _MismatchError(Exception):
    """A value has another shape than its field; the message is `where: what`."""


def save(recording: Recording, path: Path | str) -> None:
    """Write the recording beside its place and move it there; half a surrogate pair, which no file can hold, as `?`."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():  # a device or a pipe is written to, never replaced: /dev/null
            with target.open("w", encoding="utf-8", errors="replace") as device:
                _write(recording, device)
            return
        with NamedTemporaryFile(
            "w", encoding="utf-8", errors="replace", dir=target.parent, prefix=".recording-", delete=False
        ) as file:
            _write(recording, file)
        os.replace(file.name, target)  # noqa: PTH105 - the name is a str already
    except OSError as error:
        reason = f"{type(error).__name__}: {error.strerror or error}"
        raise ArtefactError(
            f"The recording could not be written to {target}.", why=reason, do=("Name another file with --output.",)
        ) from error


def _write(recording: Recording, file: IO[str]) -> None:
    json.dump({"format": FORMAT, **encode(recording)}, file, ensure_ascii=False, separators=(",", ":"))
    file.write("\n")


def load(path: Path | str) -> Recording:
    """Read a recording; raise ArtefactError in the reader's own names otherwise."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ArtefactError(f"The recording {path} could not be read.", why=str(error.strerror or error)) from error
    try:
        document = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{path} is not a recording.", why=f"It is not UTF-8 at byte {error.start}.") from error
    except (ValueError, RecursionError) as error:
        why = "It is empty." if not data.strip() else f"It is no complete JSON document: {error}."
        raise ArtefactError(f"{path} is not a recording.", why=why) from error
    return _checked(document, path)


def _checked(document: Any, path: Path | str) -> Recording:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        why = f'A recording is a JSON object with "format": "{FORMAT}".'
        raise ArtefactError(f"{path} is not a recording.", why=why)
    version = document.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ArtefactError(f"{path} is not a recording.", why="Its schema_version is no positive number.")
    if version > SCHEMA_VERSION:
        why = f"Its schema_version is {version}; this verdigris reads up to {SCHEMA_VERSION}."
        raise ArtefactError(f"{path} was recorded by a newer verdigris.", why=why, do=(_AGAIN, "or upgrade verdigris."))
    try:
        recording = decode(Recording, document)
    except _MismatchError as error:
        raise ArtefactError(f"{path} is a damaged recording.", why=f"{error}.") from error
    assert isinstance(recording, Recording)  # noqa: S101 - for the type checker; decode made it
    return recording


def encode(value: Any) -> Any:
    """Turn a recording, or a part of one, into what JSON can say; tell nothing that is its default."""
    if is_dataclass(value):
        return {
            item.name: encode(getattr(value, item.name))
            for item in fields(value)
            if item.name == "schema_version" or getattr(value, item.name) != _default(item)
        }
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _default(item: Any) -> Any:
    with suppress(TypeError):
        return item.default_factory()
    return item.default


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def decode(kind: type, value: Any, where: str = "recording") -> Any:
    """Build a dataclass from a JSON object, checking the shape of every field."""
    if not isinstance(value, dict):
        raise _MismatchError(f"{where} is no object")
    hints = _hints(kind)
    given = {name: _decoded(hint, value[name], f"{where}.{name}") for name, hint in hints.items() if name in value}
    try:
        return kind(**given)
    except TypeError as error:
        raise _MismatchError(f"{where} lacks a field: {error}") from error


def _decoded(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return _decoded(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _MismatchError(f"{where} is no array")
        return tuple(_decoded(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is not None:
        if not isinstance(value, dict):
            raise _MismatchError(f"{where} is no object")
        return {key: _decoded(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if is_dataclass(hint):
        return decode(hint, value, where)  # type: ignore[arg-type]  # is_dataclass is true of instances too
    return _scalar(hint, value, where)


def _scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise _MismatchError(f"{where} is {type(value).__name__}, not {hint.__name__}")
    return value

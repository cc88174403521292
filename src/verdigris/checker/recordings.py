"""The recordings that were given, as one, and what is to be said about them before they are believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris import __version__
from verdigris.evidence.recording.artefact import Recording
from verdigris.evidence.recording.merge import merge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read(paths: tuple[Path, ...]) -> tuple[Recording, tuple[str, ...]]:
    """Return one recording or more as one, and what each may lack; raise ArtefactError for a file that is none."""
    recordings = [Recording.load(path) for path in paths]
    notices = [
        notice for path, recording in zip(paths, recordings, strict=True) for notice in _notices(path, recording)
    ]
    return recordings[0] if len(recordings) == 1 else merge(recordings), tuple(notices)


def _notices(path: Path, recording: Recording) -> Iterator[str]:
    if recording.verdigris not in {"", __version__}:
        yield (
            f"{path} was recorded by verdigris {recording.verdigris}, and {__version__} reads it: what the one does "
            f"not record the other takes for not seen. Record it again: verdigris record --output {path} -- CMD"
        )
    failed = sum(error.count for error in recording.recorder_errors)
    if failed:
        first = recording.recorder_errors[0]
        yield (
            f"{path} may lack something: the recorder failed {failed} time{'s' * (failed != 1)}, "
            f"first at {first.where}: {first.message}"
        )

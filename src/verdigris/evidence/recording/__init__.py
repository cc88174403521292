"""What a run did: recorded from inside its processes, kept as one artefact, read by the boxes.

`with record(root) as recorder: …` records this process, `recorder.artefact()` is what was seen so far;
`verdigris record -- CMD` records another command with all its processes (`command.run`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.evidence.recording.artefact import Recording
from verdigris.evidence.recording.codec import ArtefactError

if TYPE_CHECKING:
    from verdigris.evidence.recording.recorder import Recorder, record

__all__ = ["ArtefactError", "Recorder", "Recording", "record"]


def __getattr__(name: str) -> object:
    """Import the recorder at its first use: whoever only reads a recording needs none of it (PEP 562)."""
    if name in {"Recorder", "record"}:
        from verdigris.evidence.recording import recorder

        return getattr(recorder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

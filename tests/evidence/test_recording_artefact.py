"""The artefact: what is saved is loaded again, and what is no recording is refused by name."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace

import pytest

from verdigris.evidence.recording import ArtefactError, Recording
from verdigris.evidence.recording.artefact import (
    Engine,
    Model,
    Pool,
    Relationship,
    Request,
    Statement,
    StatementUse,
    Tests,
)

FULL = Recording(
    command=("pytest", "-q"),
    engines=(Engine("app/db.py:3", "app/db.py:3", pool_size=5, in_event_loop={"app/x.py:9": 2}),),
    requests=(Request("GET /orders/{id}", "app/orders.py:41", count=2, statuses={"200": 1, "404": 1}, total_ms=1.25),),
    statements=(Statement("ab12", "SELECT 1", uses=(StatementUse("app/orders.py:44", 2, routes={"GET /": 2}),)),),
    pools=(Pool("app/db.py:3", capacity=None, wait_histogram={"0.5": 3}),),
    tests=Tests(run=3, databases={"postgresql://u:***@h/shop_test": 3}),
    models=(Model("Order", relationships=(Relationship("Order.lines", uselist=True),)),),
)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = tmp_path / "deep" / "recording.json"

    FULL.save(path)

    assert Recording.load(path) == FULL
    assert [entry.name for entry in path.parent.iterdir()] == ["recording.json"]


def test_defaults_are_not_written_and_whole_numbers_are_read_as_times(tmp_path):
    path = tmp_path / "recording.json"
    replace(FULL, seconds=2).save(path)

    document = json.loads(path.read_text())

    assert "errors" not in document
    assert isinstance(Recording.load(path).seconds, float)


def test_what_no_file_can_hold_is_one_character_and_not_the_recording(tmp_path):
    path = tmp_path / "recording.json"

    replace(FULL, command=("python", "caf\udce9.py")).save(path)

    assert Recording.load(path) == replace(FULL, command=("python", "caf?.py"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_or_device_is_written_to_and_stays_what_it_is(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    reader.start()

    FULL.save(path)

    assert path.is_fifo()
    reader.join(10)
    assert json.loads(read[0])["format"] == "verdigris recording"


def test_an_unknown_field_is_left_alone(tmp_path):
    path = tmp_path / "recording.json"
    FULL.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "weather": "mild"}))

    assert Recording.load(path) == FULL


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "It is empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"format": "verdigris recording", "schema_ver', "no complete JSON"),
        (b"[" * 100_000, "no complete JSON"),
        (b"[1, 2]", '"format": "verdigris recording"'),
        (b'{"version": "2.1.0", "runs": []}', '"format": "verdigris recording"'),
        (b'{"format": "verdigris recording"}', "schema_version"),
        (b'{"format": "verdigris recording", "schema_version": 99}', "newer verdigris"),
        (b'{"format": "verdigris recording", "schema_version": 1, "engines": 3}', "engines is no array"),
        (b'{"format": "verdigris recording", "schema_version": 1, "engines": [{}]}', "engines[0] lacks a field"),
        (
            b'{"format": "verdigris recording", "schema_version": 1, "engines": [{"id": "a", "created": "x"}]}',
            "engines[0].created is str, not int",
        ),
    ],
)
def test_what_is_no_recording_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "recording.json"
    path.write_bytes(content)

    with pytest.raises(ArtefactError) as caught:
        Recording.load(path)

    assert message in str(caught.value)
    assert "recording.json" in caught.value.what
    assert "verdigris record" in str(caught.value)


def test_a_missing_recording_says_so(tmp_path):
    with pytest.raises(ArtefactError, match="No such file"):
        Recording.load(tmp_path / "none.json")


def test_a_place_that_cannot_be_written_is_an_error_of_its_own(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ArtefactError, match="could not be written"):
        FULL.save(tmp_path / "file" / "recording.json")

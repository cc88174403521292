from __future__ import annotations

import json
from pathlib import Path

from tests.report.sample import sample
from verdigris.report import renderer
from verdigris.report.json import SCHEMA_VERSION
from verdigris.report.style import Style

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text("utf-8"))
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}


def faults(value, schema, where="report"):
    """Yield where a value is not what the schema says: the part of JSON Schema that ours uses, strictly."""
    if "$ref" in schema:
        yield from faults(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], where)
        return
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(isinstance(value, TYPES[kind]) and not isinstance(value, bool) for kind in kinds):
        yield f"{where} is {type(value).__name__}, not {kinds}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {value!r}"
    if "const" in schema and value != schema["const"]:
        yield f"{where} is {value!r}"
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        yield from (f"{where} has no {name}" for name in schema.get("required", []) if name not in value)
        yield from (f"{where} has an undocumented {name}" for name in value if properties and name not in properties)
        for name, inner in properties.items():
            if name in value:
                yield from faults(value[name], inner, f"{where}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from faults(item, schema["items"], f"{where}[{index}]")


def document():
    return json.loads(renderer("json")(sample(), Style()))


def test_the_document_is_what_the_schema_says_and_nothing_else():
    assert list(faults(document(), SCHEMA)) == []


def test_the_schema_describes_every_key_and_names_the_version():
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    every = [SCHEMA, *SCHEMA["$defs"].values()]
    bare = [
        name for part in every for name, inner in part["properties"].items() if not {"description", "$ref"} & set(inner)
    ]
    assert bare == []


def test_a_finding_says_box_rule_place_consequence_and_fix():
    first = document()["findings"][0]

    assert first["box"] == "engine/failed"
    assert first["number"] == "1.2"
    assert first["rule"] == "engine/failed/off"
    assert first["severity"] == "error"
    assert (first["path"], first["line"], first["end_line"]) == ("app/db.py", 3, 3)
    assert (first["column"], first["end_column"]) == (10, 43)
    assert first["fix"] == "create_async_engine(settings.url, pool_pre_ping=True)"
    assert first["consequence"] == "A connection that the server closed fails the next request that gets it."


def test_suppressed_and_known_findings_are_not_among_the_findings():
    told = document()

    assert {finding["box"] for finding in told["findings"]} == {"engine/failed", "loading/advised"}
    assert [finding["reason"] for finding in told["suppressed"]] == ["the proxy does it"]
    assert [finding["box"] for finding in told["known"]] == ["models/known"]

"""The URL of an engine made from a configuration: `async_engine_from_config` in Alembic's env.py, and alembic.ini."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from verdigris.evidence.source.engine.urls import Text
from verdigris.evidence.source.reading.arguments import Argument, keyword
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.engine.engines import Engine

_INI = re.compile(r"^sqlalchemy\.url[ \t]*=[ \t]*(\S+)", re.MULTILINE)


def urls_of(source: Source, engine: Engine) -> list[Text]:
    """Return what the URL of an engine may be, whether it is an argument or part of a configuration."""
    if engine.url is not None:
        return source.urls.drivers(engine.url)
    if not engine.maker.leaf.endswith("_from_config"):
        return []
    return _of_mapping(source, engine) or _of_main_option(source, engine) or _of_file(source, engine)


def _of_mapping(source: Source, engine: Engine) -> list[Text]:
    """Read `{"sqlalchemy.url": …}`, and a section to which the key was added."""
    call = engine.made
    given = call.node.args[0] if call.node.args else keyword(call.node, "configuration")
    prefix = keyword(call.node, "prefix")
    start = prefix.value if isinstance(prefix, ast.Constant) and isinstance(prefix.value, str) else "sqlalchemy."
    ways = [] if given is None else source.evaluator.dictionaries(Argument(given, call.scope))
    urls = [way.values[f"{start}url"] for way in ways if f"{start}url" in way.values]
    return [text for url in urls for text in source.urls.drivers(url)] if len(urls) == len(ways) else []


def _of_main_option(source: Source, engine: Engine) -> list[Text]:
    """Read `config.set_main_option("sqlalchemy.url", …)` of the same file."""
    found: list[Text] = []
    for call in source.calls.named("set_main_option", "set_section_option"):
        if call.module is not engine.made.module or len(call.node.args) < 2:
            continue
        *_, name, value = call.node.args
        if source.evaluator.value(Argument(name, call.scope)) == Known("sqlalchemy.url"):
            found += source.urls.drivers(Argument(value, call.scope))
    return found


def _of_file(source: Source, engine: Engine) -> list[Text]:
    """Read alembic.ini; the placeholder of its template names no driver that is known."""
    for path, content in source.files.settings.items():
        match = _INI.search(content) if path.rpartition("/")[2] == "alembic.ini" else None
        if match is not None and engine.made.module.path.startswith(path.rpartition("/")[0]):
            line = content.count("\n", 0, match.start(1)) + 1
            return [Text(match[1], by=f"sqlalchemy.url in {path}", place=Place(path, line, line))]
    return []

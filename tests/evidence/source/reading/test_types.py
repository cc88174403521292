"""What is inferred of an expression does not depend on what was asked for before."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source import Source

if TYPE_CHECKING:
    from pathlib import Path


def test_a_type_that_was_out_of_reach_once_is_found_from_nearer(tmp_path: Path):
    """Inference follows calls so far; what it gives up on is not what it remembers."""
    calls = [f"def call{n}():\n    return call{n + 1}()\n" for n in range(20)]
    (tmp_path / "app.py").write_text(
        "\n".join(["import sqlalchemy\n\nclass Row: ...\n", *calls, "def call20() -> Row: ...\n"]), "utf-8"
    )

    def named(*numbers: int) -> list[str | None]:
        source = Source.read(tmp_path)
        functions = {scope.name: scope for module in source.names.modules for scope in module.scope.walk()}
        found = []
        for number in numbers:
            function = functions[f"call{number}"]
            made = next(node.value for node in function.nodes() if isinstance(node, ast.Return))
            found.append(getattr(source.types.of(made, function), "name", None))
        return found

    alone = [named(number)[0] for number in range(20)]
    assert set(alone) == {None, "Row"}
    assert named(*range(20)) == alone

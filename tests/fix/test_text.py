"""Keywords set in the text of a file: what is written, and that all else stays to the byte."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdigris.evidence.judgement import Edit, How
from verdigris.evidence.values import Place
from verdigris.fix.text import Unwritable, edited


def call_in(text):
    """Return the place of the last call in a text as the checker sees it, in characters."""
    node = [each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Call)][-1]
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    columns = [
        len(lines[line - 1].encode()[:offset].decode())
        for line, offset in ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
    ]
    return Place("app.py", node.lineno, node.end_lineno, *columns)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("make()", "make(ping=True)"),
        ("make(url)", "make(url, ping=True)"),
        ("make(url,)", "make(url, ping=True,)"),
        ("make((url))", "make((url), ping=True)"),
        ("make(url, **more)", "make(url, **more, ping=True)"),
        ("make(url, ping=False, echo=True)", "make(url, ping=True, echo=True)"),
        ("make(url, ping=(False))", "make(url, ping=(True))"),
        ("make(  # here\n)", "make(ping=True  # here\n)"),
        ("make(\n    url,\n    echo=True,\n)", "make(\n    url,\n    echo=True,\n    ping=True,\n)"),
        ("make(\n    url,\n    echo=True\n)", "make(\n    url,\n    echo=True,\n    ping=True\n)"),
        ("make(\n\ta,  # 1\n\tb=1  # 2\n\t# 3\n\t)", "make(\n\ta,  # 1\n\tb=1,  # 2\n\t# 3\n\tping=True\n\t)"),
        ("make(\n    url, echo=True\n)", "make(\n    url, echo=True, ping=True\n)"),
        ("make(url,\n     echo=True)", "make(url,\n     echo=True, ping=True)"),
        ("make(\n    a={\n        'b': 1,\n    },\n)", "make(\n    a={\n        'b': 1,\n    },\n    ping=True,\n)"),
        ("x = '數據庫'; make('база')  # é", "x = '數據庫'; make('база', ping=True)  # é"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_keyword_is_written_in_the_layout_that_is_there(before, after, newline):
    before, after = (f"\x0c\n{each}\n".replace("\n", newline) for each in (before, after))

    assert edited(before, [Edit(call_in(before), "ping", "True")]) == after


def test_two_keywords_of_one_call_and_calls_within_calls_go_together():
    before = "outer(\n    inner(url),\n)\n"
    calls = [each for each in ast.walk(ast.parse(before)) if isinstance(each, ast.Call)]
    outer, inner = (Place("app.py", c.lineno, c.end_lineno, c.col_offset, c.end_col_offset) for c in calls)

    after = edited(before, [Edit(outer, "a", "1"), Edit(inner, "c", "3"), Edit(outer, "b", "2")])

    assert after == "outer(\n    inner(url, c=3),\n    a=1,\n    b=2,\n)\n"


def place_of(text, part, line=None):
    """Return the place of a part of a text of one line each."""
    number = next(index for index, each in enumerate(text.split("\n"), 1) if part in each) if line is None else line
    column = text.split("\n")[number - 1].index(part)
    return Place("app.py", number, number, column, column + len(part))


@pytest.mark.parametrize(
    ("before", "part", "edit", "after"),
    [
        ("x = {}\n", "{}", {"how": How.ITEM}, 'x = {"ping": True}\n'),
        ("x = {'a': 1}  # é\n", "{'a': 1}", {"how": How.ITEM}, "x = {'a': 1, \"ping\": True}  # é\n"),
        ("x = {'ping': 1, **y}\n", "{'ping': 1, **y}", {"how": How.ITEM}, "x = {'ping': True, **y}\n"),
        ("orm . make(url)\n", "orm . make(url)", {"how": How.CALLEE}, "True(url)\n"),
        ("a(1) . make(url)\n", "a(1) . make(url)", {"how": How.CALLEE, "value": ".do"}, "a(1) . do(url)\n"),
        ("x=make()\n", "x=make()", {"how": How.ANNOTATION}, "x: True=make()\n"),
        ("x: int  # why\n", "x: int", {"how": How.ASSIGNMENT}, "x: int = True  # why\n"),
        ("x = f(('a'))\n", "'a'", {"how": How.EXPRESSION}, "x = f((True))\n"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_each_kind_of_edit_touches_its_own_tokens_only(before, part, edit, after, newline):
    place = call_in(before) if part is None else place_of(before, part)
    before, after = before.replace("\n", newline), after.replace("\n", newline)

    assert edited(before, [Edit(place, **({"name": "ping", "value": "True"} | edit))]) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""Doc."""\nimport os\n\nmake()\n', '"""Doc."""\nimport os\nfrom a.b import c\n\nmake()\n'),
        ("from a.b import x, y  # both\n\nmake()\n", "from a.b import x, y, c  # both\n\nmake()\n"),
        (
            "from a.b import (\n    x,\n    y,  # why\n)\nmake()\n",
            "from a.b import (\n    x,\n    y,  # why\n    c,\n)\nmake()\n",
        ),
        ("from a.b import (x, y)\nmake()\n", "from a.b import (x, y, c)\nmake()\n"),
        ("from a.b import x, \\\n    y\nmake()\n", "from a.b import x, \\\n    y, c\nmake()\n"),
        ("from a.b import c\nmake()\n", "from a.b import c\nmake()\n"),
        ("from a.b import *\nmake()\n", "from a.b import *\nfrom a.b import c\nmake()\n"),
        ("from .a.b import x\nmake()\n", "from .a.b import x\nfrom a.b import c\nmake()\n"),
        ("import os; import sys\nmake()\n", "import os; import sys\nfrom a.b import c\nmake()\n"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_an_edit_needs_is_imported_where_the_file_imports(before, after, newline):
    after = after.replace("make()", "c()")
    before, after = before.replace("\n", newline), after.replace("\n", newline)

    assert edited(before, [Edit(call_in(before), "make", "c", how=How.CALLEE, imports=("a.b:c",))]) == after


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("import os\nfrom b import c\nmake()\n", "`c`, which would have to be imported, is something else"),
        ("import os\nmake(lambda c: c)\n", "is something else"),
        ("import os\nif os:\n    from a.b import c\nmake()\n", "is something else"),
        ("make()\n", "no imports"),
        ("import os; make()\n", "shares a line|ends the file"),
        ("import os; x = 1\nmake()\n", "shares a line"),
    ],
)
def test_a_name_that_cannot_be_imported_for_certain_is_not_written(before, why):
    with pytest.raises(Unwritable, match=why):
        edited(before, [Edit(call_in(before), "make", "c", how=How.CALLEE, imports=("a.b:c",))])


def test_a_comment_is_never_replaced():
    text = "make(\n    ping=(\n        no  # not yet\n        and 1\n    ),\n)\n"

    with pytest.raises(Unwritable, match="comment"):
        edited(text, [Edit(call_in(text), "ping", "True")])


def test_the_end_of_the_file_stays_as_it_is():
    assert edited("make()", [Edit(call_in("make()"), "ping", "True")]) == "make(ping=True)"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("make(each for each in rows)", "no Python afterwards"),
        ("x = 1  # make()", "not where it was"),
        ("make(", "no Python that can be read"),
    ],
)
def test_what_is_not_certain_is_not_written(text, why):
    place = Place("app.py", 1, 1, 0, len(text))

    with pytest.raises(Unwritable, match=why):
        edited(text, [Edit(place, "ping", "True")])


def test_edits_that_would_write_over_each_other_are_not_written():
    text = "outer(ping=inner())\n"
    outer, inner = Place("app.py", 1, 1, 0, 19), Place("app.py", 1, 1, 11, 18)

    with pytest.raises(Unwritable, match="each other's way"):
        edited(text, [Edit(outer, "ping", "True"), Edit(inner, "ping", "True")])


ARGUMENTS = st.lists(
    st.sampled_from(["a", "'é'", "b=1", "*c", "**d", "f(x)", "(\n  g\n)", "{1: 2}", "lambda: 0"]), max_size=4
)
GAPS = st.sampled_from(["", " ", "\n", "\n    ", "  # note\n  ", "\t"])


@given(ARGUMENTS, st.lists(GAPS, min_size=10, max_size=10), st.booleans())
def test_whatever_the_layout_the_tree_is_the_one_that_is_meant(arguments, gaps, comma):
    inside = "".join(f"{gaps[index]}{each},{gaps[index + 5]}" for index, each in enumerate(arguments))
    text = f"make({inside if comma else inside.rstrip().removesuffix(',')}{gaps[9]})\n"
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    call = tree.body[0].value
    lines = text.split("\n")
    end = len(lines[call.end_lineno - 1].encode()[: call.end_col_offset].decode())

    after = edited(text, [Edit(Place("app.py", 1, call.end_lineno, 0, end), "ping", "True")])

    call.keywords.append(ast.keyword("ping", ast.Constant(True)))
    assert ast.dump(ast.parse(after)) == ast.dump(tree)

"""The text of a statement without its values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdigris.evidence.recording import statements


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t1 WHERE t1.b = $1::VARCHAR", "SELECT a FROM t1 WHERE t1.b = ?"),
        ("select 'it''s', E'\\'', 1.5e3, -2", "select ?, ?, ?, -?"),
        ("select $$a 'quoted' text$$, $tag$x$tag$", "select ?, ?"),
        ('select "Column 1" from "T 2"', 'select "Column 1" from "T 2"'),
        ("select a -- a note with 'text'\nfrom t /* 42 */", "select a from t"),
        ("select * from t where a in (1, 2, 3)", "select * from t where a in (?)"),
        ("select * from t where a IN (__[POSTCOMPILE_id_1])", "select * from t where a IN (?)"),
        ("insert into t (a, b) values (1, now()), (2, now())", "insert into t (a, b) values (?, now())"),
        ("INSERT INTO t (a) VALUES (%(a)s) ;", "INSERT INTO t (a) VALUES (?)"),
        ("select :name, a::timestamp", "select ?, a::timestamp"),
    ],
)
def test_values_and_placeholders_become_marks(sql, expected):
    assert statements.normalise(sql) == expected


def test_lists_of_any_length_are_one_statement():
    prints = {
        statements.fingerprint(statements.normalise(f"select 1 from t where a in ({', '.join('?' * n)})"))
        for n in (2, 3, 9)
    }

    assert len(prints) == 1


@given(st.text())
def test_a_string_never_survives(value):
    quoted = value.replace("'", "''").replace("\\", "\\\\").replace("\x00", "")

    assert statements.normalise(f"select a from t where b = '{quoted}'") == "select a from t where b = ?"


@given(st.text())
def test_any_text_can_be_normalised(text):
    statements.tables(statements.normalise(text))
    statements.kind(text)


@given(st.integers(min_value=0), st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_number_never_survives(whole, real):
    assert (
        statements.normalise(f"select a1 from t2 where b3 > {whole} and c < {real!r}")
        == "select a1 from t2 where b3 > ? and c < ?"
    )


@pytest.mark.parametrize(
    ("sql", "kind", "tables"),
    [
        ("SELECT * FROM a JOIN s.b ON true", "SELECT", ("a", "s.b")),
        ("  -- note\n (select 1)", "SELECT", ()),
        ('UPDATE ONLY "T 1" SET a = ?', "UPDATE", ("T 1",)),
        ("INSERT INTO orders (a) VALUES (?)", "INSERT", ("orders",)),
        ("WITH x AS (SELECT 1 FROM a) INSERT INTO b SELECT * FROM x", "INSERT", ("a", "b")),
        ("WITH RECURSIVE x(n) AS (SELECT 1), y AS (SELECT 2) SELECT * FROM x, y JOIN c ON true", "SELECT", ("c",)),
        ("SELECT * FROM generate_series(?, ?) JOIN LATERAL unnest(x) ON true", "SELECT", ()),
        ("DELETE FROM a USING b", "DELETE", ("a",)),
        ("TRUNCATE TABLE a", "TRUNCATE", ("a",)),
        ("", "", ()),
    ],
)
def test_kind_and_tables_are_read_off(sql, kind, tables):
    assert statements.kind(sql) == kind
    assert statements.tables(sql) == tables


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("EXPLAIN SELECT 1", ("SELECT 1", False)),
        ("explain analyze verbose select 1", ("select 1", True)),
        ("EXPLAIN (ANALYZE, BUFFERS) SELECT 1", ("SELECT 1", True)),
        ("EXPLAIN (ANALYZE FALSE, FORMAT JSON) SELECT 1", ("SELECT 1", False)),
        ("SELECT 1", None),
    ],
)
def test_what_is_explained_and_whether_it_ran(sql, found):
    assert statements.explained(sql) == found


@pytest.mark.parametrize(
    ("answer", "node"),
    [
        ("Seq Scan on a  (cost=0.00..1.05 rows=5 width=4)", "Seq Scan on a  (cost=0.00..1.05 rows=5 width=4)"),
        (
            """[{"Plan": {"Node Type": "Index Scan", "Relation Name": "a", "Startup Cost": 0.1, "Total Cost": 8.0,
            "Plan Rows": 1, "Plan Width": 4}}]""",
            "Index Scan on a  (cost=0.10..8.00 rows=1 width=4)",
        ),
        ("[1, 2]", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_plans_first_node_is_told(answer, node):
    assert statements.first_node(answer) == node

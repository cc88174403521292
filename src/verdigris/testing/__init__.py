"""Section 9: tests on a PostgreSQL of their own, undone after each test, that run the real commit path.

The pytest plugin `verdigris` brings fixtures: `verdigris_sandbox` and `verdigris_session` (undone after the test),
`verdigris_database` (a database of the test's own, where COMMIT is COMMIT), `verdigris_queries` (counts statements).

    @pytest.fixture(scope="session")
    def verdigris_schema():
        return Base.metadata                                    # or a function of the URL that runs the migrations

    async def test_an_order_is_stored(verdigris_sandbox, verdigris_queries):
        with verdigris_sandbox.standing_in(db):                 # the application's own Database
            with verdigris_queries.at_most(3):
                await client.post("/orders", json={...})
"""

from __future__ import annotations

from verdigris.testing.counting import QueryLog, StatementCountError
from verdigris.testing.databases import MARK, Databases, refuse_unless_test
from verdigris.testing.sandbox import Sandbox, SandboxBlockedError
from verdigris.testing.substitution import standing_in

__all__ = [
    "MARK",
    "Databases",
    "QueryLog",
    "Sandbox",
    "SandboxBlockedError",
    "StatementCountError",
    "refuse_unless_test",
    "standing_in",
]

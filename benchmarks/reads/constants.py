"""The answers that the floors give to everything: real ones, of the size that the scenarios' answers have."""

from __future__ import annotations

import asyncpg

from reads.peers.asyncpg_json import NESTED, PAGE, ROW


async def constants(url: str) -> dict[str, bytes]:
    """Return one answer for a row, and one a page by its path and limit."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        found = {"row": await connection.fetchval(ROW, 1), "page": await connection.fetchval(PAGE, 0, 20)}
        for limit in (20, 100):
            found[f"nested{limit}"] = await connection.fetchval(NESTED, 0, limit)
    finally:
        await connection.close()
    return {name: text.encode() for name, text in found.items()}

"""One column of the table: a peer before all faults."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from faults.bench import bench
from faults.rows import ROWS, Cell

if TYPE_CHECKING:
    from faults.bench import Bench


def whole_column(peer: str, faults: list[str]) -> dict[str, Cell]:
    return asyncio.run(column(peer, faults))


async def column(peer: str, faults: list[str]) -> dict[str, Cell]:
    """Put one peer before the faults, each with tables set back, and a process that is well."""
    cells = {}
    async with bench(peer) as made:
        for name in faults:
            cells[name] = await cell(made, name)
            print(f"{peer:18} {name:14} {cells[name]}", file=sys.stderr)
    return cells


async def cell(made: Bench, name: str) -> Cell:
    try:
        found = await ROWS[name][1](made)
    finally:
        made.proxy.flow()
        made.proxy.fates.clear()
        made.postgres.thaw()
        await asyncio.to_thread(made.postgres.start)
    left = await made.in_use()
    if left and "lost" not in found.text:
        found = Cell(f"{found.text}; {'hangs' if left < 0 else f'{left} connections lost'}", good=False)
    if left or name in {"schema", "left"} or not await made.is_well():
        await made.fresh()
    return found

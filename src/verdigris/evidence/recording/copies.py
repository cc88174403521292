"""COPY: asyncpg's public copy methods, which go past SQLAlchemy."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from verdigris.evidence.recording.recorder import Recorder


class CopyWatch:
    """Records COPY … FROM STDIN."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def attach(self, asyncpg: ModuleType) -> None:
        """Start recording; the argument is the imported package."""
        for name in ("copy_records_to_table", "copy_to_table"):
            self.recorder.patches.method(asyncpg.Connection, name, self._copying)

    def _copying(self, original: Any) -> Any:
        async def copy(connection: Any, table_name: str, **kwargs: Any) -> Any:
            start = perf_counter_ns()
            result = await original(connection, table_name, **kwargs)
            try:
                self._copied(connection, table_name, str(result), perf_counter_ns() - start)
            except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
                self.recorder.trouble("a COPY", error)
            return result

        return copy

    def _copied(self, connection: Any, table: str, result: str, elapsed: int) -> None:
        recorder = self.recorder
        unit = recorder.units.unit()
        last = result.rpartition(" ")[2]
        rows = int(last) if last.isdigit() else 0
        unit.copies.setdefault((table, recorder.spot(unit)), []).append((rows, elapsed))
        checkout = recorder.pools.raw.get(id(connection))
        if checkout is not None:
            checkout.wrote = True
            if checkout.engine is not None:
                checkout.engine.statement_ns += elapsed
            if checkout.request is not None:
                checkout.request.statement_ns += elapsed
            if recorder.tests is not None:
                checkout.pending = {**(checkout.pending or {}), table: (checkout.pending or {}).get(table, 0) + rows}
        if not unit.listed:
            recorder.units.list(unit)

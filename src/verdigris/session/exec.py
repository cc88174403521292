"""`exec()`, as SQLModel's session has it, typed as there. SQLModel need not be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, overload

from sqlalchemy.ext.asyncio import AsyncSession as _AsyncSession
from sqlalchemy.util import EMPTY_DICT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import CursorResult, Executable, ScalarResult, UpdateBase
    from sqlalchemy.engine import TupleResult
    from sqlmodel.sql.expression import Select as SQLModelSelect  # for the types alone
    from sqlmodel.sql.expression import SelectOfScalar

    Params = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ExecSession(_AsyncSession):
    """An `AsyncSession` that runs statements of SQLModel as SQLModel's own does."""

    @overload
    async def exec(
        self,
        statement: SelectOfScalar[T],
        *,
        params: Params = None,
        execution_options: Mapping[str, Any] = EMPTY_DICT,
        bind_arguments: dict[str, Any] | None = None,
    ) -> ScalarResult[T]: ...

    @overload
    async def exec(
        self,
        statement: SQLModelSelect[*Ts],
        *,
        params: Params = None,
        execution_options: Mapping[str, Any] = EMPTY_DICT,
        bind_arguments: dict[str, Any] | None = None,
    ) -> TupleResult[tuple[*Ts]]: ...

    @overload
    async def exec(
        self,
        statement: UpdateBase,
        *,
        params: Params = None,
        execution_options: Mapping[str, Any] = EMPTY_DICT,
        bind_arguments: dict[str, Any] | None = None,
    ) -> CursorResult[Any]: ...

    @overload
    async def exec(
        self,
        statement: Executable,
        *,
        params: Params = None,
        execution_options: Mapping[str, Any] = EMPTY_DICT,
        bind_arguments: dict[str, Any] | None = None,
    ) -> Any: ...

    async def exec(
        self,
        statement: Executable,
        *,
        params: Params = None,
        execution_options: Mapping[str, Any] = EMPTY_DICT,
        bind_arguments: dict[str, Any] | None = None,
    ) -> Any:
        """Run a statement as SQLModel's session does: its `select()` of one entity or column gives values, not rows.

        Any other statement gives what `execute()` does, SQLAlchemy's own `select()` of one entity too.
        """
        result = await self.execute(
            statement, params, execution_options=execution_options, bind_arguments=bind_arguments
        )
        return result.scalars() if _is_of_scalar(statement) else result


def _is_of_scalar(statement: object) -> bool:
    """Tell whether a statement is one of SQLModel's `select()` with one argument; SQLModel need not be there."""
    kinds = type(statement).__mro__
    return any(kind.__name__ == "SelectOfScalar" and kind.__module__.startswith("sqlmodel.") for kind in kinds)

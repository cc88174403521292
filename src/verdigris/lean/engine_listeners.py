"""Who else has a say in the reads of an engine: those who listen to it, and execution options.

Asked before each lean read, so it takes a fraction of a microsecond: where SQLAlchemy keeps the listeners of an engine
is looked up once, and from then on these lists are only looked into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection

from verdigris.engine.read_only import READS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Engine

#: Execution options under which a read is the same statement, run the same way. All others have a say: a
#: `schema_translate_map` makes another statement of it, `stream_results` another result.
_HARMLESS = frozenset({
    "isolation_level",
    "postgresql_readonly",
    "postgresql_deferrable",
    "logging_token",  # who logs has SQLAlchemy's path anyway
    "insertmanyvalues_page_size",
    READS,
})  # fmt: skip
_OF_STATEMENTS = "before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute"
#: Where SQLAlchemy's own listener comes from, which gives an engine's isolation level to each connection.
_OF_SQLALCHEMY = "sqlalchemy.engine.default"


def change_nothing(options: Mapping[str, Any]) -> bool:
    """Tell whether a read is the same with these execution options and without."""
    return not options or _HARMLESS.issuperset(options)


def foreign(listeners: Iterable[Any]) -> bool:
    """Tell whether one of the listeners of `engine_connect` is not SQLAlchemy's own."""
    for each in listeners:  # noqa: SIM110 - any() would make a generator, once a read
        if getattr(each, "__module__", None) != _OF_SQLALCHEMY:
            return True
    return False


class EngineListeners:
    """Who has a say in what is run on one engine; `options` are the ones that it was judged with."""

    __slots__ = ("_begin", "_connect", "_statements", "options", "plain")

    def __init__(self, bind: Engine, engine: Engine) -> None:
        """Judge a session's bind; `engine` is the one whose statements are known."""
        self.options = bind._execution_options
        #: Whether its statements are that engine's own, with nothing in its options that makes others of them.
        self.plain = _origin(bind) is _origin(engine) and change_nothing(self.options)
        self._statements = _lists(bind, *_OF_STATEMENTS)
        self._connect, self._begin = _lists(bind, "engine_connect"), _lists(bind, "begin")

    def to_statements(self) -> bool:
        """Tell whether somebody hears of statements, and may change them."""
        for listeners in self._statements:  # noqa: SIM110 - as above
            if listeners:
                return True
        return False

    def to_opening(self) -> bool:
        """Tell whether somebody hears of a connection that is opened, or of BEGIN, and may set it up."""
        for listeners in self._begin:
            if listeners:
                return True
        for listeners in self._connect:  # noqa: SIM110 - as above
            if listeners and foreign(listeners):
                return True
        return False


def every_connection_is_heard() -> bool:
    """Tell whether somebody listens to all connections, of any engine."""
    return getattr(Connection, "_has_events", False)  # the class has it from SQLAlchemy 2.0.56 on, or once it is heard


def connection_is_heard(connection: Any) -> bool:
    """Tell whether somebody listens to this very connection's statements."""
    if not connection._has_events:  # in SQLAlchemy 2.0 it has them if its engine has
        return False
    return any(getattr(connection.dispatch, name).local.listeners for name in _OF_STATEMENTS)


def _origin(engine: Any) -> Any:
    """Return the engine that `execution_options()` made copies of."""
    while (proxied := getattr(engine, "_proxied", None)) is not None:
        engine = proxied
    return engine


def _lists(engine: Any, *names: str) -> tuple[Any, ...]:
    """Return the lists of an engine's listeners, of those of its class and of the engines that it is a copy of.

    They stay the same ones: `for_modify()` makes those that are not there yet, as the first listener would.
    """
    found: dict[int, Any] = {}
    while engine is not None:
        for name in names:
            listeners = getattr(engine.dispatch, name).for_modify(engine.dispatch)
            own = getattr(listeners, "local", listeners)  # a copy's are joined to those of the engine itself
            for each in (own.listeners, own.parent_listeners):
                found[id(each)] = each
        engine = getattr(engine, "_proxied", None)
    return tuple(found.values())

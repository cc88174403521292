"""Database errors, named as SQLAlchemy will name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.evidence.recording.units import Failure

if TYPE_CHECKING:
    from verdigris.evidence.recording.places import Spot
    from verdigris.evidence.recording.recorder import Recorder
    from verdigris.evidence.recording.units import Unit

_PEP_249 = frozenset(
    {
        "DataError", "DatabaseError", "Error", "IntegrityError", "InterfaceError", "InternalError", "NotSupportedError",
        "OperationalError", "ProgrammingError",
    }
)  # fmt: skip


def failed(recorder: Recorder, unit: Unit, error: BaseException, spot: Spot | None) -> Failure:
    """Note an error in its unit of work."""
    cause = error.__cause__
    codes = (getattr(error, "sqlstate", None), getattr(error, "pgcode", None), getattr(cause, "sqlstate", None))
    failure = Failure(class_of(error), next((str(code) for code in codes if code), None), spot)
    unit.failures.append(failure)
    if not unit.listed:
        recorder.units.list(unit)
    return failure


def class_of(error: BaseException) -> str:
    """Name the class of a driver's error as SQLAlchemy will: by the first name of PEP 249 among its ancestors."""
    for kind in type(error).__mro__:
        if kind.__name__ in _PEP_249:
            return "DBAPIError" if kind.__name__ == "Error" else kind.__name__
    return type(error).__name__

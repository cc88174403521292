"""Sessions: SQLAlchemy's own, for one task at a time, whose COMMIT is told as it was, with effects that wait for it."""

from verdigris.session.session import AsyncSession, Transaction, after_commit

__all__ = ["AsyncSession", "Transaction", "after_commit"]

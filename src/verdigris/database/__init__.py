"""`Database`: one engine, one session factory and what a service needs around them, made from one URL and settings."""

from verdigris.database.database import Database

__all__ = ["Database"]

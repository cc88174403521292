"""Drivers by name: which of them `create_async_engine` can use."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A dialect with a bare plus is what SQLAlchemy takes when no driver is named.
DRIVERS: Mapping[str, bool] = MappingProxyType(
    {
        "aiomysql": True,
        "aioodbc": True,
        "aiosqlite": True,
        "asyncmy": True,
        "asyncpg": True,
        "asyncpg_rds": True,
        "oracledb": True,
        "oracledb_async": True,
        "psycopg": True,
        "psycopg_async": True,
        "mariadbconnector": False,
        "mysqlclient": False,
        "mysqlconnector": False,
        "mysqldb": False,
        "pg8000": False,
        "psycopg2": False,
        "psycopg2cffi": False,
        "pymysql": False,
        "pymssql": False,
        "pyodbc": False,
        "pysqlite": False,
        "mariadb+": False,
        "mssql+": False,
        "mysql+": False,
        "postgres+": False,
        "postgresql+": False,
        "sqlite+": False,
    }
)


def is_async(scheme: str) -> bool | None:
    """Tell whether `create_async_engine` gets an asynchronous driver from this; None for one that is not known."""
    dialect, _, driver = scheme.partition("+")
    return DRIVERS.get(driver or f"{dialect}+")

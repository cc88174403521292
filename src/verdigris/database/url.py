"""From a database URL as people write it to what asyncpg understands, checked before the first connection.

SQLAlchemy hands every query parameter of the URL to `asyncpg.connect()`: `sslmode=`, `application_name=` and most other
options of libpq end as a TypeError at the first request. Here they are translated, or refused by name at construction.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from verdigris.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLES = ("VERDIGRIS_DATABASE_URL", "DATABASE_URL")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_PAGE = "engine/async-driver"

# asyncpg takes these as arguments of the same name.
_NUMBERS: dict[str, Callable[[str], object]] = {
    "command_timeout": float,
    "timeout": float,
    "statement_cache_size": int,
    "max_cached_statement_lifetime": int,
    "max_cacheable_statement_size": int,
    "prepared_statement_cache_size": int,
}
_SAME = frozenset({"target_session_attrs", "passfile", "service", "servicefile", "krbsrvname", "gsslib"})
# asyncpg reads these from a DSN only, so they travel in one of their own.
_TLS = frozenset(
    {
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "sslpassword",
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
    }
)
# What asyncpg does anyway: the option may go without a loss.
_ALREADY = {
    "client_encoding": {"utf8", "utf-8", "auto"},
    "gssencmode": {"disable", "prefer"},
    "channel_binding": {"disable", "prefer"},
    "sslcompression": {"0"},
}
_KNOWN = frozenset(
    {"sslmode", "ssl", "connect_timeout", "application_name", "options", "host", "port", "dbname", "user", "pgbouncer"}
)
_SECONDS = {"connect_timeout": 5, "timeout": 5, "command_timeout": 60, "max_cached_statement_lifetime": 300}
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_HOSTS = re.compile(r"(?P<head>[\w+]+://(?:[^/?#@]*@)?)(?P<hosts>[^/?#@,]*(?:,[^/?#@,]*)+)(?P<tail>[/?].*)?\Z")
_SETTING = re.compile(r"(?:-c\s*|--)(?P<name>[\w.-]+)=(?P<value>(?:\\.|\S)*)\s*")


@dataclass(slots=True)
class Address:
    """Where the database is: the URL for SQLAlchemy, arguments for asyncpg, settings for the server."""

    url: URL
    connect: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    pgbouncer: bool | None = None  # whether a pooler in transaction mode stands there; None: it was not said


def address(given: str | URL | None, environ: Mapping[str, str] = os.environ) -> Address:
    """Return the address that a URL names; without one, that of `VERDIGRIS_DATABASE_URL`, then of `DATABASE_URL`.

    Raises ConfigurationError for another database or driver, and for an option that asyncpg has no equivalent of.
    """
    if given is None:
        given = next((environ[name] for name in VARIABLES if environ.get(name)), None)
    if given is None:
        raise ConfigurationError(
            "no database URL: neither an argument nor VERDIGRIS_DATABASE_URL nor DATABASE_URL gives one.",
            do=['Write Database("postgresql://user@host/name"), or set one of the variables.'],
            page=_PAGE,
        )
    url = _driver(_parsed(given))
    return _Translation(
        Address(url.set(query={})), {name: _last(value) for name, value in url.query.items()}, url
    ).run()


def _parsed(given: str | URL) -> URL:
    if isinstance(given, URL):
        return given
    secret = getattr(given, "get_secret_value", None)  # pydantic's SecretStr
    text = str(secret() if secret else given).strip()
    several = _HOSTS.match(text)
    try:
        if several is None:
            return make_url(text)
        url = make_url(f"{several['head']}{several['tail'] or ''}")
        hosts = [host if ":" in host else f"{host}:5432" for host in several["hosts"].split(",")]
        return url.update_query_dict({"host": hosts})
    except (ArgumentError, ValueError):  # a port that is no number
        raise ConfigurationError(
            "the database URL cannot be read.",
            why="Its text is not repeated here, as it may hold a password.",
            do=["The form is postgresql://user:password@host:5432/name; write @ : / in a password as %40 %3A %2F."],
            page=_PAGE,
        ) from None


def _driver(url: URL) -> URL:
    if url.drivername in {"postgres", "postgresql", "postgres+asyncpg", "postgresql+asyncpg"}:
        return url.set(drivername="postgresql+asyncpg")
    raise ConfigurationError(
        f"the database URL names {url.drivername}, and verdigris works on PostgreSQL through asyncpg.",
        why="Its guards (COMMIT answered with ROLLBACK, bounded waits, the cheap ping) are built on that driver.",
        do=["Write postgresql+asyncpg://… (postgresql:// and postgres:// are read as that)."],
        page=_PAGE,
    )


def _last(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ",".join(value)


@dataclass(slots=True)
class _Translation:
    """One pass over the options of a URL: each is taken by exactly one rule, what is left is unknown."""

    found: Address
    options: dict[str, str]
    url: URL

    def run(self) -> Address:
        self._login()
        self._tls()
        self._settings()
        for name in [name for name in self.options if name in _NUMBERS]:
            self.found.connect[name] = self._number(name, _NUMBERS[name])
        for name in [name for name in self.options if name in _SAME]:
            self.found.connect[name] = self.options.pop(name)
        if "pgbouncer" in self.options:
            self.found.pgbouncer = self._flag("pgbouncer")
        if "connect_timeout" in self.options:  # libpq: 0 is no limit, which is never what a service wants
            self.found.connect["timeout"] = self._number("connect_timeout", float) or 60.0
        for name, harmless in _ALREADY.items():
            if self.options.get(name, "").lower() in harmless:
                del self.options[name]
        self._refuse()
        return self.found

    def _login(self) -> None:
        """Move user, database, password and hosts to where SQLAlchemy looks for them, and masks the password."""
        url = self.found.url
        for name, part in (("user", "username"), ("dbname", "database"), ("database", "database"), ("password",) * 2):
            value = self.options.pop(name, None)
            if value is None:
                continue
            if getattr(url, part) not in {None, "", value}:
                raise ConfigurationError(
                    f"the database URL gives the {part} twice, and they differ.",
                    do=[f"Remove {name}= from behind the question mark."],
                    page=_PAGE,
                )
            url = url.set(**{part: value})  # type: ignore[arg-type]  # the parts named above are all text
        hosts = {name: self.url.query[name] for name in ("host", "port") if self.options.pop(name, None)}
        if not isinstance(hosts.get("host", ""), str):
            self.found.connect["target_session_attrs"] = "read-write"  # of several, the one that takes writes
        self.found.url = url.set(query=hosts)

    def _tls(self) -> None:
        mode = self.options.pop("sslmode", None) or self.options.pop("ssl", None)
        mode = {"true": "require", "false": "disable"}.get(mode or "", mode)
        if mode and mode not in SSL_MODES:
            raise ConfigurationError(
                f"the database URL asks for sslmode={mode}, which does not exist.",
                do=[f"The modes are {', '.join(SSL_MODES)}."],
                page=_PAGE,
            )
        files = {name: self.options.pop(name) for name in sorted(_TLS & self.options.keys())}
        if mode in {None, "verify-full"} and files == {"sslrootcert": "system"}:  # libpq's word for the system's own
            self.found.connect["ssl"] = True
        elif files:  # who names an authority wants the server verified
            mode = mode or ("verify-full" if "sslrootcert" in files else "prefer")
            self.found.connect["dsn"] = "postgresql://?" + urlencode({"sslmode": mode, **files})
        elif mode:
            self.found.connect["ssl"] = mode

    def _settings(self) -> None:
        name = self.options.pop("application_name", None) or self.options.pop("fallback_application_name", None)
        self.options.pop("fallback_application_name", None)
        if name:
            self.found.settings["application_name"] = name
        options = self.options.pop("options", "").strip()
        while options:
            setting = _SETTING.match(options)
            if setting is None:
                raise ConfigurationError(
                    "the database URL has options= that are not settings of the server.",
                    do=["Write them as options=-c%20name%3Dvalue."],
                    page=_PAGE,
                )
            self.found.settings[setting["name"].replace("-", "_")] = re.sub(r"\\(.)", r"\1", setting["value"])
            options = options[setting.end() :]

    def _number(self, name: str, kind: Callable[[str], object]) -> object:
        text = self.options.pop(name)
        try:
            return kind(text)
        except ValueError:
            raise ConfigurationError(
                f"the database URL has {name}={text}, which is not a number.",
                do=[f"Write a {'whole ' if kind is int else ''}number:   ?{name}={_SECONDS.get(name, 100)}"],
                page=_PAGE,
            ) from None

    def _flag(self, name: str) -> bool:
        text = self.options.pop(name).lower()
        if text in _FLAGS:
            return _FLAGS[text]
        raise ConfigurationError(
            f"the database URL has {name}={text}, which is neither true nor false.",
            do=[f"Write ?{name}=true, or ?{name}=false."],
            page=_PAGE,
        )

    def _refuse(self) -> None:
        if not self.options:
            return
        names = ", ".join(sorted(self.options))
        known = sorted(_KNOWN | _SAME | _TLS | _NUMBERS.keys())
        near = {name: difflib.get_close_matches(name, known, 1, 0.75) for name in self.options}
        do = [f"Did you mean {close[0]}= where {name}= stands?" for name, close in near.items() if close]
        raise ConfigurationError(
            f"the database URL has options that asyncpg does not know: {names}.",
            why="SQLAlchemy would hand them to asyncpg.connect(), which raises a TypeError at the first request.",
            do=[*do, "Remove them; a setting of the server is written options=-c%20name%3Dvalue."],
            page=_PAGE,
        )

"""TLS to a database on another machine: verified unless the URL says otherwise, and errors that say what to write.

asyncpg's own default takes TLS where it is offered and verifies nothing: whoever sits between can be the server.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verdigris.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy.engine import URL

_PAGE = "engine/async-driver"
_NO_VERIFICATION = "or encrypt without knowing to whom:   ?sslmode=require"
_AUTHORITY = "Name the authority that signed it:   ?sslmode=verify-full&sslrootcert=/path/ca.pem"
_NO_TLS = "or, inside a network that is trusted, do without:   ?sslmode=disable"


def hosts_of(url: URL) -> tuple[str, ...]:
    """Return the hosts that a URL names, those behind the question mark included."""
    named = url.query.get("host") or url.host or os.environ.get("PGHOST") or ""
    several = (named,) if isinstance(named, str) else named
    return tuple(host.partition(":")[0] if host.count(":") == 1 else host for host in several)


def is_local(host: str) -> bool:
    """Tell whether a host is this machine: a unix socket or the loopback address."""
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def is_told(arguments: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether somebody has decided about TLS: in the URL, in `connect_args` or by `PGSSLMODE`."""
    return bool({"ssl", "dsn", "direct_tls"} & arguments.keys() or environ.get("PGSSLMODE"))


def verifying(authorities: str | None = None) -> ssl.SSLContext:
    """Return a context that verifies certificate and name, against a file of authorities or else the system's.

    Without a file, `PGSSLROOTCERT` and `~/.postgresql/root.crt` are asked first, as libpq does.
    """
    usual = Path("~/.postgresql/root.crt").expanduser()
    authorities = authorities or os.environ.get("PGSSLROOTCERT") or (str(usual) if usual.is_file() else None)
    context = ssl.create_default_context(cafile=None if authorities == "system" else authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # new in 3.13: refuses authorities that libpq and 3.12 accept
    return context


def refused(error: BaseException) -> ConfigurationError | None:
    """Return the error for a connection that TLS kept from being made, with what to write; None for another reason."""
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the database's certificate was not accepted: {cause.verify_message or 'it could not be verified'}.",
                why="Without a known authority nobody can tell the database from somebody in between.",
                do=[_AUTHORITY, _NO_VERIFICATION],
                page=_PAGE,
            )
        if isinstance(cause, ConnectionError) and "rejected SSL upgrade" in str(cause):
            return ConfigurationError(
                "the database does not offer TLS, and over a network it is asked for by default.",
                why="Without it the data and the password's proof go over the network for everybody to read.",
                do=["Turn it on at the server:   ssl = on", _NO_TLS],
                page=_PAGE,
            )
    return None


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__

"""Request bodies that a repeated request reads again: kept, rewound, or refused with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


async def keep(request: Request, most: int) -> str | None:
    """Read a body of at most so many bytes into memory, where it can be read again; else return why not.

    Forms are not kept: what was parsed is there for the next attempt, and uploaded files can be rewound.
    """
    if _is_form(request):
        return None
    length = request.headers.get("content-length")
    if length is None and ("transfer-encoding" in request.headers or not _ends_with_headers(request)):
        return "its body is a stream of unknown length"
    if int(length or 0) > most:
        return f"its body of {length} bytes is larger than max_body={most}"
    await request.body()  # whoever reads it again, as a stream too, gets what is kept
    return None


async def rewind(request: Request) -> str | None:
    """Set the files of a form back to their beginning; return why not, if the endpoint has used them up."""
    if not _is_form(request):
        return None
    try:
        form = await request.form()
        for _, part in form.multi_items():
            if not isinstance(part, str):
                await part.seek(0)
    except RuntimeError:
        return "the endpoint read the stream of its form itself"
    except ValueError:
        return "the endpoint closed its uploaded files"
    return None


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith(_FORMS)


def _ends_with_headers(request: Request) -> bool:
    """Tell whether a request without a length has no body: so HTTP/1 has it, later versions leave it open."""
    return request.scope.get("http_version", "1.1").startswith("1") or request.method in {"GET", "HEAD", "OPTIONS"}

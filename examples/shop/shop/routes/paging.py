"""Keyset paging: a page says where the next one starts, and finding it costs the same on page 1 and page 1,000."""

from typing import Annotated

from fastapi import Depends, Query, Request, Response


class Page:
    """The window a list route was asked for; `after` is the id that ended the page before."""

    def __init__(
        self,
        request: Request,
        response: Response,
        after: Annotated[int | None, Query(ge=0)] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> None:
        self.after = after
        self.limit = limit
        self._request = request
        self._response = response

    def follow(self, ids: list[int]) -> None:
        """Link to the next page (RFC 8288) when this one is full."""
        if len(ids) == self.limit:
            following = self._request.url.include_query_params(after=ids[-1])
            self._response.headers["Link"] = f'<{following}>; rel="next"'


PageDep = Annotated[Page, Depends()]

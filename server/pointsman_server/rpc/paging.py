"""Page tokens: opaque to callers, they hold what the page before ended with."""

from __future__ import annotations

import base64

from pointsman_server.domain.errors import FieldProblem, InvalidRequest

DEFAULT_PAGE_SIZE = 100


def write_token(kind: str, last: str) -> str:
    """The token for the page after this; `kind` names what is listed."""
    return base64.urlsafe_b64encode(f"{kind}-after:{last}".encode()).decode()


def read_token(kind: str, token: str) -> str:
    """What the page before ended with, "" for the first page. Raises `InvalidRequest`."""
    if not token:
        return ""
    beginning = f"{kind}-after:"
    try:
        read = base64.b64decode(token, altchars=b"-_", validate=True).decode()
        if read.startswith(beginning):
            return read.removeprefix(beginning)
    except ValueError:  # not base64, or not UTF-8
        pass
    raise bad_token()


def bad_token() -> InvalidRequest:
    """A page token that this server has not given for this list."""
    problem = FieldProblem("page_token", "must be next_page_token of the page before, or empty for the first page")
    return InvalidRequest((problem,))

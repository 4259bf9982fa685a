"""AdminService of a running server, for the commands of operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from pointsman_client import error_from_rpc
from pointsman_server.cli.calling import connected
from pointsman_server.cli.server_option import Server


def all_pages(ask: Callable[[str], Any]) -> Iterator[Any]:
    """All pages of a list; `ask` gets the page of a token, "" for the first."""
    token = ""
    while True:
        page = ask(token)
        yield page
        token = page.next_page_token
        if not token:
            return


@contextmanager
def operating(server: Server) -> Iterator[Any]:
    """The stub of AdminService; its errors leave as `CallFailedError`."""
    with connected(server) as client:
        try:
            yield client.admin
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error

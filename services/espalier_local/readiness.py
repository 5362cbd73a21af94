"""Is a server there: by its port, or by the API server's own word. Standard library only, for the supervisor's sake."""

from __future__ import annotations

import http.client
import socket
import ssl
from http import HTTPStatus


def accepts(host: str, port: int) -> bool:
    """Whether somebody takes connections."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((host, port)) == 0


def is_ready(address: str, port: int, authority: str) -> bool:
    """One look at `/readyz`, which the server answers to anybody. Only the cluster's own authority is trusted."""
    context = ssl.create_default_context(cafile=authority)
    connection = http.client.HTTPSConnection(address, port, timeout=2, context=context)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

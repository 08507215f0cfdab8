"""An HTTP server in a thread of its own: the gateway that serves files, the desk of a pool's leader."""

from __future__ import annotations

import socket
import threading
import time
from typing import Final

import uvicorn
from fastapi import FastAPI

from protocol.errors import ProtocolError

START_TIMEOUT_S: Final = 10.0
MAX_CONNECTIONS: Final = 256


class CannotServe(ProtocolError):
    """A server that cannot serve as configured."""


class HttpServer:
    """Serves one application."""

    def __init__(self, app: FastAPI, name: str, host: str = "127.0.0.1", port: int = 0) -> None:
        """Bind at once, so that `url` is known; port 0 takes a free one.

        Raises:
            CannotServe: the address is taken.
        """
        self._name = name
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            # At once: until one of them listens, two processes may bind the same address.
            self._socket.listen()
        except OSError as reason:
            self._socket.close()
            raise CannotServe(
                f"cannot serve on {host}:{port}: {reason.strerror}; choose another port"
            ) from reason
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            # Its own configuration would close everybody's handlers, and write lines in a form of its own.
            log_config=None,
            log_level="warning",
            access_log=False,
            limit_concurrency=MAX_CONNECTIONS,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Serve until `stop`.

        Raises:
            CannotServe: it does not start in time.
        """
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise CannotServe(f"the {self._name} at {self.url} did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop serving; returns when the thread is gone."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._socket.close()

"""``nases watch``: show the report on a running search in a browser, and update it."""

from __future__ import annotations

import socketserver
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import tyro

from nases_env.command_line import parse
from nases_env.errors import InputError, one_line
from nases_env.escaping import printable
from nases_env.hashing import sha256_hex
from nases_env.report import render
from nases_env.search.run_dir import CONFIG, FINALISTS, TRAJECTORY, is_locked
from nases_env.search.run_report import read_run

HOST = "127.0.0.1"
MAX_PORT = 65535
MIN_SECONDS, MAX_SHARE = 1.0, 0.1  # between two updates of the page, and of the time that they may take


@dataclass(frozen=True)
class WatchArgs:
    """Show the report on a search in a browser on this machine, and update it while the search runs. Ctrl-C ends it."""

    run_dir: tyro.conf.Positional[Path] = field(metadata={"help": "The run directory of a search."})
    port: int = field(default=8265, metadata={"help": "Port of the server; 0 selects a free one."})


ARGS = WatchArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases watch``."""
    watch_command(parse(WatchArgs, prog="nases watch", args=options))


def watch_command(args: WatchArgs) -> None:
    """Run ``nases watch``.

    Raises:
        InputError: if ``run_dir`` cannot be read, or the port cannot be used.
    """
    with ReportServer(args.run_dir, args.port) as server:
        try:
            print(f"watching {printable(args.run_dir)} at {server.url} (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            return


class LivePage:
    """The page on a search. It is rendered again after the files of the search have changed, at a limited rate.

    Args:
        run_dir: the run directory.

    Raises:
        InputError: if it cannot be read.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lock = threading.Lock()
        self._render(self._find_version())
        self._next_update = time.monotonic() + MIN_SECONDS  # the time of the first page includes imports

    def current(self) -> tuple[str, str]:
        """Return the version of the page and the page. It remains the last one while the files cannot be read."""
        with self._lock:
            if time.monotonic() >= self._next_update:
                try:
                    version = self._find_version()
                    if version != self._version:
                        self._render(version)
                except InputError as error:
                    self._next_update = time.monotonic() + MIN_SECONDS
                    print(f"the page was not updated: {one_line(error)}", file=sys.stderr)
            return self._version, self._page

    def _render(self, version: str) -> None:
        started = time.monotonic()
        self._page = render([read_run(self._run_dir)], version=version)
        self._version = version
        ended = time.monotonic()
        self._next_update = ended + max(MIN_SECONDS, (ended - started) / MAX_SHARE)

    def _find_version(self) -> str:
        """Return a text that changes with the files of the search and its state."""
        parts = [str(is_locked(self._run_dir))]
        for name in (TRAJECTORY, CONFIG, FINALISTS):
            try:
                status = (self._run_dir / name).stat()
            except OSError:  # there are no finalists yet
                continue
            parts.append(f"{name} {status.st_size} {status.st_mtime_ns}")
        return sha256_hex("\n".join(parts))


class ReportServer(ThreadingHTTPServer):
    """Serves the page on a search to browsers on this machine.

    Args:
        run_dir: the run directory.
        port: the port; 0 selects a free one.

    Attributes:
        page: the page.
        url: its address.

    Raises:
        InputError: if the run directory cannot be read, or the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, run_dir: Path, port: int) -> None:
        if not 0 <= port <= MAX_PORT:
            raise InputError(f"--port must be between 0 and {MAX_PORT}, not {port}")
        self.page = LivePage(run_dir)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(
                f"cannot use port {port} ({error.strerror}); pass another --port, or 0 for a free one"
            ) from None
        self.url = f"http://{HOST}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Bind the port without the DNS query of ``HTTPServer``, which can take long without a network."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that closed its connection."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer

    def do_GET(self) -> None:
        # Reject other host names: a web site could let its name resolve to this machine to read the page (DNS rebinding).
        # The port may differ, as through an SSH tunnel.
        if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        version, page = self.server.page.current()
        path = self.path.partition("?")[0]
        if path == "/":
            self._send(page, "text/html; charset=utf-8")
        elif path == "/version":
            self._send(version, "text/plain; charset=utf-8")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, text: str, content_type: str) -> None:
        content = text.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing for a request."""

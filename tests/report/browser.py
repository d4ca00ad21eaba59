"""A headless Chromium that shows a page in a frame of a given width and evaluates JavaScript in it."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

WRAPPER = """<!DOCTYPE html><meta charset="utf-8"><body>
<iframe id="frame" style="width:{width}px;height:800px;border:0" {source}></iframe><script>
const frame = document.getElementById("frame");
const wait = (condition) => new Promise((done) => {{
  const check = () => (condition() ? done() : setTimeout(check, 50));
  check();
}});
frame.addEventListener("load", async () => {{
  const page = frame.contentDocument;
  const update = async () => {{
    const index = await (await fetch("/next")).text();
    await wait(() => page.body.dataset.version === index);
  }};
  let result;
  try {{ result = await (async () => {{ {code} }})(); }} catch (error) {{ result = String(error); }}
  document.documentElement.textContent = "RESULT" + JSON.stringify(result) + "END";
}});
</script>"""


def _shown(url: str, folder: Path, *options: str) -> Any:
    """Return the result that the document at ``url`` writes into itself."""
    assert CHROMIUM is not None
    fixed = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile", "--window-size=1500,900")
    command = (CHROMIUM, *fixed, *options, "--dump-dom", url)
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(html.unescape(shown.partition("RESULT")[2].rpartition("END")[0]))


def evaluate(page: str, code: str, folder: Path, *, width: int = 1400) -> Any:
    """Return what the function body ``code`` returns; ``page`` is the document there, and ``frame`` its frame."""
    path = folder / "wrapper.html"
    path.write_text(WRAPPER.format(width=width, source=f'srcdoc="{html.escape(page)}"', code=code))
    return _shown(path.as_uri(), folder, "--virtual-time-budget=3000")


class _Pages(ThreadingHTTPServer):
    """Serves versions of a page, as ``nases watch`` does; ``next`` changes to the next one."""

    daemon_threads = True

    def __init__(self, pages: Sequence[str], code: str, width: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages, self.index = pages, 0
        self.wrapper = WRAPPER.format(width=width, source='src="/"', code=code)


class _Handler(BaseHTTPRequestHandler):
    server: _Pages

    def do_GET(self) -> None:
        self.server.index += self.path == "/next"
        index = self.server.index
        content = {"/": self.server.pages[index], "/test": self.server.wrapper}.get(self.path, str(index)).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain" if self.path == "/version" else "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing for a request."""


def evaluate_updates(pages: Sequence[str], code: str, folder: Path, *, width: int = 1400) -> Any:
    """Return what ``code`` returns, as ``evaluate`` does, for a page whose versions "0", "1", ... are ``pages``.

    ``await update()`` in ``code`` changes to the next version and waits until the page shows it.
    """
    with _Pages(pages, code, width) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            return _shown(f"http://127.0.0.1:{server.server_address[1]}/test", folder, "--virtual-time-budget=30000")
        finally:
            server.shutdown()
            thread.join()

"""A headless Chromium that shows a page in a frame of a given width and evaluates JavaScript in it."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

WRAPPER = """<!DOCTYPE html><meta charset="utf-8"><body>
<iframe id="frame" style="width:{width}px;height:800px;border:0" srcdoc="{page}"></iframe><script>
const frame = document.getElementById("frame");
frame.addEventListener("load", () => {{
  const page = frame.contentDocument;
  let result;
  try {{ result = (() => {{ {code} }})(); }} catch (error) {{ result = String(error); }}
  document.documentElement.textContent = "RESULT" + JSON.stringify(result) + "END";
}});
</script>"""


def evaluate(page: str, code: str, folder: Path, *, width: int = 1400) -> Any:
    """Return what the function body ``code`` returns; ``page`` is the document there, and ``frame`` its frame."""
    assert CHROMIUM is not None
    path = folder / "wrapper.html"
    path.write_text(WRAPPER.format(width=width, page=html.escape(page), code=code))
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=3000",
        f"--user-data-dir={folder}/profile",
    )
    command = (CHROMIUM, *options, "--window-size=1500,900", "--dump-dom", path.as_uri())
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(html.unescape(shown.partition("RESULT")[2].rpartition("END")[0]))

"""A page of ours opened in a real browser, without one's eyes."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def probed(page: str, probe: str, folder: Path) -> Any:
    """What `probe`, a script that ends by leaving JSON in the attribute `data-probe` of the body, saw of the page."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in names if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium here: the scripts of a page are checked only where there is one")
    file = folder / "probe.html"
    file.write_text(page.replace("</body>", probe + "</body>"), encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=60000", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    match = re.search(r'data-probe="([^"]*)"', dom)
    assert match, "the page's script did not come to its end"
    return json.loads(html.unescape(match[1]))

"""A real browser that looks at pages, where there is one."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DARK = ("--blink-settings=preferredColorScheme=0", "--force-dark-mode")
OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --enable-logging=stderr --v=0"
    " --virtual-time-budget=2000"
)


def browse(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess:
    """What the browser says and shows of a page of this text, written into `folder`."""
    if PROGRAM is None:
        pytest.skip("no Chromium here (chromium, google-chrome): the page isn't looked at")
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    command = [PROGRAM, *OPTIONS.split(), f"--user-data-dir={folder}/profile", *options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)

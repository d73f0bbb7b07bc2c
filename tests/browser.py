"""A real browser that looks at pages, where there is one."""

import html
import re
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
# A window has a least width, 500 px or so, whatever is asked for; a frame in it is as narrow as a phone.
FRAME = """<!doctype html><meta charset="utf-8"><title></title>
<style>:root {{ color-scheme: light dark; }} body {{ margin: 0; }}
iframe {{ display: block; border: 0; width: {width}px; height: {height}px; }}</style>
<iframe srcdoc="{text}" onload="document.title = this.contentDocument.title"></iframe>"""


def browse(
    folder: Path, text: str, *options: str, width: int = 1280, height: int = 900
) -> subprocess.CompletedProcess:
    """What the browser says and shows of a page of this text, in so many px; `folder` keeps its files."""
    if PROGRAM is None:
        pytest.skip("no Chromium here (chromium, google-chrome): the page isn't looked at")
    path = folder / "page.html"
    path.write_text(FRAME.format(width=width, height=height, text=html.escape(text)), encoding="utf-8")
    command = [
        PROGRAM,
        *OPTIONS.split(),
        f"--user-data-dir={folder}/profile",
        f"--window-size={width},{height}",
    ]
    command += [*options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def title(folder: Path, text: str, *options: str, width: int) -> str:
    """The title that a page of this text has in the end: what its scripts wrote there."""
    shown = browse(folder, text, "--dump-dom", *options, width=width)
    found = re.search("<title>(.*?)</title>", shown.stdout)
    assert found and "CONSOLE" not in shown.stderr, shown.stderr[-500:]
    return html.unescape(found[1])

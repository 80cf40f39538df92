"""Headless Chromium, where the machine has one: a page opened from disk, and what it says about itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell")
DIALOG = "data-probe"
BROWSERS_OWN = ("google", "gvt1.com")  # what the browser itself asks for when it starts


def find_browser() -> str:
    """The browser's path; the test is skipped, saying so, where there is none (SSTOKEN_CHROMIUM may name one)."""
    found = os.environ.get("SSTOKEN_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip(f"no Chromium here ({', '.join(NAMES)}, or SSTOKEN_CHROMIUM): the page is not opened")
    return found


def browse(
    page: Path, folder: Path, probe: str, *, width: int = 1280, dark: bool = False, scripts: bool = True
) -> dict:
    """Open ``page`` in a frame of ``width`` pixels and run ``probe`` within it.

    probe: the body of a JavaScript function that returns what is wanted; it may ``await``.

    Returns:
        {"value": what the probe returned, "console": lines on the page's console, "requests": addresses other than the
        page's own files that were asked for, "dark": whether the page thinks that it is in the dark}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = page.read_text()
    code = (
        f"<script>addEventListener('load', async () => {{ let value; try {{ value = await (async () => {{ {probe} }})() }} "
        "catch (error) { value = 'failed: ' + error } "
        "parent.postMessage(JSON.stringify({value, dark: matchMedia('(prefers-color-scheme: dark)').matches}), '*') })</script>"
    )
    (folder / "probed.html").write_text(text.replace("</body>", f"{code}</body>"))
    sandbox = "" if scripts else ' sandbox=""'
    (folder / "frame.html").write_text(
        f"<body><iframe src='probed.html' width='{width}' height='900'{sandbox}></iframe><script>"
        f"addEventListener('message', (event) => document.body.setAttribute('{DIALOG}', event.data))</script>"
    )
    net_log = folder / "net.json"
    command = [
        find_browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--enable-logging=stderr",
        "--disable-component-update", "--disable-background-networking", "--no-first-run", "--virtual-time-budget=10000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={net_log}", (folder / "frame.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    value = done.stdout.partition(f'{DIALOG}="')[2].partition('"')[0].replace("&quot;", '"').replace("&amp;", "&")
    found = json.loads(value) if value else {"value": None, "dark": None}
    return found | {"console": console, "requests": _requests(net_log)}


def _requests(net_log: Path) -> list[str]:
    """Addresses of the network log, but for the browser's own errands."""
    events = json.loads(net_log.read_text())["events"]
    asked = {e["params"]["url"] for e in events if "url" in e.get("params", {})}
    return sorted(
        u
        for u in asked
        if u.startswith(("http:", "https:", "ws:", "wss:")) and not any(host in u for host in BROWSERS_OWN)
    )

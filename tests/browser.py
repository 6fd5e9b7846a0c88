"""A real JupyterLab in a real browser, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from cloudlab.tools import Deadline

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip

#: Milliseconds that anything on a page may take, on a busy machine; no pass condition.
PATIENCE_MS = 300_000

expect.set_options(timeout=PATIENCE_MS)

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"


@contextlib.contextmanager
def jupyterlab(folder: Path, **env: str) -> Iterator[str]:
    """Run JupyterLab on ``folder``; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    argv = [
        sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser",
        f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    home = {
        "JUPYTER_CONFIG_DIR": str(folder / ".config"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces"),
    }
    set_up(folder, dark=False)
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(argv, env={**os.environ, **home, **env}, stdout=log, stderr=log)
    try:
        wait_for(f"{base}/api", server)
        yield base
    finally:
        end(server)


def end(server: subprocess.Popen[bytes]) -> None:
    """End JupyterLab and its kernels.

    A server that is to end while it restarts a kernel fails at that, and stays.
    """
    children = psutil.Process(server.pid).children(recursive=True)
    server.terminate()
    try:
        server.wait(timeout=60)
    except subprocess.TimeoutExpired:
        for process in (*children, server):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.wait()


def set_up(folder: Path, *, dark: bool) -> None:
    """Choose JupyterLab's theme, keep its news off the page, and all cells on it."""
    chosen = {
        "apputils-extension/themes": {"theme": _theme(dark=dark)},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, values in chosen.items():
        path = folder / ".settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def _theme(*, dark: bool) -> str:
    return "JupyterLab Dark" if dark else "JupyterLab Light"


def change_theme(page: Page, *, dark: bool) -> None:
    """Change the theme of a page that is open."""
    command(page, "apputils:change-theme", theme=_theme(dark=dark))
    light = json.dumps(not dark)
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", light)


def command(page: Page, name: str, **args: str) -> None:
    """Carry out one of JupyterLab's commands, as its menu would."""
    page.evaluate("([name, args]) => { jupyterapp.commands.execute(name, args) }", [name, args])


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers."""
    deadline = Deadline.after(PATIENCE_MS / 1000)
    while not deadline.expired:
        assert server.poll() is None, "JupyterLab ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=deadline.left_s):
            return
        time.sleep(0.1)
    raise TimeoutError(url)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run the system's Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def write_notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python"
    }  # fmt: skip
    nbformat.write(notebook, path)


def open_notebook(browser: BrowserContext, base: str, name: str, *, width: int = 1280) -> Page:
    """Open a notebook and wait for its kernel."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(f"{base}/lab/tree/{name}?reset")
    wait_for_kernel(page)
    return page


def wait_for_kernel(page: Page) -> None:
    """Wait until the notebook's kernel waits for work."""
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    expect(page.locator("#jp-bottom-panel")).to_contain_text("| Idle")


def run_cell(page: Page, number: int) -> Locator:
    """Run a cell, wait for its end, and return it."""
    cell = page.locator(".jp-Notebook .jp-Cell").nth(number)
    prompt = cell.locator(".jp-InputArea-prompt")
    before = prompt.inner_text()
    for _ in range(60):
        # JupyterLab drops what is run before its kernel has connected.
        if prompt.inner_text() in {before, "[ ]:"}:
            cell.locator(".cm-content").click()
            page.keyboard.press("Control+Enter")
        with contextlib.suppress(AssertionError):
            expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=4_000)
            expect(prompt).not_to_have_text(before, timeout=4_000)
            return cell
    raise AssertionError(f"cell {number} did not run: {prompt.inner_text()}")


def run_all(page: Page) -> None:
    """Run every cell of the notebook and wait for the end of the last one."""
    prompts = page.locator(".jp-CodeCell .jp-InputArea-prompt")
    command(page, "notebook:run-all-cells")
    expect(prompts.last).to_have_text(re.compile(r"\[\d+\]:"))
    expect(prompts.filter(has_text="*")).to_have_count(0)


def photograph(page: Page, name: str) -> None:
    """Take the whole notebook, in each theme and at each width once."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for width, theme in ((1280, "light"), (800, "dark")):
        change_theme(page, dark=theme == "dark")
        # Low first, then as high as the notebook has become.
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(300)
        notebook = page.locator(".jp-WindowedPanel-outer").first
        height = notebook.evaluate("node => node.scrollHeight")
        page.set_viewport_size({"width": width, "height": min(int(height) + 160, 16_000)})
        notebook.evaluate("node => node.scrollTo(0, 0)")
        page.wait_for_timeout(300)
        page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{theme}.png")

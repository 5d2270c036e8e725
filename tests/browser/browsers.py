"""A real browser for tests of pages, with the network cut off."""

import shutil
from contextlib import contextmanager

from playwright.sync_api import sync_playwright

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def browser():
    """Run Chromium without a window."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=PROGRAM, args=QUIET)
        yield running
        running.close()


@contextmanager
def opened(running, path):
    """Open a file; at the end it must have complained of nothing, nor asked for anything else."""
    page = running.new_page(viewport={"width": 1360, "height": 900})
    complaints, asked = [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )

    def refuse(route):
        asked.append(route.request.url)
        route.abort()

    page.route(lambda url: not url.startswith(("file:", "data:", "blob:")), refuse)
    page.goto(path.absolute().as_uri())
    yield page
    page.close()
    assert complaints == []
    assert asked == []

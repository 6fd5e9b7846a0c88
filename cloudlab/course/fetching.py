"""Fetching an image in a notebook, with a bar that moves."""

from __future__ import annotations

import html
from typing import Any

from cloudlab.console import printable
from cloudlab.html import Page
from cloudlab.image.cache import Image
from cloudlab.image.fetch import fetch as fetch_image
from cloudlab.image.web import FetchProgress


class FetchView:
    """Shows a download in the cell that waits for it: a bar, the rate and the time left."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, news: FetchProgress) -> None:
        """Show how far a download is; nothing appears for an image that is in the cache."""
        self._show(_page(news))

    def end(self, line: str) -> None:
        """Leave one line where the bar was, if there was one."""
        if self._handle is not None:
            self._show(Page(line))

    def _show(self, page: Page) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(page, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(page)


def _page(news: FetchProgress) -> Page:
    text = printable(f"{news.name}: {news.words()}")
    # Without a length, a bar that has no value shows that something is going on.
    value = f' value="{news.done_bytes}" max="{news.total_bytes}"' if news.total_bytes else ""
    said = html.escape(text)
    bar = f'<progress aria-label="{said}" style="width: 20em"{value}></progress>'
    return Page(text, f'<p style="font-family: monospace">{bar}<br>{said}</p>')


def fetch(name_or_url: str, *, mirror: str | None = None, refresh: bool = False) -> Image:
    """Return an image from the cache, or fetch it, showing the progress below the cell.

    Parameters
    ----------
    name_or_url : str
        A name that ``cloudlab images`` lists or the mirror holds, or a URL.
    mirror : str, optional
        A classroom's ``cloudlab share``; default: the variable ``CLOUDLAB_MIRROR``.
    refresh : bool
        Whether to look for a newer one although one is cached.

    Raises
    ------
    CloudlabError
        As :func:`cloudlab.image.fetch.fetch`; after the Interrupt button the same call goes
        on where this one was.
    """
    view = FetchView()
    outcome = "not fetched"
    try:
        image = fetch_image(name_or_url, mirror=mirror, refresh=refresh, progress=view)
        outcome = f"{image.trust}, SHA-256 {image.sha256}"
    finally:
        view.end(printable(f"{name_or_url}: {outcome}"))
    return image

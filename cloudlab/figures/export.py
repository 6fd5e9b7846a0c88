"""Figures as files and as HTML, with title and alternative text in each."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab.errors import CloudlabError, UsageError
from cloudlab.figures.style import CJK_FAMILIES, families, look, quiet
from cloudlab.paths import whole_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOG = logging.getLogger("cloudlab.figures")

FORMATS = ("png", "svg", "pdf")


def save_figure(
    figure: Figure | Axes, path: str | Path, *, title: str, alt: str, dpi: float | None = None
) -> Path:
    """Write a figure as PNG, SVG or PDF, by the path's ending; return the path.

    The same figure gives the same bytes.  SVG carries title and description as ``<title>``
    and ``<desc>``, PNG and PDF as metadata.

    Parameters
    ----------
    figure : Figure or Axes
    path : str or Path
        Ending in ``.png``, ``.svg`` or ``.pdf``; replaced as a whole.
    title, alt : str
        What it is, and its numbers in words.
    dpi : float, optional
        Pixels per inch of a PNG; None takes the figure's.

    Raises
    ------
    UsageError
        For another ending.
    CloudlabError
        If the file cannot be written.
    """
    path = Path(path)
    data = figure_bytes(figure, path.suffix.removeprefix("."), title=title, alt=alt, dpi=dpi)
    return _write(path, data)


def save_data(data: pd.DataFrame, path: str | Path) -> Path:
    """Write the table behind a figure as CSV (UTF-8, a header line); return the path."""
    return _write(Path(path), data.to_csv(index=False, lineterminator="\n").encode())


def to_html(
    figure: Figure | Axes, *, title: str, alt: str, caption: str | None = None, form: str = "svg"
) -> str:
    """Return ``<figure><img alt=...><figcaption>`` with the picture inside it.

    Parameters
    ----------
    figure : Figure or Axes
    title, alt : str
        What it is, and its numbers in words.
    caption : str, optional
        The text below; None takes the title, an empty one leaves it out.
    form : str
        ``svg`` or ``png``.
    """
    if form not in ("svg", "png"):
        raise UsageError(f"A page shows figures as svg or png, not as {form!r}.")
    data = base64.b64encode(figure_bytes(figure, form, title=title, alt=alt)).decode()
    kind = {"svg": "image/svg+xml", "png": "image/png"}[form]
    caption = title if caption is None else caption
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><img alt="{html.escape(alt)}" src="data:{kind};base64,{data}" '
        f'style="max-width: 100%; height: auto">{below}</figure>'
    )


def figure_bytes(
    figure: Figure | Axes, form: str, *, title: str, alt: str, dpi: float | None = None
) -> bytes:
    """Return a figure as the bytes of a ``png``, ``svg`` or ``pdf`` file.

    Raises
    ------
    UsageError
        For another format.
    """
    if form not in FORMATS:
        raise UsageError(
            f"A figure cannot be written as {form or 'a file without an ending'!r}.",
            hint=f"Choose a file name ending in {', '.join('.' + name for name in FORMATS)}.",
        )
    described: dict[str, dict[str, Any]] = {
        "png": {"Title": title, "Description": alt, "Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"Title": title, "Subject": alt, "CreationDate": None},
    }
    import matplotlib as mpl

    drawn = figure.get_figure(root=True) or figure
    _tell_missing_glyphs(drawn)
    buffer = io.BytesIO()
    fixed: Any = {"svg.hashsalt": "cloudlab", "svg.fonttype": "path", "pdf.fonttype": 42}
    with look(), quiet(), mpl.rc_context(fixed):
        drawn.savefig(  # type: ignore[union-attr]
            buffer, format=form, dpi=dpi or "figure", bbox_inches=None, metadata=described[form]
        )
    data = buffer.getvalue()
    return _describe_svg(data.decode(), title, alt).encode() if form == "svg" else data


def _describe_svg(text: str, title: str, alt: str) -> str:
    # Pages may hold several such pictures, whose ids must differ.
    name = "cloudlab-" + hashlib.sha256(f"{title}\0{alt}".encode()).hexdigest()[:12]
    root = re.search(r"<svg\b[^>]*", text)
    assert root is not None, "matplotlib wrote an SVG without a root"
    head = f'{root[0]} role="img" aria-labelledby="{name}-title {name}-desc">'
    told = (
        f'\n <title id="{name}-title">{html.escape(title)}</title>'
        f'\n <desc id="{name}-desc">{html.escape(alt)}</desc>'
    )
    return text[: root.start()] + head + told + text[root.end() + 1 :]


def _tell_missing_glyphs(figure: Any) -> None:
    """Log once for a figure which characters no installed font can draw."""
    from matplotlib import font_manager, get_cachedir, text

    used = {c for found in figure.findobj(text.Text) for c in found.get_text() if not c.isspace()}
    for family in families("".join(used)):
        path = font_manager.findfont(font_manager.FontProperties(family=[family]))
        used -= {chr(code) for code in font_manager.get_font(path).get_charmap()}
    if used:
        _LOG.warning(
            "No installed font has the characters %s; they are drawn as boxes. "
            "Install a font such as %s (Debian: fonts-noto-cjk), then delete %s/fontlist-*.json.",
            "".join(sorted(used)), CJK_FAMILIES[0], get_cachedir(),
        )  # fmt: skip


def _write(path: Path, data: bytes) -> Path:
    try:
        with whole_file(path) as part:
            part.write_bytes(data)
    except OSError as error:
        raise CloudlabError(
            f"The file {path} could not be written: {error.strerror}.",
            hint="Choose a file in a folder that exists and that you may write to.",
        ) from error
    return path

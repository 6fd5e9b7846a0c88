"""Every picture, from tables alone.

``plot(kind, tables)`` draws one of :data:`KINDS` and returns a :class:`Plot`, which knows its
title, its alternative text and its data, and saves itself::

    plot("disk-map", {"sizes": sizes}, style="dark").save("disk-map.svg")

One layer for each concern: ``data`` turns tables into the table behind a figure, ``words`` writes
its text, ``charts`` and ``disks`` draw it on a ``canvas`` in a style.

Importing this costs nothing: pandas and matplotlib come with the first use.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib
import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab.errors import CloudlabError, UsageError, suggest
from cloudlab.paths import os_errors_as, write_whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["KINDS", "Kind", "Plot", "plot"]

# A caption counts more runs than these.
_MOST_NAMED = 4


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    ``title`` says what it shows, for lists and captions; ``tables`` are those that it is made
    from, ``one_run`` whether of one run only.  Its functions are ``NAME_data(*tables)`` in
    ``data``, ``NAME_words(data, given)`` in ``words``, and ``draw_NAME(canvas, data, given)`` in
    the module ``drawing``.
    """

    name: str
    title: str
    tables: tuple[str, ...]
    one_run: bool
    drawing: str = "charts"

    def data(self, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """Return the numbers behind the figure, without drawing it."""
        missing = [name for name in self.tables if name not in tables]
        if missing:
            raise UsageError(
                f"The figure {self.name} needs the table {missing[0]!r}.",
                hint=f"It is made from: {', '.join(self.tables)}.",
            )
        found: pd.DataFrame = self.load("data", "{}_data")(*map(tables.get, self.tables))
        return found

    def load(self, module: str, form: str) -> Any:
        """Return a function of this kind from a module of this package."""
        functions = importlib.import_module(f"cloudlab.figures.{module}")
        return getattr(functions, form.format(self.name.replace("-", "_")))


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("layers", "Sizes, layer by layer", ("sizes",), True),
        Kind("disk-map", "The disk before and after", ("sizes",), True, "disks"),
        Kind("scenarios", "Partition and filesystem by run", ("sizes",), False),
        Kind("timeline", "Growth over time", ("sizes", "stages"), True),
        Kind("overlay-map", "What the boot wrote", ("extents", "partitions"), True, "disks"),
        Kind("prediction", "Prediction and measurement", ("predictions",), False),
        Kind("stages", "Where the time went", ("stages",), False),
        Kind("growth", "Sizes by the disk's size", ("sizes", "options"), False),
        Kind("matrix", "What grew, by setting and disk", ("sizes", "options"), False),
    )
}


def find_kind(name: str) -> Kind:
    """Return a kind of figure by its name; raise :class:`UsageError` if there is none."""
    return KINDS[_known("kind of figure", name, KINDS)]


def _known(what: str, value: str, known: Collection[str]) -> str:
    if not isinstance(value, str) or value not in known:
        hint = f"{suggest(value, known)} Choose from: {', '.join(known)}.".strip()
        raise UsageError(f"There is no {what} {value!r:.80}.", hint=hint)
    return value


def plot(
    kind: str,
    tables: Mapping[str, pd.DataFrame],
    ax: Axes | None = None,
    *,
    size: str = "screen",
    style: str = "light",
    title: bool | str = True,
    names: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    state: str | None = None,
) -> Plot:
    """Draw a figure.

    Parameters
    ----------
    kind : str
        A key of :data:`KINDS`.
    tables : mapping
        Name -> DataFrame, of which a kind needs its own.  ``sizes``: the columns of
        :data:`cloudlab.sizes.SIZES_COLUMNS`; ``stages``: run, scenario, stage, start_s,
        end_s; ``options``: run, disk_size_bytes and texts; ``extents``: run, start_bytes,
        length_bytes, kind, region; ``partitions``: run, device, start_bytes, size_bytes;
        ``predictions``: scenario, layer, predicted_bytes, measured_bytes, perhaps run.
    ax : Axes, optional
        Draw inside the place of this Axes instead of in a new figure.
    size : str
        ``screen`` (800 pixels wide), ``slide`` (1600 x 900) or ``page`` (half a page's width).
    style : str
        ``light``, ``dark`` or ``print`` (grey, with patterns).
    title : bool or str
        Whether the finding stands above the plot, or other words for it.
    names, settings : mapping, optional
        Run -> its scenario in words, and a short YAML text to print below that.
    state : str, optional
        The heading of a disk map with a single state, such as of a disk that was not booted.

    Raises
    ------
    UsageError
        For an unknown kind, size or style, an ``ax`` that is none, and several runs in a figure of
        one.
    CloudlabError
        If the tables lack what the figure needs.
    """
    from cloudlab.figures.canvas import SIZES, STYLES, draw_to_fit
    from cloudlab.figures.words import Given

    found = find_kind(kind)
    if ax is not None and not hasattr(ax, "get_figure"):
        raise UsageError(
            f"{ax!r:.80} is not an Axes.", hint='Give options by name, such as style="dark".'
        )
    size, style = _known("size", size, SIZES), _known("style", style, STYLES)
    data = found.data(tables)
    given = Given(tables, names or {}, settings or {}, state)
    found_title, alt = found.load("words", "{}_words")(data, given)
    runs = given.run_names(tables[found.tables[0]])
    name = next(iter(runs.values())) if len(runs) == 1 else ""
    finding = title if isinstance(title, str) else found_title
    head = (name, given.setting(*runs)) if name and found.one_run else ("", "")
    shown = (finding, *head) if title else ("", "", "")
    draw = found.load(found.drawing, "draw_{}")
    axes = draw_to_fit(ax, size, style, shown, lambda canvas: draw(canvas, data, given))
    full = finding if isinstance(title, str) or not name else f"{name}: {finding}"
    several = ", ".join(runs.values()) if len(runs) <= _MOST_NAMED else f"{len(runs)} runs"
    caption = f"{found.title}: {several}" if several else found.title
    return Plot(axes, full, alt, data, caption, style)


@dataclass(frozen=True)
class Plot:
    """A figure that was drawn.

    ``title`` says what was found, ``alt`` its numbers in words, for people who do not see it,
    ``data`` is the table behind it, ``caption`` says what it shows and of which runs.
    """

    axes: Axes
    title: str
    alt: str
    data: pd.DataFrame
    caption: str
    style: str

    @property
    def figure(self) -> Figure:
        """The whole figure, which may hold more than this plot."""
        return self.axes.get_figure(root=True)  # type: ignore[return-value]

    def save(self, path: str | Path) -> Path:
        """Write it as PNG (at twice its size), SVG or PDF, by the path's ending; return the path.

        The file is replaced as a whole, and the same figure gives the same bytes.  Text stays
        text in SVG and PDF; title and alternative text are in each: as ``<title>`` and
        ``<desc>`` in SVG, else as metadata.  Raises :class:`UsageError` for another ending,
        :class:`CloudlabError` if the file cannot be written.
        """
        return _write(Path(path), self.to_bytes(Path(path).suffix.removeprefix(".")))

    def save_data(self, path: str | Path) -> Path:
        """Write the table behind it as CSV (UTF-8, a header line); return the path."""
        return _write(Path(path), self.data.to_csv(index=False, lineterminator="\n").encode())

    def to_bytes(self, form: str) -> bytes:
        """Return it as the bytes of a ``png``, ``svg`` or ``pdf`` file."""
        from cloudlab.figures.canvas import STYLES

        described: dict[str, dict[str, Any]] = {
            "png": {"Title": self.title, "Description": self.alt, "Software": None},
            "svg": {"Date": None, "Creator": None},
            "pdf": {"Title": self.title, "Subject": self.alt, "CreationDate": None},
        }
        if form not in described:
            raise UsageError(
                f"A figure cannot be written as {form or 'a file without an ending'!r}.",
                hint=f"Choose a file name ending in {', '.join('.' + name for name in described)}.",
            )
        buffer, dpi = io.BytesIO(), self.figure.dpi * (2 if form == "png" else 1)
        with STYLES[self.style].in_use():
            self.figure.savefig(buffer, format=form, dpi=dpi, metadata=described[form])
        return self._described(buffer.getvalue()) if form == "svg" else buffer.getvalue()

    def _described(self, svg: bytes) -> bytes:
        """Return matplotlib's SVG with title, description, and fonts that viewers have."""
        from cloudlab.figures.canvas import FALLBACKS

        text = svg.decode()
        for font, fonts in FALLBACKS.items():
            text = text.replace(f"font-family: {font}", f"font-family: {fonts}")
        # Pages may hold several such pictures, whose ids must differ.
        name = "cloudlab-" + hashlib.sha256(f"{self.title}\0{self.alt}".encode()).hexdigest()[:12]
        head = f' role="img" aria-labelledby="{name}-title {name}-desc">'
        head += f'\n <title id="{name}-title">{html.escape(self.title)}</title>'
        head += f'\n <desc id="{name}-desc">{html.escape(self.alt)}</desc>'
        return re.sub(r"(<svg\b[^>]*)>", lambda root: root[1] + head, text, count=1).encode()

    def to_html(self) -> str:
        """Return ``<figure><img alt=...><figcaption>`` with the picture inside it, as SVG."""
        data = base64.b64encode(self.to_bytes("svg")).decode()
        width = round(float(self.figure.get_figwidth()) * 96)
        return (
            f'<figure><img alt="{html.escape(self.alt)}" src="data:image/svg+xml;base64,{data}" '
            f'width="{width}" style="max-width: 100%; height: auto">'
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>"
        )

    def _repr_html_(self) -> str:
        return self.to_html()


def _write(path: Path, data: bytes) -> Path:
    hint = "Choose a file in a folder that exists and that you may write to."
    with os_errors_as(CloudlabError, f"The file {path} could not be written", hint=hint):
        write_whole(path, data)
    return path

"""Figure *layers*: from the image file to what is used, on one logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from cloudlab.figures.labels import titled, words
from cloudlab.figures.style import LOOKS, Look
from cloudlab.figures.tables import Run
from cloudlab.units import format_bytes, format_tick, log_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def layers_data(sizes: pd.DataFrame, *, run: str | None = None) -> pd.DataFrame:
    """Return first and last size of each layer of one run.

    Parameters
    ----------
    sizes : DataFrame
        The tidy sizes table.
    run : str, optional
        Which run of it; needed where it holds several.

    Returns
    -------
    DataFrame
        ``layer``, ``device`` (string), ``first_bytes``, ``last_bytes`` (Int64), from the
        image file inwards.  ``virtual_disk`` rows after the first are other disks, ``used``
        is the root filesystem's.  ``image_disk`` takes the place of ``virtual_disk`` where
        only the image's was measured, which the overlay's may exceed.
    """
    one = Run(sizes, run)
    rows: list[tuple[str, str | None, int, int]] = []

    def add(layer: str, device: str | None, ends: tuple[int, int] | None) -> None:
        if ends is not None:
            rows.append((layer, device, *ends))

    add("image_file", None, one.ends("image_file"))
    add("overlay_file", None, one.ends("overlay_file"))
    only_image = (one.of("virtual_disk")["stage"] == "image").all()
    layer = "image_disk" if only_image else "virtual_disk"
    add(layer, one.disk, one.ends("virtual_disk"))
    add("partition", one.root_partition, one.ends("partition"))
    add("filesystem", one.root, one.ends("filesystem"))
    used = one.of("filesystem")["used_bytes"].dropna()
    if len(used):
        add("used", one.root, (int(used.iloc[0]), int(used.iloc[-1])))
    for device in one.other_disks:
        add("virtual_disk", device, one.ends("virtual_disk", device))
    frame = pd.DataFrame(rows, columns=["layer", "device", "first_bytes", "last_bytes"])
    return frame.astype(
        {"layer": "string", "device": "string", "first_bytes": "Int64", "last_bytes": "Int64"}
    )


def layers_alt(
    sizes: pd.DataFrame, *, run: str | None = None, labels: Mapping[str, str] | None = None
) -> str:
    """Return the figure's numbers in words."""
    say = words(labels)
    items = []
    for name, first, last in _named(layers_data(sizes, run=run), say):
        ends = {"first": format_bytes(first), "last": format_bytes(last)}
        same = ends["first"] == ends["last"]
        items.append(
            say["layers_alt_same" if same else "layers_alt_grew"].format(name=name, **ends)
        )
    return say["layers_alt"].format(items="; ".join(items))


def plot_layers(
    sizes: pd.DataFrame,
    ax: Axes | None = None,
    *,
    run: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Axes:
    """Draw every layer's size, before and after, on a logarithmic scale.

    Parameters
    ----------
    sizes : DataFrame
        The tidy sizes table.
    ax : Axes, optional
        Where to draw; the figure keeps inside the place it has now.
    run : str, optional
        Which run of the table; needed where it holds several.
    labels : mapping, optional
        See :func:`cloudlab.figures.labels.words`.
    """
    from cloudlab.figures.frame import Chip
    from cloudlab.figures.rows import Bar, Row, Scale, draw_rows
    from cloudlab.figures.style import look

    say = words(labels)
    data = layers_data(sizes, run=run)
    all_sizes = [max(1, int(n)) for n in [*data["first_bytes"], *data["last_bytes"]]]
    low = 2.0 ** (math.floor(math.log2(min(all_sizes))) - 2)
    high = float(max(all_sizes))
    rows = []
    for layer, (name, first, last) in zip(data["layer"], _named(data, say), strict=True):
        both = (max(1, first), max(1, last))
        value = format_bytes(last)
        if format_bytes(first) != value:
            value = say["outlook"].format(first=format_bytes(first), last=value)
        segments = [(low, min(both), _solid(layer)), (min(both), max(both), _gain(layer))]
        rows.append(Row(name, [Bar(segments, value)]))

    def ticks(most: int) -> tuple[list[int], list[str]]:
        places, _ = log_ticks(low, high, most)
        return places, [format_tick(place) for place in places]

    def note(places: object) -> str:
        assert isinstance(places, list)
        if len(places) < 2:  # noqa: PLR2004
            return ""
        return say["log_note"].format(factor=places[1] // places[0])

    with look():
        grew = bool((data["first_bytes"] != data["last_bytes"]).any())
        chips = [
            Chip(say["before"], _solid("virtual_disk")),
            Chip(say["gained"], _gain("virtual_disk")),
        ]
        return draw_rows(
            ax, rows, Scale(low, high, ticks, log=True), _title(data, say),
            chips=chips if grew else [], note=note,
        )  # fmt: skip


def _solid(layer: str) -> Look:
    return replace(_bold(layer), hatch="")


def _gain(layer: str) -> Look:
    # White under a hatch of the layer's colour: what was gained, still that layer's.
    return Look("#FFFFFF", "////", _bold(layer).fill)


def _bold(layer: str) -> Look:
    return _BOLD["virtual_disk" if layer == "image_disk" else layer]


_BOLD = LOOKS | {
    "partition": Look("#0072B2", "", "#00324E"),
    "virtual_disk": Look("#8C8C8C", "", "#4D4D4D"),
}


def _named(data: pd.DataFrame, say: dict[str, str]) -> list[tuple[str, int, int]]:
    named = []
    seen: set[str] = set()
    for layer, device, first, last in data.itertuples(index=False):
        name = say[layer]
        if layer == "virtual_disk" and layer in seen:
            name = say["other_disk"].format(device=device)
        elif layer in ("partition", "filesystem", "virtual_disk") and isinstance(device, str):
            name = f"{name} {'/' if layer == 'filesystem' else device}"
        seen.add(layer)
        named.append((name, int(first), int(last)))
    return named


def _title(data: pd.DataFrame, say: dict[str, str]) -> str:
    last = data.drop_duplicates("layer").set_index("layer")["last_bytes"]
    if not {"image_file", "virtual_disk", "filesystem"} <= set(last.index):
        return titled(say, say["layers_plain"])
    found = say["layers_title"].format(
        image=format_bytes(last["image_file"]),
        disk=format_bytes(last["virtual_disk"]),
        filesystem=format_bytes(last["filesystem"]),
    )
    return titled(say, found)

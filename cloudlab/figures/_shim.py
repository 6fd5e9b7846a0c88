"""Temporary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudlab import figures as _f
from cloudlab.figures.kinds import KINDS


@dataclass(frozen=True)
class Plot:
    axes: Any
    title: str
    alt: str
    data: Any

    @property
    def figure(self) -> Any:
        return self.axes.get_figure(root=True)

    def save(self, path: Any) -> Path:
        return _f.save_figure(self.axes, path, title=self.title, alt=self.alt)

    def to_html(self) -> str:
        return _f.to_html(self.axes, title=self.title, alt=self.alt)

    def _repr_html_(self) -> str:
        return self.to_html()


def plot(
    kind: str,
    tables: Any,
    ax: Any = None,
    *,
    size: str = "screen",
    style: str = "light",  # noqa: ARG001
    title: Any = True,  # noqa: ARG001
    names: Any = None,
    settings: Any = None,  # noqa: ARG001
    labels: Any = None,
    state: Any = None,
) -> Plot:
    k = KINDS[kind]
    wanted = [tables[n] for n in k.tables]
    if ax is None and size != "screen":
        ax = _f.new_axes(size)
    joined = ", ".join((names or {}).values())
    if state:
        labels = {"state_after": state}
    labels = labels or ({"name": joined} if k.one_run and joined else None)
    axes = k.plot(*wanted, ax=ax, labels=labels)
    return Plot(
        axes,
        f"{k.title}: {joined}" if joined else k.title,
        k.alt(*wanted, labels=labels),
        k.data(*wanted),
    )

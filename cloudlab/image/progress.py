"""How far a transfer is, as values that a terminal or a notebook can draw."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cloudlab.units import format_bytes

_NEWS_S = 0.1


@dataclass(frozen=True)
class FetchProgress:
    """How far a transfer is.

    Attributes
    ----------
    name : str
        What is fetched.
    done_bytes : int
    total_bytes : int or None
        None where the server does not say.
    rate : float
        Bytes per second over the last seconds.
    left_s : float or None
        Seconds to go at that rate, where it can be told.
    waiting_for_other : bool
        Whether another process of this host is downloading, and this one waits for it.
    note : str
        What is going on besides, e.g. why there is a pause.
    """

    name: str
    done_bytes: int
    total_bytes: int | None
    rate: float
    left_s: float | None
    waiting_for_other: bool = False
    note: str = ""

    def words(self) -> str:
        """Return how far it is, how fast and how long yet, or what keeps it, in one line."""
        if self.note:
            return self.note
        total = f" of {format_bytes(self.total_bytes)}" if self.total_bytes else ""
        left = f", {self.left_s:.0f} s left" if self.left_s is not None else ""
        who = "another process fetches it: " if self.waiting_for_other else ""
        rate = f"{format_bytes(int(self.rate))}/s"
        return f"{who}{format_bytes(self.done_bytes)}{total}, {rate}{left}"


Progress = Callable[[FetchProgress], None]


class Meter:
    """Turns byte counts into :class:`FetchProgress`, ten times a second at most.

    Parameters
    ----------
    name : str
    progress : callable, optional
    waiting : bool
        Whether another process is downloading.
    clock : callable
        Seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        progress: Progress | None,
        *,
        waiting: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.total_bytes: int | None = None
        self._progress = progress
        self._waiting = waiting
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=50)

    def show(self, done_bytes: int, note: str = "", *, now: bool = False) -> None:
        """Pass on that ``done_bytes`` are there; ``now`` even if it just was."""
        moment = self._clock()
        due = now or not self._seen or moment - self._seen[-1][0] >= _NEWS_S
        if self._progress is None or not due:
            return
        if self._seen and done_bytes < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((moment, done_bytes))
        since, first = self._seen[0]
        span = moment - since
        rate = (done_bytes - first) / span if span > 0 else 0.0
        left = None
        if self.total_bytes is not None and rate > 0:
            left = max(0, self.total_bytes - done_bytes) / rate
        self._progress(
            FetchProgress(self.name, done_bytes, self.total_bytes, rate, left, self._waiting, note)
        )

"""Which recording shows what a learner asked for, and in what it differs from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cloudlab.course.cases import CASES
from cloudlab.errors import RecordingError
from cloudlab.run.value import Run
from cloudlab.seed.check import HEADER, Problem, is_cloud_config, read_document
from cloudlab.units import format_bytes

#: What cloudlab itself writes into user-data: no choice of the learner's.
_OWN_KEYS = frozenset({"cloud_init_modules", "cloud_config_modules", "cloud_final_modules"})
_OWN_COMMAND = "cloudlab-report.sh"

_NOT_SET = "not set"


@dataclass(frozen=True)
class Wish:
    """What a learner wants to see booted.

    Attributes
    ----------
    image : str
        Its name.
    disk_size_bytes : int
    user_data : str
    profile : str
    """

    image: str
    disk_size_bytes: int
    user_data: str
    profile: str = "lean"


@dataclass(frozen=True)
class Match:
    """A recording, and every difference between it and the wish, in words."""

    recording: Run
    differences: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether exactly this was recorded."""
        return not self.differences


def nearest(wish: Wish, recordings: Iterable[Run]) -> Match:
    """Return the recording with the fewest differences; of equals, by user-data, then by size.

    Raises
    ------
    RecordingError
        If there is none at all.
    """
    matches = []
    for recording in recordings:
        image, disk_size = recording.image.name, recording.options.disk_size_bytes
        profile = recording.options.profile
        options = _different_options(wish.user_data, recording.user_data)
        others = []
        # Which modules run besides changes no size, so any other option counts more.
        if profile != wish.profile:
            others.append(f"profile: recorded with {profile}, you chose {wish.profile}")
        if image != wish.image:
            others.append(f"image: recorded with {image}, you chose {wish.image}")
        if disk_size != wish.disk_size_bytes:
            recorded, wished = _two_sizes(disk_size, wish.disk_size_bytes)
            others.append(f"disk size: recorded with {recorded}, you chose {wished}")
        ratio = abs(math.log2(max(disk_size, 1) / max(wish.disk_size_bytes, 1)))
        rank = (len(options) + len(others), len(options), image != wish.image, ratio)
        matches.append((rank, Match(recording, (*options, *others))))
    if not matches:
        raise RecordingError(
            "No recordings are here, so nothing can be played.",
            hint="Install cloudlab anew, or boot a real machine.",
        )
    return min(matches, key=lambda ranked: ranked[0])[1]


def playable(recordings: Iterable[Run]) -> list[Run]:
    """Return the recordings of boots that follow from image, disk size and user-data alone.

    That leaves out boots that did not read their seed, and second boots of one disk.
    """
    others = {name for name, case in CASES.items() if case.follows or not case.reads_seed}
    return [one for one in recordings if one.name not in others]


def choices(user_data: str) -> dict[str, str]:
    """Return what a user-data text sets, key by key, without what cloudlab adds.

    A text that is no cloud-config counts as one choice, the whole of it.
    """
    document = read_document(user_data)
    if isinstance(document, Problem) or not is_cloud_config(user_data or HEADER):
        return {"user-data": user_data.strip()}
    found: dict[str, str] = {}
    for key, value in document.value.items():
        if key in _OWN_KEYS:
            continue
        if isinstance(value, Mapping):
            found |= {f"{key}.{part}": _shown(one) for part, one in value.items()}
        elif commands := _without_own(value):
            found[str(key)] = _shown(commands)
    return found


def _without_own(value: Any) -> Any:
    if isinstance(value, list):
        return [one for one in value if _OWN_COMMAND not in str(one)] or None
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return (
        yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    )


def _different_options(wished: str, recorded: str) -> list[str]:
    mine, theirs = choices(wished), choices(recorded)
    return [
        f"{key}: recorded with {theirs.get(key, _NOT_SET)}, you chose {mine.get(key, _NOT_SET)}"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]


def _two_sizes(first: int, second: int) -> Sequence[str]:
    """Return two sizes in words, in bytes where rounded ones would hardly differ."""
    if math.isclose(first, second, rel_tol=0.01):
        return f"{first} bytes", f"{second} bytes"
    return format_bytes(first), format_bytes(second)

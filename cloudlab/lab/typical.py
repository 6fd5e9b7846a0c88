"""How long a run of this kind took the last times, for the progress bar."""

from __future__ import annotations

import contextlib
import json
from statistics import median

from cloudlab import paths
from cloudlab.errors import CloudlabError
from cloudlab.lab.options import RunOptions, Start
from cloudlab.machine.config import Accel

#: Seconds to the report where nothing was measured on this host yet: hardware, and
#: emulation as measured on two cores.
_FIRST_GUESS_S = {Accel.KVM: 15.0, Accel.HVF: 15.0, Accel.TCG: 70.0}

_KEPT = 9


def expected_s(options: RunOptions, accel: Accel) -> float:
    """Return the median of the last runs of this image, profile and accelerator, in seconds.

    Of those that started warm, where there were any and this one may.
    """
    known = _read()
    kinds = (Start.COLD,) if options.start is Start.COLD else (Start.WARM, Start.COLD)
    keys = [_key(options, accel, kind) for kind in kinds]
    times = next((known[key] for key in keys if key in known), None)
    return median(times) if times else _FIRST_GUESS_S[accel]


def remember(options: RunOptions, accel: Accel, kind: str, time_s: float) -> None:
    """Note how long a run took; a cache that cannot be written is no reason to fail.

    Parameters
    ----------
    options : RunOptions
    accel : Accel
    kind : str
        ``cold`` or ``warm``, as it started.
    time_s : float
    """
    known = _read()
    key = _key(options, accel, kind)
    known[key] = [*known.get(key, []), round(time_s, 1)][-_KEPT:]
    with (
        contextlib.suppress(CloudlabError, OSError),
        paths.whole_file(paths.make_folder(paths.cache_folder()) / "typical.json") as part,
    ):
        part.write_text(json.dumps(known, indent=1), encoding="utf-8")


def _key(options: RunOptions, accel: Accel, kind: str) -> str:
    return f"{options.image.name} {accel} {options.seed.profile} {kind}"


def _read() -> dict[str, list[float]]:
    try:
        known = json.loads((paths.cache_folder() / "typical.json").read_text(encoding="utf-8"))
        return {str(key): [float(one) for one in times] for key, times in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}

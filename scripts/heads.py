"""The machine's minutes in the notebooks' heads, out of the recordings.

``python scripts/heads.py`` writes them anew; a test holds them against the recordings.
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median

import nbformat

from cloudlab.run.value import recorded

FOLDER = Path(__file__).parents[1] / "notebooks"

_TOLD = re.compile(r"For the machine: .*$", re.MULTILINE)


def minutes(seconds: float) -> str:
    """Return a time as people plan with it."""
    if seconds < 45:
        return "less than a minute"
    whole = round(seconds / 60)
    return f"{max(whole, 1)} minute{'s' if whole > 1 else ''}"


def machine_time(boots: list[str]) -> str:
    """Return what the head of a notebook with these boots says."""
    if not boots:
        return "For the machine: none."
    found = [recorded(case).record for case in boots]
    took_s = [record.time_s or 0.0 for record in found]
    accel = " and ".join(sorted({str(record.accelerator.name).upper() for record in found}))
    if len(boots) == 1:
        told = f"one boot, {minutes(took_s[0])} as recorded under {accel}, started cold"
    else:
        told = (
            f"{len(boots)} boots, each {minutes(median(took_s))} (median) as recorded under {accel}, "
            f"started cold; {minutes(sum(took_s))} one after another"
        )
    # The full profile never starts warm.
    full = any(record.options.profile == "full" for record in found)
    quicker = "KVM is quicker" if full else "Warm starts and KVM are quicker"
    return f"For the machine: {told}. {quicker}. In replay: nothing."


def expected_head(book: nbformat.NotebookNode) -> str:
    """Return a notebook's first cell with the time that the recordings give."""
    text = machine_time(book.metadata["cloudlab"]["boots"])
    return _TOLD.sub(lambda _: text, book.cells[0].source)


def main() -> None:
    """Write the heads of all notebooks."""
    for path in sorted(FOLDER.glob("[0-9]*.ipynb")):
        book = nbformat.read(path, as_version=4)
        if "own_boots" not in book.metadata["cloudlab"]:
            book.cells[0].source = expected_head(book)
            nbformat.write(book, path)


if __name__ == "__main__":
    main()

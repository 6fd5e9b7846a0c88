"""Every word the figures show, under a key, so that a caller can put it otherwise."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from cloudlab.errors import UsageError

LABELS: dict[str, str] = {
    # things
    "image_file": "image file",
    "overlay_file": "overlay file",
    "virtual_disk": "virtual disk",
    "other_disk": "disk {device}",
    "partition": "partition",
    "filesystem": "filesystem",
    "used": "used",
    "unallocated": "free",
    "metadata": "metadata",
    "outside": "outside partitions",
    "unnamed": "this run",
    "before": "before",
    "gained": "gained",
    "predicted": "predicted",
    "measured": "measured",
    "deduced": "(deduced)",
    "at": "at {last}",
    "between": "between {first} and {last}",
    "outlook": "{first} → {last}",
    # states of the disk
    "state_image": "In the image",
    "state_before": "Before",
    "state_partition": "Partition grown",
    "state_filesystem": "Filesystem grown",
    "state_after": "After",
    # notes
    "log_note": "Logarithmic scale: each step is {factor} times the one before.",
    "cell_note": "A cell is {cell}, a row {row}; a cell is filled as far as it was written.",
    "order_note": "Positions were not measured; order assumed.",
    "widened_note": "Partitions too small to see are drawn wider.",
    "narrow_note": "Too narrow to name: {names}.",
    "prediction_value": "{measured}, predicted {predicted}",
    # titles: what was found
    "grew_both": "The partition grew to {partition}, the filesystem to {filesystem}",
    "grew_partition": "The partition grew to {partition}, the filesystem stayed at {filesystem}",
    "grew_filesystem": "The filesystem grew to {filesystem} in a partition of {partition}",
    "grew_none": "Nothing grew: partition {partition}, filesystem {filesystem}",
    "grew_whole_disk": "The filesystem on the whole disk grew to {filesystem}",
    "one_moment": "Partition {partition}, filesystem {filesystem}",
    "layers_title": "A {image} image file, a {disk} disk, a {filesystem} filesystem",
    "layers_plain": "Sizes, layer by layer",
    "scenarios_title": "Of {runs} runs: both grew in {both}, only the partition in {partition}, "
    "nothing in {none}",
    "timeline_both": "The partition grew {partition}, the filesystem {filesystem}",
    "timeline_same": "Partition and filesystem grew {partition}",
    "timeline_partition": "The partition grew {partition}, the filesystem did not",
    "timeline_filesystem": "The filesystem grew {filesystem}, the partition did not",
    "timeline_none": "Neither partition nor filesystem grew",
    "overlay_title": "{written} of {disk} were written",
    "prediction_title": "{right} of {all} predictions within {tolerance}",
    "stages_title": "{stage} took longest: {duration} of {total}",
    "stages_many": "{stage} took longest, {duration} on average",
    # alternative texts
    "layers_alt": "Sizes by layer on a logarithmic scale. {items}.",
    "layers_alt_same": "{name}: {last}",
    "layers_alt_grew": "{name}: from {first} to {last}",
    "disk_map_alt": "Map of a disk of {disk}, to scale. {items}",
    "disk_map_alt_state": "{state}: {items}.",
    "scenarios_alt": "Partition and filesystem by run. {items}.",
    "scenarios_alt_run": "{run}: partition {partition}, filesystem {filesystem}",
    "timeline_alt": "Sizes over {end}. {items}.",
    "timeline_alt_line": "{name}: {points}",
    "timeline_alt_point": "{size} at {time}",
    "overlay_alt": "Map of a disk of {disk} as a grid; {written} were written. {items}.",
    "prediction_alt": "Predicted and measured sizes. {items}.",
    "prediction_alt_row": "{name}: predicted {predicted}, measured {measured}",
    "stages_alt": "Boot stages over {total}. {items}.",
    "stages_alt_row": "{name}: {duration}, from {start} to {end}",
}

_OPEN = ("stage_", "scenario_")


def words(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return :data:`LABELS` with ``labels`` over them.

    Besides the keys of :data:`LABELS` there are ``title`` (takes the place of any title
    found from the numbers), ``alt``, and ``stage_NAME`` and ``scenario_NAME`` for names
    that stand in the tables.

    Raises
    ------
    UsageError
        For a key that no figure looks at.
    """
    for key in labels or {}:
        if key not in LABELS and key not in ("title", "alt") and not key.startswith(_OPEN):
            near = difflib.get_close_matches(key, LABELS, n=1)
            raise UsageError(
                f"No figure has a label called {key!r}.",
                hint=f"Did you mean {near[0]!r}?" if near else f"Labels: {', '.join(LABELS)}",
            )
    return LABELS | dict(labels or {})

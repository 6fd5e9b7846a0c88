"""Every text that the figures show, under a key."""

from __future__ import annotations

from collections.abc import Mapping

LABELS: dict[str, str] = {
    # things
    "image_file": "image file",
    "overlay_file": "overlay file",
    "virtual_disk": "virtual disk",
    "image_disk": "virtual disk of the image",
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
    "unmeasured": "not measured",
    "no_partition": "no partition",
    "at": "just before {last}",
    "between": "between {first} and {last}",
    "outlook": "{first} → {last}",
    # states of the disk
    "state_image": "In the image",
    "state_launch": "Before the boot",
    "state_before": "Before",
    "state_partition": "Partition grown",
    "state_filesystem": "Filesystem grown",
    "state_after": "After",
    # notes
    "log_note": "Logarithmic scale, each step {factor} times the one before: compare the "
    "numbers, not the lengths.",
    "cell_note": "A cell is {cell}, a row {row}. Pale: written to; filled from below: how much "
    "of it. Lines: borders of partitions.",
    "order_note": "Positions were not measured; order assumed.",
    "rest_note": "Pale: a filesystem's own tables, which df leaves out, or a small rest unused.",
    "widened_note": "Partitions too small to see are drawn wider.",
    "since_launch": "seconds since launch",
    "narrow_note": "Too narrow to name: {names}.",
    "prediction_note": "Right: within {percent} %, or lsblk or df prints the same.",
    "prediction_value": "{measured}, predicted {predicted}",
    # titles: what was found
    "named": "{name}: {title}",
    "grew_both": "The partition grew to {partition}, the filesystem to {filesystem}",
    "grew_partition": "The partition grew to {partition}, the filesystem stayed at {filesystem}",
    "grew_filesystem": "The filesystem grew to {filesystem} in a partition of {partition}",
    "grew_none": "Nothing grew: partition {partition}, filesystem {filesystem}",
    "grew_whole_disk": "The filesystem on the whole disk grew to {filesystem}",
    "grew_whole_disk_kept": "The filesystem on the whole disk stayed at {filesystem}",
    "grew_partition_alone": "The partition grew to {partition}; the filesystem was not compared",
    "grew_partition_alone_kept": "The partition stayed at {partition}; "
    "the filesystem was not compared",
    "grew_filesystem_alone": "The filesystem grew to {filesystem}; the partition was not compared",
    "grew_filesystem_alone_kept": "The filesystem stayed at {filesystem}; "
    "the partition was not compared",
    "one_moment": "Partition {partition}, filesystem {filesystem}",
    "one_partition": "Partition {partition}; the filesystem was not measured",
    "one_filesystem": "Filesystem {filesystem}; the partition was not measured",
    "one_whole_disk": "Filesystem on the whole disk: {filesystem}",
    "one_nothing": "Neither partition nor filesystem was measured",
    "layers_title": "A {image} image file, a {disk} disk, a {filesystem} filesystem",
    "layers_plain": "Sizes, layer by layer",
    "scenarios_title": "Of {runs} runs: {counts}",
    "count_both": "both grew in {count}",
    "count_partition": "only the partition in {count}",
    "count_filesystem": "only the filesystem in {count}",
    "count_none": "nothing in {count}",
    "count_unknown": "not measured in {count}",
    "timeline_both": "The partition grew {partition}, the filesystem {filesystem}",
    "timeline_same": "Partition and filesystem grew {partition}",
    "timeline_partition": "The partition grew {partition}, the filesystem did not",
    "timeline_filesystem": "The filesystem grew {filesystem}, the partition did not",
    "timeline_none": "Neither partition nor filesystem grew",
    "timeline_whole_disk": "The filesystem on the whole disk grew {filesystem}",
    "timeline_whole_disk_kept": "The filesystem on the whole disk did not grow",
    "timeline_partition_alone": "The partition grew {partition}; the filesystem was not compared",
    "timeline_partition_alone_kept": "The partition did not grow; the filesystem was not compared",
    "timeline_filesystem_alone": "The filesystem grew {filesystem}; the partition was not compared",
    "timeline_filesystem_alone_kept": "The filesystem did not grow; the partition was not compared",
    "timeline_unknown": "Whether partition and filesystem grew was not measured",
    "overlay_title": "{written} were written to a disk of {disk}",
    "overlay_title_zeros": "{written} of data were written to a disk of {disk}, "
    "{zeros} of it were zeroed",
    "prediction_title": "{right} of {all} predictions were right",
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
    "overlay_alt_zeros": "Map of a disk of {disk} as a grid; {written} of data were written, "
    "{zeros} were zeroed, which takes no room. {items}.",
    "prediction_alt": "Predicted and measured sizes. {items}.",
    "prediction_alt_row": "{name}: predicted {predicted}, measured {measured}",
    "stages_alt": "Boot stages over {total}. {items}.",
    "stages_alt_row": "{name}: {duration}, from {start} to {end}",
}


def words(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return :data:`LABELS` with ``labels`` over them.

    Parameters
    ----------
    labels : mapping, optional
        ``name``, put before the title that was found, and ``state_NAME``, the heading of one
        state of the disk.
    """
    return LABELS | dict(labels or {})


def titled(say: Mapping[str, str], found: str) -> str:
    """Return a figure's title: what was found, after the name of what is shown."""
    return say["named"].format(name=say["name"], title=found) if say.get("name") else found

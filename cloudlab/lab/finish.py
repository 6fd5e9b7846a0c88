"""All that is done for a run after its machine has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudlab.console import ORDER, printable
from cloudlab.disk import Extent, allocated_bytes, by_region, inspect_disk, overlay_map
from cloudlab.errors import CloudlabError, RecordingError
from cloudlab.lab.boot import BootLog
from cloudlab.lab.prepare import PreparedRun
from cloudlab.lab.table import device_name, run_sizes, write_extents
from cloudlab.recording import write_run
from cloudlab.sizes import check_sizes, write_sizes

#: How far a guest's clock may be ahead of the host's, in seconds.
CLOCK_SLACK_S = 5.0

_EXTENDED_BYTES = 1024


def finish(job: PreparedRun, log: BootLog, outcome: str, error: BaseException | None) -> None:
    """Record how a run ended, and delete what only its machine used.

    ``job.about`` is what was recorded, even where the host's disk would not take it.

    Parameters
    ----------
    job : PreparedRun
    log : BootLog
    outcome : str
        ``done``, ``failed`` or ``interrupted``.
    error : BaseException or None

    Raises
    ------
    RecordingError
        If the record cannot be written.
    """
    end_bytes, extents, disk = _read_disk(job)
    # First of all: where the host's disk is full, this makes room for the record.
    for path in job.leftovers:
        path.unlink(missing_ok=True)
    job.about.update(
        {
            "outcome": outcome,
            "error": None if error is None else {"kind": type(error).__name__, "text": str(error)},
            "warnings": [
                *filter(None, [job.about.get("network", {}).get("warning")]),
                *warnings(log),
                *(contradictions(log, disk) if error is None else ()),
            ],
            "time_s": round(log.time_s, 3),
            "took_s": round(log.took_s, 3),
            "stages": _stage_times(log),
            "console": {
                "lines": log.lines,
                "bytes": log.bytes,
                "dropped_bytes": log.dropped_bytes,
            },
            "overlay": {"start_bytes": job.start_bytes, "end_bytes": end_bytes},
            "disk": disk,
        }
    )
    sizes = run_sizes(job.folder.name, job.options, log, (job.start_bytes, end_bytes), job.about)
    try:
        write_sizes(sizes, job.folder / "sizes.csv")
        write_extents(job.folder.name, extents, job.folder / "extents.csv")
    except OSError as problem:
        raise RecordingError(
            f"The run in {job.folder} could not be recorded: {problem.strerror}.",
            hint="Free some space, or choose another folder with --output.",
        ) from problem
    finally:
        write_run(job.folder, job.about)


def warnings(log: BootLog) -> list[str]:
    """Return what did not keep a run from its end but should be known, from the guest's report."""
    found = []
    parsed = log.parser.result()
    block = parsed.block("after")
    facts = {fact.name: printable(fact.value) for fact in block.facts} if block else {}
    if facts.get("cloud_init_errors"):
        found.append(f"cloud-init reports errors: {facts['cloud_init_errors']}")
    if facts.get("user_data_valid") == "no":
        found.append("cloud-init could not read the user-data, so none of it took effect.")
    if facts.get("user_data_valid") == "warned":
        found.append("cloud-init found fault with the user-data; see its log on the console.")
    if facts.get("reported_by") == "watcher":
        # The watcher also reports when systemd ends it with a stage that failed.
        found.append("cloud-init had not run the user-data's runcmd when the report was made.")
    if block is not None and not block.complete:
        # A mark that was broken is not counted, but the end that did not come is one line.
        lost = max(block.damaged, 1)
        what = (
            "1 line of the guest's report was"
            if lost == 1
            else f"{lost} lines of the guest's report were"
        )
        found.append(f"{what} lost or damaged.")
    found += [f"Sizes contradict each other: {problem}" for problem in check_sizes(parsed)]
    if log.parser.foreign:
        found.append(
            f"The console has {log.parser.foreign} lines of a report that is not this run's; "
            "they were ignored."
        )
    if log.dropped_bytes:
        found.append(
            f"The console wrote {log.bytes} bytes; the last {log.dropped_bytes} of them "
            "were not kept."
        )
    return found


def contradictions(log: BootLog, disk: Mapping[str, Any]) -> list[str]:
    """Return where the guest's report contradicts the host: its clock and the disk itself.

    Parameters
    ----------
    log : BootLog
    disk : mapping
        What the host read off the disk after the boot, as ``run.json`` has it.
    """
    parsed = log.parser.result()
    found = [
        f"The guest's report ({block.stage}) says {block.uptime_s:.1f} s of uptime, but the "
        f"machine had run for {log.clock[block.line]:.1f} s only."
        for block in parsed.blocks
        if block.uptime_s is not None
        and block.line in log.clock
        and block.uptime_s > log.clock[block.line] + CLOCK_SLACK_S
    ]
    table = {
        device_name(one["number"]): (one["start_bytes"], one["size_bytes"])
        for one in disk.get("partitions", ())
        if one["number"] is not None
    }
    table[device_name(None)] = (0, disk.get("virtual_size_bytes", 0))
    after = parsed.block("after")
    for device in after.devices if after else ():
        # Of an extended partition the kernel shows two sectors.
        if device.name not in table or device.size_bytes <= _EXTENDED_BYTES:
            continue
        start_bytes, size_bytes = table[device.name]
        if (device.start_bytes, device.size_bytes) != (start_bytes, size_bytes):
            found.append(
                f"The guest's report says that {device.name} begins at byte {device.start_bytes} "
                f"with {device.size_bytes} bytes; the partition table on its disk says byte "
                f"{start_bytes} and {size_bytes} bytes."
            )
    return found


def _read_disk(job: PreparedRun) -> tuple[int, list[Extent], dict[str, Any]]:
    """Return the overlay's allocated bytes, its extents, and the disk's layout as JSON."""
    overlay = job.machine.overlay
    end_bytes = job.start_bytes
    try:
        end_bytes = allocated_bytes(overlay)
        layout = inspect_disk(overlay, "qcow2")
        return end_bytes, by_region(overlay_map(overlay), layout), layout.to_json()
    except CloudlabError as problem:
        # A guest may have left its disk in any state; the run's own result stands.
        return end_bytes, [], {"error": problem.message}


def _stage_times(log: BootLog) -> list[dict[str, Any]]:
    begun = sorted(log.watcher.stages.items(), key=lambda item: ORDER.index(item[0]))
    ends = [start_s for _, start_s in begun[1:]] + [log.time_s]
    return [
        {"stage": stage.value, "start_s": round(start_s, 3), "end_s": round(end_s, 3)}
        for (stage, start_s), end_s in zip(begun, ends, strict=True)
    ]

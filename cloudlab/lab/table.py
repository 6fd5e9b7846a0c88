"""The tables of runs: what the host measured, what the guest's console said, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudlab import paths
from cloudlab.disk import Extent
from cloudlab.errors import RecordingError
from cloudlab.lab.boot import BootLog
from cloudlab.lab.options import RunOptions
from cloudlab.recording import Recording
from cloudlab.sizes import console_sizes, read_sizes, sizes_frame

if TYPE_CHECKING:
    import pandas as pd


def run_sizes(
    run: str, options: RunOptions, log: BootLog, overlay_sizes: tuple[int, int]
) -> pd.DataFrame:
    """Return the sizes table of one run.

    Parameters
    ----------
    run : str
    options : RunOptions
    log : BootLog
    overlay_sizes : tuple of int
        The overlay file's allocated bytes before the launch and after the end.
    """
    import pandas as pd

    image = options.image
    common = {"run": run, "scenario": options.scenario, "exact": True}
    rows: list[dict[str, Any]] = [
        {
            **common,
            "stage": "image",
            "time_s": 0.0,
            "layer": layer,
            "device": device,
            "size_bytes": size_bytes,
            "source": source,
        }
        for layer, device, size_bytes, source in (
            ("image_file", image.name, image.file_size_bytes, "host: file size"),
            ("virtual_disk", image.name, image.virtual_size_bytes, "host: qemu-img info"),
        )
    ]
    growth = [(0.0, overlay_sizes[0]), *log.overlay_growth, (log.time_s, overlay_sizes[-1])]
    for number, (time_s, size_bytes) in enumerate(growth):
        ends = {0: "before", len(growth) - 1: "after"}
        rows.append(
            {
                **common,
                "stage": ends.get(number, "sample"),
                "time_s": round(time_s, 3),
                "layer": "overlay_file",
                "device": "overlay.qcow2",
                "size_bytes": size_bytes,
                "source": "host: allocated blocks",
            }
        )
    console = console_sizes(
        log.parser.result(), run=run, scenario=options.scenario, times=log.clock
    )
    return pd.concat([sizes_frame(rows), console], ignore_index=True)


def write_extents(run: str, extents: Iterable[Extent], path: Path) -> None:
    """Write which parts of the disk the boot wrote, as CSV: run, start_bytes, length_bytes, ..."""
    import pandas as pd

    rows = [
        {
            "run": run,
            "start_bytes": one.start_bytes,
            "length_bytes": one.length_bytes,
            "kind": one.kind,
            "region": one.region,
        }
        for one in extents
        if one.kind != "backing"
    ]
    columns = ["run", "start_bytes", "length_bytes", "kind", "region"]
    with paths.whole_file(path) as part:
        pd.DataFrame(rows, columns=columns).to_csv(part, index=False, lineterminator="\n")


def tables_of(recordings: Sequence[Recording]) -> dict[str, pd.DataFrame]:
    """Return the tables that figures are made from, of one or several runs.

    ``sizes`` (see :data:`cloudlab.sizes.SIZES_COLUMNS`); ``stages``: run, scenario, stage,
    start_s, end_s; ``extents``: run, start_bytes, length_bytes, kind, region;
    ``partitions``: run, device, start_bytes, size_bytes, as the host read them off the
    disk after the run.  Times in seconds since launch.

    Raises
    ------
    RecordingError, ParseError
        Where a run folder lacks a table.
    """
    import pandas as pd

    stages, partitions, extents, sizes = [], [], [], []
    for recording in recordings:
        common = {"run": recording.name, "scenario": str(recording.about.get("scenario", ""))}
        sizes.append(read_sizes(recording.sizes_csv))
        stages += [{**common, **stage} for stage in recording.stages()]
        partitions += [
            {
                "run": recording.name,
                "device": "vda" if one["number"] is None else f"vda{one['number']}",
                "start_bytes": one["start_bytes"],
                "size_bytes": one["size_bytes"],
            }
            for one in recording.about.get("disk", {}).get("partitions", [])
        ]
        path = recording.folder / "extents.csv"
        try:
            extents.append(pd.read_csv(path))
        except (OSError, ValueError) as error:
            raise RecordingError(f"{path} cannot be read: {error}.") from error
    return {
        "sizes": pd.concat(sizes, ignore_index=True),
        "stages": pd.DataFrame(stages),
        "partitions": pd.DataFrame(partitions),
        "extents": pd.concat(extents, ignore_index=True),
    }

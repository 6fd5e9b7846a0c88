"""Small tables that the tests of the figures draw, and the texts of what was drawn."""

from __future__ import annotations

import itertools

import pandas as pd

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

DTYPES = {
    "run": "string",
    "scenario": "string",
    "stage": "string",
    "time_s": "Float64",
    "layer": "string",
    "device": "string",
    "mountpoint": "string",
    "size_bytes": "Int64",
    "used_bytes": "Int64",
    "exact": "boolean",
    "source": "string",
    "line": "Int64",
    "start_bytes": "Int64",
}


def sizes_table(rows):
    """Return a sizes table from rows that leave out what is not known."""
    columns = {name: [row.get(name, pd.NA) for row in rows] for name in DTYPES}
    return pd.DataFrame({name: pd.array(columns[name], DTYPES[name]) for name in DTYPES})


def row(stage, layer, size, **more):
    """Return one exact row of the run ``one`` in the scenario ``default``."""
    base = {"run": "one", "scenario": "default", "exact": True, "source": "console lsblk"}
    return base | {"stage": stage, "layer": layer, "size_bytes": size} | more


PARTITION = (2097152000, 21358427136)
FILESYSTEM = (2046820352, 21038000000)


def lab_run(
    run="one", *, partition=PARTITION, filesystem=FILESYSTEM, samples=True, scenario="default"
):
    """Return a run with Ubuntu's layout on a 20 GiB disk, sizes given (before, after)."""
    rows = [
        row("image", "image_file", 206569472),
        row("before", "overlay_file", 393216, time_s=0.0),
        row("after", "overlay_file", 251658240, time_s=88.0),
    ]
    for stage, time, which in (("before", 41.0, 0), ("after", 88.0, 1)):
        at = {"time_s": time}
        rows += [
            row(stage, "virtual_disk", 20 * GIB, device="vda", **at),
            row(stage, "virtual_disk", 374784, device="vdb", **at),
            row(stage, "partition", partition[which], device="vda1", start_bytes=116391936, **at),
            row(stage, "partition", 4 * MIB, device="vda14", start_bytes=MIB, **at),
            row(stage, "partition", 106 * MIB, device="vda15", start_bytes=5 * MIB, **at),
            row(
                stage, "filesystem", filesystem[which], device="vda1", mountpoint="/",
                used_bytes=1170000000, **at,
            ),
        ]  # fmt: skip
    if samples and partition[0] != partition[1]:
        rows.append(row("sample", "partition", partition[1], device="vda1", time_s=52.3))
    if samples and filesystem[0] != filesystem[1]:
        rows.append(
            row("sample", "filesystem", filesystem[1], device="vda1", mountpoint="/", time_s=53.1)
        )
    return sizes_table(rows).assign(run=run, scenario=scenario)


def with_image(sizes):
    """Return a run's sizes with what lay on the disk before the boot, as the host read it."""
    rows = [
        row("image", "virtual_disk", 2214592512, device="lab.qcow2", source="host: qemu-img info"),
        row("image", "partition", 4 * MIB, device="vda14", start_bytes=MIB),
        row("image", "partition", 106 * MIB, device="vda15", start_bytes=5 * MIB),
        row("image", "partition", PARTITION[0], device="vda1", start_bytes=116391936),
        row("image", "filesystem", FILESYSTEM[0], device="vda1", mountpoint="/"),
    ]
    rows = [one | {"source": "host: partition table", "time_s": 0.0} for one in rows]
    return pd.concat([sizes_table(rows), sizes], ignore_index=True)


def whole_disk_run():
    """Return a run whose root filesystem lies on the disk itself."""
    rows = [row("before", "overlay_file", 393216, time_s=0.0)]
    for stage, time, size in (("before", 41.0, 2040913920), ("after", 88.0, 21148409856)):
        rows += [
            row(stage, "virtual_disk", 20 * GIB, device="vda", time_s=time),
            row(stage, "filesystem", size, device="vda", mountpoint="/", time_s=time),
        ]
    return sizes_table(rows).assign(run="whole", scenario="whole disk")


def unmeasured_run():
    """Return a run whose guest never reported: no seed was found."""
    rows = [
        row("image", "image_file", 150011904, device="lab.qcow2", time_s=0.0),
        row("image", "virtual_disk", 2214592512, device="lab.qcow2", time_s=0.0),
        row("before", "overlay_file", 200704, time_s=0.0),
        row("after", "overlay_file", 4071424, time_s=111.0),
    ]
    return sizes_table(rows).assign(run="none", scenario="no seed")


def lvm_run():
    """Return what a guest reports whose root filesystem lies on LVM, after the boot."""
    at = {"device": "vda1", "start_bytes": 116391936}
    rows = [
        row("after", "virtual_disk", 20 * GIB, device="vda"),
        row("after", "partition", PARTITION[0], **at),
        row("after", "filesystem", FILESYSTEM[0], device="lab-root", mountpoint="/"),
    ]
    return sizes_table(rows)


def three_runs():
    """Return the article's three scenarios in one table."""
    kept, small = (FILESYSTEM[0], FILESYSTEM[0]), (PARTITION[0], PARTITION[0])
    return pd.concat(
        [
            lab_run("r1"),
            lab_run("r2", filesystem=kept, scenario="filesystem kept"),
            lab_run("r3", partition=small, filesystem=kept, scenario="partition kept"),
        ],
        ignore_index=True,
    )


def even_run(disk, count):
    """Return a run whose disk has ``count`` equal partitions, the last one being root."""
    step = disk // count
    rows = []
    for stage in ("before", "after"):
        rows.append(row(stage, "virtual_disk", disk, device="vda"))
        rows += [
            row(
                stage, "partition", step - step // 20, device=f"vda{n + 1}",
                start_bytes=n * step + step // 40,
            )
            for n in range(count)
        ]  # fmt: skip
        rows.append(
            row(
                stage, "filesystem", step // 2, device=f"vda{count}", mountpoint="/",
                used_bytes=step // 4,
            )
        )  # fmt: skip
    return sizes_table(rows)


def crowded_run():
    """Return a run with sixteen partitions, fifteen of them 4 MiB at both ends of 2 TiB."""
    rows = []
    for stage, root in (("before", 2 * GIB), ("after", 2 * TIB - 128 * MIB)):
        rows.append(row(stage, "virtual_disk", 2 * TIB, device="nvme0n1"))
        for n in range(2, 17):
            start = (n - 1) * 4 * MIB if n < 9 else 2 * TIB - (17 - n) * 4 * MIB
            device = f"nvme0n1p{n}"
            rows.append(row(stage, "partition", 4 * MIB, device=device, start_bytes=start))
        rows.append(row(stage, "partition", root, device="nvme0n1p1", start_bytes=64 * MIB))
        rows.append(
            row(
                stage, "filesystem", root - 16 * MIB, device="nvme0n1p1", mountpoint="/",
                used_bytes=GIB,
            )
        )  # fmt: skip
    return sizes_table(rows)


def stages_table(run="one", scenario="default", factor=1.0):
    """Return a boot of 90 s times ``factor``."""
    ends = {
        "firmware": 1.2,
        "kernel": 8.0,
        "initramfs": 12.5,
        "systemd": 23.0,
        "cloud-init local": 36.0,
        "cloud-init init": 55.0,
        "cloud-init config": 68.0,
        "cloud-init final": 84.0,
        "report": 90.0,
    }
    starts = [0.0, *list(ends.values())[:-1]]
    rows = [
        (run, scenario, name, start * factor, end * factor)
        for (name, end), start in zip(ends.items(), starts, strict=True)
    ]
    return pd.DataFrame(rows, columns=["run", "scenario", "stage", "start_s", "end_s"])


def predictions_table():
    """Return two predictions, the first right, the second wrong."""
    rows = [
        ("default", "partition", 20 * GIB, PARTITION[1]),
        ("filesystem kept", "filesystem", 20 * GIB, FILESYSTEM[0]),
    ]
    return pd.DataFrame(rows, columns=["scenario", "layer", "predicted_bytes", "measured_bytes"])


def sweep_runs(sizes=(4, 20, 100), images=("lab-bookworm-ext4-r1", "lab-trixie-xfs-r1")):
    """Return the sizes and options of runs with these disks (GiB), images, growpart on and off."""
    runs, options = [], []
    for image, growpart, gib in itertools.product(images, ("default", "off"), sizes):
        run = f"{image}-{growpart}-{gib}"
        grown = growpart == "default"
        partition = (PARTITION[0], gib * GIB - 112 * MIB if grown else PARTITION[0])
        filesystem = (FILESYSTEM[0], int(0.98 * gib * GIB) if grown else FILESYSTEM[0])
        runs.append(lab_run(run, partition=partition, filesystem=filesystem, scenario=run))
        options.append((run, image, gib * GIB, growpart, "True"))
    columns = ["run", "image", "disk_size_bytes", "growpart", "attach_seed"]
    return pd.concat(runs, ignore_index=True), pd.DataFrame(options, columns=columns)


def options_table(run="one"):
    """Return the options of one run."""
    return pd.DataFrame([{"run": run, "image": "lab", "disk_size_bytes": 20 * GIB}])


def partitions_table(disk, count):
    """Return ``count`` equal partitions of a disk."""
    step = disk // count
    rows = [(f"vda{n + 1}", n * step, step) for n in range(count)]
    return pd.DataFrame(rows, columns=["device", "start_bytes", "size_bytes"])


def extents_table(disk, every):
    """Return extents that cover a disk, each ``every`` th of its 64 parts half written."""
    part = disk // 64
    rows = []
    for n in range(64):
        if n % every == 0:
            rows += [
                (n * part, part // 2, "data"),
                (n * part + part // 2, part - part // 2, "zero"),
            ]
        else:
            rows.append((n * part, part, "backing"))
    table = pd.DataFrame(rows, columns=["start_bytes", "length_bytes", "kind"])
    return table.assign(run="one")


def drawn_texts(plot):
    """Return every visible text of the figure with its box in pixels."""
    from matplotlib.text import Text

    plot.figure.draw_without_rendering()
    found = [t for t in plot.figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    return [(text, text.get_window_extent()) for text in found]


def cut(texts, box):
    """Return the texts that leave the box by more than a pixel."""
    return [
        text.get_text()
        for text, e in texts
        if e.x0 < box.x0 - 1 or e.y0 < box.y0 - 1 or e.x1 > box.x1 + 1 or e.y1 > box.y1 + 1
    ]


def covered(texts):
    """Return the pairs of texts that overlap by more than a pixel both ways."""
    return [
        (one.get_text(), two.get_text())
        for (one, a), (two, b) in itertools.combinations(texts, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]

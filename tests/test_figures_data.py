"""The numbers behind the figures: the tables, the headlines, and the alternative texts."""

from __future__ import annotations

import figure_tables as tables
import pandas as pd
import pytest
from examples import few
from figure_tables import FILESYSTEM, GIB, MIB, PARTITION, row, sizes_table
from shipped import recorded

from cloudlab import figures
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.figures.data import jumps, obstacle, overlay_map_data

START = 116391936


def data(kind, *given):
    return figures.KINDS[kind].data(dict(zip(figures.KINDS[kind].tables, given, strict=True)))


def drawn(kind, *given, **more):
    return figures.plot(kind, dict(zip(figures.KINDS[kind].tables, given, strict=True)), **more)


def finding(plot):
    """Return the headline without the run's name before it."""
    return plot.title.partition(": ")[2]


def test_layers_go_from_the_file_to_the_used_bytes():
    found = data("layers", tables.lab_run())
    assert list(found[["layer", "first_bytes", "last_bytes"]].itertuples(index=False)) == [
        ("image_file", 206569472, 206569472),
        ("overlay_file", 393216, 251658240),
        ("virtual_disk", 20 * GIB, 20 * GIB),
        ("partition", *PARTITION),
        ("filesystem", *FILESYSTEM),
        ("used", 1170000000, 1170000000),
        ("other_disk", 374784, 374784),
    ]
    assert found["device"].tolist()[2:] == ["vda", "vda1", "vda1", "vda1", "vdb"]
    assert dict(found.dtypes.astype(str)) == {
        "layer": "string",
        "device": "string",
        "first_bytes": "Int64",
        "last_bytes": "Int64",
    }


def test_exact_rows_win_over_rounded_ones_wherever_they_stand():
    rounded = row("after", "partition", 20 * GIB, device="vda1", exact=False, time_s=1.0)
    exact = row("after", "partition", PARTITION[1], device="vda1", time_s=2.0)
    for rows in ([rounded, exact], [exact, rounded]):
        assert data("layers", sizes_table(rows))["last_bytes"].tolist() == [PARTITION[1]]
    assert data("layers", sizes_table([rounded]))["last_bytes"].tolist() == [20 * GIB]


def test_the_root_partition_under_lvm_is_the_largest_on_the_disk():
    sizes = sizes_table(
        [
            row("after", "virtual_disk", 20 * GIB, device="vda"),
            row("after", "partition", GIB, device="vda1"),
            row("after", "partition", 18 * GIB, device="vda2"),
            row("after", "partition", 17 * GIB, device="vg-root"),
            row("after", "filesystem", 16 * GIB, device="vg-root", mountpoint="/"),
        ]
    )
    found = data("layers", sizes).set_index("layer")
    assert found.loc["partition", "device"] == "vda2"
    assert found.loc["filesystem", "last_bytes"] == 16 * GIB


def states(found, kind, device=None):
    rows = found[found["kind"] == kind]
    rows = rows if device is None else rows[rows["device"] == device]
    return list(zip(rows["state"], rows["start_bytes"], rows["size_bytes"], strict=True))


def test_root_stays_on_the_map_where_its_disk_was_not_measured():
    rows = [
        row("after", "virtual_disk", 20 * GIB, device="vda", exact=False),
        row("after", "partition", 2 * GIB, device="sdb1", exact=False),
        row("after", "filesystem", GIB, device="sdb1", mountpoint="/", exact=False),
    ]
    found = data("disk-map", sizes_table(rows))
    assert states(found, "partition") == [("after", 0, 2 * GIB)]
    assert states(found, "unallocated") == [("after", 2 * GIB, 18 * GIB)]


def test_the_disk_map_has_the_state_between_from_the_samples():
    found = data("disk-map", tables.lab_run())
    assert states(found, "partition", "vda1") == [
        ("before", START, PARTITION[0]),
        ("partition", START, PARTITION[1]),
        ("filesystem", START, PARTITION[1]),
    ]
    assert states(found, "filesystem", "vda1") == [
        ("before", START, FILESYSTEM[0]),
        ("partition", START, FILESYSTEM[0]),
        ("filesystem", START, FILESYSTEM[1]),
    ]
    tail = START + PARTITION[0]
    assert states(found, "unallocated") == [("before", tail, 20 * GIB - tail)]
    assert found["measured"].all()
    assert found["placed"].all()


def test_values_that_a_table_from_elsewhere_may_hold_change_nothing():
    sizes, stray = tables.lab_run(), sizes_table([row("after", pd.NA, GIB, device="vda9")])
    expected = data("layers", sizes).to_dict()
    assert data("layers", sizes.astype({"exact": "string"})).to_dict() == expected
    assert data("layers", pd.concat([sizes, stray])).to_dict() == expected
    seed = sizes.assign(device=sizes["device"].replace("vdb", "filesystem"))
    assert list(data("layers", seed)["last_bytes"]) == list(data("layers", sizes)["last_bytes"])
    none = sizes[sizes["layer"] != "virtual_disk"]
    image = sizes_table([row("image", "virtual_disk", 3 * GIB)])
    zero = sizes_table([row("after", "virtual_disk", 0, device="vda")])
    for one in (image, pd.concat([image, zero])):
        found = data("disk-map", pd.concat([one, none]))
        assert states(found, "disk")[0] == ("before", 0, 3 * GIB)


def test_a_sample_without_a_time_is_no_other_sample():
    samples = [
        row("sample", "overlay_file", 5 * MIB, device="o", time_s=0.0),
        row("sample", "overlay_file", 7 * MIB, device="o"),
    ]
    sizes = pd.concat([tables.lab_run(), sizes_table(samples)])
    found = data("timeline", sizes, tables.stages_table().head(0))
    overlay = found[found["layer"] == "overlay_file"]
    assert 5 * MIB in set(overlay["size_bytes"])
    # Nor does it show the state between: what else lay on the disk then is not known.
    late = tables.lab_run().assign(time_s=pd.NA).astype({"time_s": "Float64"})
    late = late[(late["stage"] != "sample") | (late["layer"] == "partition")]
    measured = data("disk-map", late).set_index("state")["measured"]
    assert not measured["partition"].any()
    assert measured["filesystem"].all()


@pytest.mark.parametrize("column", ["run", "size_bytes"])
def test_a_table_without_runs_or_sizes_is_no_empty_figure(column):
    sizes = tables.lab_run()
    with pytest.raises(CloudlabError, match="nothing to draw"):
        data("scenarios", sizes.assign(**{column: sizes[column].mask(sizes["stage"].notna())}))


def test_the_state_between_is_marked_where_it_was_deduced():
    plot = drawn("disk-map", tables.lab_run(samples=False))
    measured = plot.data.drop_duplicates("state").set_index("state")["measured"]
    assert measured.to_dict() == {"before": True, "partition": False, "filesystem": True}
    assert "Partition grown (deduced)" in plot.alt


def test_two_rows_of_one_sample_are_one_moment():
    rows = [
        row("sample", "partition", PARTITION[1], device="vda1", time_s=50.0),
        row("sample", "filesystem", FILESYSTEM[1], device="vda1", mountpoint="/", time_s=50.0),
    ]
    run = pd.concat([tables.lab_run(samples=False), sizes_table(rows)], ignore_index=True)
    found = data("disk-map", run).drop_duplicates("state").set_index("state")
    assert not found.loc["partition", "measured"]


@pytest.mark.parametrize(
    ("partition", "filesystem"),
    [(PARTITION, (FILESYSTEM[0],) * 2), ((PARTITION[0],) * 2, (FILESYSTEM[0],) * 2)],
    ids=["filesystem kept", "partition kept"],
)
def test_without_both_growths_there_is_nothing_between(partition, filesystem):
    run = tables.lab_run(partition=partition, filesystem=filesystem)
    assert data("disk-map", run)["state"].unique().tolist() == ["before", "after"]


def test_what_lay_on_the_image_is_the_first_state():
    found = data("disk-map", tables.with_image(tables.lab_run()))
    assert found["state"].unique().tolist() == ["image", "before", "partition", "filesystem"]
    assert [size for _, _, size in states(found, "disk")] == [2214592512, *[20 * GIB] * 3]
    # A disk that booted before holds more than its image.
    again = tables.with_image(tables.lab_run(partition=(PARTITION[1],) * 2))
    root = (again["stage"] == "image") & (again["device"] == "vda1")
    again.loc[root, "size_bytes"] = PARTITION[1]
    found = data("disk-map", again)
    assert found["state"].unique().tolist() == ["launch", "before", "after"]
    assert {size for _, _, size in states(found, "disk")} == {20 * GIB}


def test_a_disk_that_was_not_booted_has_a_heading_of_the_callers():
    run = tables.lab_run()
    plot = drawn("disk-map", run[run["stage"] == "after"], state="lab.qcow2")
    assert "lab.qcow2: partition vda14 4.0 MiB" in plot.alt
    assert "lab.qcow2" in [text.get_text() for text in plot.axes.texts]


def test_without_starts_root_lies_last_and_that_is_marked():
    found = data("disk-map", tables.lab_run().assign(start_bytes=pd.NA))
    before = found[(found["state"] == "before") & (found["kind"] == "partition")]
    assert before["device"].tolist() == ["vda14", "vda15", "vda1"]
    assert before["start_bytes"].tolist() == [0, 4 * MIB, 110 * MIB]
    assert not before["placed"].any()


def test_a_filesystem_that_fills_its_partition_reaches_its_end():
    found = data("disk-map", tables.lab_run(filesystem=(FILESYSTEM[0], 21148409856)))
    root = found[(found["kind"] == "filesystem") & (found["mountpoint"] == "/")]
    assert root.set_index("state")["extent_bytes"].to_dict() == {
        "before": PARTITION[0],
        "partition": PARTITION[0],
        "filesystem": PARTITION[1],
    }


def test_below_lvm_the_volume_lies_between_partition_and_filesystem():
    found = data("disk-map", tables.lvm_run())
    kinds = found[found["device"].isin(["vda1", "lab-root"])]
    assert kinds["kind"].tolist() == ["partition", "volume", "filesystem"]
    assert kinds["start_bytes"].tolist() == [START] * 3
    assert pd.isna(kinds["size_bytes"].iloc[1])
    # Its size is drawn where the table has it, and volumes side by side.
    measured = [
        row("after", "physical_volume", PARTITION[0], device="vda1"),
        row("after", "logical_volume", 1500 * MIB, device="lab-root"),
        row("after", "logical_volume", 400 * MIB, device="lab-home"),
        row("after", "filesystem", 390 * MIB, device="lab-home", mountpoint="/home"),
    ]
    found = data("disk-map", pd.concat([tables.lvm_run(), sizes_table(measured)]))
    inner = found[found["kind"].isin(["physical_volume", "logical_volume"])]
    assert list(zip(inner["device"], inner["start_bytes"], inner["size_bytes"], strict=True)) == [
        ("vda1", START, PARTITION[0]),
        ("lab-root", START, 1500 * MIB),
        ("lab-home", START + 1500 * MIB, 400 * MIB),
    ]
    home = found[(found["kind"] == "filesystem") & (found["mountpoint"] == "/home")]
    assert home["start_bytes"].tolist() == [START + 1500 * MIB]


def test_the_partition_that_stops_the_growth_is_named():
    wall = tables.lab_run(partition=(PARTITION[0], 8 * GIB), filesystem=(FILESYSTEM[0], 7 * GIB))
    assert obstacle(data("disk-map", wall)) is None
    behind = row("after", "partition", GIB, device="vda2", start_bytes=START + 8 * GIB)
    wall = pd.concat([wall, sizes_table([behind])], ignore_index=True)
    plot = drawn("disk-map", wall)
    assert obstacle(plot.data) == ("vda2", "vda1", START + 8 * GIB)
    assert "vda2 begins where vda1 ends: vda1 has no room to grow" in plot.alt
    # With more than alignment between them there is room.
    wall.loc[wall["device"] == "vda2", "start_bytes"] += 2 * MIB
    assert obstacle(data("disk-map", wall)) is None


def test_a_map_of_nothing_is_refused_in_words():
    with pytest.raises(CloudlabError, match="no map of it") as caught:
        drawn("disk-map", tables.unmeasured_run())
    assert "cloudlab explain" in caught.value.hint


def test_rounded_sizes_do_not_make_the_disk_larger():
    sizes = sizes_table(
        [
            row("after", "virtual_disk", 20 * GIB, device="vda", exact=False),
            row("after", "partition", int(19.9 * GIB), device="vda1", exact=False),
            row("after", "partition", 106 * MIB, device="vda15", exact=False),
        ]
    ).assign(run="", scenario="")
    assert states(data("disk-map", sizes), "disk") == [("after", 0, 20 * GIB)]
    assert drawn("scenarios", sizes).alt.startswith("Partition and filesystem. this run: ")


def test_rows_of_an_unmarked_console_count_as_after():
    sizes = tables.lab_run()
    sizes = sizes[sizes["stage"] == "after"].assign(stage=pd.NA)
    assert data("disk-map", sizes)["state"].unique().tolist() == ["after"]


def test_scenarios_have_the_first_and_last_size_of_each_run():
    runs = pd.concat(
        [tables.three_runs(), tables.whole_disk_run(), tables.unmeasured_run()], ignore_index=True
    )
    found = data("scenarios", runs)
    assert found["run"].unique().tolist() == ["r1", "r2", "r3", "whole", "none"]
    assert found["last_bytes"].fillna(0).tolist() == [
        PARTITION[1], FILESYSTEM[1], PARTITION[1], FILESYSTEM[0], PARTITION[0], FILESYSTEM[0],
        0, 21148409856, 0, 0,
    ]  # fmt: skip
    assert found["grew"].astype(object).where(found["grew"].notna(), None).tolist() == [
        True, True, True, False, False, False, None, True, None, None
    ]  # fmt: skip
    assert found["whole_disk"].tolist() == [False] * 6 + [True] * 2 + [False] * 2


def test_the_disk_starts_as_large_as_the_image_makes_it():
    own = row("image", "virtual_disk", 2214592512, device="lab.qcow2")
    sizes = pd.concat([sizes_table([own]), tables.lab_run()], ignore_index=True)
    found = data("layers", sizes).set_index("layer")
    ends = found[["device", "first_bytes", "last_bytes"]]
    assert tuple(ends.loc["virtual_disk"]) == ("vda", 2214592512, 20 * GIB)
    assert tuple(ends.loc["other_disk"]) == ("vdb", 374784, 374784)


def test_layers_say_whose_disk_was_measured():
    found = data("layers", tables.unmeasured_run())
    assert found["layer"].tolist() == ["image_file", "overlay_file", "image_disk"]


def test_the_timeline_knows_the_jumps():
    found = data("timeline", tables.lab_run(), tables.stages_table())
    assert jumps(found) == {
        "partition": [(52.3, 52.3)],
        "filesystem": [(53.1, 53.1)],
        "overlay_file": [(0.0, 88.0)],
    }
    stages = found[found["layer"] == "stage"]
    assert stages["stage"].tolist()[:2] == ["firmware", "kernel"]
    assert stages["end_s"].tolist()[-1] == 90.0
    assert found.loc[found["layer"] == "virtual_disk", "size_bytes"].unique() == [20 * GIB]


def test_a_growth_that_was_seen_half_way_lasts_until_its_end():
    sizes = tables.lab_run()
    half = sizes[(sizes["layer"] == "filesystem") & (sizes["time_s"] == 53.1)].assign(
        time_s=52.8, size_bytes=6351126528
    )
    found = data("timeline", pd.concat([sizes, half], ignore_index=True), tables.stages_table())
    assert jumps(found)["filesystem"] == [(52.8, 53.1)]


def test_a_disk_that_was_enlarged_has_its_size_in_each_state():
    run = recorded("while-running")
    found = data("disk-map", run.sizes)
    disks = found[found["kind"] == "disk"].set_index("state")["size_bytes"]
    assert disks.to_dict() == {
        "image": 2112 * MIB, "before": 10 * GIB, "partition": 10 * GIB, "filesystem": 20 * GIB
    }  # fmt: skip
    steps = jumps(data("timeline", run.sizes, run.stages))
    assert [len(steps[layer]) for layer in ("virtual_disk", "partition", "filesystem")] == [2, 2, 2]
    assert run.plot("timeline").title.count("and again") == 2


def test_a_logical_volume_is_as_large_as_it_was_measured():
    found = data("disk-map", recorded("lvm-extended").sizes)
    volumes = found[found["kind"] == "logical_volume"].set_index("state")["size_bytes"]
    assert volumes["before"] == 2000 * MIB
    assert 10 * GIB < volumes["filesystem"] < 11 * GIB


def test_a_table_without_times_has_no_timeline():
    sizes = tables.lab_run().assign(time_s=pd.NA)
    with pytest.raises(CloudlabError, match="no timeline"):
        drawn("timeline", sizes, tables.stages_table())


def test_overlay_bytes_are_counted_by_partition_and_cell():
    extents = pd.DataFrame(
        [(0, 10, "data"), (10, 80, "backing"), (90, 30, "data"), (120, 80, "zero")],
        columns=["start_bytes", "length_bytes", "kind"],
    )
    partitions = pd.DataFrame(
        [("p2", 100, 50), ("p1", 5, 95)], columns=["device", "start_bytes", "size_bytes"]
    )
    found = overlay_map_data(extents, partitions, 50)
    assert list(found.itertuples(index=False, name=None)) == [
        (0, "outside", 5),
        (0, "p1", 5),
        (1, "p1", 10),
        (2, "p2", 20),
    ]
    assert drawn("overlay-map", extents, partitions).alt == (
        "Map of a disk of 200 B as a grid of cells; the boot wrote 40 B of data and zeroed 80 B, "
        "which takes no room in the overlay. p1 15 B; p2 20 B; outside partitions 5 B."
    )


def test_the_overlay_map_shows_the_disk_of_its_run():
    extents = tables.extents_table(MIB, 2)
    other = tables.partitions_table(GIB, 2).assign(run="two")
    partitions = pd.concat([tables.partitions_table(MIB, 2).assign(run="one"), other])
    assert "disk of 1.0 MiB" in drawn("overlay-map", extents, partitions).alt
    with pytest.raises(UsageError, match="2 runs"):
        drawn("overlay-map", pd.concat([extents, extents.assign(run="two")]), partitions)


def test_predictions_know_how_far_off_they_were():
    predictions = pd.concat(
        [tables.predictions_table(), tables.predictions_table().assign(measured_bytes=pd.NA)]
    )
    plot = drawn("prediction", predictions)
    assert plot.data["error"].iloc[0] == pytest.approx(20 * GIB / PARTITION[1] - 1)
    assert plot.data["right"].tolist() == [True, False, pd.NA, pd.NA]
    assert plot.title == "1 of 4 predictions right"
    assert "filesystem: predicted 20.0 GiB, not measured" in plot.alt


def test_stages_have_durations_and_a_longest_one():
    plot = drawn("stages", tables.stages_table())
    assert plot.data["duration_s"].sum() == pytest.approx(90.0)
    assert finding(plot) == "cloud-init init took longest: 19.0 s of 90.0 s"
    two = pd.concat([tables.stages_table(), tables.stages_table("two", "other", 2.0)])
    assert drawn("stages", two).title.endswith("Boots of 90.0 s to 180 s")


KEPT = {"partition": (PARTITION[0],) * 2, "filesystem": (FILESYSTEM[0],) * 2}


@pytest.mark.parametrize(
    ("sizes", "growth", "moment"),
    [
        (
            tables.lab_run(),
            "The partition grew to 19.9 GiB, the filesystem to 19.6 GiB",
            "The partition grew just before 52.3 s, the filesystem just before 53.1 s",
        ),
        (
            tables.lab_run(samples=False),
            "The partition grew to 19.9 GiB, the filesystem to 19.6 GiB",
            "Partition and filesystem grew between 41.0 s and 88.0 s",
        ),
        (
            tables.lab_run(filesystem=KEPT["filesystem"]),
            "The partition grew to 19.9 GiB, the filesystem stayed at 1.9 GiB",
            "The partition grew just before 52.3 s, the filesystem did not grow",
        ),
        (
            tables.lab_run(**KEPT),
            "The partition stayed at 2.0 GiB, the filesystem at 1.9 GiB",
            "Partition and filesystem did not grow",
        ),
        (
            tables.whole_disk_run(),
            "The filesystem on the whole disk grew to 19.7 GiB",
            "The filesystem on the whole disk grew between 41.0 s and 88.0 s",
        ),
        (
            tables.unmeasured_run(),
            "Partition and filesystem were not measured",
            "Partition and filesystem were not measured twice",
        ),
        (
            tables.lab_run()[lambda sizes: sizes["layer"] != "partition"],
            "The partition was not measured, the filesystem grew to 19.6 GiB",
            "The partition was not measured twice, the filesystem grew just before 53.1 s",
        ),
        (
            tables.lab_run()[lambda sizes: sizes["stage"] == "after"],
            "The partition had 19.9 GiB, the filesystem 19.6 GiB",
            "Partition and filesystem were not measured twice",
        ),
    ],
    ids=[
        "both", "no samples", "filesystem kept", "partition kept", "whole disk", "no seed",
        "no partition", "after only",
    ],
)  # fmt: skip
def test_the_headline_is_the_finding(sizes, growth, moment):
    assert finding(drawn("scenarios", sizes)) == growth
    assert finding(drawn("timeline", sizes, tables.stages_table().head(0))) == moment


def test_the_headline_of_several_runs_names_them_or_counts_them():
    few = drawn("scenarios", tables.three_runs(), names={"r3": "growpart off"}).title
    assert few.startswith(
        "Both grew with “default”, only the partition grew with “filesystem kept”"
    )
    assert few.endswith("nothing grew with “growpart off”")
    runs = [tables.lab_run(f"r{n}", scenario=f"s{n}") for n in range(4)]
    assert "Both grew in all 4 runs" in drawn("scenarios", pd.concat(runs)).title
    many = pd.concat([*runs, tables.whole_disk_run(), tables.unmeasured_run()])
    counted = "both grew in 4, only the filesystem grew in 1, growth was not measured in 1"
    assert f"Of 6 runs, {counted}" in drawn("scenarios", many).title


def test_many_runs_are_sorted_by_what_grew():
    kept = [tables.lab_run(f"k{n}", scenario=f"kept {n}", **KEPT) for n in range(2)]
    grown = [tables.lab_run(f"g{n}", scenario=f"grown {n}") for n in range(5)]
    names = {f"kept {n}" for n in range(2)} | {f"grown {n}" for n in range(5)}

    def shown(runs):
        plot = drawn("scenarios", pd.concat(runs, ignore_index=True))
        return [text.get_text() for text in plot.axes.texts if text.get_text() in names]

    assert shown([kept[0], *grown[:2], kept[1]]) == ["kept 0", "grown 0", "grown 1", "kept 1"]
    assert shown([kept[0], *grown, kept[1]]) == [
        *[f"grown {n}" for n in range(5)],
        "kept 0",
        "kept 1",
    ]


def test_runs_stand_in_the_order_of_their_tables():
    # Joined as they are, the tables repeat their row numbers.
    one, two = tables.lab_run("one"), tables.lab_run("two", scenario="growpart off")
    one.loc[0, "size_bytes"] = pd.NA
    assert list(data("scenarios", pd.concat([one, two]))["run"].unique()) == ["one", "two"]


def test_what_is_missing_is_not_called_unknown():
    runs = pd.concat([tables.three_runs(), tables.whole_disk_run(), tables.unmeasured_run()])
    text = drawn("scenarios", runs).alt
    assert "whole disk: partition none, filesystem from 1.9 GiB to 19.7 GiB" in text
    assert "no seed: partition not measured, filesystem not measured" in text


def test_runs_of_the_same_scenario_keep_their_names():
    twice = pd.concat([tables.lab_run("a"), tables.lab_run("b")], ignore_index=True)
    text = drawn("scenarios", twice).alt
    assert "default (a): " in text
    assert "default (b): " in text


SIZES = tables.lab_run()
GIVEN = {
    "layers": (SIZES,),
    "disk-map": (SIZES,),
    "scenarios": (tables.three_runs(),),
    "timeline": (SIZES, tables.stages_table()),
    "overlay-map": (tables.extents_table(MIB, 2), tables.partitions_table(MIB, 2)),
    "prediction": (tables.predictions_table(),),
    "stages": (tables.stages_table(),),
    "growth": tables.sweep_runs(),
    "matrix": tables.sweep_runs(),
}
ALTS = {
    "layers": ["366 KiB", "197 MiB", "from 2.0 GiB to 19.9 GiB", "from 1.9 GiB to 19.6 GiB"],
    "disk-map": ["disk of 20.0 GiB", "unallocated 17.9 GiB", "vda14 4.0 MiB", "vda15 106 MiB"],
    "scenarios": ["partition kept: partition 2.0 GiB, filesystem 1.9 GiB"],
    "timeline": [
        "over the 90.0 s", "partition: 2.0 GiB at 41.0 s, 19.9 GiB at 52.3 s",
        "19.6 GiB at 53.1 s", "kernel from 1.2 s to 8.0 s",
    ],
    "overlay-map": ["256 KiB of data", "vda1 128 KiB; vda2 128 KiB"],
    "prediction": ["filesystem: predicted 20.0 GiB, measured 1.9 GiB, wrong"],
    "stages": ["kernel: 6.8 s, from 1.2 s to 8.0 s"],
    "growth": ["lab-trixie-xfs-r1, growpart off on a disk of 4.0 GiB: nothing grew, partition 2.0 GiB"],
    "matrix": ["growpart default on a disk of 20.0 GiB: both grew, partition 19.9 GiB, filesystem"],
}  # fmt: skip


def test_runs_without_different_options_are_told_apart_by_their_scenarios():
    runs = pd.concat([tables.lab_run(f"r{n}", scenario=f"text {n}") for n in range(2)])
    options = pd.concat([tables.options_table(f"r{n}") for n in range(2)], ignore_index=True)
    assert list(data("matrix", runs, options)["setting"].unique()) == ["text 0", "text 1"]
    alone = data("growth", tables.lab_run(), tables.options_table())
    assert list(alone["setting"].unique()) == [""]


def test_a_setting_without_a_measured_filesystem_takes_no_room():
    runs, options = tables.sweep_runs()
    known = runs[(runs["layer"] != "filesystem") | ~runs["run"].str.contains("off")]
    heights = [drawn("growth", one, options).figure.get_figheight() for one in (runs, known)]
    assert heights[1] == pytest.approx(heights[0], abs=0.05)


def test_the_headline_of_many_runs_counts_what_grew():
    assert (
        drawn("growth", *GIVEN["growth"]).title == "Of 12 runs, both grew in 6, nothing grew in 6"
    )
    alone = drawn("matrix", tables.lab_run(), tables.options_table())
    assert finding(alone) == "Both grew"


@pytest.mark.parametrize("kind", figures.KINDS)
def test_the_alternative_text_says_the_numbers_of_tables_that_stay_as_they_were(kind):
    copies = [table.copy() for table in GIVEN[kind]]
    text = drawn(kind, *GIVEN[kind]).alt
    for part in ALTS[kind]:
        assert part in text
    for table, copy in zip(GIVEN[kind], copies, strict=True):
        pd.testing.assert_frame_equal(table, copy)


@pytest.mark.parametrize("kind", few(figures.KINDS, 4))
def test_the_title_can_be_replaced_or_left_out(kind):
    own, bare = (drawn(kind, *GIVEN[kind], title=title) for title in ("My disk", False))
    assert own.title == own.axes.get_title(loc="left") == "My disk"
    assert bare.axes.get_title(loc="left") == ""
    assert bare.title != ""


def test_a_caption_names_few_runs_and_counts_many():
    few = drawn("scenarios", tables.three_runs()).caption
    assert few == "Partition and filesystem by run: default, filesystem kept, partition kept"
    runs = [tables.lab_run(f"r{n}", scenario=f"s{n}") for n in range(5)]
    assert drawn("scenarios", pd.concat(runs)).caption == "Partition and filesystem by run: 5 runs"


def test_names_and_settings_stand_below_the_title():
    plot = drawn(
        "disk-map", SIZES, names={"one": "all defaults"}, settings={"one": "growpart: {mode: auto}"}
    )
    texts = [text.get_text() for text in plot.axes.texts]
    assert texts.index("growpart: {mode: auto}") == texts.index("all defaults") + 1
    assert plot.title.startswith("all defaults: ")
    assert plot.caption == "The disk before and after: all defaults"


@pytest.mark.parametrize("kind", ["layers", "disk-map", "timeline"])
def test_a_figure_of_one_run_refuses_several(kind):
    given = (tables.three_runs(), *GIVEN[kind][1:])
    with pytest.raises(UsageError, match="3 runs") as caught:
        drawn(kind, *given)
    assert "r1, r2, r3" in caught.value.hint


@pytest.mark.parametrize("kind", figures.KINDS)
def test_missing_tables_rows_and_columns_are_named(kind):
    first, *others = GIVEN[kind]
    with pytest.raises(UsageError, match=f"needs the table '{figures.KINDS[kind].tables[0]}'"):
        figures.plot(kind, {})
    with pytest.raises(CloudlabError, match="no rows"):
        drawn(kind, first.head(0), *others)
    gone = first.columns.intersection(["size_bytes", "kind", "start_s", "measured_bytes"])
    with pytest.raises(CloudlabError, match=f"lacks the column {gone[0]}"):
        drawn(kind, first.drop(columns=gone[:1]), *others)


def test_a_column_that_the_second_table_lacks_is_named():
    extents, partitions = GIVEN["overlay-map"]
    with pytest.raises(CloudlabError, match="The partitions table lacks the column device"):
        drawn("overlay-map", extents, partitions.drop(columns="device"))


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "pie"}, {"size": "poster"}, {"style": "pink"}],
    ids=lambda one: next(iter(one)),
)
def test_unknown_choices_are_refused_with_the_known_ones(wrong):
    with pytest.raises(UsageError) as caught:
        figures.plot(**({"kind": "layers", "tables": {"sizes": SIZES}} | wrong))
    assert any(name in caught.value.hint for name in ("disk-map", "slide", "dark"))

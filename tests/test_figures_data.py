"""The numbers behind the figures: what is drawn, and what the alternative text says."""

from __future__ import annotations

import figure_tables as tables
import numpy as np
import pandas as pd
import pytest
from figure_tables import FILESYSTEM, GIB, KIB, MIB, PARTITION, TIB, row, sizes_table

from cloudlab import figures
from cloudlab.errors import CloudlabError, UsageError
from cloudlab.figures.cells import choose_grid
from cloudlab.figures.prediction import df_text, lsblk_text
from cloudlab.figures.ruler import ruler
from cloudlab.figures.time_lines import apart
from cloudlab.figures.timeline import jumps
from cloudlab.sizes import parse_size
from cloudlab.units import byte_ticks, format_tick, log_ticks, second_ticks


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (374784, "366 KiB"),
        (4 * MIB, "4 MiB"),
        (206569472, "197 MiB"),
        (1024 * MIB - 1, "1.0 GiB"),
        (2097152000, "2.0 GiB"),
        (21359476224, "19.9 GiB"),
        (20 * GIB, "20 GiB"),
        (2 * TIB, "2 TiB"),
        (-3 * MIB, "-3 MiB"),
        (1 << 80, "1048576 EiB"),
        (pd.NA, "unknown"),
        (None, "unknown"),
        (float("nan"), "unknown"),
    ],
)
def test_sizes_are_written_in_binary_units(size, text):
    assert figures.format_bytes(size) == text


@pytest.mark.parametrize(
    ("largest", "most", "ticks"),
    [
        (20 * GIB, 4, [0, 5 * GIB, 10 * GIB, 15 * GIB, 20 * GIB]),
        (2 * TIB, 4, [0, 512 * GIB, TIB, 1536 * GIB, 2 * TIB]),
        (MIB, 5, [0, 256 * KIB, 512 * KIB, 768 * KIB, MIB]),
        (3, 8, [0, 1, 2, 3]),
    ],
)
def test_ticks_are_round_sizes(largest, most, ticks):
    assert byte_ticks(largest, most) == ticks


def test_logarithmic_ticks_are_powers_of_two_at_one_ratio():
    assert log_ticks(100 * KIB, 20 * GIB, 4) == ([MIB, 32 * MIB, GIB], 32)
    assert log_ticks(100 * KIB, 20 * GIB, 2) == ([MIB, GIB], 1024)


def test_seconds_have_round_ticks():
    assert second_ticks(90, 5) == [0, 20, 40, 60, 80]
    assert second_ticks(0.9, 5) == [0, 0.2, 0.4, 0.6, 0.8]


def test_a_tick_is_not_rounded():
    assert [format_tick(n) for n in (0, 1280 * GIB, 512)] == ["0", "1.25 TiB", "512 B"]


def test_layers_go_from_the_file_to_the_used_bytes():
    data = figures.layers_data(tables.lab_run())
    assert list(data.itertuples(index=False, name=None)) == [
        ("image_file", pd.NA, 206569472, 206569472),
        ("overlay_file", pd.NA, 393216, 251658240),
        ("virtual_disk", "vda", 20 * GIB, 20 * GIB),
        ("partition", "vda1", *PARTITION),
        ("filesystem", "vda1", *FILESYSTEM),
        ("used", "vda1", 1170000000, 1170000000),
        ("virtual_disk", "vdb", 374784, 374784),
    ]
    assert dict(data.dtypes.astype(str)) == {
        "layer": "string",
        "device": "string",
        "first_bytes": "Int64",
        "last_bytes": "Int64",
    }


def test_exact_rows_win_over_rounded_ones_wherever_they_stand():
    rounded = row("after", "partition", 20 * GIB, device="vda1", exact=False, time_s=1.0)
    exact = row("after", "partition", PARTITION[1], device="vda1", time_s=2.0)
    for rows in ([rounded, exact], [exact, rounded]):
        assert figures.layers_data(sizes_table(rows))["last_bytes"].tolist() == [PARTITION[1]]
    assert figures.layers_data(sizes_table([rounded]))["last_bytes"].tolist() == [20 * GIB]


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
    data = figures.layers_data(sizes).set_index("layer")
    assert data.loc["partition", "device"] == "vda2"
    assert data.loc["filesystem", "last_bytes"] == 16 * GIB


def title_of(ax):
    return ax.get_title(loc="left").replace("\n", " ").replace("\u00a0", " ")


def states(data, kind, device=None):
    rows = data[data["kind"] == kind]
    rows = rows if device is None else rows[rows["device"] == device]
    return list(zip(rows["state"], rows["start_bytes"], rows["size_bytes"], strict=True))


def test_the_disk_map_has_the_state_between_from_the_samples():
    data = figures.disk_map_data(tables.lab_run())
    start = 116391936
    assert states(data, "partition", "vda1") == [
        ("before", start, PARTITION[0]),
        ("partition", start, PARTITION[1]),
        ("filesystem", start, PARTITION[1]),
    ]
    assert states(data, "filesystem", "vda1") == [
        ("before", start, FILESYSTEM[0]),
        ("partition", start, FILESYSTEM[0]),
        ("filesystem", start, FILESYSTEM[1]),
    ]
    tail = start + PARTITION[0]
    assert states(data, "unallocated") == [("before", tail, 20 * GIB - tail)]
    assert data["measured"].all()
    assert data["placed"].all()


def test_the_state_between_is_marked_where_it_was_deduced():
    data = figures.disk_map_data(tables.lab_run(samples=False))
    measured = data.drop_duplicates("state").set_index("state")["measured"]
    assert measured.to_dict() == {"before": True, "partition": False, "filesystem": True}
    assert "Partition grown (deduced)" in figures.disk_map_alt(tables.lab_run(samples=False))


@pytest.mark.parametrize(
    ("partition", "filesystem", "expected"),
    [
        (PARTITION, (FILESYSTEM[0],) * 2, ["before", "after"]),
        ((PARTITION[0],) * 2, (FILESYSTEM[0],) * 2, ["before", "after"]),
    ],
    ids=["filesystem kept", "partition kept"],
)
def test_without_both_growths_there_is_nothing_between(partition, filesystem, expected):
    run = tables.lab_run(partition=partition, filesystem=filesystem)
    assert figures.disk_map_data(run)["state"].drop_duplicates().tolist() == expected


def test_the_image_is_the_first_state_where_the_partition_grew_before_bootcmd():
    late = tables.lab_run(partition=(PARTITION[1],) * 2, filesystem=(FILESYSTEM[1],) * 2)
    image = sizes_table(
        [
            row("image", "virtual_disk", 2214592512, device="vda"),
            row("image", "partition", PARTITION[0], device="vda1", start_bytes=116391936),
            row("image", "filesystem", FILESYSTEM[0], device="vda1", mountpoint="/"),
        ]
    )
    data = figures.disk_map_data(pd.concat([image, late], ignore_index=True))
    assert data["state"].iloc[0] == "image"
    assert states(data, "disk")[0] == ("image", 0, 2214592512)


def test_without_starts_root_lies_last_and_that_is_marked():
    data = figures.disk_map_data(tables.lab_run().drop(columns="start_bytes"))
    before = data[(data["state"] == "before") & (data["kind"] == "partition")]
    assert before["device"].tolist() == ["vda14", "vda15", "vda1"]
    assert before["start_bytes"].tolist() == [0, 4 * MIB, 110 * MIB]
    assert not before["placed"].any()


def test_a_filesystem_on_the_whole_disk_needs_no_partition():
    rows = [row("before", "virtual_disk", GIB, device="vda")]
    for stage, size in (("before", 100 * MIB), ("after", 900 * MIB)):
        rows.append(row(stage, "filesystem", size, device="vda", mountpoint="/"))
    sizes = sizes_table(rows)
    ax = figures.plot_disk_map(sizes)
    assert title_of(ax) == "The filesystem on the whole disk grew to 900 MiB"


@pytest.mark.parametrize(
    ("run", "title"),
    [
        ("r1", "The partition grew to 19.9 GiB, the filesystem to 19.6 GiB"),
        ("r2", "The partition grew to 19.9 GiB, the filesystem stayed at 1.9 GiB"),
        ("r3", "Nothing grew: partition 2.0 GiB, filesystem 1.9 GiB"),
    ],
)
def test_the_title_is_the_finding(run, title):
    ax = figures.plot_disk_map(tables.three_runs(), run=run)
    assert title_of(ax) == title


def test_scenarios_say_what_grew_in_each_run():
    data = figures.scenarios_data(tables.three_runs())
    assert data["grew"].tolist() == [True, True, True, False, False, False]
    ax = figures.plot_scenarios(tables.three_runs())
    assert "both grew in 1, only the partition in 1, nothing in 1" in title_of(ax)


def test_what_was_not_measured_is_not_called_kept():
    runs = pd.concat(
        [tables.three_runs(), tables.whole_disk_run(), tables.unmeasured_run()], ignore_index=True
    )
    data = figures.scenarios_data(runs).set_index(["run", "layer"])
    assert data["grew"].isna().tolist() == [False] * 6 + [True, False, True, True]
    title = title_of(figures.plot_scenarios(runs))
    assert title == (
        "Of 5 runs: both grew in 1, only the partition in 1, only the filesystem in 1, "
        "nothing in 1, not measured in 1"
    )
    text = figures.scenarios_alt(runs)
    assert "whole disk: partition no partition, filesystem 19.7 GiB" in text
    assert "no seed: partition not measured, filesystem not measured" in text


@pytest.mark.parametrize(
    ("sizes", "scenarios", "timeline"),
    [
        (
            tables.whole_disk_run(),
            "The filesystem on the whole disk grew to 19.7 GiB",
            "The filesystem on the whole disk grew between 41.0 s and 88.0 s",
        ),
        (
            tables.unmeasured_run(),
            "Neither partition nor filesystem was measured",
            "Whether partition and filesystem grew was not measured",
        ),
        (
            tables.lab_run()[lambda sizes: sizes["layer"] != "partition"],
            "The filesystem grew to 19.6 GiB; the partition was not compared",
            "The filesystem grew just before 53.1 s; the partition was not compared",
        ),
        (
            tables.lab_run()[lambda sizes: sizes["stage"] == "after"],
            "Partition 19.9 GiB, filesystem 19.6 GiB",
            "Whether partition and filesystem grew was not measured",
        ),
    ],
    ids=["whole disk", "no seed", "no partition", "after only"],
)
def test_titles_say_what_was_not_measured(sizes, scenarios, timeline):
    assert title_of(figures.plot_scenarios(sizes)) == scenarios
    assert title_of(figures.plot_timeline(sizes)) == timeline


def test_a_map_of_nothing_is_refused_in_words():
    with pytest.raises(CloudlabError, match="no map of it") as caught:
        figures.plot_disk_map(tables.unmeasured_run())
    assert "cloudlab explain" in caught.value.hint


def test_what_lay_on_the_image_is_the_first_state():
    data = figures.disk_map_data(tables.with_image(tables.lab_run()))
    assert data["state"].unique().tolist() == ["image", "before", "partition", "filesystem"]
    assert [size for _, _, size in states(data, "disk")] == [2214592512, *[20 * GIB] * 3]
    # A disk that booted before holds more than its image.
    again = tables.with_image(tables.lab_run(partition=(PARTITION[1],) * 2))
    again.loc[(again["stage"] == "image") & (again["device"] == "vda1"), "size_bytes"] = PARTITION[
        1
    ]
    data = figures.disk_map_data(again)
    assert data["state"].unique().tolist() == ["launch", "before", "after"]
    assert {size for _, _, size in states(data, "disk")} == {20 * GIB}


def test_a_filesystem_that_fills_its_partition_has_no_free_tail():
    data = figures.disk_map_data(tables.lab_run(filesystem=(FILESYSTEM[0], 21148409856)))
    root = data[(data["kind"] == "filesystem") & (data["mountpoint"] == "/")]
    assert root.set_index("state")["extent_bytes"].fillna(0).to_dict() == {
        "before": PARTITION[0],
        "partition": 0,
        "filesystem": PARTITION[1],
    }


def test_a_ruler_widens_what_is_small_and_keeps_the_rest_even():
    scale, widened = ruler(1000, 100, [(0, 1), (1, 5), (5, 1000)], 2)
    assert widened
    assert [scale.at(place) for place in (0, 1, 5, 1000)] == pytest.approx([0, 2, 4, 100])
    assert scale.at(502.5) == pytest.approx(52)
    even, widened = ruler(1000, 100, [(0, 500), (500, 1000)], 2)
    assert not widened
    assert even.at(250) == pytest.approx(25)


def test_a_ruler_widens_overlapping_spans_of_several_states():
    scale, _ = ruler(1000, 100, [(0, 1), (0, 4), (2, 6), (6, 1000)], 2)
    for start, end in ((0, 1), (0, 4), (2, 6)):
        assert scale.at(end) - scale.at(start) >= 2 - 1e-9
    assert scale.at(1000) == pytest.approx(100)


@pytest.mark.parametrize("kind", figures.KINDS)
def test_the_runs_name_stands_before_its_title(kind):
    given, _ = ALTS[kind]
    plain = title_of(figures.KINDS[kind].plot(*given))
    named = figures.KINDS[kind].plot(*given, labels={"name": "first try"})
    assert title_of(named) == f"first try: {plain}"


def test_layers_say_whose_disk_was_measured():
    data = figures.layers_data(tables.unmeasured_run())
    assert data["layer"].tolist() == ["image_file", "overlay_file", "image_disk"]
    host = row("after", "virtual_disk", 20 * GIB, device="vda", source="host: qemu-img info")
    sizes = pd.concat([tables.unmeasured_run(), sizes_table([host]).assign(run="none")])
    last = figures.layers_data(sizes).set_index("layer")["last_bytes"]
    assert last["virtual_disk"] == 20 * GIB


def test_runs_of_the_same_scenario_keep_their_names():
    twice = pd.concat([tables.lab_run("a"), tables.lab_run("b")], ignore_index=True)
    text = figures.scenarios_alt(twice)
    assert "default (a): " in text
    assert "default (b): " in text


def test_the_timeline_knows_the_jumps():
    run = tables.lab_run()
    assert jumps(figures.timeline_data(run)) == {
        "partition": (52.3, 52.3),
        "filesystem": (53.1, 53.1),
        "overlay_file": (0.0, 88.0),
    }
    ax = figures.plot_timeline(run)
    assert (
        title_of(ax) == "The partition grew just before 52.3 s, the filesystem just before 53.1 s"
    )


def test_without_samples_the_moment_is_not_known():
    ax = figures.plot_timeline(tables.lab_run(samples=False))
    assert title_of(ax) == "Partition and filesystem grew between 41.0 s and 88.0 s"
    guess, line, *_ = [line for line in ax.lines if line.get_color() == "#0072B2"]
    assert guess.get_xydata().tolist() == [[41, PARTITION[0]], [88, PARTITION[1]]]
    assert guess.get_linestyle() == ":"
    assert np.isnan(line.get_ydata()).tolist() == [False, True, False, False]


def test_the_disk_starts_as_large_as_the_image_makes_it():
    own = row("image", "virtual_disk", 2214592512, device="lab.qcow2")
    sizes = pd.concat([sizes_table([own]), tables.lab_run()], ignore_index=True)
    data = figures.layers_data(sizes)
    disks = data[data["layer"] == "virtual_disk"]
    assert disks["device"].tolist() == ["vda", "vdb"]
    assert disks["first_bytes"].tolist() == [2214592512, 374784]
    assert disks["last_bytes"].tolist() == [20 * GIB, 374784]


def test_rounded_sizes_do_not_make_the_disk_larger():
    sizes = sizes_table(
        [
            row("after", "virtual_disk", 20 * GIB, device="vda", exact=False),
            row("after", "partition", int(19.9 * GIB), device="vda1", exact=False),
            row("after", "partition", 106 * MIB, device="vda15", exact=False),
        ]
    ).assign(run="", scenario="")
    assert states(figures.disk_map_data(sizes), "disk") == [("after", 0, 20 * GIB)]
    assert figures.scenarios_alt(sizes).startswith("Partition and filesystem by run. this run: ")


def test_rows_of_an_unmarked_console_count_as_after():
    sizes = tables.lab_run()
    sizes = sizes[sizes["stage"] == "after"].assign(stage=pd.NA)
    assert figures.disk_map_data(sizes)["state"].unique().tolist() == ["after"]


def test_a_partitions_mount_point_does_not_make_it_another():
    sizes = sizes_table(
        [
            row("after", "partition", PARTITION[1], device="vda1"),
            row("after", "partition", 20 * GIB, device="vda1", mountpoint="/", exact=False),
        ]
    )
    assert figures.layers_data(sizes)["last_bytes"].tolist() == [PARTITION[1]]


def test_the_overlay_map_shows_the_disk_of_its_run():
    extents = pd.concat(
        [tables.extents_table(MIB, 2), tables.extents_table(GIB, 2).assign(run="two")]
    )
    partitions = tables.partitions_table(MIB, 2).assign(run="one")
    assert "disk of 1 MiB" in figures.overlay_map_alt(extents, partitions, run="one")
    assert "outside partitions 256 MiB" in figures.overlay_map_alt(extents, partitions, run="two")
    with pytest.raises(UsageError, match="2 runs"):
        figures.plot_overlay_map(extents, partitions)


def test_overlay_bytes_are_counted_by_partition_and_cell():
    extents = pd.DataFrame(
        [(0, 10, "data"), (10, 80, "backing"), (90, 30, "data"), (120, 80, "zero")],
        columns=["start_bytes", "length_bytes", "kind"],
    )
    partitions = pd.DataFrame(
        [("p1", 5, 95), ("p2", 100, 50)], columns=["device", "start_bytes", "size_bytes"]
    )
    data = figures.overlay_map_data(extents, partitions, cell_bytes=50)
    assert list(data.itertuples(index=False, name=None)) == [
        (0, "outside", 5),
        (0, "p1", 5),
        (1, "p1", 10),
        (2, "p2", 20),
    ]
    assert figures.overlay_map_alt(extents, partitions) == (
        "Map of a disk of 200 B as a grid; 40 B of data were written, 80 B were zeroed, which "
        "takes no room. p1 15 B, p2 20 B, outside partitions 5 B."
    )
    written = extents[extents["kind"] != "zero"]
    assert "; 40 B were written. p1" in figures.overlay_map_alt(written, partitions)


@pytest.mark.parametrize("disk", [MIB, 20 * GIB, 20 * GIB + 512, 2 * TIB])
def test_the_grid_holds_the_whole_disk(disk):
    grid = choose_grid(disk, 400, 200, 10)
    assert grid.columns * grid.rows * grid.cell_bytes >= disk
    assert grid.columns * (grid.rows - 1) * grid.cell_bytes < disk
    assert grid.columns * grid.wide == pytest.approx(400)
    assert 0.9 * 200 <= grid.rows * grid.high <= 200.1
    assert 0.4 < grid.wide / grid.high < 2.1
    assert grid.cell_bytes & (grid.cell_bytes - 1) == 0


@pytest.mark.parametrize(
    ("predicted", "measured", "right"),
    [
        ("2G", 2040913920, True),
        ("2.0G", 2040913920, True),
        ("1.9G", 2040913920, True),
        ("2.1G", 2040913920, False),
        ("2G", 2097152000, True),
        ("1.8G", 2097152000, False),
        ("20G", PARTITION[1], True),
        ("20G", FILESYSTEM[0], False),
        ("2G", 1600 * MIB, False),
        ("1.1M", 1025 * KIB, True),
        ("0", 0, True),
        ("1G", 0, False),
    ],
)
def test_a_prediction_is_right_as_lsblk_and_df_print_sizes(predicted, measured, right):
    assert figures.is_right(parse_size(predicted), measured) is right


@pytest.mark.parametrize(
    ("size", "lsblk", "df"),
    [
        (0, "0B", "0"),
        (512, "512B", "512"),
        (1024, "1K", "1.0K"),
        (2040913920, "1.9G", "2.0G"),
        (2097152000, "2G", "2.0G"),
        (21148409856, "19.7G", "20G"),
        (GIB - 1, "1G", "1.0G"),
        (10 * GIB - 1, "10G", "10G"),
    ],
)
def test_sizes_are_printed_as_the_tools_do(size, lsblk, df):
    assert (lsblk_text(size), df_text(size)) == (lsblk, df)


def test_predictions_within_five_percent_are_right():
    data = figures.prediction_data(tables.predictions_table())
    assert data["right"].tolist() == [True, False]
    assert data["error"].iloc[0] == pytest.approx(20 * GIB / PARTITION[1] - 1)


def test_stages_have_durations_and_a_longest_one():
    data = figures.stages_data(tables.stages_table())
    assert data["duration_s"].sum() == pytest.approx(90.0)
    ax = figures.plot_stages(tables.stages_table())
    assert title_of(ax) == "cloud-init init took longest: 19.0 s of 90.0 s"


SIZES = tables.lab_run()
ALTS = {
    "layers": ((SIZES,), ["366 KiB", "197 MiB", "2.0 GiB to 19.9 GiB", "1.9 GiB to 19.6 GiB"]),
    "disk-map": ((SIZES,), ["disk of 20 GiB", "free 17.9 GiB", "vda14 4 MiB", "vda15 106 MiB"]),
    "scenarios": ((tables.three_runs(),), ["partition kept: partition 2.0 GiB, filesystem 1.9"]),
    "timeline": (
        (SIZES, tables.stages_table()),
        ["over 90.0 s", "partition: 2.0 GiB at 41.0 s, 19.9 GiB at 52.3 s", "19.6 GiB at 53.1 s"],
    ),
    "overlay-map": (
        (tables.extents_table(MIB, 2), tables.partitions_table(MIB, 2)),
        ["256 KiB of data were written", "vda1 128 KiB, vda2 128 KiB"],
    ),
    "prediction": ((tables.predictions_table(),), ["predicted 20 GiB, measured 1.9 GiB"]),
    "stages": ((tables.stages_table(),), ["kernel: 6.8 s, from 1.2 s to 8.0 s"]),
}


@pytest.mark.parametrize("kind", figures.KINDS)
def test_the_alternative_text_says_the_numbers(kind):
    given, expected = ALTS[kind]
    text = figures.KINDS[kind].alt(*given)
    for part in expected:
        assert part in text


@pytest.mark.parametrize("kind", figures.KINDS)
def test_drawing_leaves_the_tables_as_they_were(kind):
    given, _ = ALTS[kind]
    copies = [table.copy() for table in given]
    figures.KINDS[kind].plot(*given)
    for table, copy in zip(given, copies, strict=True):
        pd.testing.assert_frame_equal(table, copy)


@pytest.mark.parametrize("plot", [figures.plot_layers, figures.plot_disk_map])
def test_a_figure_of_one_run_asks_which(plot):
    with pytest.raises(UsageError, match="3 runs") as caught:
        plot(tables.three_runs())
    assert "r1, r2, r3" in caught.value.hint
    with pytest.raises(UsageError, match="no run called 'r9'"):
        plot(tables.three_runs(), run="r9")


@pytest.mark.parametrize("kind", figures.KINDS)
def test_empty_tables_and_missing_columns_are_named(kind):
    given, _ = ALTS[kind]
    first = given[0]
    with pytest.raises(CloudlabError, match="no rows"):
        figures.KINDS[kind].plot(first.head(0), *given[1:])
    with pytest.raises(CloudlabError, match="lacks the column"):
        figures.KINDS[kind].plot(first.drop(columns=first.columns[-1:]).drop(
            columns=["size_bytes", "kind", "start_s", "measured_bytes"], errors="ignore"
        ), *given[1:])  # fmt: skip


def test_places_are_moved_apart_within_their_limits():
    assert apart([10, 12, 50], 10, 0, 60) == [10, 20, 50]
    assert apart([55, 58], 10, 0, 60) == [50, 60]

"""The sizes table, its file, and whether numbers agree."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from console_text import GIB, MIB, block, disk_frames, filesystem
from hypothesis import given
from hypothesis import strategies as st

from cloudlab.errors import ParseError
from cloudlab.run.tables import write_csv
from cloudlab.sizes import (
    SIZES_COLUMNS,
    check_sizes,
    console_sizes,
    parse_console,
    read_sizes,
    sizes_frame,
    to_json,
)

DATA = Path(__file__).parent / "data"
PREFIX = ["run", "scenario", "stage", "time_s", "layer", "device", "mountpoint"]
DESIGN = [*PREFIX, "size_bytes", "used_bytes", "exact", "source", "line"]


def human(root, disk="20G", filesystem_size="20G", boot="106M"):
    return f"""\
NAME    MAJ:MIN RM  SIZE RO TYPE MOUNTPOINTS
sr0      11:0    1 1024M  0 rom  /media/cdrom
vda     254:0    0   {disk}  0 disk
├─vda1  254:1    0 {root}  0 part /
└─vda15 254:15   0  {boot}  0 part /boot/efi
vdb     254:16   0  366K  0 disk /mnt/seed
Filesystem      Size  Used Avail Use% Mounted on
tmpfs           200M  636K  199M   1% /run
/dev/root        {filesystem_size}  1.1G   19G   6% /
/dev/vda15      105M  3.4M  102M   4% /boot/efi
/dev/sr0        366K  366K     0 100% /media/cdrom
/dev/vdb        366K  366K     0 100% /mnt/seed
/dev/loop0       56M   56M     0 100% /snap/core/1
"""


def rows(frame, *columns):
    return [tuple(row) for row in frame[list(columns)].itertuples(index=False)]


def test_the_columns_are_the_designs():
    assert list(SIZES_COLUMNS) == [*DESIGN, "start_bytes"]
    frame = sizes_frame([])
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(SIZES_COLUMNS)
    assert frame.empty


def test_human_tables_become_layers_without_the_seed():
    frame = console_sizes(parse_console(human("19.9G")), run="r1", scenario="default")
    assert rows(frame, "layer", "device", "mountpoint", "source", "line") == [
        ("virtual_disk", "vda", pd.NA, "console: lsblk", 3),
        ("partition", "vda1", "/", "console: lsblk", 4),
        ("partition", "vda15", "/boot/efi", "console: lsblk", 5),
        ("filesystem", "vda1", "/", "console: df", 9),
        ("filesystem", "vda15", "/boot/efi", "console: df", 10),
    ]
    assert set(frame["run"]) == {"r1"}
    assert set(frame["scenario"]) == {"default"}
    assert not frame["exact"].any()
    assert frame["stage"].isna().all()
    assert frame["start_bytes"].isna().all()


def test_frames_become_exact_rows_with_place_and_time():
    text = block("after", *disk_frames(20363 * MIB, 19000 * MIB), human=human("19.9G"))
    frame = console_sizes(parse_console(text))
    exact = frame[frame["exact"]]
    assert rows(exact, "stage", "layer", "device", "size_bytes", "line") == [
        ("after", "virtual_disk", "vda", 20 * GIB, 15),
        ("after", "partition", "vda1", 20363 * MIB, 16),
        ("after", "partition", "vda14", 4 * MIB, 17),
        ("after", "partition", "vda15", 106 * MIB, 18),
        ("after", "filesystem", "vda1", 19000 * MIB, 20),
        ("after", "filesystem", "vda15", 105 * MIB, 21),
    ]
    assert set(exact["source"]) == {"console: exact"}
    assert list(exact["start_bytes"][:3]) == [pd.NA, 111 * MIB, 1 * MIB]
    assert set(frame["time_s"]) == {23.5}
    timed = console_sizes(parse_console(text), times={15: 41.25})
    assert rows(timed[timed["line"] == 15], "time_s") == [(41.25,)]


def test_a_filesystem_on_the_whole_disk_makes_it_a_virtual_disk():
    text = "NAME MAJ:MIN RM SIZE RO TYPE MOUNTPOINT\nvda 254:0 0 20G 0 disk /\nvdb 254:16 0 1M 0 disk\n"
    text += "Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/vda 20134592 1 1 6% /\n"
    frame = console_sizes(parse_console(text))
    assert rows(frame, "layer", "device", "mountpoint") == [
        ("virtual_disk", "vda", "/"),
        ("filesystem", "vda", "/"),
    ]


CELLS = {
    "string": st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1)
    | st.sampled_from(["NA", "nan", "None", "a,b", '"', "true"]),
    "Float64": st.floats(allow_nan=False, allow_infinity=False),
    "Int64": st.integers(-(2**63), 2**63 - 1),
    "boolean": st.booleans(),
}
ROWS = st.fixed_dictionaries({}, optional={n: CELLS[dtype] for n, dtype in SIZES_COLUMNS.items()})


@given(table=st.lists(ROWS, max_size=5))
def test_a_written_table_is_read_back_as_it_was(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("sizes") / "sizes.csv"
    frame = sizes_frame(table)
    write_csv(frame, path)
    pd.testing.assert_frame_equal(read_sizes(path), frame)
    assert [p.name for p in path.parent.iterdir()] == ["sizes.csv"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a,b\n1,2\n",
        b"\x00\xff\xfe",
        ",".join(DESIGN).encode() + b",start_bytes\n" + b"x," * 13,
    ],
    ids=["empty", "other", "binary", "wrong values"],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "sizes.csv"
    path.write_bytes(content)
    with pytest.raises(ParseError, match=r"sizes\.csv"):
        read_sizes(path)
    with pytest.raises(ParseError, match=r"missing\.csv"):
        read_sizes(tmp_path / "missing.csv")


def test_an_unknown_column_is_refused():
    with pytest.raises(ParseError, match="no column sizes"):
        sizes_frame([{"sizes": 1}])


def test_a_real_boot_of_the_lab_image_is_read_in_full():
    parsed = parse_console((DATA / "console-debian-11.log").read_bytes())
    assert [(b.stage, b.complete, b.uptime_s) for b in parsed.blocks] == [
        ("before", True, 54.91),
        ("after", True, 81.73),
    ]
    assert [(r.stage, r.exact) for r in parsed.reports] == [
        ("before", False),
        ("before", True),
        ("after", False),
        ("after", True),
    ]
    assert check_sizes(parsed) == []
    frame = console_sizes(parsed)
    root = frame[(frame["mountpoint"] == "/") & frame["exact"]]
    assert rows(root, "stage", "layer", "size_bytes", "used_bytes", "line") == [
        ("before", "partition", 2000 * MIB, pd.NA, 537),
        ("before", "filesystem", 2040913920, 337596416, 541),
        ("after", "partition", 21358427648, pd.NA, 619),
        ("after", "filesystem", 21148409856, 337657856, 623),
    ]
    assert "vdb" not in set(frame["device"])


# ---- do the numbers agree ----

BEFORE = block(
    "before", *disk_frames(2000 * MIB, 1900 * MIB), human=human("2G", filesystem_size="1.9G")
)
AFTER = block("after", *disk_frames(20363 * MIB, 20300 * MIB), human=human("19.9G"))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BEFORE + AFTER, id="grown"),
        pytest.param(BEFORE + BEFORE.replace("before", "after"), id="kept, frames unreadable"),
        # As in the article: df rounds 19.85G up to 20G on a partition of 19.9G.
        pytest.param(human("19.9G", filesystem_size="20G"), id="rounded up"),
    ],
)
def test_true_numbers_agree(text):
    assert check_sizes(parse_console(text)) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param(AFTER.replace("19.9G", "18.9G"), "lsblk shows vda1", id="lsblk and exact"),
        pytest.param(
            AFTER.replace("  20G  1.1G", "  18G  1.1G"), "df shows / with", id="df and exact"
        ),
        pytest.param(human("20.5G"), "partition vda1 .* larger than its disk vda", id="partition"),
        pytest.param(
            human("19.9G", filesystem_size="22G"), "filesystem on / .* larger", id="filesystem"
        ),
        pytest.param(
            block("after", *disk_frames(20 * GIB - 110 * MIB, GIB)), "behind the end", id="place"
        ),
        pytest.param(
            block("after", *disk_frames(GIB, GIB + 1)), "filesystem on / .* larger", id="one byte"
        ),
        pytest.param(
            block("before", *disk_frames(GIB, GIB))
            + block("after", *disk_frames(GIB - 1, GIB - MIB)),
            "vda1 shrank",
            id="partition shrank",
        ),
        pytest.param(
            block("before", *disk_frames(GIB, GIB)) + block("after", *disk_frames(GIB, GIB - 1)),
            "filesystem on / shrank",
            id="filesystem shrank",
        ),
        pytest.param(
            block("before", *disk_frames(GIB, GIB), uptime_s=127.1)
            + block("after", *disk_frames(GIB, GIB), uptime_s=39.4),
            r"made at 39\.4 s of the guest's uptime, after an earlier one at 127\.1 s",
            id="uptime falls",
        ),
        pytest.param(
            block("sample", *disk_frames(GIB, 2 * GIB)), "filesystem on / .* larger", id="sample"
        ),
    ],
)
def test_a_contradiction_is_said(text, complaint):
    found = check_sizes(parse_console(text))
    assert found
    assert any(pd.Series(found).str.contains(complaint))
    assert all(sentence.startswith("line ") for sentence in found)


def test_the_design_json():
    answer = to_json(parse_console(human("19.9G")))
    (report,) = answer.pop("reports")
    assert answer == {}
    assert list(report) == ["stage", "lsblk", "df", "exact"]
    assert report["lsblk"][2] == {
        "name": "vda1",
        "size_bytes": 21367462298,
        "type": "part",
        "mountpoints": ["/"],
        "line": 4,
    }
    assert report["df"][1] == {
        "filesystem": "/dev/root",
        "size_bytes": 20 * GIB,
        "used_bytes": 1181116006,
        "available_bytes": 19 * GIB,
        "mountpoint": "/",
        "line": 9,
    }


def test_a_filesystem_without_its_device_is_still_a_row():
    text = block("after", filesystem("vda1", "/", GIB, MIB))
    assert rows(console_sizes(parse_console(text)), "layer", "device") == [("filesystem", "vda1")]


def test_parsing_needs_no_pandas():
    code = "import sys, cloudlab.sizes as s; s.parse_console('NAME SIZE TYPE\\nvda 1G disk\\n')"
    code += "; sys.exit('pandas' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

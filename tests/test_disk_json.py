"""`inspect --json` as design and run folders rely on it, written and read back."""

import copy
import json

import pytest
from command import cloudlab
from disks import MIB, blank, partitioned, patched
from hypothesis import given
from hypothesis import strategies as st

from cloudlab import tools
from cloudlab.disk import DiskLayout, create_overlay, inspect_disk
from cloudlab.errors import CloudlabError, DiskError
from cloudlab.run.value import recording_names, recordings_folder

RECORDED = {
    f"{name}-{key}": json.loads((recordings_folder() / name / "run.json").read_text())[key]
    for name in recording_names()
    for key in ("disk_before", "disk")
}


def ext4(path):
    tools.run(["mke2fs", "-q", "-t", "ext4", "-L", "root", blank(path, 32 * MIB)])
    return path


def mounted(path):
    ext4(path)
    tools.run(["debugfs", "-w", "-R", "set_super_value mtime @1700000000", path])
    return path


def btrfs(path):
    devices = [blank(path, 200 * MIB), blank(path.with_suffix(".second"), 200 * MIB)]
    tools.run(["mkfs.btrfs", "-q", "-f", *devices])
    return path


def overlay(path):
    script = "label: gpt\nsize=8M,name=ü\nsize=4M,type=21686148-6449-6E6F-744E-656564454649\n"
    base = partitioned(path.with_suffix(".raw"), script, 64 * MIB)
    return create_overlay(base, "raw", path, 128 * MIB).path


LOGICAL = "label: dos\nsize=1M,type=83,bootable\ntype=5\nstart=8192,size=2048,type=83\n"
DISKS = {
    "gpt": lambda path: partitioned(path, "label: gpt\nstart=40960\nstart=2048,size=2048\n", 64 * MIB),
    "dos": lambda path: partitioned(path, LOGICAL, 64 * MIB),
    "overlay": overlay,
    "ext4": ext4,
    "mounted": mounted,
    "btrfs": btrfs,
    "unknown": lambda path: patched(blank(path, MIB), (0, b"?")),
    "blank": lambda path: blank(path, MIB),
    "sun": lambda path: tools.run(["sfdisk", "-q", blank(path, 64 * MIB)], stdin="label: sun\n")
    and path,
}  # fmt: skip


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disks")
    return {name: inspect_disk(make(folder / name)) for name, make in DISKS.items()}


def is_size(value):
    return type(value) is int and value >= 0


def check_contract(answer):
    """Check what the design says of `inspect --json`, key by key."""
    assert is_size(answer["virtual_size_bytes"])
    assert is_size(answer["disk_size_bytes"])
    assert answer["format"] in {"qcow2", "raw"}
    assert answer["backing_file"] is None or isinstance(answer["backing_file"], str)
    assert answer["table"] in {"gpt", "dos", None}
    assert isinstance(answer["partitions"], list)
    starts = [each["start_bytes"] for each in answer["partitions"]]
    assert starts == sorted(starts)
    for each in answer["partitions"]:
        assert is_size(each["start_bytes"])
        assert is_size(each["size_bytes"])
        if answer["table"] is None:
            assert (each["number"], each["type"]) == (None, None)
        else:
            assert type(each["number"]) is int
            assert isinstance(each["type"], str)
        filesystem = each["filesystem"]
        if filesystem is not None:
            assert isinstance(filesystem["type"], str)
            assert filesystem["type"]
            assert isinstance(filesystem["label"], str)
            assert filesystem["size_bytes"] is None or is_size(filesystem["size_bytes"])


@pytest.mark.parametrize("name", DISKS)
def test_the_json_keeps_the_contract(layouts, name):
    check_contract(json.loads(json.dumps(layouts[name].to_json())))


EXPECTED = {
    "gpt": ("gpt", [2, 1]),
    "dos": ("dos", [1, 2, 5]),
    "overlay": ("gpt", [1, 2]),
    "ext4": (None, [None]),
    "mounted": (None, [None]),
    "btrfs": (None, [None]),
    "unknown": (None, [None]),
    "blank": (None, []),
    "sun": (None, []),
}


@pytest.mark.parametrize("name", DISKS)
def test_tables_and_numbers(layouts, name):
    answer = layouts[name].to_json()
    assert (answer["table"], [each["number"] for each in answer["partitions"]]) == EXPECTED[name]


def test_the_values_of_the_contract(layouts):
    answer = layouts["overlay"].to_json()
    assert (answer["format"], answer["virtual_size_bytes"]) == ("qcow2", 128 * MIB)
    assert answer["backing_file"].endswith("overlay.raw")
    (whole,) = layouts["ext4"].to_json()["partitions"]
    assert {key: whole["filesystem"][key] for key in ("type", "label", "size_bytes")} == {
        "type": "ext4",
        "label": "root",
        "size_bytes": 32 * MIB,
    }
    (whole,) = layouts["unknown"].to_json()["partitions"]
    assert (whole["filesystem"], whole["unknown_content"]) == (None, True)
    assert layouts["sun"].to_json()["other_table"] == "sun"


def test_the_command_prints_that_json(layouts):
    path = layouts["overlay"].path
    printed = json.loads(cloudlab("inspect", "--json", path).stdout)
    check_contract(printed)
    assert printed == json.loads(json.dumps(layouts["overlay"].to_json()))


@pytest.mark.parametrize("name", DISKS)
def test_a_layout_is_read_back_as_it_was(layouts, name):
    document = json.loads(json.dumps(layouts[name].to_json()))
    assert DiskLayout.from_json(document) == layouts[name]


# Records of earlier versions


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_layouts_are_read(name):
    document = RECORDED[name]
    layout = DiskLayout.from_json(document)
    check_contract(layout.to_json())
    again = json.loads(json.dumps(layout.to_json()))
    assert {key: again[key] for key in document if key != "partitions"} == {
        key: value for key, value in document.items() if key != "partitions"
    }
    for new, old in zip(again["partitions"], document["partitions"], strict=True):
        assert {key: new[key] for key in old if key != "filesystem"} == {
            key: value for key, value in old.items() if key != "filesystem"
        }
        if old["filesystem"] is None:
            assert new["filesystem"] is None
        else:
            assert old["filesystem"].items() <= new["filesystem"].items()


WRONG = {
    "nothing": lambda d: d.clear(),
    "an error instead": lambda d: (d.clear(), d.update(error="The disk could not be read.")),
    "size as text": lambda d: d.update(virtual_size_bytes="20G"),
    "size as a fraction": lambda d: d.update(virtual_size_bytes=0.5),
    "size as a truth": lambda d: d.update(disk_size_bytes=True),
    "negative size": lambda d: d.update(virtual_size_bytes=-1),
    "size beyond int64": lambda d: d.update(virtual_size_bytes=1 << 70),
    "no partitions": lambda d: d.pop("partitions"),
    "partitions as an object": lambda d: d.update(partitions={"1": {}}),
    "a partition as a number": lambda d: d["partitions"].append(5),
    "a partition without a size": lambda d: d["partitions"][0].pop("size_bytes"),
    "a partition beyond int64": lambda d: d["partitions"][0].update(start_bytes=1 << 63),
    "number as text": lambda d: d["partitions"][0].update(number="1"),
    "filesystem as text": lambda d: d["partitions"][0].update(filesystem="ext4"),
    "a moment that is none": lambda d: d["partitions"][1]["filesystem"].update(
        last_mounted_at="yesterday"
    ),
    "another table": lambda d: d.update(table="sun"),
    "another format": lambda d: d.update(format="vmdk"),
    "path as a list": lambda d: d.update(path=["/"]),
    "another place of the backup": lambda d: d["gpt_backup"].update(place="middle"),
    "a warning as a number": lambda d: d.update(warnings=[1]),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_a_wrong_record_is_an_error_of_ours(spoil):
    document = copy.deepcopy(RECORDED["default-disk"])
    spoil(document)
    with pytest.raises(DiskError, match="record of a disk is not valid") as caught:
        DiskLayout.from_json(document)
    assert caught.value.hint


@pytest.mark.parametrize("document", [None, [], "disk", 5, {"partitions": [[]]}])
def test_no_object_is_an_error_of_ours(document):
    with pytest.raises(DiskError, match="not valid"):
        DiskLayout.from_json(document)


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*path, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PLACES = [path for path in places(RECORDED["default-disk"]) if path]


@given(path=st.sampled_from(PLACES), value=JSON)
def test_any_value_anywhere_is_read_or_refused(path, value):
    document = copy.deepcopy(RECORDED["default-disk"])
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    try:
        layout = DiskLayout.from_json(document)
    except CloudlabError:
        return
    # What is read can be used.
    assert DiskLayout.from_json(layout.to_json()) == layout
    assert layout._repr_html_()

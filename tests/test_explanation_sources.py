"""Evidence comes as files, folders, pipes, archives and disk images."""

import io
import json
import os
import subprocess
import tarfile
import threading

import pytest
from explained import DF, GREW, ROOM, WHOLE

import cloudlab as cl
from cloudlab.errors import ParseError
from cloudlab.explanation import evidence
from cloudlab.explanation.evidence import redact_files
from cloudlab.explanation.model import Reason, Subject


def partition_of(explanation):
    return next(iter(explanation.of(Subject.PARTITION)))


def test_a_folder_is_read_with_the_folders_in_it(tmp_path):
    (tmp_path / "logs" / "old").mkdir(parents=True)
    (tmp_path / "logs" / "old" / "cloud-init.log").write_text(GREW)
    (tmp_path / "logs" / "lsblk.txt").write_text(WHOLE)
    found = partition_of(cl.explain(tmp_path / "logs"))
    assert found.grown
    assert "old/cloud-init.log" in {one.file for one in found.evidence}


def test_links_in_a_folder_are_not_followed(tmp_path):
    (tmp_path / "elsewhere.log").write_text(GREW)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "lsblk.txt").write_text(ROOM)
    before = cl.explain(tmp_path / "logs").to_json()
    (tmp_path / "logs" / "linked.log").symlink_to(tmp_path / "elsewhere.log")
    assert cl.explain(tmp_path / "logs").to_json() == before


def test_a_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(GREW + WHOLE,), daemon=True)
    writer.start()
    assert partition_of(cl.explain(pipe)).grown
    writer.join()


def test_a_stream_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "_MOST_BYTES", 3 << 20)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'yes >"$1" 2>&1', "sh", pipe]) as writer:
        with pytest.raises(ParseError, match="more than 3 MiB") as caught:
            cl.explain(pipe)
        writer.wait()
    assert "journalctl" in caught.value.hint


def test_a_disk_image_that_cannot_be_read_is_refused(tmp_path):
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "a.img", "1M"], check=True
    )
    whole = (tmp_path / "a.img").read_bytes()
    (tmp_path / "a.img").write_bytes(whole[:4] + bytes(3) + b"\x09" + whole[8:])
    with pytest.raises(ParseError, match=r"a\.img is a disk image: .*version 9"):
        cl.explain(tmp_path / "a.img")


# Of util-linux 2.41, without the lines that nothing reads.
TABLE = {
    "label": "gpt", "device": "/dev/vda", "unit": "sectors", "firstlba": 34, "lastlba": 41943006,
    "sectorsize": 512, "partitions": [
        {"node": "/dev/vda1", "start": 227328, "size": 20971520},
        {"node": "/dev/vda2", "start": 21198848, "size": 2097152},
    ],
}  # fmt: skip


def test_a_table_in_json_shows_the_wall():
    shown = f"{ROOM}# sfdisk -J /dev/vda\n{json.dumps({'partitiontable': TABLE}, indent=3)}\n"
    found = partition_of(cl.explain(shown))
    assert found.reason is Reason.WALL
    assert any("partitiontable" in one.text for one in found.evidence)


@pytest.mark.parametrize(
    "damage", ["{", '{"device": 5, "partitions": 3}', "[]", '{"sectorsize": "x"}']
)
def test_a_damaged_table_in_json_has_no_effect(damage):
    shown = f'# sfdisk -J /dev/vda\n{{\n "partitiontable": {damage}}}\n{ROOM}'
    assert cl.explain(shown).statements == cl.explain(f"#\n#\n#\n{ROOM}").statements


def test_redacted_files_are_told_apart(tmp_path):
    for name, host in (("one.log", "web7"), ("two.log", "web8")):
        (tmp_path / name).write_text(f"{host} login: \n{DF.format('10G')}")
    shown = io.StringIO()
    redact_files([tmp_path / "one.log", tmp_path / "two.log"], shown, io.BytesIO())
    assert shown.getvalue().count("==> ") == 2
    assert shown.getvalue().startswith("==> one.log <==\n")


def test_a_text_that_is_too_long_to_redact_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "_MOST_REDACTED_BYTES", 1 << 20)
    (tmp_path / "long.log").write_bytes(b"x" * (1 << 20) + b"\n")
    with pytest.raises(ParseError, match="longer than 1 MiB"):
        redact_files([tmp_path / "long.log"], io.StringIO(), io.BytesIO())


@pytest.mark.parametrize(("most", "grown"), [(1, None), (2, True)])
def test_of_an_archive_with_too_many_files_the_first_are_read(most, grown, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "_MOST_MEMBERS", most)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, text in (("listing", WHOLE), ("log", GREW)):
            (tmp_path / name).write_text(text)
            archive.add(tmp_path / name, name)
    assert partition_of(cl.explain(tmp_path / "a.tar")).grown is grown


@pytest.mark.parametrize("end", ["", '"', '", "x": ', '"}'])
def test_a_line_of_the_journal_that_was_cut_off_is_read_as_it_is(end):
    shown = (
        '{"__CURSOR":"s=1","MESSAGE":"EXT4-fs (vda1): resizing filesystem from 509696 to 5213179'
    )
    found = cl.explain(f'{shown}{end}\n{{"MESSAGE"\n')
    assert [one.grown for one in found.of(Subject.FILESYSTEM)] == [True]

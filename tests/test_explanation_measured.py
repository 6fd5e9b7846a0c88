"""Explanations of cloudlab's own boots: other wordings, missing and damaged evidence."""

import re

import pytest
from console_text import GIB, MIB, block, device, disk_frames, filesystem, frame
from explained import (
    FORKED,
    GREW,
    RESIZED,
    disk,
    explained,
    growpart,
    log,
    only,
    partition,
    resizefs,
)

from cloudlab.explanation import Grower, NoteKind, Reason, Source, Subject

SMALL = (2000 * MIB, 1950 * MIB)
LARGE = (20369 * MIB, 20160 * MIB)
#: The root partition that fills a disk of 20 GiB but for the table's second copy.
FULL_SIZE_BYTES = 20 * GIB - 111 * MIB - MIB


def fact(name, value):
    return {"kind": "fact", "name": name, "value": value}


def picture(stage, frames, uptime_s):
    return block(stage, *frames, uptime_s=uptime_s)


def transcript(before, after, *logs, facts=()):
    """A boot whose root was (partition, filesystem) before and after, in bytes."""
    said = [*(fact(*one) for one in facts), *(log(text) for text in logs)]
    return picture("before", disk_frames(*before), 30.0) + picture(
        "after", [*disk_frames(*after), *said], 60.0
    )


SILENT = "[  OK  ] Reached target basic.target - Basic System.\n\ncloudlab login: \n"


def root_filesystem(text, **evidence):
    return only(explained(text, **evidence), Subject.FILESYSTEM)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("changed (/dev/vda, 1) from 2097152000 to 21358427648", id="20.4 and 22.4"),
        pytest.param("changed (/dev/vda1) from 2097152000 to 21358427648", id="25.1"),
    ],
)
@pytest.mark.parametrize("entry", ["/", "/dev/vda1", "/var", "/dev/disk/by-label/root"])
def test_growpart_is_known_by_its_line(entry, words):
    line = f"2026-11-22 22:28:24,731 - cc_growpart.py[INFO]: '{entry}' resized: {words}"
    found = partition(transcript(SMALL, LARGE, line))
    assert found.finding == (True, Grower.GROWPART, None)
    assert (found.from_bytes, found.to_bytes) == (SMALL[0], LARGE[0])
    assert found.evidence[-1].text == line
    assert found.evidence[-1].source is Source.CLOUD_INIT_LOG


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (growpart("growpart disabled: mode=off"), Reason.GROWPART_OFF),
        (growpart("growpart disabled: mode=False"), Reason.GROWPART_OFF),
        (
            growpart("growpart disabled: /etc/growroot-disabled exists"),
            Reason.GROWROOT_DISABLED,
        ),
        (
            growpart("growpart unable to find resizer for 'auto': No resizers available"),
            Reason.NO_GROWPART_TOOL,
        ),
        (
            growpart("growpart unable to find resizer for 'growpart': mode growpart not available"),
            Reason.NO_GROWPART_TOOL,
        ),
        (
            growpart("growpart unable to find resizer for 'of': unknown resize mode of"),
            Reason.UNKNOWN_MODE,
        ),
        (
            growpart("growpart unable to find resizer for 'gpart': mode gpart not available"),
            Reason.UNKNOWN_MODE,
        ),
        (growpart("growpart: empty device list"), Reason.NOT_ASKED),
        (
            growpart("'/var' SKIPPED: stat of '/dev/vda1' failed: No such file or directory"),
            Reason.GROWPART_FAILED,
        ),
        (
            growpart("'/srv' FAILED: failed to resize: disk=/dev/vda, ptnum=1: Unexpected error"),
            Reason.GROWPART_FAILED,
        ),
        (
            growpart("'/srv' FAILED: failed to resize: disk=/dev/vda, ptnum=14: Unexpected"),
            Reason.NOT_ASKED,
        ),
        (
            growpart("'/dev/vdb1' NOCHANGE: no change necessary (/dev/vdb, 1)"),
            Reason.NOT_ASKED,
        ),
        (
            growpart("'/' FAILED: failed to resize: disk=/dev/vda, ptnum=1: Unexpected error"),
            Reason.GROWPART_FAILED,
        ),
        (
            growpart("'/' SKIPPED: stat of '/dev/vda1' failed: No such file or directory"),
            Reason.GROWPART_FAILED,
        ),
    ],
)
def test_why_the_partition_did_not_grow(line, reason):
    found = partition(transcript(SMALL, SMALL, line))
    assert found.finding == (False, Grower.NOBODY, reason)
    assert found.evidence[2].text == line


@pytest.mark.parametrize(
    ("between", "reason"),
    [(40, Reason.FILESYSTEM_FULL), (400, Reason.GROWPART_FAILED)],
    ids=["its traceback ends so", "something else later"],
)
def test_what_cloud_init_can_write_to_the_console_alone(between, reason):
    """A full disk takes no log; these are the words of a real boot."""
    failed = (
        "[  157.684399] cloud-init[327]: 2026-11-22 23:25:22,109 - util.py[WARNING]: Running module "
        "growpart (<module 'cloudinit.config.cc_growpart' from '/usr/lib/python3/dist-packages/'>) "
        "failed"
    )
    full = "[  160.031190] cloud-init[327]: OSError: [Errno 28] No space left on device: '/var/tmp'"
    earlier = "[   90.000000] cloud-init[327]: OSError: [Errno 28] No space left on device"
    lines = [earlier, failed, *["..."] * between, full]
    found = partition("\n".join(lines) + "\n" + transcript(SMALL, SMALL))
    assert found.finding == (False, Grower.NOBODY, reason)
    assert found.evidence[2].line == 2
    assert (found.evidence[-1].line == len(lines)) is (reason is Reason.FILESYSTEM_FULL)


def test_growpart_that_names_a_link_is_not_taken_for_another_partition():
    line = growpart("'/dev/disk/by-label/root' NOCHANGE: no change necessary (/dev/vda, 1)")
    assert partition(transcript(SMALL, SMALL, line)).reason is Reason.UNKNOWN


@pytest.mark.parametrize(
    ("image_bytes", "reason"),
    [
        pytest.param(20 * GIB, Reason.DISK_NOT_LARGER, id="disk as large as the image"),
        pytest.param(2 * GIB, Reason.GAIN_BELOW_1_MIB, id="disk larger than the image"),
        pytest.param(None, Reason.GAIN_BELOW_1_MIB, id="image not known"),
    ],
)
def test_too_little_room_is_read_off_the_layout(image_bytes, reason):
    line = growpart("'/' NOCHANGE: no change necessary (/dev/vda, 1)")
    full = (FULL_SIZE_BYTES, 20000 * MIB)
    assert partition(transcript(full, full, line), image_bytes=image_bytes).reason is reason


@pytest.mark.parametrize(
    ("table", "gain_bytes", "reason"),
    [
        ("gpt", MIB + 33 * 512 - 512, Reason.GAIN_BELOW_1_MIB),
        ("gpt", MIB + 33 * 512, Reason.UNKNOWN),
        ("dos", MIB - 512, Reason.GAIN_BELOW_1_MIB),
        ("dos", MIB, Reason.UNKNOWN),
    ],
)
def test_only_a_gpt_keeps_room_for_its_copy(table, gain_bytes, reason):
    """The evidence itself must come to less than 1 MiB, whatever lies behind the partition."""
    line = growpart("'/' NOCHANGE: no change necessary (/dev/vda, 1)")
    size = 20 * GIB - 111 * MIB - gain_bytes
    found = partition(
        transcript((size, GIB), (size, GIB), line), disk_after=disk(size, GIB, table=table)
    )
    assert found.reason is reason
    if reason is Reason.GAIN_BELOW_1_MIB:
        reckoned = found.evidence[-1].text
        kept = 33 * 512 if table == "gpt" else 0
        assert f"{gain_bytes:,} bytes" in reckoned
        assert reckoned.endswith(f": {gain_bytes - kept:,} to gain")
        assert ("copy of the GPT" in reckoned) is (table == "gpt")


def test_a_table_that_was_not_looked_at_is_called_missing():
    line = growpart("'/' NOCHANGE: no change necessary (/dev/vda, 1)")
    full = (FULL_SIZE_BYTES, 20000 * MIB)
    assert "GPT was not recorded" in partition(transcript(full, full, line)).missing[-1]


def test_no_change_with_room_left_is_not_explained():
    line = growpart("'/' NOCHANGE: no change necessary (/dev/vda, 1)")
    found = partition(transcript(SMALL, SMALL, line))
    assert found.reason is Reason.UNKNOWN
    assert found.missing


def test_a_partition_right_behind_is_a_wall():
    wall = device("vda2", "part", "vda", 32 * MIB, 2111 * MIB)
    text = picture("before", [*disk_frames(*SMALL), wall], 30.0) + picture(
        "after", [*disk_frames(*SMALL), wall], 60.0
    )
    found = partition(text)
    assert found.reason is Reason.WALL
    assert "vda2" in found.evidence[-1].text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            resizefs("Skipping module named resizefs, resizing disabled"),
            Reason.RESIZE_ROOTFS_OFF,
        ),
        (
            resizefs("Skipping module named cc_resizefs, resizing disabled"),
            Reason.RESIZE_ROOTFS_OFF,
        ),
        (
            (
                "2026-11-22 22:28:25,121 - util.py[WARNING]: "
                "Failed to resize filesystem (cmd=('resize2fs', '/dev/vda1'))"
            ),
            Reason.RESIZE_FAILED,
        ),
        (
            (
                "2026-11-22 22:28:25,121 - cc_resizefs.py[WARNING]: "
                "Not resizing unknown filesystem type f2fs for /"
            ),
            Reason.UNKNOWN_FILESYSTEM,
        ),
        (RESIZED, Reason.FILLS_ITS_DEVICE),
    ],
)
def test_why_the_filesystem_did_not_grow(line, reason):
    found = root_filesystem(transcript(SMALL, SMALL, line))
    assert found.finding == (False, Grower.NOBODY, reason)
    assert found.evidence[-1].text == line


class TestFillsItsDevice:
    """Said only where the bytes show it."""

    @pytest.mark.parametrize(
        ("line", "reason"), [(RESIZED, Reason.UNKNOWN), (FORKED, Reason.IN_BACKGROUND)]
    )
    @pytest.mark.parametrize("known", [True, False], ids=["superblock known", "not known"])
    def test_not_where_the_partition_grew(self, line, reason, known):
        left = disk(LARGE[0], SMALL[0]) if known else {}
        found = root_filesystem(
            transcript(SMALL, (LARGE[0], SMALL[1]), GREW, line),
            disk_before=disk(SMALL[0], SMALL[0]),
            disk_after=left,
        )
        assert found.finding == (False, Grower.NOBODY, reason)
        assert found.missing
        assert "fills" not in found.evidence[-1].text

    def test_it_is_shown_in_bytes_of_one_measure(self):
        built = disk(SMALL[0], SMALL[0])
        found = root_filesystem(
            transcript(SMALL, SMALL, RESIZED), disk_before=built, disk_after=built
        )
        assert found.reason is Reason.FILLS_ITS_DEVICE
        assert found.missing == ()
        assert [one.text.count(f"{SMALL[0]:,}") for one in found.evidence[2:4]] == [1, 1]

    def test_a_few_blocks_left_over_are_no_room(self):
        built = disk(SMALL[0], SMALL[0] - 3584)
        assert (
            root_filesystem(
                transcript(SMALL, SMALL, RESIZED), disk_before=built, disk_after=built
            ).reason
            is Reason.FILLS_ITS_DEVICE
        )

    def test_without_the_superblock_the_conclusion_is_called_one(self):
        found = root_filesystem(transcript(SMALL, SMALL, RESIZED), disk_before=disk(*SMALL))
        assert found.reason is Reason.FILLS_ITS_DEVICE
        assert "follows from the resize command" in found.missing[0]

    def test_the_background_alone_concludes_nothing(self):
        found = root_filesystem(transcript(SMALL, SMALL, FORKED))
        assert found.reason is Reason.IN_BACKGROUND

    @pytest.mark.parametrize(("line", "by"), [(FORKED, Grower.RESIZEFS), (RESIZED, Grower.UNKNOWN)])
    def test_growth_after_the_last_report_is_the_background_jobs(self, line, by):
        found = root_filesystem(
            transcript(SMALL, (LARGE[0], SMALL[1]), GREW, line),
            disk_before=disk(SMALL[0], SMALL[0]),
            disk_after=disk(LARGE[0], LARGE[0]),
        )
        assert found.finding == (True, by, None)
        if by is Grower.RESIZEFS:
            assert (found.when.not_before_s, found.when.guest_s) == (60.0, None)
            assert not found.missing


@pytest.mark.parametrize("line", [RESIZED, FORKED], ids=["in the foreground", "in the background"])
def test_resizefs_is_known_by_its_line(line):
    found = root_filesystem(transcript(SMALL, LARGE, GREW, line))
    assert found.finding == (True, Grower.RESIZEFS, None)


def test_the_kernel_tells_the_moment():
    kernel = "[   36.385240] EXT4-fs (vda1): resizing filesystem from 512000 to 5214459 blocks"
    text = transcript(SMALL, LARGE, GREW, RESIZED).replace(
        "@cloudlab after 0", f"{kernel}\n@cloudlab after 0"
    )
    number = text.split("\n").index(kernel) + 1
    found = root_filesystem(
        text,
        times={number: 41.5},
        stages=[{"stage": "cloud-init init", "start_s": 40.0, "end_s": 50.0}],
    )
    assert found.when.guest_s == pytest.approx(36.38524)
    assert (found.when.host_s, found.when.stage) == (41.5, "cloud-init init")
    assert (Source.CONSOLE, number) in [(one.source, one.line) for one in found.evidence]


def test_another_filesystem_is_not_taken_for_root():
    kernel = "[   36.385240] EXT4-fs (vdb1): resizing filesystem from 512000 to 5214459 blocks"
    found = root_filesystem(transcript(SMALL, LARGE, GREW, RESIZED, kernel))
    assert kernel not in [one.text for one in found.evidence]


def test_a_resize_to_the_same_size_is_no_growth():
    """systemd-growfs in a first boot: real words of a kernel, before the partition grew."""
    kernel = "[   23.408882] EXT4-fs (vda1): resizing filesystem from 512000 to 512000 blocks"
    found = root_filesystem(transcript(SMALL, SMALL, kernel, RESIZED))
    assert found.finding == (False, Grower.NOBODY, Reason.FILLS_ITS_DEVICE)


def test_a_sample_narrows_the_moment():
    text = (
        picture("before", disk_frames(*SMALL), 30.0)
        + picture("sample", disk_frames(*SMALL), 33.0)
        + picture("sample", disk_frames(LARGE[0], SMALL[1]), 36.0)
        + picture("after", [*disk_frames(*LARGE), log(GREW), log(RESIZED)], 60.0)
    )
    explanation = explained(text)
    when = only(explanation, Subject.PARTITION).when
    assert (when.not_before_s, when.guest_s) == (33.0, 36.0)
    when = only(explanation, Subject.FILESYSTEM).when
    assert (when.not_before_s, when.guest_s) == (36.0, 60.0)


def test_reports_that_contradict_each_other_tell_no_time():
    text = picture("before", disk_frames(*SMALL), 127.1)
    text += picture("after", disk_frames(*LARGE), 39.4)
    explanation = explained(text)
    when = only(explanation, Subject.PARTITION).when
    assert (when.not_before_s, when.guest_s) == (None, None)
    assert "127.1" not in explanation.to_text()


@pytest.mark.parametrize(
    ("until_s", "damaged", "not_before_s"),
    [(35.5, False, 35.5), (31.0, False, 33.0), (99.0, False, 36.0), (35.5, True, 33.0)],
    ids=["narrower", "wider", "impossible", "a block may be lost"],
)
def test_a_sampler_says_until_when_nothing_had_changed(until_s, damaged, not_before_s):
    grown = [
        frame("sample", 0, kind="begin", uptime_s=36.0, unchanged_until_s=until_s),
        *(frame("sample", n, **one) for n, one in enumerate(disk_frames(LARGE[0], SMALL[1]), 1)),
        frame("sample", 8, kind="end", frames=9),
    ]
    text = (
        picture("before", disk_frames(*SMALL), 30.0)
        + picture("sample", disk_frames(*SMALL), 33.0)
        + ("@cloudlab sample 0 {} 1@\r\n" if damaged else "")
        + "\r\n".join(grown)
        + "\r\n"
        + picture("after", [*disk_frames(*LARGE), log(GREW), log(RESIZED)], 60.0)
    )
    when = partition(text).when
    assert (when.not_before_s, when.guest_s) == (not_before_s, 36.0)


def test_a_stage_is_named_only_if_the_whole_moment_lies_in_it():
    text = transcript(SMALL, LARGE, GREW, RESIZED)
    lines = text.split("\n")
    times = {
        1: 31.0,
        next(n for n, line in enumerate(lines, 1) if "after 0" in line): 61.0,
    }
    stages = [
        {"stage": "cloud-init init", "start_s": 20.0, "end_s": 50.0},
        {"stage": "cloud-init final", "start_s": 50.0, "end_s": 70.0},
    ]
    when = partition(text, times=times, stages=stages).when
    assert (when.stage, when.host_s) == (None, 61.0)
    one = [{"stage": "cloud-init init", "start_s": 20.0, "end_s": 70.0}]
    assert partition(text, times=times, stages=one).when.stage == "cloud-init init"


class TestBeforeCloudInit:
    """Growth that bootcmd found done is nobody's of cloud-init."""

    GROWROOT = "GROWROOT: CHANGED: partition=1 start=227328 old: size=4096000 new: size=41715678"

    def test_growroot(self):
        text = f"{self.GROWROOT}\n" + transcript(LARGE, LARGE)
        found = partition(text, disk_before=disk(*SMALL))
        assert found.finding == (True, Grower.GROWROOT, None)
        assert found.evidence[-1].line == 1

    def test_growpart_is_not_credited_with_it(self):
        found = partition(transcript(LARGE, LARGE, GREW), disk_before=disk(*SMALL))
        assert (found.grown, found.by) == (True, Grower.UNKNOWN)
        assert "before bootcmd" in found.missing[0]

    def test_growroot_is_not_credited_with_what_came_later(self):
        text = f"{self.GROWROOT}\n" + transcript(SMALL, LARGE)
        found = partition(text, disk_before=disk(*SMALL))
        assert (found.grown, found.by) == (True, Grower.UNKNOWN)

    def test_growth_twice_is_stated_twice(self):
        middle = (4000 * MIB, 3900 * MIB)
        text = f"{self.GROWROOT}\n" + transcript(middle, LARGE, GREW)
        explanation = explained(text, disk_before=disk(*SMALL))
        assert [one.by for one in explanation.of(Subject.PARTITION)] == [
            Grower.GROWROOT,
            Grower.GROWPART,
        ]

    @pytest.mark.parametrize(
        ("kernel_s", "by"),
        [(23.4, Grower.GROWFS), (28.0, Grower.UNKNOWN)],
        ids=["while it ran", "at another time"],
    )
    def test_growfs(self, kernel_s, by):
        lines = (
            "[   21.1] debian systemd[1]: Starting systemd-growfs@-.service - Grow File System.",
            f"[   {kernel_s}] EXT4-fs (vda1): resizing filesystem from 512000 to 5214459 blocks",
            "[   24.2] debian systemd[1]: Finished systemd-growfs@-.service - Grow File System.",
        )
        found = root_filesystem(
            transcript(LARGE, LARGE, *lines), disk_before=disk(*SMALL), disk_after=disk(*LARGE)
        )
        assert (found.grown, found.by) == (True, by)
        assert bool(found.missing) is (by is Grower.UNKNOWN)
        assert found.when.guest_s == kernel_s

    def test_growfs_that_goes_on_has_not_ended(self):
        """A disk of 3 TiB under TCG: bootcmd and runcmd came while systemd-growfs was at work."""
        lines = (
            "[   13.1] debian systemd[1]: Starting systemd-growfs@-.service - Grow File System.",
            "[   13.8] EXT4-fs (vda1): resizing filesystem from 512000 to 805277947 blocks",
        )
        middle = (LARGE[0], 4000 * MIB)
        text = transcript(middle, LARGE, *lines)
        explanation = explained(text, disk_before=disk(*SMALL), disk_after=disk(*LARGE))
        early, late = explanation.of(Subject.FILESYSTEM)
        assert (early.by, late.by) == (Grower.GROWFS, Grower.GROWFS)
        assert late.to_bytes == LARGE[1]
        assert all("had not ended" in one.missing[0] for one in (early, late))

    @pytest.mark.parametrize(
        "lines",
        [
            pytest.param(
                (
                    "[   21.1] debian systemd[1]: Starting systemd-growfs-root.service - Grow Root.",
                    "[   21.5] debian systemd[1]: systemd-growfs-root.service: Failed with result 'x'.",
                ),
                id="failed",
            ),
            pytest.param(
                ("[   40.1] debian systemd[1]: Starting systemd-growfs@data.service - Grow.",),
                id="another filesystem's",
            ),
        ],
    )
    def test_growfs_that_has_no_end_did_not_grow_what_resizefs_grew(self, lines):
        kernel = "[   41.0] EXT4-fs (vda1): resizing filesystem from 512000 to 5214459 blocks"
        text = transcript(SMALL, LARGE, *lines, GREW, kernel, RESIZED)
        assert root_filesystem(text).by is Grower.RESIZEFS

    @pytest.mark.parametrize(
        "large",
        [
            pytest.param(LARGE, id="larger in statfs"),
            pytest.param((LARGE[0], SMALL[1] - MIB), id="in superblocks only"),
        ],
    )
    def test_growfs_grows_xfs_without_a_word_of_the_kernel(self, large):
        lines = (
            "[   21.1] debian systemd[1]: Starting systemd-growfs-root.service - Grow Root File System.",
            "[   21.9] debian systemd[1]: Finished systemd-growfs-root.service - Grow Root File System.",
        )
        explanation = explained(
            transcript(large, large, *lines, facts=[("systemd_growfs", "yes")]),
            disk_before=disk(*SMALL), disk_after=disk(*LARGE),
        )  # fmt: skip
        assert only(explanation, Subject.FILESYSTEM).by is Grower.GROWFS
        assert NoteKind.GROWFS_IDLE not in {note.kind for note in explanation.notes}

    @pytest.mark.parametrize(
        ("lines", "by"),
        [
            (("Applying changes to /dev/vda.", "Growing existing partition 0."), Grower.REPART),
            (("Applying changes to /dev/vdb.", "Growing existing partition 0."), Grower.UNKNOWN),
            (("Applying changes to /dev/vda.", "Growing existing partition 3."), Grower.UNKNOWN),
            (
                (
                    "Applying changes to /dev/vda.", "Growing existing partition 0.",
                    "Failed to write partition table: Input/output error",
                ),
                Grower.UNKNOWN,
            ),
        ],
        ids=["root's", "another disk", "another partition", "failed"],
    )  # fmt: skip
    def test_systemd_repart(self, lines, by):
        lines = [f"[   19.{n}] debian systemd-repart[280]: {line}" for n, line in enumerate(lines)]
        text = transcript(LARGE, LARGE, *lines)
        found = partition(text, disk_before=disk(*SMALL), disk_after=disk(*LARGE))
        assert (found.grown, found.by) == (True, by)

    def test_two_growths_are_not_measured_by_one_pair_of_superblocks(self):
        middle = (4000 * MIB, 3900 * MIB)
        explanation = explained(
            transcript(middle, LARGE, RESIZED), disk_before=disk(*SMALL), disk_after=disk(*LARGE)
        )
        early, late = explanation.of(Subject.FILESYSTEM)
        assert (early.by, early.to_bytes) == (Grower.UNKNOWN, None)
        assert (late.by, late.from_bytes, late.to_bytes) == (Grower.RESIZEFS, middle[1], LARGE[1])

    def test_resizefs_is_not_credited_with_what_growfs_did(self):
        lines = (
            "[   41.1] debian systemd[1]: Starting systemd-growfs@-.service - Grow File System.",
            "[   42.0] EXT4-fs (vda1): resizing filesystem from 512000 to 5214459 blocks",
            "[   44.2] debian systemd[1]: Finished systemd-growfs@-.service - Grow File System.",
        )
        assert root_filesystem(transcript(SMALL, LARGE, *lines, RESIZED)).by is Grower.GROWFS

    @pytest.mark.parametrize("left", [{}, disk(*LARGE)], ids=["after not known", "after known"])
    def test_a_filesystem_larger_than_it_was_built_has_grown(self, left):
        found = root_filesystem(
            transcript(LARGE, LARGE, RESIZED), disk_before=disk(*SMALL), disk_after=left
        )
        assert (found.grown, found.by) == (True, Grower.UNKNOWN)

    def test_what_was_not_recorded_before_the_boot_is_called_missing(self):
        for known in (disk(*SMALL), {}):
            explanation = explained(transcript(SMALL, SMALL, RESIZED), disk_before=known)
            filesystem_ = only(explanation, Subject.FILESYSTEM)
            assert filesystem_.grown is False
            assert any("before the boot" in one for one in filesystem_.missing) is not bool(known)


class TestMissingEvidence:
    """What the evidence does not decide is called unknown."""

    def test_an_empty_console(self):
        explanation = explained("")
        for one in explanation.statements:
            assert one.finding == (None, Grower.UNKNOWN, Reason.UNKNOWN)
            assert one.missing
            assert not one.evidence

    def test_human_tables_alone(self):
        text = (
            "NAME   MAJ:MIN RM  SIZE RO TYPE MOUNTPOINT\n"
            "vda    252:0    0   20G  0 disk\n"
            "`-vda1 252:1    0 19.9G  0 part /\n"
        )
        assert [one.grown for one in explained(text).statements] == [None, None]

    @pytest.mark.parametrize("size", [SMALL, LARGE], ids=["unchanged", "grown"])
    def test_no_log_lines(self, size):
        explanation = explained(transcript(SMALL, size))
        for one in explanation.statements:
            assert one.grown is (size is LARGE)
            assert one.missing
            assert one.reason is (None if one.grown else Reason.UNKNOWN)
            assert one.by is (Grower.UNKNOWN if one.grown else Grower.NOBODY)

    def test_one_report_only(self):
        explanation = explained(picture("before", disk_frames(*SMALL), 30.0))
        assert [one.grown for one in explanation.statements] == [None, None]

    def test_the_disk_stands_in_for_a_report_that_did_not_come(self):
        text = picture("before", disk_frames(*SMALL), 30.0)
        explanation = explained(text, disk_before=disk(*SMALL), disk_after=disk(*LARGE))
        assert [one.grown for one in explanation.statements] == [True, True]
        assert [one.by for one in explanation.statements] == [Grower.UNKNOWN] * 2

    def test_a_damaged_frame(self):
        text = transcript(SMALL, LARGE, GREW, RESIZED)
        lost = frame("after", 2, **disk_frames(*LARGE)[1])
        assert lost in text
        explanation = explained(text.replace(lost, lost.replace("vda1", "vdX1")))
        found = only(explanation, Subject.PARTITION)
        assert (found.grown, found.by) == (None, Grower.UNKNOWN)
        assert NoteKind.DAMAGED in [note.kind for note in explanation.notes]

    def test_no_cloud_init(self):
        explanation = explained(
            SILENT,
            disk_before=disk(*SMALL),
            disk_after=disk(*SMALL),
        )
        for one in explanation.statements:
            assert one.finding == (False, Grower.NOBODY, Reason.NO_CLOUD_INIT)
            assert one.evidence[-1].line == 3

    @pytest.mark.parametrize(
        "text",
        [
            "Debian GNU/Linux 12 cloudlab ttyS0\n\ncloudlab login: \n",
            "[   25.0] cloud-init[309]: Cloud-init v. 22.4.2 running 'init-local'\n" + SILENT,
            SILENT.replace("login: ", "login: [   25.0] cloud-init[9]: Cloud-init v. 25.1 running"),
        ],
        ids=["a console that names nothing", "it says its version", "on the prompt's line"],
    )
    def test_silence_alone_is_not_taken_for_a_boot_without_cloud_init(self, text):
        explanation = explained(text, disk_before=disk(*SMALL), disk_after=disk(*SMALL))
        assert [one.reason for one in explanation.statements] == [Reason.UNKNOWN] * 2

    def test_growth_without_bootcmd_is_not_dated_by_it(self):
        found = partition(SILENT, disk_before=disk(*SMALL), disk_after=disk(*LARGE))
        assert (found.grown, found.by) == (True, Grower.UNKNOWN)
        assert "bootcmd" not in found.missing[0]

    def test_a_boot_that_never_came_to_its_login_prompt_is_not_one_without_cloud_init(self):
        explanation = explained("Kernel panic\n", disk_before=disk(*SMALL), disk_after=disk(*SMALL))
        assert [one.reason for one in explanation.statements] == [Reason.UNKNOWN] * 2


class TestOtherDevices:
    """Root is not always a partition."""

    @staticmethod
    def both(frames_before, frames_after, *logs):
        after = [*frames_after, *(log(text) for text in logs)]
        return explained(picture("before", frames_before, 30.0) + picture("after", after, 60.0))

    def test_the_whole_disk(self):
        def frames(size):
            return [device("vda", "disk", "", 20 * GIB), filesystem("vda", "/", size, MIB)]

        skipped = growpart(
            "'/' SKIPPED: device_part_info(/dev/vda) failed: /dev/vda not a partition"
        )
        explanation = self.both(frames(GIB), frames(19 * GIB), skipped, RESIZED)
        part, whole = explanation.statements
        assert part.finding == (False, Grower.NOBODY, Reason.NO_PARTITION)
        assert part.evidence[-1].text == skipped
        assert whole.finding == (True, Grower.RESIZEFS, None)

    @pytest.mark.parametrize(
        "words",
        [
            pytest.param(
                "'/' SKIPPED: device_part_info(/dev/mapper/lab-root) failed: "
                "/dev/mapper/lab-root not a partition",
                id="20.4",
            ),
            pytest.param(
                "'/' SKIPPED: Resizing mapped device (/dev/mapper/lab-root) skipped "
                "as it is not encrypted.",
                id="22.4 and 25.1",
            ),
        ],
    )
    def test_a_logical_volume(self, words):
        frames = [
            device("vda", "disk", "", 20 * GIB),
            device("vda1", "part", "vda", 2004 * MIB, 111 * MIB),
            device("lab-root", "lvm", "vda1", 2000 * MIB),
            filesystem("lab-root", "/", 1950 * MIB, MIB),
        ]
        explanation = self.both(frames, frames, growpart(words), RESIZED)
        part, volume = explanation.statements
        assert (part.device, part.finding) == (
            "vda1",
            (False, Grower.NOBODY, Reason.LOGICAL_VOLUME),
        )
        assert part.evidence[-1].text == growpart(words)
        assert (volume.device, volume.reason) == ("lab-root", Reason.FILLS_ITS_DEVICE)

    @pytest.mark.parametrize(
        ("kind", "words", "reason"),
        [
            ("crypt", "SKIPPED: Resizing mapped device skipped", Reason.ENCRYPTED),
            ("raid1", "SKIPPED: /dev/lab-root not a partition", Reason.RAID),
            ("crypt", "FAILED: Resizing encrypted device failed", Reason.GROWPART_FAILED),
            ("lvm", "FAILED: failed to resize", Reason.GROWPART_FAILED),
            ("raid1", "", Reason.UNKNOWN),
        ],
    )
    def test_not_every_volume_is_a_logical_one(self, kind, words, reason):
        frames = [
            device("vda", "disk", "", 20 * GIB),
            device("vda1", "part", "vda", 2004 * MIB, 111 * MIB),
            device("lab-root", kind, "vda1", 2000 * MIB),
            filesystem("lab-root", "/", 1950 * MIB, MIB),
        ]
        logs = [growpart(f"'/' {words}")] if words else []
        part = only(self.both(frames, frames, *logs), Subject.PARTITION)
        assert part.finding == (False, Grower.NOBODY, reason)

    @pytest.mark.parametrize("kind", ["LVM2_member", "crypto_LUKS", "ext4"])
    def test_what_holds_a_volume_is_not_taken_for_its_filesystem(self, kind):
        frames = [
            device("vda", "disk", "", 20 * GIB),
            device("vda1", "part", "vda", 2004 * MIB, 111 * MIB),
            device("lab-root", "lvm", "vda1", 2000 * MIB),
            filesystem("lab-root", "/", 1950 * MIB, MIB),
        ]
        held = disk(2004 * MIB, 2004 * MIB, kind=kind)
        text = picture("before", frames, 30.0) + picture("after", [*frames, log(RESIZED)], 60.0)
        found = root_filesystem(text, disk_before=held, disk_after=held)
        assert "superblock" not in " ".join(one.text for one in found.evidence)

    @pytest.mark.parametrize(
        ("others", "told", "heard"),
        [
            pytest.param([], None, "dm-0", id="the only mapping"),
            pytest.param([], "", "dm-0", id="the only mapping, name not known"),
            pytest.param(["lab-swap"], "dm-1", "dm-1", id="as the guest says"),
            pytest.param(["lab-swap"], None, None, id="one of two"),
        ],
    )
    def test_only_the_root_volumes_kernel_name_is_listened_to(self, others, told, heard):
        kernel = "[   36.{0}] EXT4-fs (dm-{0}): resizing filesystem from 512000 to 5214459 blocks"
        frames = [
            device("vda", "disk", "", 20 * GIB),
            device("vda1", "part", "vda", 20 * GIB - MIB, MIB),
            device("lab-root", "lvm", "vda1", 2000 * MIB),
            *(device(name, "lvm", "vda1", MIB) for name in others),
            fact("root_device", "lab-root"),
        ]
        if told is not None:
            frames.append(fact("root_kernel_name", told))
        explanation = self.both(
            [*frames, filesystem("lab-root", "/", 1000 * MIB, MIB)],
            [*frames, filesystem("lab-root", "/", 1950 * MIB, MIB)],
            *(kernel.format(number) for number in range(2)),
            RESIZED,
        )
        said = " ".join(one.text for one in only(explanation, Subject.FILESYSTEM).evidence)
        assert re.findall(r"dm-\d", said) == ([heard] if heard else [])

    def test_devices_that_lie_on_each_other(self):
        frames = [
            device("a", "lvm", "b", GIB),
            device("b", "lvm", "a", GIB),
            filesystem("a", "/", GIB, MIB),
        ]
        assert self.both(frames, frames).of(Subject.PARTITION)[0].grown is None


class TestNotes:
    """What else decided the outcome."""

    @pytest.mark.parametrize(
        ("facts", "logs", "kind"),
        [
            (
                [("user_data_valid", "no")],
                ["2026-11-22 22:28:20,000 - util.py[WARNING]: Failed loading yaml blob. ..."],
                NoteKind.USER_DATA_IGNORED,
            ),
            ([("user_data_valid", "warned")], [], NoteKind.USER_DATA_DOUBTFUL),
            (
                [],
                [
                    (
                        "2026-11-22 22:28:30,000 - helpers.py[DEBUG]: config-runcmd already ran "
                        "(freq=once-per-instance)"
                    )
                ],
                NoteKind.INSTANCE_KNOWN,
            ),
            ([("systemd_growfs", "yes")], [], NoteKind.GROWFS_IDLE),
            ([("cloud_init_errors", "('bootcmd', ...)")], [], NoteKind.CLOUD_INIT_ERRORS),
        ],
    )
    def test_note(self, facts, logs, kind):
        text = transcript(SMALL, LARGE, GREW, RESIZED, *logs, facts=facts)
        explanation = explained(text)
        assert [note.kind for note in explanation.notes] == [kind]
        assert explanation.notes[0].evidence

    @pytest.mark.parametrize(
        ("valid", "kind"),
        [
            ("yes", NoteKind.USER_DATA_FAULTS),
            ("warned", NoteKind.USER_DATA_DOUBTFUL),
            ("no", NoteKind.USER_DATA_IGNORED),
        ],
    )
    def test_faults_in_the_user_data_stand_with_their_lines(self, valid, kind):
        text = transcript(SMALL, LARGE, GREW, RESIZED, facts=[("user_data_valid", valid)])
        [note] = explained(text, user_data_faults=[(2, "unknown key 'growpat'")]).notes
        assert note.kind is kind
        assert note.evidence[-1].source is Source.USER_DATA
        assert note.evidence[-1].text == "its line 2: unknown key 'growpat'"

    def test_why_growfs_was_idle(self):
        ran = (
            "[   21.1] debian systemd[1]: Starting systemd-growfs@-.service - Grow File System.",
            "[   24.2] debian systemd[1]: Finished systemd-growfs@-.service - Grow File System.",
        )
        off = resizefs("Skipping module named resizefs, resizing disabled")
        facts = [("systemd_growfs", "yes")]
        late = transcript(SMALL, (LARGE[0], SMALL[1]), GREW, off, *ran, facts=facts)
        [note] = explained(late).notes
        assert [one.text for one in note.evidence[1:]] == list(ran)
        assert "finished at 24.2 s" in note.detail
        assert "after 30.0 s" in note.detail
        [note] = explained(transcript(SMALL, SMALL, RESIZED, *ran, facts=facts)).notes
        assert note.detail == "There was no room for it to take."
        [note] = explained(transcript(SMALL, SMALL, off, *ran, facts=facts)).notes
        assert note.detail == ""

    def test_nothing_to_note(self):
        facts = [("user_data_valid", "yes"), ("systemd_growfs", "no"), ("cloud_init_errors", "")]
        assert explained(transcript(SMALL, LARGE, GREW, RESIZED, facts=facts)).notes == ()


class TestWords:
    """Sentences for people, who must not be harmed by what a guest says."""

    def test_text(self):
        text = explained(transcript(SMALL, LARGE, GREW, RESIZED)).to_text()
        assert text.splitlines()[0] == (
            "The partition vda1 grew from 2.0 GiB to 19.9 GiB, by cloud-init's growpart, "
            "between 30.0 and 60.0 s of guest time."
        )
        assert GREW in text

    def test_json_has_the_words_too(self):
        answer = explained(transcript(SMALL, SMALL, RESIZED)).to_json()
        assert answer["statements"][1]["reason"] == "fills-its-device"
        assert "which did not grow" in answer["statements"][1]["words"]

    def test_a_filesystems_size_names_its_measure_which_is_explained_once(self):
        lines = (
            "[   21.1] debian systemd[1]: Starting systemd-growfs@-.service - Grow File System.",
            "[   22.0] EXT4-fs (vda1): resizing filesystem from 512000 to 5214459 blocks",
            "[   24.2] debian systemd[1]: Finished systemd-growfs@-.service - Grow File System.",
        )
        early = explained(
            transcript(LARGE, LARGE, *lines),
            disk_before=disk(LARGE[0], SMALL[0]),
            disk_after=disk(LARGE[0], LARGE[0]),
        ).to_text()
        assert "from 2.0 GiB to 19.9 GiB as its superblock counts" in early
        late = explained(transcript(SMALL, LARGE, GREW, RESIZED)).to_text()
        assert "from 1.9 GiB to 19.7 GiB as df counts" in late
        assert early.count("statfs counts") == late.count("statfs counts") == 1
        # It may have been resized to less, and on btrfs both count the same.
        assert "up to the end of its device" not in early
        assert "statfs counts" not in explained("").to_text()

    @pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "\x1b]0;title\x07"])
    def test_what_a_guest_says_is_only_shown(self, hostile):
        kernel = f"[   36.385240] EXT4-fs (vda1): resizing filesystem from 1 to 2 blocks {hostile}"
        text = f"{kernel}\n" + transcript(SMALL, LARGE, GREW + hostile, RESIZED)
        explanation = explained(text)
        page = explanation.to_html() + explanation.to_text()
        assert "\x1b" not in page
        assert "<script>" not in explanation.to_html()

    def test_a_devices_name_is_only_shown(self):
        hostile = [
            device("vda", "disk", "", 20 * GIB),
            device("\x1b[2Jvda1<b>", "part", "vda", SMALL[0], 111 * MIB),
            filesystem("\x1b[2Jvda1<b>", "/", SMALL[1], MIB),
        ]
        explanation = explained(picture("before", hostile, 30.0) + picture("after", hostile, 60.0))
        assert "vda1<b>" in explanation.to_text()
        assert "\x1b" not in explanation.to_text() + explanation.to_html()
        assert "<b>" not in explanation.to_html()
        assert "\x1b" not in explanation.to_json()["statements"][0]["words"]

    def test_every_reason_and_note_has_words(self):
        from cloudlab.explanation import words

        assert set(words._REASONS) == set(Reason)
        assert set(words._NOTES) == set(NoteKind)

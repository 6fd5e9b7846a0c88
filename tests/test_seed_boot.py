"""The seed in a real guest: what it reads, and what it reports."""

import subprocess
from pathlib import Path

import pytest

from cloudlab.image.build import build_image
from cloudlab.image.cache import Image
from cloudlab.seed import SeedConfig, build_seed, write_iso
from cloudlab.sizes import GuestBlock, ParsedConsole, check_sizes, parse_console

pytestmark = [pytest.mark.boots, pytest.mark.xdist_group("boots")]

DISK_BYTES = 20 * 2**30
#: No pass condition: only so that a guest that hangs does not hang the tests as well.
TIMEOUT_S = 1800


@pytest.fixture(scope="module")
def image() -> Image:
    return build_image()


@pytest.fixture
def disk(image, tmp_path) -> Path:
    path = tmp_path / "disk.qcow2"
    backing = ["-F", image.format, "-b", image.path]
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", *backing, path, str(DISK_BYTES)], check=True
    )
    return path


def boot(disk: Path, seed: Path) -> ParsedConsole:
    """Boot until the report's last line, or until the guest switches itself off."""
    drives = [f"file={disk},format=qcow2", f"file={seed},format=raw,readonly=on"]
    argv = [
        "timeout",
        str(TIMEOUT_S),
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-cpu",
        "max,cx16=off",
    ]
    argv += ["-m", "1024", "-nodefaults", "-nic", "none", "-display", "none", "-no-reboot"]
    argv += [word for drive in drives for word in ("-drive", f"if=virtio,{drive}")]
    lines = []
    with subprocess.Popen(
        [*argv, "-serial", "stdio"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as machine:
        for line in machine.stdout:
            lines.append(line)
            if b"@cloudlab after " in line and b'"kind":"end"' in line:
                break
        machine.terminate()
    disk.with_suffix(".log").write_bytes(b"".join(lines))
    return parse_console(lines)


def whole(block: GuestBlock | None) -> GuestBlock:
    assert block is not None
    assert block.complete
    return block


def sizes(block: GuestBlock) -> tuple[int, int]:
    (partition,) = [device.size_bytes for device in block.devices if device.name == "vda1"]
    (filesystem,) = [found.size_bytes for found in block.filesystems if found.mountpoint == "/"]
    return partition, filesystem


def facts(block: GuestBlock) -> dict[str, str]:
    return {fact.name: fact.value for fact in block.facts}


def test_one_boot_shows_before_and_after_and_a_second_one_reports_too(disk, tmp_path):
    seed = write_iso(build_seed(SeedConfig(sampler=True)), tmp_path / "seed.iso")
    first = boot(disk, seed)
    before, after = whole(first.block("before")), whole(first.block("after"))
    assert max(sizes(before)) <= 2000 * 2**20
    assert min(sizes(after)) >= 0.98 * DISK_BYTES
    assert check_sizes(first) == []
    # The partition jumped first, the filesystem after it.
    jumps = [sizes(whole(sample.block)) for sample in first.samples]
    assert jumps == sorted(jumps)
    assert jumps[0] == sizes(before)
    assert jumps[-1] == sizes(after)
    told = facts(after)
    assert told["reported_by"] == "runcmd"
    assert told["user_data_valid"] == "yes"
    assert "NoCloud" in told["datasource"]
    logged = " ".join(entry.text for entry in after.logs)
    assert "EXT4-fs (vda1): resizing filesystem" in logged
    assert "'/' resized: changed" in logged

    # The same instance-id again: runcmd does not run, and still there is a report.
    second = boot(disk, seed)
    assert sizes(whole(second.block("before"))) == sizes(after)
    told = facts(whole(second.block("after")))
    assert told["reported_by"] == "watcher"
    assert told["instance_id"] == facts(after)["instance_id"]

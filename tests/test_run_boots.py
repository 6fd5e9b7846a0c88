"""Faults that only a real Linux shows: without seed, with a bad one, with little memory."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from guests import alive, hear_ctrl_c, left_behind, wait_until

from cloudlab.errors import BootFailedError
from cloudlab.explanation import Grower, Subject
from cloudlab.image.cache import open_image
from cloudlab.machine import registry
from cloudlab.machine.config import LEAST_MEMORY_BYTES
from cloudlab.run.boot import boot
from cloudlab.run.options import Options
from cloudlab.run.predict import predict
from cloudlab.run.value import Run
from cloudlab.seed import SeedConfig
from cloudlab.units import GIB
from cloudlab.widgets import GrowthLab

pytestmark = [pytest.mark.boots, pytest.mark.xdist_group("boots")]


@pytest.fixture
def options(lab_image, own_cache, monkeypatch) -> Options:
    """Of runs that resume from a snapshot in the user's cache, if there is one and they can."""
    monkeypatch.setenv("CLOUDLAB_SHARED", str(lab_image.path.parents[1]))
    return Options(image=lab_image)


def test_no_seed(options, tmp_path):
    with pytest.raises(BootFailedError) as caught:
        boot(replace(options, attach_seed=False), tmp_path / "run")
    assert "found no seed" in caught.value.message or "no datasource" in caught.value.message
    assert caught.value.tail
    assert left_behind(tmp_path / "run") == []


def test_user_data_that_is_no_yaml(options, tmp_path):
    broken = "#cloud-config\ngrowpart: {mode: 'off'\nresize_rootfs: [\n"
    done = boot(replace(options, user_data=broken, check_user_data=False), tmp_path / "run")
    warnings = done.record.warnings
    assert any("could not read the user-data" in warning for warning in warnings)
    report = done.parsed.block("after")
    assert {one.name: one.value for one in report.facts}["user_data_valid"] == "no"
    assert any("Failed loading yaml" in entry.text for entry in report.logs)
    assert (tmp_path / "run" / "user-data").read_text() == broken
    sizes = done.sizes
    after = sizes[(sizes["stage"] == "after") & (sizes["mountpoint"] == "/") & sizes["exact"]]
    assert after["size_bytes"].max() > 18 << 30, "so the defaults held: everything grew"


def test_cloud_inits_own_errors_are_shown(options, tmp_path):
    seed = SeedConfig(bootcmd=("echo it went wrong >&2; exit 3",))
    done = boot(replace(options, seed=seed), tmp_path / "run")
    warnings = done.record.warnings
    assert warnings[0].startswith("cloud-init reports errors: ")
    assert "bootcmd" in warnings[0]


def test_the_least_memory_that_is_taken_boots(options, tmp_path):
    done = boot(replace(options, memory_bytes=LEAST_MEMORY_BYTES), tmp_path / "run")
    assert done.record.outcome == "done"
    assert left_behind(tmp_path / "run") == []


def test_a_disk_is_enlarged_while_the_guest_runs(options, tmp_path):
    larger = replace(options, disk_size_bytes=4 * GIB, enlarge_to_bytes=6 * GIB)
    done = boot(larger, tmp_path / "run")
    expected = [predict(options, disk_size=size) for size in ("4G", "6G")]
    assert done.root_sizes("after") == (expected[1].partition_bytes, expected[1].filesystem_bytes)
    for subject in (Subject.PARTITION, Subject.FILESYSTEM):
        sizes = [getattr(one, f"{subject}_bytes") for one in expected]
        steps = done.explain().of(subject)
        assert [one.to_bytes for one in steps] == sizes
        assert steps[1].by is Grower.OTHER
    disks = done.sizes[(done.sizes["layer"] == "virtual_disk") & (done.sizes["device"] == "vda")]
    assert set(disks[disks["exact"]]["size_bytes"]) == {4 * GIB, 6 * GIB}
    assert left_behind(tmp_path / "run") == []


def test_growth_lab_enlarges_the_disk_when_the_button_is_pressed(options, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_MODE", "live")
    lab = GrowthLab(image=options.image.name, folder=tmp_path)
    lab.choose(disk_size="4G", enlarge_to="6G")
    lab.predict("fills", "fills")
    lab.boot()
    assert wait_until(lambda: not lab.enlarging.state["enlarge"]["hidden"] or not lab.running)
    assert lab.running
    assert "The guest waits" in lab._enlarging_note.html
    time.sleep(3)
    _, asked, since = lab.console.html.partition("cloudlab: enlarge the disk")
    assert asked
    assert not re.search("# growpart|new size:", since), "the guest waits meanwhile"
    lab.enlarge()
    assert wait_until(lambda: lab.enlarging.state["enlarge"]["disabled"])
    [finished] = lab.finished
    assert "6.0 GiB" in lab._disk.html
    assert lab.enlarging.state["enlarge"]["hidden"]
    assert lab._enlarging_note.html == ""
    expected = predict(options, disk_size="6G")
    assert finished.run.root_sizes("after") == (
        expected.partition_bytes,
        expected.filesystem_bytes,
    )


def test_the_boot_loader_finds_nothing(options, tmp_path):
    raw = tmp_path / "wiped.img"
    subprocess.run(["qemu-img", "convert", "-O", "raw", options.image.path, raw], check=True)
    layout = subprocess.run(["sfdisk", "--json", raw], check=True, capture_output=True)
    root = json.loads(layout.stdout)["partitiontable"]["partitions"][0]
    with raw.open("r+b") as disk:
        disk.seek(root["start"] * 512)
        disk.write(bytes(64 << 20))
    with pytest.raises(BootFailedError, match="boot loader stopped at its prompt") as caught:
        boot(replace(options, image=open_image(raw)), tmp_path / "run")
    assert "Minimal BASH-like line editing" in "\n".join(caught.value.tail)


def test_ctrl_c_in_the_middle_of_a_boot(options, tmp_path):
    folder = tmp_path / "a run"
    argv = ["run", "--image", str(options.image.path), "--output", str(folder)]
    with subprocess.Popen(
        [sys.executable, "-m", "cloudlab", *argv],
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - these tests have one thread
    ) as owner:
        while b": kernel" not in owner.stderr.readline():
            assert owner.poll() is None
        [machine] = registry.list_running()
        os.killpg(owner.pid, signal.SIGINT)
        _, rest = owner.communicate()
        assert owner.returncode == 130
    assert b"interrupted" in rest
    assert wait_until(lambda: not alive(machine.qemu_pid))
    record = Run(folder).record
    assert record.outcome == "interrupted"
    assert [one.stage for one in record.stages][:2] == ["firmware", "kernel"]
    assert b"Linux version" in (folder / "console.log").read_bytes()
    assert left_behind(folder) == []

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import pytest

from cloudlab import paths, platforms, tools
from cloudlab.errors import BuildError, CloudlabError, ToolNotFoundError, UsageError
from cloudlab.image import build
from cloudlab.image.build import BINFMT_FOLDER, BuildStep, build_image, check_host
from cloudlab.image.cache import recall, verify
from cloudlab.image.recipe import (
    Filesystem,
    Recipe,
    Suite,
    Variant,
    copy_data,
    linked_core,
    make_recipe,
    volume_headers,
)
from cloudlab.tools import host_arch, which

GIB = 1 << 30
MIB = 1 << 20
ROOT_OFFSET = 111 * MIB
FSTAB_GENERATOR = Path("/usr/lib/systemd/system-generators/systemd-fstab-generator")
OVMF = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")


@pytest.mark.parametrize("place", ["gone/lab.qcow2", "file/lab.qcow2", "pipe", "folder"])
def test_an_output_that_cannot_be_written_is_refused_before_the_build(place, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "recall", lambda _: None)
    monkeypatch.setattr(build, "_build_alone", lambda *_: pytest.fail("the build began"))
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BuildError, match=f"{place} could not be written") as caught:
        build.build_image(output=tmp_path / place)
    assert "output" in caught.value.hint
    assert {one.name for one in tmp_path.iterdir()} == {"file", "folder", "pipe"}


def test_a_build_that_fails_is_not_blamed_on_its_output(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/root.raw")

    monkeypatch.setattr(build, "recall", lambda _: None)
    monkeypatch.setattr(build, "_build_alone", full)
    with pytest.raises(BuildError, match="could not be built: No space left"):
        build.build_image(output=tmp_path / "lab.qcow2")
    assert list(tmp_path.iterdir()) == []


def output_of(*argv, **options):
    return subprocess.run(
        argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options
    ).stdout


# --- deciding -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        pytest.param(Recipe(), "lab-trixie-ext4-r2.qcow2", id="default"),
        pytest.param(
            Recipe(Suite.BOOKWORM, Filesystem.BTRFS), "lab-bookworm-btrfs-r2.qcow2", id="btrfs"
        ),
        pytest.param(
            Recipe(variant=Variant.GROWROOT), "lab-trixie-ext4-growroot-r2.qcow2", id="variant"
        ),
        pytest.param(Recipe(arch="arm64"), "lab-trixie-ext4-arm64-r2.qcow2", id="arm64"),
    ],
)
def test_name_tells_the_recipe(recipe, name):
    assert recipe.name == name


@pytest.mark.parametrize(
    ("words", "accepted"),
    [
        pytest.param({"suite": "jessie"}, "bullseye, bookworm, trixie", id="suite"),
        pytest.param({"filesystem": "ntfs"}, "ext4, btrfs, xfs", id="filesystem"),
        pytest.param({"variant": "huge"}, "growroot", id="variant"),
    ],
)
def test_unknown_words_are_refused_with_the_known_ones(words, accepted):
    with pytest.raises(UsageError, match=accepted):
        build_image(**words)


@pytest.mark.parametrize(
    ("words", "meant"),
    [({"suite": "trixi"}, "trixie"), ({"variant": "hole-disk"}, "whole-disk")],
    ids=["suite", "variant"],
)
def test_a_mistyped_word_gets_the_nearest_one(words, meant):
    with pytest.raises(UsageError) as caught:
        make_recipe(**words)
    assert f"Did you mean {meant}?" in caught.value.hint


def test_systemd_repart_needs_a_suite_that_has_it():
    with pytest.raises(UsageError, match="newer suite than bullseye") as caught:
        make_recipe("bullseye", variant="repart")
    assert "--suite bookworm" in caught.value.hint
    assert "systemd-repart" in make_recipe("trixie", variant="repart").packages
    assert "systemd-repart" not in make_recipe("bookworm", variant="repart").packages


def test_no_package_is_there_twice():
    packages = make_recipe().packages
    assert len(packages) == len(set(packages))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param({"variant": "full", "filesystem": "xfs"}, id="full-xfs"),
        pytest.param({"variant": "whole-disk", "filesystem": "btrfs"}, id="whole-disk-btrfs"),
        pytest.param({"variant": "whole-disk", "arch": "arm64"}, id="whole-disk-arm64"),
    ],
)
def test_combinations_nobody_could_build_are_refused(words):
    with pytest.raises(UsageError):
        make_recipe(**words)


@pytest.mark.parametrize(
    ("variant", "package", "there"),
    [
        pytest.param("plain", "cloud-guest-utils", True, id="growpart-by-default"),
        pytest.param("no-growpart", "cloud-guest-utils", False, id="no-growpart"),
        pytest.param("plain", "cloud-initramfs-growroot", False, id="no-growroot-by-default"),
        pytest.param("growroot", "cloud-initramfs-growroot", True, id="growroot"),
    ],
)
def test_variants_differ_in_packages(variant, package, there):
    assert (package in make_recipe(variant=variant).packages) is there


@pytest.mark.parametrize(
    ("recipe", "numbers", "firmware"),
    [
        pytest.param(Recipe(), [14, 15, 1], ("bios", "uefi"), id="ubuntu"),
        pytest.param(
            Recipe(variant=Variant.NOT_LAST), [14, 15, 1, 2], ("bios", "uefi"), id="not-last"
        ),
        pytest.param(Recipe(variant=Variant.WHOLE_DISK), [], ("bios",), id="whole-disk"),
        pytest.param(Recipe(arch="arm64"), [15, 1], ("uefi",), id="arm64"),
    ],
)
def test_layout(recipe, numbers, firmware, tmp_path):
    layout = recipe.layout
    assert recipe.firmware == firmware
    assert [each.number for each in layout.partitions] == numbers
    if not numbers:
        assert layout.disk_bytes == 2000 * MIB
        return
    disk = tmp_path / "disk.raw"
    disk.touch()
    os.truncate(disk, layout.disk_bytes)
    subprocess.run(
        ["/usr/sbin/sfdisk", "-q", disk], input=layout.sfdisk_script(), text=True, check=True
    )
    table = json.loads(output_of("/usr/sbin/sfdisk", "--json", disk))["partitiontable"]
    found = {each["node"].removeprefix(str(disk)): each for each in table["partitions"]}
    for each in layout.partitions:
        there = found[str(each.number)]
        assert (there["start"], there["size"], there["type"]) == (
            each.start,
            each.sectors,
            each.type,
        )


def test_data_is_copied_and_holes_stay_holes(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as stream:
        stream.seek(8 * MIB)
        stream.write(b"middle" * 1000)
        stream.truncate(64 * MIB)
    target.touch()
    os.truncate(target, 80 * MIB)
    copy_data(source, target, 16 * MIB)
    with target.open("rb") as stream:
        stream.seek(16 * MIB)
        assert stream.read(64 * MIB) == source.read_bytes()
    assert target.stat().st_blocks * 512 < MIB


def test_core_image_is_chained_to_its_second_sector():
    core = bytearray(2048)
    core[500:512] = (2).to_bytes(8, "little") + (3).to_bytes(2, "little") + b"\x20\x08"
    linked = linked_core(bytes(core), 2048)
    assert int.from_bytes(linked[500:508], "little") == 2049
    assert linked[508:512] == bytes(core)[508:512]


def test_lvm_reads_the_volume(tmp_path):
    headers = volume_headers("test", 2004 * MIB, 2000 * MIB)
    assert headers == volume_headers("test", 2004 * MIB, 2000 * MIB)
    volume = tmp_path / "pv"
    volume.write_bytes(headers)
    os.truncate(volume, 2004 * MIB)
    # pvck checks both checksums and says so on standard error.
    dump = subprocess.run(
        ["/usr/sbin/pvck", "--dump", "headers", volume], capture_output=True, text=True, check=True
    )
    assert "metadata text at 4608" in dump.stdout
    assert "vgname lab seqno 1" in dump.stdout
    assert re.findall(r"(?i)error|bad|incorrect|wrong|invalid", dump.stdout + dump.stderr) == []
    text = output_of("/usr/sbin/pvck", "--dump", "metadata", volume)
    assert "extent_count = 500" in text
    assert "pe_count = 500" in text


def test_xfs_prototype_closes_folders_in_the_right_places():
    entries = [
        ("0", "d", "755", "0", "0", "", ""),
        ("1", "d", "1777", "0", "0", "tmp", ""),
        ("1", "d", "755", "0", "0", "usr", ""),
        ("2", "d", "755", "0", "0", "usr/bin", ""),
        ("3", "f", "4755", "0", "27", "usr/bin/sudo", ""),
        ("1", "l", "777", "0", "0", "bin", "usr/bin"),
    ]
    listing = "".join("\t".join(entry) + "\0" for entry in entries)
    assert build.xfs_prototype(listing, "tree").splitlines() == [
        "cloudlab",
        "0 0",
        "d--755 0 0",
        "tmp d--777 0 0",
        "$",
        "usr d--755 0 0",
        "bin d--755 0 0",
        "sudo -u-755 0 27 tree/usr/bin/sudo",
        "$",
        "$",
        "bin l--777 0 0 usr/bin",
        "$",
    ]


@pytest.fixture
def tree(tmp_path):
    """The folders of a root filesystem that a build writes to."""
    tree = tmp_path / "tree"
    for name in ("boot", "etc/default", "etc/dpkg/dpkg.cfg.d", "etc/ssh"):
        (tree / name).mkdir(parents=True)
    return tree


@pytest.mark.skipif(not FSTAB_GENERATOR.exists(), reason="needs systemd")
def test_a_slow_host_gets_15_minutes_to_find_the_efi_partition(tree, tmp_path):
    build.configure(Recipe(), tree)
    units = [tmp_path / name for name in ("normal", "early", "late")]
    for folder in units:
        folder.mkdir()
    output_of(FSTAB_GENERATOR, *units, env={"SYSTEMD_FSTAB": tree / "etc/fstab"})
    assert "Where=/boot/efi" in (units[0] / "boot-efi.mount").read_text()
    [limit] = units[0].glob("dev-*UEFI.device.d/*timeout.conf")
    assert "JobRunningTimeoutSec=15min" in limit.read_text()


def test_what_is_missing_is_named_with_one_command(monkeypatch, tmp_path):
    monkeypatch.setattr("cloudlab.image.recipe.GRUB_FOLDER", tmp_path)
    with pytest.raises(ToolNotFoundError, match=re.escape(str(tmp_path))):
        check_host(Recipe())


FOREIGN = "amd64" if host_arch() == "arm64" else "arm64"


@pytest.mark.parametrize(
    ("has", "error", "hint"),
    [
        pytest.param((), "needs arch-test", "arch-test", id="nothing"),
        pytest.param(("arch-test",), "cannot run programs", "qemu-user-static", id="emulator"),
        pytest.param(
            ("arch-test", "emulator"),
            "cannot run programs",
            "> /proc/sys/fs/binfmt_misc/register",
            id="registration",
        ),
    ],
)
def test_what_an_image_for_another_architecture_needs(monkeypatch, tmp_path, has, error, hint):
    """Programs that the host may have for this are hidden, and replaced by some of a test's own."""
    needed = (
        "mmdebstrap",
        "mke2fs",
        "mkfs.vfat",
        "mcopy",
        "sfdisk",
        "grub-mkimage",
        "qemu-img",
        "setpriv",
    )
    for name in (*needed, "apt-get"):
        (tmp_path / name).symlink_to(which(name))
    if "arch-test" in has:
        (tmp_path / "arch-test").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "arch-test").chmod(0o755)
    for cpu in ("x86_64", "aarch64"):
        registration = tmp_path / f"qemu-{cpu}.conf"
        if "emulator" in has:
            registration.touch()
        package = tools.PROGRAMS[str(BINFMT_FOLDER / registration.name)]
        monkeypatch.setitem(tools.PROGRAMS, str(registration), package)
    monkeypatch.setattr("cloudlab.image.build.BINFMT_FOLDER", tmp_path)
    monkeypatch.setattr("cloudlab.tools._SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CloudlabError, match=error) as caught:
        check_host(Recipe(arch=FOREIGN))
    assert hint in caught.value.hint


def test_no_linux_no_build(monkeypatch):
    monkeypatch.setattr(platforms, "SYSTEM", "darwin")
    with pytest.raises(BuildError, match="Linux") as caught:
        check_host(Recipe())
    assert "cloudlab images" in caught.value.hint


def test_a_user_without_namespaces_is_told_what_to_do():
    if os.geteuid() != 0:
        # Whoever runs the tests builds images too, so this user has what it takes.
        assert "--map-root-user" in build.as_tree_root()
        return
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # a user without ranges in /etc/subuid
        os.setgroups([])
        os.setgid(64999)
        os.setuid(64999)
        try:
            build.as_tree_root()
        except BuildError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        told = stream.read()
    assert "/etc/subuid" in told
    assert "root" in told


# --- the image ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def lab_image():
    return build_image()


@pytest.fixture(scope="session")
def raw_disk(lab_image, tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw") / "disk.raw"
    output_of("qemu-img", "convert", "-O", "raw", lab_image.path, raw)
    yield raw
    raw.unlink()


def in_root(raw_disk, request):
    """Ask debugfs about the root filesystem inside the disk."""
    return output_of("/usr/sbin/debugfs", "-R", request, f"{raw_disk}?offset={ROOT_OFFSET}")


@pytest.mark.builds
def test_image_is_cached_and_recorded(lab_image):
    again = build_image(progress=lambda step: pytest.fail(f"built again: {step}"))
    assert again == lab_image == recall("lab-trixie-ext4-r2.qcow2")
    verify(again)
    assert again.file_size_bytes <= 220 * MIB
    assert again.firmware == ("bios", "uefi")
    assert again.details["cloud_init"].startswith("25.1")
    assert list(again.details["seconds"]) == [
        "packages",
        "root filesystem",
        "boot loader",
        "compression",
        "checksum",
    ]


@pytest.mark.builds
def test_cloud_init_schema_lies_beside_the_image(lab_image):
    assert lab_image.schema_path.name == f"{lab_image.name}.schema.json"
    schema = json.loads(lab_image.schema_path.read_text())
    assert "cc_growpart" in schema["$defs"]


@pytest.mark.builds
def test_copy_goes_where_asked(lab_image, tmp_path):
    copy = build_image(output=tmp_path / "mine.qcow2")
    assert copy.path == tmp_path / "mine.qcow2"
    verify(copy)
    assert list(tmp_path.iterdir()) == [copy.path]


@pytest.mark.builds
def test_layout_is_ubuntus(raw_disk):
    table = json.loads(output_of("/usr/sbin/sfdisk", "--json", raw_disk))["partitiontable"]
    assert table["label"] == "gpt"
    assert [
        (each["node"].removeprefix(str(raw_disk)), each["size"] * 512 // MIB)
        for each in sorted(table["partitions"], key=lambda each: each["start"])
    ] == [("14", 4), ("15", 106), ("1", 2000)]
    output_of("/usr/sbin/sfdisk", "--verify", raw_disk)


@pytest.mark.builds
def test_filesystems_are_clean(raw_disk, tmp_path):
    output_of("/usr/sbin/e2fsck", "-fn", f"{raw_disk}?offset={ROOT_OFFSET}")
    esp = tmp_path / "esp"
    with raw_disk.open("rb") as stream, esp.open("wb") as part:
        stream.seek(5 * MIB)
        part.write(stream.read(106 * MIB))
    output_of("/usr/sbin/fsck.vfat", "-n", esp)


@pytest.mark.builds
def test_files_belong_to_whom_debian_gave_them(raw_disk):
    assert re.search(r"Mode:\s+04755", in_root(raw_disk, "stat /usr/bin/sudo"))
    helper = in_root(raw_disk, "stat /usr/lib/dbus-1.0/dbus-daemon-launch-helper")
    groups = in_root(raw_disk, "cat /etc/group")
    messagebus = re.search(r"^messagebus:x:(\d+):", groups, re.MULTILINE)[1]
    assert re.search(rf"User:\s+0\s+Group:\s+{messagebus}\s", helper)
    assert re.search(r"User:\s+0\s+Group:\s+0\s", in_root(raw_disk, "stat /"))


@pytest.mark.builds
def test_image_has_no_identity(raw_disk):
    assert in_root(raw_disk, "cat /etc/machine-id") == ""
    assert "ssh_host" not in in_root(raw_disk, "ls /etc/ssh")
    assert "\nroot:*:" in "\n" + in_root(raw_disk, "cat /etc/shadow")
    assert in_root(raw_disk, "cat /etc/hostname") == "debian\n"


@pytest.mark.builds
def test_root_filesystem_can_grow_to_two_tib(raw_disk, tmp_path):
    root = tmp_path / "root.raw"
    root.touch()
    with raw_disk.open("rb") as stream, root.open("wb") as copy:
        stream.seek(ROOT_OFFSET)
        shutil.copyfileobj(stream, copy, 16 * MIB)
    os.truncate(root, 2 << 40)
    output_of("/usr/sbin/resize2fs", "-f", root)
    blocks = re.search(
        r"^Block count:\s+(\d+)", output_of("/usr/sbin/dumpe2fs", "-h", root), re.MULTILINE
    )
    assert int(blocks[1]) * 4096 == 2 << 40
    root.unlink()


SEED = """\
#cloud-config
ssh_genkeytypes: [ed25519]
runcmd:
  - |
    firmware=$(test -d /sys/firmware/efi && echo uefi || echo bios)
    root=$(df -B1 --output=size / | tail -n 1)
    sectors=$(cat /sys/class/block/vda1/size)
    failed=$(systemctl --failed --plain --no-legend | tr '\\n' ';')
    # systemd and the login prompt write on this console, too: one line, in one piece, repeated.
    for time in 1 2 3; do
      printf '\\nBOOTED %s %d %d <%s>\\n' $firmware $root $sectors "$failed" > /dev/ttyS0
      sleep 1
    done
"""
BOOTED = re.compile(r"BOOTED (\w+) (\d+) (\d+) <(.*)>$")


def boot(image, tmp_path, *extra):
    """Boot ``image`` on a disk of 20 GiB; return what its seed reported."""
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "user-data").write_text(SEED)
    (seed / "meta-data").write_text("instance-id: build-test\n")
    iso, disk = tmp_path / "seed.iso", tmp_path / "disk.qcow2"
    output_of("genisoimage", "-quiet", "-o", iso, "-V", "cidata", "-r", "-J", seed)
    options = ["-f", "qcow2", "-F", image.format, "-b", image.path]
    output_of("qemu-img", "create", "-q", *options, disk, "20G")
    argv = [
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-cpu",
        "max,cx16=off",
        "-m",
        "1024",
        "-nodefaults",
    ]
    argv += ["-nic", "none", "-display", "none", "-serial", "stdio", *extra]
    argv += ["-drive", f"file={disk},if=virtio,format=qcow2"]
    argv += ["-drive", f"file={iso},if=virtio,format=raw,readonly=on"]
    console = []
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, errors="replace", text=True
    ) as machine:
        limit = threading.Timer(1200, machine.kill)
        limit.start()
        try:
            for line in machine.stdout:
                console.append(line.rstrip())
                if found := BOOTED.search(console[-1]):
                    return found.groups()
        finally:
            limit.cancel()
            machine.kill()
    return pytest.fail("\n".join(console))


@pytest.mark.boots
@pytest.mark.builds
def test_boots_by_uefi_and_grows(lab_image, tmp_path):
    """By BIOS, all other tests boot it."""
    variables = shutil.copy(OVMF[1], tmp_path / "vars.fd")
    firmware = ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF[0]}"]
    firmware += ["-drive", f"if=pflash,format=raw,file={variables}"]
    found, root, sectors, failed_units = boot(lab_image, tmp_path, *firmware)
    assert found == "uefi"
    assert 0.98 * 20 * GIB < int(root) < 20 * GIB
    # The partition is as large as can be.
    assert int(sectors) == (20 * GIB - ROOT_OFFSET) // 512 - 33
    assert failed_units == ""


# --- interruption ---------------------------------------------------------------------

CHILD = """
import sys
from cloudlab.image.build import build_image
build_image(progress=lambda step: print(step.title, step.detail, flush=True))
"""


@pytest.mark.builds
def test_an_unreachable_mirror_is_the_reason_that_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # the discard service, which nobody runs
    with pytest.raises(
        BuildError, match=r"'packages': Failed to fetch http\S+ .*127\.0\.0\.1"
    ) as caught:
        build_image()
    assert "http_proxy" in caught.value.hint
    assert left_in(tmp_path) == []


@pytest.mark.builds
def test_a_step_that_takes_too_long_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_PACKAGES_TIMEOUT_S", 0.5)
    with pytest.raises(BuildError, match="its step 'packages' took too long"):
        build_image()
    assert left_in(tmp_path) == []


@pytest.fixture
def start_build(tmp_path):
    """Start builds in processes of their own, each returned when it is amid its packages."""
    children = []

    def start():
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env={**os.environ, "CLOUDLAB_CACHE": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        children.append(child)
        for line in child.stdout:
            if "extracting" in line:
                return child
        raise AssertionError("the build ended before it was interrupted")

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def processes_in(folder):
    """Return the command lines of all processes that name ``folder``, but for those killed.

    One that waits for a slow disk goes only when the disk has answered.
    """
    lines = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            words = (each / "cmdline").read_bytes().decode(errors="replace").split("\0")
            pending = re.findall(r"(?m)^S\w+Pnd:\s+(\w+)", (each / "status").read_text())
        except OSError:
            continue
        killed = any(int(mask, 16) >> (signal.SIGKILL - 1) & 1 for mask in pending)
        if str(folder) in " ".join(words) and not killed:
            lines.append(words)
    return lines


def left_in(cache):
    return [each for each in (cache / "images").iterdir() if each.name != ".build.lock"]


@pytest.mark.builds
def test_interrupted_build_leaves_nothing(start_build, tmp_path):
    child = start_build()
    assert processes_in(tmp_path)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=300) != 0
    assert processes_in(tmp_path) == []
    assert left_in(tmp_path) == []


@pytest.mark.builds
def test_killed_build_runs_no_further_and_is_swept_by_the_next(start_build, tmp_path):
    start_build().kill()
    # The kernel kills at once; left alone, mmdebstrap would go on for longer than this.
    limit = time.monotonic() + 30
    while processes_in(tmp_path) and time.monotonic() < limit:
        time.sleep(0.05)
    assert processes_in(tmp_path) == []
    killed = left_in(tmp_path)
    assert len(killed) == 1
    second = start_build()
    assert killed[0] not in left_in(tmp_path)
    second.send_signal(signal.SIGINT)
    second.wait(timeout=300)
    assert left_in(tmp_path) == []


@pytest.mark.builds
def test_second_build_waits_and_takes_what_the_first_made(lab_image, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path))
    images = paths.make_folder(paths.images_folder())
    steps, result = [], []
    waiting = threading.Event()

    def progress(step: BuildStep):
        steps.append(step)
        waiting.set()

    with filelock.FileLock(images / ".build.lock"):
        second = threading.Thread(target=lambda: result.append(build_image(progress=progress)))
        second.start()
        assert waiting.wait(timeout=300)
        for path in (lab_image.path, lab_image.path.with_name(lab_image.name + ".json")):
            try:
                os.link(path, images / path.name)
            except OSError:  # another filesystem
                shutil.copy2(path, images / path.name)
    second.join(timeout=300)
    assert [image.sha256 for image in result] == [lab_image.sha256]
    assert [(step.number, step.title) for step in steps] == [(0, "waiting for another build")]

"""The command line as a user types it: real QEMU, exit codes and words."""

import contextlib
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import faulty_server
import pytest
import yaml
from command import cloudlab, process
from guests import make_guest, report
from seeds import read_iso

from cloudlab.cli import _text, make_parser
from cloudlab.course.runs import live_problem, ready_line
from cloudlab.image.cache import open_image, remember
from cloudlab.image.recipe import Suite, Variant
from cloudlab.machine.config import Accel, Firmware, Network
from cloudlab.run.options import Start
from cloudlab.run.value import recordings_folder
from cloudlab.seed import GrowpartMode, Profile, ResizeRootfs
from cloudlab.tools import host_arch

DATA = Path(__file__).parent / "data"


@pytest.fixture
def guest(tmp_path, own_cache):
    """An image whose guest does nothing but print a complete report."""
    return make_guest(tmp_path / "guest.raw", report())


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.scripts, self.links = [], 0, []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.images.append(attrs)
        self.scripts += tag == "script"
        self.links += [value for name, value in attrs.items() if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


@pytest.mark.vm
def test_demo_leaves_table_figures_and_a_page(tmp_path, guest):
    out = tmp_path / "demo"
    done = process("demo", "--image", guest, "--output", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out / "report.html")
    with (out / "sizes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["scenario"] for row in rows} == {"default", "filesystem kept", "partition kept"}
    assert {"image", "before", "after"} <= {row["stage"] for row in rows}
    runs = ("default", "filesystem-kept", "partition-kept")
    for run in runs:
        about = json.loads((out / run / "run.json").read_text())
        assert about["outcome"] == "done"
        assert {"user-data", "meta-data", "console.log", "console.cast", "sizes.csv"} <= {
            path.name for path in (out / run).iterdir()
        }
        assert not list((out / run).glob("overlay*"))
    for name in (*(f"disk-map-{run}" for run in runs), "scenarios"):
        root = ET.parse(out / f"{name}.svg").getroot()
        assert root.find("{http://www.w3.org/2000/svg}desc").text
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = Page((out / "report.html").read_text())
    assert len(page.images) == 4
    assert all(re.search(r"\d+ GiB", image["alt"]) for image in page.images)
    assert all(link.startswith("data:") for link in page.links), "the page must be self-contained"
    assert page.scripts == 0
    assert "19.9G" in page.text, "the article's number stands beside ours"
    assert "@cloudlab after" in page.text, "the proving console lines"


@pytest.mark.vm
def test_a_second_demo_does_not_touch_the_first(tmp_path, guest):
    (tmp_path / "demo" / "default").mkdir(parents=True)
    (tmp_path / "demo" / "default" / "run.json").write_text("mine")
    done = process("demo", "--image", guest, "--output", tmp_path / "demo")
    assert done.returncode == 1
    assert "already holds a run" in done.stderr
    assert (tmp_path / "demo" / "default" / "run.json").read_text() == "mine"


@pytest.mark.vm
def test_run_then_replay_then_figure(tmp_path, guest):
    folder = tmp_path / "ein Lauf, ü"
    done = process("run", "--image", guest, "--output", folder, "--growpart", "off")
    assert done.returncode == 0, done.stderr
    assert "partition kept" in done.stdout
    assert "mode: 'off'" in (folder / "user-data").read_text()
    played = process("replay", folder, "--speed", "50")
    assert played.returncode == 0
    assert "RECORDING" in played.stderr
    assert "guest.raw" in played.stderr
    assert "TCG" in played.stderr or "KVM" in played.stderr
    assert "@cloudlab after" in played.stdout
    for kind in ("layers", "disk-map", "scenarios", "timeline", "overlay-map", "stages"):
        figure = tmp_path / f"{kind}.svg"
        data = tmp_path / f"{kind}.csv"
        drawn = process("figure", folder, "--kind", kind, "--output", figure, "--data", data)
        assert drawn.returncode == 0, drawn.stderr
        ET.parse(figure)
        # This guest wrote nothing, so its overlay map has no cells.
        assert (len(data.read_text().splitlines()) > 1) is (kind != "overlay-map")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["run", "--growpart", "of"], 2, "auto, growpart, gpart, off"),
        (["run", "--resize-rootfs", "yes"], 2, "true, false, noblock"),
        (["run", "--profile", "fat"], 2, "lean, full"),
        (["run", "--growpart", "offf"], 2, "Did you mean off?"),
        (["run", "--growprt", "off"], 2, "Did you mean --growpart"),
        (["run", "--image", "ubuntu-18.4"], 2, "ubuntu-18.04"),
        (["run", "--image", "./nowhere.img"], 1, "nowhere.img"),
        (["run", "--disk-size", "20"], 2, "20G"),
        (["run", "--disk-size", "20GB"], 2, "20G"),
        (["run", "--disk-size", "--cpus"], 2, "--disk-size: expected one argument"),
        (["run", "--disk-size=-1G"], 2, "20G"),
        (["run", "--disk-size", "0"], 2, "20G"),
        (["run", "--disk-size", "abc"], 2, "20G"),
        (["run", "--memory", "64M"], 2, "256 MiB"),
        (["run", "--cpus", "0"], 2, "at least one"),
        (["run", "--user-data", "missing.yaml"], 2, "missing.yaml"),
        (["run", "--firmware", "coreboot"], 2, "bios"),
        (["run", "--timeout", "-5"], 2, "not a number above 0"),
        (["share", "--port", "http"], 2, "1 to 65535"),
        (["demo", "--disk-size", "x"], 2, "20G"),
        (["parse", "missing.log"], 1, "missing.log"),
        (["inspect", "missing.img"], 1, "missing.img"),
        (["replay", "nowhere"], 1, "run.json"),
        (["replay", "defualt"], 1, "Did you mean default?"),
        (["replay", "lvm", "--from", "grow"], 2, "Did you mean growth?"),
        (["explain", "growpart-of"], 1, "Did you mean growpart-off"),
        (["figure", "nowhere", "--kind", "disk-map"], 1, "growpart-off"),
        (["figure", "nowhere", "--kind", "pie", "--output", "x.svg"], 2, "disk-map"),
        (["figure", "default", "--kind", "disk-mp"], 2, "Did you mean disk-map?"),
        (["figure", "default", "--kind", "prediction"], 2, "19.9G,20G"),
        (["figure", "default", "xfs", "--kind", "disk-map"], 2, "scenarios"),
        (["figure"], 2, "cloudlab figure default"),
        (["build", "--suite", "woody"], 2, "bookworm"),
        (["build", "--filesystem", "zfs"], 2, "btrfs"),
        (["stop"], 2, "cloudlab ps"),
        (["stop", "nobody"], 2, "nobody"),
        (["verify", "nobody"], 2, "nobody"),
        (["dance"], 2, "doctor, ps"),
        (["figur"], 2, "Did you mean figure?"),
        ([], 2, "COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_told_and_leaves_nothing(tmp_path, own_cache, args, code, words):
    done = cloudlab(*args, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert words in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_options_that_user_data_would_make_idle_are_refused(tmp_path, own_cache):
    (tmp_path / "mine").write_text("#cloud-config\n")
    done = cloudlab("run", "--user-data", "mine", "--growpart", "off", cwd=tmp_path)
    assert done.returncode == 2
    assert "--growpart would have no effect" in done.stderr


@pytest.mark.vm
def test_a_disk_smaller_than_the_image_names_both_sizes(tmp_path, guest):
    subprocess.run(["truncate", "-s", "3G", guest], check=True)
    out = tmp_path / "out"
    done = process("run", "--image", guest, "--disk-size", "2G", "--output", out)
    assert done.returncode in (1, 2)
    assert "A disk of 2.0 GiB is smaller than the image" in done.stderr
    assert "a virtual size of 3.0 GiB." in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (os.urandom(4096) + b"\0" * 4096, "lsblk"), (b"nothing of use\n", "lsblk")],
    ids=["empty", "binary", "no tables"],
)
def test_parse_says_what_a_useless_log_lacks(tmp_path, content, words):
    log = tmp_path / "console.log"
    log.write_bytes(content)
    done = cloudlab("parse", log)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_parse_prints_the_designs_json():
    done = cloudlab("parse", DATA / "console-article.log", "--json")
    reports = json.loads(done.stdout)["reports"]
    assert {"stage", "lsblk", "df", "exact"} <= reports[0].keys()
    [root] = [row for row in reports[0]["lsblk"] if row["name"] == "vda1"]
    assert {"name", "size_bytes", "type", "mountpoints", "line"} <= root.keys()
    assert root["mountpoints"] == ["/"]


def test_parse_says_which_rows_it_did_not_understand():
    log = "NAME MAJ:MIN RM SIZE RO TYPE MOUNTPOINT\nvda 252:0 0 20G 0 disk\nvdb 252:16 0 ?? 0 disk\n...\n"
    done = cloudlab("parse", "-", "--json", stdin=log)
    answer = json.loads(done.stdout)
    [report] = answer["reports"]
    assert list(report) == ["stage", "lsblk", "df", "exact"]
    assert [row["name"] for row in report["lsblk"]] == ["vda"]
    assert [row["line"] for row in answer["unread"]] == [3, 4]
    assert "line 3" in done.stderr
    assert "vdb 252:16 0 ?? 0 disk" in done.stderr
    assert "line 4" in done.stderr


def test_parse_shows_what_is_known_of_a_df_without_mount_points():
    table = "Filesystem  Size\n/dev/vda1    20G\n"
    assert "/dev/vda1" in cloudlab("parse", "-", stdin=table).stdout


def test_parse_reads_standard_input():
    log = (DATA / "console-article.log").read_text()
    assert "vda1" in cloudlab("parse", "-", stdin=log).stdout


def test_inspect_prints_the_designs_json(tmp_path):
    disk = tmp_path / "disk.raw"
    subprocess.run(["truncate", "-s", "64M", disk], check=True)
    subprocess.run(
        ["sfdisk", "-q", disk], input="label: gpt\nsize=8M\nsize=16M\n", text=True, check=True
    )
    told = json.loads(cloudlab("inspect", disk, "--json").stdout)
    assert (told["format"], told["table"], told["virtual_size_bytes"]) == ("raw", "gpt", 64 << 20)
    assert [part["size_bytes"] for part in told["partitions"]] == [8 << 20, 16 << 20]
    assert {"number", "start_bytes", "size_bytes", "type", "filesystem"} <= told["partitions"][
        0
    ].keys()


def test_seed_is_read_by_others(tmp_path):
    iso = tmp_path / "seed.iso"
    done = cloudlab("seed", iso, "--resize-rootfs", "false", "--hostname", "node-1")
    assert done.stdout.strip() == str(iso)
    said = subprocess.run(
        ["isoinfo", "-R", "-x", "/user-data", "-i", iso], capture_output=True, text=True, check=True
    ).stdout
    assert "resize_rootfs: false" in said
    assert "report" not in said, "a seed for others carries nothing of ours"


def test_seed_says_what_may_not_be_meant_and_takes_own_meta_data(tmp_path):
    (tmp_path / "extra").write_text("password: hunter2\n")
    (tmp_path / "mine").write_text("#cloud-config\ngrowpart:\n  mode: off\n")
    (tmp_path / "meta").write_text("local-hostname: there\n")
    for option, name, place in (
        ("--extra", "extra", "line 1, column 11: a password in plain text"),
        ("--user-data", "mine", "line 3, column 9: an unquoted off"),
    ):
        done = cloudlab("seed", "x.iso", option, name, "--meta-data", "meta", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"warning: {place}" in done.stderr
        assert "warning: line 1, column 1: meta-data has no instance-id" in done.stderr
        assert "hunter2" not in done.stderr
        said = subprocess.run(
            ["isoinfo", "-R", "-x", "/meta-data", "-i", tmp_path / "x.iso"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert said == "local-hostname: there\n"
        (tmp_path / "x.iso").unlink()


def test_a_message_of_several_lines_is_said_once(tmp_path):
    (tmp_path / "mine").write_text("#cloud-config\nruncmd: ls\nbootcmd: ls\n")
    done = cloudlab("seed", "x.iso", "--user-data", "mine", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(set(lines)) == 4
    assert lines[0] == "cloudlab: cloud-init would not accept this user-data:"
    assert "switch the check off" in lines[3]


def test_seed_takes_vendor_data_network_config_and_users(tmp_path, own_cache):
    (tmp_path / "vendor").write_text("#cloud-config\nruncmd: [ls]\n")
    (tmp_path / "net").write_text("version: 2\nethernets: {}\n")
    done = cloudlab(
        "seed", "x.iso", "--vendor-data", "vendor", "--network-config", "net", "--user", "ada",
        "--user", "bob", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seed = read_iso(tmp_path / "x.iso")
    assert seed.vendor_data == "#cloud-config\nruncmd: [ls]\n"
    assert seed.network_config == "version: 2\nethernets: {}\n"
    users = yaml.safe_load(seed.user_data)["users"]
    assert [one if one == "default" else one["name"] for one in users] == ["default", "ada", "bob"]
    for option, text in (("--vendor-data", "#cloud-config\n- a\n"), ("--network-config", "a: [")):
        (tmp_path / "bad").write_text(text)
        done = cloudlab("seed", "y.iso", option, "bad", cwd=tmp_path)
        assert done.returncode == 1
        assert f"would not accept this {option[2:]}" in done.stderr


def test_a_private_key_is_refused_and_the_public_one_named(tmp_path, own_cache):
    (tmp_path / "id").write_text(
        "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
    )
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample someone@example"
    (tmp_path / "id.pub").write_text(f"{key}\n")
    for command in (["seed", "x.iso"], ["run", "--output", "out"]):
        done = cloudlab(*command, "--ssh-key", "id", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        said = " ".join(done.stderr.split())
        assert "id: This is a private key" in said
        assert "The public key is in id.pub." in said
        assert "c2VjcmV0" not in said
    done = cloudlab("seed", "x.iso", "--ssh-key", "/etc/passwd", cwd=tmp_path)
    assert "/etc/passwd: Line 1 is not an SSH public key" in " ".join(done.stderr.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "id", "id.pub"]
    done = cloudlab("seed", "x.iso", "--ssh-key", "id.pub", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(read_iso(tmp_path / "x.iso").user_data)["ssh_authorized_keys"] == [key]


FILE_OPTIONS = (
    "--user-data", "--meta-data", "--vendor-data", "--network-config", "--extra", "--ssh-key",
    "--password-hash-file",
)  # fmt: skip


@pytest.mark.parametrize("option", FILE_OPTIONS)
def test_a_file_that_never_ends_is_refused(option, tmp_path, own_cache):
    os.mkfifo(tmp_path / "pipe")
    for path, words in (("/dev/zero", "longer than 1 MiB"), ("pipe", "nothing writes to")):
        done = cloudlab("seed", "x.iso", option, path, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert words in " ".join(done.stderr.split())


def test_user_data_may_come_through_a_pipe(tmp_path, own_cache):
    text = "#cloud-config\ntimezone: UTC\n"
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    done = cloudlab("seed", "x.iso", "--user-data", f"/dev/fd/{reading}", cwd=tmp_path)
    os.close(reading)
    assert done.returncode == 0, done.stderr
    assert read_iso(tmp_path / "x.iso").user_data == text


@pytest.mark.parametrize(
    "command", [["doctor"], ["images"], ["run"], ["verify"], ["ps"]], ids=" ".join
)
@pytest.mark.parametrize("variable", ["CLOUDLAB_CACHE", "CLOUDLAB_CATALOGUE"])
def test_a_home_folder_of_nobody_is_told(variable, command, tmp_path, own_cache):
    done = cloudlab(*command, env={variable: "~nouser/x"}, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    if variable == "CLOUDLAB_CACHE" or command == ["images"]:
        assert done.returncode in {1, 2}
        assert "there is no user nouser" in " ".join((done.stderr + done.stdout).split())


@contextlib.contextmanager
def started(*args, cwd):
    argv = [sys.executable, "-m", "cloudlab", *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        argv, cwd=cwd, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **pipes
    ) as one:
        yield one
        one.send_signal(signal.SIGINT)
        one.said = one.communicate()[1]


def test_an_interrupted_command_says_what_it_leaves(tmp_path, own_cache):
    with started("share", "--address", "127.0.0.1", cwd=tmp_path) as share:
        while "CLOUDLAB_MIRROR" not in share.stdout.readline():
            pass
    with faulty_server.FaultyServer() as server:
        server.fail("/x.img", faulty_server.stall(0))
        server.put("/x.img", b"x" * 100)
        with started("fetch", f"{server.url}/x.img", cwd=tmp_path) as fetch:
            while not server.seen:
                time.sleep(0.01)
    os.mkfifo(tmp_path / "pipe")
    with (
        started("seed", "x.iso", "--user-data", "pipe", cwd=tmp_path) as seed,
        (tmp_path / "pipe").open("w"),  # once the command has opened it, too
    ):
        seed.send_signal(signal.SIGINT)
        seed.wait()
    for command, words in ((share, "no longer served"), (fetch, "resumes"), (seed, "interrupted.")):
        assert command.returncode == 130
        assert words in command.said
        assert "machine" not in command.said


@pytest.mark.vm
def test_run_keeps_vendor_data_and_network_config(tmp_path, guest):
    (tmp_path / "vendor").write_text("#cloud-config\nruncmd: [ls]\ntimezone: UTC\n")
    (tmp_path / "net").write_text("version: 2\n")
    out = tmp_path / "out"
    done = process(
        "run", "--image", guest, "--vendor-data", tmp_path / "vendor",
        "--network-config", tmp_path / "net", "--output", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no effect here, because the report's runcmd" in " ".join(done.stderr.split())
    assert (out / "vendor-data").read_text() == (tmp_path / "vendor").read_text()
    assert (out / "network-config").read_text() == "version: 2\n"


@pytest.mark.parametrize(
    "args", [["run", "--output", "/proc/x"], ["demo", "--output", "/proc/x"],
             ["build", "--output", "/proc/x/y.qcow2"], ["run", "--output", "file/x"],
             ["lab", "--copy-only", "--folder", "file"], ["share", "--class", "file"],
             ["class", "folder", "--csv", "gone/x.csv"], ["class", "folder", "--csv", "folder"]],
    ids=" ".join,
)  # fmt: skip
def test_an_output_that_cannot_be_written_is_told_first(tmp_path, own_cache, args):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    done = cloudlab(*args, cwd=tmp_path)
    assert done.returncode in (1, 2)
    option = next(word for word in reversed(args) if word.startswith("--"))
    assert option in done.stderr.splitlines()[-1]
    assert args[-1].split("/")[0] in done.stderr
    assert not re.search("CLOUDLAB_CACHE|[.]part", done.stderr)
    assert "Image:" not in done.stderr, "nothing was chosen or built for it"
    assert "build 1/" not in done.stderr


@pytest.mark.parametrize(
    "args",
    ["parse ''", "inspect ''", "seed ''", "figure ''", "replay ''", "explain ''", "run --output=",
     "lab --copy-only --folder ''", "class --csv=", "share --site=", "seed x.iso --user-data ''",
     "seed x.iso --ssh-key ''"],
)  # fmt: skip
def test_an_empty_path_is_no_folder(tmp_path, own_cache, args):
    done = cloudlab(*shlex.split(args), cwd=tmp_path)
    assert done.returncode == 2
    assert "'' is no path" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["cache"]


def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "log").write_text("NAME SIZE TYPE\nvda 20G disk\n")
    done = cloudlab("parse", "~/log")
    assert (done.returncode, "20.0 GiB" in done.stdout) == (0, True)
    done = cloudlab("parse", "~nouser/log")
    assert (done.returncode, "no user nouser" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["demo", "--growpart", "off"], ""),
        (["demo", "--frmware", "uefi"], "Did you mean --firmware?"),
        (["run", "--disksize", "3G"], "Did you mean --disk-size?"),
    ],
)
def test_only_a_similar_option_is_suggested(args, words, own_cache):
    done = cloudlab(*args)
    assert done.returncode == 2
    assert f"unknown argument: {' '.join(args[1:])}. {words}".rstrip() + "\n" in done.stderr


def test_verify_says_that_the_cache_is_empty(own_cache):
    done = cloudlab("verify")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no image" in done.stderr


def test_help_names_every_suite():
    assert set(re.findall(r"\w+", cloudlab("build", "--help").stdout)) >= set(Suite)


@pytest.mark.vm
def test_run_says_the_accelerator_that_it_uses(tmp_path, guest):
    note = json.dumps({"key": json.loads(record(guest).read_text())["key"], "accel": "kvm",
                       "reason": "it ran", "sandbox": True})  # fmt: skip
    record(guest).write_text(note)
    done = process("run", "--image", guest, "--accel", "tcg", "--output", tmp_path / "out")
    assert "accelerator: tcg (as requested)" in done.stderr
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["accelerator"] == {"name": "tcg", "reason": "as requested"}


def record(guest):
    return guest.parent / "cache" / f"accelerator-{host_arch()}.json"


@pytest.mark.vm
@pytest.mark.parametrize("names", [("run",), ("demo", "default")], ids=["run", "demo"])
def test_the_console_may_be_watched(tmp_path, guest, names):
    out = tmp_path / "out"
    done = process(names[0], "--image", guest, "--console", "--output", out)
    assert done.returncode == 0, done.stderr
    # A line of its own each, however long, with the host's time, and with several runs the name.
    lines = re.findall(r"^ *\d+\.\d\d (.*@cloudlab .*)$", done.stderr, re.MULTILINE)
    log = (out.joinpath(*names[1:]) / "console.log").read_text().splitlines()
    prefix = f"{names[1]}: " if names[1:] else ""
    assert [prefix + line for line in log if "@cloudlab" in line] == [
        line for line in lines if line.startswith(prefix)
    ]


@pytest.mark.vm
def test_a_reader_who_leaves_ends_no_run(tmp_path, guest):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "cloudlab",
        "run",
        "--image",
        guest,
        "--console",
        "--output",
        out,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        run.stdout.readline()
        run.stdout.close()
    about = json.loads((out / "run.json").read_text())
    assert (about["outcome"], about["error"]) == ("done", None)


@pytest.mark.vm
@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_a_run_needs_no_open_output(tmp_path, guest, closed):
    out = tmp_path / "out"
    words = f"{sys.executable} -m cloudlab run --image {guest} --output {out} {closed}"
    subprocess.run(words, shell=True, check=False, capture_output=True)
    assert json.loads((out / "run.json").read_text())["outcome"] == "done"


@pytest.mark.vm
def test_run_says_warnings_before_it_boots(tmp_path, guest):
    (tmp_path / "mine").write_text("#cloud-config\nresize_rootfs: true\nresize_rootfs: false\n")
    done = process(
        "run", "--image", guest, "--user-data", tmp_path / "mine", "--disk-size", "1M",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert "warning: line 3, column 1: the key 'resize_rootfs' appears twice" in done.stderr


def test_options_that_meta_data_would_make_idle_are_refused(tmp_path, own_cache):
    (tmp_path / "meta").write_text("instance-id: mine\n")
    done = cloudlab("seed", "x.iso", "--meta-data", "meta", "--hostname", "h", cwd=tmp_path)
    assert done.returncode == 2
    assert "--hostname would have no effect" in done.stderr
    assert not (tmp_path / "x.iso").exists()


@pytest.mark.vm
def test_doctor_goes_on_with_a_catalogue_that_cannot_be_read(own_cache, monkeypatch, tmp_path):
    (tmp_path / "mine.yaml").write_text("images: [")
    monkeypatch.setenv("CLOUDLAB_CATALOGUE", str(tmp_path / "mine.yaml"))
    done = cloudlab("doctor", "--json")
    [image] = [one for one in json.loads(done.stdout)["checks"] if one["name"] == "image"]
    assert not image["ok"]
    assert "mine.yaml" in image["detail"]
    assert "Correct that line" in image["fix"]
    assert "mine.yaml" in live_problem()
    assert ready_line().startswith("not ready: ")


@pytest.mark.vm
def test_doctor_says_that_no_run_takes_a_variant_by_itself(own_cache):
    (own_cache / "images").mkdir()
    image = open_image(make_guest(own_cache / "images" / "lvm.raw", ""))
    remember(replace(image, details={"variant": "lvm"}))
    [found] = [
        one
        for one in json.loads(cloudlab("doctor", "--json").stdout)["checks"]
        if one["name"] == "image"
    ]
    assert found["detail"] == "none that a run takes without its name (1 in the cache)"


@pytest.mark.vm
def test_doctor_is_the_designs_json(own_cache):
    done = process("doctor", "--json")
    told = json.loads(done.stdout)
    assert all({"name", "ok", "detail", "fix"} <= check.keys() for check in told["checks"])
    assert told["checks"][0]["name"] == "system"
    assert f"Python {sys.version_info.major}." in told["checks"][0]["detail"]
    assert told["accelerator"]["name"] in ("kvm", "hvf", "tcg")
    assert told["accelerator"]["reason"]
    assert done.returncode == (0 if all(check["ok"] for check in told["checks"]) else 1)


def test_images_tells_names_and_trust(own_cache):
    rows = json.loads(cloudlab("images", "--json").stdout)
    article = next(row for row in rows if row["name"] == "ubuntu-18.04" and row["arch"] == "amd64")
    assert article["integrity"] == "signed"
    assert article["cached"] is None
    refused = next(row for row in rows if row["name"] == "cirros")
    assert "cloud-init" in refused["refused"]


def test_images_prints_every_name_whole_within_80_columns(own_cache):
    done = cloudlab("images")
    names = {row["name"] for row in json.loads(cloudlab("images", "--json").stdout)}
    head, *lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert {line.split()[0] for line in lines} == names
    assert max(map(len, [head, *lines])) <= 80
    assert "cirros cannot be used: CirrOS holds no cloud-init" in " ".join(done.stderr.split())


def test_verify_takes_a_name_without_its_suffix_and_suggests_others(own_cache):
    disk = bytes(510) + b"\x55\xaa" + bytes(1 << 20)
    (own_cache / "images").mkdir(exist_ok=True)
    path = own_cache / "images" / "school.raw"
    path.write_bytes(disk)
    remember(replace(open_image(path), sha256=hashlib.sha256(disk).hexdigest()))
    assert cloudlab("verify", "school").stdout.startswith("ok  school.raw  sha256 ")
    assert "Did you mean school" in cloudlab("verify", "scool").stderr
    path.write_bytes(disk[:-1] + b"x")
    done = cloudlab("verify")
    assert "1 cached image is not what was recorded" in done.stderr
    assert hashlib.sha256(path.read_bytes()).hexdigest() in "".join(done.stderr.split())


def test_build_names_variants_and_refuses_a_folder_as_output(own_cache, tmp_path):
    listed = cloudlab("build", "--variant", "help").stdout
    for variant in Variant:
        assert variant.summary in listed
    folder = tmp_path / "out"
    folder.mkdir()
    done = cloudlab("build", "--output", folder)
    assert (done.returncode, "is a folder" in done.stderr) == (2, True)
    assert list(folder.iterdir()) == []


def test_ps_has_nothing_to_show(own_cache):
    done = cloudlab("ps", "--json")
    assert json.loads(done.stdout) == []


def test_output_may_go_to_a_reader_that_leaves():
    command = f"{sys.executable} -m cloudlab images | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_what_the_user_chose_in_place_of_other_characters_is_printed(tmp_path):
    (tmp_path / "df.txt").write_text(
        "Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/vda1 9 1 8 9% /grün\n"
    )
    chosen = {"PYTHONIOENCODING": "ascii:backslashreplace"}
    assert "/gr\\xfcn" in process("parse", tmp_path / "df.txt", env=chosen).stdout


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["parse", "tree-é.txt"], b"/gr?n "),
        (["replay", "default", "--from", "report", "--speed", "1000"], b"??vda1"),
        (["explain", "--redact", "tree-é.txt"], b"??vda"),
        (["figure", "default", "--title", "Größe", "--output", "é.svg"], "é.svg".encode()),
        (["seed", "é\udcff.iso", "--runcmd", "echo é\udcff"], "é".encode() + b"\xff.iso\n"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_output_may_have_any_encoding(args, shown, encoding, tmp_path):
    (tmp_path / "tree-é.txt").write_text(
        "NAME  SIZE TYPE MOUNTPOINT\nvda    20G disk\n└─vda1 20G part /grün\n"
    )
    # Python's own encoding then is ASCII, and it reads arguments of other bytes as surrogates.
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "cloudlab", *map(os.fsencode, args)],
        capture_output=True,
        cwd=tmp_path,
        env=os.environ
        | (
            ascii_only
            if encoding == "ascii"
            else {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"}
        ),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if encoding == "ascii" or "iso" in args[1]:
        assert shown in done.stdout
    if args[0] == "figure":
        assert "Größe" in (tmp_path / "é.svg").read_text()
    if args[0] == "seed":
        [seed] = tmp_path.glob("*.iso")
        assert yaml.safe_load(read_iso(seed).user_data)["runcmd"] == ["echo é\ufffd"]


@pytest.mark.parametrize(
    ("argument", "text"),
    [("grün", "grün"), ("gr\udcc3\udcbcn", "grün"), ("gr\udcfcn", "gr\ufffdn")],
    ids=["decoded, by any locale", "UTF-8 in another locale", "no text"],
)
def test_an_argument_is_read_as_utf_8_only_where_python_could_not_decode_it(argument, text):
    assert _text(argument) == text


@pytest.mark.vm
def test_replay_shows_a_prompt_and_no_escape_sequence_however_it_is_cut(tmp_path, guest):
    out = tmp_path / "out"
    assert process("run", "--image", guest, "--output", out).returncode == 0
    pieces = ["one \x1b[3", "1mtwo\x1b", "[0m \x1b]0;ti", "tle\x1b", "\\three\r\n", "login: "]
    events = [json.dumps([0.0, "o", piece]) for piece in pieces]
    # What comes after the prompt comes late: the prompt must be seen before.
    late = json.dumps([600.0, "o", "root\n"])
    head = (out / "console.cast").read_text().splitlines()[0]
    (out / "console.cast").write_text("\n".join([head, *events, late]) + "\n")
    argv = [sys.executable, "-m", "cloudlab", "replay", out, "--speed", "0.001"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as player:
        shown = b""
        while not shown.endswith(b"login: ") and (byte := player.stdout.read(1)):
            shown += byte
        running = player.poll() is None
        player.kill()
    assert shown == b"one two three\nlogin: "
    assert running, "it was shown before what came after it"


def test_a_recording_is_replayed_from_the_moment_that_was_asked_for():
    first = {
        start: cloudlab("replay", "default", "--speed", "1000", "--from", start).stdout
        for start in ("before", "growth", "report")
    }
    assert first["before"].startswith("@cloudlab before 0 ")
    assert "@cloudlab before " not in first["growth"]
    assert "EXT4-fs (vda1): resizing filesystem" in first["growth"].split("@cloudlab after")[0]
    assert "EXT4-fs (vda1): resizing filesystem" not in first["report"].split("@cloudlab after")[0]
    assert first["report"].startswith("@cloudlab after 0 ")


@pytest.mark.parametrize(("run", "says"), [("growpart-off", True), ("resize-rootfs-false", False)])
def test_a_replay_from_growth_says_when_nothing_grew(run, says):
    done = cloudlab("replay", run, "--speed", "1000", "--from", "growth")
    assert ("Nothing grew in this boot" in done.stderr) is says
    assert done.returncode == 0


def test_a_run_without_a_report_cannot_be_replayed_from_it():
    done = cloudlab("replay", "no-seed", "--from", "report")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-seed has no report after growth" in done.stderr


def test_predictions_of_two_runs_of_one_name_are_told_apart(tmp_path):
    shutil.copytree(recordings_folder() / "default", tmp_path / "mine")
    runs = ("default", tmp_path / "mine")
    args = "--kind", "prediction", "--predict", "19.9G,20G", "--data", "x.csv"
    done = cloudlab("figure", *runs, *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = csv.DictReader((tmp_path / "x.csv").read_text().splitlines())
    assert {row["run"] for row in rows} == {"default", "default (2)"}
    alt = ET.parse(tmp_path / "prediction.svg").findtext("{*}desc")
    for name in ("default", "default (mine)"):
        assert f"{name}, partition: predicted 19.9 GiB" in alt


def test_a_figure_of_a_recording_gets_the_name_of_its_kind(tmp_path):
    done = cloudlab("figure", "default", "--kind", "scenarios", cwd=tmp_path)
    assert done.stdout == "scenarios.svg\n", done.stderr
    ET.parse(tmp_path / "scenarios.svg")


def test_an_interrupted_replay_says_nothing_of_machines(tmp_path):
    with started("replay", "default", "--speed", "0.01", cwd=tmp_path) as replay:
        replay.stdout.read(1)
    assert replay.returncode == 130
    assert replay.said.splitlines()[1:] == ["cloudlab: interrupted."]


COMMANDS = sorted(
    next(one for one in make_parser()._actions if isinstance(one.choices, dict)).choices
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_every_option_and_has_an_example_that_parses(command):
    commands = next(one for one in make_parser()._actions if isinstance(one.choices, dict))
    parser = commands.choices[command]
    assert [one.option_strings or one.dest for one in parser._actions if not one.help] == []
    text = parser.format_help()
    examples = text.partition("\nexamples:\n")[2].splitlines()
    assert 1 <= len(examples) <= 3
    for example in examples:
        words = shlex.split(example.partition(" < ")[0])
        assert words[:2] == ["cloudlab", command]
        make_parser().parse_args(words[1:])
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("option", "kind"),
    [("--growpart", GrowpartMode), ("--resize-rootfs", ResizeRootfs), ("--profile", Profile),
     ("--firmware", Firmware), ("--accel", Accel), ("--network", Network), ("--start", Start)],
)  # fmt: skip
def test_the_choices_are_those_of_the_library(option, kind):
    commands = next(one for one in make_parser()._actions if isinstance(one.choices, dict))
    [action] = [one for one in commands.choices["run"]._actions if option in one.option_strings]
    assert set(action.choices) == set(kind)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from cloudlab.cli import make_parser; make_parser().format_help(); "
        "print({'pandas', 'matplotlib', 'rich', 'jsonschema', 'qemu'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"

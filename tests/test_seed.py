"""Options to texts to an ISO image that other programs read."""

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from seeds import read_iso

from cloudlab.errors import CloudlabError, SeedError
from cloudlab.seed import (
    GrowpartMode,
    Profile,
    ResizeRootfs,
    Seed,
    SeedConfig,
    Severity,
    User,
    build_seed,
    new_instance_id,
    parse_public_keys,
    to_user_data,
    write_iso,
)
from cloudlab.seed.iso import iso_bytes, iso_head

SHA512 = "$6$saltsalt$" + "x" * 86
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample someone@example"
SEED = Seed("#cloud-config\n", "instance-id: i\n", "#cloud-config\n", "version: 2\n", "exit 0\n")
NAMES = {"user-data", "meta-data", "vendor-data", "network-config", "report.sh"}


def custom_seed(user_data: str, meta_data: str | None = None, **options) -> Seed:
    """Return the seed of a text; other options than build_seed's own are those of SeedConfig."""
    texts = {
        name: options.pop(name)
        for name in ("vendor_data", "network_config", "check", "schema")
        if name in options
    }
    config = SeedConfig(**{"profile": Profile.FULL, **options})
    return build_seed(config, user_data=user_data, meta_data=meta_data, **texts)


def bare(**options) -> dict:
    text = to_user_data(SeedConfig(report=False, profile=Profile.FULL, **options))
    assert text.startswith("#cloud-config\n")
    return yaml.safe_load(text) or {}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, {}, id="nothing set, nothing written"),
        pytest.param({"growpart": GrowpartMode.OFF}, {"growpart": {"mode": "off"}}, id="off"),
        pytest.param({"growpart": GrowpartMode.AUTO}, {"growpart": {"mode": "auto"}}, id="auto"),
        pytest.param(
            {"growpart_devices": ("/", "/dev/vdb1"), "ignore_growroot_disabled": False},
            {"growpart": {"devices": ["/", "/dev/vdb1"], "ignore_growroot_disabled": False}},
            id="growpart's other keys",
        ),
        pytest.param({"resize_rootfs": ResizeRootfs.FALSE}, {"resize_rootfs": False}, id="kept"),
        pytest.param({"resize_rootfs": ResizeRootfs.TRUE}, {"resize_rootfs": True}, id="grown"),
        pytest.param(
            {"resize_rootfs": ResizeRootfs.NOBLOCK}, {"resize_rootfs": "noblock"}, id="noblock"
        ),
        pytest.param(
            {"bootcmd": ("a: b",), "runcmd": (("echo", "it's"), "df -h")},
            {"bootcmd": ["a: b"], "runcmd": [["echo", "it's"], "df -h"]},
            id="commands",
        ),
        pytest.param(
            {"password_hash": SHA512, "ssh_authorized_keys": (KEY,)},
            {
                "password": SHA512,
                "chpasswd": {"expire": False},
                "ssh_authorized_keys": [KEY],
            },
            id="default user",
        ),
        pytest.param(
            {"users": (User("ada", "$y$j9T$salt$hash", (KEY,)), User("bob", sudo=False))},
            {
                "users": [
                    "default",
                    {
                        "name": "ada",
                        "shell": "/bin/sh",
                        "passwd": "$y$j9T$salt$hash",
                        "lock_passwd": False,
                        "ssh_authorized_keys": [KEY],
                        "sudo": "ALL=(ALL) NOPASSWD:ALL",
                    },
                    {"name": "bob", "shell": "/bin/sh"},
                ]
            },
            id="users",
        ),
        pytest.param(
            {"runcmd": ("a",), "extra_yaml": "runcmd: [b]\ntimezone: Europe/Berlin"},
            {"runcmd": ["a", "b"], "timezone": "Europe/Berlin"},
            id="extra YAML",
        ),
    ],
)
def test_options_reach_user_data(options, expected):
    assert bare(**options) == expected


def test_off_is_quoted_because_yaml_1_1_takes_it_for_a_boolean():
    text = to_user_data(SeedConfig(growpart=GrowpartMode.OFF))
    assert "mode: 'off'\n" in text


def test_report_wraps_the_learners_commands():
    text = to_user_data(SeedConfig(bootcmd=("mine",), runcmd=("mine too",), sampler=True))
    keys = yaml.safe_load(text)
    assert keys["bootcmd"][1:] == ["sh /run/cloudlab-report.sh before sample", "mine"]
    assert keys["runcmd"] == ["mine too", "sh /run/cloudlab-report.sh after"]


def test_a_larger_disk_is_asked_for_before_the_last_report():
    keys = yaml.safe_load(to_user_data(SeedConfig(enlarge=True)))
    commands = [f"sh /run/cloudlab-report.sh {what}" for what in ("enlarge", "after")]
    assert keys["runcmd"] == commands
    own = build_seed(SeedConfig(enlarge=True), user_data="#cloud-config\nruncmd: [mine]\n")
    assert yaml.safe_load(own.user_data)["runcmd"] == ["mine", *commands]


@pytest.mark.parametrize(
    ("options", "stage", "modules"),
    [
        pytest.param(
            {"runcmd": ("a",)},
            "cloud_init_modules",
            ["bootcmd", "growpart", "resizefs"],
            id="init",
        ),
        pytest.param({"runcmd": ("a",)}, "cloud_config_modules", ["runcmd"], id="config"),
        pytest.param({"runcmd": ("a",)}, "cloud_final_modules", ["scripts_user"], id="final"),
        pytest.param(
            {"runcmd": ("a",), "extra_yaml": "mounts: []\nwrite_files: []\nfs_setup: []"},
            "cloud_init_modules",
            ["bootcmd", "write_files", "growpart", "resizefs", "disk_setup", "mounts"],
            id="in cloud-init's order",
        ),
        pytest.param(
            {
                "users": (User("ada", ssh_authorized_keys=(KEY,)),),
                "hostname": "lab",
                "runcmd": ("a",),
            },
            "cloud_init_modules",
            [
                "bootcmd",
                "growpart",
                "resizefs",
                "set_hostname",
                "update_hostname",
                "users_groups",
                "ssh",
            ],
            id="users with keys and a host name",
        ),
        pytest.param(
            {"extra_yaml": "packages: [hello]"},
            "cloud_final_modules",
            ["package_update_upgrade_install", "scripts_user"],
            id="packages",
        ),
        pytest.param(
            {"extra_yaml": "cloud_final_modules: [phone_home]"},
            "cloud_final_modules",
            ["phone_home"],
            id="the learner's own list stays",
        ),
    ],
)
def test_lean_profile_honours_every_key(options, stage, modules):
    assert yaml.safe_load(to_user_data(SeedConfig(**options)))[stage] == modules


EARLY = ["bootcmd", "growpart", "resizefs", "runcmd", "scripts_user"]


@pytest.mark.parametrize(
    ("options", "init_modules"),
    [
        pytest.param({}, EARLY, id="nothing but our report to run"),
        pytest.param({"growpart": GrowpartMode.OFF, "bootcmd": ("a",)}, EARLY, id="bootcmd"),
        pytest.param({"runcmd": ("a",)}, EARLY[:3], id="the learner's runcmd"),
        pytest.param({"extra_yaml": "runcmd: [a]"}, EARLY[:3], id="and in extra YAML"),
        pytest.param({"resize_rootfs": ResizeRootfs.NOBLOCK}, EARLY[:3], id="growth goes on"),
        pytest.param({"extra_yaml": "timezone: UTC"}, EARLY[:3], id="a module of config"),
    ],
)
def test_the_last_report_comes_early_where_nothing_else_is_to_be_run(options, init_modules):
    keys = yaml.safe_load(to_user_data(SeedConfig(**options)))
    assert keys["cloud_init_modules"] == init_modules
    later = keys["cloud_config_modules"] + keys["cloud_final_modules"]
    assert {"runcmd", "scripts_user"} <= set(init_modules + later)
    assert bool(later) == (init_modules == EARLY[:3])
    own = custom_seed(to_user_data(SeedConfig(**options, report=False, profile=Profile.FULL)),
                      profile=Profile.LEAN)  # fmt: skip
    assert yaml.safe_load(own.user_data)["cloud_init_modules"] == init_modules


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param("snap: {commands: [[install, hello]]}", id="key of another module"),
        pytest.param("write_files: [{path: /a, defer: true}]", id="deferred file"),
    ],
)
def test_lean_profile_gives_way_to_what_it_does_not_know(extra):
    assert not {"cloud_init_modules"} & set(
        yaml.safe_load(to_user_data(SeedConfig(extra_yaml=extra)))
    )


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"password_hash": "hunter2"}, id="plain password"),
        pytest.param({"password_hash": "$y$j9T$hunter2$hash"}, id="hash that cloud-init misreads"),
        pytest.param({"password_hash": SHA512 + "\nroot:hunter2"}, id="line break in a hash"),
        pytest.param({"users": (User("ada", "hunter2"),)}, id="user's plain password"),
        pytest.param({"users": (User("Ada B"),)}, id="user name"),
        pytest.param({"hostname": "-lab"}, id="host name"),
        pytest.param({"hostname": "lab\n"}, id="host name with a line break"),
        pytest.param({"instance_id": "a b"}, id="instance-id"),
        pytest.param({"growpart_devices": ("vda1",)}, id="device"),
        pytest.param({"extra_yaml": "a: [1"}, id="broken extra YAML"),
        pytest.param({"extra_yaml": "- a"}, id="extra YAML is a list"),
        pytest.param({"extra_yaml": "growpart: no"}, id="growpart is a word"),
        pytest.param(
            {"extra_yaml": "timezone: 0x" + "f" * 4000}, id="more digits than Python writes"
        ),
        pytest.param({"growpart": GrowpartMode.OFF, "extra_yaml": "growpart: {}"}, id="twice"),
        pytest.param({"runcmd": ("a",), "extra_yaml": "runcmd: b"}, id="runcmd is text"),
    ],
)
def test_bad_values_are_refused_without_repeating_secrets(options):
    with pytest.raises(SeedError) as caught:
        build_seed(SeedConfig(**options))
    assert "hunter2" not in str(caught.value)


def test_meta_data_names_instance_and_host():
    seed = build_seed(SeedConfig(instance_id="iid-1", hostname="lab.example"))
    expected = {"instance-id": "iid-1", "local-hostname": "lab.example"}
    assert yaml.safe_load(seed.meta_data) == expected


def test_every_run_has_a_fresh_instance_id():
    assert build_seed(SeedConfig()).meta_data != build_seed(SeedConfig()).meta_data
    assert new_instance_id() != new_instance_id()


# ------------------------------------------------------------------ user-data of the learner's own

MINE = "#cloud-config\n# a remark\nruncmd:\n- echo mine\nresize_rootfs: no\n"


def test_report_is_merged_into_a_cloud_config():
    seed = custom_seed(MINE, instance_id="i")
    keys = yaml.safe_load(seed.user_data)
    assert keys["runcmd"] == ["echo mine", "sh /run/cloudlab-report.sh after"]
    assert keys["resize_rootfs"] is False
    assert seed.vendor_data is None
    assert seed.report_sh


def test_without_report_the_text_goes_in_as_it_is():
    seed = custom_seed(MINE, "instance-id: x\n", report=False, network_config="version: 2\n")
    assert seed == Seed(MINE, "instance-id: x\n", None, "version: 2\n", None)


def test_lean_profile_also_for_ones_own_user_data():
    keys = yaml.safe_load(custom_seed(MINE, profile=Profile.LEAN).user_data)
    assert keys["cloud_config_modules"] == ["runcmd"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("#cloud-config\nruncmd: [echo\n", id="broken YAML"),
        pytest.param("runcmd:\n- ls\n", id="header missing"),
        pytest.param("#!/bin/sh\nls\n", id="script"),
        pytest.param("#cloud-config\nbootcmd: ls\n", id="bootcmd is text"),
        pytest.param("#cloud-config\n- ls\n", id="list"),
        pytest.param("", id="empty"),
    ],
)
def test_what_cannot_be_merged_goes_in_byte_for_byte_with_the_report_beside_it(text):
    seed = custom_seed(text, check=False)
    assert seed.user_data == text
    assert seed.vendor_data is not None
    assert set(yaml.safe_load(seed.vendor_data)) == {"bootcmd", "runcmd"}


def test_errors_are_refused_with_their_lines():
    with pytest.raises(SeedError, match=r"line 3, column 1: a tab"):
        custom_seed("#cloud-config\nruncmd:\n\t- ls\n")


def test_warnings_travel_with_the_seed():
    text = "#cloud-config\nruncmd: []\ngrowpart: {mode: off}\npassword: hunter2\n"
    for seed, first in (
        (custom_seed(text), 2),
        (build_seed(SeedConfig(extra_yaml=text.removeprefix("#cloud-config\n"))), 1),
    ):
        found = [(each.line, each.column, each.severity) for each in seed.problems]
        assert found == [
            (first + 1, 18, Severity.WARNING),
            (first + 2, 11, Severity.WARNING),
        ]
        assert "hunter2" not in "".join(map(str, seed.problems))
    assert custom_seed(MINE).problems == build_seed(SeedConfig()).problems == ()


@pytest.mark.parametrize("schema", [None, {"properties": {"users": {}}}], ids=["ours", "image"])
def test_an_unknown_extra_key_is_a_warning(schema):
    (problem,) = build_seed(SeedConfig(extra_yaml="zz_unheard: 1\n"), schema=schema).problems
    assert problem.severity is Severity.WARNING
    assert problem.unknown_key
    assert "zz_unheard" in problem.message


def test_a_key_that_the_image_knows_is_no_problem():
    config = SeedConfig(extra_yaml="zz_unheard: 1\n")
    assert build_seed(config, schema={"properties": {"zz_unheard": {}}}).problems == ()


def test_own_meta_data_is_used_with_options_too():
    text = "instance-id: mine  # a remark\nlocal-hostname: there\n"
    seed = build_seed(SeedConfig(), meta_data=text)
    assert (seed.meta_data, seed.problems) == (text, ())
    assert "update_hostname" in yaml.safe_load(seed.user_data)["cloud_init_modules"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("instance-id: [1\n", "line 2, column 1", id="broken YAML"),
        pytest.param("- instance-id\n", "line 1, column 1", id="list"),
        pytest.param("a: 1\ninstance-id: {b: 2}\n", "line 2, column 14", id="id of keys"),
    ],
)
def test_own_meta_data_that_is_no_mapping_is_refused(text, place):
    for make in (custom_seed, lambda _, own: build_seed(SeedConfig(), meta_data=own)):
        with pytest.raises(SeedError, match=place) as caught:
            make(MINE, text)
        assert "instance-id:" in str(caught.value.hint)
    assert custom_seed(MINE, text, check=False).meta_data == text


@pytest.mark.parametrize("text", ["", "local-hostname: a\n"], ids=["empty", "host name only"])
def test_own_meta_data_without_an_instance_id_is_warned_of(text):
    (problem,) = custom_seed(MINE, text).problems
    assert problem.severity is Severity.WARNING
    assert "instance-id" in problem.message


@given(st.text(max_size=200) | st.builds("#cloud-config\n{}".format, st.text(max_size=200)))
def test_any_text_becomes_a_seed_or_an_error_of_ours(text):
    for check in (True, False):
        try:
            seed = custom_seed(text, check=check)
        except CloudlabError:
            continue
        assert seed.report_sh
    try:
        keys = yaml.safe_load(to_user_data(SeedConfig(extra_yaml=text)))
    except CloudlabError:
        return
    assert keys["runcmd"][-1].endswith("after")


commands = st.text(max_size=40) | st.lists(st.text(max_size=20)).map(tuple)


@example(("é",), ("\x85", ("\u2028",)))
@given(st.tuples(commands), st.tuples(commands))
def test_yaml_gives_back_the_very_commands(boot, run):
    keys = bare(bootcmd=boot, runcmd=run)
    as_lists = [[list(c) if isinstance(c, tuple) else c for c in group] for group in (boot, run)]
    assert [keys["bootcmd"], keys["runcmd"]] == as_lists


# ------------------------------------------------------------------ the ISO image


@pytest.fixture
def iso(tmp_path) -> Path:
    return write_iso(SEED, tmp_path / "seed.iso")


def output(*argv) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_seed_comes_back(iso):
    assert read_iso(iso) == SEED


def test_optional_files_are_left_out(tmp_path):
    seed = Seed("#cloud-config\n", "instance-id: i\n")
    path = write_iso(seed, tmp_path / "seed.iso")
    assert read_iso(path) == seed
    assert set(output("isoinfo", "-R", "-f", "-i", path).split()) == {"/user-data", "/meta-data"}


@pytest.mark.parametrize("names", ["-R", "-J"], ids=["Rock Ridge", "Joliet"])
def test_isoinfo_lists_and_reads_it(iso, names):
    listed = output("isoinfo", names, "-f", "-i", iso).split()
    assert {name.lstrip("/") for name in listed} == NAMES
    assert output("isoinfo", names, "-x", "/user-data", "-i", iso) == SEED.user_data


def test_xorriso_reads_it(iso, tmp_path):
    out = tmp_path / "out"
    subprocess.run(
        ["xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/", out],
        check=True,
        capture_output=True,
    )
    assert (out / "vendor-data").read_text() == SEED.vendor_data
    assert {path.name for path in out.iterdir()} == NAMES


def test_bsdtar_reads_it(iso):
    assert output("bsdtar", "-xOf", iso, "network-config") == SEED.network_config


def test_blkid_finds_the_label_that_nocloud_looks_for(iso):
    blkid = shutil.which("blkid", path="/usr/sbin:/sbin:" + os.environ["PATH"])
    assert output(blkid, "-p", "-o", "value", "-s", "LABEL", iso).strip() == "cidata"
    assert output(blkid, "-p", "-o", "value", "-s", "TYPE", iso).strip() == "iso9660"


def test_the_kernel_mounts_it(iso, tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-o", "ro,loop", iso, folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this machine mounts no files: {mounted.stderr.strip()}")
    try:
        assert {path.name for path in folder.iterdir()} == NAMES
        assert (folder / "meta-data").read_text() == SEED.meta_data
    finally:
        subprocess.run(["umount", folder], check=True)


def test_same_texts_same_bytes_at_any_time_and_place(iso, tmp_path):
    before = time.time()
    while int(time.time()) == int(before):
        time.sleep(0.05)
    script = (
        "import sys; from pathlib import Path; from cloudlab.seed import write_iso; "
        "from seeds import read_iso; write_iso(read_iso(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    other = tmp_path / "other.iso"
    tests = str(Path(__file__).parent)
    environment = {
        **os.environ, "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7", "PYTHONPATH": tests
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", script, iso, other], check=True, env=environment)
    assert other.read_bytes() == iso.read_bytes()


def test_only_the_owner_reads_it(iso):
    assert stat.S_IMODE(iso.stat().st_mode) == 0o600


def test_unwritable_place_is_named(tmp_path):
    with pytest.raises(SeedError, match="could not be written"):
        write_iso(SEED, tmp_path / "missing" / "seed.iso")


def test_a_seed_that_cloud_init_rejects_can_be_written(tmp_path):
    path = tmp_path / "seed.iso"
    write_iso(SEED, path, label="CLOUDLAB", user_data_file="user-data.txt")
    blkid = shutil.which("blkid", path="/usr/sbin:/sbin:" + os.environ["PATH"])
    assert output(blkid, "-p", "-o", "value", "-s", "LABEL", path).strip() == "CLOUDLAB"
    listed = {name.lstrip("/") for name in output("isoinfo", "-R", "-f", "-i", path).split()}
    assert listed == NAMES - {"user-data"} | {"user-data.txt"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"label": "seventeen-letters"}, "label 'seventeen-letters' does not fit"),
        ({"label": ""}, "label '' does not fit"),
        ({"user_data_file": "meta-data"}, "cannot have the name 'meta-data'"),
        ({"user_data_file": "a/b"}, "cannot have the name 'a/b'"),
        ({"user_data_file": "user.data.txt"}, "cannot have the name 'user.data.txt'"),
    ],
)
def test_names_that_no_iso_image_has_are_refused(tmp_path, names, words):
    with pytest.raises(SeedError, match=words) as caught:
        write_iso(SEED, tmp_path / "seed.iso", **names)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_vendor_data_carries_the_report_where_user_data_cannot():
    vendor = "#cloud-config\nruncmd: [ls]\ntimezone: UTC\n"
    script = "#!/bin/sh\necho hello\n"
    seed = custom_seed(script, vendor_data=vendor)
    assert seed.user_data == script
    merged = yaml.safe_load(seed.vendor_data)
    assert merged["timezone"] == "UTC"
    assert merged["runcmd"][0] == "ls"
    assert merged["runcmd"][-1].endswith("report.sh after")
    assert merged["bootcmd"][1].endswith("report.sh before")
    with pytest.raises(SeedError, match="neither the user-data nor the vendor-data"):
        custom_seed(script, vendor_data="#!/bin/sh\n")
    assert custom_seed(script, vendor_data="#!/bin/sh\n", report=False).vendor_data == "#!/bin/sh\n"


@pytest.mark.parametrize("report", [True, False])
def test_vendor_data_goes_in_as_it_is_and_what_user_data_hides_of_it_is_told(report):
    vendor = "#cloud-config\nruncmd: [ls]\ntimezone: UTC\n"
    for seed in (
        custom_seed("#cloud-config\n", vendor_data=vendor, report=report, profile=Profile.LEAN),
        build_seed(SeedConfig(report=report), vendor_data=vendor),
    ):
        assert seed.vendor_data == vendor
        assert "cloud_init_modules" not in seed.user_data, "vendor-data may need any module"
        told = [(one.line, one.message) for one in seed.problems if "no effect" in one.message]
        assert [line for line, _ in told] == ([2] if report else [])


PUBLIC_KEYS = {
    "ed25519": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINu32K5gGpjjYQOv6OtkNeHjxiVffEAjssIkl4R9yY+Y",
    "ecdsa": "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBANGJG8meK5v5+ayZvaKLwG9TjL5FrCgfPV4H5TddgDjkC2gwivOKZBTYI0KzR1so2TlaObgfkqEsAtPDGDQsUk= learner@laptop",
    "rsa": "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCaWHxxwkC2EF1JIy7jYBZlcsvbVdXlDWj2lv3LSb4vnLHKtN+8elB2kFvq24l8w3piwL85VgYh3dNnC2B49A1wD60YY1F3C0c8Q9oE/bXmifsDYzQHH9vjuKs+8CB5oyWxlLtpebGAV7CqBV8ne41VO5JavwpElIDlUQCOkaMS8Q==",
    "security key": "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA a key on USB",
    "options": 'from="10.0.0.0/8",command="echo a b" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINu32K5gGpjjYQOv6OtkNeHjxiVffEAjssIkl4R9yY+Y',
}
PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
NO_PUBLIC_KEYS = {
    "private key": (PRIVATE_KEY, "This is a private key"),
    "passwd": ("root:x:0:0:root:/root:/bin/bash\nc2VjcmV0\n", "Line 1 is not"),
    "second line": (f"# mine\n{KEY}\n\nc2VjcmV0\n", "Line 4 is not"),
    "another type": ("ssh-rsa" + KEY.removeprefix("ssh-ed25519"), "Line 1 is not"),
    "fingerprint": ("256 SHA256:c2VjcmV0 a@b (ED25519)", "Line 1 is not"),
    "no key": ("ssh-ed25519 c2VjcmV0", "Line 1 is not"),
    "cut off": (PUBLIC_KEYS["ed25519"][:-1], "Line 1 is not"),
    "comment": ("# c2VjcmV0", "no public key"),
    "empty": ("", "no public key"),
}


def test_the_head_of_a_seed_has_its_label_and_nothing_of_its_files():
    seeds = [build_seed(SeedConfig(bootcmd=[[word]])) for word in ("one", "other")]
    one, other = map(iso_bytes, seeds)
    assert one != other
    assert iso_head(one) == iso_head(other) == one[: len(iso_head(one))]
    assert b"cidata" in iso_head(one)
    assert b"USER_DATA" not in iso_head(one)
    assert iso_head(one) != iso_head(iso_bytes(seeds[0], "CIDATA"))


@pytest.mark.parametrize("key", PUBLIC_KEYS.values(), ids=PUBLIC_KEYS)
def test_public_keys_of_each_form(key):
    assert parse_public_keys(f"# mine\n\n{key}\r\n{KEY}") == (key, KEY)


@pytest.mark.parametrize(("text", "words"), NO_PUBLIC_KEYS.values(), ids=NO_PUBLIC_KEYS)
@pytest.mark.parametrize("whose", ["default user", "own user"])
def test_what_is_not_a_public_key_goes_into_no_seed(text, words, whose):
    config = SeedConfig(ssh_authorized_keys=(text,))
    if whose == "own user":
        config = SeedConfig(users=(User("ada", ssh_authorized_keys=(text,)),))
    with pytest.raises(SeedError, match=words) as caught:
        to_user_data(config)
    assert "c2VjcmV0" not in str(caught.value)

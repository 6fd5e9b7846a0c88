"""``cloudlab seed`` as a user types it, and the same at the front door."""

import json
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from command import cloudlab
from guests import make_guest
from seeds import read_iso

import cloudlab as cl
from cloudlab.errors import SeedError
from cloudlab.image.cache import open_image, remember

DATA = Path(__file__).parent / "data" / "seed"


def seed(*args, cwd=None):
    """Run the command; return how it ended and what it said, on one line."""
    done = cloudlab("seed", *args, cwd=cwd)
    return done, " ".join(done.stderr.split())


#: File -> parts of the warnings, with their places; none: nothing is said.
CASES = {
    "user-data.gz": [],
    "mime-mbox.txt": ["line 1, column 1: this is a MIME message"],
    "rh-underscore.yaml": [],
    "known-keys.yaml": [],
    "expiredate.yaml": ["line 4, column 15: an account's expiry is a date"],
    "jinja-second-line.yaml": ["line 2, column 1: this line makes a template only as line 1"],
}


@pytest.mark.parametrize("name", CASES)
def test_each_case_becomes_a_seed_with_the_right_warnings(name, tmp_path):
    done, said = seed("x.iso", "--user-data", DATA / name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert said.count("warning:") == len(CASES[name])
    for words in CASES[name]:
        assert f"warning: {words}" in said
    if not name.endswith(".gz"):
        assert read_iso(tmp_path / "x.iso").user_data == (DATA / name).read_text()


def test_gzip_is_unpacked_as_cloud_init_does(tmp_path):
    seed("x.iso", "--user-data", DATA / "user-data.gz", cwd=tmp_path)
    text = read_iso(tmp_path / "x.iso").user_data
    assert text.startswith("#cloud-config\n")
    assert text.encode() == subprocess.run(
        ["gzip", "-dc", DATA / "user-data.gz"], check=True, capture_output=True
    ).stdout  # fmt: skip


def test_the_verdict_does_not_depend_on_the_cache(tmp_path, own_cache):
    (tmp_path / "mine").write_text("#cloud-config\ngrowpart: {mdoe: 'off'}\ngrowpat: {}\n")
    args = ("x.iso", "--user-data", "mine", "--force")
    done, without = seed(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "line 2, column 12: cloud-init ignores the unknown key 'mdoe'" in without
    assert "did you mean 'mode'?" in without
    assert "line 3, column 1: cloud-init ignores the unknown key 'growpat'" in without
    assert "did you mean 'growpart'?" in without
    # An image whose cloud-init knows other keys.
    (own_cache / "images").mkdir()
    image = make_guest(own_cache / "images" / "lab.raw", "")
    schema = image.with_name("lab.schema.json")
    schema.write_text(json.dumps({"properties": {"growpat": {}, "growpart": {"type": "string"}}}))
    remember(replace(open_image(image), origin="built", schema_path=schema))
    done, beside = seed(*args, cwd=tmp_path)
    assert (done.returncode, beside) == (0, without)


def test_errors_are_listed_and_can_be_allowed(tmp_path):
    (tmp_path / "mine").write_text("#cloud-config\nruncmd: ls\ngrowpart: off\n")
    done, said = seed("x.iso", "--user-data", "mine", cwd=tmp_path)
    assert done.returncode == 1
    assert "line 2, column 9" in said
    assert "line 3, column 11" in said
    assert "--no-check" in said
    assert not (tmp_path / "x.iso").exists()
    done, said = seed("x.iso", "--user-data", "mine", "--no-check", cwd=tmp_path)
    assert (done.returncode, said) == (0, "")


def test_an_existing_file_is_replaced_only_with_force(tmp_path):
    iso = tmp_path / "x.iso"
    iso.write_text("mine")
    done, said = seed("x.iso", cwd=tmp_path)
    assert done.returncode == 1
    assert "x.iso exists" in said
    assert "--force" in said
    assert iso.read_text() == "mine"
    done, said = seed("x.iso", "--force", cwd=tmp_path)
    assert done.returncode == 0, said
    assert read_iso(iso).user_data == "#cloud-config\n"
    (tmp_path / "link.iso").symlink_to("nowhere")
    assert seed("link.iso", cwd=tmp_path)[0].returncode == 1


def test_write_seed_makes_the_seed_of_the_command(tmp_path):
    text = "#cloud-config\nresize_rootfs: 'no'\n"
    (tmp_path / "mine").write_text(text)
    (tmp_path / "meta").write_text("instance-id: i-1\n")
    args = ("--user-data", "mine", "--meta-data", "meta")
    done, _ = seed("x.iso", *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    iso = tmp_path / "y.iso"
    made = cl.write_seed(str(iso), user_data=text, meta_data="instance-id: i-1\n")
    assert iso.read_bytes() == (tmp_path / "x.iso").read_bytes()
    assert stat.S_IMODE(iso.stat().st_mode) == 0o600
    assert [(one.line, one.column) for one in made.problems] == [(2, 16)]
    with pytest.raises(SeedError, match="exists"):
        cl.write_seed(iso)
    options = cl.SeedConfig(growpart=cl.GrowpartMode.OFF, report=False)
    cl.write_seed(iso, options, overwrite=True)
    assert "mode: 'off'" in read_iso(iso).user_data

"""The catalogue: the shipped one is right, a user's own one is told apart from a wrong one."""

import contextlib
import functools
import json
import re
import sys
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from cloudlab.errors import CloudlabError, ImageError, UsageError
from cloudlab.image import catalogue
from cloudlab.image.cache import Trust

SHIPPED = Path(str(resources.files("cloudlab.image") / "catalogue.yaml"))
OWN = """\
keys:
  mine: {file: mine.gpg, fingerprint: 0123456789ABCDEF0123456789ABCDEF01234567}
images:
  mine:
    title: My image
    arch: {amd64: x86_64}
    values: {version: 1.0}
    url: https://example.org/{version}/mine-{arch}.qcow2
    checksums:
      url: https://example.org/{version}/SUMS
      algorithm: sha256
      style: bsd
    signature: {style: clearsigned, key: mine}
    format: qcow2
"""


def own(text, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return catalogue.load_catalogue(path)


def test_the_shipped_catalogue_is_valid():
    document = catalogue.read_document(SHIPPED.read_text(encoding="utf-8"), SHIPPED)
    jsonschema.Draft202012Validator.check_schema(catalogue.catalogue_schema())
    document.validate(catalogue.catalogue_schema())


@pytest.mark.parametrize(
    "name",
    [f"ubuntu-{version}.04{kind}" for version in (18, 20, 22, 24, 26) for kind in ("", "-minimal")]
    + [
        f"debian-{version}-{kind}"
        for version in (11, 12, 13)
        for kind in ("generic", "genericcloud")
    ]
    + ["fedora-44", "almalinux-9", "almalinux-10", "alpine-3.23-uefi", "alpine-3.23-bios"]
    + ["opensuse-15.6"],
)
def test_every_promised_image_is_there_and_usable(name):
    image = catalogue.load_catalogue().find(name, "amd64")
    assert not image.refused
    assert re.fullmatch(r"https://[a-z0-9.-]+/[\w./-]+", image.url)
    assert image.checksum_url.startswith("https://")
    assert image.format == "qcow2"


def test_every_row_holds_together():
    for row in catalogue.load_catalogue().rows():
        assert "{" not in row.url + row.checksum_url + row.signature_url, row
        assert row.url.rpartition("/")[2], row
        if row.key is not None:
            assert row.trust is Trust.SIGNED, row
            assert row.key.file.is_file(), row
        if row.arch == "arm64":
            assert row.firmware == ("uefi",), row


@pytest.mark.parametrize(
    ("name", "arch", "url"),
    [
        (
            "ubuntu-18.04",
            "amd64",
            "https://cloud-images.ubuntu.com/releases/bionic/release/ubuntu-18.04-server-cloudimg-amd64.img",
        ),
        (
            "debian-12-genericcloud",
            "arm64",
            "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-arm64.qcow2",
        ),
        (
            "fedora-44",
            "arm64",
            "https://download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/aarch64/images/Fedora-Cloud-Base-Generic-44-1.7.aarch64.qcow2",
        ),
    ],
    ids=["ubuntu", "debian", "fedora"],
)
def test_urls_as_they_are_published(name, arch, url):
    assert catalogue.load_catalogue().find(name, arch).url == url


@pytest.mark.parametrize(
    ("name", "trust"),
    [
        ("ubuntu-24.04", "signed"),
        ("fedora-44", "signed"),
        ("debian-12-generic", "checksum over TLS"),
        ("cirros", "unverified"),
    ],
)
def test_trust_labels(name, trust):
    assert catalogue.load_catalogue().find(name, "amd64").trust == trust


@pytest.mark.parametrize("name", ["cirros", "debian-11-nocloud", "debian-13-nocloud"])
def test_images_without_cloud_init_say_so(name):
    assert "no cloud-init" in catalogue.load_catalogue().find(name, "amd64").refused


def test_quirks_tell_programs_what_to_do():
    images = catalogue.load_catalogue()
    assert "no-ahci" in images.find("debian-12-genericcloud", "amd64").quirks
    assert "no-ahci" not in images.find("debian-12-generic", "amd64").quirks
    assert "cpu-x86-64-v3" in images.find("almalinux-10", "amd64").quirks


def test_a_name_that_is_not_there_brings_the_nearest():
    with pytest.raises(UsageError, match=r"Did you mean.*ubuntu-24\.04"):
        catalogue.load_catalogue().find("ubuntu-2404")


@pytest.mark.parametrize(
    ("filename", "entry"),
    [
        ("AlmaLinux-10-GenericCloud-10.0-20250528.0.x86_64.qcow2", "almalinux-10"),
        ("AlmaLinux-9-GenericCloud-latest.aarch64.qcow2", "almalinux-9"),
        ("Leap-16.0-Minimal-VM.x86_64-Cloud.qcow2", "opensuse-16.0"),
        ("debian-12-genericcloud-amd64-20250101-1.qcow2", "debian-11-genericcloud"),
        ("debian-13-nocloud-amd64.qcow2", "debian-11-nocloud"),
        ("cirros-0.6.3-x86_64-disk.img", "cirros"),
        ("nocloud_alpine-3.22.4-x86_64-uefi-cloudinit-r0.qcow2", None),
        ("noble-server-cloudimg-amd64.img", None),
    ],
)
def test_a_file_is_known_by_its_name(filename, entry):
    found = catalogue.load_catalogue().recognise(filename)
    assert (found.name if found else None) == entry


@pytest.mark.parametrize("version", [11, 13, 14])
def test_a_refused_file_is_not_called_another_release(version):
    name = f"debian-{version}-nocloud-amd64.raw"
    with pytest.raises(ImageError, match=f"{name} cannot be used, .*hold no cloud-init") as caught:
        catalogue.load_catalogue().quirks_of_file(name)
    assert not re.search(r"Debian \d", caught.value.message)


def test_no_entry_is_taken_for_another_one():
    images = catalogue.load_catalogue()
    for row in images.rows():
        found = images.recognise(row.url.rpartition("/")[2])
        assert found is None or (found.quirks, found.refused) == (row.quirks, row.refused)
        assert found is not None or not any(name.startswith("cpu-") for name in row.quirks)


def test_an_architecture_that_is_not_published():
    with pytest.raises(UsageError, match="published for amd64, not for arm64"):
        catalogue.load_catalogue().find("alpine-3.22-bios", "aarch64")


def test_own_entries_add_and_replace(tmp_path, monkeypatch):
    path = tmp_path / "own.yaml"
    path.write_text(OWN + OWN.partition("images:\n")[2].replace("  mine:", "  cirros:"), "utf-8")
    monkeypatch.setenv("CLOUDLAB_CATALOGUE", str(path))
    images = catalogue.load_catalogue()
    mine = images.find("mine", "amd64")
    assert mine.url == "https://example.org/1.0/mine-x86_64.qcow2"
    assert mine.trust is Trust.SIGNED
    assert mine.key.file == tmp_path / "mine.gpg"
    assert not images.find("cirros", "amd64").refused
    assert images.find("ubuntu-24.04", "amd64").trust is Trust.SIGNED
    assert images.default == "ubuntu-24.04"


@pytest.mark.parametrize(
    ("change", "line", "key"),
    [
        (("style: bsd", "style: csv"), 12, "images.mine.checksums.style"),
        (("format: qcow2", "formt: qcow2"), 14, "images.mine"),
        (("title: My image", "title: My image\n    title: Twice"), 6, "images.mine.title"),
        (("{version}/mine", "{release}/mine"), 8, "images.mine.url"),
        (("key: mine", "key: yours"), 13, "images.mine.signature.key"),
        (("https://example.org/{version}/mine", "ftp://x/mine"), 8, "images.mine.url"),
        (("clearsigned", "detached"), 13, "images.mine.signature"),
        (("01234567}", "0123}"), 2, "keys.mine.fingerprint"),
        (("arch: {amd64: x86_64}", "arch: {riscv: x}"), 6, "images.mine.arch"),
        (("arch: {amd64: x86_64}", "arch: [amd64"), 7, "file"),
        (("  mine:\n", "  My Image:\n"), 4, "images"),
        (("images:", "default: nothing\nimages:"), 3, "default"),
    ],
    ids=lambda value: None if isinstance(value, int) else str(value)[:40],
)
def test_a_bad_catalogue_gets_file_line_and_key(change, line, key, tmp_path):
    assert change[0] in OWN
    with pytest.raises(ImageError) as caught:
        own(OWN.replace(*change), tmp_path)
    message = caught.value.message
    assert str(tmp_path / "own.yaml") in message
    assert f"line {line}," in message
    assert key in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("title: My image", "titel: My image"), "images.mine.titel: .*Did you mean title[?]"),
        (("    title: My image\n", ""), "the key 'title' is missing"),
        (("    checksums:", "    quirks: {}\n    x-checksums:"), "unknown"),
        (("    title: My image", "    !!int 3: My image"), "images.mine.3: this key is unknown"),
        (("images:", "!!null ~: x\nimages:"), "~: this key is unknown"),
    ],
    ids=["mistyped", "missing", "unknown", "number", "nothing"],
)
def test_a_bad_catalogue_gets_the_reason_in_plain_words(change, words, tmp_path):
    assert change[0] in OWN
    with pytest.raises(ImageError, match=words):
        own(OWN.replace(*change), tmp_path)


def test_a_signature_needs_checksums(tmp_path):
    text = "images: {x: {title: t, arch: {amd64: a}, url: 'https://a/b', format: raw, "
    with pytest.raises(ImageError, match="'signature' needs 'checksums'"):
        own(text + "signature: {style: clearsigned, key: k}}}", tmp_path)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("file:///etc/passwd", "http and https, not file", "--image"),
        ("ftp://host/x.img", "http and https, not ftp", "--image"),
        ("./my disk.qcow2", "is a path", "--image './my disk.qcow2'"),
        ("lab-x", "no image called", "cloudlab build"),
        ("qqq", "no image called", "cloudlab images"),
    ],
)
def test_what_is_no_name_is_called_what_it_is(name, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        catalogue.load_catalogue().find(name)
    assert hint in caught.value.hint


def test_a_catalogue_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_CATALOGUE", str(tmp_path / "none.yaml"))
    with pytest.raises(ImageError, match=r"none\.yaml cannot be read"):
        catalogue.load_catalogue()


def test_merges_that_double_over_and_over_are_stopped(tmp_path):
    lines = ["x-0: &a0 {a: x, b: x}"]
    lines += [f"x-{n}: &a{n} {{p: {{<<: *a{n - 1}}}, q: {{<<: *a{n - 1}}}}}" for n in range(1, 40)]
    with pytest.raises(ImageError, match=r"line 15.*too many values"):
        own("\n".join(lines), tmp_path)


def test_a_scalar_with_a_tag_is_text_as_any_other(tmp_path):
    text = OWN.replace("version: 1.0", "version: !!float 1.0")
    mine = own(text + "    quirks: {!!int 3: !!null ~}\n", tmp_path).find("mine", "amd64")
    assert mine.url == "https://example.org/1.0/mine-x86_64.qcow2"
    assert mine.quirks == {"3": "~"}


def test_an_alias_stands_for_its_value_anywhere(tmp_path):
    text = OWN.replace("style: bsd", "style: &style bsd") + "    layout: *style\n"
    assert own(text, tmp_path).find("mine", "amd64").layout == "bsd"
    with pytest.raises(ImageError, match=r"line 1.*an alias that contains itself"):
        own("x-a: &a [*a]\nimages: {}\n", tmp_path)


def test_depth_is_refused(tmp_path):
    with pytest.raises(ImageError, match="nested too deeply"):
        own("[" * 5000, tmp_path)


def steps(work, *files):
    """How many lines run, of our code and jsonschema's, or of its ``files`` only: a fair clock."""
    count = 0

    @functools.cache
    def counts(filename):
        path = Path(filename)
        return {"cloudlab", "jsonschema"} & set(path.parts) and (not files or path.name in files)

    def trace(frame, event, _arg):
        nonlocal count
        if not counts(frame.f_code.co_filename):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(ImageError):
            work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        ("images: {{}}\n", "key{}: x\n"),
        ("images:\n", "  entry{}: {{title: x}}\n"),
        ("images:\n", "  Entry{}: {{title: x}}\n"),
        ("images:\n  x:\n", "    key{}: x\n"),
        ("images: {{x: {{firmware: [\n", "bios{}, \n"),
    ],
    ids=["unknown keys", "entries that lack", "bad names", "unknown keys inside", "a long list"],
)
def test_work_grows_no_faster_than_the_file(head, unit):
    def work(number):
        text = head.format() + "".join(unit.format(one) for one in range(number))
        text += "]}}" if "[" in head else ""
        document = catalogue.read_document(text, Path("own.yaml"))
        return steps(lambda: document.validate(catalogue.catalogue_schema()))

    work(1)  # jsonschema is loaded and its own schema looked at
    small, large = work(200), work(800)
    assert small > 20
    assert large < 5 * small


def test_of_thousands_of_faults_few_are_looked_at():
    text = "images:\n" + "".join(f"  entry{one}: {{title: x}}\n" for one in range(4000))
    document = catalogue.read_document(text, Path("own.yaml"))
    schema = catalogue.catalogue_schema()
    assert 0 < steps(lambda: document.validate(schema), "exceptions.py") < 5_000


def test_a_misspelled_key_is_named_though_another_holds_its_name():
    text = OWN.replace("format: qcow2", "format: qcow2\n    itl: x\n    titl: x")
    assert "images.mine.itl" in complaint(text)


def complaint(text):
    try:
        catalogue.parse_catalogue(text, Path("own.yaml"), base=catalogue._shipped())
    except CloudlabError as error:
        return str(error)
    return "none"


yaml_like = st.text(alphabet="ab-:{}[]&*<>|!#'\"%@, \n\t~=0", max_size=200)


@examples(300)
@given(st.one_of(st.text(max_size=200), yaml_like))
def test_any_text_is_a_catalogue_or_our_error(text):
    assert complaint(text).startswith(("own.yaml, line ", "none"))


# Characters that JSON and YAML write alike.
words = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
values = st.recursive(
    words, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=10
)


@examples(200)
@given(values)
def test_what_json_says_is_read_as_said(value):
    document = catalogue.read_document(json.dumps(value), Path("x"))
    # "<<" is the one key that means something.
    assert document.value == value or "<<" in json.dumps(value)


@examples(200)
@given(
    st.sampled_from(["title", "arch", "url", "format", "checksums", "signature", "quirks"]), values
)
def test_any_value_in_any_place_is_taken_or_our_error(key, value):
    entry = {
        "title": "t",
        "arch": {"amd64": "x"},
        "url": "https://example.org/x",
        "format": "raw",
        key: value,
    }
    text = json.dumps({"images": {"x": entry}})
    assert complaint(text).startswith(("own.yaml, line 1, ", "none"))

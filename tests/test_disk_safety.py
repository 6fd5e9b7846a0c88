"""What is refused before a machine is built on it."""

import gzip
from pathlib import Path

import pytest

from cloudlab import tools
from cloudlab.disk import check_safe
from cloudlab.errors import DiskError, UnsafeImageError

MIB = 1 << 20


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    disk = tmp_path_factory.mktemp("raw") / "disk.raw"
    with disk.open("wb") as stream:
        stream.truncate(32 * MIB)
    tools.run(["sfdisk", "-q", disk], stdin="label: gpt\nstart=2048\n")
    with disk.open("r+b") as stream:
        stream.seek(MIB)
        stream.write(bytes(range(1, 251)) * 40_000)
    return disk


def create(path: Path, *options: str, size: str = "32M") -> Path:
    tools.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, size])
    return path


def converted(raw: Path, path: Path, *options: str, kind: str = "qcow2") -> Path:
    tools.run(["qemu-img", "convert", "-f", "raw", "-O", kind, *options, raw, path])
    return path


def patched(path: Path, offset: int, data: bytes) -> Path:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)
    return path


def cut(path: Path, size: int) -> Path:
    with path.open("r+b") as stream:
        stream.truncate(size)
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def data_file(raw: Path, path: Path) -> Path:
    return create(path, "-o", f"data_file={path}.data,data_file_raw=on")


def encrypted(raw: Path, path: Path) -> Path:
    secret = ["--object", "secret,id=key,data=password"]
    luks = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"
    argv = ["qemu-img", "create", "-q", *secret, "-f", "qcow2", "-o", luks, path, "32M"]
    for _ in range(20):
        done = tools.run(argv, check=False)
        # qemu-img gauges the processor first, and gives up where the host is busy.
        if "accurate CPU usage" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return path


def luks(raw: Path, path: Path) -> Path:
    cut(written(path, b""), 32 * MIB)
    options = ["--type", "luks1", "--pbkdf-force-iterations=1000"]
    tools.run(["cryptsetup", "-q", "luksFormat", *options, path], stdin="x\n")
    return path


GOOD = {
    "raw": lambda raw, path: written(path, raw.read_bytes()),
    "qcow2": converted,
    "qcow2-zstd": lambda raw, path: converted(raw, path, "-c", "-o", "compression_type=zstd"),
    "qcow2-version-2": lambda raw, path: converted(raw, path, "-o", "compat=0.10"),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("told", [True, False], ids=["format-told", "format-found"])
def test_good_images_pass(raw, tmp_path, make, told):
    path = make(raw, tmp_path / "image")
    kind = "raw" if make is GOOD["raw"] else "qcow2"
    info = check_safe(path, kind if told else None)
    assert (info.format, info.virtual_size_bytes) == (kind, 32 * MIB)
    assert info.backing_file is None


BAD = {
    "backing-file": (
        lambda raw, path: create(path, "-F", "raw", "-b", str(raw)),
        r"has a backing file \(",
    ),
    "backing-file-on-the-net": (
        lambda raw, path: create(path, "-u", "-F", "raw", "-b", "nbd://127.0.0.1:1/x"),
        r"has a backing file \(",
    ),
    "data-file": (data_file, "uses an external data file"),
    "encrypted-qcow2": (encrypted, "is encrypted"),
    "luks": (luks, "is encrypted"),
    "17-TiB": (
        lambda raw, path: create(path, size="17T"),
        "virtual size of 18,691,697,672,192 bytes",
    ),
    "8-EiB": (
        lambda raw, path: patched(create(path), 24, b"\x7f" + b"\xff" * 7),
        "virtual size of 9,223,372,036,854,775,807 bytes",
    ),
    "no-size": (lambda raw, path: create(path, size="0"), "virtual size of 0 bytes"),
    "cut-qcow2": (lambda raw, path: cut(converted(raw, path), 2 * MIB), "damaged or cut off"),
    "cut-zstd": (
        lambda raw, path: cut(converted(raw, path, "-c", "-o", "compression_type=zstd"), 2 * 65536),
        "damaged or cut off",
    ),
    "cut-header": (lambda raw, path: cut(converted(raw, path), 80), "cut off"),
    "marked-corrupt": (
        lambda raw, path: patched(converted(raw, path), 79, b"\x02"),
        "marked as corrupt",
    ),
    "clusters-elsewhere": (
        lambda raw, path: patched(converted(raw, path), 40, b"\0\0\x7f\0\0\0\0\0"),
        "damaged or cut off",
    ),
    "cut-raw": (lambda raw, path: written(path, raw.read_bytes()[: 8 * MIB]), "cut off"),
    "web-page": (lambda raw, path: written(path, b"<html>404</html>" * 99), "cannot be booted"),
    "empty": (lambda raw, path: written(path, b""), "virtual size of 0 bytes"),
    "gzip": (lambda raw, path: written(path, gzip.compress(raw.read_bytes())), "format gzip"),
    "vmdk": (lambda raw, path: converted(raw, path, kind="vmdk"), "format vmdk"),
    "vdi": (lambda raw, path: converted(raw, path, kind="vdi"), "format vdi"),
    "vhdx": (lambda raw, path: converted(raw, path, kind="vhdx"), "format vhdx"),
    "vpc": (lambda raw, path: converted(raw, path, kind="vpc"), "format vpc"),
    "qed": (lambda raw, path: converted(raw, path, kind="qed"), "format qed"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_images_are_refused_with_the_reason(raw, tmp_path, make, message):
    path = make(raw, tmp_path / "image")
    with pytest.raises(UnsafeImageError, match=message) as caught:
        check_safe(path)
    assert caught.value.hint
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(GOOD["raw"], "qcow2", id="raw-for-qcow2"),
        pytest.param(converted, "raw", id="qcow2-for-raw"),
    ],
)
def test_another_format_than_expected_is_refused(raw, tmp_path, make, expected):
    path = make(raw, tmp_path / "image")
    with pytest.raises(UnsafeImageError, match=f"accepts only {expected}"):
        check_safe(path, expected)


def test_an_archive_is_to_be_unpacked(tmp_path):
    with pytest.raises(UnsafeImageError, match="Unpack it first"):
        check_safe(written(tmp_path / "image", gzip.compress(b"x")))


def test_a_missing_image_is_another_matter(tmp_path):
    with pytest.raises(DiskError, match="No such file"):
        check_safe(tmp_path / "image")

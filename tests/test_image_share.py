"""A classroom's mirror: real clients on loopback, and everything it must not serve."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import faulty_server as faulty
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import chromium
from command import cloudlab
from http_client import ask
from hypothesis import given
from hypothesis import strategies as st

from cloudlab.errors import (
    ChecksumError,
    CloudlabError,
    DownloadError,
    ImageError,
    InterruptedRunError,
    UsageError,
)
from cloudlab.image import cache, share
from cloudlab.image.cache import parse_index
from cloudlab.image.download import Download
from cloudlab.image.fetch import choose_image, fetch, find_cached, mirror_url
from cloudlab.image.recipe import make_recipe
from cloudlab.image.web import Patience, Transfer

HASTY = Patience(tries=3, first_wait_s=0.01, longest_wait_s=2.0, timeout_s=60.0)


@functools.cache
def sha256(data):
    return hashlib.sha256(data).hexdigest()


def remember(folder, name, data, **more):
    """Put a file with its record into a cache."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    image = cache.Image(
        name=name,
        path=path,
        format="raw",
        arch="amd64",
        virtual_size_bytes=len(data),
        file_size_bytes=0,
        mtime_ns=0,
        sha256=sha256(data),
        origin="built",
        source="a test",
        date="2026-11-22T00:00:00Z",
        trust="built here",
        root_filesystem="ext4",
    )
    return cache.remember(replace(image, **more))


@functools.cache
def disk(size_bytes, seed=0):
    """A raw disk: an MBR's last bytes, and then noise."""
    return bytes(510) + b"\x55\xaa" + hashlib.shake_128(bytes([seed])).digest(size_bytes - 512)


LAB = make_recipe(arch="amd64").name


@pytest.fixture(scope="session")
def lab_disk(tmp_path_factory):
    """A real qcow2 image, as bytes, larger than what sockets buffer."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "raw").write_bytes(disk(12 << 20))
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "q"]
    subprocess.run(argv, check=True)
    return (folder / "q").read_bytes()


@pytest.fixture
def teacher(tmp_path, lab_disk):
    """The instructor's images: a lab image with its schema, and a published one."""
    folder = tmp_path / "teacher" / "images"
    folder.mkdir(parents=True)
    schema = folder / f"{LAB}.schema.json"
    schema.write_text('{"type": "object"}')
    remember(folder, LAB, lab_disk, format="qcow2", schema_path=schema)
    remember(
        folder,
        "ubuntu-24.04-amd64-0123456789ab.raw",
        disk(2 << 20, 1),
        origin="fetched",
        source="https://example.org/u.img",
        trust="signed",
        details={"requested": "ubuntu-24.04", "quirks": {"slow": "It is slow."}},
    )
    return folder


@pytest.fixture
def server(teacher):
    with share.ShareServer(address="127.0.0.1", folder=teacher) as server:
        yield server


@pytest.fixture(autouse=True)
def learner(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "learner"))
    return tmp_path / "learner" / "images"


# What learners do


@pytest.mark.parametrize("name", [LAB, LAB.removesuffix(".qcow2")])
def test_a_lab_image_comes_with_its_schema(name, server, teacher):
    image = fetch(name, mirror=server.url, patience=HASTY)
    assert image.path.read_bytes() == (teacher / LAB).read_bytes()
    assert image.name == LAB
    assert json.loads(image.schema_path.read_text()) == {"type": "object"}
    assert image.trust == "mirror's checksum"
    assert image.details["mirror_trust"] == "built here"
    assert image.root_filesystem == "ext4"


def test_one_variable_is_enough(server, teacher, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_MIRROR", server.url.removeprefix("http://"))
    image = fetch("ubuntu-24.04", arch="amd64", patience=HASTY)
    assert image.path.read_bytes() == disk(2 << 20, 1)
    assert image.details["quirks"] == {"slow": "It is slow."}
    assert image.details["published_at"] == "https://example.org/u.img"
    monkeypatch.delenv("CLOUDLAB_MIRROR")
    assert fetch("ubuntu-24.04", arch="amd64") == image  # cached under the name, for good


def test_auto_takes_the_lab_image_from_the_mirror(server):
    chosen, reason = choose_image(arch="amd64", mirror=server.url)
    assert chosen.name == LAB
    assert reason == f"from the mirror {server.url}"


@pytest.mark.parametrize("plain", [True, False])
def test_auto_takes_only_plain_images_from_a_mirror(plain, tmp_path):
    folder = tmp_path / "other"
    name = LAB.replace("ext4", "xfs")
    if plain:
        remember(folder, f"{name}.raw", disk(1 << 20), details={"variant": "plain"})
    # The newest comes first in the index.
    remember(folder, "full.raw", disk(1 << 20, 1), details={"variant": "full"})
    with share.ShareServer(address="127.0.0.1", folder=folder) as server:
        assert server.images()[0].name == "full.raw"
        if plain:
            assert choose_image(arch="amd64", mirror=server.url)[0].name == f"{name}.raw"
        else:
            with pytest.raises(DownloadError, match=f"does not hold {LAB}.*it holds full.raw"):
                choose_image(arch="amd64", mirror=server.url)


def test_auto_shows_that_it_waits_for_a_mirror_and_can_be_stopped():
    seen, stop = [], threading.Event()

    def show(progress):
        seen.append(progress.words())
        stop.set()

    with faulty.FaultyServer() as mirror:
        mirror.fail(f"/{cache.INDEX}", *[faulty.status(503)] * 4)
        with pytest.raises(InterruptedRunError):
            choose_image(mirror=mirror.url, progress=show, cancel=stop)
        assert "trying again" in seen[0]
        with pytest.raises(DownloadError, match="after 3 failed attempts"):
            choose_image(mirror=mirror.url, patience=HASTY)


def test_what_a_mirror_does_not_hold_is_said_with_what_it_holds(server):
    with pytest.raises(DownloadError, match=r"does not hold fedora-44.*ubuntu-24\.04"):
        fetch("fedora-44", mirror=server.url, patience=HASTY)


def test_bytes_that_are_not_the_instructors_are_refused(server, teacher, learner):
    path = teacher / LAB
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ChecksumError):
        fetch(LAB, mirror=server.url, patience=HASTY)
    assert cache.cached_images(learner) == []


def test_an_image_the_instructor_changed_is_not_offered(server, teacher):
    (teacher / LAB).write_bytes(b"changed")
    with pytest.raises(DownloadError, match="does not hold"):
        fetch(LAB, mirror=server.url, patience=HASTY)


def test_a_server_that_is_no_mirror_is_called_so(learner):
    with faulty.FaultyServer() as other, pytest.raises(DownloadError, match="404") as caught:
        fetch(LAB, mirror=other.url, patience=HASTY)
    assert f"The mirror {other.url} cannot be used" in caught.value.message
    assert "cloudlab share" in caught.value.hint


@pytest.mark.parametrize("address", ["ftp://x", "http://a b", "http://x?y", ""])
def test_no_address_of_a_mirror(address):
    with pytest.raises(UsageError, match="is not the address of a mirror"):
        mirror_url(address)


@pytest.mark.slow
def test_thirty_learners_at_once(server, tmp_path, lab_disk):
    url = f"{server.url}/images/{LAB}"
    started = threading.Barrier(30)
    hashes: list[str] = []

    def learn(number):
        started.wait()
        download = Download(
            url,
            tmp_path / f"part{number}",
            Transfer("x", patience=HASTY),
            allow_http=True,
        )
        hashes.append(download.run()["sha256"])

    threads = [threading.Thread(target=learn, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hashes == [sha256(lab_disk)] * 30
    for number in range(30):
        assert (tmp_path / f"part{number}").read_bytes() == lab_disk


@pytest.fixture
def said(tmp_path):
    """Where a real ``cloudlab share`` writes its messages."""
    return tmp_path / "stderr"


@pytest.fixture
def command(teacher, said):
    """The URL of a real ``cloudlab share`` that may open 200 files."""
    environment = {**os.environ, "CLOUDLAB_CACHE": str(teacher.parent), "PYTHONUNBUFFERED": "1"}
    argv = [sys.executable, "-m", "cloudlab", "share", "--address", "127.0.0.1"]
    argv = ["sh", "-c", 'ulimit -n 200; exec "$@"', "sh", *argv]
    with (
        said.open("wb") as messages,
        subprocess.Popen(
            argv, env=environment, stdout=subprocess.PIPE, stderr=messages, text=True
        ) as process,
    ):
        for line in process.stdout:
            if "CLOUDLAB_MIRROR=" in line:
                break
        yield line.partition("CLOUDLAB_MIRROR=")[2].strip()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


def test_thirty_learners_of_the_command_get_on_together(command, lab_disk):
    """None is given more until all have had the same: a starving one would stop them all."""
    step = 2 << 20
    meeting = threading.Barrier(30, timeout=300)
    received: list[bytes] = []

    def learn():
        data = b""
        with urllib.request.urlopen(f"{command}/images/{LAB}") as response:
            while len(data) < len(lab_disk):
                data += response.read(step)
                meeting.wait()
        received.append(data)

    threads = [threading.Thread(target=learn) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lab_disk) > 4 * step
    assert [data == lab_disk for data in received] == [True] * 30


def test_learners_who_stop_reading_starve_nobody(server, lab_disk):
    host, port = server.url.removeprefix("http://").split(":")
    sleepers = []
    for _ in range(30):
        sleeper = socket.socket()
        sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sleeper.connect((host, int(port)))
        sleeper.sendall(f"GET /images/{LAB} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sleepers.append(sleeper)
    image = fetch(LAB, mirror=server.url, patience=HASTY)
    assert image.path.read_bytes() == lab_disk
    for sleeper in sleepers:
        sleeper.close()


# Clients that do nothing, and clients that send what should not be printed


def connect(url):
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return connection


def ends(connection):
    """Read to the end of a connection; return how many bytes came."""
    count = 0
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            count += len(data)
    return count


def test_more_idle_connections_than_files_do_not_keep_learners_out(command, said, lab_disk):
    idle = [connect(command) for _ in range(260)]
    image = fetch(LAB, mirror=command, patience=HASTY)
    assert image.path.read_bytes() == lab_disk
    for connection in idle:
        connection.close()
    assert said.stat().st_size < 1000, said.read_text()


def test_stalled_downloads_make_room_for_one_that_goes_on(teacher, lab_disk, monkeypatch):
    monkeypatch.setattr(share, "STALL_TIMEOUT_S", 0.5)
    monkeypatch.setattr(share, "MOST_CONNECTIONS", 4)
    with share.ShareServer(address="127.0.0.1", folder=teacher) as server:
        stalled = [connect(server.url) for _ in range(4)]
        for connection in stalled:
            connection.sendall(f"GET /images/{LAB} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(1)
        assert fetch(LAB, mirror=server.url, patience=HASTY).path.read_bytes() == lab_disk
        for connection in stalled:
            connection.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost"], ids=["nothing", "a part"])
def test_a_request_that_does_not_come_ends_the_connection(sent, teacher, monkeypatch):
    monkeypatch.setattr(share, "REQUEST_TIMEOUT_S", 0.2)
    with (
        share.ShareServer(address="127.0.0.1", folder=teacher) as server,
        connect(server.url) as connection,
    ):
        connection.sendall(sent)
        assert ends(connection) == 0


def test_what_a_client_sends_reaches_no_terminal(command, said):
    paths = [
        "/images/..%2f..%2f%0AThe%20cache%20was%20deleted.%0A",
        "/images/%2e%2e/%1b%5d52;c;c2VjcmV0%07",
        "/images/\x1b]52;c;c2VjcmV0\x07/../..",
        "/%0AThe%20cache%20was%20deleted.",
        "/images/x\xa0%0A/../../y",
    ]
    for path in paths * 3:
        with connect(command) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
            ends(connection)
    printed = said.read_bytes()
    assert b"\x1b" not in printed
    assert b"\nThe cache" not in printed
    assert len(printed.splitlines()) <= 1, printed


def test_what_tornado_logs_is_escaped(server, caplog):
    # Not on the root logger: distributed, once imported, silences the logger called tornado.
    caplog.set_level("INFO", "tornado")
    with connect(server.url) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \xa0\x85x\r\n\r\n")
        ends(connection)
        connection.close()
    with connect(server.url) as connection:
        connection.sendall(b"GET / HTTP/1.1 \x1b]52;c;x\x07\r\n\r\n")
        ends(connection)
    assert [one for one in caplog.messages if "Malformed" in one]
    assert all(message.isascii() and message.isprintable() for message in caplog.messages)


# HTTP as it should be


def test_checksums_as_sha256sum_takes_them(server, teacher):
    _, body = ask(server, "/SHA256SUMS")
    lines = body.decode().splitlines()
    assert len(lines) == 2
    for line in lines:
        digest, name = line.split(" *")
        assert hashlib.sha256((teacher / name).read_bytes()).hexdigest() == digest


def test_ranges(server, lab_disk):
    path, whole = f"/images/{LAB}", lab_disk
    response, body = ask(server, path, headers={"Range": "bytes=1000-"})
    assert (response.status, body) == (206, whole[1000:])
    etag = response.headers["ETag"]
    assert etag == f'"{hashlib.sha256(whole).hexdigest()}"'
    for validator, status in ((etag, 206), ('"other"', 200)):
        headers = {"Range": "bytes=1000-", "If-Range": validator}
        response, body = ask(server, path, headers=headers)
        assert response.status == status
        assert body == (whole[1000:] if status == 206 else whole)
    response, _ = ask(server, path, headers={"Range": f"bytes={len(whole)}-"})
    assert response.status == 416
    assert response.headers["Content-Range"] == f"bytes */{len(whole)}"


def test_head_says_how_long(server, lab_disk):
    response, body = ask(server, f"/images/{LAB}", method="HEAD")
    assert (response.status, body) == (200, b"")
    assert response.headers["Content-Length"] == str(len(lab_disk))


def test_the_front_page_tells_a_learner_what_to_type(server):
    assert f"CLOUDLAB_MIRROR={server.url}" in ask(server, "/")[1].decode()


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_the_front_page_is_legible_on_a_phone_and_accessible(tmp_path, teacher):
    folders = {"folder": teacher, "accept": lambda *_: None, "site": tmp_path}
    phone = {"viewport": {"width": 360, "height": 640}, "is_mobile": True}
    with share.ShareServer(address="127.0.0.1", port=0, **folders) as server, chromium() as browser:
        page = browser.new_page(**phone)
        page.goto(server.url)
        assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
        assert Axe().run(page).response["violations"] == []


def test_the_front_page_escapes_the_host_that_a_client_names(server):
    assert ask(server, "/", headers={"Host": '"><script>alert(1)</script>'})[0].status == 400
    response, body = ask(server, "/", headers={"Host": "a&lt;b"})
    assert response.status == 200
    assert b"CLOUDLAB_MIRROR=http://a&amp;lt;b<" in body


# What it must not do


def test_it_is_read_only(server, teacher):
    before = sorted(path.name for path in teacher.iterdir())
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        for path in ("/", "/catalogue.json", f"/images/{LAB}"):
            assert ask(server, path, method=method)[0].status == 405, (method, path)
    assert sorted(path.name for path in teacher.iterdir()) == before


@pytest.fixture
def secrets(teacher):
    """Files that lie near, and are nobody's business."""
    (teacher.parent / "secret").write_text("SECRET")
    (teacher / "unrecorded.raw").write_text("SECRET")
    (teacher / ".hidden.part").write_text("SECRET")
    (teacher / "folder").mkdir()
    (teacher / "folder" / "inside").write_text("SECRET")
    (teacher / "link.raw").symlink_to(teacher.parent / "secret")
    remember(teacher, "linked.raw", b"x", schema_path=teacher / "linked.schema.json")
    (teacher / "linked.schema.json").symlink_to(".hidden.part")
    # A record that points out of the cache, and one of a link, as nobody's cloudlab writes them.
    target = teacher.parent / "secret"
    remember(teacher, "evil.raw", b"x")
    (teacher / "evil.raw").unlink()
    (teacher / "evil.raw").symlink_to(target)
    status = target.stat()
    for name, path in (("evil.raw", "evil.raw"), ("outside.raw", "../secret")):
        record = json.loads((teacher / "evil.raw.json").read_text())
        record.update(name=name, path=path)
        record.update(file_size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
        (teacher / f"{name}.json").write_text(json.dumps(record))
    return teacher


NOT_SERVED = [
    "/images/../secret",
    "/images/..%2fsecret",
    "/images/%2e%2e/secret",
    "/images/%2e%2e%2fsecret",
    "/images/folder/../../secret",
    "/images/..\\secret",
    "/images//etc/passwd",
    "/images/%2fetc%2fpasswd",
    "/../secret",
    "//etc/passwd",
    "/images/",
    "/images/.",
    "/images/folder",
    "/images/folder/inside",
    "/images/.hidden.part",
    "/images/unrecorded.raw",
    "/images/link.raw",
    "/images/evil.raw",
    "/images/outside.raw",
    "/images/linked.schema.json",
    "/images/secret",
    f"/images/{LAB}.json",
    f"/images/{LAB}%00.json",
    "/images/%ff%fe",
    "/secret",
]


def test_it_serves_nothing_but_the_cache(server, secrets):
    for path in NOT_SERVED:
        response, body = ask(server, path)
        assert response.status in {400, 403, 404}, path
        assert b"SECRET" not in body, path
        assert b"root:" not in body, path


def test_the_index_lists_nothing_else(server, secrets):
    _, body = ask(server, "/catalogue.json")
    names = {record["name"] for record in json.loads(body)["images"]}
    assert names == {LAB, "ubuntu-24.04-amd64-0123456789ab.raw", "linked.raw"}
    assert hashlib.sha256(b"SECRET").hexdigest().encode() not in body
    assert str(secrets).encode() not in body  # nothing of the instructor's folders


# Where it listens


def test_a_taken_port_is_passed_over_unless_it_was_asked_for(teacher, monkeypatch):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    monkeypatch.setattr(share, "PORT", port)
    with share.ShareServer(address="127.0.0.1", folder=teacher) as server:
        assert not server.url.endswith(f":{port}")
        assert urllib.request.urlopen(f"{server.url}/SHA256SUMS").status == 200
    with pytest.raises(UsageError, match=f"Cannot listen on 127.0.0.1 port {port}"):
        share.ShareServer(address="127.0.0.1", port=port, folder=teacher)
    taken.close()


@pytest.mark.parametrize("address", ["192.0.2.7", "no.such.host.invalid"])
def test_an_address_that_is_not_this_hosts(address, teacher):
    with pytest.raises(UsageError, match="Cannot listen on"):
        share.ShareServer(address=address, folder=teacher)


@pytest.mark.parametrize("port", [-1, 65536, 10**6])
def test_a_port_that_cannot_be(port, teacher):
    with pytest.raises(UsageError, match="Ports are 0 to 65535"):
        share.ShareServer(address="127.0.0.1", port=port, folder=teacher)


@pytest.mark.parametrize("address", ["::", "0.0.0.0"])
def test_all_addresses_include_the_one_that_is_shown(address, teacher):
    with share.ShareServer(address=address, folder=teacher) as server:
        assert server.url.startswith(f"http://{share.lan_address()}:")
        assert urllib.request.urlopen(f"{server.url}/SHA256SUMS").status == 200


def test_without_an_address_it_listens_where_the_network_sees_it(teacher):
    with share.ShareServer(folder=teacher) as server:
        assert server.url.startswith(f"http://{share.lan_address()}:")
        assert urllib.request.urlopen(f"{server.url}/SHA256SUMS").status == 200


CLASSROOM = """
import sys, urllib.request
from pathlib import Path
from cloudlab.errors import CloudlabError
from cloudlab.image.share import ShareServer
for chosen in sys.argv[2:]:
    try:
        with ShareServer(address=chosen or None, folder=Path(sys.argv[1])) as server:
            print(server.url, urllib.request.urlopen(server.url + "/SHA256SUMS").status)
    except CloudlabError as error:
        print(error.message)
"""


_UP = "ip link add {0} type bridge; ip addr add {1} dev {0}; ip link set {0} up"


def _in_own_network(setup, *argv):
    """Run a program where there is no network but what ``setup`` makes, and no default route."""
    script = f'ip link set lo up; {setup}; exec "$@"'
    argv = ["unshare", "--net", "sh", "-ec", script, "sh", *argv]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def own_network():
    """Skip where a network namespace with an interface cannot be had, as without root."""
    setup = "ip link add class0 type bridge"
    if shutil.which("ip") is None or _in_own_network(setup, "true").returncode:
        pytest.skip("only root may make a network of its own")


@pytest.mark.parametrize(
    ("more", "address"),
    [
        ("", "10.9.8.7"),
        ("ip addr add 169.254.3.4/16 dev class0", "10.9.8.7"),
        (
            _UP.format("docker0", "10.0.0.1/8"),
            "10.9.8.7",
        ),
        (
            "ip addr del 10.9.8.7/24 dev class0; ip addr add 169.254.3.4/16 dev class0",
            "169.254.3.4",
        ),
    ],
    ids=["alone", "beside one of the link", "beside a container's", "of the link only"],
)
def test_a_classroom_without_a_way_out(more, address, own_network, teacher):
    setup = f"{_UP.format('class0', '10.9.8.7/24')}; {more or 'true'}"
    addresses = ("", "0.0.0.0", "::")
    done = _in_own_network(setup, sys.executable, "-c", CLASSROOM, str(teacher), *addresses)
    lines = done.stdout.splitlines()
    assert len(lines) == len(addresses), done.stderr
    for line in lines:
        assert line.startswith(f"http://{address}:")
        assert line.endswith(" 200")


@pytest.mark.parametrize(
    "setup",
    ["true", "ip link add class0 type bridge; ip addr add 10.9.8.7/24 dev class0"],
    ids=["none", "down"],
)
def test_a_host_on_no_network_says_so(setup, own_network, teacher):
    done = _in_own_network(setup, sys.executable, "-c", CLASSROOM, str(teacher), "", "0.0.0.0")
    assert done.stdout.count("is on no network") == 2, done.stderr


def test_closing_twice_is_harmless_and_frees_the_port(teacher):
    server = share.ShareServer(address="127.0.0.1", folder=teacher)
    port = int(server.url.rpartition(":")[2])
    server.close()
    server.close()
    with share.ShareServer(address="127.0.0.1", port=port, folder=teacher):
        pass


def test_the_qr_code_is_one_for_the_url():
    text = share.qr_text("http://192.168.1.20:8765")
    assert len(text.splitlines()) > 10
    assert set(text) & set("▀▄█")


# The index, whoever wrote it


def test_the_index_comes_back_as_written(teacher):
    images = share.served_images(teacher)
    offers = parse_index(cache.write_index(images).encode(), "x")
    assert [offer.image.sha256 for offer in offers] == [image.sha256 for image in images]
    assert [offer.image.details for offer in offers] == [image.details for image in images]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_index_or_our_error(data):
    try:
        parse_index(data, "x")
    except CloudlabError as error:
        complaint = str(error)
        assert "is not the index of a cloudlab mirror" in complaint


GOOD = json.loads(
    cache.write_index(
        [
            cache.Image(
                name="a.raw", path=Path("a.raw"), format="raw", arch="amd64", virtual_size_bytes=1,
                file_size_bytes=1, mtime_ns=1, sha256="a" * 64, origin="built", source="s",
                date="d", trust="t",
            )
        ]
    )
)  # fmt: skip


@given(st.sampled_from(sorted(GOOD["images"][0])), json_values)
def test_any_value_in_a_record_is_an_offer_or_our_error(key, value):
    index = {**GOOD, "images": [{**GOOD["images"][0], key: value}]}
    try:
        offers = parse_index(json.dumps(index).encode(), "x")
    except DownloadError:
        return
    assert "/" not in offers[0].image.name


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a\x00b", "-x", "x" * 300])
@pytest.mark.parametrize("key", ["name", "schema_path"])
def test_a_mirror_cannot_name_a_file_elsewhere(key, name):
    index = {**GOOD, "images": [{**GOOD["images"][0], key: name}]}
    if key == "schema_path" and not name:
        return
    with pytest.raises(DownloadError):
        parse_index(json.dumps(index).encode(), "x")


@pytest.mark.parametrize(
    "name", ["x.raw.json", "x.JSON", "x.raw.schema"], ids=["record", "capitals", "schema"]
)
def test_a_mirror_cannot_name_an_image_as_a_record(name):
    index = {**GOOD, "images": [{**GOOD["images"][0], "name": name}]}
    with pytest.raises(DownloadError, match="the name"):
        parse_index(json.dumps(index).encode(), "x")


@pytest.mark.parametrize("size", ["Infinity", "1e999", "-Infinity", "NaN"])
@pytest.mark.parametrize("key", ["virtual_size_bytes", "file_size_bytes"])
def test_sizes_without_bounds_are_our_error(key, size):
    text = json.dumps({**GOOD, "images": [{**GOOD["images"][0], key: "SIZE"}]})
    with pytest.raises(DownloadError, match="is not the index"):
        parse_index(text.replace('"SIZE"', size).encode(), "x")


@pytest.fixture
def odd_mirror(teacher, lab_disk):
    """A server that is no ``cloudlab share`` but has its index, of one image."""
    with faulty.FaultyServer() as server:
        [image] = [one for one in share.served_images(teacher) if one.name == LAB]
        index = cache.write_index([replace(image, schema_path=None)])
        server.put("/catalogue.json", index.encode())
        server.put(f"/images/{LAB}", lab_disk)
        yield server


def test_a_mirror_without_an_end_is_read_up_to_the_promised_size(odd_mirror, learner, lab_disk):
    odd_mirror.fail(f"/images/{LAB}", faulty.flood)
    with pytest.raises(ChecksumError):
        fetch(LAB, mirror=odd_mirror.url, patience=HASTY)
    assert odd_mirror.flooded < len(lab_disk) + (32 << 20)  # the rest is what sockets buffer
    assert list(learner.iterdir()) == []


def test_a_length_that_is_not_the_promised_one_is_refused(odd_mirror, learner, lab_disk):
    odd_mirror.put(f"/images/{LAB}", lab_disk + b"more")
    with pytest.raises(
        DownloadError, match=rf"has {len(lab_disk) + 4:,} bytes, but {len(lab_disk):,}"
    ):
        fetch(LAB, mirror=odd_mirror.url, patience=HASTY)
    assert list(learner.iterdir()) == []


BAD_DETAILS = {
    "quirks": [[5], {"slow": 5}, "slow"],
    "digests": [[5], {"sha256": None}],
    "requested": [5, ["x"]],
    "published_at": [5],
    "mirror_name": [{}],
    "variant": [["plain"]],
    "generation": [-1, "1", 1.5, True, 10**40],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD_DETAILS.items() for value in values]
)
def test_details_of_the_wrong_kind_are_refused_by_learners_and_in_the_cache(key, value, teacher):
    index = {**GOOD, "images": [{**GOOD["images"][0], "details": {key: value}}]}
    with pytest.raises(DownloadError, match=f"the value of {key} is not allowed|has no attribute"):
        parse_index(json.dumps(index).encode(), "x")
    path = teacher / f"{LAB}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "details": {key: value}}))
    assert LAB not in {image.name for image in cache.cached_images(teacher)}
    with pytest.raises(ImageError, match=r"The record .* cannot be read"):
        cache.recall(LAB, teacher)


def _offered_as(teacher, name, requested):
    """Put an image of that file's name on the mirror, which says that it is ``requested``."""
    return remember(teacher, name, disk(4096, 7), details={"requested": requested})


def test_a_mirrors_image_does_not_replace_the_learners_own(teacher, learner):
    own = remember(learner, "lab-own.raw", disk(4096))
    (teacher / "ubuntu-24.04-amd64-0123456789ab.raw.json").unlink()
    offered = _offered_as(teacher, "lab-own.raw", "ubuntu-24.04")
    with share.ShareServer(address="127.0.0.1", folder=teacher) as server:
        image = fetch("ubuntu-24.04", arch="amd64", mirror=server.url, patience=HASTY)
        assert fetch("ubuntu-24.04", arch="amd64", mirror=server.url) == image
    assert image.name == f"lab-own-{offered.sha256[:12]}.raw"
    assert image.path.read_bytes() == disk(4096, 7)
    assert own.path.read_bytes() == disk(4096)
    assert cache.recall("lab-own.raw") == own
    assert fetch("lab-own.raw") == own
    assert fetch("ubuntu-24.04", arch="amd64") == image


@pytest.mark.parametrize("name", ["lab-own.raw", "lab-own"])
def test_a_newer_image_of_ones_own_name_is_kept_beside_it(name, teacher, learner):
    own = remember(learner, "lab-own.raw", disk(4096))
    _offered_as(teacher, "lab-own.raw", "")
    with share.ShareServer(address="127.0.0.1", folder=teacher) as server:
        assert fetch(name, mirror=server.url, patience=HASTY) == own
        image = fetch(name, mirror=server.url, refresh=True, patience=HASTY)
        assert image.path.read_bytes() == disk(4096, 7)
        assert fetch(name, mirror=server.url, refresh=True, patience=HASTY) == image
    assert fetch(name) == image
    assert cache.recall("lab-own.raw") == own


def test_an_image_that_the_learner_changed_is_not_lost(teacher, learner):
    own = remember(learner, "lab-own.raw", disk(4096))
    own.path.write_bytes(b"changed, and dear")
    _offered_as(teacher, "lab-own.raw", "")
    with share.ShareServer(address="127.0.0.1", folder=teacher) as server:
        image = fetch("lab-own", mirror=server.url, patience=HASTY)
    assert image.path.read_bytes() == disk(4096, 7)
    assert own.path.read_bytes() == b"changed, and dear"
    assert fetch("lab-own") == image


def test_an_index_that_was_cut_is_asked_for_again(teacher, lab_disk):
    with faulty.FaultyServer() as server:
        index = cache.write_index(share.served_images(teacher)).encode()
        server.put("/catalogue.json", index)
        server.put(f"/images/{LAB}", lab_disk)
        server.put(f"/images/{LAB}.schema.json", b'{"type": "object"}')
        server.fail("/catalogue.json", faulty.cut(len(index) // 2))
        server.fail(f"/images/{LAB}.schema.json", faulty.cut(3))
        image = fetch(LAB, mirror=server.url, patience=HASTY)
    assert image.path.read_bytes() == lab_disk
    assert image.schema_path.read_bytes() == b'{"type": "object"}'


def test_the_list_of_images_shows_what_the_cached_one_rests_on(server):
    def listed(*options):
        return cloudlab("images", *options).stdout

    def row():
        rows = json.loads(listed("--json"))
        return next(r for r in rows if (r["name"], r["arch"]) == ("ubuntu-24.04", "amd64"))

    assert row()["integrity"] == "signed"
    fetch("ubuntu-24.04", arch="amd64", mirror=server.url, patience=HASTY)
    assert row()["integrity"] == "mirror's checksum"
    [line] = [one for one in listed().splitlines() if one.startswith("ubuntu-24.04 ")]
    assert "mirror's checksum" in line


def test_a_mirrors_copy_is_what_a_name_means_unless_ones_own_catalogue_differs(
    server, tmp_path, monkeypatch
):
    image = fetch("ubuntu-24.04", arch="amd64", mirror=server.url, patience=HASTY)
    assert find_cached("ubuntu-24.04", "amd64") == image
    own = tmp_path / "own.yaml"
    entry = {"title": "Mine", "arch": {"amd64": "a"}, "url": "https://example.org/mine.img"}
    own.write_text(json.dumps({"images": {"ubuntu-24.04": {**entry, "format": "raw"}}}))
    monkeypatch.setenv("CLOUDLAB_CATALOGUE", str(own))
    assert find_cached("ubuntu-24.04", "amd64") is None


def test_a_mirror_cannot_overwrite_what_a_learner_has(tmp_path, teacher, learner):
    own = remember(learner, "own.raw", disk(4096))
    wanted = "ubuntu-24.04-amd64-0123456789ab.raw"
    bait = teacher / "own.raw"
    bait.write_bytes(b'{"type": "object"}')
    record = json.loads((teacher / f"{wanted}.json").read_text())
    (teacher / f"{wanted}.json").write_text(json.dumps({**record, "schema_path": bait.name}))
    with share.ShareServer(address="127.0.0.1", folder=teacher) as server:
        image = fetch("ubuntu-24.04", arch="amd64", mirror=server.url, patience=HASTY)
    assert own.path.read_bytes() == disk(4096)
    assert cache.recall("own.raw") == own
    assert image.schema_path == learner / f"{wanted}.schema.json"
    assert image.schema_path.read_bytes() == bait.read_bytes()


FULL = """
import os, resource, sys
from cloudlab.errors import CloudlabError
from cloudlab.image.share import ShareServer
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
files = []
try:
    while True:
        files.append(os.open("/", os.O_RDONLY))
except OSError:
    pass
for _ in range(int(sys.argv[1])):
    os.close(files.pop())
for _ in range(2):  # nothing is left open by the first
    try:
        ShareServer(address="127.0.0.1", port=0).close()
        print("served")
    except CloudlabError as error:
        print(error.message)
"""


@pytest.mark.parametrize("free", [1, 2, 3, 10])
def test_a_server_that_cannot_start_says_so(free):
    argv = [sys.executable, "-c", FULL, str(free)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    expected = "served" if free == 10 else "The server could not start: Too many open files."
    assert done.stdout.splitlines() == [expected] * 2

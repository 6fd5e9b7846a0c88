"""The site beside a classroom's mirror: real HTTP on loopback, and what must stay unserved."""

import asyncio
import gzip
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import player
import pytest
from http_client import ask
from shipped import recorded

from cloudlab.errors import UsageError
from cloudlab.image import share
from cloudlab.image.share import ShareServer, find_site, raise_file_limit


@pytest.fixture
def site(tmp_path):
    """A small site with everything near it that is nobody's business."""
    site = tmp_path / "built" / "docs"
    (site / "player" / "data").mkdir(parents=True)
    (site / ".doctrees").mkdir()
    (site / "empty").mkdir()
    (site / "linked").mkdir()
    (tmp_path / "built" / "docs-next").mkdir()
    for name, text in {
        "index.html": "the course",
        "player/index.html": "the player",
        "player/player.js": "export {}",
        "player/player.css": "body {}",
        "player/data/index.json": "{}",
        "player/data/default.json.gz": "\x1f\x8b",
        "figure.svg": "<svg/>",
        "notes.unheard-of": "notes",
        ".hidden": "SECRET",
        ".doctrees/index.html": "SECRET",
        "../secret": "SECRET",
        "../docs-next/index.html": "SECRET",
    }.items():
        (site / name).write_text(text)
    (site / "inside.html").symlink_to("index.html")
    (site / "outside.html").symlink_to(tmp_path / "built" / "secret")
    (site / "beside").symlink_to("../docs-next")
    (site / "linked" / "index.html").symlink_to("../../secret")
    (site / "to-hidden.html").symlink_to(".hidden")
    (site / "loop.html").symlink_to("loop.html")
    os.mkfifo(site / "pipe.html")
    return site


@pytest.fixture
def server(site, tmp_path):
    images = tmp_path / "images"
    with ShareServer(address="127.0.0.1", port=0, folder=images, site=site) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/site/", "text/html", b"the course"),
        ("/site/index.html?v=1", "text/html", b"the course"),
        ("/site/player/", "text/html", b"the player"),
        ("/site/player/player.js", "text/javascript", b"export {}"),
        ("/site/player/player.css", "text/css", b"body {}"),
        ("/site/player/data/index.json", "application/json", b"{}"),
        ("/site/player/data/default.json.gz", "application/gzip", "\x1f\x8b".encode()),
        ("/site/figure.svg", "image/svg+xml", b"<svg/>"),
        ("/site/notes.unheard-of", "application/octet-stream", b"notes"),
        ("/site/inside.html", "text/html", b"the course"),
    ],
)
def test_files_come_with_their_type(path, kind, body, server):
    response, found = ask(server, path)
    assert (response.status, found) == (200, body)
    assert response.headers["Content-Type"] == kind
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    # A browser would unpack what the page unpacks itself.
    assert "Content-Encoding" not in response.headers
    response, found = ask(server, path, method="HEAD")
    assert (response.status, found) == (200, b"")
    assert response.headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("path", ["/site", "/site/player"])
def test_a_folder_without_its_slash_leads_to_the_one_with_it(path, server):
    response, _ = ask(server, path)
    assert (response.status, response.headers["Location"]) == (301, f"{path}/")


NOT_SERVED = [
    "/site/../secret",
    "/site/..%2fsecret",
    "/site/%2e%2e/secret",
    "/site/%2e%2e%2fsecret",
    "/site/%252e%252e%252fsecret",
    "/site/player/../../secret",
    "/site/player/../index.html",
    "/site/..\\secret",
    "/site/..",
    "/site/../docs-next/",
    "/site/%2e%2e/docs-next/index.html",
    "/site//etc/passwd",
    "/site/%2fetc%2fpasswd",
    "//site/index.html",
    "/site/.",
    "/site/.hidden",
    "/site/%2ehidden",
    "/site/.doctrees",
    "/site/.doctrees/",
    "/site/.doctrees/index.html",
    "/site/outside.html",
    "/site/beside",
    "/site/beside/",
    "/site/beside/index.html",
    "/site/linked/",
    "/site/linked/index.html",
    "/site/to-hidden.html",
    "/site/loop.html",
    "/site/pipe.html",
    "/site/empty/",
    "/site/absent.html",
    "/site/index.html%00.png",
    "/site/%00",
    "/site/%ff%fe",
    "/site/" + "x" * 5000,
    "/sites/index.html",
    "/index.html",
]


@pytest.mark.parametrize("path", NOT_SERVED)
def test_nothing_else_is_served(path, server):
    response, body = ask(server, path)
    assert response.status in {400, 403, 404}, body
    assert b"SECRET" not in body
    assert b"root:" not in body
    assert ask(server, "/site/")[0].status == 200


def test_the_site_is_read_only(server, site):
    before = sorted(path.name for path in site.rglob("*"))
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(server, "/site/index.html", method=method)[0].status == 405, method
    assert sorted(path.name for path in site.rglob("*")) == before


def test_a_page_that_was_built_again_is_not_taken_for_the_old_one(server, site):
    response, _ = ask(server, "/site/")
    known = {"If-None-Match": response.headers["ETag"]}
    assert ask(server, "/site/", headers=known)[0].status == 304
    (site / "index.html").write_text("the course, again")
    response, body = ask(server, "/site/", headers=known)
    assert (response.status, body) == (200, b"the course, again")


def test_the_front_page_links_to_what_there_is(server, site, tmp_path):
    links = re.findall(rb'href="([^"]+)"', ask(server, "/")[1])
    assert links == [b"site/", b"site/player/"]
    assert [ask(server, f"/{link.decode()}")[0].status for link in links] == [200, 200]
    (site / "player" / "index.html").unlink()
    assert re.findall(rb'href="([^"]+)"', ask(server, "/")[1]) == [b"site/"]
    with ShareServer(address="127.0.0.1", port=0, folder=tmp_path / "images") as mirror:
        assert b"href" not in ask(mirror, "/")[1]
        assert ask(mirror, "/site/")[0].status == 404


def test_a_folder_that_is_no_site_is_refused_with_the_way_to_one(site, tmp_path):
    assert find_site(site) == site
    for folder in (site / "empty", tmp_path / "absent", site / "index.html"):
        with pytest.raises(UsageError, match=r"is not a site: there is no file ") as it:
            find_site(folder)
        assert "make docs" in it.value.hint


def start_share(cwd, *options):
    """Start a real ``cloudlab share``; return it with what it prints until it serves."""
    argv = [sys.executable, "-m", "cloudlab", "share", "--address", "127.0.0.1", *options]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd
    )
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Ctrl-C"):
            break
    return process, said


def end(process):
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    return rest


def test_the_command_prints_the_address_that_learners_open(site, own_cache, tmp_path):
    process, said = start_share(site.parent, "--site", "docs")
    [url] = re.findall(r"^Learners open:  (http://\S+/site/)$", said, re.MULTILINE)
    host, port = re.fullmatch(r"http://(.*):(\d+)/site/", url).groups()
    connection = http.client.HTTPConnection(host, int(port), timeout=300)
    connection.request("GET", "/site/player/")
    assert connection.getresponse().read() == b"the player"
    connection.close()
    assert "site are no longer served" in end(process)


def test_without_a_site_the_command_says_in_a_line_how_to_build_one(tmp_path, own_cache):
    if find_site() is not None:
        pytest.skip("this clone has one")
    process, said = start_share(tmp_path)
    assert len(re.findall("^No site: .*make docs.*--site", said, re.MULTILINE)) == 1
    assert "/site/" not in said
    end(process)


@pytest.fixture
def player_files(tmp_path):
    """The player's page with three recordings; return each file's path on the server and bytes."""
    place = tmp_path / "site" / "player"
    shutil.copytree(player.PAGE, place)
    (place.parent / "index.html").write_text("the course")
    (place / "data").mkdir()
    colours = player.add_style()
    for name in ("default", "growpart-off", "resize-rootfs-false"):
        text = json.dumps(player.recording(recorded(name), colours))
        (place / "data" / f"{name}.json.gz").write_bytes(gzip.compress(text.encode()))
    files = {
        f"/{path.relative_to(tmp_path)}": path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }
    return files | {"/site/player/": files["/site/player/index.html"]}


async def fetch_all(port, names):
    """Fetch each of the names on a connection of its own, all open before the first request."""
    ways = [await asyncio.open_connection("127.0.0.1", port) for _ in names]
    for name, (_, writer) in zip(names, ways, strict=True):
        writer.write(f"GET {name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    found = [await reader.read() for reader, _ in ways]
    for _, writer in ways:
        writer.close()
    return found


def body(answer):
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
    return content


@pytest.mark.slow
def test_three_hundred_browsers_at_once_get_the_player_and_its_data(
    player_files, own_cache, tmp_path
):
    process, said = start_share(tmp_path, "--site", "site")
    [port] = re.findall(r"^Learners open:  http://127\.0\.0\.1:(\d+)/site/$", said, re.MULTILINE)
    # After its start: the command must raise the usual limit by itself.
    raise_file_limit()

    async def browse(number, begin):
        # Each begins elsewhere, so that large and small files are served side by side.
        names = sorted(player_files)
        names = names[number % len(names) :] + names[: number % len(names)]
        await begin.wait()
        for some in (names[:6], names[6:]):  # a browser has six connections to a server
            for name, answer in zip(some, await fetch_all(int(port), some), strict=True):
                assert body(answer) == player_files[name]

    async def browse_all():
        begin = asyncio.Event()
        browsers = [asyncio.create_task(browse(number, begin)) for number in range(300)]
        await asyncio.sleep(0)
        begin.set()
        await asyncio.gather(*browsers)

    asyncio.run(browse_all())
    end(process)


def test_more_requests_at_once_than_connections_are_all_answered(site, tmp_path, monkeypatch):
    monkeypatch.setattr(share, "MOST_CONNECTIONS", 4)
    # On a busy host a client may need longer for its request.
    monkeypatch.setattr(share, "FULL_TIMEOUT_S", 300)
    (site / "large").write_bytes(os.urandom(1 << 20))

    async def ask_all(port):
        return await asyncio.gather(*(fetch_all(port, ["/site/large"] * 6) for _ in range(10)))

    images = tmp_path / "images"
    with ShareServer(address="127.0.0.1", port=0, folder=images, site=site) as server:
        found = asyncio.run(ask_all(int(server.url.rpartition(":")[2])))
    answers = [body(answer) for answers in found for answer in answers]
    assert [answer == (site / "large").read_bytes() for answer in answers] == [True] * 60

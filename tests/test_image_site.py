"""The site beside a classroom's mirror: real HTTP on loopback, and what must stay unserved."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cloudlab.errors import UsageError
from cloudlab.image.share import ShareServer, find_site

PLAYER = "site/player/"


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


def ask(server, path, method="GET", headers=None):
    """Send a path as it is, without any client's tidying."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=300)
    connection.request(method, path, headers=headers or {})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


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


@pytest.mark.slow
def test_three_hundred_clients_at_once_get_the_player_and_all_its_data(own_cache, tmp_path):
    import player

    player.main(tmp_path / "site" / "player")
    (tmp_path / "site" / "index.html").write_text("the course")
    files = {
        f"/{path.relative_to(tmp_path)}": path.read_bytes()
        for path in (tmp_path / "site" / "player").rglob("*")
        if path.is_file()
    }
    files["/site/player/"] = files["/site/player/index.html"]
    process, said = start_share(tmp_path, "--site", "site")
    [port] = re.findall(r"^Learners open:  http://127\.0\.0\.1:(\d+)/site/$", said, re.MULTILINE)
    begin, all_there = threading.Barrier(300, timeout=300), threading.Barrier(300, timeout=300)

    def learn(number):
        """Open a connection together with all others; return the files that differ."""
        wrong = []
        # Each begins elsewhere, so that large and small files are served side by side.
        names = sorted(files)[number % len(files) :] + sorted(files)[: number % len(files)]
        begin.wait()
        for name in names:
            with socket.create_connection(("127.0.0.1", int(port)), timeout=300) as connection:
                if name == names[0]:
                    # All 300 are connected before the first of them sends its request.
                    all_there.wait()
                connection.sendall(f"GET {name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                response = http.client.HTTPResponse(connection)
                response.begin()
                if (response.status, response.read()) != (200, files[name]):
                    wrong.append(name)
        return wrong

    with ThreadPoolExecutor(300) as pool:
        assert [wrong for wrong in pool.map(learn, range(300)) if wrong] == []
    end(process)

"""A class: real learners' processes and a real ``cloudlab share --class`` on loopback."""

import csv
import functools
import http.client
import http.server
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from command import cloudlab

from cloudlab import course
from cloudlab.cli import main
from cloudlab.course import Prediction, classroom, runs
from cloudlab.course.classroom import Answer, keep_answer, parse_answer
from cloudlab.errors import CloudlabError, ParseError, UsageError
from cloudlab.image.share import MOST_ANSWER_BYTES, ShareServer

GUESSES = {"default": Prediction("19.9G", "fills"), "growpart-off": Prediction("stays", "2 GiB")}
LEARNER = f"{7:032x}"


@pytest.fixture(autouse=True)
def learner(tmp_path, monkeypatch, own_cache):
    """A learner's folder, on a computer that plays recordings and is in no class."""
    monkeypatch.setenv("CLOUDLAB_MODE", "replay")
    monkeypatch.delenv("CLOUDLAB_CLASS", raising=False)
    (tmp_path / "learner").mkdir()
    monkeypatch.chdir(tmp_path / "learner")
    return tmp_path / "learner"


@pytest.fixture
def folder(tmp_path):
    return classroom.open_class(str(tmp_path / "class"))


@pytest.fixture
def server(folder, tmp_path):
    accept = functools.partial(keep_answer, folder)
    images = tmp_path / "images"
    with ShareServer(address="127.0.0.1", port=0, folder=images, accept=accept) as server:
        yield server


def answers(folder):
    return [parse_answer(path.read_bytes()) for path in folder.glob("*")]


def encoded(**values):
    return msgspec.json.encode({"name": "otter", **values})


def ask(server, method, path, body=b"", headers=None):
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=300)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    said = response.read().decode()
    connection.close()
    return response.status, said


# What learners do


@pytest.mark.parametrize("form", ["http://{address}", "{address}", "{folder}"])
def test_one_call_brings_predictions_to_the_class_and_says_where(form, server, folder):
    to = form.format(address=server.url.removeprefix("http://"), folder=folder)
    said = str(course.send_to_class(GUESSES, name="Zoë", to=to))
    assert said.startswith(f"Sent to {to} as Zoë: predictions for 2 boots")
    [answer] = answers(folder)
    assert answer.predictions == GUESSES
    assert answer.ready.startswith("ready: recordings only")


def test_the_variable_names_the_class_and_later_calls_remember_it(server, folder, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_CLASS", server.url)
    course.send_to_class(GUESSES)
    [first] = answers(folder)
    monkeypatch.delenv("CLOUDLAB_CLASS")
    course.send_to_class({"default": Prediction("stays", "stays")}, name="me")
    [second] = answers(folder)
    assert re.fullmatch(r"[a-z]+-[0-9a-f]{2}", first.name)
    assert second.name == "me"
    assert second.predictions == GUESSES | {"default": Prediction("stays", "stays")}


def test_without_a_class_nothing_happens(learner):
    assert str(course.send_to_class(GUESSES)).startswith("Nothing was sent")
    course.check("00-1", "tcg")
    assert list(learner.iterdir()) == []


def test_a_class_out_of_reach_costs_nothing(server, folder):
    server.close()
    said = str(course.send_to_class(GUESSES, to=server.url))
    assert said.startswith(f"Not sent: {server.url} does not answer")
    assert "kept in runs/class.json" in said
    said = str(course.send_to_class({}, to=str(folder)))
    assert said.startswith("Sent")
    assert answers(folder)[0].predictions == GUESSES


def test_a_mirror_without_a_class_says_so(tmp_path):
    with ShareServer(address="127.0.0.1", port=0, folder=tmp_path / "images") as server:
        assert "cloudlab share --class" in str(course.send_to_class(GUESSES, to=server.url))
        assert ask(server, "PUT", f"/class/{LEARNER}")[0] == 404  # longer ones break off


class _Anything(http.server.BaseHTTPRequestHandler):
    """Answers every request like a hotel's login page."""

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Please log in. kept</html>")

    def log_message(self, *_):
        pass


def test_a_networks_login_page_is_not_taken_for_the_class():
    with http.server.HTTPServer(("127.0.0.1", 0), _Anything) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        said = str(course.send_to_class(GUESSES, to=f"127.0.0.1:{server.server_port}"))
    assert said.startswith("Not sent")
    assert "takes no answers" in said


@pytest.mark.parametrize(
    "to",
    ["http://127.0.0.1:0", "http://[::1", "ftp://x", "127.0.0.1:99999", "no/folder", "~none/x"],
)
def test_a_wrong_address_is_explained(to):
    assert str(course.send_to_class(GUESSES, to=to)).startswith("Not sent: ")


@pytest.mark.parametrize("name", ["x" * 25, "a\nb", " a", "\x1b[31mred", "a\u202eb", "\ud800"])
def test_a_name_that_cannot_be_shown_is_refused(name, folder):
    with pytest.raises((UsageError, UnicodeEncodeError)):
        course.send_to_class(GUESSES, name=name, to=str(folder))
    assert list(folder.iterdir()) == []


def test_a_prediction_without_its_boot_is_refused_with_a_hint(folder):
    with pytest.raises(UsageError, match="of which boot") as caught:
        course.send_to_class(Prediction("fills", "fills"), to=str(folder))
    assert "default" in caught.value.hint


def test_the_home_folders_name_stays_at_home(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "jane.doe"))
    reason = f"ready: recordings only, because {tmp_path}/jane.doe/cache is full"
    monkeypatch.setattr(classroom, "ready_line", lambda: reason)
    course.send_to_class({}, to=str(folder))
    assert answers(folder)[0].ready == "ready: recordings only, because ~/cache is full"


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"learner": "../../x"}'])
def test_a_damaged_copy_is_replaced(damage, folder, learner):
    (learner / "runs").mkdir()
    (learner / "runs" / "class.json").write_bytes(damage)
    assert str(course.send_to_class(GUESSES, to=str(folder))).startswith("Sent")
    assert len(answers(folder)) == 1


def settled():
    """Wait for what checks send in the background."""
    for thread in threading.enumerate():
        if thread.name.endswith("(_send_again)"):
            thread.join()


def test_checks_send_progress_once_the_learner_is_in_a_class(server, folder, learner):
    course.send_to_class(GUESSES, to=server.url)
    for _ in range(2):
        course.check("05-2", 5)
    course.check("05-1", None)
    settled()
    [answer] = answers(folder)
    assert (answer.trying, answer.wrong) == ("05-2", 2)
    (learner / "runs" / "progress.json").write_text('["05-1"]')
    assert course.check("05-1", {"resize_rootfs": False}).right
    settled()
    [answer] = answers(folder)
    assert (answer.trying, answer.wrong, answer.passed) == (None, 0, ["05-1"])
    assert answer.predictions == GUESSES


def test_a_check_does_not_wait_for_a_class_that_is_gone(server, folder):
    course.send_to_class(GUESSES, to=server.url)
    server.close()
    assert course.check("05-2", 5).right is False
    settled()
    assert answers(folder)[0].wrong == 0
    assert str(course.send_to_class({}, to=str(folder))).startswith("Sent")
    assert answers(folder)[0].wrong == 1


# What a class takes


def test_thirty_learners_at_once_who_each_send_twice(server, folder):
    begin = threading.Barrier(30)

    def send(number):
        begin.wait()
        for text in ("stays", "fills"):
            answer = Answer("otter", predictions={"default": Prediction(text, text)})
            body = msgspec.json.encode(answer)
            assert ask(server, "PUT", f"/class/{number:032x}", body) == (200, "kept")

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(send, range(30)))
    assert len(list(folder.iterdir())) == 30
    page = str(course.room_predictions(folder))
    assert "nothing set (default): 30 of 30 learners" in page
    assert re.search(r"^fills  █+ 30  █+ 30$", page, re.MULTILINE)
    assert "stays" not in page


BAD = {
    "not JSON": b"{",
    "not an object": b"[]",
    "not UTF-8": b'{"name": "\xff"}',
    "nested": b'{"name": ' * 5000,
    "no name": b"{}",
    "empty name": encoded(name=""),
    "long name": encoded(name="x" * 25),
    "escape sequence": encoded(name="\x1b[2J"),
    "line break": encoded(ready="ready\nadmin"),
    "another field": encoded(admin=True),
    "unknown boot": encoded(predictions={"defualt": {"partition": "1G", "filesystem": "1G"}}),
    "no size": encoded(predictions={"default": {"partition": "<b>", "filesystem": "1G"}}),
    "half": encoded(predictions={"default": {"partition": "1G"}}),
    "huge size": encoded(predictions={"default": {"partition": "2P", "filesystem": "1G"}}),
    "many digits": encoded(predictions={"default": {"partition": "9" * 6000 + "G", "filesystem": "1G"}}),
    "negative": encoded(predictions={"default": {"partition": "-3G", "filesystem": "1G"}}),
    "exercise": encoded(passed=["05-1\n"]),
    "many exercises": encoded(passed=["05-1"] * 101),
    "wrong": encoded(wrong=-1),
    "too long": encoded() + b" " * MOST_ANSWER_BYTES,
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_answers_are_refused_in_words_and_leave_no_file(case, server, folder):
    with pytest.raises((UsageError, ParseError)) as caught:
        keep_answer(folder, LEARNER, BAD[case])
    assert 20 < len(caught.value.message) < 300
    assert caught.value.message.isprintable()
    if len(BAD[case]) <= MOST_ANSWER_BYTES:
        status, said = ask(server, "PUT", f"/class/{LEARNER}", BAD[case])
        assert (status, said) == (400, caught.value.message)
    assert list(folder.iterdir()) == []


def test_a_mistyped_boot_gets_a_suggestion(folder):
    with pytest.raises(UsageError, match="Did you mean default"):
        course.send_to_class({"defualt": Prediction("1G", "1G")}, to=str(folder))


def test_longer_answers_are_not_even_read(server, folder):
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        head = f"PUT /class/{LEARNER} HTTP/1.1\r\nHost: x\r\nContent-Length: {MOST_ANSWER_BYTES + 1}\r\n\r\n"
        client.sendall(head.encode())
        assert b"400" in client.recv(100)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    ["/class/", "/class/x", f"/class/{LEARNER}.json", f"/class/../{LEARNER}", "/class/%2e%2e%2f" + LEARNER,
     f"/class/{LEARNER.upper().replace('7', 'F')}", f"/class/{LEARNER}%0a"],
)  # fmt: skip
def test_answers_go_nowhere_else(path, server, folder):
    assert ask(server, "PUT", path, encoded())[0] == 404
    assert list(folder.parent.rglob("*7*")) == []


def test_the_server_shows_nobodys_answer(server, folder):
    keep_answer(folder, LEARNER, encoded())
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert ask(server, method, f"/class/{LEARNER}", encoded())[0] == 405
    # Before a page of another site may send a PUT, its browser asks.
    assert ask(server, "OPTIONS", f"/class/{LEARNER}", headers={"Origin": "http://x"})[0] == 405
    assert len(answers(folder)) == 1


def test_a_full_class_still_takes_new_answers_of_its_learners(server, folder, monkeypatch):
    monkeypatch.setattr(classroom, "MOST_LEARNERS", 2)
    for number in (1, 2, 2):
        keep_answer(folder, f"{number:032x}", encoded())
    assert ask(server, "PUT", f"/class/{LEARNER}", encoded()) == (
        503,
        "The class is full: it has 2 answers.",
    )
    assert len(answers(folder)) == 2


def test_an_answer_that_cannot_be_written_keeps_the_old_one(folder, monkeypatch):
    keep_answer(folder, LEARNER, encoded(name="old"))
    monkeypatch.setattr("pathlib.Path.write_bytes", _disk_full)
    with pytest.raises(CloudlabError, match="No space left"):
        keep_answer(folder, LEARNER, encoded(name="new"))
    assert [answer.name for answer in answers(folder)] == ["old"]


def _disk_full(path, data):
    with path.open("wb") as stream:
        stream.write(data[:5])
    raise OSError(28, "No space left on device")


# What the instructor sees


def test_without_a_class_the_instructor_learns_how_to_begin_one(tmp_path):
    for show in (course.room_predictions, course.room_board):
        with pytest.raises(UsageError, match="no class") as caught:
            show()
        assert "cloudlab share --class" in caught.value.hint
        with pytest.raises(UsageError, match="There is no folder"):
            show(tmp_path / "none")


def test_sizes_alike_are_one_bar_in_the_order_of_sizes(folder):
    texts = ["20G", "fills", "20 GiB", "1.5G", "20480M", "stays", "900M", ""]
    for number, text in enumerate(texts):
        one = {"default": {"partition": text, "filesystem": text}}
        keep_answer(folder, f"{number:032x}", encoded(predictions=one))
    page = str(course.room_predictions(folder))
    assert "(default): 7 of 8 learners" in page
    bars = re.findall(r"^(\S+)  (█+) (\d)  \2 \3$", page, re.MULTILINE)
    assert [(size, int(n)) for size, _, n in bars] == [
        ("stays", 1), ("900M", 1), ("1.5G", 1), ("20G", 3), ("fills", 1),
    ]  # fmt: skip


def test_the_board_counts_exercises_and_shows_first_who_is_stuck(folder):
    keep_answer(folder, f"{1:032x}", encoded(name="a", passed=["00-1", "05-1", "05-1"]))
    keep_answer(folder, f"{2:032x}", encoded(name="b", passed=["05-1"], trying="05-3", wrong=3))
    keep_answer(folder, f"{3:032x}", encoded(name="c", trying="05-3", wrong=2))
    lines = str(course.room_board(folder)).splitlines()
    assert "00  1  0  0" in lines
    assert "05  2  0  0" in lines
    rows = lines[lines.index("Learners") + 2 :]
    assert [row.split()[0] for row in rows] == ["b", "c", "a"]
    assert "stuck at 05-3" in rows[0]
    assert "stuck" not in rows[1]


def test_names_alike_stay_apart_and_are_never_markup(folder):
    for number in (1 << 124, 2 << 124):
        keep_answer(folder, f"{number:032x}", encoded(name="<b>Anna</b>"))
    page = course.room_board(folder)
    assert "<b>Anna</b> (1000)" in str(page)
    assert "<b>Anna</b> (2000)" in str(page)
    assert "<b>" not in page._repr_html_()


def test_what_is_no_answer_in_a_shared_folder_is_named_and_left_out(folder, tmp_path):
    keep_answer(folder, LEARNER, encoded())
    (folder / "junk.json").write_text("<script>")
    (folder / "long.json").write_bytes(b" " * (MOST_ANSWER_BYTES + 1))
    (folder / "link.json").symlink_to(folder / f"{LEARNER}.json")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    (folder / ".half.json.part").write_text("{")
    page = str(course.room_board(folder))
    assert "learners: 1" in page
    left_out = re.findall(r"^(\w+)\.json was left out: ", page, re.MULTILINE)
    assert left_out == ["folder", "junk", "link", "long", "pipe"]


def test_exercises_that_the_course_does_not_have_do_not_count(folder):
    keep_answer(folder, LEARNER, encoded(name="a", passed=["00-1", "99-9"]))
    assert board(folder)["a"].passed == ["00-1"]


def test_an_answer_is_not_written_through_a_link(folder, tmp_path):
    (tmp_path / "other").write_text("the instructor's")
    (folder / f"{LEARNER}.json").symlink_to(tmp_path / "other")
    with pytest.raises(CloudlabError, match="symbolic link"):
        keep_answer(folder, LEARNER, encoded())
    assert (tmp_path / "other").read_text() == "the instructor's"


# Whether a file was edited


def board(folder):
    learners, _ = classroom.read_class(folder)
    return {one.name: one for one in learners}


@pytest.mark.parametrize("way", ["server", "folder"])
def test_what_a_learner_sent_is_unchanged_until_it_is_edited(way, server, folder, learner):
    to = server.url if way == "server" else str(folder)
    course.send_to_class(GUESSES, name="Zoë", to=to)
    course.check("05-2", 5)
    settled()
    assert board(folder)["Zoë"].file == "unchanged"
    [path] = folder.iterdir()
    edited = json.loads(path.read_text()) | {"passed": ["05-1"]}
    path.write_text(json.dumps(edited))
    assert board(folder)["Zoë"].file == "edited"
    assert board(folder)["Zoë"].passed == ["05-1"]
    edited["sha256"] = ""
    path.write_text(json.dumps(edited))
    assert board(folder)["Zoë"].file == "not verified"


def test_a_file_that_was_only_laid_out_anew_is_unchanged(folder):
    course.send_to_class(GUESSES, name="me", to=str(folder))
    [path] = folder.iterdir()
    found = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(found.items())), indent=2))
    assert board(folder)["me"].file == "unchanged"


def test_another_learners_file_under_ones_own_number_counts_as_edited(folder):
    course.send_to_class(GUESSES, name="me", to=str(folder))
    [path] = folder.iterdir()
    (folder / f"{LEARNER}.json").write_bytes(path.read_bytes())
    assert sorted(one.file for one in classroom.read_class(folder)[0]) == ["edited", "unchanged"]


def test_an_edited_list_of_passed_exercises_is_not_verified(folder, learner):
    course.send_to_class(GUESSES, name="me", to=str(folder))
    (learner / "runs" / "progress.json").write_text('["05-1"]')
    course.send_to_class(GUESSES, to=str(folder))
    assert board(folder)["me"].passed == ["05-1"]
    assert board(folder)["me"].file == "not verified"


def test_an_edited_copy_of_the_answer_is_noticed_when_it_is_sent(folder, learner):
    course.send_to_class(GUESSES, name="me", to=str(folder))
    path = learner / "runs" / "class.json"
    path.write_text(path.read_text().replace('"19.9G"', '"19.8G"'))
    classroom._send_again(path)
    assert board(folder)["me"].file == "edited"


def test_files_of_earlier_versions_are_shown_and_not_verified(folder):
    (folder / f"{LEARNER}.json").write_text(
        '{"name":"old","ready":"","predictions":{},"passed":["05-1"],"trying":null,"wrong":0}'
    )
    assert board(folder)["old"].file == "not verified"
    assert board(folder)["old"].passed == ["05-1"]


# The commands


@pytest.fixture
def room(folder):
    """A class of four: one is stuck, and one would like to run something in a spreadsheet."""
    sent = {
        1: encoded(name="Zoë", passed=["00-1", "05-1", "05-1"], ready="ready: live under TCG"),
        2: encoded(name="b" * 24, passed=["05-1"], trying="05-3", wrong=3),
        3: encoded(name='=HYPERLINK("x")', trying="05-3", wrong=2),
        4: encoded(name="b" * 24, ready='a, "b"'),
    }
    for number, data in sent.items():
        keep_answer(folder, f"{number << 124:032x}", data)
    os.utime(folder / f"{1 << 124:032x}.json", (86400, 86400))
    return folder


def test_class_shows_the_board_whole_within_80_columns(room):
    done = cloudlab("class", room)
    assert done.returncode == 0
    head, *rows = done.stdout.splitlines()
    assert re.split("  +", head) == ["learner", "passed", "stuck at", "last change", "file"]
    cells = [re.split("  +", row) for row in rows]
    assert re.fullmatch(r"\d{5} days ago", cells[2].pop(2))
    assert cells == [
        ["b" * 24 + " (2000)", "1/30", "05-3", "0 min ago", "not verified"],
        ['=HYPERLINK("x")', "0/30", "0 min ago", "not verified"],
        ["Zoë", "2/30", "not verified"],
        ["b" * 24 + " (4000)", "0/30", "0 min ago", "not verified"],
    ]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_class_writes_all_that_is_known_as_csv(room, tmp_path):
    done = cloudlab("class", room, "--csv", tmp_path / "results.csv")
    assert "Zoë" in done.stdout
    assert f"Wrote {tmp_path / 'results.csv'}." in done.stderr
    text = (tmp_path / "results.csv").read_text(encoding="utf-8")
    rows = {row["learner"]: row for row in csv.DictReader(io.StringIO(text))}
    assert list(rows) == ["b" * 24 + " (2000)", '\'=HYPERLINK("x")', "Zoë", "b" * 24 + " (4000)"]
    assert rows["Zoë"] == {
        "learner": "Zoë",
        "passed": "2",
        "stuck_at": "",
        "trying": "",
        "wrong_answers": "0",
        "last_change": "1970-01-02T00:00:00+00:00",
        "file": "not verified",
        "exercises": "00-1 05-1",
        "machine_check": "ready: live under TCG",
    }
    assert rows["b" * 24 + " (2000)"]["stuck_at"] == "05-3"
    assert rows["b" * 24 + " (4000)"]["machine_check"] == 'a, "b"'
    piped = cloudlab("class", room, "--csv", "-")
    assert (piped.stdout, piped.stderr) == (text, "")


def test_class_prints_json_and_names_what_it_left_out(room):
    (room / "junk.json").write_text("<script>")
    done = cloudlab("class", room, "--json")
    found = json.loads(done.stdout)
    assert [one["learner"] for one in found["learners"]][2] == "Zoë"
    assert found["learners"][2]["exercises"] == ["00-1", "05-1"]
    [left_out] = found["left_out"]
    assert left_out.startswith("junk.json was left out: ")
    assert left_out in done.stderr


def test_class_without_answers_or_a_folder_says_so(folder, tmp_path):
    done = cloudlab("class", folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert "No answer" in done.stderr
    done = cloudlab("class", tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no folder" in done.stderr
    assert cloudlab("class", folder, "--csv", "-", "--json").returncode == 2


def test_share_collects_a_class_until_interrupted(own_cache, tmp_path):
    argv = [
        sys.executable,
        "-m",
        "cloudlab",
        "share",
        "--address",
        "127.0.0.1",
        "--class",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        text = "".join(lines)
        [mirror, url] = re.findall(r"CLOUDLAB_(?:MIRROR|CLASS)=(\S+)", text)
        assert mirror == url
        assert "course.room_predictions()" in text
        assert "\n  cloudlab class\n" in text
        env = {**os.environ, "CLOUDLAB_CLASS": url}
        code = "from cloudlab import course; print(course.send_to_class({}, name='me'))"
        learner = [sys.executable, "-c", code]
        said = subprocess.run(
            learner, env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert said.stdout.startswith(f"Sent to {url} as me")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 130
    assert "me  0" in str(course.room_board())
    [day] = (own_cache / "class").iterdir()
    assert day.stat().st_mode & 0o777 == 0o700


def test_the_page_of_the_mirror_names_the_class_only_if_there_is_one(server, tmp_path):
    assert f"CLOUDLAB_CLASS={server.url}" in ask(server, "GET", "/")[1]
    with ShareServer(address="127.0.0.1", port=0, folder=tmp_path) as mirror:
        assert "CLOUDLAB_CLASS" not in ask(mirror, "GET", "/")[1]


@pytest.mark.vm
def test_the_machine_check_ends_with_one_line_to_read_out():
    lines = str(course.machine_check()).splitlines()
    assert re.match(
        r"ready: recordings only, because CLOUDLAB_MODE asks for recordings; ", lines[-1]
    )
    assert "ready:" not in str(course.machine_check(course.BROKEN_HOST))


@pytest.mark.vm
def test_doctor_prints_the_line_too(capfd):
    main(["doctor"])
    assert re.search(r"^ready: recordings only, because ", capfd.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("wish", "problem", "images", "line"),
    [
        ("", "", ["lab"], "ready: live under TCG, image lab"),
        ("", "no QEMU", [], "ready: recordings only, because no QEMU; no image is in the cache"),
        ("", "no QEMU", ["lab"], "ready: recordings only, because no QEMU; image lab"),
        ("replay", "", ["lab"], "ready: recordings only, because CLOUDLAB_MODE asks for recordings; image lab"),
        ("", "no image is in the cache", [], "ready: recordings only, because no image is in the cache"),
        ("sometimes", "", [], "not ready: CLOUDLAB_MODE is 'sometimes'; expected live, replay or auto."),
    ],
)  # fmt: skip
def test_the_line_says_what_runs_and_whether_an_image_is_there(
    monkeypatch, wish, problem, images, line
):
    class Image:
        name = "lab"

    class Tcg:
        accel = "tcg"

    monkeypatch.setenv("CLOUDLAB_MODE", wish)
    monkeypatch.setattr(runs, "live_problem", lambda: problem)
    monkeypatch.setattr(runs, "_image", lambda: Image if images else None)
    monkeypatch.setattr(runs, "choose_accel", lambda _arch: Tcg)
    assert runs.ready_line() == line

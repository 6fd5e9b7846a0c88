"""How far a transfer is: the values, the words, and what a notebook shows of them."""

import pytest
from faulty_server import FaultyServer, cut
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from cloudlab.course import fetch
from cloudlab.course.runs import FetchView
from cloudlab.errors import ImageError
from cloudlab.image.web import FetchProgress, Transfer

MIB = 1 << 20
DISK = bytes(510) + b"\x55\xaa" + bytes(3 * MIB)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def watched(steps, total_bytes=10 * MIB):
    """Return the events for (seconds from the last step, bytes that are there)."""
    seen, clock = [], Clock()
    transfer = Transfer("x", seen.append, clock=clock)
    transfer.total_bytes = total_bytes
    for passed_s, done_bytes in steps:
        clock.now_s += passed_s
        transfer.show(done_bytes)
    return seen


def test_rate_and_time_left():
    seen = watched([(0, 0), (1, MIB), (1, 2 * MIB), (2, 8 * MIB)])
    assert [one.rate for one in seen] == [0, MIB, MIB, 2 * MIB]
    assert [one.left_s for one in seen] == [None, 9, 8, 1]


def test_what_an_earlier_call_had_kept_counts_for_no_rate():
    first, second = watched([(0, 8 * MIB), (1, 9 * MIB)])
    assert (first.rate, first.left_s) == (0, None)
    assert (second.rate, second.left_s) == (MIB, 1)


def test_starting_over_starts_the_rate_over():
    *_, last, after = watched([(0, 0), (1, 5 * MIB), (1, 0), (1, MIB)])
    assert (last.rate, last.left_s) == (0, None)
    assert (after.rate, after.left_s) == (MIB, 9)


def test_a_rate_is_that_of_the_last_seconds():
    steps = [(0.125, n * MIB) for n in range(50)] + [(0.125, (50 + 2 * n) * MIB) for n in range(60)]
    assert watched(steps)[-1].rate == pytest.approx(16 * MIB)


def test_without_a_length_nothing_is_said_of_the_time_left():
    assert watched([(0, 0), (1, MIB)], total_bytes=None)[-1].left_s is None


def test_a_file_longer_than_was_said_has_no_time_left():
    assert watched([(0, 0), (1, 11 * MIB)])[-1].left_s == 0


def test_news_come_ten_times_a_second_at_most():
    assert len(watched([(0.01, n) for n in range(100)])) == 10


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "1.0 MiB of 10.0 MiB, 2.0 MiB/s, 4 s left"),
        ({"total_bytes": None, "left_s": None}, "1.0 MiB, 2.0 MiB/s"),
        (
            {"waiting_for_other": True},
            "another process fetches it: 1.0 MiB of 10.0 MiB, 2.0 MiB/s, 4 s left",
        ),
        ({"note": "trying again in 1 s"}, "trying again in 1 s"),
    ],
    ids=["usual", "no length", "waiting", "note"],
)
def test_the_words(more, words):
    values = {"done_bytes": MIB, "total_bytes": 10 * MIB, "rate": 2.0 * MIB, "left_s": 4.4, **more}
    assert FetchProgress("x", **values).words() == words


# In a notebook


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A real IPython shell, and what its cells display."""
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # Without a history, whose file would be closed when its folder is long gone.
    InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    yield lambda: capture_output(stdout=False, stderr=False)
    InteractiveShell.clear_instance()


def test_a_notebook_shows_a_bar_that_moves_and_leaves_one_line(notebook):
    with FaultyServer() as server, notebook() as shown:
        server.fail("/x.img", cut(MIB))
        image = fetch(server.put("/x.img", DISK))
        assert fetch(image.name) == image
    pages = [one.data["text/html"] for one in shown.outputs]
    assert f'value="{MIB}" max="{len(DISK)}"' in "".join(pages)
    assert f'value="{len(DISK)}" max="{len(DISK)}"' in pages[-2]
    assert "MiB/s" in pages[-2]
    assert "<progress" not in pages[-1]
    assert f"unverified, SHA-256 {image.sha256}" in pages[-1]
    assert [one.update for one in shown.outputs] == [False] + [True] * (len(pages) - 1)


def test_a_notebook_says_what_did_not_come(notebook):
    with FaultyServer() as server, notebook() as shown:
        url = server.put("/x.img", b"<html>Log in</html>")
        with pytest.raises(ImageError, match="a web page"):
            fetch(url)
    assert "not fetched" in shown.outputs[-1].data["text/html"]


def test_what_a_server_says_is_only_text(notebook):
    with notebook() as shown:
        view = FetchView()
        view(FetchProgress('<b>"x', 1, 2, 1.0, None, note="<script>\x1b[31m"))
    [page] = shown.outputs
    assert "<script>" not in page.data["text/html"]
    assert "<b>" not in page.data["text/html"]
    assert "\x1b" not in page.data["text/html"] + page.data["text/plain"]

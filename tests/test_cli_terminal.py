"""What the commands show on a terminal."""

import io
import json
import re
from argparse import Namespace

import pytest
from faulty_server import FaultyServer
from rich.cells import cell_len
from rich.console import Console

from cloudlab.cli import images, terminal
from cloudlab.console import Stage
from cloudlab.image.web import FetchProgress
from cloudlab.run.monitor import RunEvent


@pytest.fixture
def screen(monkeypatch):
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, width=100, highlight=False, markup=False, emoji=False
    )
    monkeypatch.setattr(terminal, "ERR", console)
    return out


def news(**more):
    return FetchProgress(
        **{"name": "x", "done_bytes": 1, "total_bytes": 2, "rate": 1.0, "left_s": None, **more}
    )


def test_a_download_shows_names_and_notes_as_they_are(screen):
    with terminal.fetch_view() as show:
        show(news(name="[bold]x", note="[red]no\x1b]0;title\x07 such [/nonsense] file"))
    said = screen.getvalue()
    assert "[bold]x" in said
    assert "[red]no such [/nonsense] file" in said
    assert "\x1b]0;" not in said


def test_the_download_is_off_the_screen_before_a_build_is_on_it(screen, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDLAB_CACHE", str(tmp_path / "cache"))
    with FaultyServer() as gone:
        url = gone.url
    entry = {"title": "X", "arch": {"amd64": "a", "arm64": "b"}, "url": url, "format": "qcow2"}
    known = tmp_path / "own.yaml"
    known.write_text(json.dumps({"default": "x", "images": {"x": entry}}))
    monkeypatch.setenv("CLOUDLAB_CATALOGUE", str(known))
    lives = []

    class BuiltError(Exception):
        pass

    def build_image(**_):
        lives.append(len(getattr(terminal.ERR, "_live_stack", "?")))
        raise BuiltError

    monkeypatch.setattr(images, "build_image", build_image)
    with pytest.raises(BuiltError):
        images.image_for(Namespace(image="auto", arch=None, mirror=None))
    assert lives == [1]


ROWS = [
    ["ubuntu-24.04-with-a-long-name", "amd64, arm64", "btrfs", "x" * 40, "word " * 12 + "end"],
    ["b", "amd64", "ext4", "", "[red]\x1b]0;title\x07short"],
]
HEAD = ("name", "for", "root", "file", "integrity")


def test_a_piped_table_is_plain_and_whole(capsys):
    terminal.print_table(HEAD, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(ROWS), "a line for each row"
    assert all(cell.strip() in lines[1] for cell in ROWS[0])
    assert lines == [line.rstrip() for line in lines]
    assert "\x1b" not in "".join(lines)
    assert "[red]" in lines[2]


def test_a_table_on_a_terminal_of_80_columns_loses_nothing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    terminal.print_table(HEAD, ROWS)
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    assert ROWS[0][0] in lines[1], "a name is on one line"
    assert "".join(lines).count("x") >= 40
    assert "…" not in "".join(lines)


def test_no_column_is_cut_off_beside_a_name_of_wide_characters(capsys, monkeypatch):
    name, cells = "漢字" * 12 + " (2000)", ["27/27", "05-3", "12345 days ago", "not verified"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    terminal.print_table(("learner", "passed", "stuck at", "last change", "file"), [[name, *cells]])
    shown = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert max(map(cell_len, shown)) <= 80
    assert all(cell in shown[1] for cell in cells)
    assert shown[1].split()[0] + shown[2].strip() in {name, name.replace(" ", "")}


WAITS = "waiting for one of 10 slots for live boots; 3 boots wait before this one"


def test_a_boot_that_waits_says_how_many_are_before_it(monkeypatch):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    monkeypatch.setattr(terminal, "ERR", console)
    view = terminal.RunView()
    view(RunEvent("default", 0.0, Stage.FIRMWARE, note=WAITS))
    console.print(view._render())
    table, *below = out.getvalue().splitlines()
    assert "waiting" in table
    assert " ".join(line.strip() for line in below) == f"default: {WAITS}"
    out.truncate(0)
    view(RunEvent("default", 0.0, Stage.FIRMWARE, note="launched"))
    console.print(view._render())
    assert "waiting" not in out.getvalue()


def test_elsewhere_than_on_a_terminal_each_change_of_its_place_is_a_line(capsys):
    view = terminal.RunView()
    for note in (WAITS, WAITS.replace("3 boots wait", "1 boot waits")):
        view(RunEvent("default", 0.0, Stage.FIRMWARE, note=note))
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        WAITS,
        WAITS.replace("3 boots wait", "1 boot waits"),
    ]

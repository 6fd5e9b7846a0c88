"""A run folder that was damaged or tampered with: a clear error or a clean page, no traceback."""

import contextlib
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from examples import examples, few_pairs
from hypothesis import given
from hypothesis import strategies as st

from cloudlab import figures
from cloudlab.cli import main
from cloudlab.errors import CloudlabError, RecordingError
from cloudlab.run.display import save_demo
from cloudlab.run.value import Run, compare, compare_options, recorded
from cloudlab.seed import SeedConfig, to_user_data
from cloudlab.widgets import DiskMap, Scrubber
from cloudlab.widgets.boot import replay_events
from cloudlab.widgets.results import Finished, export, history_html, nearest, playable, result_html

FILES = [
    "run.json", "sizes.csv", "extents.csv", "console.log", "console.cast", "user-data", "meta-data",
]  # fmt: skip

#: Everything that reads a run, but for figures, which take longer.
READERS = {
    "text": lambda run, _: (run.label, run.took, repr(run), run.user_data, run.meta_data),
    "sizes": lambda run, _: (run.sizes, run.root_sizes("after"), compare(run)),
    "options": lambda run, _: compare_options(run),
    "stages": lambda run, _: run.stages,
    "extents": lambda run, _: run.extents,
    "modules": lambda run, _: run.modules,
    "console": lambda run, _: (run.console._repr_html_(), run.logs, run.tool_output("after")),
    "explain": lambda run, _: run.explain().to_html(),
    "replay": lambda run, _: list(replay_events(run)),
    "nearest": lambda run, _: nearest(
        playable([run]), user_data=to_user_data(SeedConfig()), image="x", disk_size_bytes=1 << 30
    ),
    "image": lambda run, _: run.layout("image"),
    "after": lambda run, _: run.layout("after"),
    "disk map": lambda run, _: DiskMap(run)._repr_html_(),
}
#: The most that is drawn of one run at a time, in a notebook.
PANELS = {
    "panel": lambda run, _: result_html(Finished(run)),
    "scrubber": lambda run, _: Scrubber(run),
}
DRAWERS = {
    "display": lambda run, _: run._repr_html_(),
    "report": lambda run, tmp: run.save_report(tmp / "report.html"),
    "demo": lambda run, tmp: save_demo([run], tmp),
    "panels": lambda run, _: history_html([Finished(run), Finished(run)]),
    "export": lambda run, tmp: export(Finished(run), tmp / "exports"),
    **{
        f"figure {kind}": lambda run, _, kind=kind: run.plot(kind).to_html()
        for kind, found in figures.KINDS.items()
        if "predictions" not in found.tables
    },
}


def copied(folder, name="default"):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(recorded(name).folder, folder)
    return folder


def use(folder, readers, place):
    """Read a run in every way; only errors that cloudlab raises on purpose may come out."""
    with contextlib.suppress(CloudlabError):
        run = Run(folder)
        for read in readers.values():
            with contextlib.suppress(CloudlabError):
                read(run, place)


CONTENTS = {
    "empty": b"",
    "a line": b"x\n",
    "binary": bytes(range(256)) * 8,
    "null": b"null",
    "an object": b"{}",
    "a header alone": b"run,scenario,stage,time_s,layer,device,mountpoint,size_bytes\n",
    "extents alone": b"run,start_bytes,length_bytes,kind,region\n",
    "extents of text": b"run,start_bytes,length_bytes,kind,region\nr,a,b,c,d\n",
    "a cast without events": b'{"version": 2}\n',
    "nested": b"[" * 100_000,
}


@pytest.mark.parametrize(("name", "content"), few_pairs(FILES, CONTENTS, 4))
def test_a_file_with_another_content(tmp_path, name, content):
    folder = copied(tmp_path / "run")
    (folder / name).write_bytes(CONTENTS[content])
    use(folder, READERS, tmp_path)


@pytest.mark.parametrize(("name", "instead"), few_pairs(FILES, ["nothing", "a folder"], 2))
def test_a_file_that_is_missing_or_a_folder(tmp_path, name, instead):
    folder = copied(tmp_path / "run")
    (folder / name).unlink()
    if instead == "a folder":
        (folder / name).mkdir()
    use(folder, READERS | PANELS, tmp_path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@examples(40)
@given(st.sampled_from(FILES), st.data())
def test_bytes_that_were_changed(scratch, name, data):
    folder = copied(scratch / "run", "growpart-off")
    content = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    (folder / name).write_bytes(content)
    use(folder, READERS, scratch)


NUMBERS = [0, -1, 1, 1 << 62, -(1 << 62), "NaN", "inf", "1e300", "", "x", "0.5"]


@pytest.mark.slow
@examples(6)
@given(st.sampled_from(["sizes.csv", "extents.csv"]), st.data())
def test_cells_that_were_changed(scratch, name, data):
    folder = copied(scratch / "run", "growpart-off")
    head, *lines = [line.split(",") for line in (folder / name).read_text().splitlines()]
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.sampled_from(lines))
        row[data.draw(st.integers(0, len(head) - 1))] = str(data.draw(st.sampled_from(NUMBERS)))
    (folder / name).write_text("\n".join(",".join(line) for line in [head, *lines]) + "\n")
    use(folder, READERS | PANELS | DRAWERS, scratch)


EDGES = {
    "no time": {"time_s": None, "took_s": None},
    "no stages": {"stages": []},
    "one stage twice": {"stages": [{"stage": "kernel", "start_s": 5, "end_s": 1}] * 2},
    "no disk": {"disk": None, "disk_before": None},
    "no options": {"options": {}, "image": {}, "start": {}, "accelerator": {}, "versions": {}},
    "no name": {"name": "", "scenario": "", "started": ""},
    "largest numbers": {"time_s": 1e9 - 1, "overlay": {"start_bytes": (1 << 63) - 1}},
    "an error of the disk": {"disk": {"error": "it was gone"}},
}


@pytest.mark.parametrize("change", EDGES.values(), ids=EDGES)
def test_a_record_that_lacks_what_most_have(tmp_path, change):
    folder = copied(tmp_path / "run")
    about = json.loads((folder / "run.json").read_bytes())
    (folder / "run.json").write_text(json.dumps(about | change))
    Run(folder)
    use(folder, READERS | PANELS, tmp_path)


EVENTS = {
    "none": [],
    "one": ['[1.5, "o", "all of it, without an end of line"]'],
    "one at the start": ['[0, "o", "x"]'],
    "one late": ['[900.0, "o", "x\\r\\n"]'],
    "one typed": ['[1, "i", "x"]'],
}


@pytest.mark.parametrize(("events", "time"), few_pairs(EVENTS, ["timed", "without a time"], 2))
def test_scrubbing_through_a_cast_of_few_events(tmp_path, events, time):
    folder = copied(tmp_path / "run")
    cast = ['{"version": 2}', *EVENTS[events]]
    (folder / "console.cast").write_text("\n".join(cast) + "\n")
    (folder / "console.log").write_text("x")
    if time == "without a time":
        about = json.loads((folder / "run.json").read_bytes())
        (folder / "run.json").write_text(json.dumps(about | {"time_s": None}))
    scrubber = Scrubber(folder)
    last = scrubber._changes[-1]
    for _ in range(len(scrubber._changes)):
        scrubber._leap(+1)
    assert last == scrubber.time_s <= max(one.get("max", 0) for one in scrubber.slider.fields)


def test_scrubbing_where_nothing_was_written_or_measured(tmp_path):
    folder = copied(tmp_path / "run", "no-seed")
    (folder / "console.cast").write_text('{"version": 2}\n')
    (folder / "console.log").write_bytes(b"")
    scrubber = Scrubber(folder)
    scrubber.time_s = 1.0
    assert "1.0 s" in scrubber._moment.html


HOSTILE = "\x01\x1b]0;title\x07<b>&\ufffe\u202ename"


def test_names_with_control_characters_make_valid_xml(tmp_path):
    folder = copied(tmp_path / "run")
    about = json.loads((folder / "run.json").read_bytes())
    about["name"] = about["scenario"] = about["image"]["name"] = HOSTILE
    (folder / "run.json").write_text(json.dumps(about))
    table = (folder / "sizes.csv").read_text().replace("default,default,", f"x,{HOSTILE},")
    (folder / "sizes.csv").write_text(table.replace(",/boot/efi,", f",/boot{HOSTILE},"))
    run = Run(folder)
    assert run.scenario == "<b>&name"
    for kind, found in figures.KINDS.items():
        if "predictions" in found.tables:
            continue
        path = run.plot(kind).save(tmp_path / f"{kind}.svg")
        text = "".join(ET.fromstring(path.read_text("utf-8")).itertext())
        assert "title\x07" not in text
        assert text.isprintable() or not {"\x01", "\x1b", "\ufffe", "\u202e"} & set(text)
    page = run.save_report(tmp_path / "page.html").read_text("utf-8")
    assert not {"\x01", "\x1b", "\ufffe", "\u202e"} & set(page)
    assert "<b>&name" not in page


@pytest.mark.parametrize(
    ("command", "name"),
    few_pairs(
        ["explain", "explain --json", "replay", "parse", "figure"],
        ["run.json", "console.log", "console.cast", "sizes.csv"],
        2,
    ),
)
def test_a_command_says_what_is_wrong_with_a_folder(tmp_path, capsys, command, name):
    folder = copied(tmp_path / "run")
    (folder / name).write_bytes(b"\x00[")
    argv = [*command.split(), str(folder)]
    if command == "replay":
        argv += ["--speed", "1e6"]
    if command == "figure":
        argv += ["--kind", "timeline", "--output", str(tmp_path / "f.svg")]
    if command == "parse":
        argv[-1] = str(folder / name)
    said = main(argv)
    output = capsys.readouterr()
    assert said in (0, 1)
    assert "Traceback" not in output.err
    if said:
        assert output.err.strip()


@pytest.mark.parametrize("column", ["time_s", "size_bytes", "start_bytes", "line"])
@pytest.mark.parametrize("value", ["-1", str(1 << 62)])
def test_a_number_out_of_range_is_named(tmp_path, column, value):
    folder = copied(tmp_path / "run")
    table = pd.read_csv(folder / "sizes.csv", dtype="string")
    table.loc[table[column].notna().idxmax(), column] = value
    table.to_csv(folder / "sizes.csv", index=False)
    with pytest.raises(RecordingError, match=rf"sizes\.csv: {column} is .*out of range"):
        _ = Run(folder).sizes


@pytest.mark.parametrize("column", ["layer", "size_bytes", "exact", "source"])
def test_a_value_that_must_be_there_is_missed(tmp_path, column):
    folder = copied(tmp_path / "run")
    table = pd.read_csv(folder / "sizes.csv", dtype="string")
    table.loc[2, column] = pd.NA
    table.to_csv(folder / "sizes.csv", index=False)
    with pytest.raises(RecordingError, match=rf"sizes\.csv: {column} is missing in 1 rows"):
        _ = Run(folder).sizes


def test_an_open_run_says_which_file_is_damaged(tmp_path):
    folder = copied(tmp_path / "run")
    (folder / "extents.csv").write_text("run,start_bytes,length_bytes,kind,region\nr,0,-1,data,1\n")
    with pytest.raises(RecordingError, match=r"extents\.csv") as caught:
        _ = Run(Path(folder)).extents
    assert caught.value.hint

"""``import cloudlab`` is enough for a notebook, and costs nothing until a name is used."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cloudlab
from cloudlab import course
from cloudlab.errors import CloudlabError, ParseError, UsageError


def test_at_most_30_names_and_each_can_be_had():
    assert len(cloudlab.__all__) <= 30
    assert cloudlab.__all__ == sorted(cloudlab.__all__)
    assert set(cloudlab.__all__) == set(cloudlab._HOMES)
    assert set(cloudlab.__all__) <= set(dir(cloudlab))


def test_each_name_is_documented_and_always_the_same():
    for name in cloudlab.__all__:
        value = getattr(cloudlab, name)
        assert value.__doc__, name
        assert value is getattr(cloudlab, name), name


def test_each_name_of_the_course_can_be_had():
    for name in course._HOMES:
        assert getattr(course, name) is not None, name
    assert course._HOMES.keys() <= set(dir(course))


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'boots'"):
        _ = cloudlab.boots


def loaded_by(code):
    """Return the modules that a fresh interpreter holds after some code."""
    script = f"import json, sys; {code}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    return set(json.loads(done.stdout))


def test_importing_loads_no_room_and_no_library():
    before, after = loaded_by("pass"), loaded_by("import cloudlab")
    assert {name for name in after if name.startswith("cloudlab")} == {"cloudlab"}
    new = {name.partition(".")[0] for name in after - before}
    assert not new - set(sys.stdlib_module_names) - {"cloudlab"}


def test_a_recording_is_opened_without_pandas_and_matplotlib():
    modules = loaded_by("import cloudlab; cloudlab.recorded('default').label")
    assert not {"pandas", "matplotlib", "ipywidgets", "rich"} & modules


RUN = cloudlab.recorded("default")
#: What people give by mistake -> what is said of it, and what would help.
WRONG = {
    "boot a run's options": (lambda: cloudlab.boot(RUN.options), "Options cannot be Recorded", "make_op"),
    "boot a name": (lambda: cloudlab.boot("default"), "Options cannot be 'default'", "by its name"),
    "boot a number": (lambda: cloudlab.boot(image=3), "image cannot be 3", "a name, a path or a URL"),
    "boot nothing": (lambda: cloudlab.boot(image=None), "image cannot be None", "a name"),
    "boot no pairs": (lambda: cloudlab.boot_many([RUN.options]), "cannot be booted", "pairs"),
    "boot one": (lambda: cloudlab.boot_many(RUN.options), "cannot be booted", "pairs"),
    "boot -1 at a time": (lambda: cloudlab.boot_many([], parallel=-1), "-1 machines", "1 or more"),
    "boot two at a time": (lambda: cloudlab.boot_many([], parallel="2"), "'2' machines", "1 or more"),
    "sweep nowhere": (lambda: cloudlab.sweep(3, cpus=[1]), "3 is no path", "path"),
    "sweep at none": (lambda: cloudlab.sweep(parallel=0, cpus=[1]), "0 machines", "1 or more"),
    "predict a run": (lambda: cloudlab.predict(RUN), "Options cannot be", "make_options"),
    "image tuple": (lambda: cloudlab.choose_image(("x", "why")), "image cannot be", "a name"),
    "fetch a file": (lambda: cloudlab.fetch(RUN.folder), "nothing to fetch by", "choose_image"),
    "no option": (lambda: cloudlab.make_options(disksize="4G"), "'disksize'", "disk_size"),
    "seed": (lambda: cloudlab.make_options(seed=cloudlab.SeedConfig()), "'seed'", "Options:"),
    "size twice": (
        lambda: cloudlab.make_options(disk_size="20G", disk_size_bytes=1 << 30),
        "Both disk_size", "Leave one out",
    ),
    "options without image": (lambda: cloudlab.Options("auto"), "image cannot be 'auto'", "make_options"),
    "seed of commands": (lambda: cloudlab.SeedConfig(runcmd="uptime"), "runcmd has no value", "array"),
    "seed of options": (lambda: cloudlab.write_seed("x.iso", RUN.options), "of a seed", "SeedConfig"),
    "seed of a text": (lambda: cloudlab.write_seed("x.iso", "#cloud-config"), "of a seed", "user_data="),
    "seed of bytes": (lambda: cloudlab.write_seed("x.iso", user_data={}), "user_data has no", "str"),
    "open a number": (lambda: cloudlab.open_run(3), "3 is no path", "path"),
    "open nothing": (lambda: cloudlab.open_run(""), "'' is no path", "path"),
    "compare a list": (lambda: cloudlab.compare([RUN]), "is no path", "path"),
    "explain nothing": (lambda: cloudlab.explain(""), "nothing to explain", "a run"),
    "explain a list": (lambda: cloudlab.explain([RUN]), "nothing to explain in", "of its own"),
    "explain two runs": (lambda: cloudlab.explain("default", "growpart-off"), "2 runs", "compare"),
    "draw a name": (lambda: cloudlab.plot("layers", "default"), "'default' is no run", "open_run('def"),
    "draw names": (lambda: cloudlab.plot("scenarios", ["default"]), "is no run", "open_run"),
    "draw a number": (lambda: cloudlab.plot("layers", 3), "3 is no run", "Give a Run"),
    "draw nothing": (lambda: cloudlab.plot("scenarios", []), "No run", "Give a run"),
    "draw a pie": (lambda: cloudlab.plot("pie", RUN), "kind of figure 'pie'", "disk-map"),
    "draw on a style": (lambda: RUN.plot("layers", "dark"), "'dark' is not an Axes", 'style="dark"'),
    "draw a list": (lambda: cloudlab.plot([], RUN), "kind of figure []", "disk-map"),
    "parse a run": (lambda: cloudlab.parse(RUN), "A console log cannot be", "a path"),
    "parse lines": (lambda: cloudlab.parse(RUN.console), "A console log cannot be", "a path"),
    "inspect a run": (lambda: cloudlab.inspect(RUN), "is no path", "path"),
    "afterwards": (lambda: RUN.layout("afer"), "no moment 'afer'", "image, before, after"),
    "sizes afterwards": (lambda: RUN.root_sizes("image"), "no moment 'image'", "before, after"),
    "tools afterwards": (lambda: RUN.tool_output("afer"), "no moment 'afer'", "before, after"),
    "find nothing": (lambda: RUN.console.find(None), "None is no text", "text"),
    "fetch with a number": (lambda: cloudlab.fetch("debian-12-generic", checksum=3), "3 is not a", "sha256"),
    "fetch with none": (lambda: cloudlab.fetch("debian-12-generic", checksum=""), "'' is not a", "sha256"),
    "fetch nothing": (lambda: cloudlab.fetch(" "), "nothing to fetch by ' '", "a name or a URL"),
    "fetch for none": (lambda: cloudlab.fetch("debian-12-generic", arch=""), "architecture ''", "amd64"),
    "fetch of bytes": (lambda: cloudlab.fetch("x", mirror=b"m"), "not the address of a mirror", "share"),
    "sweep by a number": (lambda: cloudlab.sweep(cpus=[1], executor=3), "given to 3", "an Executor"),
    "sweep at most": (lambda: cloudlab.sweep(cpus=[1], most="2"), "most has no value '2'", "int"),
    "seed with NUL": (lambda: cloudlab.write_seed("a\0b"), "is no path", "path"),
    "boot into NUL": (lambda: cloudlab.sweep("a\0b", cpus=[1]), "is no path", "path"),
    "no text": (lambda: cloudlab.make_options(runcmd=["\udce9"]), "runcmd has no value", "codec"),
    "build for a number": (lambda: cloudlab.build(arch=3), "architecture 3", "amd64"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "said", "remedy"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_refused_with_a_remedy(call, said, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        call()
    assert said in caught.value.message
    assert remedy in caught.value.hint
    assert not list(tmp_path.iterdir())


#: What no parameter below accepts, in any of them.
NO_VALUES = [
    3, -1, float("nan"), b"x", " ", "", "a\0b", "a\udce9b", "x" * 5000, Path("x" * 5000), [1], {}, object(),
]  # fmt: skip
#: Parameters of public functions that take a text or a path.
TAKES_TEXT = {
    "fetch's checksum": lambda value: cloudlab.fetch("debian-12-generic", checksum=value),
    "fetch's mirror": lambda value: cloudlab.fetch("x", checksum="none", mirror=value),
    "inspect's path": cloudlab.inspect,
    "inspect's format": lambda value: cloudlab.inspect(__file__, value),
    "open_run's run": cloudlab.open_run,
    "recorded's name": cloudlab.recorded,
    "a runcmd": lambda value: cloudlab.make_options("nowhere.qcow2", runcmd=value),
    "write_seed's meta_data": lambda value: cloudlab.write_seed("no/s.iso", meta_data=value),
    "write_seed's user_data": lambda value: cloudlab.write_seed("no/s.iso", user_data=value),
}


@pytest.mark.parametrize("call", TAKES_TEXT.values(), ids=TAKES_TEXT)
def test_no_wrong_value_ends_in_an_error_of_python(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in NO_VALUES:
        with pytest.raises(CloudlabError):
            call(value)


def test_paths_are_taken_as_text_and_from_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(RUN.folder, tmp_path / "mine")
    assert cloudlab.open_run("~/mine").folder == tmp_path / "mine"
    assert RUN.save_report("~/page.html").is_file()
    assert cloudlab.explain("~/mine").statements == RUN.explain().statements
    told = cloudlab.explain("~/mine/console.log").statements
    assert [one.finding for one in told] == [one.finding for one in RUN.explain().statements]
    with pytest.raises(CloudlabError, match=str(tmp_path / "nowhere")):
        cloudlab.inspect("~/nowhere")
    # A run stays where it is, wherever the notebook goes.
    monkeypatch.chdir(tmp_path)
    run = cloudlab.open_run("mine")
    monkeypatch.chdir("/")
    assert not run.sizes.empty


def test_a_log_is_parsed_from_its_file(tmp_path):
    path = RUN.folder / "console.log"
    assert cloudlab.parse(path).blocks == RUN.parsed.blocks
    with pytest.raises(ParseError, match="is a file's name") as caught:
        cloudlab.parse(str(path))
    assert f"cloudlab.parse(Path({str(path)!r}))" in caught.value.hint
    with pytest.raises(ParseError, match="nowhere cannot be read"):
        cloudlab.parse(tmp_path / "nowhere")

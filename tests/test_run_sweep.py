"""Sweeps: grids of options, real runs of them, and what happens when something dies on the way."""

import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from console_text import GIB
from guests import KEPT, alive, left_behind, make_guest, report, wait_until

import cloudlab as cl
from cloudlab import paths
from cloudlab.cli import main
from cloudlab.errors import CloudlabError, InterruptedRunError, UsageError
from cloudlab.image.cache import Image, open_image, remember, sha256_of
from cloudlab.image.share import ShareServer
from cloudlab.machine import registry
from cloudlab.run import sweep as module
from cloudlab.run.sweep import CellResult, run_cell
from cloudlab.sizes import SIZES_COLUMNS

#: The options of every sweep that boots a guest of a few sectors.
TINY = {"accel": "tcg", "timeout_s": 300}


@pytest.fixture
def image(tmp_path) -> Image:
    return open_image(make_guest(tmp_path / "guest.raw", report()))


class Elsewhere(Executor):
    """An executor that does no runs: it keeps the cells and answers as ``answer`` says."""

    def __init__(self, answer=lambda _: CellResult({}, "no worker")):
        self.cells, self.answer = [], answer

    def submit(self, fn, /, cell):
        assert fn is run_cell
        self.cells.append(pickle.loads(pickle.dumps(cell)))
        future = Future()
        try:
            future.set_result(self.answer(cell))
        except Exception as error:  # noqa: BLE001 - as every executor does
            future.set_exception(error)
        return future


def planned(tmp_path, image, **values):
    """Return the cells that a sweep sends out, and its result."""
    executor = Elsewhere()
    done = cl.sweep(tmp_path / "sweep", image=image, executor=executor, **values)
    return executor.cells, done


def test_a_grid_has_every_combination_once_in_the_order_of_its_lists(tmp_path, image):
    cells, done = planned(tmp_path, image, disk_size=["4G", "8G"], growpart=["off", None])
    assert [(cell.options.disk_size_bytes, cell.options.seed.growpart) for cell in cells] == [
        (4 * GIB, "off"), (4 * GIB, None), (8 * GIB, "off"), (8 * GIB, None),
    ]  # fmt: skip
    assert [cell.options.scenario for cell in cells][1] == "disk size 4G, growpart default"
    assert list(done.table.columns) == [
        "run",
        "image",
        "disk_size",
        "growpart",
        "outcome",
        "reason",
    ]
    assert done.table["run"].is_unique
    assert done.runs == []


def test_values_come_in_any_collection(tmp_path, image):
    sizes = {"4G", "8G"}
    for one in (sizes, frozenset(sizes), iter(sizes), np.array([*sizes]), pd.Series([*sizes])):
        cells, _ = planned(
            tmp_path, image, disk_size=one, memory_bytes=range(1 << 30, 1 << 31, 1 << 29)
        )
        assert {cell.options.disk_size_bytes for cell in cells} == {4 * GIB, 8 * GIB}
        assert {cell.options.memory_bytes for cell in cells} == {GIB, 3 * GIB // 2}
    [cell], _ = planned(
        tmp_path, image, cpus=np.int64(2), growpart=np.str_("off"), parallel=np.int64(1)
    )
    assert (cell.options.cpus, str(cell.options.seed.growpart)) == (2, "off")
    cells, _ = planned(tmp_path, image, memory_bytes={9 << 30, 10 << 30})
    assert [cell.options.memory_bytes for cell in cells] == [9 << 30, 10 << 30]
    # A tuple is the value of an option that has several.
    [cell], _ = planned(tmp_path, image, runcmd=("true", "uptime"))
    assert cell.options.seed.runcmd == ("true", "uptime")


def test_different_words_for_the_same_options_are_one_run(tmp_path, image):
    cells, done = planned(tmp_path, image, disk_size=["4G", "4096M"], growpart=["off", False])
    assert len(cells) == 1
    assert len(done.table) == 4


def test_pairwise_covers_every_pair_of_values_with_fewer_runs(tmp_path, image):
    axes = {
        "disk_size": ["4G", "8G", "16G", "32G"],
        "growpart": ["auto", "growpart", "off"],
        "resize_rootfs": ["true", "false", "noblock"],
        "cpus": [1, 2],
    }
    cells, done = planned(tmp_path, image, pairwise=True, **axes)
    assert len(cells) < 4 * 3 * 3 * 2 / 4
    for one, two in itertools.combinations(axes, 2):
        pairs = set(zip(done.table[one], done.table[two], strict=True))
        assert pairs == set(itertools.product(map(str, axes[one]), map(str, axes[two])))
    again, _ = planned(tmp_path, image, pairwise=True, **axes)
    assert [cell.name for cell in again] == [cell.name for cell in cells]


def test_long_and_odd_values_make_usable_folder_names(tmp_path, image):
    texts = ["#cloud-config\n" + "x: 1\n" * 200, "#cloud-config\n", "../../é/$(reboot)"]
    cells, done = planned(tmp_path, image, extra_yaml=texts, hostname=["a" * 60, "b"])
    assert len({cell.name for cell in cells}) == len(cells) == 6
    assert all(len(cell.name) < 80 and "/" not in cell.name for cell in cells)
    assert done.table["extra_yaml"].nunique() == 3


HOSTILE = {
    "nothing": ({}, "no options to combine"),
    "no values": ({"disk_size": []}, "disk_size has no values"),
    "unknown option": ({"disksize": ["4G"]}, "There is no option 'disksize'"),
    "unknown value": ({"growpart": ["auto", "of"]}, "growpart has no value 'of'"),
    "wrong type": ({"cpus": [1, "two"]}, "cpus has no value 'two'"),
    "no size": ({"disk_size": ["4G", "4 elephants"]}, "4 elephants"),
    "no image": ({"image": [3]}, "The image cannot be 3"),
    "unknown filesystem": ({"filesystem": ["ext4", "zfs"]}, "no filesystem 'zfs'"),
    "image and filesystem": ({"image": "x", "filesystem": ["xfs"]}, "an image and its filesystem"),
    "overlays": ({"keep_overlay": True}, "does not take the option 'keep_overlay'"),
    "base": ({"base": [None]}, "does not take the option 'base'"),
    "flat list": ({"growpart_devices": ["/"]}, "growpart_devices has no value '/'"),
    "10,000 runs": ({"disk_size": [f"{n}G" for n in range(4, 104)], "cpus": [1] * 100}, "10,000 runs"),
    "10,000 pairs": (
        {"disk_size": [f"{n}G" for n in range(4, 104)], "hostname": [f"h{n}" for n in range(100)],
         "cpus": [1, 2], "pairwise": True},
        "20,000 runs; at most 500",
    ),
    "nobody listens": ({"disk_size": ["4G"], "executor": "tcp://127.0.0.1:9"}, "Dask"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_carried_out_is_refused_before_anything_is_written(
    tmp_path, image, values, message, monkeypatch
):
    monkeypatch.setattr(module, "_CONNECT_S", 1)
    if "executor" in values:
        pytest.importorskip("distributed", reason="pip install 'cloudlab[dask]'")
        values = values | {"image": image}
    with pytest.raises(UsageError, match=message.replace("(", "[(]")) as caught:
        cl.sweep(tmp_path / "sweep", **values)
    assert caught.value.hint
    assert not list(tmp_path.glob("sweep/[!.]*-*"))


def test_a_large_sweep_can_be_permitted(tmp_path, image):
    sizes = [f"{n}G" for n in range(4, 24)]
    with pytest.raises(UsageError, match="20 runs; at most 10") as caught:
        planned(tmp_path, image, disk_size=sizes, most=10)
    assert "most=20 (--most 20)" in caught.value.hint
    assert len(planned(tmp_path, image, disk_size=sizes, most=20)[0]) == 20


def test_without_an_image_nothing_is_run_and_the_reason_is_raised(tmp_path, own_cache):
    with pytest.raises(CloudlabError, match="no-such-image"):
        cl.sweep(tmp_path / "sweep", image=["no-such-image"], disk_size=["4G", "8G"])


def test_an_image_that_cannot_be_had_fails_its_own_runs_only(tmp_path, own_cache, image):
    executor = Elsewhere(lambda cell: run_cell(cell) if cell.failure else CellResult({}, "its own"))
    gone = str(tmp_path / "gone.raw")
    done = cl.sweep(
        tmp_path / "sweep", image=[image, gone], disk_size=["4G", "8G"], executor=executor
    )
    assert list(done.table["reason"])[:2] == ["its own"] * 2
    assert all(f"{gone} cannot be read" in reason for reason in done.table["reason"][2:])
    assert len(done.table["image"].unique()) == 2


def test_an_error_of_a_worker_is_the_reason_of_one_run(tmp_path, image):
    def answer(cell):
        if cell.options.disk_size_bytes == 4 * GIB:
            raise RuntimeError("the worker ran out of memory")
        return CellResult({}, "another reason")

    done = cl.sweep(
        tmp_path / "sweep", image=image, disk_size=["4G", "8G"], executor=Elsewhere(answer)
    )
    assert list(done.failed["reason"]) == [
        "RuntimeError: the worker ran out of memory",
        "another reason",
    ]
    saved = pd.read_csv(tmp_path / "sweep" / "runs.csv")
    assert list(saved["outcome"]) == ["failed", "failed"]


def test_a_pool_that_breaks_keeps_the_runs_that_ended_before(tmp_path, own_cache, image):
    def answer(cell):
        if cell.failure:
            raise BrokenProcessPool("a process was killed")
        return CellResult({}, "its own")

    sizes = [f"{size}G" for size in range(3, 11)]
    done = cl.sweep(
        tmp_path / "sweep", image=[str(tmp_path / "gone.raw"), image], disk_size=sizes,
        executor=Elsewhere(answer),
    )  # fmt: skip
    assert all("gone.raw cannot be read" in reason for reason in done.table["reason"][:8])
    assert list(done.table["reason"])[8:] == ["its own"] * 8


def test_a_worker_writes_only_inside_the_run_folder(tmp_path, image):
    answer = CellResult({"../../escaped": b"x", "run.json": b"{}"})
    cl.sweep(tmp_path / "sweep", image=image, disk_size="4G", executor=Elsewhere(lambda _: answer))
    assert not list(tmp_path.glob("escaped"))
    assert not list(tmp_path.glob("sweep/escaped"))


def test_two_sweeps_cannot_share_a_folder_at_the_same_time(tmp_path, image):
    def answer(_):
        with pytest.raises(CloudlabError, match="Another sweep runs in"):
            planned(tmp_path, image, disk_size="4G")
        return CellResult({}, "tried")

    done = cl.sweep(tmp_path / "sweep", image=image, disk_size="4G", executor=Elsewhere(answer))
    assert list(done.table["reason"]) == ["tried"]


def test_a_sweep_without_runs_has_an_empty_table(tmp_path, image):
    _, done = planned(tmp_path, image, cpus=[1, 2])
    assert list(done.sizes.columns) == list(SIZES_COLUMNS)
    with pytest.raises(UsageError, match="No run"):
        done.plot()


def test_the_time_left_is_estimated_from_the_runs_that_have_ended(tmp_path, image):
    news = []
    planned(tmp_path, image, disk_size=["4G", "8G", "16G"], on_progress=news.append)
    assert (news[0].total, news[0].done, news[0].left_s) == (3, 0, None)
    assert (news[-1].done, news[-1].failed, news[-1].left_s) == (3, 3, 0.0)


COMMANDS = {
    "nothing": ([], "no options to combine"),
    "unknown option": (["--set", "disc_size=4G"], "There is no option 'disc_size'"),
    "own option": (["--set", "parallel=2"], "--set takes options of the boot only, not: parallel"),
    "no list": (["--set", "cpus=[1"], "--set cpus=[1"),
    "too many": (["--set", f"hostname={','.join(f'h{n}' for n in range(600))}"], "600 runs"),
    "no count": (["--disk-size", "4G", "--most", "0"], "not a whole number above 0"),
}


@pytest.mark.parametrize(("arguments", "message"), COMMANDS.values(), ids=COMMANDS)
def test_the_command_refuses_what_cannot_be_carried_out(arguments, message, tmp_path, capsys):
    try:
        code = main(["sweep", "--output", str(tmp_path / "sweep"), *arguments])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.vm
@pytest.mark.usefixtures("own_cache")
def test_runs_are_kept_and_only_failed_ones_are_repeated(tmp_path, image):
    # The first disk is smaller than the image.
    values = {"image": image, "disk_size": ["1G", "4G", "8G"], **TINY}
    done = cl.sweep(tmp_path / "sweep", **values)
    assert list(done.table["outcome"]) == ["failed", "done", "done"]
    assert list(done.failed["disk_size"]) == ["1G"]
    assert "smaller than the image" in done.failed["reason"].iloc[0]
    assert [run.options.disk_size_bytes for run in done.runs] == [4 * GIB, 8 * GIB]
    for run in done.runs:
        assert {path.name for path in run.folder.iterdir()} == KEPT
        assert run.root_sizes("after").partition_bytes == 19 * GIB
        assert left_behind(run.folder) == []
    assert list(Path(paths.cache_folder() / "sweeps").iterdir()) == []

    saved = pd.read_csv(tmp_path / "sweep" / "sizes.csv")
    assert set(saved["run"]) == {run.name for run in done.runs} == set(done.sizes["run"])
    assert len(done.plot("growth").data) == len(cl.plot("matrix", done.runs).data) == 4

    started = [run.record.started for run in done.runs]
    again = cl.sweep(tmp_path / "sweep", **values | {"disk_size": ["8G", "1G", "4G"]})
    assert [run.record.started for run in again.runs] == started[::-1]
    assert list(again.table["outcome"]) == ["done", "failed", "done"]
    # A further option makes longer names, and finds the same runs.
    wider = cl.sweep(tmp_path / "sweep", executor=Elsewhere(), growpart=[None, "off"], **values)
    assert [run.record.started for run in wider.runs] == started
    assert list(wider.table["outcome"]).count("done") == 2
    # A finished run whose table was lost is repeated.
    (done.runs[0].folder / "sizes.csv").unlink()
    whole = cl.sweep(tmp_path / "sweep", **values)
    assert [run.record.started == begun for run, begun in zip(whole.runs, started, strict=True)] == [
        False, True,
    ]  # fmt: skip
    assert set(whole.sizes["run"]) == {run.name for run in done.runs}


@pytest.mark.vm
@pytest.mark.usefixtures("own_cache")
def test_a_sweep_that_was_stopped_continues(tmp_path, image):
    stop = threading.Event()
    values = {"image": image, "disk_size": ["4G", "8G", "16G"], "parallel": 1, **TINY}

    def watch(news):
        if news.done:
            stop.set()

    with pytest.raises(InterruptedRunError, match=r"of 3 runs are left") as caught:
        cl.sweep(tmp_path / "sweep", cancel=stop, on_progress=watch, **values)
    assert str(tmp_path / "sweep") in caught.value.hint
    table = pd.read_csv(tmp_path / "sweep" / "runs.csv").set_index("disk_size")
    finished = [size for size, outcome in table["outcome"].items() if outcome == "done"]
    assert finished
    assert "not run" in set(table["outcome"])
    assert registry.list_running() == []
    before = {size: read(tmp_path / "sweep" / table["run"][size]) for size in finished}

    news = []
    done = cl.sweep(tmp_path / "sweep", on_progress=news.append, **values)
    assert news[0].done == len(finished)
    assert list(done.table["outcome"]) == ["done"] * 3
    assert {size: read(tmp_path / "sweep" / table["run"][size]) for size in finished} == before


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.vm
@pytest.mark.usefixtures("own_cache")
def test_the_runs_of_a_killed_process_go_elsewhere(tmp_path, image):
    killed, news = [], []

    def kill_once(progress):
        news.append(progress)
        if not killed:
            assert wait_until(registry.list_running)
            killed.append(registry.list_running()[0])
            os.kill(killed[0].owner_pid, signal.SIGKILL)

    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        done = cl.sweep(
            tmp_path / "sweep", image=image, disk_size=["4G", "8G", "16G", "32G"],
            executor=pool, on_progress=kill_once, **TINY,
        )  # fmt: skip
    assert killed
    assert list(done.table["outcome"]) == ["done"] * 4
    assert {run.name for run in done.runs} >= {killed[0].name.removeprefix("cloudlab-")}
    assert news[-1].done == 4
    assert news[-1].failed == 0
    for run in done.runs:
        assert left_behind(run.folder) == []


@pytest.mark.vm
@pytest.mark.usefixtures("own_cache")
def test_the_command_prints_a_row_per_run_and_draws_the_figures(tmp_path, image, capsys):
    given = ["--image", str(image.path), "--disk-size", "1G,4G", "--set", "accel=tcg"]
    assert main(["sweep", *given, "--output", str(tmp_path / "sweep")]) == 1
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert ["4G", "tcg", "19.0", "GiB", "19.0", "GiB", "done"] in [row[1:] for row in rows]
    assert ["1G", "tcg", "-", "-", "failed"] in [row[1:] for row in rows]
    assert "2 of 2 runs, 1 failed" in err
    assert "smaller than the image" in err
    assert "1 of 2 runs failed" in err
    for name in ("growth.svg", "matrix.svg", "sizes.csv"):
        assert str(tmp_path / "sweep" / name) in out
        assert (tmp_path / "sweep" / name).stat().st_size > 100


@pytest.fixture
def head(tmp_path, own_cache, request) -> tuple[Path, Image]:
    """A folder that only the sweep's own host sees, with the record of an image in its cache."""
    says = getattr(request, "param", report())
    folder = tmp_path / "head" / "images"
    folder.mkdir(parents=True)
    raw, path = make_guest(tmp_path / "guest.raw", says), folder / "guest.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    found = remember(
        Image(
            name=path.name, path=path, format="qcow2", arch="amd64", origin="built", source="a test",
            trust="built here", sha256=sha256_of(path), virtual_size_bytes=raw.stat().st_size,
        )
    )  # fmt: skip
    return folder.parent, found


@pytest.mark.vm
def test_a_worker_fetches_the_image_by_its_hash(tmp_path, head):
    folder, image = head
    elsewhere = replace(image, path=tmp_path / "elsewhere" / image.name)
    [cell], _ = planned(tmp_path, elsewhere, disk_size="4G", **TINY)
    result = run_cell(cell)
    assert "does not have the image guest.qcow2" in result.reason
    assert "--mirror" in result.reason
    with ShareServer(address="127.0.0.1", folder=folder / "images") as share:
        wrong = replace(cell.options, image=replace(elsewhere, sha256="0" * 64))
        assert "0" * 64 in run_cell(replace(cell, options=wrong, mirror=share.url)).reason
        result = run_cell(replace(cell, mirror=share.url))
    assert result.reason == ""
    record = json.loads(result.files["run.json"])
    assert record["image"]["sha256"] == image.sha256
    assert record["image"]["path"] == str(paths.images_folder() / "guest.qcow2")


IP = shutil.which("ip") or "/usr/sbin/ip"


@pytest.fixture
def hosts(tmp_path):
    """Start a scheduler; return a function that starts a program on a host of its own, and addresses.

    Each host is a network namespace that does not see the folder ``head``; without root rights
    it is only a process.  The addresses are the scheduler's and that of this process.
    """
    pytest.importorskip("distributed", reason="needs Dask: pip install 'cloudlab[dask]'")
    separate = os.geteuid() == 0 and Path(IP).exists()
    started, bridge = [], f"clb{os.getpid()}"
    # Two tests may have hosts at the same time, so each process has addresses of its own.
    network = f"10.213.{os.getpid() % 256}"

    def ip(*words):
        subprocess.run([IP, *words], check=True)

    with ExitStack() as stack:
        if separate:
            ip("link", "add", bridge, "type", "bridge")
            stack.callback(ip, "link", "del", bridge)
            ip("address", "add", f"{network}.1/24", "dev", bridge)
            ip("link", "set", bridge, "up")

        def start(cache, *words):
            prefix, number = [], len(started) + 2
            if separate:
                name, ends = f"{bridge}n{number}", (f"clv{os.getpid()}.{number}", "eth0")
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
                ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", name)
                ip("link", "set", ends[0], "master", bridge, "up")
                for more in (
                    ("address", "add", f"{network}.{number}/24", "dev", ends[1]),
                    ("link", "set", ends[1], "up"),
                    ("link", "set", "lo", "up"),
                ):
                    ip("-n", name, *more)
                hide = ['mount -t tmpfs none "$0" && exec "$@"', tmp_path / "head"]
                prefix = [IP, "netns", "exec", name, "sh", "-c", *hide]
            folder = tmp_path / cache
            folder.mkdir(exist_ok=True)
            shutil.copytree(tmp_path / "cache", folder, dirs_exist_ok=True)
            command = [*prefix, sys.executable, "-m", *words]
            environment = {**os.environ, "CLOUDLAB_CACHE": str(folder)}
            with (folder / "log").open("wb") as log:
                started.append(subprocess.Popen(command, cwd=folder, stderr=log, env=environment))
            return started[-1]

        address, own = (f"{network}.2", f"{network}.1") if separate else ("127.0.0.1",) * 2
        # Without namespaces, two tests may have schedulers on one host.
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = str(probe.getsockname()[1])
        start("scheduler", "distributed.cli.dask_scheduler", "--port", port, "--no-dashboard")
        yield start, f"tcp://{address}:{port}", own
        for process in started:
            process.kill()
            process.wait()


@pytest.fixture
def sweep_command():
    """Return a function that starts 24 runs, as on the host whose cache is ``folder``."""
    sizes = ",".join(f"{number}G" for number in range(3, 15))
    options = ["--image", "guest.qcow2", "--disk-size", sizes, "--growpart", "auto,off"]
    options += ["--set", "accel=tcg", "--set", "timeout_s=900"]
    with ExitStack() as stack:

        def start(folder, output, *more):
            command = [sys.executable, "-m", "cloudlab", "sweep", *options, "--output", str(output)]
            process = subprocess.Popen(
                [*command, *more], cwd=folder, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**os.environ, "CLOUDLAB_CACHE": str(folder)},
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def measured(output):
    """Return what the runs of a sweep measured, without times and the overlay's blocks."""
    sizes = pd.read_csv(output / "sizes.csv")
    sizes = sizes[sizes["layer"] != "overlay_file"]
    columns = ["run", "scenario", "stage", "layer", "device", "mountpoint", "size_bytes", "exact"]
    return sizes[columns].reset_index(drop=True)


@pytest.mark.vm
@pytest.mark.slow
def test_dask_workers_that_share_only_the_network(tmp_path, head, hosts, sweep_command):
    folder, _ = head
    start, scheduler, own_address = hosts

    def worker(name):
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "600")
        return start(name, "distributed.cli.dask_worker", scheduler, *options)

    first, *_ = [worker(name) for name in ("first", "second", "third")]
    with ShareServer(address=own_address, folder=folder / "images") as share:
        more = ("--scheduler", scheduler, "--mirror", share.url)
        # The workers' side of a connection may come up later than this process.
        done = sweep_command(folder, tmp_path / "head" / "cluster", *more)
        running = tmp_path / "first" / "running"
        assert wait_until(
            lambda: done.poll() is not None or any(map(booting, running.glob("*.json")))
        )
        first.kill()
        [entry] = running.glob("*.json")
        lost = json.loads(entry.read_text())["name"].removeprefix("cloudlab-")
        worker("late")
        text, _ = done.communicate(timeout=3600)
    assert done.returncode == 0, text
    assert "24 of 24 runs" in text
    assert "left" in text
    table = pd.read_csv(tmp_path / "head" / "cluster" / "runs.csv")
    assert list(table["outcome"]) == ["done"] * 24

    commands = {
        run: json.loads((tmp_path / "head" / "cluster" / run / "run.json").read_text())["command"]
        for run in table["run"]
    }
    by = {
        name: [run for run, words in commands.items() if str(tmp_path / name) in " ".join(words)]
        for name in ("first", "second", "third", "late")
    }
    assert sum(map(len, by.values())) == 24
    assert all(by[name] for name in ("second", "third", "late"))
    assert lost not in by["first"]

    local = sweep_command(folder, tmp_path / "local")
    text, _ = local.communicate(timeout=3600)
    assert local.returncode == 0, text
    pd.testing.assert_frame_equal(
        measured(tmp_path / "local"), measured(tmp_path / "head" / "cluster")
    )


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.parametrize("head", [pytest.param("hm", id="guests-that-never-end")], indirect=True)
def test_ctrl_c_ends_the_runs_of_dask_workers(tmp_path, head, hosts, sweep_command):
    folder, _ = head
    start, scheduler, own_address = hosts
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "600")
    worker = start("worker", "distributed.cli.dask_worker", scheduler, *options)
    running = tmp_path / "worker" / "running"
    with ShareServer(address=own_address, folder=folder / "images") as share:
        more = ("--scheduler", scheduler, "--mirror", share.url)
        sweep = sweep_command(folder, tmp_path / "stopped", *more)
        assert wait_until(lambda: any(map(booting, running.glob("*.json"))))
        qemus = {json.loads(one.read_text())["qemu_pid"] for one in running.glob("*.json")}
        sweep.send_signal(signal.SIGINT)
        text, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 130, text
    assert wait_until(lambda: not any(map(alive, qemus)))
    assert wait_until(lambda: not list((tmp_path / "worker" / "sweeps").iterdir()))
    assert not list(running.iterdir())
    assert worker.poll() is None, "it takes the next sweep"


def booting(entry):
    try:
        return "qemu_pid" in json.loads(entry.read_text())
    except (OSError, ValueError):
        return False

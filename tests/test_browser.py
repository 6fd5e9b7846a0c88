"""The panels in a real JupyterLab and a real browser, by keyboard and by mouse.

Screenshots go to ``build/screenshots``, for people to look at.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pandas as pd
import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import (
    PATIENCE_MS,
    SCREENSHOTS,
    change_theme,
    chromium,
    command,
    jupyterlab,
    open_notebook,
    photograph,
    run_all,
    run_cell,
    set_up,
    wait_for_kernel,
    write_notebook,
)
from guests import wait_until
from PIL import Image
from playwright.sync_api import expect

from cloudlab.course import copy_course, course_source
from cloudlab.machine import registry
from cloudlab.run.value import Run, recorded
from cloudlab.units import format_bytes

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

GROWTH = "from cloudlab.widgets import *\nlab = GrowthLab()\nlab"
#: Ends the kernel from within, as a host out of memory would.
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
THREADS = (
    "import threading\n"
    "print('boots:', [one.name for one in threading.enumerate()].count('cloudlab-boot'))"
)
ALL_PANELS = (
    GROWTH,
    "DiskMap('default')",
    "Scrubber('default')",
    "SeedEditor('#cloud-config\\ngrowpart:\\n  mode: off\\n')",
    "Quiz([Question('Which grows first?', {'partition': 'It is the room.', 'filesystem': 'No room yet.'}, 'partition')])",
    "RunningMachines()",
    "Console('growpart-off')",
)


@pytest.fixture(scope="module")
def chrome():
    with chromium() as one:
        yield one


@pytest.fixture
def browser(chrome):
    context = chrome.new_context()
    yield context
    context.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def base(folder):
    with jupyterlab(folder, CLOUDLAB_MODE="replay") as address:
        yield address


def panel(cell):
    """Return the part of a cell that is alive: not what is kept for later."""
    return cell.locator(".jupyter-widgets").first


def quotes_blanks(quoted) -> bool:
    """Return whether the kernel's time keeps its blanks in one of the lines that are quoted."""
    return any(re.match(r"\[ {2,}\d+\.\d+\] ", text) for text in quoted.all_inner_texts())


def predict(cell, partition: str, filesystem: str) -> None:
    cell.get_by_label("The partition will").select_option(partition)
    cell.get_by_label("The filesystem will").select_option(filesystem)


def predicted_and_measured(cell) -> dict[str, list[str]]:
    rows = panel(cell).locator("table", has_text="Predicted and measured").locator("tbody tr")
    texts = [row.locator("th, td").all_inner_texts() for row in rows.all()]
    return {text[0]: text[1:] for text in texts}


def test_predict_boot_compare_by_keyboard_alone(browser, base, folder):
    write_notebook(folder / "keys.ipynb", GROWTH)
    page = open_notebook(browser, base, "keys.ipynb")
    cell = run_cell(page, 0)
    cell.get_by_label("Disk size").focus()
    page.keyboard.press("Tab")
    expect(cell.get_by_label("growpart: mode")).to_be_focused()
    page.keyboard.press("End")
    expect(cell.locator("mark", has_text="mode: 'off'")).to_be_visible()
    boot = cell.get_by_role("button", name="Boot (recorded)")
    expect(boot).to_have_attribute("aria-disabled", "true")
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(cell.get_by_label("The partition will")).to_be_focused()
    page.keyboard.type("stay")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    size = cell.get_by_label("Size of the filesystem")
    expect(size).to_be_visible()
    page.keyboard.press("Tab")
    expect(size).to_be_focused()
    page.keyboard.type("40")
    expect(cell).to_contain_text("no unit")
    expect(boot).to_have_attribute("aria-disabled", "true")
    page.keyboard.type("G")
    expect(boot).to_have_attribute("aria-disabled", "false")
    cell.get_by_label("Playing speed").focus()
    page.keyboard.press("End")
    boot.focus()
    page.keyboard.press("Enter")
    expect(panel(cell).get_by_role("heading", name="Result: growpart-off")).to_be_visible()
    expect(boot).to_be_focused()
    recording = recorded("growpart-off")
    sizes = pd.read_csv(recording.folder / "sizes.csv")
    root = sizes[(sizes.device == "vda1") & sizes.exact & (sizes.stage == "after")]
    measured = dict(zip(root.layer, root.size_bytes, strict=True))
    shown = predicted_and_measured(cell)
    for layer, words in (
        ("partition", ["stays as it is", "right"]),
        ("filesystem", ["40G", "wrong"]),
    ):
        assert shown[layer] == [format_bytes(measured[layer])] * 2 + words


def test_evidence_leads_to_its_console_line_by_keyboard(browser, base, folder):
    added = GROWTH.replace("GrowthLab()", "GrowthLab()\nlab.add('default')")
    write_notebook(folder / "evidence.ipynb", added)
    page = open_notebook(browser, base, "evidence.ipynb")
    cell = run_cell(page, 0)
    predict(cell, "fills", "fills")
    cell.get_by_label("Playing speed").select_option("100")
    cell.get_by_role("button", name="Boot (recorded)").click()
    evidence = panel(cell).locator("button.cloudlab-line").first
    expect(panel(cell)).to_contain_text("All runs so far")
    assert quotes_blanks(panel(cell).locator("li code"))
    line = panel(cell).locator(f'[data-number="{evidence.get_attribute("data-line")}"]')
    expect(line).to_be_hidden()  # the console is folded
    evidence.focus()
    page.keyboard.press("Enter")
    expect(line).to_be_visible()
    expect(line).to_be_focused()
    expect(line).to_be_in_viewport()
    expect(line).to_contain_text("size_bytes")
    expect(panel(cell).locator(".cloudlab-found")).to_have_count(1)


@pytest.mark.parametrize("way", ["restart", "shutdown", "killed"])
def test_a_panel_without_its_kernel_says_so_and_is_disabled(browser, base, folder, way):
    write_notebook(folder / f"{way}.ipynb", GROWTH, "import os, signal", KILL)
    page = open_notebook(browser, base, f"{way}.ipynb")
    cell = run_cell(page, 0)
    expect(cell.get_by_label("Disk size")).to_be_enabled()
    if way == "restart":
        restart_kernel(page)
    elif way == "shutdown":
        command(page, "kernelmenu:shutdown")
    else:
        run_cell(page, 1)
        page.locator(".jp-Notebook .jp-Cell").nth(2).locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
    expect(cell.get_by_role("alert")).to_contain_text("kernel of this panel is gone")
    for control in ("Disk size", "growpart: mode", "The partition will"):
        expect(cell.get_by_label(control)).to_be_disabled()
    expect(cell.get_by_role("button", name="Boot (recorded)")).to_be_disabled()
    if way != "shutdown":
        wait_for_kernel(page)  # the new one: a server that ends while it starts one hangs


def test_everything_before_a_boot_fits_one_screen(browser, base, folder):
    write_notebook(folder / "fits.ipynb", GROWTH)
    page = open_notebook(browser, base, "fits.ipynb")
    page.set_viewport_size({"width": 1280, "height": 800})
    cell = run_cell(page, 0)
    expect(cell.get_by_label("Disk size")).to_be_visible()
    panel(cell).evaluate("node => node.scrollIntoView({block: 'start'})")
    for shown in (
        panel(cell).locator(".cloudlab-map").first,
        cell.get_by_label("growpart: mode"),
        cell.get_by_label("The filesystem will"),
        cell.get_by_role("button", name="Boot (recorded)"),
        cell.get_by_label("Playing speed"),
    ):
        expect(shown).to_be_in_viewport(ratio=1)


def test_kernel_stays_free_stop_ends_and_there_is_never_a_second_loop(browser, base, folder):
    write_notebook(
        folder / "free.ipynb", "from cloudlab.widgets import *\nConsole('default')", THREADS
    )
    page = open_notebook(browser, base, "free.ipynb")
    cell = run_cell(page, 0)
    cell.get_by_label("Playing speed").select_option("1")
    cell.get_by_role("button", name="Boot").click()
    expect(cell.get_by_role("log")).to_contain_text("SeaBIOS")
    other = run_cell(page, 1)
    expect(other).to_contain_text("boots: 1")
    # The cell is run anew while its boot goes on: the former one ends.
    cell = run_cell(page, 0)
    expect(cell.get_by_role("log")).to_have_count(0)  # an empty console is not shown
    cell.get_by_label("Playing speed").select_option("1")
    cell.get_by_role("button", name="Boot").click()
    expect(cell.get_by_role("log")).to_contain_text("SeaBIOS")
    expect(run_cell(page, 1)).to_contain_text("boots: 1")
    cell.get_by_role("button", name="Stop").click()
    expect(cell.get_by_role("alert")).to_contain_text("stopped")
    expect(run_cell(page, 1)).to_contain_text("boots: 0")


def test_reload_restart_and_reopening(browser, base, folder):
    write_notebook(folder / "again.ipynb", GROWTH)
    page = open_notebook(browser, base, "again.ipynb")
    cell = run_cell(page, 0)
    cell.get_by_label("Playing speed").select_option("100")
    predict(cell, "fills", "fills")
    cell.get_by_role("button", name="Boot (recorded)").click()
    result = "Result: default"
    expect(panel(cell).get_by_role("heading", name=result)).to_be_visible()
    expect(cell.get_by_role("heading", name=result)).to_have_count(1)  # the kept one is hidden
    kept = cell.get_by_text("Filesystem grown", exact=True)
    expect(kept).to_have_count(1)  # hidden, for when the panel is gone
    expect(kept).to_be_hidden()
    page.keyboard.press("Control+s")
    assert saved_outputs(folder / "again.ipynb", result)
    page.reload()
    wait_for_kernel(page)
    cell = page.locator(".jp-Notebook .jp-Cell").nth(0)
    # The kernel lives, so the panel does.
    expect(cell.get_by_role("button", name="Boot (recorded)")).to_be_visible()
    expect(cell.get_by_role("heading", name=result)).to_have_count(1)
    restart_kernel(page)
    page.reload()
    wait_for_kernel(page)
    cell = page.locator(".jp-Notebook .jp-Cell").nth(0)
    # The panel is dead; its last result stays, as picture and table.
    expect(cell.get_by_role("heading", name=result)).to_be_visible()
    expect(cell.get_by_role("button", name="Boot (recorded)")).to_have_count(0)
    expect(cell.get_by_text("Filesystem grown", exact=True)).to_be_visible()
    expect(cell.get_by_role("table", name="Predicted and measured")).to_be_visible()
    expect(cell).to_contain_text("Run the cell to use it again")
    expect(cell.get_by_text("model not found")).to_be_hidden()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (800, True)], ids=["light", "dark"])
def test_all_panels_are_accessible_and_photographed(browser, base, folder, width, dark):
    name = f"{'dark' if dark else 'light'}-{width}"
    write_notebook(folder / f"{name}.ipynb", *ALL_PANELS)
    set_up(folder, dark=dark)
    page = open_notebook(browser, base, f"{name}.ipynb", width=width)
    page.keyboard.press("Control+b")
    cells = [run_cell(page, number) for number in range(len(ALL_PANELS))]
    cells[0].get_by_label("Playing speed").select_option("100")
    cells[0].get_by_label("growpart: mode").select_option("off")
    predict(cells[0], "stays", "fills")
    cells[0].get_by_role("button", name="Boot (recorded)").click()
    expect(panel(cells[0]).locator("h3").first).to_be_visible()
    cells[2].get_by_role("button", name="Change after this").click()
    cells[4].get_by_label("filesystem").click()
    expect(cells[4]).to_contain_text("Not quite.")
    cells[6].get_by_label("Playing speed").select_option("100")
    cells[6].get_by_role("button", name="Boot").click()
    expect(cells[6]).to_contain_text("Done after")
    part = cells[1].locator(".cloudlab-part").first
    part.focus()
    expect(part.locator(".cloudlab-says")).to_be_visible()
    page.set_viewport_size({"width": width, "height": 4600})
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    cells[0].screenshot(path=SCREENSHOTS / f"{name}-growth-lab.png")
    assert violations(page) == []
    change_theme(page, dark=not dark)
    assert violations(page) == []


@pytest.fixture(scope="module")
def course(folder):
    copy_course(folder / "course")
    return folder / "course"


def problems(page) -> list[str]:
    """Return the texts of a notebook's errors and warnings."""
    kinds = ("application/vnd.jupyter.error", "application/vnd.jupyter.stderr")
    shown = ", ".join(f'.jp-OutputArea-output[data-mime-type="{kind}"]' for kind in kinds)
    return page.locator(shown).all_inner_texts()


def violations(page) -> list[tuple[str, str]]:
    """Return what axe finds in the outputs of a notebook, each with where."""
    found = Axe().run(page, context=".jp-OutputArea-output").response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found]


@pytest.mark.parametrize("name", sorted(one.name for one in course_source().glob("0*.ipynb")))
def test_a_notebook_of_the_course_runs_and_is_photographed(browser, base, course, name):
    page = open_notebook(browser, base, f"course/{name}")
    command(page, "application:toggle-left-area")
    run_all(page)
    assert problems(page) == []
    assert page.locator(".jp-OutputArea-output", has_text="No answer yet").count() >= 3
    photograph(page, f"course-{name[:2]}")


def test_how_it_grows_is_worked_through(browser, base, course):
    """Notebook 05 as a learner does it: choose, predict, boot, stop, boot, reload, restart."""
    name = next(one.name for one in course.glob("05*.ipynb"))
    (course / "mine.ipynb").write_bytes((course / name).read_bytes())
    page = open_notebook(browser, base, "course/mine.ipynb")
    command(page, "application:toggle-left-area")
    run_all(page)

    def lab_cell():
        return page.locator(".jp-CodeCell", has=page.get_by_text("= GrowthLab()")).first

    cell = lab_cell()
    cell.get_by_label("resize_rootfs").select_option("false")
    predict(cell, "fills", "stays")
    cell.get_by_label("Playing speed").select_option("1")
    boot = cell.get_by_role("button", name="Boot (recorded)")
    boot.click()
    expect(panel(cell).locator(".cloudlab-fold summary")).to_contain_text("Boot")
    cell.get_by_role("button", name="Stop").click()
    expect(cell.get_by_role("alert")).to_contain_text("stopped")
    cell.get_by_label("Playing speed").select_option("100")
    boot.click()
    name = "resize-rootfs-false"
    result = f"Result: {name}"
    expect(panel(cell).get_by_role("heading", name=result)).to_be_visible(timeout=PATIENCE_MS)
    sizes = pd.read_csv(recorded(name).folder / "sizes.csv")
    root = sizes[(sizes.device == "vda1") & sizes.exact & (sizes.stage == "after")]
    shown = predicted_and_measured(cell)
    for layer, size in zip(root.layer, root.size_bytes, strict=True):
        assert shown[layer][1] == format_bytes(size)
        assert shown[layer][-1] == "right"
    assert problems(page) == []
    assert violations(page) == []
    draw_for_readme(page, cell)
    kept = cell.get_by_text("After the boot", exact=True)
    expect(kept).to_have_count(1)  # hidden, for when the panel is gone
    expect(kept).to_be_hidden()
    command(page, "docmanager:save")
    sources = [one["source"] for one in json.loads((course / "mine.ipynb").read_text())["cells"]]
    place = next(i for i, source in enumerate(sources) if "= GrowthLab()" in "".join(source))
    assert saved_outputs(course / "mine.ipynb", result, place)
    page.reload()
    wait_for_kernel(page)
    expect(lab_cell().get_by_role("button", name="Boot (recorded)")).to_be_visible()
    restart_kernel(page)
    page.reload()
    wait_for_kernel(page)
    expect(lab_cell().get_by_role("heading", name=result)).to_be_visible()
    expect(lab_cell().get_by_role("button", name="Boot (recorded)")).to_have_count(0)


def restart_kernel(page) -> None:
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Restart Kernel…")).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()


def draw_for_readme(page, cell) -> None:
    """Take GrowthLab with a result, down to its console.

    It becomes ``docs/growth-lab.png`` with: cp build/screenshots/growth-lab.png docs/
    """
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / "growth-lab.png"
    change_theme(page, dark=False)
    lab = panel(cell)
    frame = {"width": 1280, "height": 9000}
    page.set_viewport_size(frame)
    beside = 1280 - lab.bounding_box()["width"]
    page.set_viewport_size(frame | {"width": int(1280 + beside - 24)})
    end, box = lab.locator(".cloudlab-fold").bounding_box(), lab.bounding_box()
    height = end["y"] + end["height"] - box["y"]
    clip = {"x": box["x"] - 12, "y": box["y"], "width": 1280, "height": height}
    page.screenshot(path=path, clip=clip)
    # As few colours as a drawing needs: a page of a README should load at once.
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def saved_outputs(path, text, place=0) -> bool:
    """Return whether a notebook was saved with ``text`` in a cell's outputs."""

    def saved() -> bool:
        # JupyterLab may be writing it at this moment.
        with contextlib.suppress(json.JSONDecodeError):
            notebook = json.loads(path.read_text())
            return text in json.dumps(notebook["cells"][place]["outputs"])
        return False

    return wait_until(saved)


def qemus_below(folder) -> list[int]:
    """Return the process numbers of the machines whose run folder lies in ``folder``.

    Not by their command lines: those of a QEMU that root started name no path.
    """
    own = [one for one in registry.list_running() if folder in Path(one.run_folder).parents]
    return [one.qemu_pid for one in own if psutil.pid_exists(one.qemu_pid)]


def gone(folder) -> bool:
    return wait_until(lambda: not qemus_below(folder))


@pytest.mark.boots
def test_live_stop_restart_and_a_whole_boot(browser, tmp_path, lab_image):
    write_notebook(tmp_path / "live.ipynb", GROWTH)
    with jupyterlab(tmp_path, CLOUDLAB_MODE="live") as base:
        page = open_notebook(browser, base, "live.ipynb")

        def begin():
            cell = run_cell(page, 0)
            cell.get_by_label("Image").select_option(lab_image.name)
            predict(cell, "fills", "fills")
            cell.get_by_role("button", name="Boot", exact=True).click()
            return cell

        # What a warm start restores may scroll the first lines away at once.
        cell = begin()
        assert wait_until(lambda: len(qemus_below(tmp_path)) == 1)
        expect(panel(cell).locator(".cloudlab-fold")).to_be_visible()
        cell.get_by_role("button", name="Stop").click()
        expect(cell.get_by_role("alert")).to_contain_text("was stopped")
        assert gone(tmp_path)

        cell = begin()
        expect(panel(cell).locator(".cloudlab-fold")).to_be_visible()
        restart_kernel(page)
        assert gone(tmp_path), "a kernel's restart left QEMU running"
        wait_for_kernel(page)

        cell = begin()
        expect(panel(cell).locator("h3").first).to_be_visible(timeout=900_000)
        assert gone(tmp_path)
        runs = [Run(one.parent) for one in (tmp_path / "runs").glob("*/run.json")]
        [done] = [one for one in runs if one.record.outcome == "done"]
        sizes = pd.read_csv(done.folder / "sizes.csv")
        root = sizes[(sizes.device == "vda1") & sizes.exact & (sizes.stage == "after")]
        shown = predicted_and_measured(cell)
        for layer, size in zip(root.layer, root.size_bytes, strict=True):
            assert shown[layer][1] == format_bytes(size)
        expect(panel(cell)).to_contain_text("Booted here on")

"""The player in Chromium, offline: what the page shows is what the recordings hold."""

from __future__ import annotations

import functools
import gzip
import json
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import player
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import chromium
from playwright.sync_api import expect
from shipped import FEW, recorded

from cloudlab.course.cases import CASES
from cloudlab.course.prediction import LAYERS, Prediction, ends
from cloudlab.errors import ParseError
from cloudlab.figures.data import LEAST_GAIN_BYTES
from cloudlab.run.value import recording_names
from cloudlab.sizes import parse_size
from cloudlab.units import format_bytes

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

NAMES = [name for name in CASES if name in recording_names()]
COMBINATIONS = {
    ("auto", "true"): "default",
    ("off", "true"): "growpart-off",
    ("auto", "false"): "resize-rootfs-false",
    ("off", "false"): "both-off",
}
MOST_BYTES = 2_000_000


class Quiet(SimpleHTTPRequestHandler):
    """A static web server that prints nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    player.main(folder)
    return folder


@pytest.fixture(scope="module")
def base(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def context(base):
    """Yield a browser that reaches this site only, and has the requests that were made."""
    with chromium() as chrome:
        one = chrome.new_context()
        one.requests = []

        def pass_own(route):
            one.requests.append(route.request.url)
            if route.request.url.startswith(f"{base}/"):
                route.continue_()
            else:
                route.abort()

        one.route("**/*", pass_own)
        yield one


@pytest.fixture
def page(context, base):
    """Yield the page in a new tab; fail on an error in its script or a request elsewhere."""
    one, told = context.new_page(), []
    context.requests.clear()
    one.on("pageerror", lambda error: told.append(str(error)))
    one.on("console", lambda message: told.append(message.text))
    one.set_viewport_size({"width": 1280, "height": 800})
    one.goto(f"{base}/index.html")
    expect(one.locator("#disk svg")).to_be_visible()
    yield one
    one.close()
    assert [url for url in context.requests if not url.startswith(f"{base}/")] == []
    assert told == []


def choose(page, name):
    page.get_by_label("Case").select_option(name)
    expect(page.locator("#label")).to_contain_text(recorded(name).label)
    expect(page.get_by_label("Case")).to_have_value(name)


def predict(page, **predictions):
    for layer, text in predictions.items():
        meant = text in ("stays", "fills")
        page.get_by_label(f"The {layer} will").select_option(text if meant else "size")
        if not meant:
            page.get_by_label(f"Size of the {layer}").fill(text)


def boot(page, partition="fills", filesystem="stays"):
    """Predict, boot and skip to the end; return the rows of the table of results."""
    predict(page, partition=partition, filesystem=filesystem)
    page.get_by_role("button", name="Boot (recorded)").click()
    page.get_by_role("button", name="Skip to the end").click()
    expect(page.locator("#result")).to_be_visible()
    rows = page.get_by_role("table", name="Predicted and measured").locator("tbody tr")
    return {
        row[0]: row[1:] for row in (one.locator("th, td").all_inner_texts() for one in rows.all())
    }


def test_every_case_is_there_and_has_the_numbers_of_its_recording(page):
    offered = page.locator("#case option").evaluate_all("all => all.map((one) => one.value)")
    assert sorted(filter(None, offered)) == sorted(NAMES)
    for name in NAMES:
        run = recorded(name)
        choose(page, name)
        rows = boot(page)
        verdicts = Prediction("fills", "stays").verdicts(run)
        words = {True: "right", False: "wrong", None: "not measured"}
        exact = page.locator("#rows data").evaluate_all(
            "all => all.map((one) => Number(one.value))"
        )
        assert exact == [size for sizes in ends(run).values() if sizes for size in sizes], name
        for layer, sizes in ends(run).items():
            shown = [format_bytes(one) for one in sizes] if sizes else ["not measured", ""]
            assert rows[layer][:2] == shown, name
            assert rows[layer][3] == words[verdicts[layer]], name
        expect(page.locator("#origin")).to_contain_text(run.label)
        said = page.locator("#explanation").inner_text()
        for statement in run.explain().to_json()["statements"]:
            assert statement["words"] in " ".join(said.split()), name
        assert page.locator("#console").inner_text().count("\n") >= len(run.console) - 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_of_the_disk_is_what_was_measured(site, name):
    data = json.loads(gzip.decompress((site / "data" / f"{name}.json.gz").read_bytes()))
    said = [one["said"] for one in data["moments"]]
    sizes = {layer: found for layer, found in ends(recorded(name)).items() if found}
    assert [one["time_s"] for one in data["moments"]] == sorted(
        {one["time_s"] for one in data["moments"]}
    )
    for layer, (first, last) in sizes.items():
        assert f"{layer} {format_bytes(last)}" in said[-1]
        grown = [one for one in said if re.search(rf"{layer}\b.* grown", one, re.IGNORECASE)]
        # A sample may see a filesystem that is still growing.
        assert bool(grown) == (last - first >= LEAST_GAIN_BYTES)
        shown = {re.search(rf"{layer} ([\d.]+ .iB)", one)[1] for one in said if f"{layer} " in one}
        rows = recorded(name).sizes.query("exact and layer == @layer")
        assert {format_bytes(first), format_bytes(last)} <= shown
        assert shown <= set(rows["size_bytes"].map(format_bytes))


@pytest.mark.parametrize(("options", "name"), COMBINATIONS.items())
def test_a_combination_plays_its_recording(page, options, name):
    page.get_by_label("growpart: mode").select_option(options[0])
    page.get_by_label("resize_rootfs").select_option(options[1])
    expect(page.get_by_label("Case")).to_have_value(name)
    expect(page.locator("#label")).to_contain_text(recorded(name).label)
    rows = boot(page)
    assert [rows[layer][1] for layer in LAYERS] == [
        format_bytes(sizes[1]) for sizes in ends(recorded(name)).values()
    ]


def test_a_combination_without_a_recording_says_so_and_offers_the_nearest(page):
    page.get_by_label("growpart: mode").select_option("off")
    page.get_by_label("resize_rootfs").select_option("noblock")
    note = page.locator("#unrecorded")
    expect(note).to_contain_text("No recording has these options.")
    expect(note).to_contain_text("resize_rootfs: recorded with")
    predict(page, partition="stays", filesystem="stays")
    expect(page.get_by_role("button", name="Boot (recorded)")).to_be_disabled()
    for part in ("#prediction", "#settings", "#boot-view"):
        assert re.search(r"\d [KMG]iB", page.locator(part).inner_text()) is None
    page.get_by_role("button", name="Choose the nearest recording").click()
    expect(note).to_be_empty()
    expect(page.get_by_label("growpart: mode")).to_have_value("off")
    assert boot(page, "stays", "stays")["partition"][-1] == "right"


def test_predictions_are_judged_as_in_the_panels(page):
    after = {layer: sizes[1] for layer, sizes in ends(recorded("default")).items()}
    for share in (0.5, 0.94, 0.951, 1, 1.049, 1.06, 2):
        texts = {layer: f"{size * share / 2**20:.3f}M" for layer, size in after.items()}
        verdicts = Prediction(**texts).verdicts(recorded("default"))
        rows = boot(page, **texts)
        for layer in LAYERS:
            assert rows[layer][2:] == [texts[layer], "right" if verdicts[layer] else "wrong"]


def test_sizes_are_parsed_as_by_cloudlab(page):
    texts = [
        "19.9G", "2G", "2,5 GiB", "1.5GB", "366K", "512B", "19.9", "4096", "0Bi", "1.5B", "2k",
        "2GBi", "G", "", "9E", "8E", "1.0000000005G", "2 G", "2 giB", "-1G",
    ]  # fmt: skip

    def ours(text):
        try:
            return parse_size(text.replace(" ", ""))
        except ParseError:
            return None

    script = "async (texts) => texts.map((await import('./prediction.js')).parseSize)"
    assert dict(zip(texts, page.evaluate(script, texts), strict=True)) == {
        text: ours(text) for text in texts
    }


def test_a_size_without_a_unit_keeps_boot_locked(page):
    predict(page, partition="40", filesystem="stays")
    expect(page.locator("#partition-note")).to_contain_text("no unit")
    expect(page.get_by_role("button", name="Boot (recorded)")).to_be_disabled()
    page.get_by_label("Size of the partition").fill("40G")
    expect(page.get_by_role("button", name="Boot (recorded)")).to_be_enabled()


def test_the_disk_changes_at_the_recorded_moments(page):
    run = recorded("default")
    layers = run.sizes[(run.sizes.mountpoint == "/") & run.sizes.exact]
    grown = {
        layer: rows[rows.size_bytes.diff() > 1 << 20].time_s.iloc[0]
        for layer, rows in layers.groupby("layer")
    }
    page.clock.install()
    page.get_by_label("Playing speed").select_option("1")
    predict(page, partition="fills", filesystem="fills")
    page.get_by_role("button", name="Boot (recorded)").click()
    drawn, stage, passed_s = page.locator("#disk svg"), page.locator("#stage"), 0.0
    expect(drawn).to_contain_text("Before the boot")
    for layer in ("partition", "filesystem"):
        for time_s, there in ((grown[layer] - 0.3, False), (grown[layer] + 0.3, True)):
            page.clock.run_for(round((time_s - passed_s) * 1000))
            passed_s = time_s
            text = f"{layer.capitalize()} grown"
            assert (text in drawn.text_content()) is there
            assert (text in stage.inner_text()) is there
    assert f"vda1 {format_bytes(ends(run)['partition'][1])}" in drawn.text_content()
    description = drawn.locator("desc").text_content()
    assert f"filesystem / {format_bytes(ends(run)['filesystem'][1])}" in description


def test_evidence_leads_to_its_line_and_marks_it(page):
    boot(page)
    console = page.locator("#console")
    links = page.locator("#explanation a")
    assert links.count() >= len(LAYERS)
    quoted = page.locator("#explanation li code").all_inner_texts()
    assert any(re.match(r"\[ {2,}\d+\.\d+\] ", text) for text in quoted), "blanks are lost"
    for link in (links.first, links.last):
        link.click()
        number = int(link.inner_text().removeprefix("line "))
        marked = console.locator(".found")
        expect(marked).to_have_count(1)
        expect(marked).to_be_focused()
        expect(marked).to_be_in_viewport()
        assert recorded("default").console[number - 1].text in marked.inner_text()


def test_everything_works_by_keyboard(page):
    page.get_by_label("Case").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    expect(page.get_by_label("Case")).to_have_value("growpart-off")
    for layer in LAYERS:
        for _ in range(2 if layer == "partition" else 1):
            page.keyboard.press("Tab")
        expect(page.get_by_label(f"The {layer} will")).to_be_focused()
        page.keyboard.type("stay")
    page.keyboard.press("Tab")
    button = page.get_by_role("button", name="Boot (recorded)")
    expect(button).to_be_focused()
    # The recording is loaded meanwhile.
    expect(button).to_have_attribute("aria-disabled", "false")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Result: growpart off")).to_be_visible()
    expect(page.get_by_role("cell", name="right")).to_have_count(2)
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.locator("#explanation a").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#console .found")).to_be_focused()


def test_a_phone_needs_no_horizontal_scrolling(page):
    page.set_viewport_size({"width": 360, "height": 800})
    # Its table has the longest words: the partition was not measured.
    for name in sorted(FEW | {"unclosed-quote", "whole-disk"}):
        choose(page, name)
        boot(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
    narrow = page.locator("#disk svg").get_attribute("viewBox")
    page.set_viewport_size({"width": 1280, "height": 800})
    expect(page.locator("#disk svg")).not_to_have_attribute("viewBox", narrow)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(page, scheme):
    page.emulate_media(color_scheme=scheme)

    def violations():
        found = Axe().run(page).response["violations"]
        return [(one["id"], one["nodes"][0]["html"][:200]) for one in found]

    assert violations() == []
    predict(page, partition="40")
    boot(page)
    page.locator("#explanation a").first.click()
    assert violations() == []
    page.get_by_label("growpart: mode").select_option("off")
    page.get_by_label("resize_rootfs").select_option("noblock")
    expect(page.locator("#unrecorded button")).to_be_visible()
    assert violations() == []


def test_recordings_are_loaded_when_they_are_needed(page, context):
    data = [url.rpartition("/")[2] for url in context.requests if "/data/" in url]
    assert sorted(set(data)) == ["default.json.gz", "index.json"]
    choose(page, "both-off")
    assert context.requests[-1].endswith("/data/both-off.json.gz")


def test_a_recording_that_cannot_be_loaded_is_reported(context, base):
    page = context.new_page()
    page.route("**/default.json.gz", lambda route: route.fulfill(status=404))
    page.goto(f"{base}/index.html")
    expect(page.get_by_role("status").filter(has_text="could not be loaded")).to_be_visible()
    expect(page.get_by_role("button", name="Boot (recorded)")).to_be_disabled()
    page.close()


def test_a_server_may_decompress_the_data(page, site):
    plain = gzip.decompress((site / "data" / "both-off.json.gz").read_bytes())
    page.route("**/both-off.json.gz", lambda route: route.fulfill(body=plain))
    choose(page, "both-off")
    expect(page.locator("#disk svg")).to_be_visible()


def test_the_page_and_its_data_are_small(site):
    assert sum(one.stat().st_size for one in site.rglob("*") if one.is_file()) <= MOST_BYTES


def test_the_page_can_reach_no_other_host(context, base):
    page = context.new_page()
    page.goto(f"{base}/index.html")
    expect(page.locator("#disk svg")).to_be_visible()
    context.requests.clear()
    ask = "fetch('http://192.0.2.1/').then(() => 'answered', (error) => error.message)"
    assert page.evaluate(ask) == "Failed to fetch"
    assert context.requests == []
    page.close()


def test_the_pages_link_to_the_player():
    root = player.PAGE.parents[1]
    assert "](docs/player/index.html)" in (root / "README.md").read_text()
    assert "](player/index.html)" in (root / "docs" / "course.md").read_text()
    assert "scripts/player.py build/docs/player" in (root / "Makefile").read_text()


def test_the_data_are_the_same_each_time(site, tmp_path, monkeypatch):
    monkeypatch.setattr(player, "recording_names", lambda: ["default"])
    player.main(tmp_path / "again")
    for name in ("colours.css", "data/default.json.gz"):
        assert (tmp_path / "again" / name).read_bytes() == (site / name).read_bytes()
    assert [
        one["name"] for one in json.loads((tmp_path / "again/data/index.json").read_text())["cases"]
    ] == ["default"]

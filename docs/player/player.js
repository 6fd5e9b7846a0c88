// The page: choose, predict, boot, compare. All numbers come from data/, which scripts/player.py makes.

import { inWords, sizeProblem, verdict } from "./prediction.js";

const LAYERS = ["partition", "filesystem"];
const UNRECORDED = "";
const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 40rem)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let index; // the cases, and which recording a combination of options has
let run = null; // the recording that is chosen, or null
let moment = null; // the state of the disk that is drawn
let playback = null; // what goes on: its position in seconds, lines, moments and stages shown so far

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Return the recording of a case. Servers may have decompressed the file already. */
async function load(name) {
  const response = await fetch(`data/${name}.json.gz`);
  if (!response.ok) throw new Error(`data/${name}.json.gz: ${response.status}`);
  const bytes = await response.arrayBuffer();
  const [first, second] = new Uint8Array(bytes, 0, 2);
  if (first !== 0x1f || second !== 0x8b) return JSON.parse(new TextDecoder().decode(bytes));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).json();
}

function fillCases() {
  const plain = new Set(Object.values(index.combinations).map((one) => one.name));
  const groups = [["Options on the plain image", true], ["Other cases of the gallery", false]];
  for (const [label, wanted] of groups) {
    const group = element("optgroup", "", { label });
    for (const one of index.cases)
      if (plain.has(one.name) === wanted) group.append(new Option(one.title, one.name));
    $("case").append(group);
  }
  $("case").prepend(new Option("these options (not recorded)", UNRECORDED));
  $("case").options[0].hidden = true;
}

/** Return the options of a case, as ["off", "true"]; undefined for one that is not about them. */
function optionsOf(name) {
  const found = Object.entries(index.combinations).find(
    ([, one]) => one.name === name && !one.differences.length,
  );
  return found?.[0].split("/");
}

/** Change to the case that is chosen, and offer the nearest where there is no recording. */
async function choose(name, nearest = null) {
  stop();
  $("case").value = name;
  $("result").hidden = true;
  const options = optionsOf(name);
  if (options) [$("growpart").value, $("resize_rootfs").value] = options;
  $("options").hidden = !options && !nearest;
  $("unrecorded").replaceChildren();
  if (nearest) {
    const title = index.cases.find((one) => one.name === nearest.name).title;
    const differences = element("ul");
    differences.append(...nearest.differences.map((one) => element("li", one)));
    const take = element("button", `Choose the nearest recording: ${title}`, { type: "button" });
    take.addEventListener("click", async () => {
      await choose(nearest.name);
      $("growpart").focus();
    });
    $("unrecorded").append(
      element("b", "No recording has these options. The nearest one differs:"), differences, take,
    );
  }
  // A prediction is about these options; others need one of their own.
  for (const layer of LAYERS) $(layer).value = $(`${layer}-size`).value = "";
  run = null;
  for (const id of ["label", "settings", "clock", "console"]) $(id).replaceChildren();
  $("stage").textContent = nearest ? "Nothing to play: no recording has these options." : "Loading.";
  update();
  const loaded = nearest ? null : await load(name);
  if ($("case").value !== name) return; // another one was chosen meanwhile
  run = loaded;
  if (run) {
    $("label").textContent = `A recording: ${run.label}`;
    $("settings").textContent = `${run.disk} disk; user-data: ${run.settings || "nothing set"}`;
    $("stage").textContent = "";
  }
  for (const layer of LAYERS) {
    const at = run?.layers[layer].texts ? ` at ${run.layers[layer].texts[0]}` : "";
    $(layer).options[1].text = `stay${at}`;
  }
  draw(run?.moments.find((one) => one.time_s === 0) ?? null);
  update();
}

function draw(next) {
  moment = next;
  // The package's own figure, of this site.
  $("disk").innerHTML = moment ? moment[narrow.matches ? "narrow" : "wide"] : "";
  if (!moment && run) $("disk").append(element("p", "The disk is drawn once the guest has measured it."));
}

/** Return the prediction of a layer: stays, fills or a size; empty while it is not complete. */
function prediction(layer) {
  const choice = $(layer).value;
  if (choice !== "size") return choice;
  const size = $(`${layer}-size`).value.trim();
  return sizeProblem(size, layer) ? "" : size;
}

/** Show what the form lacks, and which buttons work. */
function update() {
  for (const layer of LAYERS) {
    $(`${layer}-size`).parentElement.hidden = $(layer).value !== "size";
    $(`${layer}-note`).textContent = sizeProblem($(`${layer}-size`).value, layer);
  }
  const predicted = LAYERS.every(prediction);
  $("missing").textContent = run && !predicted ? "Predict both to unlock Boot." : "";
  $("boot").setAttribute("aria-disabled", !run || !predicted || Boolean(playback));
  $("skip").setAttribute("aria-disabled", !playback);
}

function boot() {
  if ($("boot").getAttribute("aria-disabled") === "true") return;
  const predicted = Object.fromEntries(LAYERS.map((layer) => [layer, prediction(layer)]));
  playback = { position_s: 0, lines: 0, moments: 0, stages: 0, predicted, last_ms: performance.now() };
  $("result").hidden = true;
  $("console").replaceChildren();
  if (narrow.matches) reveal($("boot-view"), "start");
  update();
  playback.timer = setInterval(step, 100);
  step();
}

function stop() {
  clearInterval(playback?.timer);
  playback = null;
}

function step() {
  const now_ms = performance.now();
  playback.position_s += ((now_ms - playback.last_ms) / 1000) * Number($("speed").value);
  playback.last_ms = now_ms;
  show(playback.position_s);
  if (playback.position_s >= run.end_s) finish();
}

/** Show everything up to a time of the recording, in seconds since launch. */
function show(time_s) {
  const pane = $("console");
  const follows = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
  const lines = document.createDocumentFragment();
  for (; run.times[playback.lines] <= time_s; playback.lines++) lines.append(line(playback.lines));
  if (lines.childNodes.length) pane.append(lines);
  if (follows) pane.scrollTop = pane.scrollHeight;
  for (; run.stages[playback.stages]?.[1] <= time_s; playback.stages++)
    $("stage").textContent = `Boot stage: ${run.stages[playback.stages][0]}`;
  for (; run.moments[playback.moments]?.time_s <= time_s; playback.moments++) {
    const next = run.moments[playback.moments];
    draw(next);
    if (next.time_s) $("stage").textContent = next.said;
  }
  $("clock").textContent = `${Math.min(time_s, run.end_s).toFixed(1)} s of ${run.end_s.toFixed(1)} s`;
}

function line(place) {
  const text = run.lines[place];
  const made = element("span", "", { id: `line-${place + 1}`, tabindex: -1 });
  made.append(element("i", `${String(place + 1).padStart(5)} `), text);
  if (text.startsWith("@cloudlab")) made.classList.add("report");
  if (run.cited.includes(place + 1)) made.classList.add("cited");
  return made;
}

function finish() {
  show(Infinity);
  const { predicted } = playback;
  stop();
  const last = run.moments.at(-1)?.said ?? "";
  const ended = run.error ? "The boot did not finish; the recording ends" : "Done";
  $("stage").textContent = `${ended} after ${run.end_s.toFixed(1)} s. ${last} The result is below.`;
  $("result-head").textContent = `Result: ${run.title}`;
  $("origin").textContent = $("label").textContent;
  $("teaches").textContent = run.teaches;
  $("error").hidden = !run.error;
  $("error").textContent = run.error;
  $("rows").replaceChildren(...LAYERS.map((layer) => row(layer, predicted[layer])));
  $("explanation").innerHTML = run.explanation; // the package's own HTML, everything in it escaped
  $("result").hidden = false;
  update();
}

function row(layer, predicted) {
  const measured = run.layers[layer];
  const made = element("tr");
  const said = verdict(predicted, measured);
  made.append(element("th", layer, { scope: "row" }));
  for (const end of [0, 1]) {
    const text = measured.texts?.[end] ?? (end ? "" : "not measured");
    const cell = element("td");
    cell.append(measured.bytes ? element("data", text, { value: measured.bytes[end] }) : text);
    made.append(cell);
  }
  made.append(element("td", inWords(predicted, layer)), element("td", said, { class: said }));
  return made;
}

function reveal(target, block) {
  target.scrollIntoView({ block, behavior: calm.matches ? "auto" : "smooth" });
}

/** Lead from a piece of evidence to its line of the console. */
function follow(event) {
  const id = event.target.closest?.("a[href^='#line-']")?.hash.slice(1);
  if (!id || !$(id)) return;
  event.preventDefault();
  document.querySelector("#console .found")?.classList.remove("found");
  $(id).classList.add("found");
  $(id).focus({ preventScroll: true });
  $("console").scrollTop = $(id).offsetTop - $("console").offsetTop - $("console").clientHeight / 2;
  reveal($("console"), "nearest");
}

function combine() {
  const one = index.combinations[`${$("growpart").value}/${$("resize_rootfs").value}`];
  return one.differences.length ? choose(UNRECORDED, one) : choose(one.name);
}

async function start() {
  for (const layer of LAYERS)
    $(layer).append(
      new Option("choose ...", ""), new Option("stay", "stays"),
      new Option(layer === "partition" ? "fill the disk" : "fill its partition", "fills"),
      new Option("have another size", "size"),
    );
  index = await (await fetch("data/index.json")).json();
  fillCases();
  $("case").addEventListener("change", () => choose($("case").value));
  for (const name of ["growpart", "resize_rootfs"]) $(name).addEventListener("change", combine);
  $("prediction").addEventListener("input", update);
  $("form").addEventListener("submit", (event) => { event.preventDefault(); boot(); });
  $("skip").addEventListener("click", () => playback && finish());
  $("explanation").addEventListener("click", follow);
  narrow.addEventListener("change", () => draw(moment));
  await combine();
}

for (const event of ["error", "unhandledrejection"])
  addEventListener(event, ({ message, reason }) => {
    $("stage").textContent = `The recording could not be loaded: ${message ?? reason.message}.`;
  });
start();

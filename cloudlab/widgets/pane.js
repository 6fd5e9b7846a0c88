// A part of the page whose content changes often: the outer element stays, and with it the
// focus, the scroll position, and what a screen reader knows of it.
function render({ model, el }) {
  const look = model.get("look");
  const scrolls = look.includes("console");
  const pane = make("div", {
    class: `cloudlab-pane ${look}`,
    role: model.get("role") || null,
    "aria-label": model.get("name") || null,
    tabindex: scrolls ? 0 : null,
    // A boot prints faster than anybody could listen to.
    "aria-live": scrolls ? "off" : null,
  });
  const head = make("summary");
  const folds = model.get("folds");
  const frame = folds
    ? make("details", { class: "cloudlab-fold", open: folds === "open" ? "" : null }, head, pane)
    : pane;

  function show() {
    const atEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 30;
    const focused = document.activeElement?.closest?.("[data-key]")?.dataset.key;
    const before = new Map();
    for (const part of pane.querySelectorAll("[data-key]")) before.set(part.dataset.key, part.style.cssText);
    pane.innerHTML = model.get("html");
    head.innerHTML = model.get("summary");
    frame.classList.toggle("cloudlab-empty", !pane.innerHTML);
    for (const part of pane.querySelectorAll("[data-key]")) {
      if (part.dataset.key === focused) part.focus();
      // A part of the disk that changed moves from its former place.
      const now = part.style.cssText, then = before.get(part.dataset.key);
      if (then && then !== now) {
        part.style.cssText = then;
        void part.offsetWidth;
        part.style.cssText = now;
      }
    }
    if (scrolls && atEnd) pane.scrollTop = pane.scrollHeight;
  }

  // A console that is opened shows its end.
  frame.addEventListener("toggle", () => { if (!frame.dataset.found) pane.scrollTop = pane.scrollHeight; });

  // Evidence: show the console line that a button names, and mark it.
  pane.addEventListener("click", (event) => {
    const number = event.target.closest("button[data-line]")?.dataset.line;
    const panel = pane.closest(".cloudlab-panel");
    const line = number && panel?.querySelector(`[data-number="${number}"]`);
    if (!line) return;
    for (const one of panel.querySelectorAll(".cloudlab-found")) one.classList.remove("cloudlab-found");
    for (let fold = line.closest("details"); fold; fold = fold.parentElement.closest("details")) {
      fold.dataset.found = number;
      fold.open = true;
    }
    line.classList.add("cloudlab-found");
    line.tabIndex = -1;
    line.scrollIntoView({ block: "center" });
    line.focus({ preventScroll: true });
  });

  function gone() {
    if (look === "gone") {
      // The style in it goes on hiding what is kept for a notebook that is opened again.
      if (pane.getAttribute("role") !== "alert") pane.append(model.get("name"));
      pane.setAttribute("role", "alert");
    }
  }

  show();
  const releases = [keepKeys(pane), whenGone(model, gone)];
  model.on("change:html", show);
  model.on("change:summary", show);
  el.append(frame);
  return () => {
    for (const release of releases) release();
    model.off("change:html", show);
    model.off("change:summary", show);
  };
}

export default { render };

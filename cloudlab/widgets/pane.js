// A part of the page whose content changes often: the outer element stays, and with it the
// focus, the place where it was scrolled to, and what a screen reader knows of it.
function render({ model, el }) {
  const pane = document.createElement("div");
  pane.className = `cloudlab-pane ${model.get("look")}`;
  const name = model.get("name");
  if (name) pane.setAttribute("aria-label", name);
  if (model.get("role")) pane.setAttribute("role", model.get("role"));
  if (model.get("scrolls")) {
    pane.tabIndex = 0;
    // A boot prints faster than anybody could listen to.
    pane.setAttribute("aria-live", "off");
  }
  function show() {
    const atEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 30;
    pane.innerHTML = model.get("html");
    if (model.get("scrolls") && atEnd) pane.scrollTop = pane.scrollHeight;
  }
  show();
  model.on("change:html", show);
  el.append(pane);
  // As in form.js: plain keys scroll the pane, and do not go to JupyterLab.
  const mark = (event) => {
    if (pane.contains(event.target)) {
      const ours = !(event.ctrlKey || event.metaKey || event.altKey);
      event.target.toggleAttribute("data-lm-suppress-shortcuts", ours);
    }
  };
  window.addEventListener("keydown", mark, true);
  return () => {
    window.removeEventListener("keydown", mark, true);
    model.off("change:html", show);
  };
}

export default { render };

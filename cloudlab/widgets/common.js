// What forms and panes share; native.py puts it before each of them.

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// JupyterLab would take arrow keys pressed in a control for its own shortcuts; this attribute
// prevents it.  JupyterLab reads it in the document's capture phase, so it is set before, in the
// window's; and not for Ctrl+S and its like, which stay JupyterLab's.
function keepKeys(root) {
  const mark = (event) => {
    if (root.contains(event.target)) {
      const ours = !(event.ctrlKey || event.metaKey || event.altKey);
      event.target.toggleAttribute("data-lm-suppress-shortcuts", ours);
    }
  };
  window.addEventListener("keydown", mark, true);
  return () => window.removeEventListener("keydown", mark, true);
}

// Call `react` once the kernel that this widget belongs to is gone: restarted, ended or dead.
// The widget manager itself notices only a restart.
const GONE = ["restarting", "autorestarting", "terminating", "dead"];

function whenGone(model, react) {
  const kernel = model.widget_manager?.kernel;
  const status = (_, now) => GONE.includes(now) && react();
  model.on("comm:dead", react);
  kernel?.statusChanged?.connect(status);
  kernel?.disposed?.connect?.(react);
  if (kernel?.isDisposed) react();
  return () => {
    model.off("comm:dead", react);
    kernel?.statusChanged?.disconnect(status);
    kernel?.disposed?.disconnect?.(react);
  };
}

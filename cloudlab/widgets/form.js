// Native controls: a label that belongs to each, and keys that reach them.
function options(select, choices) {
  select.replaceChildren(...choices.map(([value, label]) => make("option", { value }, label)));
}

const KINDS = {
  select: (field, own) => {
    const node = make("select", own);
    options(node, field.choices);
    return node;
  },
  text: (field, own) => make("input", { ...own, type: "text", spellcheck: "false" }),
  textarea: (field, own) => make("textarea", { ...own, rows: field.rows, spellcheck: "false" }),
  checkbox: (field, own) => make("input", { ...own, type: "checkbox" }),
  range: (field, own) =>
    make("input", { ...own, type: "range", min: field.min, max: field.max, step: field.step }),
};

function read(field, node) {
  if (field.kind === "checkbox") return node.checked;
  return field.kind === "range" ? Number(node.value) : node.value;
}

function write(field, node, value) {
  if (field.kind === "checkbox") node.checked = Boolean(value);
  else if (field.kind === "range") node.value = value ?? field.min;
  // The caret of who types must not jump.
  else if (node.value !== (value ?? "")) node.value = value ?? "";
}

function render({ model, el }) {
  const root = make("div", { class: "cloudlab-form", role: "group", "aria-label": model.get("label") });
  const parts = new Map();
  const groups = new Map();

  function groupOf(field) {
    if (!field.group) return root;
    if (!groups.has(field.group)) {
      const body = make("div", { class: "cloudlab-form" });
      const summary = make("summary", {}, field.group);
      root.append(make("details", { class: "cloudlab-more" }, summary, body));
      groups.set(field.group, body);
    }
    return groups.get(field.group);
  }

  function addButton(field) {
    const node = make("button", { type: "button", title: field.help }, field.label);
    node.className = `jp-mod-styled ${field.primary ? "jp-mod-accept" : ""} cloudlab-button`;
    node.addEventListener("click", () => {
      if (node.getAttribute("aria-disabled") !== "true") model.send({ press: field.name });
    });
    let bar = groupOf(field).lastElementChild;
    if (!bar || bar.className !== "cloudlab-bar") {
      bar = make("div", { class: "cloudlab-bar" });
      groupOf(field).append(bar);
    }
    bar.append(node);
    parts.set(field.name, { field, node, frame: node });
  }

  function addControl(field) {
    const id = `cloudlab-${Math.random().toString(36).slice(2)}`;
    const own = { id, "aria-describedby": `${id}-help` };
    const node = KINDS[field.kind](field, own);
    const shown = make("output", { for: id });
    const label = make("label", { for: id }, field.label);
    const help = make("small", { id: `${id}-help` }, field.help);
    const frame = make("div", { class: `cloudlab-field cloudlab-${field.kind}` });
    frame.append(label, node, ...(field.kind === "range" ? [shown] : []), help);
    node.addEventListener("input", () => {
      model.set("values", { ...model.get("values"), [field.name]: read(field, node) });
      model.save_changes();
    });
    groupOf(field).append(frame);
    parts.set(field.name, { field, node, frame, label, help, shown });
  }

  function addQuestion(field) {
    const frame = make("fieldset", { class: "cloudlab-question" }, make("legend", {}, field.label));
    const name = `cloudlab-${Math.random().toString(36).slice(2)}`;
    const radios = field.choices.map(([value, label]) => {
      const radio = make("input", { type: "radio", name, value });
      radio.addEventListener("change", () => {
        model.set("values", { ...model.get("values"), [field.name]: value });
        model.save_changes();
      });
      frame.append(make("label", {}, radio, " ", label));
      return radio;
    });
    const help = make("p", { class: "cloudlab-answer", role: "status" });
    frame.append(help);
    groupOf(field).append(frame);
    parts.set(field.name, { field, node: frame, frame, help, radios });
  }

  function showValues() {
    const values = model.get("values");
    for (const { field, node, radios, shown } of parts.values()) {
      const value = values[field.name];
      if (radios) for (const radio of radios) radio.checked = radio.value === value;
      else if (field.kind !== "button") write(field, node, value);
      if (shown) shown.value = value === null || value === undefined ? field.unset : `${value} ${field.unit}`;
      if (field.kind === "range") node.setAttribute("aria-valuetext", shown.value);
    }
  }

  // What changes while somebody works is changed in place: a control made anew loses the focus.
  function showState() {
    const state = model.get("state");
    for (const [name, { field, node, frame, label, help, radios }] of parts) {
      const now = state[name] ?? {};
      frame.hidden = Boolean(now.hidden);
      if (field.kind === "button") {
        // Not disabled: a button that is pressed and goes dead takes the focus with it.
        node.setAttribute("aria-disabled", String(Boolean(now.disabled)));
        node.textContent = now.label ?? field.label;
        node.title = now.help ?? field.help;
        continue;
      }
      if (radios) help.textContent = now.help ?? "";
      else {
        node.disabled = Boolean(now.disabled);
        if (now.max !== undefined) node.max = now.max;
        if (now.choices !== undefined && JSON.stringify(now.choices) !== node.dataset.choices) {
          options(node, now.choices);
          node.dataset.choices = JSON.stringify(now.choices);
        }
        label.textContent = now.label ?? field.label;
        help.textContent = now.help ?? field.help;
      }
    }
    showValues();
  }

  for (const field of model.get("fields")) {
    if (field.kind === "button") addButton(field);
    else if (field.kind === "question") addQuestion(field);
    else addControl(field);
  }
  function gone() {
    for (const node of root.querySelectorAll("input, select, textarea, button")) {
      node.disabled = true;
      if (node.tagName === "BUTTON") node.setAttribute("aria-disabled", "true");
    }
  }

  showState();
  model.on("change:values", showValues);
  model.on("change:state", showState);
  el.append(root);
  const releases = [keepKeys(root), whenGone(model, gone)];
  return () => {
    for (const release of releases) release();
    model.off("change:values", showValues);
    model.off("change:state", showState);
  };
}

export default { render };

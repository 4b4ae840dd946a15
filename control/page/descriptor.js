// The editor of a descriptor: a form and its JSON, kept in step. The object is
// the truth; fields that the form does not know stay in it untouched.

const methods = ["POST", "GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "ANY"];

// descriptorEditor builds itself into parent. fixed names the fields that cannot
// be changed here; changed is called after each change by hand.
const descriptorEditor = (parent, prefix, { fixed = [], changed = () => {} } = {}) => {
  let value = {};
  let broken = ""; // why the JSON's text is no object; empty: it is one
  const fields = {}; // name → {box, input, error, read, show}
  const touched = () => { write(); changed(); };
  const isObject = (v) => v !== null && typeof v === "object" && !Array.isArray(v);

  const box = (name, label, hint, input, wrapped) => {
    const error = make("p.error", { id: prefix + name + "-error" });
    input.setAttribute("aria-describedby", error.id);
    input.id = prefix + name;
    if (fixed.includes(name)) input.disabled = true;
    const element = make("div.field", null,
      make("label", { for: input.id }, label), wrapped || input, hint ? make("span.hint", null, hint) : null, error);
    fields[name] = { element, input, error };
    return element;
  };
  const text = (name, label, { hint, placeholder, mono, unit, number } = {}) => {
    const input = make(mono ? "input.mono" : "input", { type: "text", placeholder, spellcheck: false, autocomplete: "off", autocapitalize: "off", inputMode: number ? "decimal" : "text" });
    const element = box(name, label, hint, input, unit ? make("div.with-unit", null, input, make("span", null, unit)) : null);
    fields[name].show = () => { input.value = value[name] === undefined ? "" : typeof value[name] === "string" ? value[name] : JSON.stringify(value[name]); };
    input.addEventListener("input", () => {
      const typed = input.value.trim();
      if (typed === "") delete value[name];
      // What is no number goes to the server as it is: it says what it wants.
      else value[name] = number && Number.isFinite(Number(typed)) ? Number(typed) : input.value;
      touched();
    });
    return element;
  };
  const choice = (name, label, options, unset) => {
    const select = make("select", null, ...options.map(([v, l]) => make("option", { value: v }, l)));
    const element = box(name, label, "", select);
    fields[name].show = () => {
      const now = value[name] === undefined ? unset : String(value[name]);
      if (![...select.options].some((o) => o.value === now)) select.append(make("option", { value: now }, now));
      select.value = now;
    };
    select.addEventListener("change", () => {
      if (select.value === unset) delete value[name];
      else value[name] = select.value;
      touched();
    });
    return element;
  };
  const check = (name, label) => {
    const input = make("input", { type: "checkbox", id: prefix + name });
    const error = make("p.error", { id: prefix + name + "-error" });
    input.setAttribute("aria-describedby", error.id);
    const element = make("div", null, make("label.check", null, input, label), error);
    fields[name] = { element, input, error, show: () => { input.checked = value[name] === true; } };
    input.addEventListener("change", () => {
      if (input.checked) value[name] = true;
      else delete value[name];
      touched();
    });
    return element;
  };

  // The environment: rows of name and value.
  let rows = [];
  const envRows = make("div.env");
  const envError = make("p.error", { id: prefix + "env-error" });
  const readEnv = () => {
    const env = {};
    const twice = [];
    for (const row of rows) {
      const name = row.name.value.trim();
      if (name !== "" && Object.hasOwn(env, name)) twice.push(row);
      if (name !== "" || row.value.value !== "") env[name] = row.value.value;
    }
    if (Object.keys(env).length) value.env = env;
    else delete value.env;
    touched();
    for (const row of twice) row.error.textContent = "This name is given twice: the last one counts.";
  };
  const addRow = (name, text) => {
    const row = {
      name: make("input.mono", { type: "text", value: name, placeholder: "NAME", "aria-label": "Name of a variable", spellcheck: false, autocomplete: "off", autocapitalize: "off", on: { input: readEnv } }),
      value: make("input.mono", { type: "text", value: text, placeholder: "value", "aria-label": "Value of the variable", spellcheck: false, autocomplete: "off", autocapitalize: "off", on: { input: readEnv } }),
      error: make("p.error"),
    };
    row.element = make("div.env-row", null, row.name, row.value, make("button.quiet", { type: "button", "aria-label": "Remove this variable", on: { click: () => {
      rows = rows.filter((r) => r !== row);
      row.element.remove();
      readEnv();
      addButton.focus();
    } } }, "Remove"), row.error);
    rows.push(row);
    envRows.append(row.element);
    return row;
  };
  const addButton = make("button", { type: "button", on: { click: () => addRow("", "").name.focus() } }, "Add a variable");
  fields.env = {
    element: envRows, input: addButton, error: envError,
    show: () => {
      const env = isObject(value.env) ? Object.entries(value.env) : [];
      if (JSON.stringify(env) === JSON.stringify(rows.map((r) => [r.name.value, r.value.value]))) return;
      rows = [];
      envRows.replaceChildren();
      for (const [name, text] of env) addRow(name, typeof text === "string" ? text : JSON.stringify(text));
    },
  };

  // Method and path stand together, as on the wire.
  choice("method", "Method", methods.map((m) => [m, m]), "ANY");
  text("path", "Path", { placeholder: "/api/…, chosen for you", mono: true });
  const route = make("div.field", null,
    make("span.label-row", null, "Route"),
    make("div.joined", null, fields.method.input, fields.path.input),
    make("span.hint", null, "Parts like {id} match one segment, a last /* the rest."),
    fields.method.error, fields.path.error);
  for (const [part, label] of [["method", "Method"], ["path", "Path"]]) fields[part].input.setAttribute("aria-label", label);

  const target = choice("target", "Compiled to", [["", "native program"], ["wasm", "WebAssembly"]], "");
  const more = make("details", null,
    make("summary", null, "More: limits, environment, rights"),
    make("div.form", null,
      ...[text("max_body", "Largest body", { number: true, unit: "bytes", placeholder: "10485760" }),
        text("max_inflight", "Requests at a time", { number: true, placeholder: "no limit" }),
        text("handler", "Handler", { mono: true, placeholder: "main" }),
        text("processes", "Further processes", { number: true, placeholder: "0" }),
      ].map((e) => { e.classList.add("half"); return e; }),
      make("div.field", null, make("span.label-row", null, "Environment"), envRows, addButton, envError),
      make("div.checks", null, check("network", "May open network connections"), check("freeze", "Start from a snapshot"))));
  const name = text("name", "Name", { placeholder: "hello", hint: "The same name again makes a new version." });
  const memory = text("memory", "Memory", { number: true, unit: "MB", placeholder: "128" });
  const timeout = text("timeout", "Timeout", { number: true, unit: "seconds", placeholder: "30" });
  memory.classList.add("half");
  timeout.classList.add("half");
  const others = make("ul.field-errors", { role: "alert" });
  const form = make("div.form", null, others, name, route, memory, timeout, target, more);

  const json = make("textarea.mono.json", { id: prefix + "json", spellcheck: false, autocomplete: "off", autocapitalize: "off", "aria-label": "Descriptor as JSON", wrap: "off" });
  const jsonErrors = make("ul.field-errors", { role: "alert", id: prefix + "json-errors" });
  json.setAttribute("aria-describedby", jsonErrors.id);
  const raw = make("div.stack", { hidden: true }, json, jsonErrors);
  parent.replaceChildren(form, raw);

  const write = () => {
    json.value = JSON.stringify(value, null, 2);
    broken = "";
    clear();
    shape();
  };
  const shape = () => {
    const r = runtimeOf(value.runtime);
    target.hidden = !(r && r.targets) && value.target === undefined;
  };
  const show = () => {
    for (const f of Object.values(fields)) f.show();
    shape();
  };
  const clear = () => {
    for (const f of Object.values(fields)) {
      f.error.textContent = "";
      f.input.removeAttribute("aria-invalid");
    }
    for (const row of rows) {
      row.error.textContent = "";
      row.name.removeAttribute("aria-invalid");
    }
    json.removeAttribute("aria-invalid");
    others.replaceChildren();
    jsonErrors.replaceChildren();
  };
  json.addEventListener("input", () => {
    clear();
    try {
      const parsed = JSON.parse(json.value);
      if (!isObject(parsed)) throw new Error("a descriptor is one JSON object");
      value = parsed;
      broken = "";
      show();
    } catch (error) {
      broken = error.message;
      json.setAttribute("aria-invalid", "true");
      jsonErrors.replaceChildren(make("li", null, "Not JSON yet: " + broken));
    }
    changed();
  });

  const shown = () => raw.hidden ? "form" : "json";
  return {
    // get gives the object; what is no JSON is a Failure with the field.
    get() {
      if (broken) throw new Failure(0, { error: "the descriptor is not JSON", fields: [{ field: "descriptor", want: "one JSON object", got: broken }] });
      return value;
    },
    peek: () => value,
    set(next) {
      value = { ...next };
      write();
      show();
    },
    mode(which) {
      raw.hidden = which !== "json";
      form.hidden = which === "json";
    },
    shown,
    clear,
    // refuse shows what the server wants, each at its field, and puts the focus
    // on the first of them.
    refuse(wrong) {
      clear();
      let first = null;
      for (const { field, want, got } of wrong) {
        const text = ("Expected " + want + (got ? "; this is " + got : "") + ".").replace(/([?!])\.$/, "$1");
        jsonErrors.append(make("li", null, make("code", null, field), ": " + text));
        const known = fields[field] || (field.startsWith("env") ? fields.env : null);
        if (!known) {
          others.append(make("li", null, make("code", null, field), ": " + text));
          continue;
        }
        const row = field.startsWith("env.") && rows.find((r) => r.name.value === field.slice(4));
        const error = row ? row.error : known.error;
        error.textContent = error.textContent ? error.textContent + " " + text : text;
        (row ? row.name : known.input).setAttribute("aria-invalid", "true");
        if (more.contains(known.input)) more.open = true;
        first = first || (row ? row.name : known.input);
      }
      json.setAttribute("aria-invalid", "true");
      if (shown() === "json") json.focus();
      else if (first) first.focus();
    },
  };
};

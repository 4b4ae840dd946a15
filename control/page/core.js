// What the other files stand on: elements, calls of the API, streams.

const at = (id) => document.getElementById(id);

// make creates an element: "div.card.flush", properties, children. Every text
// enters the page as text, never as markup.
const make = (what, properties, ...children) => {
  const [name, ...classes] = what.split(".");
  const e = document.createElement(name);
  if (classes.length) e.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null) continue;
    if (key === "on") for (const [event, f] of Object.entries(value)) e.addEventListener(event, f);
    else if (key in e && !key.startsWith("aria")) e[key] = value;
    else e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
};

const vector = (name, attributes, ...children) => {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes || {})) e.setAttribute(key, value);
  e.append(...children);
  return e;
};

// say changes a text only when it is another: what did not change is not
// painted, selected away or read out again.
const say = (e, text) => { if (e.textContent !== String(text)) e.textContent = text; };

// keyed makes parent's children fit items, keeping the element of each key, and
// with it focus and selection. create returns [element, update(item)].
const keyed = (parent, items, keyOf, create) => {
  const old = parent.known || new Map();
  const known = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const entry = old.get(key) || create(item);
    old.delete(key);
    known.set(key, entry);
    entry[1](item);
    if (entry[0] === place) place = place.nextElementSibling;
    else parent.insertBefore(entry[0], place);
  }
  for (const [element] of old.values()) element.remove();
  parent.known = known;
};

const count = (v) => Number(v || 0).toLocaleString("en");
const plural = (n, one, many) => count(n) + " " + (n === 1 ? one : many || one + "s");
const percent = (v) => v < 0 ? "–" : v.toFixed(1);
const bytes = (n) => {
  const units = ["B", "KB", "MB", "GB"];
  let u = 0;
  for (; n >= 1000 && u < units.length - 1; u++) n /= 1000;
  return (u && n < 10 ? n.toFixed(1) : Math.round(n)) + " " + units[u];
};
const duration = (ms) => ms < 1000 ? Math.round(ms) + " ms" : ms < 60000 ? (ms / 1000).toFixed(ms < 10000 ? 2 : 1) + " s" : Math.floor(ms / 60000) + " min " + Math.round(ms % 60000 / 1000) + " s";
const ago = (date) => {
  const s = (Date.now() - date) / 1000;
  if (!(s > -60)) return date.toLocaleString();
  if (s < 45) return "just now";
  for (const [unit, size, next] of [["minute", 60, 3600], ["hour", 3600, 86400], ["day", 86400, 86400 * 30]]) {
    if (s < next) return plural(Math.max(1, Math.round(s / size)), unit) + " ago";
  }
  return date.toLocaleDateString();
};

// Failure is an answer that says no. code is the HTTP status, 0 without one.
class Failure extends Error {
  constructor(code, body) {
    super(body.error || body.message || "the server answered " + code);
    this.code = code;
    this.reason = body.reason || "";
    this.details = body.details || "";
    this.hint = body.hint || "";
    this.fields = body.fields || [];
    this.requestId = body.requestId || "";
  }
}

const failureOf = async (response) => {
  let body = {};
  try { body = await response.json(); } catch { /* the status has to do */ }
  return new Failure(response.status, body);
};

// call asks the server; what it refuses is thrown as a Failure.
const call = async (path, options) => {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, { error: "the server does not answer" });
  }
  if (response.ok) return response;
  const failure = await failureOf(response);
  if (response.status === 401) app.signedOut();
  throw failure;
};

const ask = async (path, options) => {
  const response = await call(path, options);
  return response.status === 204 ? null : response.json();
};

const sendJSON = (path, method, value, headers) =>
  ask(path, { method, headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(value) });

// turns puts answers into order where two of the same question overtake each
// other. take says whether an answer counts: none to a later question did, and
// nothing was outdated since it was asked.
const turns = () => {
  let asked = 0;
  let taken = 0;
  return {
    ask: () => ++asked,
    take(turn) {
      if (turn <= taken) return false;
      taken = turn;
      return true;
    },
    outdate() { taken = asked; },
  };
};

const pathOf = (name) => "/system/functions/" + encodeURIComponent(name);

// lines reads a body line by line, as it comes.
async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}

// events reads the text/event-stream of a response: HTML, section 9.2.6. An
// event that the end cuts off is not one.
async function* events(response) {
  let name = "message";
  let data = [];
  for await (const raw of lines(response)) {
    const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
    if (line === "") {
      if (data.length) yield { name, data: JSON.parse(data.join("\n")) };
      name = "message";
      data = [];
      continue;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
  }
}

let toastTimer = 0;
const toast = (text) => {
  clearTimeout(toastTimer);
  at("toast").textContent = text;
  at("toast").classList.add("on");
  toastTimer = setTimeout(() => at("toast").classList.remove("on"), 2600);
};

// copy puts a text on the clipboard. navigator.clipboard is there on localhost
// and over TLS only; elsewhere the old way still works.
const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea.hidden", { value: text, readOnly: true });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast("Copied");
};

const copyLine = (text, label) => make("div.copy-line", null,
  make("code", null, text), make("button", { type: "button", "aria-label": label, on: { click: () => copy(text) } }, "Copy"));

const pill = (text, kind) => make("span.pill" + (kind ? "." + kind : ""), null, text);

// confirmed asks back before what cannot be undone, then does it. Each question
// is a dialog of its own: a browser tells of a dialog's end a frame later, when
// the next question may be open already. The dialog stays open with the reason
// when act is refused; what it was is a toast when the dialog was left meanwhile.
// Gives whether it was done.
const confirmed = (title, text, yes, fatal, act) => new Promise((resolve) => {
  let acting = false;
  const end = (done) => {
    dialog.close();
    dialog.remove();
    resolve(done);
  };
  const wrong = make("p.error", { role: "alert" });
  const no = make("button.quiet", { type: "button", id: "confirm-no", on: { click: () => end(false) } }, "Cancel");
  const go = make("button." + (fatal ? "fatal" : "primary"), { type: "button", id: "confirm-yes", on: { click: async () => {
    acting = go.disabled = no.disabled = true; // what was sent cannot be cancelled
    wrong.textContent = "";
    try {
      await act();
    } catch (error) {
      acting = go.disabled = no.disabled = false;
      if (dialog.open) wrong.textContent = error.message;
      else {
        toast(error.message);
        end(false);
      }
      return;
    }
    end(true);
  } } }, yes);
  // Escape and a way to another view close it as well.
  const dialog = make("dialog", { id: "confirm", "aria-labelledby": "confirm-title", on: { close: () => { if (!acting) end(false); } } },
    make("h2", { id: "confirm-title" }, title), make("p", null, text), wrong, make("div.actions", null, no, go));
  document.body.append(dialog);
  dialog.showModal();
  no.focus();
});

// chart draws values, oldest first, into parent: a line over an area, against
// the greatest of them, but at least floor.
const chart = (parent, values, slots, floor) => {
  if (!parent.line) {
    parent.line = vector("path", { class: "spark-line" });
    parent.area = vector("path", { class: "spark-area" });
    parent.replaceChildren(vector("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" }, parent.area, parent.line));
  }
  if (!values.length) {
    parent.line.setAttribute("d", "");
    parent.area.setAttribute("d", "");
    return;
  }
  const top = Math.max(floor, ...values);
  const x = (i) => 100 - (values.length - 1 - i) * 100 / (slots - 1);
  const points = values.map((v, i) => x(i).toFixed(2) + " " + (98 - 94 * Math.max(0, v) / top).toFixed(2));
  parent.line.setAttribute("d", "M" + points.join("L"));
  parent.area.setAttribute("d", "M" + x(0).toFixed(2) + " 100L" + points.join("L") + "L100 100Z");
};

const meter = () => {
  const fill = make("i");
  return [make("div.meter", { "aria-hidden": "true" }, fill), (value) => { fill.style.transform = "scaleX(" + Math.max(0, Math.min(100, value)) / 100 + ")"; }];
};

// shell quotes a text for a POSIX shell.
const shell = (text) => /^[\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'";

// curlFor is the command that does what the page would do.
const curlFor = (method, url, headers, body) => {
  const parts = ["curl"];
  if (body ? method !== "POST" : method !== "GET") parts.push(method === "HEAD" ? "-I" : "-X " + method);
  for (const [name, value] of headers || []) parts.push("-H " + shell(name + ": " + value));
  if (body) parts.push("--data-binary " + shell(body));
  parts.push(shell(url));
  return parts.join(" ");
};

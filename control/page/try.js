// "Try it": a request to the function as its clients make it, by the function's
// own address and without the session.

const hexOf = (data) => [...data.slice(0, 256)].map((b, i) => b.toString(16).padStart(2, "0") + (i % 16 === 15 ? "\n" : " ")).join("");
const responseBytesMax = 1 << 20; // more than eyes read; the rest is counted

// tryIt builds itself into parent. routes are {method, path}; the function's own
// name answers any method too.
const tryIt = (parent, prefix, { name, routes, sample = "" }) => {
  const addresses = [
    ...routes.map((r) => ({ methods: r.method === "ANY" ? ["POST", "GET", "PUT", "PATCH", "DELETE"] : [r.method], path: r.path })),
    { methods: ["POST", "GET", "PUT", "PATCH", "DELETE"], path: "/function/" + encodeURIComponent(name) },
  ];
  const path = make("input.mono", { id: prefix + "path", type: "text", spellcheck: false, autocomplete: "off", autocapitalize: "off", "aria-label": "Path", value: addresses[0].path.replace(/\/\*$/, "/") });
  path.setAttribute("list", prefix + "paths");
  const list = make("datalist", { id: prefix + "paths" }, ...addresses.map((a) => make("option", { value: a.path })));
  const verbs = ["POST", "GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
  const method = make("select", { "aria-label": "Method", id: prefix + "method" }, ...verbs.map((m) => make("option", { value: m }, m)));
  method.value = addresses[0].methods[0];
  const body = make("textarea.mono", { id: prefix + "body", spellcheck: false, autocomplete: "off", autocapitalize: "off", value: sample });
  const headers = make("textarea.mono", { id: prefix + "headers", rows: 2, spellcheck: false, autocomplete: "off", autocapitalize: "off", placeholder: "Content-Type: application/json" });
  const bodyField = make("div.field", null, make("label", { for: body.id }, "Body"), body);
  const send = make("button.primary", { type: "submit" }, "Send");
  const stop = make("button", { type: "button", hidden: true, on: { click: () => running && running.abort() } }, "Stop");
  const curl = make("div");
  const wrong = make("p.error", { role: "alert" });
  const response = make("div.response", { "aria-live": "polite" });
  let running = null;

  const headerList = () => headers.value.split("\n").map((l) => l.trim()).filter(Boolean).map((l) => {
    const colon = l.indexOf(":");
    if (colon < 1) throw new Error("a header is “Name: value”; this is " + JSON.stringify(l));
    return [l.slice(0, colon).trim(), l.slice(colon + 1).trim()];
  });
  const hasBody = () => !["GET", "HEAD"].includes(method.value);
  const sync = () => {
    bodyField.hidden = !hasBody();
    wrong.textContent = "";
    let given = [];
    try { given = headerList(); } catch { /* said when it is sent */ }
    curl.replaceChildren(copyLine(curlFor(method.value, location.origin + path.value, given, hasBody() ? body.value : ""), "Copy the curl command"));
  };

  const show = async (answer, began) => {
    const status = make("strong" + (answer.ok ? ".ok" : ".notok"), null, String(answer.status));
    const took = make("span.soft", null, duration(performance.now() - began));
    const size = make("span.soft");
    const text = make("pre.log", { tabIndex: 0, "aria-label": "Body of the response" });
    const list = make("dl.fields-list", null, ...[...answer.headers].flatMap(([k, v]) => [make("dt", null, k), make("dd", null, v)]));
    response.replaceChildren(make("div.status-line", null, status, make("span", null, answer.statusText), took, size), text,
      make("details", null, make("summary", null, plural([...answer.headers].length, "header")), list));
    const chunks = [];
    let total = 0;
    let kept = 0;
    const reader = answer.body && answer.body.getReader();
    const type = answer.headers.get("Content-Type") || "";
    const paint = (ended) => {
      const all = new Uint8Array(kept);
      let i = 0;
      for (const c of chunks) { all.set(c, i); i += c.length; }
      size.textContent = bytes(total) + (ended ? "" : " so far");
      let shown;
      try { shown = new TextDecoder("utf-8", { fatal: ended && total === kept }).decode(all); } catch { shown = hexOf(all) + (total > 256 ? "…" : ""); }
      if (ended && /json/.test(type)) try { shown = JSON.stringify(JSON.parse(shown), null, 2); } catch { /* as it is */ }
      text.textContent = shown + (kept < total ? "\n… and " + bytes(total - kept) + " more" : "");
      if (ended && !total) text.textContent = "(an empty body)";
    };
    for (;;) {
      const { value, done } = reader ? await reader.read() : { done: true };
      if (done) break;
      total += value.length;
      if (kept < responseBytesMax) {
        const part = value.subarray(0, responseBytesMax - kept);
        chunks.push(part);
        kept += part.length;
        paint(false);
      }
    }
    took.textContent = duration(performance.now() - began);
    paint(true);
  };

  const go = async (event) => {
    event.preventDefault();
    if (running) return;
    wrong.textContent = "";
    let options;
    try {
      if (!path.value.startsWith("/")) throw new Error("the path starts with /");
      options = { method: method.value, headers: headerList(), cache: "no-store", credentials: "omit", redirect: "follow" };
      if (hasBody()) options.body = body.value;
    } catch (error) {
      wrong.textContent = error.message;
      return;
    }
    running = new AbortController();
    send.disabled = true;
    stop.hidden = false;
    response.replaceChildren(make("p.waiting", null, "Waiting for the answer…"));
    const began = performance.now();
    try {
      await show(await fetch(path.value, { ...options, signal: running.signal }), began);
    } catch (error) {
      const what = error.name === "AbortError" ? "Stopped" : "No answer";
      response.replaceChildren(make("div.failure", null, make("strong", null, what), make("p", null,
        error.name === "AbortError" ? "after " + duration(performance.now() - began) + "." : "The connection was closed, or the request could not be sent: " + error.message)));
    } finally {
      running = null;
      send.disabled = false;
      stop.hidden = true;
    }
  };

  for (const e of [path, method, body, headers]) e.addEventListener("input", sync);
  path.addEventListener("change", () => {
    const known = addresses.find((a) => a.path === path.value);
    if (known && !known.methods.includes(method.value)) method.value = known.methods[0];
    sync();
  });
  parent.replaceChildren(make("form.try", { on: { submit: go } },
    make("div", null,
      make("div.field", null, make("span.label-row", null, "Request"), make("div.joined", null, method, path), list),
      bodyField,
      make("details", null, make("summary", null, "Headers"), make("div.field", null, make("label.hidden", { for: headers.id }, "Headers, one a line"), headers)),
      wrong,
      make("div.actions", null, send, stop),
      make("div.field", null, make("span.label-row", null, "From a terminal"), curl)),
    response));
  response.append(make("p.waiting", null, "The answer appears here: status, headers, body and time."));
  sync();
  return { stop: () => running && running.abort() };
};

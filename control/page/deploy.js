// Deploying: code and a descriptor in, a URL out.

const stages = [["waiting", "Waiting"], ["fetching", "Fetching"], ["building", "Building"], ["preparing", "Preparing"], ["publishing", "Publishing"]];
const logCharsMax = 1 << 20; // what a browser shows without effort; the rest is cut off in front

const deploy = {
  title: "Deploy",
  view: "view-deploy",
  code: new Map(), // runtime → text, when it is not the starter's
  files: [],
  running: null,
  trying: null,

  show(name) {
    feed.looking = () => {};
    deploy.renew(name);
  },

  runtime: () => deploy.editor.peek().runtime,
  source: () => document.querySelector("input[name=source]:checked").value,

  setRuntime(id, byHand) {
    const value = { ...deploy.editor.peek(), runtime: id };
    const r = runtimeOf(id);
    if (!(r && r.targets)) delete value.target;
    // A name that was suggested follows the runtime.
    if (byHand && runtimes.some((r) => value.name === "hello-" + r.id)) value.name = "hello-" + id;
    deploy.editor.set(value);
    deploy.drawRuntime();
  },

  drawRuntime() {
    const id = deploy.runtime();
    const r = runtimeOf(id);
    for (const input of at("runtimes").querySelectorAll("input")) input.checked = Boolean(r) && input.value === r.id;
    say(at("runtime-note"), r ? r.note : "");
    const writable = Boolean(r && r.file);
    document.querySelector("input[name=source][value=paste]").disabled = Boolean(r) && !writable;
    if (r && !writable && deploy.source() === "paste") {
      document.querySelector("input[name=source][value=files]").checked = true;
    }
    at("source-paste").hidden = deploy.source() !== "paste";
    at("source-files").hidden = deploy.source() === "paste";
    if (writable && at("editor").dataset.runtime !== r.id) {
      deploy.keep();
      at("editor").dataset.runtime = r.id;
      at("editor").value = deploy.code.get(r.id) ?? starters[r.id];
      at("editor").scrollTop = 0;
    }
    say(at("editor-name"), writable ? r.file : "");
    deploy.drawEditor();
  },

  keep() {
    const id = at("editor").dataset.runtime;
    if (id) deploy.code.set(id, at("editor").value);
  },

  drawEditor(wrong) {
    const editor = at("editor");
    const n = editor.value.split("\n").length;
    const gutter = at("editor-gutter");
    if (wrong || gutter.lineCount !== n || gutter.wrong) {
      gutter.lineCount = n;
      gutter.wrong = wrong;
      gutter.replaceChildren(...Array.from({ length: n }, (_, i) => wrong && wrong.has(i + 1) ? make("span.wrong", null, String(i + 1)) : String(i + 1)).flatMap((e) => [e, "\n"]));
    }
    gutter.scrollTop = editor.scrollTop;
    const id = editor.dataset.runtime;
    at("editor-reset").hidden = !id || editor.value === starters[id];
  },

  drawFiles() {
    const list = at("file-list");
    const total = deploy.files.reduce((n, f) => n + f.file.size, 0);
    list.replaceChildren(...deploy.files.map((f) => make("li", null, make("span", null, f.path), make("span.soft", null, bytes(f.file.size)),
      make("button.quiet", { type: "button", "aria-label": "Leave out " + f.path, on: { click: () => {
        deploy.files = deploy.files.filter((other) => other !== f);
        deploy.drawFiles();
        at("pick-files").focus();
      } } }, "Remove"))));
    if (deploy.files.length > 1) list.append(make("li.sum", null, make("span", null, plural(deploy.files.length, "file") + ", packed as one zip archive"), make("span", null, bytes(total))));
  },

  take(files) {
    if (!files.length) return;
    at("code-error").textContent = "";
    deploy.files = files.sort((a, b) => a.path.localeCompare(b.path));
    deploy.drawFiles();
    const guess = runtimeOfFiles(files.map((f) => f.path));
    if (guess && guess !== deploy.runtime()) deploy.setRuntime(guess, true);
  },

  // part is the upload's code: one file as it is, several as an archive.
  async part() {
    if (deploy.source() === "paste") {
      const r = runtimeOf(deploy.runtime());
      if (!r || !r.file) throw new Failure(0, { error: "this runtime takes files only" });
      if (!at("editor").value.trim()) throw new Failure(0, { error: "there is no code yet" });
      return [new Blob([at("editor").value]), r.file];
    }
    if (!deploy.files.length) throw new Failure(0, { error: "choose a file first" });
    if (deploy.files.length === 1) return [deploy.files[0].file, deploy.files[0].path.split("/").pop()];
    return [await zip(withoutRoot(deploy.files)), "source.zip"];
  },

  // log appends to the build log, with a button on each place in the source.
  log(text) {
    const log = at("deploy-log");
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 24;
    deploy.logText = (deploy.logText + text).slice(-logCharsMax);
    log.append(text);
    if (log.textContent.length > 2 * logCharsMax) log.textContent = deploy.logText;
    if (atEnd) log.scrollTop = log.scrollHeight;
  },

  // marks makes places of the form file:line lead to that line.
  marks() {
    const r = runtimeOf(deploy.runtime());
    if (deploy.source() !== "paste" || !r) return;
    const place = new RegExp("(?:[\\w./-]*/)?" + r.file.replace(".", "\\.") + "(?::(\\d+)(?::\\d+)?| on line (\\d+))|\\bline (\\d+)\\b", "g");
    const wrong = new Set();
    const parts = [];
    let end = 0;
    for (const found of deploy.logText.matchAll(place)) {
      const line = Number(found[1] || found[2] || found[3]);
      if (line < 1 || line > at("editor").value.split("\n").length) continue;
      wrong.add(line);
      parts.push(deploy.logText.slice(end, found.index), make("button.at", { type: "button", title: "Go to line " + line, on: { click: () => deploy.goTo(line) } }, found[0]));
      end = found.index + found[0].length;
    }
    parts.push(deploy.logText.slice(end));
    at("deploy-log").replaceChildren(...parts);
    deploy.drawEditor(wrong);
  },

  goTo(line) {
    const editor = at("editor");
    const before = editor.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    const end = editor.value.indexOf("\n", before);
    editor.focus();
    editor.setSelectionRange(before, end < 0 ? editor.value.length : end);
    editor.scrollTop = Math.max(0, (line - 6) * parseFloat(getComputedStyle(editor).lineHeight));
  },

  stage(name) {
    const index = stages.findIndex(([id]) => id === name);
    const now = performance.now();
    if (index < 0 || index === deploy.at) return;
    if (deploy.at >= 0) deploy.took[deploy.at] = now - deploy.since;
    deploy.at = index;
    deploy.since = now;
    deploy.drawSteps();
  },

  drawSteps(outcome) {
    if (outcome && deploy.at >= 0) deploy.took[deploy.at] = performance.now() - deploy.since;
    at("deploy-steps").replaceChildren(...stages.map(([, label], i) => {
      const kind = outcome === "done" || i < deploy.at ? "done" : i === deploy.at ? outcome === "failed" ? "failed" : "now" : "";
      return make("li" + (kind ? "." + kind : ""), kind === "now" ? { "aria-current": "step" } : null, label,
        deploy.took[i] !== undefined ? make("small", null, duration(deploy.took[i])) : null);
    }));
  },

  async go(event) {
    event.preventDefault();
    if (deploy.running) return;
    at("code-error").textContent = "";
    deploy.editor.clear();
    deploy.running = new AbortController();
    at("deploy-go").disabled = true;
    let descriptor;
    let part;
    try {
      // As a text: what is typed while the files are packed is for the next one.
      descriptor = JSON.stringify(deploy.editor.get());
      part = await deploy.part();
    } catch (error) {
      deploy.running = null;
      at("deploy-go").disabled = false;
      if (error.fields && error.fields.length) deploy.editor.refuse(error.fields);
      else at("code-error").textContent = error.message;
      return;
    }
    deploy.keep();
    const form = new FormData();
    form.append("descriptor", descriptor);
    form.append("code", part[0], part[1]);

    deploy.logText = "";
    deploy.took = [];
    deploy.at = -1;
    at("deploy-log").replaceChildren();
    at("deploy-log-part").hidden = false;
    at("deploy-failure").hidden = true;
    at("deploy-result").hidden = true;
    at("deploy-progress").hidden = false;
    at("deploy-cancel").hidden = false;
    say(at("deploy-hint"), "Sending " + bytes(part[0].size) + "…");
    deploy.drawEditor();
    deploy.drawSteps();
    at("deploy-progress").scrollIntoView({ block: "nearest" });
    const began = performance.now();
    const sample = deploy.sample();
    try {
      const response = await call("/system/upload", { method: "POST", body: form, headers: { Accept: "text/event-stream" }, signal: deploy.running.signal });
      const done = await deploy.follow(response);
      deploy.drawSteps("done");
      deploy.succeeded(done, performance.now() - began, sample);
    } catch (error) {
      deploy.drawSteps("failed");
      if (error.name === "AbortError") deploy.failed(new Failure(0, { error: "Cancelled. Nothing was changed." }));
      else deploy.failed(error instanceof Failure ? error : new Failure(0, { error: "The connection ended before the answer came. Look at the table of the functions: the new version is there, or the old one still is." }));
    } finally {
      deploy.running = null;
      at("deploy-go").disabled = false;
      at("deploy-cancel").hidden = true;
      say(at("deploy-hint"), "");
    }
  },

  // follow reads the answer, streamed or not, to its end.
  async follow(response) {
    if (!(response.headers.get("Content-Type") || "").startsWith("text/event-stream")) {
      const done = await response.json();
      if (done.build && done.build.log) deploy.log(done.build.log);
      return done;
    }
    for await (const { name, data } of events(response)) {
      say(at("deploy-hint"), "");
      if (name === "state") deploy.stage(data.state);
      else if (name === "log") deploy.log(data.text);
      else if (name === "done") {
        if (!deploy.logText && data.build && data.build.log) deploy.log(data.build.log);
        return data;
      } else if (name === "error") throw new Failure(data.code || 500, data);
    }
    throw new Error("the stream ended early");
  },

  failed(failure) {
    if (failure.details && !deploy.logText.includes(failure.details.slice(0, 200))) deploy.log(failure.details);
    deploy.marks();
    at("deploy-log-part").hidden = deploy.logText === "";
    const box = at("deploy-failure");
    box.replaceChildren(make("strong", null, failure.reason === "compile_failed" ? "It does not compile" : failure.fields.length ? "The descriptor is not accepted" : "Not deployed"),
      make("p", null, failure.message), failure.hint ? make("p", null, failure.hint) : "", failure.requestId ? make("small", null, "request " + failure.requestId) : "");
    box.hidden = false;
    if (failure.fields.length) deploy.editor.refuse(failure.fields);
    else box.focus();
  },

  sample() {
    const r = runtimeOf(deploy.runtime());
    return r && deploy.source() === "paste" ? r.sample : "";
  },

  succeeded(done, took, sample) {
    const box = at("deploy-result");
    const uri = done.uri || done.url;
    const method = !done.method || done.method === "ANY" ? "POST" : done.method;
    const url = location.origin + uri;
    const body = ["GET", "HEAD"].includes(method) ? "" : sample;
    const trying = make("div");
    box.replaceChildren(
      make("h2", { tabIndex: -1 }, done.name + (done.version ? " v" + done.version : "") + " is live"),
      make("p.more", null, make("span", null, "in " + duration(took)),
        done.build && done.build.cached ? make("span", null, "from the build cache") : null,
        done.build && done.build.duration_ms !== undefined ? make("span", null, "build " + duration(done.build.duration_ms)) : null,
        make("a", { href: "#/f/" + encodeURIComponent(done.name) }, "Open the function")),
      make("div.stack", null,
        make("div.field", null, make("span.label-row", null, "URL"), copyLine(url, "Copy the URL")),
        make("div.field", null, make("span.label-row", null, "curl"), copyLine(curlFor(method, url, [], body), "Copy the curl command")),
        trying));
    at("deploy-log-part").hidden = deploy.logText === "";
    deploy.trying = tryIt(trying, "deploy-try-", { name: done.name, routes: [{ method: done.method || "POST", path: uri }], sample: body });
    box.hidden = false;
    box.scrollIntoView({ block: "nearest" });
    box.querySelector("h2").focus({ preventScroll: true });
    one.renew(done.name);
  },

  // renew prepares the view: for a new function, or for the next version of one.
  // While a deploy runs, the form stays that one's.
  async renew(name = "") {
    const fresh = !deploy.running && deploy.subject !== name;
    if (fresh) deploy.subject = name;
    const title = deploy.subject ? "New version of " + deploy.subject : "Deploy";
    say(at("deploy-title"), title);
    document.title = title + " · baton";
    if (!fresh) return;
    const mine = deploy.renewing = {};
    at("deploy-progress").hidden = true;
    at("deploy-result").hidden = true;
    at("code-error").textContent = "";
    let value = { name: "hello-go", runtime: "go", method: "POST" };
    if (name) {
      // What stands in the form is another function's: it is not sent as this one's.
      at("deploy-form").inert = true;
      try {
        const f = await ask(pathOf(name));
        if (deploy.renewing !== mine) return;
        value = { ...f.descriptor };
        delete value.module;
        if (runtimeOf(value.runtime)) deploy.code.delete(runtimeOf(value.runtime).id);
      } catch (error) {
        if (deploy.renewing !== mine) return;
        if (app.current === deploy) app.notice(error.message);
        value.name = name;
        deploy.subject = null; // asked again when the view is opened again
      }
    }
    at("deploy-form").inert = false;
    deploy.editor.set(value);
    deploy.drawRuntime();
  },
};

deploy.editor = descriptorEditor(at("deploy-descriptor"), "d-", { changed: () => deploy.drawRuntime() });
at("runtimes").append(...runtimes.map((r) => make("label", null,
  make("input", { type: "radio", name: "runtime", value: r.id, on: { change: () => deploy.setRuntime(r.id, true) } }), make("span", null, r.label))));
at("deploy-form").addEventListener("submit", deploy.go);
at("deploy-cancel").addEventListener("click", () => deploy.running && deploy.running.abort());
at("deploy-log-copy").addEventListener("click", () => copy(deploy.logText || ""));
for (const input of document.querySelectorAll("input[name=source]")) input.addEventListener("change", deploy.drawRuntime);
for (const input of document.querySelectorAll("input[name=mode]")) input.addEventListener("change", () => deploy.editor.mode(input.value));
at("editor").addEventListener("input", () => deploy.drawEditor());
at("editor").addEventListener("scroll", () => { at("editor-gutter").scrollTop = at("editor").scrollTop; });
at("editor-reset").addEventListener("click", () => {
  at("editor").value = starters[at("editor").dataset.runtime];
  deploy.drawEditor();
  at("editor").focus();
});
let tabLeaves = false;
at("editor").addEventListener("keydown", (event) => {
  if (event.key === "Tab" && !tabLeaves && !event.shiftKey && !event.ctrlKey && !event.altKey) {
    event.preventDefault();
    // The old command keeps undo working; there is no other that does.
    document.execCommand("insertText", false, ["go", "tinygo"].includes(deploy.runtime()) ? "\t" : "    ");
  }
  tabLeaves = event.key === "Escape" || tabLeaves && event.key === "Shift";
});
at("editor").addEventListener("blur", () => { tabLeaves = false; });

const drop = at("drop");
for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
drop.addEventListener("drop", async (event) => {
  try {
    deploy.take(await dropped(event.dataTransfer));
  } catch (error) {
    at("code-error").textContent = "These files cannot be read: " + error.message;
  }
});
// A file that misses the frame must not replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
for (const [button, input] of [["pick-files", "files"], ["pick-folder", "folder"]]) {
  at(button).addEventListener("click", () => at(input).click());
  at(input).addEventListener("change", () => {
    deploy.take([...at(input).files].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
    at(input).value = "";
  });
}

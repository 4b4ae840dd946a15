// One function: trying it, its versions, its log, its descriptor.

const tabs = ["try", "versions", "logs", "settings"];
const logLinesMax = 2000; // kept in the page; older ones leave

const one = {
  title: "Function",
  view: "view-function",
  name: "",
  data: null,
  tab: "try",
  following: null,
  trying: null,
  turns: turns(),
  versionsTurns: turns(),

  async show(name, tab) {
    feed.looking = one.drawCounts;
    if (one.name !== name) {
      one.leave();
      one.name = name;
      one.data = null;
      one.etag = "";
      for (const t of tabs) if (t !== "logs") at("panel-" + t).replaceChildren();
      at("log-lines").replaceChildren();
    }
    document.title = name + " · baton";
    say(at("fn-name"), name);
    at("fn-redeploy").href = "#/deploy/" + encodeURIComponent(name);
    one.select(tabs.includes(tab) ? tab : "try");
    if (one.data) return;
    at("fn-facts").replaceChildren(make("div.bone.wide"));
    at("fn-state").replaceChildren();
    at("fn-error").hidden = true;
    await one.loadAndOpen();
  },

  // loadAndOpen opens the tab that is chosen by the time the function is there.
  async loadAndOpen() {
    if (await one.load()) one["open_" + one.tab]();
  },

  // leave ends what runs for this view.
  leave() {
    if (one.following) one.following.abort();
    one.following = null;
    if (one.trying) one.trying.stop();
  },

  // here says whether a function is what is looked at.
  here: (name) => app.signed && app.current === one && one.name === name,

  // load asks for the function and draws it. It gives false when there is
  // nothing to draw, or somebody looks at something else by now.
  async load() {
    const name = one.name;
    const turn = one.turns.ask();
    try {
      const response = await call(pathOf(name));
      const data = await response.json();
      if (!one.here(name) || !one.turns.take(turn)) return false;
      one.data = data;
      one.etag = response.headers.get("ETag") || "";
    } catch (error) {
      if (!one.here(name) || error.code === 401 || !one.turns.take(turn)) return false;
      app.missing(error.code === 404 ? "There is no function " + name : "This function cannot be shown", error.code === 404 ? "It was removed, or its name is another." : error.message);
      return false;
    }
    one.draw();
    return true;
  },

  routes() {
    const g = feed.groups().find((g) => g.name === one.name);
    if (g) return g.routes;
    const d = one.data.descriptor || {};
    const [method, path] = [one.data.method || d.method, one.data.path || d.path];
    return path ? [{ method: method || "POST", path }] : [];
  },

  draw() {
    const f = one.data;
    const d = f.descriptor || {};
    at("fn-state").replaceChildren(f.state ? statePill(f.state) : "");
    at("fn-error").hidden = !f.error;
    say(at("fn-error"), f.error || "");
    one.counts = { requests: make("dd"), errors: make("dd"), running: make("dd") };
    at("fn-facts").replaceChildren(
      make("div", null, make("dt", null, "Routes"), make("dd.routes", null, ...one.routes().map(routeRow))),
      fact("Runtime", (f.runtime || d.runtime || "") + (d.target ? ", " + d.target : "")),
      fact("Version", f.version ? "v" + f.version + (f.versions ? " of " + f.versions + " kept" : "") : "by hand"),
      fact("Memory", (f.memory || d.memory || 128) + " MB"),
      fact("Timeout", (f.timeout || d.timeout || 30) + " s"),
      ...[["Requests", "requests"], ["Errors", "errors"], ["Running", "running"]].map(([label, field]) => make("div", null, make("dt", null, label), one.counts[field])));
    one.drawCounts();
  },

  drawCounts() {
    if (!one.data || !one.counts) return;
    const g = feed.groups().find((g) => g.name === one.name);
    const now = g || { requests: one.data.invocationCount, errors: one.data.errorCount, running: one.data.inflight };
    for (const [field, e] of Object.entries(one.counts)) say(e, count(now[field]));
    one.counts.errors.classList.toggle("is-bad", now.errors > 0);
  },

  select(tab) {
    for (const t of tabs) {
      at("tab-" + t).setAttribute("aria-selected", t === tab);
      at("tab-" + t).tabIndex = t === tab ? 0 : -1;
      at("panel-" + t).hidden = t !== tab;
    }
    if (tab !== "logs" && one.following) {
      one.following.abort();
      one.following = null;
    }
    one.tab = tab;
    if (one.data) one["open_" + tab]();
  },

  // renew shows what a change made of a function: what was asked or drawn of it
  // before is out of date.
  async renew(name) {
    const table = feed.changed();
    if (one.name !== name) return;
    one.turns.outdate();
    one.data = null;
    if (one.trying) one.trying.stop();
    at("panel-try").replaceChildren();
    at("panel-settings").replaceChildren();
    await table;
    if (one.here(name)) await one.loadAndOpen();
  },

  open_try() {
    const panel = at("panel-try");
    if (panel.firstChild) return;
    const r = runtimeOf((one.data.descriptor || {}).runtime || one.data.runtime);
    one.trying = tryIt(panel, "fn-try-", { name: one.name, routes: one.routes(), sample: r ? r.sample : "" });
  },

  async open_versions() {
    const panel = at("panel-versions");
    const name = one.name;
    const turn = one.versionsTurns.ask();
    if (!panel.firstChild) panel.replaceChildren(make("div.bone"), make("div.bone"));
    let versions;
    let why = "";
    try {
      versions = await ask(pathOf(name) + "/versions");
      if (!versions.length) why = "This function's row was written by hand: it has no versions. Deploy it to keep some.";
    } catch (error) {
      why = error.message;
    }
    if (one.name !== name || !one.versionsTurns.take(turn)) return;
    if (why) {
      panel.replaceChildren(make("p.nothing", null, why));
      return;
    }
    if (!panel.querySelector("table")) {
      panel.replaceChildren(make("table.versions", null,
        make("caption.hidden", null, "Versions of " + name + ", the newest first"),
        make("thead", null, make("tr", null, ...["Version", "Deployed", "Size", "Runtime", "Digest", ""].map((t, i) => make("th" + (i === 2 ? ".n" : ""), { scope: "col" }, t)))),
        make("tbody")));
    }
    keyed(panel.querySelector("tbody"), versions.sort((a, b) => b.version - a.version), (v) => v.version + " " + v.created, one.versionRow);
  },

  // versionRow keeps its elements when the list is drawn again: a press on a
  // button that is exchanged before the release is no click.
  versionRow(v) {
    const made = new Date(v.created);
    const d = v.descriptor || {};
    const live = pill("live", "good");
    const when = make("time", { dateTime: v.created, title: made.toLocaleString() });
    const back = make("button", { type: "button", "aria-label": "Roll back to version " + v.version, on: { click: () => one.rollback(v.version) } }, "Roll back");
    const row = make("tr", null,
      make("td", null, make("strong", null, "v" + v.version), " ", live),
      make("td", null, when),
      make("td.n", null, v.size === undefined ? "–" : bytes(v.size)),
      make("td", null, make("span.tag", null, d.runtime || "")),
      make("td", null, make("code.soft", { title: v.digest || "" }, (v.digest || "").replace(/^sha256[:-]/, "").slice(0, 12))),
      make("td.n", null, back));
    return [row, (v) => {
      say(when, ago(made));
      live.hidden = !v.active;
      back.hidden = Boolean(v.active);
    }];
  },

  async rollback(version) {
    const name = one.name;
    const done = await confirmed("Roll back to v" + version + "?", "Requests that start afterwards run version " + version + ". Requests that run now finish on the version they began with. No version is removed.", "Roll back", false,
      () => sendJSON(pathOf(name) + "/rollback", "POST", { version }));
    if (!done) return;
    toast(name + " runs v" + version);
    one.renew(name);
  },

  async remove() {
    const name = one.name;
    const done = await confirmed("Remove " + name + "?", "Its routes answer 404 from then on, and all its versions and artifacts are deleted. This cannot be undone.", "Remove", true,
      () => call(pathOf(name), { method: "DELETE" }));
    if (!done) return;
    toast(name + " is removed");
    feed.functions = (feed.functions || []).filter((f) => f.name !== name);
    feed.changed();
    const looking = one.here(name);
    if (one.name === name) {
      one.leave();
      one.name = "";
    }
    if (looking) location.hash = "#/";
  },

  // Logs. The last lines first, then, while following, each line as it is written.
  open_logs() {
    if (!one.following) one.follow();
  },

  async follow() {
    if (one.following) one.following.abort();
    const mine = one.following = new AbortController();
    const following = at("log-follow").checked;
    const list = at("log-lines");
    list.replaceChildren();
    for (let tries = 0; !mine.signal.aborted; tries++) {
      say(at("log-state"), tries ? "connecting again…" : "loading…");
      try {
        const since = one.lastLine && tries ? "since=" + encodeURIComponent(one.lastLine) : "tail=200";
        const response = await call(pathOf(one.name) + "/logs?" + since + (following ? "&follow=1" : ""), { signal: mine.signal });
        say(at("log-state"), following ? "following" : "");
        for await (const line of lines(response)) {
          if (mine.signal.aborted) return;
          if (line.trim()) one.addLine(list, JSON.parse(line));
        }
      } catch (error) {
        if (error.name === "AbortError" || mine.signal.aborted) return;
        say(at("log-state"), error.message);
        if (error.code) return;
      }
      if (!following) return;
      await new Promise((resolve) => { setTimeout(resolve, 2000); mine.signal.addEventListener("abort", resolve); });
    }
  },

  failureText(line) {
    return "failed: " + line.failure + (line.status ? ", answered " + line.status : "") + (line.duration_ms !== undefined ? " after " + duration(line.duration_ms) : "") + (line.detail ? ": " + line.detail : "");
  },

  addLine(list, line) {
    const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 24;
    const time = new Date(line.time);
    const failed = line.failure !== undefined && line.failure !== "";
    one.lastLine = line.time;
    const from = [line.version ? "v" + line.version : "", line.worker !== undefined ? "w" + line.worker : ""].filter(Boolean).join(" ");
    const e = make("div.line" + (failed ? ".failed" : ""), null,
      make("time", { dateTime: line.time, title: time.toLocaleString() }, time.toLocaleTimeString("en-GB")),
      make("span.from", { title: line.request ? "request " + line.request : "" }, from),
      make("span.text", null, line.dropped ? plural(line.dropped, "line") + " left out: they came faster than they could be stored"
        : failed ? one.failureText(line) : (line.text || "") + (line.cut ? " … " + bytes(line.cut) + " cut off" : "")));
    e.words = (e.textContent + " " + (line.request || "")).toLowerCase();
    e.hidden = !e.words.includes(at("log-filter").value.trim().toLowerCase());
    list.append(e);
    while (list.childElementCount > logLinesMax) list.firstElementChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  },

  // Settings: the descriptor alone. The code stays, and nothing is built.
  open_settings() {
    const panel = at("panel-settings");
    if (panel.firstChild) return;
    const [name, etag, d] = [one.name, one.etag, one.data.descriptor];
    if (!d) {
      panel.replaceChildren(make("p.nothing", null, "This function has no descriptor."));
      return;
    }
    const editing = make("div");
    const wrong = make("p.error", { role: "alert" });
    const save = make("button.primary", { type: "submit" }, "Save");
    const mode = (value, label, checked) => make("label", null, make("input", { type: "radio", name: "settings-mode", value, checked, on: { change: () => editor.mode(value) } }), make("span", null, label));
    const form = make("form.stack", { noValidate: true, autocomplete: "off", on: { submit: async (event) => {
      event.preventDefault();
      wrong.textContent = "";
      save.disabled = true;
      try {
        await sendJSON(pathOf(name), "PUT", editor.get(), etag ? { "If-Match": etag } : {});
        toast("Saved: every worker runs with it");
        await one.renew(name);
      } catch (error) {
        if (error.fields && error.fields.length) editor.refuse(error.fields);
        wrong.textContent = error.code === 412 ? "Somebody changed this function since you opened it. Reload the page to see the new descriptor." : error.message;
      } finally {
        save.disabled = false;
      }
    } } },
    make("div.card-head", null, make("p.soft.small", null, "Saving makes a new version at once. The code stays as it is, and nothing is built."),
      make("div.segments", { role: "radiogroup", "aria-label": "How to edit the descriptor" }, mode("form", "Form", true), mode("json", "JSON", false))),
    editing, wrong, make("div", null, save));
    panel.replaceChildren(form);
    const editor = descriptorEditor(editing, "s-", { fixed: ["name"] });
    editor.set(d);
  },
};

for (const t of tabs) {
  at("tab-" + t).addEventListener("click", () => {
    history.replaceState(null, "", "#/f/" + encodeURIComponent(one.name) + (t === "try" ? "" : "/" + t));
    one.select(t);
  });
}
at("fn-tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const now = tabs.findIndex((t) => at("tab-" + t) === document.activeElement);
  const next = at("tab-" + tabs[(now + step + tabs.length) % tabs.length]);
  next.focus();
  next.click();
});
at("fn-remove").addEventListener("click", () => one.remove());
at("log-follow").addEventListener("change", () => one.follow());
at("log-clear").addEventListener("click", () => at("log-lines").replaceChildren());
at("log-filter").addEventListener("input", () => {
  const wanted = at("log-filter").value.trim().toLowerCase();
  for (const e of at("log-lines").children) e.hidden = !e.words.includes(wanted);
});

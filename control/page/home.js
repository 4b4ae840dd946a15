// The table of the functions, and the pulse of the server above it.

const routeRow = (r) => make("span.route", null, make("span.tag.method", null, r.method), make("span.path", null, r.path));
const statePill = (state) => state === "serving" ? pill("serving", "good") : state === "stale" ? pill("last good version", "warn") : pill("refused", "bad");

const functionRow = (g) => {
  const cell = (label, className) => make("td" + (className ? "." + className : ""), label ? { "data-label": label } : null);
  const name = cell();
  const routes = cell();
  const runtime = cell();
  const [version, requests, errors, running] = ["Version", "Requests", "Errors", "Running"].map((l) => cell(l, "n"));
  const state = cell();
  name.append(g.name ? make("a", { href: "#/f/" + encodeURIComponent(g.name) }, g.name) : make("span.soft", null, "no function"));
  const row = make("tr", null, name, routes, runtime, version, requests, errors, running, state);
  let was = "";
  return [row, (g) => {
    say(version, g.version ? "v" + g.version : "–");
    for (const [c, v] of [[requests, g.requests], [errors, g.errors], [running, g.running]]) {
      say(c, count(v));
      c.classList.toggle("zero", !v);
    }
    errors.classList.toggle("is-bad", g.errors > 0);
    const now = JSON.stringify([g.routes, g.runtime, g.state, g.why]);
    if (now === was) return;
    was = now;
    routes.replaceChildren(make("div.routes", null, ...g.routes.map(routeRow)));
    runtime.replaceChildren(g.runtime ? make("span.tag", null, g.runtime) : "");
    row.classList.toggle("refused", g.state !== "serving");
    state.replaceChildren(statePill(g.state), ...g.why.map((w) => make("p.why", null, w)));
  }];
};

// miniLanesMax is how many workers the pulse has room for; all are one view away.
const miniLanesMax = 4;

const showPulse = () => {
  const workers = feed.workers;
  if (!workers) return;
  const sum = (field) => count(workers.reduce((n, w) => n + w[field], 0));
  const rate = feed.rates.at(-1) || 0;
  say(at("pulse-rate"), rate < 9.95 ? rate.toFixed(1) : count(Math.round(rate)));
  chart(at("pulse-chart"), feed.rates, samplesMax, 5);
  say(at("pulse-running"), sum("inflight"));
  say(at("pulse-connections"), sum("conns"));
  say(at("pulse-requests"), sum("requests"));
  say(at("pulse-errors"), sum("errors"));
  say(at("pulse-workers"), workers.filter((w) => w.state === "ready").length + " of " + workers.length + " ready");
  keyed(at("pulse-lanes"), workers.slice(0, miniLanesMax), (w) => w.worker, (w) => {
    const [bar, set] = meter();
    const score = make("b");
    return [make("div.mini", null, make("span", null, String(w.worker)), bar, score), (w) => {
      set(w.score);
      say(score, w.state === "ready" ? percent(w.score) : w.state);
    }];
  });
};

const home = {
  title: "Functions",
  view: "view-home",
  show() {
    feed.looking = home.draw;
    feed.loadFunctions();
  },
  draw() {
    showPulse();
    const loading = feed.functions === null;
    if (loading) return;
    const all = feed.groups();
    const wanted = at("home-filter").value.trim().toLowerCase();
    const shown = all.filter((g) => [g.id, g.runtime, g.state, ...g.routes.map((r) => r.method + " " + r.path)].join(" ").toLowerCase().includes(wanted));
    say(at("home-count"), all.length || "");
    at("home-empty").hidden = all.length > 0;
    at("home-table").hidden = all.length === 0;
    at("home-none").hidden = shown.length > 0;
    keyed(at("functions"), shown, (g) => g.id, functionRow);
  },
};
at("home-filter").addEventListener("input", home.draw);

// The workers, one lane each, and the server that they are part of.

const laneOf = (w) => {
  const pid = make("small");
  const state = make("span");
  const score = make("p.big");
  const line = make("div.chart");
  const gauges = {};
  const rows = [["CPU", "cpu"], ["Mem", "mem"], ["I/O", "io"]].map(([label, field]) => {
    const [bar, set] = meter();
    const number = make("b");
    gauges[field] = (v) => { set(v); say(number, percent(v)); };
    return make("div.gauge", null, make("span", null, label), bar, number);
  });
  const facts = {};
  const numbers = make("dl", null, ...[["Running", "inflight"], ["Connections", "conns"], ["Requests", "requests"], ["Errors", "errors"], ["Restarts", "restarts"], ["Waiting", "pending"]].map(([label, field]) => {
    facts[field] = make("dd");
    return make("div", null, make("dt", null, label), facts[field]);
  }));
  const lane = make("article.card.lane", { "aria-label": "Worker " + w.worker },
    make("div", null, make("h2", null, "Worker " + w.worker), pid, make("div", null, state)),
    make("div.score", null, make("div", null, make("p.label", null, "Score"), score), line),
    make("div.gauges", null, ...rows), numbers);
  return [lane, (w) => {
    say(pid, w.pid ? "pid " + w.pid : "no process");
    const kind = w.state !== "ready" ? "bad" : w.load === "overloaded" ? "bad" : w.load === "busy" ? "warn" : "good";
    const text = w.state === "ready" && w.load ? w.load : w.state;
    if (state.textContent !== text) state.replaceChildren(pill(text, w.state === "starting" ? "warn" : kind));
    say(score, percent(w.score));
    chart(line, feed.scores.get(w.worker) || [], samplesMax, 10);
    for (const [field, set] of Object.entries(gauges)) set(w[field]);
    for (const [field, e] of Object.entries(facts)) say(e, count(w[field]));
  }];
};

const fact = (label, value, wide) => make("div" + (wide ? ".wide" : ""), null, make("dt", null, label), make("dd", null, value));

const workersView = {
  title: "Workers",
  view: "view-workers",
  show() {
    feed.looking = workersView.draw;
    feed.loadStatus();
  },
  draw() {
    if (feed.workers) {
      say(at("workers-count"), feed.workers.length);
      keyed(at("workers"), feed.workers, (w) => w.worker, laneOf);
    }
    const s = feed.status;
    if (!s) return;
    const facts = [
      ["State", s.draining ? "stopping" : s.ready ? "serving" : s.loaded ? "no worker is ready" : "no table yet"], ["Version", s.version], ["Listening on", s.listen], ["Process", String(s.pid)],
      ["Started", ago(new Date(s.started))], ["Routes", count(s.routes)], ["Table generation", count(s.generation)],
      ["Connections", count(s.connections)], ["Waiting for a worker", count(s.queued)], ["Database", s.database || "ok"], ["Data directory", s.data],
    ];
    const now = JSON.stringify([facts, s.isolation]);
    if (workersView.was === now) return;
    workersView.was = now;
    at("facts").replaceChildren(...facts.map(([k, v]) => fact(k, v)));
    at("isolation").replaceChildren(...s.isolation.map((l) => make("li", null,
      pill(l.name, l.active ? "good" : ""), make("small", null, (l.active ? "on" : "off") + (l.detail ? ": " + l.detail : "")))));
  },
};

// What is known of the server, and how it is kept up to date: workers by
// server-sent events, the rest by asking while somebody looks.

const samplesMax = 120; // a minute of events
const rateWindowMillis = 2500; // workers report every 500 ms, not in step

const feed = {
  functions: null, // null: not known yet
  workers: null,
  status: null,
  scores: new Map(), // worker → its last scores
  rates: [], // requests per second, oldest first
  seen: [], // {time, requests} of the last rateWindowMillis
  source: null,
  timers: {},
  loading: null, // the question for the table that is under way
  tableTurns: turns(),
  statusTurns: turns(),
  looking: () => {}, // draws the view that is shown

  // group makes one entry per function: several rows may be routes of one. A row
  // that nothing serves has no name; its key stands for it.
  groups() {
    const groups = new Map();
    for (const row of feed.functions || []) {
      const colon = row.key.indexOf(":");
      const id = row.name || row.key;
      let g = groups.get(id);
      if (!g) groups.set(id, g = { id, name: row.name || "", routes: [], runtime: row.runtime || "", version: row.version, state: "serving", why: [], requests: 0, errors: 0, running: 0 });
      g.routes.push({ method: row.key.slice(0, colon), path: row.key.slice(colon + 1) });
      g.requests += row.invocationCount;
      g.errors += row.errorCount;
      g.running += row.inflight;
      if (row.state !== "serving") {
        g.state = row.state;
        g.why.push(row.error || "");
      }
    }
    return [...groups.values()].sort((a, b) => a.id.localeCompare(b.id));
  },

  // loadFunctions asks for the table, once at a time, and again after a while.
  loadFunctions() {
    if (!feed.loading) {
      const mine = feed.loading = feed.askFunctions().finally(() => { if (feed.loading === mine) feed.loading = null; });
    }
    return feed.loading;
  },

  // changed is loadFunctions after a change: an answer to what was asked before
  // it would show the table without it.
  changed() {
    feed.tableTurns.outdate();
    feed.loading = null;
    return feed.loadFunctions();
  },

  // forget drops what is known, and what is under way, when the session ends.
  forget() {
    Object.assign(feed, { functions: null, workers: null, status: null, loading: null });
    feed.tableTurns.outdate();
    feed.statusTurns.outdate();
  },

  async askFunctions() {
    clearTimeout(feed.timers.functions);
    if (!app.signed || document.hidden) return;
    const turn = feed.tableTurns.ask();
    try {
      const functions = await ask("/system/functions");
      if (!feed.tableTurns.take(turn)) return;
      feed.functions = functions;
      app.reached(true);
      if (feed.refused) app.notice("");
      feed.refused = false;
      feed.looking();
    } catch (error) {
      if (!feed.tableTurns.take(turn)) return;
      if (error.code === 0) app.reached(false);
      else if (error.code !== 401) {
        feed.refused = true;
        app.notice("The table of the functions cannot be shown: " + error.message + ". This page keeps trying.");
      }
    }
    clearTimeout(feed.timers.functions);
    if (app.signed) feed.timers.functions = setTimeout(feed.loadFunctions, 3000);
  },

  async loadStatus() {
    clearTimeout(feed.timers.status);
    if (!app.signed || document.hidden) return;
    const turn = feed.statusTurns.ask();
    try {
      const status = await ask("/system/status");
      if (!feed.statusTurns.take(turn)) return;
      feed.status = status;
      app.reached(true);
      if (!feed.source || feed.source.readyState === EventSource.CLOSED) feed.takeWorkers(feed.status.workers);
      app.state();
      feed.looking();
    } catch (error) {
      if (error.code === 0) app.reached(false);
    }
    clearTimeout(feed.timers.status);
    if (app.signed) feed.timers.status = setTimeout(feed.loadStatus, 4000);
  },

  takeWorkers(workers) {
    const now = performance.now();
    feed.workers = workers;
    for (const w of workers) {
      const scores = feed.scores.get(w.worker) || [];
      scores.push(Math.max(0, w.score));
      if (scores.length > samplesMax) scores.shift();
      feed.scores.set(w.worker, scores);
    }
    const requests = workers.reduce((n, w) => n + w.requests, 0);
    const last = feed.seen.at(-1);
    // A worker that was replaced counts from 0 again.
    if (last && requests < last.requests) feed.seen = [];
    feed.seen.push({ now, requests });
    while (feed.seen.length > 2 && now - feed.seen[0].now > rateWindowMillis) feed.seen.shift();
    const first = feed.seen[0];
    feed.rates.push(now > first.now ? (requests - first.requests) * 1000 / (now - first.now) : 0);
    if (feed.rates.length > samplesMax) feed.rates.shift();
  },

  open() {
    feed.close();
    if (!app.signed || document.hidden) return;
    feed.source = new EventSource("/system/events");
    feed.source.addEventListener("workers", (event) => {
      const data = JSON.parse(event.data);
      feed.takeWorkers(Array.isArray(data) ? data : data.workers);
      app.reached(true);
      app.state();
      feed.looking();
    });
    feed.source.addEventListener("functions", () => feed.changed());
    feed.source.addEventListener("error", () => {
      // The browser tries again by itself, but for an answer that is no stream.
      if (feed.source.readyState !== EventSource.CLOSED) return;
      clearTimeout(feed.timers.open);
      feed.timers.open = setTimeout(feed.open, 5000);
    });
    feed.loadFunctions();
    feed.loadStatus();
  },

  close() {
    for (const t of Object.values(feed.timers)) clearTimeout(t);
    if (feed.source) feed.source.close();
    feed.source = null;
  },
};

"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const refreshMillis = 2000;
  let timer = 0;

  // Every text from the server enters the page as text, never as markup.
  const make = (name, className, ...children) => {
    const e = document.createElement(name);
    if (className) e.className = className;
    e.append(...children);
    return e;
  };
  const cell = (content, className) => make("td", className, content);
  const count = (v) => Number(v).toLocaleString("en");
  const percent = (v) => v < 0 ? "–" : v.toFixed(1);

  const state = (text, kind) => {
    at("state").textContent = text;
    at("state").className = "state " + (kind || "");
  };

  const ask = async (path, options) => {
    const response = await fetch(path, { cache: "no-store", ...options });
    if (response.ok) return response.status === 204 ? null : response.json();
    const error = new Error("the server answered " + response.status);
    error.status = response.status;
    try { error.message = (await response.json()).error; } catch { /* the status has to do */ }
    throw error;
  };

  const bar = (score) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    svg.setAttribute("viewBox", "0 0 100 1");
    svg.setAttribute("preserveAspectRatio", "none");
    rect.setAttribute("width", Math.max(0, Math.min(100, score)));
    rect.setAttribute("height", 1);
    svg.append(rect);
    return make("span", "bar", svg);
  };

  const showFacts = (s) => {
    const facts = [
      ["Version", s.version], ["Listening on", s.listen], ["Since", new Date(s.started).toLocaleString()],
      ["Routes", count(s.routes)], ["Table generation", count(s.generation)], ["Connections", count(s.connections)],
    ];
    const rows = facts.map(([k, v]) => make("div", "", make("dt", "", k), make("dd", "", v)));
    if (s.database) rows.push(make("div", "wide", make("dt", "", "Database"), make("dd", "", s.database)));
    at("facts").replaceChildren(...rows);
  };

  const showRoutes = (functions) => {
    at("routes-count").textContent = functions.length;
    at("routes-empty").hidden = functions.length > 0;
    at("routes").replaceChildren(...functions.flatMap((f) => {
      const colon = f.key.indexOf(":");
      const row = make("tr", "",
        cell(make("span", "tag mono", f.key.slice(0, colon))), cell(make("span", "mono", f.key.slice(colon + 1))), cell(f.name || ""),
        cell(f.runtime || ""), cell(count(f.invocationCount), "n"), cell(count(f.errorCount), "n"), cell(count(f.inflight), "n"));
      if (f.state === "serving") return [row];
      row.className = "refused";
      const why = cell(make("span", "tag bad", f.state === "stale" ? "refused, the version before it serves" : "refused"));
      why.append(make("div", "why", f.error || ""));
      why.colSpan = 7;
      return [row, make("tr", "", why)];
    }));
  };

  const showWorkers = (workers) => {
    at("workers-count").textContent = workers.length;
    at("workers").replaceChildren(...workers.map((w) => make("tr", "",
      cell(w.worker, "n"), cell(w.pid || "–", "n"),
      cell(make("span", "tag " + (w.state === "ready" ? "good" : "bad"), w.state + (w.load ? ", " + w.load : ""))),
      make("td", "", bar(w.score), percent(w.score)),
      cell(percent(w.cpu), "n"), cell(percent(w.mem), "n"), cell(percent(w.io), "n"), cell(count(w.inflight), "n"),
      cell(count(w.conns), "n"), cell(count(w.requests), "n"), cell(count(w.restarts), "n"))));
  };

  const showIsolation = (layers) => {
    at("isolation").replaceChildren(...layers.map((l) => make("li", "",
      make("span", "tag " + (l.active ? "good" : "bad"), (l.active ? "on " : "off ") + l.name), " ",
      make("small", "", l.detail || ""))));
  };

  const signedIn = (yes) => {
    at("signed-in").hidden = !yes;
    at("signout").hidden = !yes;
    at("signin").hidden = yes;
  };

  const load = async () => {
    clearTimeout(timer);
    try {
      if (!(await ask("/system/session")).signedIn) {
        signedIn(false);
        state("running", "good");
        return;
      }
      const [functions, status] = await Promise.all([ask("/system/functions"), ask("/system/status")]);
      showFacts(status);
      showRoutes(functions);
      showWorkers(status.workers);
      showIsolation(status.isolation);
      signedIn(true);
      if (status.draining) state("stopping", "bad");
      else if (status.ready) state("serving", "good");
      else state("no worker is ready", "bad");
    } catch (error) {
      state(error.status ? error.message : "no connection", "bad");
    }
    if (!document.hidden) timer = setTimeout(load, refreshMillis);
  };

  at("signin-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.target.querySelector("button");
    const token = at("token").value.trim();
    button.disabled = true;
    at("signin-error").textContent = "";
    try {
      if (!/^[\x21-\x7e]+$/.test(token)) throw new Error("that is not a token: it is one line of letters and digits");
      await ask("/system/session", { method: "POST", headers: { Authorization: "Bearer " + token } });
      at("token").value = "";
      await load();
    } catch (error) {
      at("signin-error").textContent = error.message;
    } finally {
      button.disabled = false;
    }
  });

  at("signout").addEventListener("click", async () => {
    clearTimeout(timer);
    try { await ask("/system/session", { method: "DELETE" }); } catch { /* it has ended, or load says why not */ }
    await load();
  });

  document.addEventListener("visibilitychange", () => { if (!document.hidden && !at("signed-in").hidden) load(); });

  // A link that still stands in the address was not accepted.
  if (new URLSearchParams(location.search).has("login")) {
    history.replaceState(null, "", location.pathname);
    at("signin-why").textContent = "This link was used before, or is older than an hour. The admin token signs in as well: it is the one line in admin.token in the data directory.";
  }
  load();
})();

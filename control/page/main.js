// Signing in, the views and the way between them.

const views = ["view-loading", "view-signin", "view-home", "view-deploy", "view-function", "view-workers", "view-missing"];

const app = {
  signed: false,
  current: null,

  show(id) {
    for (const v of views) at(v).hidden = v !== id;
  },

  state() {
    const s = feed.status;
    const ready = (feed.workers || []).some((w) => w.state === "ready");
    const [text, kind] = app.lost ? ["no connection", "bad"] : !app.signed ? ["running", "good"]
      : s && s.draining ? ["stopping", "bad"] : feed.workers && !ready ? ["no worker is ready", "bad"] : ["serving", "good"];
    say(at("state"), text);
    at("state").className = "state " + kind;
  },

  // reached says whether the server answers.
  reached(yes) {
    if (app.lost === !yes) return;
    app.lost = !yes;
    app.notice(yes ? "" : "The server does not answer. What you see is what was last known; this page keeps trying.");
    app.state();
  },

  notice(text) {
    say(at("notice"), text);
    at("notice").hidden = !text;
  },

  missing(title, text) {
    say(at("missing-title"), title);
    say(at("missing-text"), text);
    app.show("view-missing");
  },

  signedOut() {
    if (!app.signed) return;
    app.signed = false;
    feed.close();
    one.leave();
    feed.forget();
    app.route();
  },

  // route shows what the address says.
  route() {
    const signed = app.signed;
    if (at("confirm")) at("confirm").close(); // it asks about what is shown no more
    at("nav").hidden = !signed;
    at("signout").hidden = !signed;
    app.state();
    if (!signed) {
      document.title = "Sign in · baton";
      app.show("view-signin");
      at("token").focus();
      return;
    }
    const [view = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").map((p) => {
      try { return decodeURIComponent(p); } catch { return p; }
    });
    const [shown, ...args] = view === "" ? [home] : view === "deploy" ? [deploy, rest[0]] : view === "workers" ? [workersView] : view === "f" && rest[0] ? [one, ...rest] : [null];
    if (app.current === one && shown !== one) one.leave();
    const moved = app.current !== null && app.current !== shown;
    app.current = shown;
    for (const a of at("nav").children) {
      if (a.getAttribute("href") === "#/" + (view === "f" ? "" : view)) a.setAttribute("aria-current", "page");
      else a.removeAttribute("aria-current");
    }
    if (!app.lost) app.notice("");
    if (!shown) {
      document.title = "baton";
      app.missing("There is nothing here", "This page has no such view.");
      return;
    }
    document.title = shown.title + " · baton";
    app.show(shown.view);
    shown.show(...args);
    feed.looking();
    if (!moved) return;
    window.scrollTo(0, 0);
    at(shown.view).querySelector("h1").focus({ preventScroll: true });
  },

  async begin() {
    try {
      const session = await ask("/system/session");
      app.lost = false;
      app.signed = session.signedIn;
    } catch (error) {
      app.reached(false);
      setTimeout(app.begin, 2000);
      return;
    }
    app.notice("");
    if (app.signed) feed.open();
    app.route();
  },
};

at("signin-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  const token = at("token").value.trim();
  button.disabled = true;
  at("signin-error").textContent = "";
  at("token").removeAttribute("aria-invalid");
  try {
    if (!/^[\x21-\x7e]+$/.test(token)) throw new Error("That is not a token: it is one line of letters and digits.");
    await ask("/system/session", { method: "POST", headers: { Authorization: "Bearer " + token } });
    at("token").value = "";
    await app.begin();
  } catch (error) {
    at("signin-error").textContent = error.message;
    at("token").setAttribute("aria-invalid", "true");
    at("token").select();
  } finally {
    button.disabled = false;
  }
});

at("signout").addEventListener("click", async () => {
  try { await ask("/system/session", { method: "DELETE" }); } catch { /* it has ended, or begin says why not */ }
  feed.close();
  app.signedOut();
  await app.begin();
});

at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  at("main").focus();
});
window.addEventListener("hashchange", app.route);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) feed.close();
  else if (app.signed) feed.open();
});

// A link that still stands in the address was not accepted.
if (new URLSearchParams(location.search).has("login")) {
  history.replaceState(null, "", location.pathname);
  say(at("signin-why"), "This link was used before, or is older than an hour. The admin token signs in as well: it is the one line in admin.token in the data directory.");
}
app.begin();

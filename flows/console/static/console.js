// What pages do beyond links and forms: live figures, parts that take longer, and buttons that say they are at work.
// Every page works without it. What comes from outside is only ever put in as text.
"use strict";

const LIVE_MS = 3000;
const LATER_MS = 15000;

function put(element, text) {
  const before = element.textContent;
  if (before === text) return;
  element.textContent = text;
  if (before === "–" || !before) return; // the first figure is no change
  element.classList.remove("changed");
  void element.offsetWidth;
  element.classList.add("changed");
}

function grouped(value) {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

const SHOWN = {
  models_loaded: grouped, cold_loads: grouped, refusals: grouped, generation: String,
  requests_per_second: (value) => (value < 100 ? value.toFixed(1) : grouped(value)),
  hit_rate: (value) => `${(100 * value).toFixed(value > 0.9995 || value < 0.1 ? 0 : 1)} %`,
  p50_ms: (value) => value.toFixed(value < 10 ? 1 : 0),
  p99_ms: (value) => value.toFixed(value < 10 ? 1 : 0),
};

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function bytes(value) {
  return value >= 1e9 ? `${(value / 1e9).toFixed(1)} GB` : `${Math.round(value / 1e6)} MB`;
}

// Asks again and again, slower while it fails and not at all while nobody looks.
function poll(url, show, fail) {
  let timer = 0;
  let failures = 0;
  async function ask() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      const answer = await fetch(url, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(20000) });
      if (answer.status === 401) {
        fail("You were signed out: load the page again.");
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      show(await answer.json());
      failures = 0;
    } catch {
      failures += 1;
      fail("The console does not answer.");
    }
    timer = setTimeout(ask, failures ? Math.min(LATER_MS, LIVE_MS * 2 ** failures) : LIVE_MS);
  }
  document.addEventListener("visibilitychange", ask);
  ask();
}

function state(box, kind, text) {
  const line = box.querySelector("[data-live-state]");
  if (line.dataset.said === text) return; // a screen reader is told of a change, and of nothing else
  line.dataset.said = text;
  const dot = element("span", "", `dot ${kind}`);
  line.replaceChildren(dot, document.createTextNode(text));
}

function liveFigures(box) {
  const names = [...document.querySelectorAll("[data-loaded]")].map((cell) => cell.dataset.loaded);
  const query = new URLSearchParams(names.map((name) => ["tenant", name]));
  const url = names.length ? `${box.dataset.liveUrl}?${query}` : box.dataset.liveUrl;
  const note = box.querySelector("[data-live-note]");

  function blank() {
    for (const place of box.querySelectorAll("[data-live]")) place.textContent = "–";
    for (const cell of document.querySelectorAll("[data-loaded]")) cell.textContent = "–";
    note.hidden = true;
  }

  poll(url, (told) => {
    box.querySelector("[data-live-servers]").replaceChildren(...told.servers.map((server) => {
      const row = document.createElement("tr");
      const behind = !server.problem && told.generation !== null && server.generation < told.generation;
      const kind = server.problem ? "bad" : server.ready && !behind ? "good" : "warn";
      const said = server.problem || (!server.ready ? "not ready" : behind ? "behind the fleet" : "ready");
      const cell = document.createElement("td");
      cell.append(element("span", said, `mark ${kind}`));
      row.append(element("td", server.url), cell);
      const figures = server.problem ? ["–", "–", "–"]
        : [String(server.generation), grouped(server.models), `${bytes(server.memory_bytes)} of ${bytes(server.budget_bytes)}`];
      row.append(...figures.map((text) => element("td", text, "n")));
      return row;
    }));
    if (!told.answering) {
      blank();
      const why = told.servers.find((server) => server.problem);
      state(box, "bad", `No server answers${why ? ` (${why.url}: ${why.problem})` : ""}.`);
      return;
    }
    const all = told.answering === told.named;
    const span = told.window_seconds ? `in the last ${told.window_seconds} s` : "since they began";
    state(box, all ? "good" : "warn", `${told.answering} of ${told.named} servers answer`);
    note.hidden = false;
    const reasons = Object.entries(told.refusal_reasons).map(([reason, times]) => `${times} ${reason.replaceAll("_", " ")}`);
    put(note, `Counted ${span}${reasons.length ? `; refused: ${reasons.join(", ")}` : ""}.`);
    for (const place of document.querySelectorAll("[data-live]")) {
      const value = told[place.dataset.live];
      put(place, value === null || value === undefined ? "–" : SHOWN[place.dataset.live](value));
    }
    for (const cell of document.querySelectorAll("[data-loaded]")) {
      const times = told.loaded ? told.loaded[cell.dataset.loaded] : null;
      cell.textContent = times === null || times === undefined ? "–" : `${times}/${told.answering}`;
    }
  }, (why) => {
    blank();
    state(box, "bad", why);
  });
}

function tenantOnServers(box) {
  const list = box.querySelector("[data-tenant-servers]");
  poll(box.dataset.tenantLive, (told) => {
    list.replaceChildren(...told.servers.map((server) => {
      const item = document.createElement("li");
      const kind = server.problem || server.error ? "bad" : server.state === "ready" ? "good" : "";
      const said = server.problem || (server.state === "ready" ? "in memory" : server.state);
      item.append(element("span", said, `mark ${kind}`), element("div", server.url, "quiet small"));
      if (!server.problem) {
        const facts = [];
        if (server.serving_version) facts.push(`${server.serving_version.slice(0, 8)}, ${bytes(server.bytes)}`);
        if (server.hits) facts.push(`${grouped(server.hits)} requests`);
        if (server.load_ms) facts.push(`loaded in ${server.load_ms.toFixed(1)} ms`);
        if (server.error) facts.push(server.error);
        if (facts.length) item.append(element("div", facts.join(" · "), "quiet small"));
      }
      return item;
    }));
  }, (why) => list.replaceChildren(element("li", why, "problem")));
}

async function loadPart(box) {
  box.replaceChildren(element("p", "Loading…", "quiet"));
  box.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(box.dataset.part, { headers: { "X-Part": "1" }, signal: AbortSignal.timeout(120000) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(answer.status === 401 ? text : `it answered ${answer.status}`);
    // Our own page, rendered and escaped by the server; scripts in it would not run.
    box.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
  } catch (problem) {
    const again = element("button", "Try again", "plain");
    again.type = "button";
    again.addEventListener("click", () => loadPart(box));
    box.replaceChildren(element("p", `This could not be loaded: ${problem.message}.`, "problem"), again);
  }
  box.removeAttribute("aria-busy");
}

function busyButtons() {
  for (const form of document.querySelectorAll("form[method=post]")) {
    form.addEventListener("submit", () => {
      const button = form.querySelector("button[data-busy]");
      if (button) {
        button.dataset.idle = button.textContent;
        button.textContent = button.dataset.busy;
        button.disabled = true;
      }
    });
  }
  // Back to a page that the browser kept: its buttons work again.
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    for (const button of document.querySelectorAll("button[data-idle]")) {
      button.textContent = button.dataset.idle;
      button.disabled = false;
    }
  });
}

function shortcut() {
  const search = document.querySelector("input[type=search]");
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest && event.target.closest("input, textarea, select");
    if (event.key === "/" && search && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });
}

busyButtons();
shortcut();
for (const box of document.querySelectorAll("[data-live-url]")) liveFigures(box);
for (const box of document.querySelectorAll("[data-tenant-live]")) tenantOnServers(box);
for (const box of document.querySelectorAll("[data-part]")) loadPart(box);

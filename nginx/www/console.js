// The operator's console: shows what /status knows, and asks again every two seconds. All text of /status is written
// as text, never as HTML.

const REFRESH_MS = 2000;
const TIMEOUT_MS = 5000;

const $ = (selector) => document.querySelector(selector);
const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en", { timeStyle: "medium", hour12: false });

/** @param {string} name @param {Record<string, string>} attributes @param {...(Node | string)} children */
function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// ---- words ----

function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const [unit, size] = units.find(([, size]) => seconds >= size) ?? ["s", 1];
  return `${Math.floor(seconds / size)} ${unit}`;
}

function bytes(n) {
  return n < 2 ** 20 ? `${number.format(Math.ceil(n / 1024))} KiB` : `${number.format(Math.round(n / 2 ** 20))} MiB`;
}

const ago = (time) => (time === null ? "never" : `${duration(Math.max(0, (Date.now() - Date.parse(time)) / 1000))} ago`);

const retirement = ({ retires, days_left: days }) =>
  days < 0 ? element("span", { class: "bad" }, `ended on ${retires}`) : `ends on ${retires}, in ${days} days`;

/** @returns {HTMLElement} a word that has a color only if it is bad news */
const verdict = (word, good) => element("span", { class: good.includes(word) ? "good" : "bad" }, word);

// ---- tables: one list of columns each ----

const TABLES = {
  workers: [
    ["Worker", (row) => row.worker],
    ["State", (row) => verdict(row.state, ["ready"])],
    ["Process", (row) => row.pid],
    ["Running for", (row) => duration(row.uptime_s)],
    ["Requests", (row) => number.format(row.requests)],
  ],
  upstreams: [
    ["Upstream", (row) => row.upstream],
    ["Circuit breaker", (row) => verdict(row.breaker, ["closed"])],
    ["Queries", (row) => number.format(row.queries)],
    ["Failures", (row) => number.format(row.failures)],
    ["In flight", (row) => number.format(row.in_flight)],
    ["Last query", (row) => ago(row.last_query)],
  ],
  keys: [
    ["Upstream", (row) => row.upstream],
    ["Key", (row) => row.key],
    ["Digest", (row) => element("code", {}, row.digest)],
    ["State", (row) => verdict(row.state, ["in use"])],
    ["Rejections", (row) => number.format(row.refusals)],
    ["Last query", (row) => ago(row.last_query)],
  ],
  teams: [
    ["Team", (row) => row.team || "(others)"],
    ["Queries in the last minute", (row) => budget(row)],
    ["Queries", (row) => number.format(row.queries)],
    ["Refused: queries", (row) => number.format(row.queries_refused)],
    ["Refused: waits", (row) => number.format(row.waits_refused)],
    ["Held now", (row) => number.format(row.held)],
  ],
  tasks: [
    ["Task", (row) => element("code", {}, row.task)],
    ["Watchers", (row) => number.format(row.watchers)],
  ],
};

function budget({ minute_queries: used, queries_per_minute: limit }) {
  if (!limit) return number.format(used);
  const text = `${number.format(used)} of ${number.format(limit)}`;
  return element("span", {}, element("meter", { max: limit, value: Math.min(used, limit), "aria-label": text }), ` ${text}`);
}

function showTable(id, rows) {
  const section = $(`#${id}`);
  section.hidden = rows.length === 0;
  const columns = TABLES[id];
  const head = element("tr", {}, ...columns.map(([title]) => element("th", { scope: "col" }, title)));
  const body = rows.map((row) => element("tr", {}, ...columns.map(([, cell]) => element("td", {}, cell(row)))));
  const scroller = element("div", { class: "table", tabindex: "0", role: "region", "aria-labelledby": `${id}-title` },
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
  section.replaceChildren(section.firstElementChild, scroller);
}

function showList(id, entries) {
  $(`#${id} dl`).replaceChildren(
    ...entries.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

// ---- graphs ----

/** Draws bars, the newest at the right. @param {number} room steps of the whole width @param {number} top of the scale */
function draw(id, text, values, room, top) {
  const figure = $(`#${id}`);
  const bars = values.map((value, i) => {
    const height = top > 0 ? (40 * value) / top : 0;
    return `M${room - values.length + i} 40v${-height}h.8v${height}`;
  });
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [key, value] of Object.entries({ viewBox: `0 0 ${room} 40`, preserveAspectRatio: "none", "aria-hidden": "true" }))
    picture.setAttribute(key, value);
  path.setAttribute("d", bars.join("") || "M0 0");
  picture.append(path);
  figure.querySelector("strong").textContent = text;
  figure.querySelector("svg")?.remove();
  figure.append(picture);
}

const sum = (values) => values.reduce((a, b) => a + b, 0);

function showGraphs({ step_s: step, answered, hits, queries, queries_spared: spared }) {
  const room = (15 * 60) / step;
  const percent = answered.map((n, i) => (n > 0 ? (100 * hits[i]) / n : 0));
  const share = sum(answered) > 0 ? `${((100 * sum(hits)) / sum(answered)).toFixed(1)} %` : "no requests";
  draw("hit-ratio", share, percent, room, 100);
  const scale = Math.max(...queries, ...spared); // the same for both, so that they can be compared
  draw("queries", number.format(sum(queries)), queries, room, scale);
  draw("spared", number.format(sum(spared)), spared, room, scale);
  draw("requests", number.format(sum(answered)), answered, room, Math.max(...answered));
}

// ---- the page ----

/** @type {{at: number, teams: Map<string, number>}[]} the teams' queries of the last minute, the oldest first */
const minute = [];

/** The queries of each team since the oldest reading in the last minute. */
function queriesOfTheMinute(teams) {
  const now = Date.now();
  minute.push({ at: now, teams: new Map(teams.map((row) => [row.team, row.queries])) });
  while (minute[0].at < now - 60_000) minute.shift();
  return teams.map((row) => ({ ...row, minute_queries: row.queries - (minute[0].teams.get(row.team) ?? row.queries) }));
}

function show(status) {
  const { taskproxy: program, troubles, now } = status;
  $("#state").replaceChildren(verdict(status.status, ["ready"]));
  document.title = `${status.status} – taskproxy`;
  $("#about").textContent = `version ${program.version}, running for ${duration(program.uptime_s)}; ` +
    `as of ${clock.format(new Date())}`;
  $("#troubles").classList.toggle("none", troubles.length === 0);
  $("#troubles ul").replaceChildren(...(troubles.length ? troubles : ["None."]).map((text) => element("li", {}, text)));
  showGraphs(status.history);
  showTable("workers", status.workers);
  showTable("upstreams", status.upstreams);
  showTable("keys", status.keys);
  showTable("teams", queriesOfTheMinute(status.teams));
  showTable("tasks", status.most_watched);
  showList("now", [
    ["Requests that wait", number.format(now.waiters)],
    ["Event streams", number.format(now.streams)],
    ["Watched tasks", number.format(now.watched_tasks)],
    ["Fetches in progress", number.format(now.fetches)],
    ["Snapshots in memory", `${number.format(now.cached)} (${bytes(now.cache_bytes)}), ${number.format(now.evictions)} evicted`],
    ["Redis", now.redis_wanted > 0
      ? `${now.redis_up} of ${now.redis_wanted} workers connected, ${number.format(now.redis_failures)} failed commands`
      : "not configured"],
  ]);
  showList("configuration", [
    ["In force since", `${program.configuration_of} (${ago(program.configuration_of)})`],
    ["Reloads", `${program.reloads}, and ${program.refused} refused`],
    ["Last reload", program.last_refusal === null ? "accepted" : element("span", { class: "bad" }, `refused: ${program.last_refusal}`)],
    ["Workers that died", number.format(program.worker_deaths)],
    ...status.retiring.map((row) => [`Interface of ${row.provider}`, retirement(row)]),
  ]);
}

async function refresh() {
  const outage = $("#outage");
  try {
    const answer = await fetch("/status", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
    outage.hidden = true;
  } catch (error) {
    if (outage.hidden) outage.textContent = `/status has not answered since ${clock.format(new Date())} (${error.message}). Trying again …`;
    outage.hidden = false;
  }
  document.body.classList.toggle("old", !outage.hidden);
  setTimeout(refresh, REFRESH_MS);
}

refresh();

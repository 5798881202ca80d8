// The inspector: shows what the server says of its streams, and opens one to look into.
//
// Law: whatever comes is put into the page as text, never as markup. What is read here is
// the stream as it is, field by field: no client is between, so that nothing is hidden.

/**
 * @typedef {{name: string, path: string, methods: string[], form: string, doc: string,
 *   parameters: string[], slashes: string[], heartbeat: number}} Route
 * @typedef {{open: number, opened: number, closed: Record<string, number>, events: number,
 *   bytes: number, replays: number, gaps: Record<string, number>,
 *   slow: Record<string, number>, detached: number}} Counts
 * @typedef {{route: string, client: string, channels: string[], seconds: number,
 *   events: number, bytes: number, state: string}} Connection
 * @typedef {{log: string, count: number, events: number | null, bytes: number}} Kept
 * @typedef {{at: number, worker: number, routes: Record<string, Counts>, total: Counts, waiting: number,
 *   kept: Kept[], connections: Connection[]}} Look
 * @typedef {{id: string | null, type: string, data: string[], retry: string | null,
 *   comments: string[], json: boolean}} Block
 */

const MOST = 500; // events in the page

const here = new URL(import.meta.url);
const prefix = document.body.dataset.prefix ?? "";
// What a proxy puts before the application's paths.
const root = here.pathname.slice(0, here.pathname.lastIndexOf(`${prefix}/`));

/** @template {HTMLElement} [T=HTMLElement] @param {string} selector @returns {T} */
function at(selector) {
  return /** @type {T} */ (document.querySelector(selector));
}

/**
 * Makes an element of `text`, or of what is to be in it.
 * @param {string} name @param {string | (Node | string)[]} [content] @param {string} [kind]
 */
function make(name, content = [], kind = "") {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  element.append(...(typeof content === "string" ? [content] : content));
  return element;
}

const plain = new Intl.NumberFormat("en");

/** @param {number} value */
function rate(value) {
  return value >= 100 || value === 0 ? plain.format(Math.round(value)) : value.toFixed(1);
}

/** @param {number} value */
function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** @param {number} seconds */
function span(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** @param {Record<string, number>} counts */
function sum(counts) {
  return Object.values(counts).reduce((all, one) => all + one, 0);
}

/** @param {Record<string, number>} counts What of them is not 0, for a tooltip. */
function words(counts) {
  const some = Object.entries(counts).filter(([, count]) => count);
  return some.map(([word, count]) => `${word} ${plain.format(count)}`).join(", ");
}

// -- what the server says ---------------------------------------------------------------

/** @type {Route[]} */
let routes = [];
/** @type {Look | undefined} */
let before;

/** @param {Counts} now @param {Counts | undefined} then @param {number} seconds */
function rates(now, then, seconds) {
  if (!then || seconds <= 0) return { events: 0, bytes: 0 };
  // After a restart they begin anew.
  const [events, all] = [now.events - then.events, now.bytes - then.bytes];
  return { events: Math.max(0, events) / seconds, bytes: Math.max(0, all) / seconds };
}

/**
 * @param {HTMLElement} row @param {string} label @param {string} text
 * @param {string} [kind] @param {string} [title]
 */
function cell(row, label, text, kind = "number", title = "") {
  const found = row.querySelector(`[data-label="${label}"]`);
  const element = /** @type {HTMLElement} */ (found ?? make("td"));
  element.dataset.label = label;
  if (element.textContent !== text) element.textContent = text;
  element.className = text === "0" || text === "0 B" ? `${kind} zero` : kind;
  element.title = title;
  if (!found) row.append(element);
}

/** @param {Route[]} told */
function showRoutes(told) {
  routes = told;
  const body = at("#routes tbody");
  body.replaceChildren(...routes.map(rowOf));
  at("#no-routes").hidden = routes.length > 0;
  at(".wide:has(#routes)").hidden = !routes.length;
  at("#try").hidden = !routes.length;
  const chosen = select("route").value;
  select("route").replaceChildren(
    ...routes.map(({ name, path }, number) => option(`${number}`, `${name}  ${path}`)),
  );
  if (chosen && routes[Number(chosen)]) select("route").value = chosen;
  else choose();
}

/** @param {Route} route @param {number} number */
function rowOf(route, number) {
  const row = make("tr");
  row.dataset.route = route.name;
  const title = make("span", [route.name, make("span", route.form, "form")], "name");
  const others = route.methods.filter((method) => method !== "GET");
  const path = `${others.length ? `${route.methods.join(", ")} ` : ""}${root}${route.path}`;
  row.append(make("td", [title, make("code", path)]));
  for (const label of ["Open", "Events/s", "Bytes/s"]) cell(row, label, "0");
  for (const label of ["Opened", "Replays", "Gaps", "Slow", "Detached"]) cell(row, label, "0");
  const button = make("button", "Open");
  button.setAttribute("aria-label", `Open a stream of ${route.name}`);
  button.addEventListener("click", () => {
    select("route").value = `${number}`;
    choose();
    at("#try").scrollIntoView({ behavior: "smooth" });
  });
  row.append(make("td", [button], "act"));
  return row;
}

/** @param {Look} look */
function show(look) {
  const seconds = before ? look.at - before.at : 0;
  const { total } = look;
  const all = rates(total, before?.total, seconds);
  showTotals({
    Open: plain.format(total.open),
    "Events/s": rate(all.events),
    "Bytes/s": bytes(all.bytes),
    Opened: plain.format(total.opened),
    "Slow now": plain.format(look.waiting),
    "Slow, in all": plain.format(sum(total.slow)),
    "Gaps told": plain.format(sum(total.gaps)),
    Detached: plain.format(total.detached),
  });
  for (const row of document.querySelectorAll("#routes tbody tr")) {
    const element = /** @type {HTMLElement} */ (row);
    const name = element.dataset.route ?? "";
    const counts = look.routes[name];
    if (counts) showCounts(element, counts, rates(counts, before?.routes[name], seconds));
  }
  showConnections(look);
  at("#kept tbody").replaceChildren(...look.kept.map(keptRow));
  const closed = Object.entries(total.closed).filter(([, count]) => count);
  at("#closed").replaceChildren(
    ...closed.map(([reason, count]) => make("li", `${reason} ${plain.format(count)}`)),
    ...(closed.length ? [] : [make("li", "none yet")]),
  );
  before = look;
}

/** @param {Record<string, string>} figures */
function showTotals(figures) {
  const list = at("#totals");
  for (const [label, text] of Object.entries(figures)) {
    const found = list.querySelector(`[data-label="${label}"]`);
    if (found) {
      found.textContent = text;
      continue;
    }
    const value = make("dd", text);
    value.dataset.label = label;
    list.append(make("div", [make("dt", label), value]));
  }
}

/** @param {HTMLElement} row @param {Counts} counts @param {{events: number, bytes: number}} now */
function showCounts(row, counts, now) {
  cell(row, "Open", plain.format(counts.open));
  cell(row, "Events/s", rate(now.events), "number", `${plain.format(counts.events)} in all`);
  cell(row, "Bytes/s", bytes(now.bytes), "number", `${bytes(counts.bytes)} in all`);
  cell(row, "Opened", plain.format(counts.opened), "number", words(counts.closed));
  cell(row, "Replays", plain.format(counts.replays));
  for (const [label, by] of Object.entries({ Gaps: counts.gaps, Slow: counts.slow })) {
    const count = sum(by);
    cell(row, label, plain.format(count), count ? "number told" : "number", words(by));
  }
  cell(row, "Detached", plain.format(counts.detached));
}

/** @param {Look} look */
function showConnections({ connections, total }) {
  at("#connections-note").textContent =
    total.open > connections.length
      ? `${connections.length} of ${plain.format(total.open)}: the slow ones, then the newest.`
      : connections.length
        ? ""
        : "There is none.";
  at(".wide:has(#connections)").hidden = !connections.length;
  at("#connections tbody").replaceChildren(
    ...connections.map((one) => {
      const row = make("tr");
      cell(row, "Route", one.route, "name");
      cell(row, "Client", one.client, "");
      cell(row, "Channels", one.channels.join(", "), "");
      cell(row, "State", one.state, one.state === "slow" ? "told" : "");
      cell(row, "Open for", span(one.seconds));
      cell(row, "Events", plain.format(one.events));
      cell(row, "Bytes", bytes(one.bytes));
      return row;
    }),
  );
}

/** @param {Kept} kept */
function keptRow(kept) {
  const row = make("tr");
  cell(row, "Of", kept.log, "name");
  cell(row, "Logs", plain.format(kept.count));
  cell(row, "Events", kept.events === null ? "" : plain.format(kept.events));
  cell(row, "Bytes", bytes(kept.bytes));
  return row;
}

/** @param {"open" | "waiting" | "refused"} state @param {string} text */
function live(state, text) {
  const element = at("#live");
  if (element.textContent !== text) element.textContent = text;
  element.dataset.state = state;
}

function watch() {
  const source = new EventSource(new URL("inspector/live", here));
  source.addEventListener("routes", ({ data }) => showRoutes(JSON.parse(data)));
  source.addEventListener("look", ({ data }) => {
    const look = JSON.parse(data);
    // Of several workers a page sees one, and perhaps another when it comes back.
    if (before && before.worker !== look.worker) before = undefined;
    live("open", `live, worker ${look.worker}`);
    show(look);
  });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) live("refused", "refused: reload the page");
    else live("waiting", "connecting");
  };
}

// -- one stream -------------------------------------------------------------------------

const form = /** @type {HTMLFormElement} */ (at("#try-form"));

/** @param {string} name @returns {HTMLInputElement} */
function field(name) {
  return /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
}

/** @param {string} name @returns {HTMLSelectElement} */
function select(name) {
  return /** @type {HTMLSelectElement} */ (form.elements.namedItem(name));
}

/** @param {string} value @param {string} [text] */
function option(value, text = value) {
  const element = /** @type {HTMLOptionElement} */ (make("option", text));
  element.value = value;
  return element;
}

/** @returns {Route} */
function chosen() {
  return routes[Number(select("route").value)];
}

/** Shows the fields of the route that is chosen. */
function choose() {
  const route = chosen();
  at("#try-doc").textContent = route.doc;
  const methods = route.methods.filter((method) => method !== "HEAD");
  select("method").replaceChildren(...methods.map((method) => option(method)));
  at("#try-fields").replaceChildren(
    ...route.parameters.map((name) => {
      const input = /** @type {HTMLInputElement} */ (make("input"));
      input.name = `:${name}`;
      input.required = !route.slashes.includes(name);
      input.spellcheck = false;
      return make("label", [name, input]);
    }),
  );
  field("last").value = "";
  seen = "";
  update();
}

/** Returns the URL that is asked for, with what is filled in. */
function address() {
  const route = chosen();
  const path = route.path.replace(/\{(\w+)\}/g, (_, name) => {
    const text = encodeURIComponent(field(`:${name}`)?.value ?? "");
    return route.slashes.includes(name) ? text.replaceAll("%2F", "/") : text;
  });
  const query = field("query").value.replace(/^\?/, "").replace(/[\s#]/g, encodeURIComponent);
  return `${root}${path}${query ? `?${query}` : ""}`;
}

/** @param {string} text As a word of a shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function update() {
  const method = select("method").value;
  at("#try-body").hidden = method === "GET";
  const last = field("last").value;
  const body = field("body").value;
  const parts = ["curl -N"];
  if (method !== "GET") parts.push(`-X ${method}`);
  if (last) parts.push(`-H ${quoted(`Last-Event-ID: ${last}`)}`);
  if (method !== "GET" && body) {
    parts.push(`-H ${quoted(`Content-Type: ${typeOf(body)}`)} --data-raw ${quoted(body)}`);
  }
  at("#try-curl").textContent = `${parts.join(" ")} ${quoted(location.origin + address())}`;
}

/** @param {string} body */
function typeOf(body) {
  return /^\s*[[{]/.test(body) ? "application/json" : "application/x-www-form-urlencoded";
}

/** @type {AbortController | undefined} */
let stream;
let seen = ""; // the last id that came, of the stream that was opened last

/** @param {boolean} open */
function buttons(open) {
  field("stop").disabled = !open;
  field("resume").disabled = !seen;
  field("resume").textContent = open ? "Drop and resume" : "Resume";
}

/** @param {string} text @param {string} [state] */
function say(text, state = "") {
  const element = at("#try-status");
  element.textContent = text;
  element.dataset.state = state;
}

/** Asks for the stream, and shows it to its end. @param {string} last */
async function open(last) {
  stream?.abort();
  const mine = (stream = new AbortController());
  const url = address();
  say(`${select("method").value} ${url} …`);
  buttons(true);
  try {
    const response = await fetch(url, ask(last, mine.signal));
    const type = response.headers.get("content-type") ?? "";
    say(`${response.status} ${response.statusText} ${type}`, response.ok ? "" : "failed");
    if (type.startsWith("text/event-stream") && response.body) {
      await read(response.body);
      if (stream === mine) say("The server has ended the stream.");
    } else {
      const text = await response.text();
      if (text) add(make("li", [make("pre", text.slice(0, 10_000))], "error"));
    }
  } catch (error) {
    if (stream === mine && !mine.signal.aborted) say(`The connection is lost: ${error}`, "failed");
  }
  if (stream === mine) {
    stream = undefined;
    buttons(false);
  }
}

/** @param {string} last @param {AbortSignal} signal @returns {RequestInit} */
function ask(last, signal) {
  const method = select("method").value;
  /** @type {Record<string, string>} */
  const headers = { Accept: "text/event-stream" };
  if (last) headers["Last-Event-ID"] = last;
  const body = method === "GET" ? null : field("body").value || null;
  if (body) headers["Content-Type"] = typeOf(body);
  return { method, headers, body, signal, cache: "no-store" };
}

function stop() {
  stream?.abort();
  stream = undefined;
  say("Closed here.");
  buttons(false);
}

/** Reads blocks, as the standard has them. @param {ReadableStream<Uint8Array>} body */
async function read(body) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "";
  let block = empty();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    // A CR at the end may be the half of a CRLF.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line) take(block, line);
      else {
        showBlock(block);
        block = empty();
      }
    }
  }
}

/** @returns {Block} */
function empty() {
  return { id: null, type: "", data: [], retry: null, comments: [], json: false };
}

/** @param {Block} block @param {string} line */
function take(block, line) {
  const colon = line.indexOf(":");
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "") block.comments.push(value);
  else if (name === "id") block.id = value;
  else if (name === "event") block.type = value;
  else if (name === "data") block.data.push(value);
  else if (name === "retry") block.retry = value;
  else if (name === "json") block.json = true;
}

/** @param {Block} block */
function showBlock(block) {
  const { id, type, retry, comments } = block;
  const data = block.data.join("\n");
  if (id !== null) {
    seen = id;
    buttons(true);
  }
  const control = type.startsWith("sse-");
  const event = type !== "" || block.data.length > 0 || id !== null;
  if (!event && !retry && !comments.length) return;
  const kinds = { "sse-gap": "gap", "sse-error": "error", "sse-end": "gap", "sse-busy": "gap" };
  const kind = kinds[/** @type {keyof kinds} */ (type)] ?? (control ? "control" : "");
  const head = [make("time", new Date().toLocaleTimeString("en-GB"))];
  if (event) head.push(make("span", type || "message", "type"));
  if (id !== null) head.push(make("span", id, "id"));
  if (retry) head.push(make("span", `retry ${retry} ms`));
  if (comments.length) head.push(make("span", comments.join("\n") || "heartbeat", "comment"));
  const item = make("li", [make("div", head, "head")], event ? kind : "comment");
  if (data) item.append(make("pre", block.json || control ? pretty(data) : data));
  add(item);
}

/** @param {string} data */
function pretty(data) {
  try {
    const value = JSON.parse(data);
    // What was longer than a number can be is shown as it came.
    if (/(^|[^\d.])\d{16,}($|[^\d.])/.test(data)) return data;
    return typeof value === "object" ? JSON.stringify(value, null, 2) : data;
  } catch {
    return data;
  }
}

/** @param {HTMLElement} item */
function add(item) {
  const list = at("#try-events");
  list.prepend(item);
  while (list.children.length > MOST) list.lastChild?.remove();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  seen = "";
  void open(field("last").value);
});
form.addEventListener("input", ({ target }) => {
  if (target === select("route")) choose();
  else update();
  buttons(stream !== undefined);
});
field("stop").addEventListener("click", stop);
field("resume").addEventListener("click", () => {
  if (form.reportValidity()) void open(seen);
});
field("clear").addEventListener("click", () => {
  at("#try-events").replaceChildren();
});
at("#try-copy").addEventListener("click", async () => {
  const text = at("#try-curl").textContent ?? "";
  await navigator.clipboard?.writeText(text).catch(() => undefined);
});

watch();

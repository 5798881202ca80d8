// What the demo's pages have in common: a stream's state, and what its numbers prove.

const MINUTE = 60_000;
const BIN = 500; // ms, of the strip of arrivals

export const find = (selector, root = document) => root.querySelector(selector);
export const count = new Intl.NumberFormat("en").format;

/** Sets the texts of the elements below `root` that have `data-text`. */
export function write(root, texts) {
  for (const [name, text] of Object.entries(texts)) {
    const element = find(`[data-text="${name}"]`, root);
    if (element.textContent !== text) element.textContent = text;
  }
}

export function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  for (; n >= 1000 && unit < units.length - 1; unit++) n /= 1000;
  return `${n.toFixed(unit && n < 100 ? 1 : 0)} ${units[unit]}`;
}

export function duration(seconds) {
  return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
}

// -- what the numbers prove -------------------------------------------------------

/**
 * Every event of a run is numbered from 1 by what made it, whatever the connection
 * did; every message of the chat by the tab that it is from. So a number that is left
 * out was lost, and one that comes again was repeated. Behind a gap that the server has
 * told, and with a new run, counting begins anew.
 */
class Ledger {
  seen = 0;
  missing = 0;
  repeated = 0;
  gaps = 0;
  reconnects = 0;
  first = 0;
  lasts = new Map();

  take({ n, sender = "" }) {
    this.seen++;
    if (!n) return;
    const last = this.lasts.get(sender) ?? n - 1;
    this.first ||= n;
    if (n <= last) this.repeated++;
    else this.missing += n - last - 1;
    this.lasts.set(sender, Math.max(last, n));
  }

  begin() {
    this.first = 0;
    this.lasts.clear();
  }

  get range() {
    if (!this.seen) return "none yet";
    const last = this.lasts.get("");
    return last ? `${count(this.first)} to ${count(last)}` : count(this.seen);
  }
}

// -- drawing ----------------------------------------------------------------------

/** Draws points `[x, y]` in a box of 100 by 40; the y axis begins at 0. */
export function draw(svg, lines, left, right, top) {
  const strokes = svg.querySelectorAll(".stroke");
  lines.forEach((points, index) => {
    const place = ([x, y]) => {
      const across = (100 * (x - left)) / (right - left || 1);
      return `${across.toFixed(2)} ${(40 - (38 * y) / (top || 1)).toFixed(2)}`;
    };
    const path = points.length ? `M${points.map(place).join("L")}` : "";
    strokes[index].setAttribute("d", path);
    if (index || !points.length) return;
    const [from] = place(points[0]).split(" ");
    const [to] = place(points[points.length - 1]).split(" ");
    find(".fill", svg).setAttribute("d", `${path}L${to} 40L${from} 40Z`);
  });
}

/** A strip of the last minute: how many events came when, and when nothing could. */
class Strip {
  bins = new Map();
  downs = [];

  constructor(svg) {
    this.svg = svg;
  }

  arrived() {
    const bin = Math.floor(Date.now() / BIN);
    this.bins.set(bin, (this.bins.get(bin) ?? 0) + 1);
  }

  connected(open) {
    const last = this.downs.at(-1);
    const isDown = last && last.to === null;
    if (open && isDown) last.to = Date.now();
    if (!open && !isDown) this.downs.push({ from: Date.now(), to: null });
  }

  draw() {
    const now = Math.floor(Date.now() / BIN);
    const place = (bin) => (120 * (bin - now + MINUTE / BIN)) / (MINUTE / BIN);
    for (const bin of this.bins.keys()) if (place(bin) < -1) this.bins.delete(bin);
    this.downs = this.downs.filter(({ to }) => to === null || place(to / BIN) > 0);
    const most = Math.max(1, ...this.bins.values());
    let fill = "";
    for (const [bin, events] of this.bins) {
      const height = 3 + 21 * Math.sqrt(events / most);
      fill += `M${place(bin) - 0.85} 24v${-height.toFixed(1)}h.7V24Z`;
    }
    let down = "";
    for (const { from, to } of this.downs) {
      const end = to === null ? 120 : place(to / BIN);
      down += `M${place(from / BIN).toFixed(2)} 0H${end.toFixed(2)}V24H${place(from / BIN).toFixed(2)}Z`;
    }
    find(".fill", this.svg).setAttribute("d", fill);
    find(".down", this.svg).setAttribute("d", down);
  }
}

// -- a stream's line of state -----------------------------------------------------

/** Shows how a stream fares, under its section. */
export class Wire {
  ledger = new Ledger();
  resting = false;

  constructor(name) {
    this.root = find(`#${name}-wire`);
    this.strip = new Strip(find(".strip", this.root));
    this.button = find("[data-do=now]", this.root);
    this.button.addEventListener("click", () => this.stream.reconnect());
    document.addEventListener("visibilitychange", () => this.restWhileHidden());
  }

  /**
   * Follows what `open` returns, and lets `attach` listen to it.
   * @param {(options?: object) => any} open
   * @param {(stream: any) => void} attach
   */
  follow(open, attach) {
    this.open = open;
    this.attach = attach;
    this.gap = "";
    this.ledger.begin();
    this.start();
  }

  start(options) {
    let opened = options !== undefined;
    const stream = (this.stream = this.open(options));
    stream.onAny(({ data }) => {
      this.ledger.take(data);
      this.strip.arrived();
    });
    stream.onGap(({ reason }) => {
      this.gap = reason;
      this.ledger.gaps++;
      this.ledger.begin();
    });
    stream.onState(({ state }) => {
      if (state === "open") {
        if (opened) this.ledger.reconnects++;
        opened = true;
      }
      // A connection that is being made for the first time has not failed.
      if (opened) this.strip.connected(state === "open" || state === "closed");
      this.show();
    });
    this.attach(stream);
    this.show();
  }

  /**
   * A tab that is not seen gives its connection back, for a browser opens only six to
   * a host; seen again, it goes on from its place.
   */
  restWhileHidden() {
    const { info, lastEventId } = this.stream;
    if (document.hidden && info.state !== "closed") {
      this.resting = true;
      this.stream.close();
    } else if (this.resting && !document.hidden) {
      this.resting = false;
      this.start({ lastEventId });
    }
  }

  get state() {
    const { state, attempt, retryInMs, since, error } = this.stream.info;
    if (state === "closed") {
      if (!error) return "finished: the server has ended the stream";
      return error.body?.trim() || `closed: ${error.message}`;
    }
    if (state === "open" && this.gap) return `open, after a gap: ${this.gap}`;
    if (state !== "waiting") return state;
    const left = Math.max(0, since + (retryInMs ?? 0) - Date.now()) / 1000;
    const why = error?.status ? `${error.status}: ` : "";
    const again = attempt > 1 ? ` (try ${attempt})` : "";
    return `${why}reconnecting in ${left.toFixed(1)} s${again}`;
  }

  show() {
    const { ledger, root } = this;
    const { range, missing, repeated, gaps, reconnects } = ledger;
    find(".state", root).dataset.state = this.stream.info.state;
    this.button.hidden = this.stream.info.state !== "waiting";
    write(root, {
      state: this.state,
      range,
      missing: count(missing),
      repeated: count(repeated),
      gaps: count(gaps),
      reconnects: count(reconnects),
    });
    root.toggleAttribute("data-bad", missing + repeated > 0);
  }
}

// -- the buttons ------------------------------------------------------------------

/** Lets the buttons cut; returns what shows the sums over `wires`. */
export function listenToButtons(wires) {
  const said = find("#said");

  async function post(button) {
    button.disabled = true;
    try {
      const signal = AbortSignal.timeout(3000);
      const response = await fetch(button.dataset.url, { method: "POST", signal });
      const { cut, refused } = await response.json();
      const what = cut === 1 ? "1 connection cut" : `${cut} connections cut`;
      const then = refused ? `, and new ones refused with 503 for ${refused} s` : "";
      said.textContent = `${what}${then}.`;
    } catch {
      said.textContent =
        "The request did not get through. The server is not there, or this browser has " +
        "six connections to it already: close another window of this page.";
    }
    button.disabled = false;
  }

  for (const id of ["cut", "outage"]) {
    find(`#${id}`).addEventListener("click", ({ currentTarget }) => post(currentTarget));
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(find(`#${button.dataset.copy}`).textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }
  // Behind a proxy the server does not know what it is called.
  for (const element of document.querySelectorAll("[data-path]")) {
    const { before = "curl -N", path } = element.dataset;
    element.textContent = `${before} ${new URL(path, location.href)}`;
  }

  return () => {
    const sum = (name) => count(wires.reduce((all, { ledger }) => all + ledger[name], 0));
    const names = ["seen", "missing", "repeated", "gaps", "reconnects"];
    write(find("#score"), Object.fromEntries(names.map((name) => [name, sum(name)])));
  };
}

// -- the page -----------------------------------------------------------------------

/** A promise of the moment at which somebody sees the page. */
export function seen() {
  return new Promise((resolve) => {
    if (!document.hidden) resolve();
    else document.addEventListener("visibilitychange", () => resolve(), { once: true });
  });
}

/** Calls `renderers` at leisure, for as long as the page is seen. */
export function keepDrawing(...renderers) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const render = () => document.hidden || renderers.forEach((draw) => draw());
  setInterval(render, calm ? 1000 : 100);
  document.addEventListener("visibilitychange", render);
}

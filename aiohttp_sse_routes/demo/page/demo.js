// The demo's page: three streams by the generated client, `sse`, and what they prove.
"use strict";

(() => {
  const MINUTE = 60_000;
  const BIN = 500; // ms, of the strip of arrivals

  const find = (selector, root = document) => root.querySelector(selector);
  const count = new Intl.NumberFormat("en").format;

  /** Sets the texts of the elements below `root` that have `data-text`. */
  function write(root, texts) {
    for (const [name, text] of Object.entries(texts)) {
      const element = find(`[data-text="${name}"]`, root);
      if (element.textContent !== text) element.textContent = text;
    }
  }

  function bytes(n) {
    const units = ["B", "KB", "MB", "GB", "TB"];
    let unit = 0;
    for (; n >= 1000 && unit < units.length - 1; unit++) n /= 1000;
    return `${n.toFixed(unit && n < 100 ? 1 : 0)} ${units[unit]}`;
  }

  function duration(seconds) {
    return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
  }

  // -- what the numbers prove -------------------------------------------------------

  /**
   * Every event of a run is numbered from 1 by what made it, whatever the connection
   * did. So a number that is left out was lost, and one that comes again was repeated.
   * Behind a gap that the server has told, and with a new run, counting begins anew.
   */
  class Ledger {
    seen = 0;
    missing = 0;
    repeated = 0;
    gaps = 0;
    reconnects = 0;
    first = 0;
    last = 0;

    take(n) {
      this.seen++;
      if (!this.first) this.first = n;
      else if (n <= this.last) this.repeated++;
      else this.missing += n - this.last - 1;
      this.last = Math.max(this.last, n);
    }

    begin() {
      this.first = this.last = 0;
    }
  }

  // -- drawing ----------------------------------------------------------------------

  /** Draws points `[x, y]` in a box of 100 by 40; the y axis begins at 0. */
  function draw(svg, lines, left, right, top) {
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
  class Wire {
    ledger = new Ledger();

    constructor(name) {
      this.root = find(`#${name}-wire`);
      this.strip = new Strip(find(".strip", this.root));
      this.button = find("[data-do=now]", this.root);
      this.button.addEventListener("click", () => this.stream.reconnect());
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
        this.ledger.take(data.n);
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
     * a host; seen again, it goes on from its place. Not for a private run, which would
     * end with `close()`.
     */
    restWhileHidden() {
      document.addEventListener("visibilitychange", () => {
        const { lastEventId } = this.stream;
        if (document.hidden) this.stream.close();
        else if (this.stream.info.state === "closed") this.start({ lastEventId });
      });
      return this;
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
      const { first, last, missing, repeated, gaps, reconnects } = ledger;
      find(".state", root).dataset.state = this.stream.info.state;
      this.button.hidden = this.stream.info.state !== "waiting";
      write(root, {
        state: this.state,
        range: first ? `${count(first)} to ${count(last)}` : "none yet",
        missing: count(missing),
        repeated: count(repeated),
        gaps: count(gaps),
        reconnects: count(reconnects),
      });
      root.toggleAttribute("data-bad", missing + repeated > 0);
    }
  }

  // -- this machine -----------------------------------------------------------------

  function followMachine(wire) {
    const samples = [];
    let stale = false;

    wire.follow((options) => sse.machine({}, options), (stream) => {
      stream.onGap(() => samples.splice(0));
      stream.on("message", (sample) => {
        samples.push(sample);
        while (samples[0].at < sample.at - 120) samples.shift();
        stale = true;
      });
    });

    function show(id, value, note, lines, top) {
      const figure = find(`#${id}`);
      write(figure, { value, note });
      const now = samples[samples.length - 1].at;
      draw(find(".chart", figure), lines, now - 120, now, top);
    }

    return () => {
      if (!stale) return;
      stale = false;
      const last = samples[samples.length - 1];
      const line = (name) => samples.map((sample) => [sample.at, sample[name]]);
      const [received, sent] = [line("received"), line("sent")];
      const peak = Math.max(...[...received, ...sent].map(([, y]) => y));
      const cores = last.cores.length;
      const load = last.load ? `, load ${last.load[0].toFixed(2)}` : "";
      show(
        "processor",
        `${last.processor.toFixed(1)} %`,
        `${cores} ${cores === 1 ? "core" : "cores"}${load}`,
        [line("processor")],
        100,
      );
      show("memory", bytes(last.memory), `of ${bytes(last.memory_total)}`, [line("memory")], last.memory_total);
      show(
        "network",
        `${bytes(last.received)}/s in, ${bytes(last.sent)}/s out`,
        `in solid, out dashed, peak ${bytes(peak)}/s`,
        [received, sent],
        peak,
      );
    };
  }

  // -- the file ---------------------------------------------------------------------

  const NOTICES = {
    missing: "there is no such file yet",
    truncated: "the file was cut: from its start",
    rotated: "there is a new file of that name: from its start",
    skipped: "it grows too fast: some of it was passed over",
  };

  function followLog(wire) {
    const list = find("#lines");

    function add(text, kind = "") {
      const atEnd = list.scrollTop + list.clientHeight > list.scrollHeight - 30;
      const item = document.createElement("li");
      item.textContent = text;
      item.className = kind;
      list.append(item);
      while (list.childElementCount > 200) list.firstElementChild.remove();
      if (atEnd) list.scrollTop = list.scrollHeight;
    }

    wire.follow((options) => sse.log({}, options), (stream) => {
      stream.on("message", ({ text }) => add(text));
      stream.on("notice", ({ what }) => add(NOTICES[what], "notice"));
      stream.onGap(({ reason }) => add(`some lines were lost: ${reason}`, "notice"));
    });
  }

  // -- the job ----------------------------------------------------------------------

  function followJob(wire) {
    const root = find("#job");
    const bar = find("#job-bar");
    let points = [];
    let latest = null;

    function reset() {
      points = [];
      latest = null;
      bar.value = 0;
      find("#summary").hidden = true;
    }

    function fill(name, rows) {
      const items = rows.map((row) => {
        const item = document.createElement("li");
        for (const text of row) {
          const span = document.createElement("span");
          span.textContent = text;
          item.append(span);
        }
        item.title = row[0];
        return item;
      });
      find(`[data-list="${name}"]`, root).replaceChildren(...items);
    }

    function summarise(data) {
      fill("largest", data.largest.map((file) => [file.path, bytes(file.bytes)]));
      fill(
        "copies",
        data.copies.map((group) => [group.paths.join(", "), `${group.count} × ${bytes(group.bytes)}`]),
      );
      const left = data.unreadable ? `; ${count(data.unreadable)} could not be read` : "";
      write(root, {
        current: `done in ${duration(data.seconds)}${left}${data.limited ? "; there are more files" : ""}`,
        copies: data.groups ? `in ${count(data.groups)} groups, ${bytes(data.spare)} to spare` : "nowhere",
        digest: data.digest,
        command: data.command ?? "",
      });
      find("#digest").hidden = !data.command;
      find("#summary").hidden = false;
    }

    function attach(stream) {
      reset();
      stream.onGap(reset);
      stream.on("scan", ({ root: folder, files, bytes: found }) => {
        write(root, { current: `looking through ${folder}: ${count(files)} files, ${bytes(found)}` });
      });
      stream.on("progress", (data) => {
        latest = data;
        points.push([data.seconds, data.rate]);
      });
      stream.on("summary", (data) => {
        render();
        summarise(data);
      });
    }

    function render() {
      if (!latest) return;
      bar.value = latest.bytes_total ? latest.bytes / latest.bytes_total : 1;
      const peak = Math.max(...points.map(([, rate]) => rate));
      write(root, {
        files: count(latest.files),
        "files-total": `of ${count(latest.files_total)}`,
        bytes: bytes(latest.bytes),
        "bytes-total": `of ${bytes(latest.bytes_total)}`,
        rate: `${bytes(latest.rate)}/s`,
        current: latest.current,
        peak: `peak ${bytes(peak)}/s`,
      });
      draw(find(".chart", root), [points], 0, Math.max(latest.seconds, 10), peak);
      latest = null;
    }

    const begin = () => wire.follow(() => sse.job(), attach);
    find("#again").addEventListener("click", begin);
    begin();
    return render;
  }

  // -- the buttons ------------------------------------------------------------------

  function listenToButtons(wires) {
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
          "The request did not get through. A browser opens six connections to a host, " +
          "and each tab of this page holds up to three: close another one.";
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
      element.textContent = `curl -N ${new URL(element.dataset.path, location.href)}`;
    }

    return () => {
      const sum = (name) => count(wires.reduce((all, { ledger }) => all + ledger[name], 0));
      const names = ["seen", "missing", "repeated", "gaps", "reconnects"];
      write(find("#score"), Object.fromEntries(names.map((name) => [name, sum(name)])));
    };
  }

  // -- all of it --------------------------------------------------------------------

  const wires = {
    job: new Wire("job"),
    machine: new Wire("machine").restWhileHidden(),
    log: new Wire("log").restWhileHidden(),
  };
  const all = Object.values(wires);
  const renderers = [
    followJob(wires.job),
    followMachine(wires.machine),
    listenToButtons(all),
    ...all.map((wire) => () => wire.show()),
    ...all.map((wire) => () => wire.strip.draw()),
  ];
  followLog(wires.log);

  // Events are counted as they come, and drawn at leisure.
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const render = () => document.hidden || renderers.forEach((draw) => draw());
  setInterval(render, calm ? 1000 : 100);
  document.addEventListener("visibilitychange", render);
})();

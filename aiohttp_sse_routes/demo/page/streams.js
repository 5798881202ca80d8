// The page of streams, by the generated client, `sse`.

import { Wire, bytes, count, draw, duration, find, keepDrawing, listenToButtons, seen, write } from "./demo.js";

await seen();

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

  // The client's word that a run is not wanted any more: ours goes on behind a tab that
  // is not seen, and `close()` is to end its connection only.
  const quietly = (url, init) =>
    init.method === "POST" ? Promise.reject(new Error("not sent")) : fetch(url, init);

  function begin() {
    reset();
    wire.follow((options) => sse.job({}, { ...options, fetch: quietly }), attach);
  }
  find("#again").addEventListener("click", begin);
  begin();
  return render;
}

// -- all of it --------------------------------------------------------------------

const wires = { job: new Wire("job"), machine: new Wire("machine"), log: new Wire("log") };
const all = Object.values(wires);
const renderers = [
  followJob(wires.job),
  followMachine(wires.machine),
  listenToButtons(all),
  ...all.map((wire) => () => wire.show()),
  ...all.map((wire) => () => wire.strip.draw()),
];
followLog(wires.log);
keepDrawing(...renderers);

// The hub's connection for the streams of a tab, over a played `fetch` and mocked timers:
// what it asks for, and what it makes of the answer.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { createWire, installPage, load, settle } from "./support.mjs";

const { onWindow } = installPage();
globalThis.removeEventListener = () => {};
const { createLink, createMux, createSource, createStream, page, refusal, serveTabs } =
  await load("hub.mjs");

let wire, woken, mux;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: 1e12 });
  mock.method(Math, "random", () => 0.5);
  wire = createWire();
  mock.method(globalThis, "fetch", wire.fetch);
  woken = 0;
  mux = createMux("http://h/app", "http://h/app/_sse/streams", () => woken++);
});

afterEach(() => {
  mock.restoreAll();
  mock.timers.reset();
  const left = page.size;
  page.forEach((stream) => stream.close());
  assert.equal(left, 0, "a stream is left");
});

async function pass(ms) {
  for (let gone = 0; gone <= ms; gone += 10) {
    mock.timers.tick(Math.min(10, ms - gone));
    await settle();
  }
}

/** A stream, and what it is told. */
function open(path, lastEventId = "") {
  const transport = mux();
  const log = [];
  transport.open({ url: `http://h/app${path}`, lastEventId }, (what, value, luck) =>
    log.push({ what, value, luck }),
  );
  return { transport, log, of: (what) => log.filter((it) => it.what === what) };
}

const asked = () => JSON.parse(wire.last.body).streams.map(({ url, lastEventId }) => [url, lastEventId]);
const keys = () => JSON.parse(wire.last.body).streams.map(({ key }) => key);
const hello = (key, id) => `stream: ${key}\nevent: sse-hello\ndata: {}\nid: ${id}\n\n`;

test("streams that open together cost one request, with the query and the place, under no prefix", async () => {
  open("/a?x=1");
  open("/b", "c9");
  await pass(0);
  await pass(0);
  assert.equal(wire.requests.length, 1);
  const { url, method, headers } = wire.last;
  assert.deepEqual([url, method], ["http://h/app/_sse/streams", "POST"]);
  assert.equal(headers.get("Content-Type"), "application/json");
  assert.equal(headers.has("Last-Event-ID"), false);
  assert.deepEqual(asked(), [["/a?x=1", undefined], ["/b", "c9"]]);
  assert.equal(woken, 1);
});

test("blocks go to the stream that was named last; retry lines too", async () => {
  const [a, b] = [open("/a"), open("/b")];
  await pass(20);
  await wire.last.open();
  const [one, two] = keys();
  await wire.last.send(`retry: 1\n\nstream: ${one}\nretry: 2\n\nid: 1\ndata: x\n\nid: 2\ndata: y\n\n`);
  await wire.last.send(`stream: ${two}\nid: 3\ndata: z\n\nstream: unknown\nid: 4\ndata: w\n\n`);
  const data = ({ of }) => of("block").map(({ value }) => value.data);
  assert.deepEqual([data(a), data(b)], [["x", "y"], ["z"]]);
  // What comes before the first name is the endpoint's own, and all streams' business.
  const retries = ({ of }) => of("retry").map(({ value }) => value);
  assert.deepEqual([retries(a), retries(b)], [[1, 2], [1]]);
});

test("a comment goes to the stream that was named last, and to nobody before that", async () => {
  const [a, b] = [open("/a"), open("/b")];
  await pass(20);
  await wire.last.open();
  const [one, two] = keys();
  await wire.last.send(`: padding\n\nstream: ${one}\n: ours\n\nstream: ${two}\ndata: x\n\n:\n\n`);
  const comments = ({ of }) => of("comment").map(({ value }) => value);
  assert.deepEqual([comments(a), comments(b)], [["ours"], []]);
});

test("another stream costs a new request, from each one's place, when they have one", async () => {
  const a = open("/a");
  await pass(20);
  await wire.last.open();
  open("/b");
  await pass(500);
  assert.equal(wire.requests.length, 1);
  const first = wire.last;
  await first.send(hello(keys()[0], "p1"));
  await first.send("id: p2\ndata: x\n\n");
  await pass(30);
  assert.equal(first.signal.aborted, true);
  assert.deepEqual(asked(), [["/a", "p2"], ["/b", undefined]]);
  assert.deepEqual(a.of("end"), []);
});

test("who has no place after a second is asked for anew; so is a part of a snapshot", async () => {
  open("/a");
  await pass(20);
  await wire.last.open();
  await wire.last.send(hello(keys()[0], "sse1.s.aaaaaaaa.1"));
  open("/b");
  await pass(900);
  assert.equal(wire.requests.length, 1);
  await pass(200);
  assert.deepEqual(asked(), [["/a", "sse1.s.aaaaaaaa.1"], ["/b", undefined]]);
});

test("a status is that stream's alone; the end of one is no error", async () => {
  const [a, b, c, d] = ["/a", "/b", "/c", "/d"].map((path) => open(path));
  await pass(20);
  await wire.last.open();
  const [one, two, three] = keys();
  const status = (key, data) => `stream: ${key}\nevent: sse-status\ndata: ${JSON.stringify(data)}\n\n`;
  await wire.last.send(
    status(one, { status: 503, retryAfter: 5, body: "busy" }) +
      status(two, { status: 204, retryAfter: null, body: "" }) +
      `stream: ${three}\nevent: sse-eof\ndata: {}\n\n`,
  );
  const [{ value: error }] = a.of("end");
  const { kind, status: code, retryable, retryAfterMs, body } = error;
  assert.deepEqual([kind, code, retryable, retryAfterMs, body], ["http", 503, true, 5000, "busy"]);
  assert.equal(b.of("final").length, 1);
  assert.deepEqual(c.of("end").map(({ value }) => value), [null]);
  assert.deepEqual(d.of("end"), []);
  a.transport.close();
  await pass(1000);
  assert.equal(wire.requests.length, 1);
});

test("what is lost together has one error and one luck", async () => {
  const all = [open("/a"), open("/b")];
  await pass(20);
  await wire.last.open();
  await wire.last.fail();
  for (const { of } of all) {
    const [{ value, luck }] = of("end");
    assert.deepEqual([value.kind, value.retryable, luck], ["network", true, 0.5]);
  }
});

test("an event that is too large ends its own stream, and the others come back", async () => {
  const all = [open("/a"), open("/b")];
  await pass(20);
  await wire.last.open();
  await wire.last.send(`stream: ${keys()[0]}\ndata: ${"x".repeat((8 << 20) + 1)}`);
  assert.deepEqual(
    all.map(({ of }) => of("end").map(({ value }) => value?.kind)),
    [["too-large"], [undefined]],
  );
});

test("a stream that is closed is left out soon; the last one ends the connection", async () => {
  const [a, b] = [open("/a"), open("/b")];
  await pass(20);
  const first = wire.last;
  await first.open();
  for (const key of keys()) await first.send(hello(key, "p1"));
  a.transport.close();
  await pass(100);
  assert.equal(wire.requests.length, 1);
  await pass(200);
  assert.deepEqual(asked(), [["/b", "p1"]]);
  b.transport.close();
  assert.equal(wire.last.signal.aborted, true);
  await pass(1000);
  assert.equal(wire.requests.length, 2);
});

test("a stream that the server has ended costs no request when it is closed", async () => {
  const [a] = [open("/a"), open("/b")];
  await pass(20);
  await wire.last.open();
  await wire.last.send(hello(keys()[0], "p1"));
  await wire.last.send('event: sse-end\ndata: {"reason":"finished"}\nid: p1.end\n\n');
  a.transport.close();
  await pass(1000);
  assert.equal(wire.requests.length, 1);
});

test("an endpoint that refuses, or is none, is not asked again: each for itself", async () => {
  const a = open("/a", "c1");
  assert.equal(a.transport.via, "mux");
  await pass(20);
  const refused = wire.last;
  await refused.open({ "Content-Type": "text/html" }, 404);
  await refused.end();
  assert.equal(a.transport.via, "direct");
  assert.deepEqual([wire.last.url, wire.last.headers.get("Last-Event-ID")], ["http://h/app/a", "c1"]);
  const b = open("/b");
  assert.equal(b.transport.via, "direct");
  await settle();
  assert.equal(wire.last.url, "http://h/app/b");
  assert.deepEqual(a.of("end"), []);
});

test("a server that is away for a moment is no reason to do without the endpoint", async () => {
  const a = open("/a");
  await pass(20);
  await wire.last.open({ "Content-Type": "text/html" }, 502);
  await wire.last.end();
  assert.equal(a.of("end")[0].value.status, 502);
  assert.equal(a.transport.via, "mux");
});

test("a refusal of the request as a whole is waited for as it says", async () => {
  const streams = ["/a", "/b"].map((path) =>
    createStream(`http://h/app${path}`, ["", "GET", 15000, true], {}, mux(), page, () => {}),
  );
  await pass(20);
  await wire.last.open();
  await wire.last.send('retry: 31000\n\nevent: sse-busy\ndata: {"reason":"shutdown"}\n\n');
  for (const { info } of streams) {
    assert.deepEqual([info.state, info.error], ["waiting", null]);
    assert.ok(info.retryInMs >= 31000 && info.retryInMs < 39000, `${info.retryInMs}`);
  }
  await pass(30900);
  assert.equal(wire.requests.length, 1);
  await pass(9000);
  assert.equal(wire.requests.length, 2);
  streams.forEach((stream) => stream.close());
});

/** Answers so many streams of the last request that they are not for this connection. */
async function turnAway(streams) {
  await pass(20);
  await wire.last.open();
  const data = JSON.stringify({ status: 421, retryAfter: null, body: "not here" });
  const status = (key) => `stream: ${key}\nevent: sse-status\ndata: ${data}\n\n`;
  await wire.last.send(keys().slice(0, streams).map(status).join(""));
  // An error is not heeded at once: the page may be on its way out.
  await pass(60);
}

test("a stream of another handler goes by itself from then on, and its neighbours stay", async () => {
  const [a, b] = [open("/a", "c1"), open("/b")];
  await turnAway(1);
  const [shared, own] = wire.requests;
  assert.equal(wire.requests.length, 2);
  assert.deepEqual([own.url, own.method], ["http://h/app/a", undefined]);
  assert.equal(own.headers.get("Last-Event-ID"), "c1");
  assert.deepEqual([a.transport.via, b.transport.via], ["direct", "mux"]);
  await own.open();
  await own.send("data: x\n\n");
  assert.equal(a.of("block").at(-1).value.data, "x");
  assert.deepEqual([a.of("end"), b.of("end")], [[], []]);
  a.transport.close();
  assert.equal(own.signal.aborted, true);
  // It does not ask again whether it may share.
  a.transport.open({ url: "http://h/app/a", lastEventId: "c2" }, () => {});
  await pass(1000);
  assert.equal(wire.requests.length, 3);
  assert.equal(wire.last.url, "http://h/app/a");
  assert.equal(wire.last.headers.get("Last-Event-ID"), "c2");
  assert.deepEqual([a.transport.via, shared.signal.aborted], ["direct", false]);
  a.transport.close();
});

test("a stream that is refused for now costs its neighbours no request", async () => {
  const a = createStream("http://h/app/a", ["", "GET", 15000, true], {}, mux(), page, () => {});
  open("/b");
  await pass(20);
  await wire.last.open();
  const [two, one] = keys();
  await wire.last.send(hello(two, "p1"));
  await wire.last.send(`stream: ${one}\nretry: 31000\nevent: sse-busy\ndata: {}\n\n`);
  assert.equal(a.info.state, "waiting");
  await pass(1000);
  assert.equal(wire.requests.length, 1);
  a.close();
});

/** A stream that tabs share, and `join`, by which a tab comes to it. */
function source(lastEventId = "") {
  const [main, side] = [1, 2].map(() =>
    createMux("http://h/app", "http://h/app/_sse/streams", () => {}, true),
  );
  const connections = { main: () => main(), side: () => side() };
  const wake = () => page.forEach((stream) => stream.wake(0));
  const shared = createSource("http://h/app/a", 15000, lastEventId, connections, wake, () => {});
  const join = (cursor = lastEventId, isIn = true) => {
    const log = [];
    const post = (what, value) => log.push({ what, value });
    const member = { cursor, isIn, post, lane: null, greetedAt: 0, heardAt: 0, past: 0 };
    shared.add(member);
    return {
      of: (what) => log.filter((it) => it.what === what).map(({ value }) => value),
      get told() {
        return this.of("block").map(({ data, replayed }) => [data, replayed]);
      },
      leave: () => shared.remove(member),
    };
  };
  return { shared, join };
}

/** The requests that nobody has broken off. */
const carrying = () => wire.requests.filter(({ signal }) => !signal.aborted);

/** A member at p1 on the shared stream, and one at p0 on a lane of its own, both open. */
async function withLane() {
  const { join } = source("p1");
  const first = join();
  await pass(20);
  const main = wire.last;
  await main.open();
  await main.send(hello(keys()[0], "p1"));
  const second = join("p0");
  await pass(20);
  const side = wire.last;
  await side.open();
  await side.send(hello(keys()[0], "p0"));
  return { join, first, second, main, side };
}

test("a lane ends when it is where the others are, also if its tab leaves just then", async () => {
  for (const leavesAtOnce of [false, true]) {
    const { first, second, main, side } = await withLane();
    assert.deepEqual(carrying(), [main, side]);
    await side.send("id: p1\ndata: 1\n\n");
    if (leavesAtOnce) second.leave();
    await pass(0);
    assert.deepEqual(carrying(), [main]);
    await main.send("id: p2\ndata: 2\n\n");
    const data = second.told.map(([text]) => text);
    assert.deepEqual(data, leavesAtOnce ? ["{}", "1"] : ["{}", "1", "2"]);
    for (const { leave } of [first, second]) leave();
    assert.deepEqual(carrying(), []);
  }
});

test("comments go to the tabs, by the way on which they came", async () => {
  const { first, second, main, side } = await withLane();
  await main.send(": for all\n\n");
  await side.send(": for one\n\n");
  assert.deepEqual([first.of("comment"), second.of("comment")], [["for all"], ["for one"]]);
  await side.send("id: p1\ndata: 1\n\n");
  await pass(0);
  await main.send(": later\n\n");
  assert.deepEqual([first, second].map(({ of }) => of("comment").at(-1)), ["later", "later"]);
  for (const { leave } of [first, second]) leave();
});

test("a lane that waits for its server ends too, and its tab is open again", async () => {
  const { first, second, main, side } = await withLane();
  await side.send("stream: none\n\n");
  await side.fail();
  await pass(60);
  assert.equal(second.of("state").at(-1).state, "waiting");
  const before = second.told.length;
  // The place that it has: nothing else comes by which the tab could know.
  await main.send("event: sse-gap\ndata: {}\nid: p0\n\n");
  assert.deepEqual(JSON.parse(second.told[before][0]), { heartbeat: 15, resumed: "continued" });
  await pass(3000);
  assert.deepEqual(carrying(), [main]);
  for (const { leave } of [first, second]) leave();
});

test("a lane goes although the place moves again and again without an event", async () => {
  const { first, second, main, side } = await withLane();
  for (let count = 0; count < 4; count++) {
    await pass(700);
    await main.send(`event: sse-cursor\ndata: {}\nid: m${count}\n\n`);
    await pass(700);
    if (!side.signal.aborted) await side.send(`event: sse-cursor\ndata: {}\nid: s${count}\n\n`);
  }
  assert.deepEqual(carrying(), [main]);
  for (const { leave } of [first, second]) leave();
});

test("who is on a lane when the shared stream ends comes again, for the rest", async () => {
  const { first, second, main } = await withLane();
  await main.send('id: p9\ndata: 9\n\nevent: sse-end\ndata: {"reason":"finished"}\nid: p9.end\n\n');
  assert.equal(first.of("final").length, 1);
  assert.deepEqual([second.of("final"), second.of("end")], [[], [null]]);
  assert.deepEqual(carrying(), []);
  for (const { leave } of [first, second]) leave();
});

test("where a lane ends for good, nothing is left when its tab leaves", async () => {
  const { first, second, main, side } = await withLane();
  await side.send('event: sse-end\ndata: {"reason":"finished"}\nid: p0.end\n\n');
  assert.equal(second.of("final").length, 1);
  first.leave();
  second.leave();
  await pass(1000);
  assert.deepEqual([carrying(), main.signal.aborted], [[], true]);
});

test("whom the server refuses on a lane is given nothing, whatever place it names", async () => {
  const { join, first, second, main } = await withLane();
  await main.send("id: p2\ndata: 2\n\n");
  const others = [join("p2", false), join("p3", false), join("p5", true)];
  await main.send("id: p3\ndata: 3\n\nid: p4\ndata: 4\n\n");
  await pass(300);
  await wire.last.open();
  const status = 'event: sse-status\ndata: {"status": 403}\n\n';
  for (const key of keys().slice(1)) await wire.last.send(`stream: ${key}\n${status}`);
  await pass(60);
  await main.send("id: p5\ndata: 5\n\nid: p6\ndata: 6\n\n");
  await pass(3000);
  for (const { of, told } of others) {
    assert.deepEqual([of("end").map((error) => error.status), told], [[403], []]);
  }
  for (const { leave } of [first, second, ...others]) leave();
});

test("what is none of ours is not for all tabs: each is told to ask for itself", async () => {
  const all = source();
  const [first, second] = [all.join(), all.join()];
  await turnAway(1);
  for (const { of } of [first, second]) {
    assert.deepEqual([of("alone").length, of("end"), of("final")], [1, [], []]);
  }
  // Where the endpoint is refused it is known by what comes first, of which none has a word.
  const { join } = source();
  const tabs = [join(), join()];
  await pass(20);
  await wire.last.open({ "Content-Type": "text/html" }, 403);
  await wire.last.end();
  assert.equal(wire.last.url, "http://h/app/a");
  await wire.last.open();
  await wire.last.send("data: of whom?\n\n");
  for (const { of, told } of tabs) assert.deepEqual([of("alone").length, told], [1, []]);
  assert.deepEqual(carrying().filter(({ url }) => url === "http://h/app/a"), []);
});

test("a lane on which another answers is its tab's own", async () => {
  const { join, first, second } = await withLane();
  const third = join("");
  await pass(300);
  await wire.last.open();
  await wire.last.send(`stream: ${keys().at(-1)}\ndata: of whom?\n\n`);
  assert.deepEqual([third.of("alone").length, third.told], [1, []]);
  assert.deepEqual([first.of("alone"), second.of("alone")], [[], []]);
  for (const { leave } of [first, second, third]) leave();
});
test("a tab that comes while the others wait does not wait, but for what the server asks for", async () => {
  for (const [answer, requests] of [
    ["retry: 31000\n\nevent: sse-busy\ndata: {}\n\n", 1],
    ["", 2],
  ]) {
    const { join } = source();
    const before = wire.requests.length;
    const tabs = [join()];
    await pass(20);
    await wire.last.open();
    if (answer) await wire.last.send(answer);
    else await wire.last.fail();
    await pass(60);
    tabs.push(join());
    await pass(100);
    assert.equal(wire.requests.length - before, requests);
    tabs.forEach(({ leave }) => leave());
  }
});

test("what a tab missed that comes later is replayed for it, and what comes then is not", async () => {
  const { join } = source("p0");
  const first = join();
  await pass(20);
  await wire.last.open();
  await wire.last.send(hello(keys()[0], "p0"));
  await wire.last.send("replay: 1\nid: p1\ndata: 1\n\nid: p2\ndata: 2\n\n");
  const second = join("p1");
  await wire.last.send("id: p3\ndata: 3\n\n");
  const events = ({ told }) => told.filter(([data]) => !data.startsWith("{"));
  assert.deepEqual(events(first), [["1", true], ["2", false], ["3", false]]);
  assert.deepEqual(events(second), [["2", true], ["3", false]]);
  // Who has no place asks the server, and is there before the next event has come to it.
  const main = wire.last;
  const third = join("");
  await pass(20);
  await main.send("id: p4\ndata: 4\n\n");
  await wire.last.open();
  await wire.last.send(hello(keys()[0], "p2"));
  assert.deepEqual(events(third), [["3", true], ["4", false]]);
  for (const { leave } of [first, second, third]) leave();
  await pass(0);
});

test("the thirty-third stream has another connection", async () => {
  for (let count = 0; count < 33; count++) open(`/${count}`);
  await pass(20);
  assert.deepEqual(
    wire.requests.map(({ body }) => JSON.parse(body).streams.length),
    [32, 1],
  );
});

test("a refusal says by its status whether to come back", () => {
  const again = [408, 425, 429, 500, 502, 503, 504, 520].map((it) => refusal(it, "", "", ""));
  assert.ok(again.every(({ retryable }) => retryable));
  assert.ok([400, 401, 403, 404, 501].every((it) => !refusal(it, "", "", "").retryable));
});

// ---- with tabs, and a worker that they speak with

/** Two ports: what is posted comes a moment later, also if the sender closes then. */
function createChannel() {
  const ends = [{}, {}];
  ends.forEach((end, at) => {
    let isOpen = true;
    end.take = (data) => isOpen && end.onmessage?.({ data });
    end.postMessage = (data) => {
      const copy = structuredClone(data);
      if (isOpen) queueMicrotask(() => ends[1 - at].take(copy));
    };
    end.close = () => (isOpen = false);
  });
  return ends;
}

const site = { root: "http://h/app", endpoint: "http://h/app/_sse/streams", build: "build" };

/** A worker; `openTab` opens a page with one stream. */
function startWorker() {
  const ports = [];
  serveTabs("build");
  globalThis.SharedWorker = class {
    constructor() {
      const [mine, its] = createChannel();
      this.port = mine;
      ports.push(mine);
      onWindow("connect", { ports: [its] });
    }
  };
  const openTab = (lastEventId = "", path = "/a") => {
    const link = createLink(site, "http://h/app/_sse/hub.js", "name", mux);
    const stream = createStream(
      `http://h/app${path}`,
      ["", "GET", 15000, true, 2],
      { lastEventId },
      link(15000),
      page,
      () => {},
    );
    const [data, states] = [[], []];
    stream.on("message", (text) => data.push(text));
    stream.onState(({ state }) => states.push(state));
    return { stream, data, states };
  };
  return { openTab, ports };
}

test("tabs that were told different places meet in a new worker, on one connection soon", async () => {
  for (const [one, other, ofMain, ofSide, expected] of [
    ["p3", "p1", [4], [2, 3, 4], [["4", "5"], ["2", "3", "4", "5"]]],
    ["p1", "p3", [2, 3, 4], [4], [["2", "3", "4", "5"], ["4", "5"]]],
  ]) {
    const { openTab } = startWorker();
    const tabs = [openTab(one), openTab(other)];
    await pass(30);
    const [main, side] = carrying();
    const events = (numbers) => numbers.map((it) => `id: p${it}\ndata: ${it}\n\n`).join("");
    for (const [request, place, numbers] of [[side, other, ofSide], [main, one, ofMain]]) {
      const [{ key, lastEventId }] = JSON.parse(request.body).streams;
      assert.equal(lastEventId, place);
      await request.open();
      await request.send(hello(key, place) + events(numbers));
      // Who is where the others are to be goes on until they are there.
      assert.deepEqual(tabs[1].data, ofSide.map(String));
    }
    await pass(0);
    assert.deepEqual(carrying(), [main]);
    await main.send(events([5]));
    await settle();
    assert.deepEqual(tabs.map(({ data }) => data), expected);
    for (const { states } of tabs) assert.deepEqual(states, ["connecting", "open"]);
    for (const { stream } of tabs) stream.close();
    await settle();
    assert.deepEqual(carrying(), []);
  }
});

test("a tab that takes its worker for dead has left nothing with it, if it was only late", async () => {
  const { openTab, ports } = startWorker();
  const { stream } = openTab();
  await pass(30);
  await wire.last.open();
  await wire.last.send(hello(keys()[0], "p1"));
  await pass(10);
  assert.equal(stream.info.state, "open");
  // What the worker says does not come: the tab begins anew, with the same one.
  ports[0].take = () => {};
  await pass(6000);
  assert.equal(ports.length, 2);
  assert.equal(carrying().length, 1);
  stream.close();
  await pass(300);
  assert.deepEqual(carrying(), []);
});

test("a tab that comes back has what it missed from the worker; a new one asks the server", async () => {
  const { openTab } = startWorker();
  const [first, second] = [openTab("p1"), openTab("p1")];
  await pass(30);
  const main = wire.last;
  await main.open();
  await main.send(hello(keys()[0], "p1"));
  await pass(0);
  second.stream.reconnect();
  await main.send("id: p2\ndata: 2\n\n");
  await pass(30);
  assert.deepEqual([carrying(), second.data], [[main], ["2"]]);
  const third = openTab("p1");
  await pass(30);
  assert.deepEqual(asked(), [["/a", "p1"]]);
  assert.deepEqual([carrying().length, third.data], [2, []]);
  for (const { stream } of [first, second, third]) stream.close();
  await settle();
});

test("a tab that says nothing for minutes has nothing open any more, and the others have", async () => {
  startWorker();
  const [dead, quiet] = ["/a", "/b"].map((path) => {
    const [mine, its] = createChannel();
    onWindow("connect", { ports: [its] });
    mine.postMessage({ type: "hello", ...site });
    const stream = { key: 1, url: `http://h/app${path}`, heartbeatMs: 0, cursor: "" };
    mine.postMessage({ type: "join", streams: [stream] });
    return mine;
  });
  await pass(30);
  await wire.last.open();
  for (const key of keys()) await wire.last.send(hello(key, "p1"));
  await pass(10);
  for (let looks = 0; looks < 7; looks++) {
    assert.equal(asked().length, 2);
    quiet.postMessage({ type: "ping" });
    await settle();
    mock.timers.tick(30000);
  }
  await pass(300);
  assert.deepEqual([carrying().length, asked()], [1, [["/b", "p1"]]]);
  // It may have slept: it is told, and begins anew.
  const told = [];
  dead.onmessage = ({ data: { type } }) => told.push(type);
  dead.postMessage({ type: "ping" });
  await settle();
  assert.deepEqual(told, ["gone"]);
  quiet.postMessage({ type: "leave", key: 1 });
  await settle();
  assert.deepEqual(carrying(), []);
});

test("a tab asks for itself for what is not for all, as long as the stream lives", async () => {
  const { openTab } = startWorker();
  const tabs = [openTab(), openTab()];
  await turnAway(1);
  await pass(20);
  const own = carrying().filter(({ url }) => url === "http://h/app/a");
  assert.equal(own.length, 2);
  for (const request of own) {
    await request.open();
    await request.send("id: 1\ndata: of whom?\n\n");
  }
  for (const { stream, data } of tabs) {
    assert.deepEqual([stream.info.state, stream.info.via, data], ["open", "direct", ["of whom?"]]);
  }
  await own[0].fail();
  await pass(2000);
  assert.equal(wire.last.url, "http://h/app/a");
  assert.equal(wire.last.headers.get("Last-Event-ID"), "1");
  for (const { stream } of tabs) stream.close();
  await settle();
  assert.deepEqual(carrying().filter(({ url }) => url === "http://h/app/a"), []);
});

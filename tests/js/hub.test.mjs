// The hub's connection for the streams of a tab, over a played `fetch` and mocked timers:
// what it asks for, and what it makes of the answer.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { createWire, installPage, load, settle } from "./support.mjs";

installPage();
const { createMux, createSource, createStream, page, refusal } = await load("hub.mjs");

let wire, woken, mux;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1e12 });
  mock.method(Math, "random", () => 0.5);
  wire = createWire();
  mock.method(globalThis, "fetch", wire.fetch);
  woken = 0;
  mux = createMux("http://h/app", "http://h/app/_sse/streams", () => woken++);
});

afterEach(() => {
  mock.restoreAll();
  mock.timers.reset();
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
    createStream(`http://h/app${path}`, ["", "GET", 15000, true], {}, mux(), {}, () => {}),
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

/** A stream that tabs share, and `join`, by which a tab comes to it. */
function source(lastEventId = "") {
  const side = createMux("http://h/app", "http://h/app/_sse/streams", () => {});
  const connections = { main: () => mux(), side: () => side() };
  const wake = () => page.forEach((stream) => stream.wake(0));
  const shared = createSource("http://h/app/a", 15000, lastEventId, connections, wake, () => {});
  const join = (cursor = lastEventId) => {
    const told = [];
    const post = (what, value) => what === "block" && told.push([value.data, value.replayed]);
    const member = { cursor, post, lane: null, greetedAt: 0, heardAt: 0, past: 0 };
    shared.add(member);
    return { told, leave: () => shared.remove(member) };
  };
  return { shared, join };
}

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

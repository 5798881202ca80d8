// A stream over a played `fetch` and mocked timers: what it tells the page, and when it
// connects again.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { afterEach, beforeEach, mock, test } from "node:test";
import { createWire, installPage, load, settle } from "./support.mjs";

const page = installPage();
const { createClient } = await load("core.mjs");

const ROUTES = {
  room: ["/rooms/{room}", "GET", 15000, true],
  ask: ["/ask", "POST", 15000, true],
  plain: ["/plain", "GET", 15000, false],
};
const HELLO =
  'retry: 1000\nevent: sse-hello\ndata: {"heartbeat":15,"resumed":"fresh"}\nid: sse1.l.aaaaaaaa.0\n\n';
const RUN = "sse1.r.abcdefghijklmnopqrstuv.7";

let wire, sse;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1e12 });
  mock.method(Math, "random", () => 0.5);
  wire = createWire();
  sse = createClient(ROUTES, "/_sse", "http://h/app/_sse/client.js", undefined, {
    fetch: wire.fetch,
  });
});

afterEach(() => {
  sse.closeAll();
  mock.restoreAll();
  mock.timers.reset();
  page.document.hidden = false;
  page.navigator.onLine = true;
  page.reported.length = 0;
});

/** Time goes by, in steps: in one step it would be as if the machine had slept. */
async function pass(ms) {
  const step = Math.max(1000, ms / 100);
  for (let gone = 0; gone === 0 || gone < ms; gone += step) {
    mock.timers.tick(Math.min(step, ms - gone));
    await settle();
  }
}

/** A stream that is open, and what it tells. */
async function opened(options, hello = HELLO) {
  const stream = sse.room({ room: 1 }, options);
  const log = [];
  stream.onState(({ state, attempt }) => log.push(`${state} ${attempt}`));
  stream.onError((error) => log.push(`error ${error.kind}`));
  stream.onGap((gap) => log.push(gap));
  stream.onAny((event) => log.push(event.data));
  await pass(0);
  await wire.last.open();
  await wire.last.send(hello);
  return { stream, log };
}

// ---- opening

test("it connects a macrotask after it was made, so that handlers miss nothing", async () => {
  const stream = sse.room({ room: 1 });
  await settle();
  assert.equal(wire.requests.length, 0);
  assert.equal(stream.info.state, "connecting");
  await pass(0);
  assert.equal(wire.requests.length, 1);
  assert.equal(wire.last.url, "http://h/app/rooms/1");
  assert.equal(wire.last.url, stream.url);
});

test("a request asks for a stream and is not cached; no id, no header", async () => {
  sse.room({ room: 1 }, { credentials: "include" });
  await pass(0);
  assert.equal(wire.last.method, "GET");
  assert.equal(wire.last.cache, "no-store");
  assert.equal(wire.last.credentials, "include");
  assert.deepEqual([...wire.last.headers], [["accept", "text/event-stream"]]);
});

test("it is open at the hello, not at the headers", async () => {
  const stream = sse.room({ room: 1 });
  let open = false;
  stream.opened.then(() => (open = true));
  await pass(0);
  await wire.last.open();
  assert.equal(stream.info.state, "connecting");
  await wire.last.send(HELLO);
  assert.equal(stream.info.state, "open");
  assert.equal(open, true);
  assert.equal(stream.lastEventId, "sse1.l.aaaaaaaa.0");
});

test("where no hello comes it is open at the headers, and SSE-Resume tells a gap", async () => {
  const stream = sse.plain({}, { lastEventId: "a1" });
  const gaps = [];
  stream.onGap((gap) => gaps.push(gap));
  await pass(0);
  await wire.last.open({ "SSE-Resume": "gap" });
  assert.equal(stream.info.state, "open");
  assert.deepEqual(gaps, [{ reason: "unknown", after: "a1", id: null }]);
});

test("an event opens a stream whose hello did not come", async () => {
  const { stream } = await opened({}, "data: x\n\n");
  assert.equal(stream.info.state, "open");
});

test("states tell try, wait and cause", async () => {
  const { stream } = await opened();
  const infos = [];
  stream.onState((info) => infos.push(info));
  await pass(6000);
  await wire.last.fail();
  await pass(50);
  assert.deepEqual(
    { ...infos[0], error: infos[0].error.kind },
    {
      state: "waiting",
      attempt: 1,
      retryInMs: 500,
      via: "direct",
      since: Date.now(),
      error: "network",
      headers: null,
    },
  );
  assert.equal(stream.info, infos[0]);
  await pass(500);
  assert.equal(infos[1].state, "connecting");
  assert.equal(infos[1].retryInMs, null);
});

test("while it is open the headers of its own connection can be read", async () => {
  const { stream } = await opened();
  assert.equal(stream.info.headers.get("Content-Type"), "text/event-stream");
  await wire.last.end();
  assert.deepEqual([stream.info.state, stream.info.headers], ["waiting", null]);
  await pass(500);
  assert.equal(stream.info.headers, null);
  await wire.last.open({ "X-Build": "7" });
  await wire.last.send(HELLO);
  assert.equal(stream.info.headers.get("X-Build"), "7");
});

// ---- events

test("an event has data, type, id, lastEventId, raw; JSON only where it is marked", async () => {
  const { stream } = await opened();
  const seen = [];
  stream.on("price", (data, event) => seen.push([data, event]));
  await wire.last.send('event: price\njson\ndata: {"a":1}\nid: i1\n\nevent: price\ndata: 12\n\n');
  assert.deepEqual(seen, [
    [
      { a: 1 },
      {
        type: "price",
        data: { a: 1 },
        id: "i1",
        lastEventId: "i1",
        raw: '{"a":1}',
        replayed: false,
      },
    ],
    ["12", { type: "price", data: "12", id: null, lastEventId: "i1", raw: "12", replayed: false }],
  ]);
});

test("data that cannot be parsed is an error with the event, and the stream goes on", async () => {
  const { stream, log } = await opened();
  const errors = [];
  stream.onError((error) => errors.push(error));
  await wire.last.send("json\ndata: {\nid: i1\n\ndata: next\n\n");
  assert.deepEqual(log.slice(-2), ["error decode", "next"]);
  assert.deepEqual(errors[0].event, { type: "message", raw: "{", id: "i1" });
  assert.ok(errors[0].cause instanceof SyntaxError);
  assert.equal(stream.lastEventId, "i1");
});

test("`parse` takes the place of the parsing", async () => {
  const { log } = await opened({ parse: (raw, type) => `${type}:${raw}` });
  await wire.last.send("json\ndata: 1\n\n");
  assert.equal(log.at(-1), "message:1");
});

test("one handler for several types, and none is called twice for one event", async () => {
  const { stream } = await opened();
  const seen = [];
  stream.on(["a", "b"], (data, { type }) => seen.push(type + data));
  await wire.last.send("event: a\ndata: 1\n\nevent: b\ndata: 2\n\nevent: c\ndata: 3\n\n");
  assert.deepEqual(seen, ["a1", "b2"]);
});

test("unsubscribing, a signal and `once` end a subscription and nothing else", async () => {
  const { stream } = await opened();
  const seen = [];
  const off = stream.on("message", (data) => seen.push("off" + data));
  const abort = new AbortController();
  stream.on("message", (data) => seen.push("signal" + data), { signal: abort.signal });
  stream.on(["message", "x"], (data) => seen.push("once" + data), { once: true });
  stream.on("message", (data) => seen.push("never" + data), { signal: AbortSignal.abort() });
  await wire.last.send("data: 1\n\n");
  off();
  off();
  abort.abort();
  await wire.last.send("data: 2\n\nevent: x\ndata: 3\n\n");
  assert.deepEqual(seen, ["off1", "signal1", "once1"]);
  assert.equal(stream.info.state, "open");
});

test("a handler that was removed by another is not called for that event", async () => {
  const { stream } = await opened();
  const seen = [];
  stream.on("message", () => off());
  const off = stream.on("message", (data) => seen.push(data));
  await wire.last.send("data: 1\n\n");
  assert.deepEqual(seen, []);
});

test("a handler that throws is reported and stops neither the others nor the stream", async () => {
  const { stream, log } = await opened();
  const bad = new Error("the page's");
  for (const on of [stream.onState, stream.onError, stream.onGap]) {
    on(() => {
      throw bad;
    });
  }
  stream.on("message", () => {
    throw bad;
  });
  await wire.last.send("data: 1\n\ndata: 2\n\n");
  assert.deepEqual(log.slice(-2), ["1", "2"]);
  assert.deepEqual(page.reported, [bad, bad]);
});

test("events may be called like what objects have", async () => {
  const { stream } = await opened();
  const seen = [];
  const types = ["__proto__", "constructor", "toString", "hasOwnProperty"];
  for (const type of types) stream.on(type, (data) => seen.push(type + data));
  await wire.last.send(types.map((type) => `event: ${type}\ndata: !\n\n`).join(""));
  assert.deepEqual(
    seen,
    types.map((type) => type + "!"),
  );
});

test("events are kept as long as nobody listens, and come in order", async () => {
  const stream = sse.room({ room: 1 });
  await pass(0);
  await wire.last.open();
  await wire.last.send(HELLO + "data: 1\n\nevent: b\ndata: 2\n\n");
  const seen = [];
  stream.on("message", (data) => seen.push(data));
  stream.on("b", (data) => seen.push(data));
  await wire.last.send("data: 3\n\n");
  assert.deepEqual(seen, ["1", "2", "3"]);
});

test("what is lost may be nobody's business, or the end", async () => {
  const max = 2;
  const first = await opened({ buffer: { max, overflow: "drop-oldest" } });
  const loop = first.stream.events();
  await wire.last.send("data: 1\n\ndata: 2\n\ndata: 3\n\n");
  assert.deepEqual([(await loop.next()).value.data, (await loop.next()).value.data], ["2", "3"]);
  assert.deepEqual([first.log.at(-1), first.stream.info.state], ["3", "open"]);
  const { stream, log } = await opened({ buffer: { max, overflow: "error" } });
  const other = stream.events();
  await wire.last.send("data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n");
  assert.deepEqual([(await other.next()).value.data, (await other.next()).value.data], ["2", "3"]);
  await assert.rejects(other.next(), { kind: "too-large", retryable: false });
  assert.equal(await stream.closed, "fatal");
  assert.ok(log.includes("error too-large") && !log.includes("4"), `${log}`);
  assert.equal(wire.last.signal.aborted, true);
});

test("what is kept is bounded: the rest is told as one gap", async () => {
  const stream = sse.room({ room: 1 }, { buffer: { max: 2 } });
  const log = [];
  stream.onGap((gap) => log.push(gap));
  await pass(0);
  await wire.last.open();
  await wire.last.send(HELLO + [1, 2, 3, 4, 5].map((n) => `id: ${n}\ndata: ${n}\n\n`).join(""));
  assert.deepEqual(log, []);
  stream.on("message", (data) => log.push(data));
  await settle();
  assert.deepEqual(log, [{ reason: "overflow", after: null, id: "3" }, "4", "5"]);
});

test("events that come while kept ones wait for their turn do not overtake them", async () => {
  const stream = sse.room({ room: 1 });
  const seen = [];
  stream.onGap(() => stream.on("message", (data) => seen.push(data)));
  await pass(0);
  await wire.last.open();
  await wire.last.send(HELLO + "data: 1\n\nevent: sse-gap\ndata: {}\nid: c\n\ndata: 2\n\n");
  assert.deepEqual(seen, ["1", "2"]);
});

test("what was kept is not delivered after close()", async () => {
  const stream = sse.room({ room: 1 });
  await pass(0);
  await wire.last.open();
  await wire.last.send(HELLO + "data: 1\n\n");
  const seen = [];
  stream.close();
  stream.on("message", (data) => seen.push(data));
  await settle();
  assert.deepEqual(seen, []);
});

// ---- what our server tells

test("control events are none of the page's, known or not", async () => {
  const { stream, log } = await opened();
  const seen = [];
  for (const type of ["sse-hello", "sse-cursor", "sse-new"]) stream.on(type, () => seen.push(type));
  await wire.last.send("event: sse-cursor\ndata: {}\nid: c9\n\nevent: sse-new\ndata: {}\n\n");
  assert.deepEqual(seen, []);
  assert.deepEqual(log, ["connecting 0", "open 0"]);
  assert.equal(stream.lastEventId, "c9");
});

test("a comment is told to who asks for it; a heartbeat, which says nothing, is not", async () => {
  const { stream, log } = await opened();
  const comments = [];
  const off = stream.onComment((text) => comments.push(text));
  await wire.last.send(":\n\n: hello\n:there: you\n\ndata: 1\n: inside\n\n");
  off();
  await wire.last.send(": more\n\n");
  assert.deepEqual(comments, ["hello", "there: you", "inside"]);
  assert.deepEqual(log.slice(-1), ["1"]);
});

test("an event of ours that comes again is not told again, and moves nothing", async () => {
  const { stream, log } = await opened();
  const event = (n) => `id: sse1.l.aaaaaaaa.${n}\ndata: ${n}\n\n`;
  await wire.last.send(event(1) + event(2) + event(3));
  await wire.last.end();
  await pass(500);
  await wire.last.open();
  await wire.last.send(event(2) + event(3));
  assert.equal(stream.lastEventId, "sse1.l.aaaaaaaa.3");
  await wire.last.send(event(4));
  assert.deepEqual(log.filter((it) => /^\d$/.test(it)), ["1", "2", "3", "4"]);
});

test("what comes behind a gap, a page's own ids and parts of a snapshot may come again", async () => {
  const { log } = await opened();
  const gap = 'event: sse-gap\ndata: {"reason":"reset"}\nid: sse1.l.aaaaaaaa.0\n\n';
  const event = (id) => `id: ${id}\ndata: ${id}\n\n`;
  const ids = ["sse1.l.aaaaaaaa.1", "own", "own", "sse1.s.aaaaaaaa.1", "sse1.s.aaaaaaaa.1"];
  await wire.last.send(ids.map(event).join(""));
  await wire.last.send(gap + event(ids[0]));
  assert.deepEqual(log.slice(2).filter((it) => it.trim), [...ids, ids[0]]);
});

test("of what was told the last 256 are known again", async () => {
  const { log } = await opened();
  const event = (n) => `id: sse1.l.aaaaaaaa.${n}\ndata: ${n}\n\n`;
  const numbers = Array.from({ length: 257 }, (_, n) => n + 1);
  await wire.last.send(numbers.map(event).join(""));
  await wire.last.send(event(2) + event(257));
  assert.equal(log.at(-1), "257");
  await wire.last.send(event(1));
  assert.equal(log.at(-1), "1");
});

test("a gap is told with its reason and moves the place", async () => {
  const { stream, log } = await opened();
  await wire.last.send('event: sse-gap\ndata: {"reason":"slow","after":"c1"}\nid: c5\n\n');
  assert.deepEqual(log.at(-1), { reason: "slow", after: "c1", id: "c5" });
  assert.equal(stream.lastEventId, "c5");
});

test("a gap that nobody listens to is told to the first who does", async () => {
  const stream = sse.room({ room: 1 });
  await pass(0);
  await wire.last.open();
  await wire.last.send(HELLO + 'event: sse-gap\ndata: {"reason":"reset","after":null}\nid: c5\n\n');
  const gaps = [];
  stream.onGap((gap) => gaps.push(gap));
  await settle();
  stream.onGap((gap) => gaps.push(gap));
  await settle();
  assert.deepEqual(gaps, [{ reason: "reset", after: null, id: "c5" }]);
});

for (const [reason, closed, errors] of [
  ["finished", "done", []],
  ["replaced", "replaced", []],
  ["disconnected", "fatal", ["error server"]],
  ["gone", "fatal", ["error server"]],
]) {
  test(`the end "${reason}" closes as "${closed}", for good`, async () => {
    const { stream, log } = await opened();
    await wire.last.send(
      `event: sse-end\ndata: {"reason":"${reason}"}\nid: x.end\n\ndata: late\n\n`,
    );
    assert.deepEqual(log.slice(2), ["closed 0", ...errors]);
    assert.equal(await stream.closed, closed);
    await pass(1e6);
    stream.reconnect();
    page.onWindow("online");
    await pass(1e6);
    assert.equal(wire.requests.length, 1);
    stream.close();
    assert.equal(await stream.closed, closed);
    assert.equal(wire.requests.length, 1);
  });
}

test("an error of the handler is told with its ref; the server's retry is waited for", async () => {
  const { stream, log } = await opened();
  const errors = [];
  stream.onError((error) => errors.push(error));
  await wire.last.send('retry: 30000\nevent: sse-error\ndata: {"ref":"r-1"}\n\n');
  assert.deepEqual([errors[0].kind, errors[0].ref, stream.info.state], ["server", "r-1", "open"]);
  await wire.last.end();
  assert.equal(log.at(-1), "waiting 1");
  assert.ok(stream.info.retryInMs >= 30000 && stream.info.retryInMs <= 37500);
  page.onWindow("online");
  await pass(29000);
  assert.equal(wire.requests.length, 1);
});

test("a busy server is waited for, as long as it says, without having been open", async () => {
  const { stream, log } = await opened({}, "retry: 28000\nevent: sse-busy\ndata: {}\n\n");
  assert.deepEqual(log, ["connecting 0", "waiting 1"]);
  assert.ok(stream.info.retryInMs >= 28000 && stream.info.retryInMs <= 35000);
  assert.equal(stream.info.error, null);
  await pass(35000);
  assert.equal(wire.requests.length, 2);
});

test("a retry in mid-stream says when to come back, at the least", async () => {
  const { stream } = await opened();
  await pass(6000);
  await wire.last.send("retry: 60000\n\n");
  await wire.last.end();
  assert.ok(stream.info.retryInMs >= 60000);
});

test("a retry before the hello is the base of the back-off, and no more", async () => {
  const { stream } = await opened();
  stream.reconnect();
  await settle();
  await wire.last.open();
  await wire.last.send("retry: 60000\n\n");
  await wire.last.end();
  assert.equal(stream.info.retryInMs, 15000);
});

test("what a connection said about coming back is not true of the next one", async () => {
  const { stream } = await opened();
  await wire.last.send("retry: 60000\n\n");
  await wire.last.end();
  await pass(75000);
  await wire.last.fail();
  await pass(50);
  assert.deepEqual([stream.info.attempt, stream.info.retryInMs], [2, 22500]);
});

test("no wait is too long for a timer", async () => {
  const { stream } = await opened();
  const timers = mock.method(globalThis, "setTimeout");
  stream.next("never", { timeoutMs: Infinity }).catch(() => {});
  await wire.last.send("retry: 99999999999999\n\n");
  await wire.last.end();
  const delays = timers.mock.calls.map((call) => call.arguments[1]);
  assert.deepEqual(delays, [2 ** 31 - 1, 2 ** 31 - 1]);
});

test("a heartbeat that is told late is watched all the same", async () => {
  const stream = sse.open("/rooms/1");
  const log = [];
  stream.onError((error) => log.push(error.kind));
  await pass(0);
  await wire.last.open();
  assert.equal(stream.info.state, "open");
  await wire.last.send(HELLO);
  await pass(41000);
  assert.deepEqual(log, ["stalled"]);
});

test("what is replayed is what the server has counted, however its bytes are cut", async () => {
  const text =
    "replay: 3\nid: i1\ndata: 1\n\nretry: 2000\n\nid: i2\ndata: 2\n\ndata: 3\n\n" +
    ":\n\nreplay: 1\ndata: 4\n\ndata: 5\n\nreplay: x\ndata: 6\n\n";
  for (const size of [1, 7, text.length]) {
    const { stream } = await opened();
    const seen = [];
    stream.onAny((event) => event.replayed && seen.push(event.data));
    for (let at = 0; at < text.length; at += size) await wire.last.send(text.slice(at, at + size));
    assert.deepEqual(seen, ["1", "2", "4"]);
    stream.close();
  }
});

test("an answer of which not a byte comes is stalled, and the hint says why", async () => {
  const stream = sse.room({ room: 1 });
  await pass(0);
  await wire.last.open();
  await pass(10000);
  await pass(50);
  assert.equal(stream.info.state, "waiting");
  const { kind, message } = stream.info.error;
  assert.deepEqual([kind, message], ["stalled", "not open in 10000 ms: does a proxy buffer?"]);
  await pass(1000);
  await wire.last.open();
  await wire.last.send(":\n\n");
  await pass(20000);
  await pass(50);
  assert.equal(stream.info.error.kind, "timeout");
});

// ---- losing and finding

test("it resumes with the last id, in UTF-8 bytes, and an event without id keeps it", async () => {
  const { stream } = await opened();
  await wire.last.send("id: …é\ndata: a\n\ndata: b\n\n");
  await wire.last.end();
  stream.reconnect();
  await settle();
  const sent = Buffer.from(wire.last.headers.get("Last-Event-ID"), "latin1").toString();
  assert.equal(sent, "…é");
  await wire.last.open();
  await wire.last.send("data: c\n\n");
  assert.equal(stream.lastEventId, "…é");
});

test("a connection that was given up is not heard of again", async () => {
  const { stream } = await opened();
  stream.reconnect();
  await pass(100);
  assert.deepEqual([stream.info.state, wire.requests.length], ["connecting", 2]);
  await wire.last.open();
  await wire.last.send(HELLO);
  assert.equal(stream.info.state, "open");
});

test("a try that fails long after a healthy connection is not the first", async () => {
  const { stream } = await opened();
  await pass(6000);
  await wire.last.end();
  await pass(500);
  await pass(6000);
  await wire.last.fail();
  await pass(50);
  assert.deepEqual([stream.info.attempt, stream.info.retryInMs], [2, 1500]);
});

test("an empty id clears the place: then no header is sent", async () => {
  const { stream } = await opened();
  await wire.last.send("id\ndata: a\n\n");
  stream.reconnect();
  await settle();
  assert.equal(wire.last.headers.has("Last-Event-ID"), false);
});

test("the first wait after a healthy connection is of the server's retry", async () => {
  const { stream } = await opened();
  await pass(5000);
  await wire.last.end();
  assert.deepEqual([stream.info.attempt, stream.info.retryInMs], [1, 500]);
});

test("a connection that did not last 5 s does not begin the back-off anew", async () => {
  const { stream } = await opened();
  const waits = [];
  for (let n = 0; n < 4; n++) {
    await wire.last.end();
    waits.push(stream.info.retryInMs);
    await pass(stream.info.retryInMs);
    await wire.last.open();
    await wire.last.send("data: x\n\n");
  }
  assert.deepEqual(waits, [500, 1500, 3000, 6000]);
  await pass(5000);
  await wire.last.end();
  assert.equal(stream.info.retryInMs, 500);
});

test("a lost connection is told 50 ms late, a clean end is no error", async () => {
  const { log } = await opened();
  await wire.last.fail();
  assert.equal(log.at(-1), "open 0");
  await pass(50);
  assert.deepEqual(log.slice(-2), ["waiting 1", "error network"]);
  await pass(500);
  await wire.last.open();
  await wire.last.send(HELLO);
  await wire.last.end();
  assert.deepEqual(log.slice(-2), ["open 1", "waiting 2"]);
});

test("maxAttempts, shouldRetry and a backoff that says null each end it", async () => {
  for (const options of [
    { backoff: { maxAttempts: 1 } },
    { shouldRetry: (error) => error.kind !== "network" },
    { backoff: (attempt) => (attempt ? null : 5) },
  ]) {
    const stream = sse.room({ room: 1 }, options);
    for (let n = 0; n < 2 && stream.info.state !== "closed"; n++) {
      await pass(2000);
      await wire.last.fail();
      await pass(50);
    }
    assert.equal(await stream.closed, "fatal");
    assert.equal(stream.info.error.kind, "network");
    await assert.rejects(stream.opened, { kind: "network" });
  }
});

test("a backoff function says how long", async () => {
  const stream = sse.room(
    { room: 1 },
    { backoff: (attempt, { kind }) => (kind ? 1234 + attempt : 0) },
  );
  await pass(0);
  await wire.last.fail();
  await pass(50);
  assert.equal(stream.info.retryInMs, 1234);
});

test("a backoff or shouldRetry that throws is reported, and ours takes its place", async () => {
  const thrower = () => {
    throw new Error("the page's");
  };
  const stream = sse.room({ room: 1 }, { backoff: thrower, shouldRetry: thrower });
  await pass(0);
  await wire.last.fail();
  await pass(50);
  assert.equal(stream.info.retryInMs, 500);
  assert.equal(page.reported.length, 2);
});

test("headers are made anew for each try, and a 401 gives them one more", async () => {
  const asked = [];
  const headers = async ({ attempt, error }) => {
    asked.push([attempt, error?.status ?? null]);
    return { Authorization: `token ${asked.length}` };
  };
  const stream = sse.room({ room: 1 }, { headers });
  await pass(0);
  await wire.last.open({}, 401);
  await wire.last.end();
  await pass(50);
  assert.equal(wire.requests.length, 2);
  assert.equal(wire.last.headers.get("Authorization"), "token 2");
  assert.deepEqual(asked, [
    [0, null],
    [0, 401],
  ]);
  await wire.last.open({}, 401);
  await wire.last.end();
  await pass(50);
  assert.equal(await stream.closed, "fatal");
  assert.equal(stream.info.error.status, 401);
});

test("each connection may be refused once for its headers", async () => {
  const stream = sse.room({ room: 1 }, { headers: () => ({}) });
  await pass(0);
  for (let n = 0; n < 3; n++) {
    await wire.last.open({}, 401);
    await wire.last.end();
    await pass(50);
    await wire.last.open();
    await wire.last.send(HELLO);
    assert.equal(stream.info.state, "open");
    await pass(6000);
    await wire.last.end();
    await pass(1000);
  }
});

test("headers that cannot be made now are tried again", async () => {
  const stream = sse.room({ room: 1 }, { headers: () => Promise.reject(new Error("offline")) });
  await pass(0);
  await pass(50);
  assert.equal(stream.info.state, "waiting");
  assert.equal(stream.info.error.cause.message, "offline");
});

test("what is no GET is not sent again unless the server knows it by its id", async () => {
  for (const [play, expected] of [
    [(it) => it.fail(), "closed"],
    [(it) => it.open({}, 502).then(() => it.end()), "closed"],
    [(it) => it.open().then(() => it.end()), "closed"],
    [(it) => it.open({}, 503).then(() => it.end()), "waiting"],
    [(it) => it.open().then(() => it.send("retry: 500\nevent: sse-busy\ndata: {}\n\n")), "waiting"],
    [
      (it) =>
        it
          .open()
          .then(() => it.send(HELLO))
          .then(() => it.end()),
      "waiting",
    ],
  ]) {
    const stream = sse.ask({}, { body: () => "question" });
    await pass(0);
    assert.deepEqual([wire.last.method, wire.last.body], ["POST", "question"]);
    await play(wire.last);
    await pass(50);
    assert.equal(stream.info.state, expected, play);
  }
});

test("a try that does not open in time is given up, and the next one gets longer", async () => {
  const stream = sse.room({ room: 1 }, { connectTimeoutMs: 1000 });
  await pass(0);
  await pass(999);
  assert.equal(stream.info.state, "connecting");
  await pass(1);
  await pass(50);
  assert.equal(stream.info.error.kind, "timeout");
  assert.equal(wire.last.signal.aborted, true);
  await pass(500);
  await pass(1999);
  assert.equal(stream.info.state, "connecting");
  await pass(1);
  await pass(50);
  assert.equal(stream.info.state, "waiting");
});

// ---- the watchdog

test("a connection that is silent for two heartbeats and 10 s is dropped, and resumed at once", async () => {
  const { stream, log } = await opened({}, HELLO.replace(":15", ":5"));
  await pass(19999);
  await wire.last.send(":\n\n");
  await pass(19999);
  assert.equal(stream.info.state, "open");
  await pass(1);
  await pass(50);
  assert.deepEqual(log.slice(-3), ["waiting 1", "error stalled", "connecting 1"]);
  assert.equal(wire.requests.length, 2);
  assert.equal(wire.last.headers.get("Last-Event-ID"), "sse1.l.aaaaaaaa.0");
});

test("a timer that comes late, after a sleep, lets queued bytes in before it judges", async () => {
  const { stream, log } = await opened();
  mock.timers.tick(3600e3);
  await settle();
  await wire.last.send(":\n\n");
  await pass(3000);
  await pass(100);
  assert.deepEqual([stream.info.state, wire.requests.length], ["open", 1]);
  mock.timers.tick(3600e3);
  await settle();
  assert.equal(stream.info.state, "open");
  await pass(3000);
  await pass(50);
  assert.equal(log.at(-2), "error stalled");
});

test("stallTimeoutMs takes the place of the heartbeat's, null of any", async () => {
  const { log } = await opened({ stallTimeoutMs: 500 });
  await pass(500);
  await pass(50);
  assert.equal(log.at(-2), "error stalled");
  const other = await opened({ stallTimeoutMs: null });
  await pass(1e9);
  assert.equal(other.stream.info.state, "open");
});

test("a heartbeat of 0, and an address that is no route of ours, have no watchdog", async () => {
  const { stream } = await opened({}, HELLO.replace(":15", ":0"));
  const other = sse.open("/other");
  await pass(0);
  await wire.last.open();
  await pass(1e9);
  assert.deepEqual([stream.info.state, other.info.state], ["open", "open"]);
});

// ---- the page

test("coming online ends the wait, spread over half a second", async () => {
  const { stream } = await opened({ backoff: { initialMs: 30000 } }, "data: x\n\n");
  await wire.last.end();
  assert.equal(stream.info.retryInMs, 15000);
  page.onWindow("online");
  await pass(249);
  assert.equal(wire.requests.length, 1);
  await pass(1);
  assert.equal(wire.requests.length, 2);
});

test("without a network it waits longer, but not for ever", async () => {
  page.navigator.onLine = false;
  const { stream } = await opened();
  assert.equal(stream.info.state, "open");
  await wire.last.end();
  assert.equal(stream.info.retryInMs, 30000);
});

test("becoming visible ends the wait, unless the server said how long", async () => {
  const { stream } = await opened({}, "data: x\n\n");
  await wire.last.end();
  page.document.hidden = true;
  page.onDocument("visibilitychange");
  await pass(0);
  assert.equal(wire.requests.length, 1);
  page.document.hidden = false;
  page.onDocument("visibilitychange");
  await pass(0);
  assert.equal(wire.requests.length, 2);
  await wire.last.open({ "Retry-After": "20" }, 503);
  await wire.last.end();
  await pass(50);
  assert.ok(stream.info.retryInMs >= 20000);
  page.onDocument("visibilitychange");
  page.onDocument("resume");
  await pass(10000);
  assert.equal(wire.requests.length, 2);
});

test("becoming visible after a silence of a heartbeat and 3 s connects anew", async () => {
  for (const wake of [
    () => page.onDocument("visibilitychange"),
    () => page.onDocument("resume"),
    () => page.onWindow("pageshow", { persisted: true }),
  ]) {
    const { stream } = await opened();
    const before = wire.requests.length;
    await pass(18000);
    wake();
    await pass(0);
    assert.equal(wire.requests.length, before);
    await pass(1);
    wake();
    await pass(0);
    assert.equal(wire.requests.length, before + 1);
    stream.close();
  }
});

test("a stream may have no connection while its page is hidden", async () => {
  const { stream, log } = await opened({ pause: "hidden" }, HELLO + "id: c7\ndata: x\n\n");
  const other = sse.room({ room: 2 });
  await pass(0);
  const [mine, theirs] = wire.requests;
  const hide = (hidden) => {
    page.document.hidden = hidden;
    page.onDocument("visibilitychange");
  };
  log.length = 0;
  hide(true);
  assert.deepEqual([mine.signal.aborted, theirs.signal.aborted], [true, false]);
  page.onWindow("online");
  stream.reconnect();
  await pass(1e5);
  assert.equal(stream.info.state, "waiting");
  assert.equal(wire.requests.filter(({ url }) => url === stream.url).length, 1);
  hide(false);
  await pass(0);
  const again = wire.requests.findLast(({ url }) => url === stream.url);
  assert.equal(again.headers.get("Last-Event-ID"), "c7");
  await again.open();
  await again.send(HELLO);
  assert.deepEqual([log[0], ...log.slice(-2)], ["waiting 0", "connecting 0", "open 0"]);
  other.close();
});

test("one that is made in a hidden page connects when it is looked at", async () => {
  page.document.hidden = true;
  const stream = sse.room({ room: 1 }, { pause: "hidden" });
  await pass(1000);
  assert.deepEqual([stream.info.state, wire.requests.length], ["waiting", 0]);
  page.document.hidden = false;
  page.onDocument("visibilitychange");
  await pass(0);
  assert.equal(wire.requests.length, 1);
});

test("leaving the page drops the connection without a word; coming back resumes", async () => {
  const { stream, log } = await opened();
  await wire.last.send("id: c7\ndata: x\n\n");
  log.length = 0;
  page.onWindow("pagehide");
  page.document.hidden = true;
  page.onDocument("visibilitychange");
  await pass(1e6);
  assert.deepEqual(log, []);
  assert.equal(wire.last.signal.aborted, true);
  assert.equal(wire.requests.length, 1);
  page.onWindow("pageshow", { persisted: true });
  await pass(0);
  assert.equal(wire.last.headers.get("Last-Event-ID"), "c7");
  assert.deepEqual(log, ["connecting 0"]);
  page.document.hidden = false;
  page.onDocument("visibilitychange");
  await pass(0);
  assert.deepEqual([stream.info.state, wire.requests.length], ["connecting", 2]);
});

test("a page that comes back while it waited for a busy server asks it again", async () => {
  await opened({}, "retry: 28000\nevent: sse-busy\ndata: {}\n\n");
  page.onWindow("pagehide");
  page.onWindow("pageshow", { persisted: true });
  await pass(0);
  assert.equal(wire.requests.length, 2);
});

test("a page that has only been loaded wakes nothing", async () => {
  const { stream } = await opened({}, "data: x\n\n");
  await wire.last.end();
  page.onWindow("pageshow", { persisted: false });
  await pass(0);
  assert.equal(stream.info.state, "waiting");
});

test("a connection that breaks because the page is left makes no noise", async () => {
  const { log } = await opened();
  log.length = 0;
  await wire.last.fail();
  await pass(49);
  page.onWindow("pagehide");
  await pass(1e6);
  assert.deepEqual(log, []);
});

test("a policy that forbids the connection ends it, whichever is heard first", async () => {
  const violation = {
    effectiveDirective: "connect-src",
    disposition: "enforce",
    blockedURI: "http://h/app/rooms/1",
  };
  const { stream: open } = await opened();
  const stream = sse.room({ room: 1 });
  await pass(0);
  for (const other of [
    { disposition: "report" },
    { effectiveDirective: "img-src" },
    { blockedURI: "http://other/" },
  ]) {
    page.onDocument("securitypolicyviolation", { ...violation, ...other });
    await pass(100);
    assert.equal(stream.info.state, "connecting");
  }
  await wire.last.fail();
  page.onDocument("securitypolicyviolation", violation);
  await pass(50);
  assert.equal(await stream.closed, "fatal");
  assert.equal(stream.info.error.kind, "csp");
  assert.equal(open.info.state, "open");
});

// ---- the end

test("after close() nothing is delivered, not even what was parsed already", async () => {
  const { stream, log } = await opened();
  stream.on("message", (data) => data === "1" && stream.close());
  await wire.last.send("data: 1\n\ndata: 2\n\nevent: sse-gap\ndata: {}\nid: c9\n\n");
  assert.deepEqual(log.slice(2), ["closed 0", "1"]);
  assert.equal(await stream.closed, "client");
  assert.equal(wire.last.signal.aborted, true);
  assert.notEqual(stream.lastEventId, "c9");
});

test("close() while connecting is no error; who waits for `opened` is told", async () => {
  const stream = sse.room({ room: 1 });
  const log = [];
  stream.onError((error) => log.push(error));
  await pass(0);
  stream.close();
  await pass(1000);
  assert.deepEqual(log, []);
  assert.equal(await stream.closed, "client");
  await assert.rejects(stream.opened, { kind: "closed" });
});

test("a signal closes; one that has been aborted lets nothing begin", async () => {
  const abort = new AbortController();
  const { stream } = await opened({ signal: abort.signal });
  abort.abort();
  assert.equal(await stream.closed, "client");
  const other = sse.room({ room: 1 }, { signal: AbortSignal.abort() });
  assert.equal(other.info.state, "closed");
  await pass(1000);
  assert.equal(wire.requests.length, 1);
  const { signal } = new AbortController();
  sse.room({ room: 1 }, { signal }).close();
  assert.equal(getEventListeners(signal, "abort").length, 0);
});

test("close() ends a private run at once, and tells of nothing else", async () => {
  const run = await opened({ credentials: "include" });
  await wire.last.send(`id: ${RUN}\ndata: x\n\n`);
  run.stream.close();
  run.stream.close();
  assert.equal(wire.requests.length, 2);
  const { url, method, body, keepalive, credentials, headers } = wire.last;
  assert.equal(url, "http://h/app/_sse/close");
  assert.deepEqual(
    { method, body, keepalive, credentials, headers },
    {
      method: "POST",
      body: RUN,
      keepalive: true,
      credentials: "include",
      headers: undefined,
    },
  );
  for (const id of ["sse1.l.aaaaaaaa.5", "own", `${RUN}.end`, ""]) {
    const other = await opened();
    const before = wire.requests.length;
    await wire.last.send(`id: ${id}\ndata: x\n\n`);
    other.stream.close();
    assert.equal(wire.requests.length, before, id);
  }
});

test("leaving the page, or hiding it, does not end a private run", async () => {
  await opened({ lastEventId: RUN });
  page.document.hidden = true;
  page.onDocument("visibilitychange");
  page.onWindow("pagehide");
  await settle();
  assert.equal(wire.requests.length, 1);
});

test("the run of another server is not told to ours", async () => {
  const stream = sse.open("http://other/stream", { lastEventId: RUN });
  await pass(0);
  stream.close();
  assert.equal(wire.requests.length, 1);
});

test("closeAll() closes this client's streams and no other's", async () => {
  const other = createClient(ROUTES, "/_sse", "http://h/_sse/client.js", undefined, {
    fetch: wire.fetch,
  });
  const mine = [sse.room({ room: 1 }), sse.plain()];
  const theirs = other.plain();
  sse.closeAll();
  assert.deepEqual(await Promise.all(mine.map((stream) => stream.closed)), ["client", "client"]);
  assert.equal(theirs.info.state, "connecting");
  other.closeAll();
});

test("`await using` closes", async () => {
  const { stream } = await opened();
  await stream[Symbol.asyncDispose]();
  assert.equal(await stream.closed, "client");
});

// ---- waiting for events

test("next() gives one event after the other, even of one chunk", async () => {
  const stream = sse.room({ room: 1 });
  await pass(0);
  await wire.last.open();
  await wire.last.send(HELLO);
  const first = stream.next("a");
  await wire.last.send("event: a\ndata: 1\n\nevent: b\ndata: 2\n\nevent: a\ndata: 3\n\n");
  assert.equal((await first).data, "1");
  assert.equal((await stream.next("b")).data, "2");
  assert.equal((await stream.next(["x", "a"])).data, "3");
});

test("next() gives up by time, by signal and at the end", async () => {
  const { stream } = await opened();
  const late = assert.rejects(stream.next("a", { timeoutMs: 500 }), { kind: "timeout" });
  await pass(500);
  await late;
  const abort = new AbortController();
  const reason = new Error("enough");
  const aborted = assert.rejects(stream.next("a", { signal: abort.signal }), reason);
  abort.abort(reason);
  await aborted;
  await assert.rejects(stream.next("a", { signal: AbortSignal.abort(reason) }), reason);
  const ended = assert.rejects(stream.next("a"), { kind: "closed" });
  stream.close();
  await ended;
  await assert.rejects(stream.next("a"), { kind: "closed" });
});

test("next() fails by what ended the stream", async () => {
  const { stream } = await opened();
  const failed = assert.rejects(stream.next("a"), { kind: "server" });
  await wire.last.send('event: sse-end\ndata: {"reason":"gone"}\nid: x.end\n\n');
  await failed;
});

test("a loop gets every event, ends with the stream and leaves nothing behind", async () => {
  const { stream } = await opened();
  const seen = [];
  const loop = (async () => {
    for await (const { data } of stream) seen.push(data);
    return "ended";
  })();
  await wire.last.send("data: 1\n\ndata: 2\n\n");
  await wire.last.send('data: 3\n\nevent: sse-end\ndata: {"reason":"finished"}\nid: x.end\n\n');
  assert.equal(await loop, "ended");
  assert.deepEqual(seen, ["1", "2", "3"]);
});

test("a loop over a stream that has ended gets what was kept", async () => {
  const stream = sse.room({ room: 1 });
  await pass(0);
  await wire.last.open();
  await wire.last.send(
    HELLO + 'data: 1\n\nevent: sse-end\ndata: {"reason":"finished"}\nid: x.end\n\n',
  );
  const seen = [];
  for await (const { data } of stream) seen.push(data);
  assert.deepEqual(seen, ["1"]);
});

test("a loop fails by what ended the stream, after what came before", async () => {
  const { stream } = await opened();
  const seen = [];
  const loop = (async () => {
    for await (const { data } of stream) seen.push(data);
  })();
  const failed = assert.rejects(loop, { kind: "server" });
  await wire.last.send('data: 1\n\nevent: sse-end\ndata: {"reason":"gone"}\nid: x.end\n\n');
  await failed;
  assert.deepEqual(seen, ["1"]);
});

test("close() ends a loop without an error and without what it has not taken", async () => {
  const { stream } = await opened();
  const events = stream.events();
  await wire.last.send("data: 1\n\ndata: 2\n\n");
  assert.equal((await events.next()).value.data, "1");
  stream.close();
  assert.deepEqual(await events.next(), { value: undefined, done: true });
});

test("leaving a loop closes a stream that nobody else listens to", async () => {
  const stream = sse.room({ room: 1 });
  const loop = (async () => {
    for await (const { data } of stream) return data;
  })();
  await pass(0);
  await wire.last.open();
  await wire.last.send("data: 1\n\ndata: 2\n\n");
  assert.equal(await loop, "1");
  assert.equal(await stream.closed, "client");
  const { stream: other } = await opened();
  const left = (async () => {
    for await (const { data } of other) return data;
  })();
  await wire.last.send("data: 1\n\n");
  await left;
  assert.equal(other.info.state, "open");
});

test("leaving events() leaves the stream as it is, and what it has not taken", async () => {
  const stream = sse.room({ room: 1 });
  const loop = (async () => {
    for await (const { data } of stream.events()) return data;
  })();
  await pass(0);
  await wire.last.open();
  await wire.last.send("data: 1\n\ndata: 2\n\n");
  assert.equal(await loop, "1");
  assert.equal(stream.info.state, "open");
  assert.equal((await stream.next("message")).data, "2");
});

test("a loop that is too slow is told of its loss when it gets there, other loops are not", async () => {
  const { stream, log } = await opened({ buffer: { max: 2 } });
  const slow = stream.events();
  const quick = stream.events();
  await wire.last.send("id: 1\ndata: 1\n\n");
  assert.equal((await slow.next()).value.data, "1");
  for (const n of [2, 3, 4, 5]) {
    await wire.last.send(`id: ${n}\ndata: ${n}\n\n`);
    if (n === 2) assert.equal((await quick.next()).value.data, "1");
    assert.equal((await quick.next()).value.data, `${n}`);
  }
  assert.deepEqual(
    log.filter((it) => it.reason),
    [],
  );
  assert.equal((await slow.next()).value.data, "4");
  assert.deepEqual(log.at(-1), { reason: "overflow", after: "1", id: "3" });
});

// ---- addresses and settings

test("parameters fill the path, encoded; the others and `query` go into the query", () => {
  assert.equal(sse.room.url({ room: "a/b ü%" }), "http://h/app/rooms/a%2Fb%20%C3%BC%25");
  assert.equal(
    sse.room.url({ room: 1, tag: ["x", "y z"], none: null, not: undefined, no: [] }, { after: 0 }),
    "http://h/app/rooms/1?tag=x&tag=y+z&after=0",
  );
  const stream = sse.room({ room: 1, a: true }, { query: { b: 2n } });
  assert.equal(stream.url, "http://h/app/rooms/1?a=true&b=2");
});

test("a value that is none is left out of an array too", () => {
  assert.equal(sse.plain.url({ tag: [null, "x", undefined, ""] }), "http://h/app/plain?tag=x&tag=");
});

test("a place that was never kept is none", async () => {
  sse.room({ room: 1 }, { lastEventId: null });
  await pass(0);
  await wire.last.open();
  assert.equal(wire.last.headers.has("Last-Event-ID"), false);
});

test("a parameter that is missing, or would lead elsewhere, is refused", () => {
  for (const room of [undefined, null, "", ".", ".."]) {
    assert.throws(() => sse.room({ room }), TypeError, room);
  }
  assert.throws(() => sse.room(), /"room" of \/rooms\/\{room\} is missing/);
  assert.throws(
    () => sse.plain({ signal: new AbortController().signal }),
    /options come second/,
  );
  assert.throws(() => sse.plain({ headers: () => ({}) }), /options come second/);
});

test("a path with an own pattern keeps its slashes, and may be empty", () => {
  const files = createClient(
    { files: ["/f/{path*}", "GET", 0, true] },
    "/_sse",
    "http://h/_sse/client.js",
  ).files;
  assert.equal(files.url({ path: "a b/c" }), "http://h/f/a%20b/c");
  assert.equal(files.url({ path: "" }), "http://h/f/");
  assert.throws(() => files.url({ path: "a/../../b" }), TypeError);
  assert.throws(() => files.url({}), TypeError);
});

test("open() takes a path of the application, or any http address", () => {
  const url = (path, options) => sse.open(path, options).url;
  assert.equal(url("/x/y"), "http://h/app/x/y");
  assert.equal(url("x"), "http://h/app/x");
  assert.equal(url("/x?a=1", { query: { b: 2 } }), "http://h/app/x?a=1&b=2");
  assert.equal(url("https://other/x"), "https://other/x");
  for (const bad of [
    "ftp://h/x",
    "javascript:x",
    "http://u:p@h/x",
    "http://u@h/x",
    "http://:p@h/x",
    "http://:0x/",
  ]) {
    assert.throws(() => url(bad), TypeError, bad);
  }
});

test("a last event ID that no header could carry is refused", () => {
  for (const lastEventId of ["a\nb", "a\rb", "a\0b"]) {
    assert.throws(() => sse.plain({}, { lastEventId }), TypeError);
  }
});

test("configure() is for the streams that are made after it", async () => {
  sse.configure({ credentials: "omit", headers: { A: "1" } });
  sse.plain({}, { headers: { B: "2" } });
  await pass(0);
  assert.equal(wire.last.credentials, "omit");
  assert.deepEqual([wire.last.headers.get("A"), wire.last.headers.get("B")], [null, "2"]);
});

test("a page can begin at the place that it was rendered at", async () => {
  sse.room({ room: 1 }, { lastEventId: "sse1.l.aaaaaaaa.9" });
  await pass(0);
  assert.equal(wire.last.headers.get("Last-Event-ID"), "sse1.l.aaaaaaaa.9");
});

test("the place of the application is read off the script's own address", () => {
  const url = (script, base) => createClient(ROUTES, "/_sse", script, base).plain.url();
  assert.equal(url("http://h/_sse/client.js"), "http://h/plain");
  assert.equal(url("http://h:8080/a/b/_sse/client.global-0123.js?x#y"), "http://h:8080/a/b/plain");
  assert.equal(url("http://h/_sse/client.js", "/app/"), "http://h/app/plain");
  assert.equal(url("http://h/_sse/client.js", new URL("https://api/v1")), "https://api/v1/plain");
});

test("without its hub a client does with a connection for each stream", async () => {
  globalThis.location = { origin: "http://h" };
  const routes = { ticks: ["/ticks", "GET", 15000, true, 2] };
  const { fetch } = wire;
  const other = createClient(routes, "/_sse", "http://h/_sse/client.js", "", {}, "hub-x.js");
  mock.method(globalThis, "fetch", fetch);
  const streams = [other.ticks(), other.ticks()];
  await pass(0);
  // It cannot be loaded here, and says so when it likes.
  while (wire.requests.length < 2) await settle();
  assert.deepEqual(
    streams.map(({ info }) => info.via),
    ["direct", "direct"],
  );
  other.closeAll();
  delete globalThis.location;
});

test("what a route is can be read", () => {
  assert.deepEqual(sse.ask.meta, { path: "/ask", method: "POST", heartbeatMs: 15000 });
});

// The look-alike of the browser's EventSource, over a played `fetch`.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { createWire, installPage, load, settle } from "./support.mjs";

const { document, reported } = installPage();
document.baseURI = "http://h/app/page";
const { createClient } = await load("core.mjs");

let wire, EventSource;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1e12 });
  mock.method(Math, "random", () => 0.5);
  wire = createWire();
  const { fetch } = wire;
  ({ EventSource } = createClient({}, "/_sse", "http://h/_sse/client.js", undefined, { fetch }));
});

afterEach(() => {
  mock.restoreAll();
  mock.timers.reset();
});

async function pass(ms) {
  mock.timers.tick(ms);
  await settle();
}

async function opened(url = "/x", init) {
  const source = new EventSource(url, init);
  const log = [];
  for (const type of ["open", "message", "error"]) {
    source[`on${type}`] = ({ data }) => log.push(`${type} ${data ?? source.readyState}`);
  }
  await pass(0);
  await wire.last.open();
  return { source, log };
}

test("it has the address, the constants and the states of the browser's", async () => {
  const source = new EventSource("stream?a=1");
  assert.ok(source instanceof EventTarget);
  assert.deepEqual([source.url, source.withCredentials], ["http://h/app/stream?a=1", false]);
  for (const one of [EventSource, source]) {
    assert.deepEqual([one.CONNECTING, one.OPEN, one.CLOSED], [0, 1, 2]);
  }
  assert.deepEqual([source.onopen, source.onmessage, source.onerror], [null, null, null]);
  assert.equal(source.readyState, 0);
  await pass(0);
  assert.equal(wire.last.credentials, "same-origin");
  await wire.last.open();
  assert.equal(source.readyState, 1);
  source.close();
  assert.equal(source.readyState, 2);
  assert.throws(() => new EventSource("http://["));
});

test("credentials go along where they are to", async () => {
  const { source } = await opened("http://other/x", { withCredentials: true });
  assert.deepEqual([source.withCredentials, wire.last.credentials], [true, "include"]);
});

test("events have type, text, id and origin; control events are events as any", async () => {
  const { source } = await opened("http://other/x");
  const seen = [];
  for (const type of ["message", "price", "sse-hello", "sse-gap"]) {
    source.addEventListener(type, ({ type: name, data, lastEventId, origin }) =>
      seen.push([name, data, lastEventId, origin]),
    );
  }
  await wire.last.send("event: sse-hello\ndata: {}\nid: 1\n\njson\ndata: [1]\n\n");
  await wire.last.send("event: price\nid: 2\ndata: x\n\nid: 3\n\nevent: sse-gap\ndata: {}\n\n");
  const origin = "http://other";
  assert.deepEqual(seen, [
    ["sse-hello", "{}", "1", origin],
    ["message", "[1]", "1", origin],
    ["price", "x", "2", origin],
    ["sse-gap", "{}", "3", origin],
  ]);
});

test("a lost connection is an error in the state CONNECTING, and is made again", async () => {
  const { source, log } = await opened();
  await wire.last.send("id: 7\ndata: a\n\n");
  await wire.last.end();
  assert.equal(source.readyState, 0);
  await pass(1000);
  assert.equal(wire.last.headers.get("Last-Event-ID"), "7");
  await wire.last.open();
  await wire.last.send("data: b\n\n");
  assert.deepEqual(log, ["open 1", "message a", "error 0", "open 1", "message b"]);
});

test("what the client gives up at is an error in the state CLOSED, as is the end", async () => {
  const refused = await opened();
  await wire.last.send('event: sse-end\ndata: {"reason":"gone"}\nid: x.end\n\n');
  assert.deepEqual(refused.log, ["open 1", "error 2"]);
  const ended = await opened();
  await wire.last.send('event: sse-end\ndata: {"reason":"finished"}\nid: x.end\n\n');
  assert.deepEqual(ended.log, ["open 1", "error 2"]);
});

test("after close() nothing comes, not even what was parsed already", async () => {
  const { source, log } = await opened();
  source.onmessage = () => {
    log.push("closing");
    source.close();
  };
  await wire.last.send("data: 1\n\ndata: 2\n\n");
  await pass(100000);
  assert.deepEqual(log, ["open 1", "closing"]);
  assert.equal(wire.requests.length, 1);
});

test("what is no function is no handler", async () => {
  const { source } = await opened();
  source.onmessage = "nothing";
  await wire.last.send("data: 1\n\n");
  assert.deepEqual(reported, []);
});

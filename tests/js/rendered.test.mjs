// The two files as a page gets them.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";
import { load, rendered, serve } from "./support.mjs";

const CLASSIC = readFileSync(rendered("_sse/client.global.js"), "utf8");

/** Runs the classic script as a page does, and returns what the page then has. */
function include({ src, tagName = "SCRIPT", href = "https://h/page" }) {
  const window = { location: { href, origin: new URL(href).origin }, URL, document: {} };
  window.document.currentScript = src === undefined ? null : { tagName, src };
  window.window = window;
  const before = Object.keys(window);
  vm.runInNewContext(CLASSIC, window);
  return { sse: window.sse, added: Object.keys(window).filter((name) => !before.includes(name)) };
}

test("the module exports the client, a maker of clients, the look-alike and the error", async () => {
  const module = await load("_sse/client.mjs");
  assert.deepEqual(Object.keys(module).sort(), ["EventSource", "SseError", "createSse", "default"]);
  assert.ok(Object.keys(module.default).includes("room"));
  assert.ok(new module.SseError("http", "x") instanceof Error);
});

test("a module's client begins where the module is from, another where it is told", async () => {
  const { createSse } = await load("_sse/client.mjs");
  const sse = createSse("https://api.example/v1/", { credentials: "include" });
  assert.equal(sse.room.url({ room: 1 }), "https://api.example/v1/rooms/1");
  assert.equal(sse.files.url({ path: "a/b" }), "https://api.example/v1/files/a/b");
});

test("the classic script sets window.sse and nothing else", () => {
  const { sse, added } = include({ src: "https://h/app/_sse/client.global-0123456789abcdef.js" });
  assert.deepEqual(added, ["sse"]);
  assert.equal(sse.room.url({ room: 1 }), "https://h/app/rooms/1");
});

test("an element that is called currentScript does not say where the application is", () => {
  const src = "https://evil.example/_sse/client.global.js";
  assert.equal(include({ src, tagName: "IMG" }).sse.clock.url(), "https://h/clock");
});

test("a script without an address of its own takes the page's origin", () => {
  assert.equal(include({ src: "" }).sse.clock.url(), "https://h/clock");
  assert.equal(include({}).sse.clock.url(), "https://h/clock");
});

test("the routes keep their method, heartbeat and names", async () => {
  const { default: sse } = await load("_sse/client.mjs");
  assert.deepEqual(sse.ask.meta, { path: "/ask", method: "POST", heartbeatMs: 15000 });
  for (const name of ["open", "configure", "closeAll"]) assert.equal(typeof sse[name], "function");
});

test("the module as rendered streams from a server, and ends", async () => {
  const headers = { "Content-Type": "text/event-stream" };
  const hello =
    'retry: 500\nevent: sse-hello\njson\ndata: {"heartbeat":15}\nid: sse1.l.aaaaaaaa.0\n\n';
  const end = 'event: sse-end\njson\ndata: {"reason":"finished"}\nid: sse1.l.aaaaaaaa.2.end\n\n';
  const body = [hello, 'json\ndata: {"n":1}\nid: sse1.l.aaaaaaaa.1\n\n', end];
  const server = await serve([{ status: 200, headers, body, end: "chunked-final" }]);
  const { createSse } = await load("_sse/client.mjs");
  const seen = [];
  const stream = createSse(server.base).room({ room: 1 });
  for await (const { data, lastEventId } of stream) seen.push([data, lastEventId]);
  assert.deepEqual(seen, [[{ n: 1 }, "sse1.l.aaaaaaaa.1"]]);
  assert.equal(await stream.closed, "done");
  await server.close();
});

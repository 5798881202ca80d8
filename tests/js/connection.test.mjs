// Every exchange of the connection vectors, against a server that answers byte for byte:
// what a client does with statuses, types, ends of body and redirects. Real `fetch`, real
// sockets; the waits between tries are skipped.

import assert from "node:assert/strict";
import { test } from "node:test";
import { load, serve, vectors } from "./support.mjs";

const { createClient } = await load("core.mjs");

/** Follows a stream to its end, or to its `tries`-th wait, which is skipped till then. */
async function follow(exchanges, { tries = 3, play = () => {}, ...options } = {}) {
  const server = await serve(exchanges);
  const stream = createClient({}, "/_sse", `${server.base}/_sse/client.js`).open("/first", options);
  const seen = { events: [], waits: [], requests: server.requests, opened: 0, stream };
  stream.onAny(({ type, data, lastEventId }) => seen.events.push({ type, data, lastEventId }));
  await new Promise((resolve) => {
    stream.onState((info) => {
      if (info.state === "open") seen.opened++;
      if (info.state === "closed") resolve();
      if (info.state !== "waiting") return;
      seen.waits.push(info);
      if (seen.waits.length === tries) resolve();
      else stream.reconnect();
    });
    play(stream, server, resolve);
  });
  seen.state = stream.info.state;
  seen.error = stream.info.error;
  stream.close();
  seen.closed = await stream.closed;
  await server.close();
  return seen;
}

const HELLO = { type: "message", data: "hello", lastEventId: "a1" };
const IDS = (seen) => seen.requests.map(({ headers }) => headers["last-event-id"]);

/** It ended at once, by an error that says all. */
function isFatal(seen, { kind = "http", status, requests = 1 }) {
  assert.deepEqual(
    [seen.state, seen.closed, seen.error?.kind, seen.error?.status, seen.requests.length],
    ["closed", "fatal", kind, status, requests],
  );
}

/** It came back after a wait, by the error or by none. */
function cameBack(seen, kind, n = 0) {
  assert.equal(seen.waits[n]?.error?.kind ?? null, kind);
  assert.deepEqual(seen.events.at(-1), HELLO);
}

const RETRIED = /^retry with back-off/;
const CHECKS = {
  "first-204": [{}, (seen) => assert.deepEqual([seen.closed, seen.requests.length], ["done", 1])],
  "reconnect-204": [
    {},
    (seen) => assert.deepEqual([seen.closed, seen.requests.length], ["done", 2]),
  ],
  "reconnect-wrong-type": [
    {},
    (seen) => isFatal(seen, { kind: "content-type", status: 200, requests: 2 }),
  ],
  "redirect-loop": [
    // What a page sees of it is a network error, as of a server that is down.
    { tries: 1 },
    (seen) => assert.deepEqual([seen.state, seen.error.kind], ["waiting", "network"]),
  ],
  "redirect-no-location": [{}, (seen) => isFatal(seen, { status: 301 })],
  "eof-clean": [{ tries: 2 }, resumed],
  "eof-chunked-clean": [{ tries: 2 }, resumed],
  "eof-chunked-truncated": [{ tries: 2 }, resumed],
  "reset-mid-stream": [{ tries: 2 }, resumed],
  "reset-before-headers": [{}, (seen) => cameBack(seen, "network", 1)],
  "closed-without-a-byte": [{}, (seen) => cameBack(seen, "network", 1)],
  "reconnect-refused": [
    { tries: 5 },
    (seen) => {
      cameBack(seen, "network", 3);
      assert.deepEqual(IDS(seen), [undefined, "a1", "a1", "a1", "a1"]);
    },
  ],
  "default-delay": [{}, (seen) => assert.ok(seen.waits[0].retryInMs <= 1000)],
  "retry-1-ms": [
    {},
    (seen) =>
      assert.deepEqual(
        seen.waits.map((it) => it.retryInMs),
        [100, 100, 100],
      ),
  ],
  "retry-2^31": [{}, (seen) => assert.ok(seen.waits.every((it) => it.retryInMs <= 30000))],
  "retry-on-unterminated-last-line": [
    { backoff: { initialMs: 200, jitter: 0, factor: 1 } },
    (seen) => assert.equal(seen.waits[1].retryInMs <= 200, true),
  ],
  "id-survives-reconnect": [
    {},
    (seen) => {
      assert.deepEqual(seen.events[1], {
        type: "message",
        data: "second",
        lastEventId: "a1",
      });
      assert.deepEqual(IDS(seen), [undefined, "a1", "a1"]);
    },
  ],
  "id-cleared": [{}, (seen) => assert.deepEqual(IDS(seen), [undefined, undefined])],
  "id-utf8-on-the-wire": [
    {},
    (seen) => assert.equal(Buffer.from(IDS(seen)[1], "latin1").toString("hex"), "e280a6c3a9"),
  ],
  "id-outer-spaces": [
    {},
    (seen) => {
      assert.equal(seen.events[0].lastEventId, "  q  ");
      assert.equal(IDS(seen)[1], "q");
    },
  ],
  "cross-origin-long-or-unsafe-id": [
    // Always in the header: a private run's id must not get into a log with the query.
    {},
    (seen) => assert.equal(IDS(seen)[1], "a<b"),
  ],
  "request-headers": [
    { tries: 1 },
    (seen) => {
      const [{ method, headers }] = seen.requests;
      assert.deepEqual(
        [method, headers.accept, headers["cache-control"], "last-event-id" in headers],
        ["GET", "text/event-stream", "no-cache", false],
      );
    },
  ],
  "headers-late-body": [
    {
      tries: 1,
      play: (stream, { go }) => {
        stream.opened.then(() => {
          assert.equal(stream.info.state, "open");
          go();
        });
      },
    },
    (seen) =>
      assert.deepEqual(
        seen.events.map((it) => it.data),
        ["x"],
      ),
  ],
  "close-while-connecting": [
    { play: (stream) => stream.onState(() => stream.close()) },
    (seen) => assert.deepEqual([seen.closed, seen.error, seen.events], ["client", null, []]),
  ],
  "close-in-a-handler": [
    { play: (stream) => stream.on("message", () => stream.close()) },
    (seen) =>
      assert.deepEqual(
        seen.events.map((it) => it.data),
        ["1"],
      ),
  ],
  stalled: [
    { tries: 1, stallTimeoutMs: 100 },
    (seen) => assert.deepEqual([seen.error.kind, seen.waits[0].retryInMs], ["stalled", 0]),
  ],
};

function resumed(seen) {
  assert.deepEqual(seen.events, [HELLO, HELLO]);
  assert.deepEqual(IDS(seen), [undefined, "a1"]);
}

/** @returns {[options: object, check: (seen: any) => void]} By what the vector says. */
function checkFor({ name, exchanges, ours }) {
  const last = exchanges.at(-1);
  const fields = { status: last.status };
  if (CHECKS[name]) return CHECKS[name];
  if (/^(reconnect|first)-(401|404)/.test(name) || ours.startsWith("fatal")) {
    const refused = exchanges.findIndex((it) => it.status !== 200);
    if (refused < 0) return [{}, (seen) => isFatal(seen, { kind: "content-type", ...fields })];
    const { status } = exchanges[refused];
    return [
      {},
      (seen) => {
        isFatal(seen, { status, requests: refused + 1 });
        const body = [205, 304].includes(status) ? "" : exchanges[refused].body.join("");
        assert.equal(seen.error.body, body);
      },
    ];
  }
  if (RETRIED.test(ours) || name.startsWith("reconnect-")) {
    const refused = exchanges.findIndex((it) => it.status !== 200);
    return [
      { tries: exchanges.length },
      (seen) => {
        cameBack(seen, "http", refused);
        const after = 1000 * (exchanges[refused].headers["Retry-After"] ?? 0);
        assert.ok(seen.waits[refused].retryInMs >= after);
        assert.ok(seen.events.every(({ data }) => data === "hello"));
      },
    ];
  }
  if (ours === "accept" || ours === "accept and decode as UTF-8") {
    const data = last.body.join("").slice(6, -2);
    return [
      { tries: 1 },
      (seen) =>
        assert.deepEqual(
          seen.events.map((it) => it.data),
          [data],
        ),
    ];
  }
  if (ours.startsWith("followed")) {
    return [
      { tries: 1, lastEventId: "a0" },
      (seen) => {
        assert.deepEqual(
          seen.requests.map((it) => it.path),
          ["/first", "/final"],
        );
        assert.deepEqual(IDS(seen), ["a0", "a0"]);
        assert.deepEqual(seen.events, [HELLO]);
      },
    ];
  }
  return assert.fail(`no check for the vector ${name}: ${ours}`);
}

const NOT_HERE = {
  refused: "a test of its own, below: there is no server",
  "dns-failure": "what `fetch` tells is what it tells of a refusal",
  "non-http-scheme": "a test of its own, below",
  "bad-url": "a test of its own, below",
  "http-basic-auth-in-url": "a test of its own, below",
  "window-stop": "what `fetch` tells is an abort, of which the page's `pagehide` tells too",
};

for (const vector of vectors("connection")) {
  if (vector.name in NOT_HERE) continue;
  test(vector.name, async () => {
    const [options, check] = checkFor(vector);
    check(await follow(vector.exchanges, options));
  });
}

test("refused: it tries again, by a network error", async () => {
  const server = await serve([]);
  await server.close();
  const stream = createClient({}, "/_sse", `${server.base}/_sse/client.js`).open("/");
  const info = await new Promise((resolve) =>
    stream.onState((info) => info.state === "waiting" && resolve(info)),
  );
  assert.deepEqual([info.error.kind, info.error.retryable], ["network", true]);
  stream.close();
});

test("what is no address to stream from is refused when the stream is made", () => {
  const { open } = createClient({}, "/_sse", "http://h/_sse/client.js");
  for (const url of ["file:///x", "ws://h/", "http://[", "http://user:secret@h/"]) {
    assert.throws(() => open(url), TypeError, url);
  }
});

test("the body of a refusal is read no further than 4,096 characters", async () => {
  const body = ["x".repeat(9000), "<for ever>"];
  const { error } = await follow([{ status: 403, headers: {}, body, end: "hold" }]);
  assert.equal(error.body, "x".repeat(4096));
});

test("an event that is too large is fatal: replay would only bring it again", async () => {
  const headers = { "Content-Type": "text/event-stream" };
  const exchange = {
    status: 200,
    headers,
    body: ["data: 1\n\ndata: 1234567890\n\n"],
    end: "hold",
  };
  const seen = await follow([exchange], { maxEventChars: 5 });
  assert.deepEqual(
    seen.events.map((it) => it.data),
    ["1"],
  );
  assert.equal(seen.error.kind, "too-large");
  assert.equal(seen.closed, "fatal");
});

test("a 401 is tried once more where headers are made by a function", async () => {
  const headers = { "Content-Type": "text/event-stream" };
  const ok = { status: 200, headers, body: ["id: a1\ndata: hello\n\n"], end: "eof" };
  const refused = { status: 401, headers: {}, end: "eof" };
  const seen = await follow([refused, ok], {
    tries: 1,
    headers: ({ error }) => ({ Authorization: error?.status === 401 ? "new" : "old" }),
  });
  assert.deepEqual(
    seen.requests.map((it) => it.headers.authorization),
    ["old", "new"],
  );
  assert.deepEqual(seen.events, [HELLO]);
});

// The parser, on every case of the conformance vectors and in each way to cut them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { load, vectors } from "./support.mjs";

const { createParser } = await load("internals.mjs");

const CUTS = {
  "as cut": (chunks) => chunks,
  whole: (chunks) => [Buffer.concat(chunks)],
  "byte by byte": (chunks) => [...Buffer.concat(chunks)].map((byte) => Buffer.from([byte])),
};

/** What a stream makes of the parser's blocks: it keeps the last event ID. */
function decode(chunks) {
  const result = { events: [], last_event_id: "", retry_ms: null };
  const hears = {
    block({ type, data, id }) {
      result.last_event_id = id ?? result.last_event_id;
      if (data === null) return;
      result.events.push({ type, data, lastEventId: result.last_event_id });
    },
    retry: (ms) => (result.retry_ms = ms),
    comment() {},
  };
  const parse = createParser((what, value) => hears[what](value), Infinity);
  const decoder = new TextDecoder();
  for (const chunk of chunks) parse(decoder.decode(chunk, { stream: true }));
  return result;
}

for (const { name, group, chunks, events, last_event_id, retry_ms } of vectors("parsing")) {
  for (const [cut, apply] of Object.entries(CUTS)) {
    test(`${group}/${name}, ${cut}`, () => {
      const bytes = chunks.map((chunk) => Buffer.from(chunk, "latin1"));
      assert.deepEqual(decode(apply(bytes)), { events, last_event_id, retry_ms });
    });
  }
}

test("an event comes with the chunk that ends its blank line, be it by a lone CR", () => {
  const seen = [];
  const parse = createParser((_, block) => seen.push(block.data), 100);
  parse("data: a\r\r");
  assert.deepEqual(seen, ["a"]);
  parse("\ndata: b\r\n\r");
  assert.deepEqual(seen, ["a", "b"]);
  parse("\n");
  assert.deepEqual(seen, ["a", "b"]);
});

test("the field line `json` marks its own block and no other", () => {
  const seen = [];
  const parse = createParser((_, block) => seen.push(block.json), 100);
  parse("json\ndata: 1\n\ndata: 2\n\njson: x\ndata: 3\n\njsonp\ndata: 4\n\n");
  assert.deepEqual(seen, [true, false, true, false]);
});

test("an event over the limit ends parsing, complete or not, and those before it count", () => {
  const seen = [];
  const sink = (_, block) => seen.push(block.data);
  assert.throws(() => createParser(sink, 5)("data: 1\n\ndata: 123456\n\n"), {
    kind: "too-large",
  });
  assert.deepEqual(seen, ["1"]);
  const parse = createParser(sink, 20);
  parse("data: 1234567");
  assert.throws(() => parse("890123456789"), { kind: "too-large" });
  assert.throws(() => createParser(sink, 5)("data:12\ndata:34\ndata:5\n"), { kind: "too-large" });
});

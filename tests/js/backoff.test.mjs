// How long the client waits.

import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";
import { load } from "./support.mjs";

const { BACKOFF, backoffMs, retryAfterMs } = await load("internals.mjs");

afterEach(() => mock.restoreAll());

/** The shortest and the longest wait. */
function range(...args) {
  return [0, 1 - Number.EPSILON].map((random) => {
    mock.method(Math, "random", () => random);
    return Math.round(backoffMs(...args));
  });
}

test("the first wait is spread over the whole base, with a floor of 100 ms", () => {
  assert.deepEqual(range(0, 1000, 0, BACKOFF), [100, 1000]);
  assert.deepEqual(range(0, 3000, 0, BACKOFF), [100, 3000]);
});

test("later ones double, between half and all of it, up to maxMs", () => {
  assert.deepEqual(range(1, 1000, 0, BACKOFF), [2000, 1000]);
  assert.deepEqual(range(3, 1000, 0, BACKOFF), [8000, 4000]);
  assert.deepEqual(range(9, 1000, 0, BACKOFF), [30000, 15000]);
});

test("a try number and a retry beyond all bounds stay within them", () => {
  assert.deepEqual(range(5000, 0, 0, BACKOFF), [30000, 15000]);
  assert.deepEqual(range(0, 1e300, 0, BACKOFF), [100, 30000]);
});

test("a tiny retry does not make the client hammer", () => {
  assert.deepEqual(range(0, 1, 0, BACKOFF), [100, 100]);
  assert.deepEqual(range(1, 0, 0, BACKOFF), [200, 100]);
});

test("what the server said to wait at least is spread upwards only", () => {
  assert.deepEqual(range(0, 1000, 40000, BACKOFF), [40000, 50000]);
  assert.deepEqual(range(0, 1000, 10, BACKOFF), [100, 1000]);
});

test("Retry-After is seconds or a date; what is neither, or past, is nothing", () => {
  mock.timers.enable({ apis: ["Date"], now: Date.parse("2026-01-01T00:00:00Z") });
  assert.equal(retryAfterMs("2"), 2000);
  assert.equal(retryAfterMs("Thu, 01 Jan 2026 00:00:07 GMT"), 7000);
  for (const value of ["", "0", "-3", "soon", "Wed, 31 Dec 2025 23:59:59 GMT"]) {
    assert.equal(retryAfterMs(value), null, value);
  }
  mock.timers.reset();
});

// Uses of the client of tests/typed.py's routes, right ones and wrong ones. A wrong one
// stands behind `@ts-expect-error`, which is an error itself if there is none.
import sse, { createSse, EventSource, SseError } from "./client.js";
import type { Client, Gap, Model, Price, SseEvent, StateInfo, Stream } from "./client.js";

type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(_: Same<A, B>) {}

// -- parameters ---------------------------------------------------------------------

const market = sse.market({ symbol: "ABC" });
sse.market({ symbol: "ABC", since: 2026, tags: ["a", "b"], none: null });
sse.market({ symbol: 42 }, { lastEventId: "sse1.l.x", signal: new AbortController().signal });
sse.levels();
sse.levels({});
sse.levels(null, { credentials: "include" });
sse.levels({ verbose: true }, { backoff: { maxMs: 5000 }, query: { x: 1 } });
sse.anything({}, { method: "POST", body: () => "x" });
sse.allFiles({ year: 2026, path: "a/b" });
sse.anything({}, { headers: async () => ({ Authorization: "x" }) });
sse.anything({}, { backoff: (attempt, error) => (error?.status === 403 ? null : attempt * 100) });

// @ts-expect-error -- there is no parameter
sse.market();
// @ts-expect-error -- nor here
sse.market({});
// @ts-expect-error -- nor the right one
sse.market({ room: 42 });
// @ts-expect-error -- one of two
sse.allFiles({ year: 2026 });
// @ts-expect-error -- it may not be null
sse.market({ symbol: null });
// @ts-expect-error -- an object is no part of a URL
sse.market({ symbol: "ABC", more: { a: 1 } });
// @ts-expect-error -- options come second
sse.levels({ signal: new AbortController().signal });
// @ts-expect-error -- there is no such option
sse.levels({}, { heartBeat: 1 });
// @ts-expect-error -- there is no such route
sse.nothing();
// @ts-expect-error -- this one is kept out of the client
sse.secret();
// @ts-expect-error -- a route cannot be replaced
sse.levels = sse.levels;

// -- events -------------------------------------------------------------------------

market.on("price", (price, event) => {
  same<typeof price, Price>(true);
  same<typeof event.type, "price">(true);
  same<typeof event.data, Price>(true);
  const text: string = price.price;
  const note: string | null = price.note;
  const at: string = price.at;
  const parts: Price[] = price.parts;
  const maybe: number | undefined = price.maybe;
  return [text, note, at, parts, maybe, event.id?.length, event.lastEventId, event.raw];
});
const off = market.on("halted", (halted) => halted.since.slice(0, 4), { once: true });
off();
market.on("message", (text) => same<typeof text, string>(true));
market.on(["price", "halted"], (data, event) => {
  same<typeof event.type, "price" | "halted">(true);
  if (event.type === "price") event.data.price;
  else event.data.since;
  data.symbol;
});
market.onAny((event) => {
  switch (event.type) {
    case "price":
      return event.data.price;
    case "halted":
      return event.data.since;
    case "message":
      return event.data.toUpperCase();
    default:
      same<typeof event, never>(true);
  }
});

// @ts-expect-error -- there is no such event
market.on("prise", () => {});
// @ts-expect-error -- nor among several
market.on(["price", "prise"], () => {});
// @ts-expect-error -- control events are not the page's
market.on("sse-gap", () => {});
// @ts-expect-error -- a price has no such property
market.on("price", (price) => price.amount);
// @ts-expect-error -- a Decimal is a string
market.on("price", (price) => price.price.toFixed(2));
// @ts-expect-error -- this may be null
market.on("price", (price) => price.note.length);
// @ts-expect-error -- an event is what it is
market.on("price", (price, event) => (event.id = "x"));
market.onAny((event) => {
  // @ts-expect-error -- not known yet which it is
  event.data.price;
  // @ts-expect-error -- there is no such event
  return event.type === "prise";
});

sse.room({ room: 1 }).on("presence", (presence) => {
  same<typeof presence.state, "here" | "away">(true);
  same<typeof presence.device, string | undefined>(true);
});
sse.room({ room: 1 }).on("message", (model) => {
  same<typeof model, Model>(true);
  const kids: Model[] = model.kids;
  const id: string = model.id;
  return [kids, id, model.inner.when, model.double];
});
// @ts-expect-error -- a field that is not dumped
sse.room({ room: 1 }).on("message", (model) => model.hidden);

// Routes of unknown types: any event may come, and its data is to be looked at.
sse.anything().on("whatever", (data) => same<typeof data, unknown>(true));
// @ts-expect-error -- unknown, and not any
sse.anything().on("whatever", (data) => data.text);
sse.quiet().on("message", (data) => same<typeof data, unknown>(true));
// @ts-expect-error -- not of this one
sse.quiet().on("whatever", () => {});
sse.levels().on("message", (level) => same<typeof level, 1 | 2>(true));

// -- the rest of a stream -----------------------------------------------------------

async function follow(stream: Stream<{ message: string; price: Price }>) {
  await stream.opened;
  for await (const event of stream) {
    if (event.type === "price") event.data.price;
    else event.data.toUpperCase();
  }
  for await (const event of stream.events()) event.lastEventId;
  const next: SseEvent<{ price: Price }> = await stream.next("price", { timeoutMs: 500 });
  const either = await stream.next(["message", "price"]);
  same<typeof either.type, "message" | "price">(true);
  // @ts-expect-error -- there is no such event
  await stream.next("prise");
  const why: "client" | "done" | "fatal" | "replaced" = await stream.closed;
  return [next.data.symbol, why];
}

async function dispose() {
  await using stream = sse.levels();
  return stream.lastEventId;
}

market.onGap((gap: Gap) => {
  // @ts-expect-error -- there is no such reason
  if (gap.reason === "forgotten") return gap.after;
  return gap.reason === "overflow" ? gap.id : null;
});
market.onState((info: StateInfo) => {
  const ms: number | null = info.retryInMs;
  // @ts-expect-error -- there is no such state
  if (info.state === "closing") return ms;
  return info.error?.kind === "http" && info.error.status;
});
market.onError((error) => {
  same<typeof error, SseError>(true);
  return error instanceof SseError && error instanceof Error && error.retryAfterMs;
});
// @ts-expect-error -- it is what it is
market.info.attempt = 3;
market.reconnect();
market.close();

const url: string = sse.market.url({ symbol: "ABC" }, { more: 1 });
same<typeof sse.market.meta.path, "/market/{symbol}">(true);
same<typeof sse.anything.meta.method, "GET">(true);
same<typeof sse.quiet.meta.method, "POST">(true);
// @ts-expect-error -- the URL needs it as well
sse.market.url();

sse.open("/any/path", { query: { x: 1 } }).on("any", (data) => same<typeof data, unknown>(true));
sse.configure({ credentials: "include", fetch: globalThis.fetch });
sse.closeAll();
const other: Client = createSse("https://api.example", { headers: { Authorization: "x" } });
const third: Client = createSse(new URL("https://api.example"));
const classic: Client = window.sse;
// @ts-expect-error -- only the client makes one
new SseError();

const source: EventSource = new EventSource("/x", { withCredentials: true, share: "off" });
source.addEventListener("price", (event) => event.data);
source.onmessage = (event) => event.lastEventId;
const native: globalThis.EventSource = source;
same<typeof EventSource.CLOSED, 2>(true);
// @ts-expect-error -- there is no such option
new EventSource("/x", { credential: true });
// @ts-expect-error -- nor here
sse.levels({}, { persist: "tab" });
sse.levels({}, { persist: "session", session: "ann", share: "auto", pause: "hidden" });
sse.levels({}, { buffer: { max: 10, overflow: "drop-oldest" } });
// @ts-expect-error -- there is no such policy
sse.levels({}, { buffer: { overflow: "newest" } });
// @ts-expect-error -- it pauses when it is hidden, or never
sse.levels({}, { pause: "blurred" });
market.onComment((text: string) => text.trim());
const build: string | null | undefined = market.info.headers?.get("X-Build");

export { native };
export { classic, dispose, follow, other, third, url };

// @ts-check
// The static core of the client: everything but the route table. `client.js.j2` and
// `client.global.js.j2` put the table and the exports round it.
//
// Law: no dependency, no eval, no markup, so that it runs under any CSP that lets the
// page connect, and under Trusted Types. A stream knows of a transport only `open` and
// `close`; a transport knows bytes, statuses and blocks, and nothing of handlers.
//
// What is served is `core.min.js`, which `tests/browser/build.js` makes of it.

/**
 * @typedef {"http" | "content-type" | "network" | "timeout" | "stalled" | "too-large"
 *   | "decode" | "csp" | "server" | "closed"} ErrorKind
 * @typedef {"connecting" | "open" | "waiting" | "closed"} State
 * @typedef {"client" | "done" | "fatal" | "replaced"} CloseReason
 *
 * @typedef {object} SseEvent
 * @property {string} type
 * @property {any} data Parsed where the server marked it as JSON, else the text.
 * @property {string | null} id The id that this very event carried.
 * @property {string} lastEventId Where a stream that has handled it resumes.
 * @property {string} raw The text as it came.
 * @property {boolean} replayed Whether it was there before the connection it came on.
 *
 * @typedef {object} Gap
 * @property {"expired" | "slow" | "unknown" | "reset" | "restarted" | "overflow"} reason
 * @property {string | null} after The last place before the hole.
 * @property {string | null} id The first place behind it.
 *
 * @typedef {object} StateInfo
 * @property {State} state
 * @property {number} attempt Tries since the last healthy connection.
 * @property {number | null} retryInMs
 * @property {"direct" | "mux" | "worker"} via
 * @property {number} since
 * @property {SseError | null} error
 * @property {Headers | null} headers The answer's, on a connection of its own.
 *
 * @typedef {object} Backoff
 * @property {number} initialMs
 * @property {number} maxMs
 * @property {number} factor
 * @property {number} jitter
 * @property {number} resetAfterMs
 * @property {number} maxAttempts
 *
 * @typedef {object} Options What else `fetch` takes is passed on to it.
 * @property {AbortSignal} [signal]
 * @property {string} [lastEventId]
 * @property {Record<string, any>} [query]
 * @property {HeadersInit | ((about: {attempt: number, error: SseError | null}) =>
 *   HeadersInit | Promise<HeadersInit>)} [headers]
 * @property {RequestCredentials} [credentials]
 * @property {string} [method]
 * @property {BodyInit | (() => BodyInit)} [body]
 * @property {Partial<Backoff> | ((attempt: number, error: SseError | null) =>
 *   number | null)} [backoff]
 * @property {number | null} [stallTimeoutMs]
 * @property {number} [connectTimeoutMs]
 * @property {number} [maxEventChars]
 * @property {{max?: number, overflow?: "gap" | "drop-oldest" | "error"}} [buffer] Events
 *   that wait for somebody; what becomes of the rest.
 * @property {(error: SseError) => boolean} [shouldRetry]
 * @property {typeof globalThis.fetch} [fetch]
 * @property {(raw: string, type: string) => unknown} [parse]
 * @property {"auto" | "off"} [share] "off": a connection of the stream's own.
 * @property {string} [session] Who is logged in: tabs of one share channels.
 * @property {"session"} [persist] A reloaded page gets its run from the start.
 * @property {"hidden"} [pause] No connection while the page is hidden.
 *
 * @typedef {SseEvent[] & {after?: string, lost?: string}} Queue Events that wait for a
 *   consumer: what it was told last, and what it has lost behind that.
 *
 * @typedef {{signal?: AbortSignal, once?: boolean}} Subscription
 * @typedef {() => void} Unsubscribe
 *
 * @typedef {object} Block One block of the stream, as the parser hands it over.
 * @property {string} type
 * @property {string | null} data Null where it had no `data` line: it is no event.
 * @property {string | null} id Null where it had no `id` line: the place stays.
 * @property {boolean} json
 * @property {boolean} replayed
 *
 * @typedef {Options & {tap?: (block: Block, lastEventId: string) => void}} AllOptions `tap`
 *   takes every block: then no events are made of them.
 *
 * @typedef {(what: "open" | "bytes" | "comment" | "retry" | "stream" | "block" | "state" | "move"
 *   | "final" | "end", value?: any, luck?: number) => void} Sink What a transport tells:
 *   the headers, that bytes came, the `retry`, whose the next blocks are, a block, what
 *   state a shared connection is in, that there is none any more, that there is no more to
 *   come, the end and its error. Those that lose one connection together have the same
 *   `luck`, and come back together.
 *
 * @typedef {Options & {url: string, lastEventId: string, attempt: number,
 *   error: SseError | null}} Attempt
 *
 * @typedef {object} Transport
 * @property {"direct" | "mux" | "worker"} via
 * @property {(attempt: Attempt, sink: Sink) => void} open
 * @property {() => void} close
 *
 * @typedef {object} Choice Of a stream that may share a connection.
 * @property {() => boolean} isDue Whether it has one of its own though there is a shared
 *   one now.
 * @property {() => Promise<Transport | null | undefined> | undefined} make What it is to
 *   have from now on; nothing while that is what it has.
 *
 * @typedef {object} Hooks What the page does to a stream: events of the page by their
 *   types, and what the client does.
 * @property {(spreadMs: number, who?: "sharing") => void} wake
 * @property {() => void} close
 * @property {() => void} online
 * @property {(event: PageTransitionEvent) => void} pageshow
 * @property {() => void} pagehide
 * @property {() => void} beforeunload
 * @property {() => void} visibilitychange
 * @property {() => void} resume
 * @property {() => void} freeze
 * @property {(event: SecurityPolicyViolationEvent) => void} securitypolicyviolation
 *
 * @typedef {[path: string, method: string, heartbeatMs: number, hello: boolean,
 *   share?: number]} Route `share`: 0 for a connection of its own, 1 for one with the
 *   others of the tab, 2 for one with those of all tabs, 3 if these say whose they are.
 */

// What a page has and a program may not have. `fetch` is looked up when it is used, for
// a page may put another in its place.
const { document: doc, location: here, navigator: device } = globalThis;

class SseError extends Error {
  name = "SseError";
  /** @type {number | null} */
  status = null;
  retryable = false;
  /** @type {number | null} */
  retryAfterMs = null;
  /** @type {string | null} */
  body = null;
  /** @type {{type: string, raw: string, id: string | null} | null} */
  event = null;
  /** @type {string | null} */
  ref = null;

  /**
   * @param {ErrorKind} kind
   * @param {string} message
   * @param {Partial<SseError>} [fields]
   */
  constructor(kind, message, fields) {
    super(message);
    this.kind = kind;
    Object.assign(this, fields);
  }
}

/**
 * Calls what the page gave us: its exceptions are the page's and stop nothing here.
 * @param {Function} fn
 * @param {...any} args
 */
function call(fn, ...args) {
  try {
    return fn(...args);
  } catch (error) {
    reportError(error);
  }
}

/** @param {any} value @param {...any} args */
function valueOf(value, ...args) {
  return typeof value === "function" ? value(...args) : value;
}

/** @returns {{promise: Promise<any>, resolve: Function, reject: Function}} */
function deferred() {
  /** @type {any} */
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

/**
 * Parses an event stream (HTML standard, 9.2.6). It keeps no last event ID: a block
 * says whether it carried one, and the stream's place outlives the connection.
 * @param {Sink} sink
 * @param {number} maxChars
 * @returns {(text: string) => void}
 */
function createParser(sink, maxChars) {
  /** @returns {Block} */
  const blank = () => ({ type: "", data: null, id: null, json: false, replayed: false });
  let block = blank();
  // How many of the next blocks are of the past.
  let past = 0;
  let rest = "";
  let afterCr = false;

  /** @param {string} text */
  function bounded(text) {
    if (text.length <= maxChars) return text;
    throw new SseError("too-large", `event over ${maxChars} characters`);
  }

  /** @param {string} line */
  function take(line) {
    if (!line) {
      const { data, id } = block;
      block.type ||= "message";
      block.replayed = past-- > 0;
      if (data !== null || id !== null) sink("block", block);
      block = blank();
    }
    const [, name, value] = /** @type {string[]} */ (/^([^:]*):? ?(.*)/s.exec(line));
    // A heartbeat says nothing.
    if (!name && value) sink("comment", value);
    if (name === "data")
      block.data = bounded(block.data === null ? value : block.data + "\n" + value);
    if (name === "event") block.type = value;
    if (name === "id" && !value.includes("\0")) block.id = value;
    if (name === "retry" && /^\d+$/.test(value)) sink("retry", +value);
    if (name === "stream") sink("stream", value);
    if (name === "json") block.json = true;
    if (name === "replay") past = +value;
  }

  return (text) => {
    if (!text) return;
    // A CR that ended the last chunk has ended its line: this LF belongs to it.
    const lines = (afterCr ? text.replace(/^\n/, "") : text).split(/\r\n?|\n/);
    afterCr = text.endsWith("\r");
    lines[0] = rest + lines[0];
    rest = lines.pop() ?? "";
    lines.forEach(take);
    bounded(rest);
  };
}

const BACKOFF = {
  initialMs: 1000,
  maxMs: 30000,
  factor: 2,
  jitter: 0.5,
  resetAfterMs: 5000,
  maxAttempts: Infinity,
};

// A longer setTimeout overflows and fires at once.
const LONGEST_TIMER = 2 ** 31 - 1;

/**
 * How long to wait before try number `attempt`. The first is spread over the whole
 * base, so that a restarted server is not met by all its clients at once.
 * @param {number} attempt
 * @param {number} baseMs The server's `retry`, else ours.
 * @param {number} leastMs What the server said to wait at least.
 * @param {Backoff} backoff
 * @param {number} [luck] From 0 to 1.
 */
function backoffMs(attempt, baseMs, leastMs, { maxMs, factor, jitter }, luck = Math.random()) {
  const full = Math.min(maxMs, Math.max(100, baseMs) * factor ** attempt);
  return Math.max(100, full * (attempt ? 1 - jitter * luck : luck), leastMs * (1 + luck / 4));
}

/** @param {string} value Seconds or an HTTP date (RFC 9110, 10.2.3). */
function retryAfterMs(value) {
  const ms = +value * 1000 || Date.parse(value) - Date.now();
  return ms > 0 ? ms : null;
}

/**
 * What an answer that is no stream comes to.
 * @param {number} status
 * @param {string} type
 * @param {string} retryAfter
 * @param {string} body
 */
function refusal(status, type, retryAfter, body) {
  return new SseError(status === 200 ? "content-type" : "http", `${status} ${type}`, {
    status,
    retryable: /^(408|425|429|50[0234]|52\d)$/.test(`${status}`),
    retryAfterMs: retryAfterMs(retryAfter),
    body: body.slice(0, 4096),
  });
}

/**
 * @param {Response} response
 * @param {(text: string) => unknown} take Says by `false` that it has had enough.
 */
async function readText({ body }, take) {
  // WebKit cannot iterate a stream. The decoder drops the one BOM that may lead.
  const reader = body?.getReader();
  const decoder = new TextDecoder();
  while (reader) {
    const { done, value } = await reader.read();
    if (done || take(decoder.decode(value, { stream: true })) === false) break;
  }
}

/**
 * One request, to the end of its answer.
 * @param {Attempt} attempt
 * @param {Sink} sink
 * @param {AbortSignal} signal
 * @returns {Promise<boolean>} Whether the server said that there is no more.
 */
async function follow(attempt, sink, signal) {
  // Called as a plain function: as a method of anything but window it throws.
  const { fetch = globalThis.fetch, maxEventChars = 8 << 20, lastEventId } = attempt;
  const headers = new Headers(await valueOf(attempt.headers, attempt));
  headers.set("Accept", "text/event-stream");
  // Header values are bytes: fetch throws on a character above U+00FF.
  const id = String.fromCharCode(...new TextEncoder().encode(lastEventId));
  if (id) headers.set("Last-Event-ID", id);
  const body = valueOf(attempt.body);
  const response = await fetch(attempt.url, {
    ...attempt,
    headers,
    body,
    cache: "no-store",
    signal,
  });
  const { status } = response;
  if (status === 204) return true;
  const type = response.headers.get("Content-Type") ?? "";
  if (status !== 200 || !/^text\/event-stream *([;,]|$)/i.test(type)) {
    let body = "";
    await readText(response, (text) => (body += text).length < 4096);
    throw refusal(status, type, response.headers.get("Retry-After") ?? "", body);
  }
  sink("open", response.headers);
  const parse = createParser(sink, maxEventChars);
  await readText(response, (text) => {
    sink("bytes");
    parse(text);
  });
  return false;
}

/**
 * A connection of the stream's own.
 * @returns {Transport}
 */
function createFetchTransport() {
  /** @type {AbortController | undefined} */
  let abort;
  return {
    via: "direct",
    open(attempt, sink) {
      abort = new AbortController();
      follow(attempt, sink, abort.signal).then(
        (final) => sink(final ? "final" : "end", null),
        (cause) =>
          sink(
            "end",
            cause instanceof SseError
              ? cause
              : new SseError("network", "no connection", { retryable: true, cause }),
          ),
      );
    },
    // It also ends an answer that was refused before all of it was read.
    close: () => abort?.abort(),
  };
}

// What a page listens to besides its events. Symbols, for any string may be a type.
const ANY = Symbol();
const STATE = Symbol();
const GAP = Symbol();
const ERROR = Symbol();
const COMMENT = Symbol();

/**
 * Who listens to a stream, and the events that wait for somebody who does.
 * @param {Options} options
 * @param {(error: SseError) => void} fail Ends the stream.
 */
function createAudience({ buffer: { max = 1000, overflow = "gap" } = {} }, fail) {
  // A Map, for an event may be called `__proto__`.
  /** @type {Map<string | symbol, Set<Function>>} */
  const handlers = new Map();
  /** @type {Set<() => void>} */
  const waiting = new Set();
  /** @type {Gap | null} */
  let untold = null;
  /** @type {{error: SseError | null, silent: boolean} | null} */
  let ending = null;
  let consumers = 0;
  /** @type {Queue} */
  const kept = [];

  /** @param {Queue} queue @param {SseEvent} event */
  function push(queue, event) {
    if (queue.push(event) <= max) return;
    const lost = queue.shift()?.lastEventId;
    if (overflow === "gap") queue.lost = lost;
    if (overflow === "error") fail(new SseError("too-large", `over ${max} events wait`));
  }

  /** What was lost is told now, as one gap. @param {Queue} queue @returns {any} */
  function take(queue) {
    const { after = null, lost } = queue;
    queue.lost = undefined;
    if (lost !== undefined) tellGap({ reason: "overflow", after, id: lost });
    const event = queue.shift();
    queue.after = event?.lastEventId;
    return event;
  }

  /**
   * @param {(string | symbol)[]} keys
   * @param {Function} fn
   * @param {Subscription} [options]
   * @param {number} [weight] 1 for those who consume events.
   * @returns {Unsubscribe}
   */
  function subscribe(keys, fn, { signal, once } = {}, weight = 0) {
    let live = true;
    const off = () => {
      if (live) consumers -= weight;
      live = false;
      for (const key of keys) handlers.get(key)?.delete(handler);
      signal?.removeEventListener("abort", off);
    };
    /** @param {unknown} value */
    const handler = (value) => {
      if (once) off();
      fn(value);
    };
    for (const key of keys) handlers.set(key, (handlers.get(key) ?? new Set()).add(handler));
    signal?.addEventListener("abort", off);
    consumers += weight;
    if (signal?.aborted) off();
    // A microtask later, so that handlers attached together share what was kept.
    queueMicrotask(() => {
      while (consumers && kept.length && !ending?.silent) dispatch(take(kept));
    });
    return off;
  }

  /** @param {string | symbol} key @param {unknown} value */
  function emit(key, value) {
    const set = handlers.get(key) ?? new Set();
    for (const fn of [...set]) if (set.has(fn)) call(fn, value);
  }

  /** @param {SseEvent} event */
  function dispatch(event) {
    emit(event.type, event);
    emit(ANY, event);
  }

  /** @param {SseEvent} event */
  function deliver(event) {
    // Behind what is kept already, or it would overtake it.
    if (consumers && !kept.length) dispatch(event);
    else push(kept, event);
  }

  /** @param {Gap} gap */
  function tellGap(gap) {
    untold = handlers.get(GAP)?.size ? null : gap;
    emit(GAP, gap);
  }

  /** @param {SseError | null} error @param {boolean} silent */
  function end(error, silent) {
    ending = { error, silent };
    for (const wake of [...waiting]) wake();
  }

  /**
   * @param {string | readonly string[]} type
   * @param {(data: any, event: SseEvent) => void} fn
   * @param {Subscription} [options]
   */
  function on(type, fn, options) {
    /** @param {SseEvent} event */
    const handler = (event) => fn(event.data, event);
    return subscribe([type].flat(), handler, options, 1);
  }

  /** @param {symbol} key @param {number} [weight] */
  function listenTo(key, weight) {
    /** @param {(value: any) => void} fn @param {Subscription} [options] */
    return (fn, options) => subscribe([key], fn, options, weight);
  }
  const onAny = listenTo(ANY, 1);

  /** @param {(gap: Gap) => void} fn @param {Subscription} [options] */
  function onGap(fn, options) {
    const gap = untold;
    if (gap) queueMicrotask(() => tellGap(gap));
    return subscribe([GAP], fn, options);
  }

  /**
   * @param {string | readonly string[]} type
   * @param {{timeoutMs?: number, signal?: AbortSignal}} [options]
   * @returns {Promise<SseEvent>}
   */
  function next(type, { timeoutMs = LONGEST_TIMER, signal } = {}) {
    const { promise, resolve, reject } = deferred();
    /** @param {ErrorKind} kind */
    const fail = (kind) => reject(new SseError(kind, `"${type}" did not come`));
    const timer = setTimeout(fail, Math.min(timeoutMs, LONGEST_TIMER), "timeout");
    const onAbort = () => reject(signal?.reason);
    const onEnd = () => {
      if (ending?.error) reject(ending.error);
      if (ending) fail("closed");
    };
    // Off at once, or it would take the event that the next `next` waits for.
    const off = on(type, (_, event) => resolve(event), { once: true });
    waiting.add(onEnd);
    queueMicrotask(onEnd);
    signal?.addEventListener("abort", onAbort);
    if (signal?.aborted) onAbort();
    return promise.finally(() => {
      clearTimeout(timer);
      off();
      waiting.delete(onEnd);
      signal?.removeEventListener("abort", onAbort);
    });
  }

  /** @param {() => void} onLeave @returns {AsyncGenerator<SseEvent, void, void>} */
  function iterate(onLeave) {
    /** @type {Queue} */
    const queue = [];
    let { promise, resolve } = deferred();
    const wake = () => resolve();
    // From now on, not from the first `next()`.
    const off = onAny((event) => {
      push(queue, event);
      wake();
    });
    waiting.add(wake);
    return (async function* () {
      try {
        // What was kept comes first.
        await null;
        for (;;) {
          if (queue.length && !ending?.silent) yield take(queue);
          else if (ending?.error) throw ending.error;
          else if (ending) return;
          else {
            await promise;
            ({ promise, resolve } = deferred());
          }
        }
      } finally {
        off();
        waiting.delete(wake);
        onLeave();
        // What it has not taken is for the next to come.
        while (!consumers && queue.length) push(kept, take(queue));
      }
    })();
  }

  return {
    listen: {
      on,
      onAny,
      onState: listenTo(STATE),
      onError: listenTo(ERROR),
      onComment: listenTo(COMMENT),
      onGap,
      next,
    },
    isEmpty: () => !consumers,
    iterate,
    emit,
    deliver,
    tellGap,
    end,
  };
}

/**
 * Streams, which are told what happens to the page: by one set of listeners, however many
 * they are. What happens to the document is heard on its way there.
 * @returns {Set<Hooks>}
 */
function createStreams() {
  /** @type {Set<Hooks>} */
  const streams = new Set();
  for (const type of /** @type {const} */ ([
    "online",
    "pageshow",
    "pagehide",
    "beforeunload",
    "visibilitychange",
    "resume",
    "freeze",
    "securitypolicyviolation",
  ])) {
    /** @param {any} event */
    const tell = (event) => [...streams].forEach((stream) => stream[type](event));
    globalThis.addEventListener?.(type, tell, true);
  }
  return streams;
}

/**
 * Of a private run the next page asks the start: number 0 behind its token. Taken once,
 * for a tab that is duplicated has a copy, and a run has one client.
 * @param {string} url
 * @param {string} [id] What is to be remembered.
 */
function recall(url, id) {
  const key = "sse " + url;
  try {
    const kept = sessionStorage.getItem(key) ?? "";
    sessionStorage.removeItem(key);
    const [start] = /^sse1\.r\.[^.]*\./.exec(id ?? "") ?? [];
    if (start) sessionStorage.setItem(key, start + 0);
    return kept;
  } catch {
    // Some browsers refuse storage, by an error.
    return "";
  }
}

/**
 * One stream, over any number of connections.
 * @param {string} url
 * @param {Route} route
 * @param {AllOptions} options
 * @param {Transport} transport
 * @param {Set<Hooks>} streams Those that it is one of.
 * @param {(cursor: string) => void} release Tells the server that nobody comes back.
 * @param {Choice} [choice]
 */
function createStream(
  url,
  [, method, heartbeatMs, hello],
  options,
  transport,
  streams,
  release,
  choice,
) {
  const { signal, stallTimeoutMs, connectTimeoutMs = 10000, backoff, shouldRetry } = options;
  const { persist, tap, pause } = options;
  /** @type {Backoff} */
  const bounds = Object.assign({}, BACKOFF, backoff);
  const request = { method, ...options, url };
  const audience = createAudience(options, (error) => finish("fatal", error));
  const { emit, tellGap } = audience;
  const opened = deferred();
  const closed = deferred();
  // Who does not wait for it must not hear of an unhandled rejection.
  opened.promise.catch(() => {});

  let lastEventId = options.lastEventId ?? (persist ? recall(url) : "");
  let attempt = 0;
  let retryMs = bounds.initialMs;
  let leastMs = 0;
  let notBefore = 0;
  let openedAt = 0;
  let heardAt = 0;
  let greeted = false;
  // It was answered, and not a byte has come. Firefox does not say so before it has.
  let mute = false;
  let suspended = false;
  let leavingAt = 0;
  let reauthorised = false;
  // What was told lately. Places of ours are told once each, but that of a part of a
  // snapshot; a page's own ids may come again.
  /** @type {Set<string>} */
  const told = new Set();
  /** @type {Headers | null} */
  let headers = null;
  /** @type {Sink | null} */
  let sink = null;
  /** @type {StateInfo} */
  let info;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  /** @param {State} state @param {SseError | null} [error] @param {number | null} [retryInMs] */
  function note(state, error = null, retryInMs = null) {
    const { via } = transport;
    const since = Date.now();
    info = Object.freeze({ state, attempt, retryInMs, via, since, error, headers });
  }

  /** @type {typeof note} */
  function become(...args) {
    note(...args);
    emit(STATE, info);
    if (info.error) emit(ERROR, info.error);
  }

  /**
   * The one timer: a stream waits for one thing at a time.
   * @param {number} ms @param {() => void} fn
   */
  function after(ms, fn) {
    clearTimeout(timer);
    timer = setTimeout(fn, Math.min(ms, LONGEST_TIMER));
  }

  /** @param {ErrorKind} kind @param {string} message */
  function fail(kind, message) {
    lose(new SseError(kind, message, { retryable: true }));
  }

  function drop() {
    clearTimeout(timer);
    if (sink) transport.close();
    sink = headers = null;
  }

  /** Until it is woken. @param {typeof note} say */
  function rest(say) {
    drop();
    suspended = true;
    say("waiting");
  }

  /** @param {boolean} [quiet] Without a word: it is open, and goes on elsewhere. */
  function connect(quiet) {
    if (pause && doc?.hidden) return rest(become);
    drop();
    leastMs = openedAt = 0;
    greeted = suspended = mute = false;
    /** @type {Sink} */
    const mine = (what, value, luck) => {
      // Nothing is heard of a connection that was dropped, not even what was parsed.
      if (sink === mine) hears[what]?.(value, luck);
    };
    sink = mine;
    // Longer with each try: on a slow network a fixed one would never let it through.
    const limit = connectTimeoutMs * Math.min(attempt + 1, 3);
    after(limit, () =>
      fail(mute ? "stalled" : "timeout", `not open in ${limit} ms: does a proxy buffer?`),
    );
    const asked = { ...request, lastEventId, attempt, error: info.error };
    /** @param {Transport | null} [other] */
    const open = (other) => {
      transport = other ?? transport;
      if (sink === mine) transport.open(asked, mine);
    };
    const other = choice?.make();
    if (other) other.then(open);
    else open();
    if (!quiet) become("connecting");
  }

  function open() {
    if (info.state === "open" && info.via === transport.via) return;
    openedAt = heardAt = Date.now();
    reauthorised = false;
    watch();
    opened.resolve();
    become("open");
  }

  // What a connection tells.
  /** @type {Record<string, (value: any, luck?: number) => void>} */
  const hears = {
    /** @param {Headers} [theirs] None of a connection that others share. */
    open(theirs) {
      mute = true;
      if (!theirs) return;
      headers = theirs;
      if (hello) return;
      const missed = headers.get("SSE-Resume")?.startsWith("gap");
      if (missed) tellGap({ reason: "unknown", after: lastEventId || null, id: null });
      open();
    },
    bytes() {
      mute = false;
      heardAt = Date.now();
    },
    // At the opening it is the base of our back-off. Later, from a server that is ours,
    // it says when to come back: after a shutdown, a `Reconnect`, an error.
    comment: (text) => emit(COMMENT, text),
    /** @param {number} ms */
    retry(ms) {
      retryMs = ms;
      if (greeted) leastMs = ms;
    },
    /** @param {Block} block */
    block(block) {
      const { type, data: raw, id, json, replayed } = block;
      const isControl = type.startsWith("sse-");
      if (id && !isControl && /^sse1\.[^s]/.test(id)) {
        if (told.has(id)) return;
        for (const oldest of told.add(id)) if (told.size > 256) told.delete(oldest);
      }
      lastEventId = id ?? lastEventId;
      if (raw !== null && (!isControl || type === "sse-hello")) open();
      tap?.(block, lastEventId);
      if (raw === null) return;
      /** @type {any} */
      let data = raw;
      try {
        if (isControl) return controls[type]?.(JSON.parse(raw), id);
        if (tap) return;
        if (options.parse) data = options.parse(raw, type);
        else if (json) data = JSON.parse(raw);
      } catch (cause) {
        const event = { type, raw, id };
        return emit(ERROR, new SseError("decode", "event cannot be parsed", { event, cause }));
      }
      audience.deliver({ type, data, id, lastEventId, raw, replayed });
    },
    // Who shares a connection with other tabs waits as that does.
    state({ state, attempt: tries, retryInMs, error }) {
      clearTimeout(timer);
      if (state === info.state && tries === attempt) return;
      attempt = tries;
      become(state, error, retryInMs);
    },
    // By another way than the one that is no more.
    move: () => connect(true),
    final: () => finish("done"),
    end: lose,
  };

  // What a server that is ours tells, by events that are none of the page's.
  /** @type {Record<string, (about: any, id: string | null) => void>} */
  const controls = {
    "sse-hello"({ heartbeat }) {
      greeted = true;
      if (heartbeat >= 0) heartbeatMs = heartbeat * 1000;
      watch();
    },
    "sse-gap"({ reason, after = null }, id) {
      // What a new client gets may have been told before.
      told.clear();
      tellGap({ reason, after, id });
    },
    "sse-busy"() {
      leastMs = retryMs;
      lose(null);
    },
    "sse-error"({ ref }) {
      leastMs = retryMs;
      emit(ERROR, new SseError("server", "handler failed", { retryable: true, ref }));
    },
    "sse-end"({ reason }) {
      if (reason === "finished") finish("done");
      else if (reason === "replaced") finish(reason);
      else finish("fatal", new SseError("server", `ended: ${reason}`));
    },
  };

  /**
   * Ends a connection on which nothing comes any more. Times are compared, for timers
   * sleep when the machine does; a late one first lets queued bytes come in.
   * @param {number} [graceMs]
   */
  function watch(graceMs) {
    const own = heartbeatMs && 2 * heartbeatMs + 10000;
    const limit = stallTimeoutMs === undefined ? own : stallTimeoutMs;
    // A worker is watched by who speaks with it, and watches in its turn.
    if (!limit || transport.via === "worker") return clearTimeout(timer);
    const wait = graceMs ?? Math.min(limit, heardAt + limit - Date.now());
    const due = Date.now() + wait;
    after(wait, () => {
      const now = Date.now();
      if (!graceMs && now > due + 2000) watch(3000);
      else if (now < heardAt + limit) watch();
      else fail("stalled", `silent for ${limit} ms`);
    });
  }

  /** @param {SseError | null} error @param {number} [luck] */
  function lose(error, luck) {
    drop();
    // Leaving a page breaks its connections before it says so: wait for that.
    if (error) after(50, () => recover(error, luck));
    else recover(null, luck);
  }

  /** @param {SseError | null} error @param {number} [luck] */
  function recover(error, luck) {
    if (error?.status === 401 && !reauthorised && typeof options.headers === "function") {
      reauthorised = true;
      note("connecting", error);
      return connect();
    }
    if (openedAt && Date.now() >= openedAt + bounds.resetAfterMs) attempt = 0;
    const least = Math.max(leastMs, error?.retryAfterMs ?? 0);
    let delay = backoffMs(attempt, retryMs, least, bounds, luck);
    if (openedAt && error?.kind === "stalled") delay = 0;
    // Not for ever: what a browser takes for offline may be a host without a network.
    if (device?.onLine === false) delay = Math.max(delay, bounds.maxMs);
    const own = typeof backoff === "function" ? call(backoff, attempt, error) : delay;
    let again = error?.retryable ?? true;
    // What is no GET may have had its effects, and is known again by a cursor only.
    const isSafe = request.method === "GET" || lastEventId || leastMs;
    if (!isSafe && !/408|425|429|503/.test(`${error?.status}`)) again = false;
    if (error && shouldRetry) again = call(shouldRetry, error) ?? again;
    if (!again || own === null || attempt >= bounds.maxAttempts) {
      return finish("fatal", error ?? new SseError("network", "stream ended"));
    }
    attempt++;
    notBefore = Date.now() + least;
    delay = own ?? delay;
    after(delay, connect);
    if (error?.kind === "network" && Date.now() < leavingAt + 1000) note("waiting");
    else become("waiting", error, delay);
  }

  /** @param {CloseReason} reason @param {SseError | null} [error] */
  function finish(reason, error = null) {
    drop();
    streams.delete(hooks);
    signal?.removeEventListener("abort", close);
    become("closed", error);
    audience.end(error, reason === "client");
    opened.reject(error ?? new SseError("closed", reason));
    closed.resolve(reason);
  }

  function close() {
    if (info.state === "closed") return;
    finish("client");
    release(lastEventId);
  }

  function reconnect() {
    if (info.state === "closed") return;
    attempt = 0;
    connect();
  }

  /** @param {number} spreadMs @param {"sharing"} [who] */
  function wake(spreadMs, who) {
    if (who && !choice) return;
    const now = Date.now();
    const { state } = info;
    // The machine has slept, or iOS has cut the connection without a word.
    const isSilent = heartbeatMs && now > heardAt + heartbeatMs + 3000;
    const isDue = suspended || (state === "waiting" && now >= notBefore);
    if (isDue || (state === "open" && isSilent)) after(Math.random() * spreadMs, connect);
    // Not before it has a place to go on from.
    else if (greeted && choice?.isDue()) connect(true);
  }

  // Without a word to the handlers, for the page is being left. A page in the
  // back-forward cache that receives something is evicted.
  function leave() {
    rest(note);
    if (persist) recall(url, lastEventId);
  }

  /** @type {Hooks} */
  const hooks = {
    wake,
    close,
    // All pages of an office come online at the same moment.
    online: () => wake(500),
    pageshow: ({ persisted }) => persisted && wake(0),
    pagehide: leave,
    // Firefox breaks connections now: before the next page has come, if one comes at all.
    beforeunload() {
      leavingAt = Date.now();
    },
    visibilitychange() {
      if (!doc.hidden) wake(0);
      else if (pause) rest(become);
    },
    resume: () => wake(0),
    freeze: leave,
    securitypolicyviolation({ disposition, effectiveDirective, blockedURI }) {
      const what = `${disposition} ${effectiveDirective}`;
      if (what !== "enforce connect-src" || info.state === "open") return;
      if (url.startsWith(blockedURI)) lose(new SseError("csp", "refused by CSP"));
    },
  };

  note("connecting");
  streams.add(hooks);
  signal?.addEventListener("abort", close);
  // A macrotask later: handlers that are attached in this turn miss nothing.
  after(0, connect);
  if (signal?.aborted) close();

  return {
    ...audience.listen,
    url,
    opened: opened.promise,
    closed: closed.promise,
    close,
    reconnect,
    get lastEventId() {
      return lastEventId;
    },
    get info() {
      return info;
    },
    // Leaving this loop leaves the stream as it is.
    events: () => audience.iterate(() => {}),
    // Leaving this one closes a stream that nobody else listens to.
    [Symbol.asyncIterator]: () => audience.iterate(() => audience.isEmpty() && close()),
    [Symbol.asyncDispose]: async () => close(),
  };
}

/**
 * @param {string} href
 * @param {Record<string, any>} [query]
 */
function withQuery(href, query) {
  const url = new URL(href);
  // Nor is there with a name or a password in it: fetch refuses them.
  if (!/^https?:..[^/@]*\//.test(url.href)) throw new TypeError(`no stream at ${href}`);
  for (const [name, values] of Object.entries({ ...query })) {
    for (const value of [values].flat()) {
      if (value === Object(value)) {
        throw new TypeError(`"${name}" is no URL part; options come second`);
      }
      if ((value ?? null) !== null) url.searchParams.append(name, value);
    }
  }
  return url.href;
}

/**
 * @param {string} path `{name}` stands for a segment, `{name*}` for any number.
 * @param {Record<string, any>} [params]
 * @returns {[path: string, rest: Record<string, any>]} What has no place is the query's.
 */
function fillPath(path, params) {
  /** @type {Record<string, any>} */
  const rest = { __proto__: null, ...params };
  const filled = path.replace(/\{(\w+)(\*?)\}/g, (_, name, many) => {
    const value = rest[name] ?? null;
    delete rest[name];
    if (value === null || (value === "" && !many)) {
      throw new TypeError(`"${name}" of ${path} is missing`);
    }
    const encoded = encodeURIComponent(value);
    return many ? encoded.replaceAll("%2F", "/") : encoded;
  });
  // A URL has no way to write such a segment: it would lead somewhere else.
  if (/\/\.\.?(\/|$)/.test(filled)) throw new TypeError(`"." or ".." in ${path}`);
  return [filled, rest];
}

/**
 * What the URLs are like that a route answers to, if no other has them.
 * @param {string} path
 */
function patternOf(path) {
  const pattern = path.replace(/\{\w+(\*?)\}|\W/g, (it, many) =>
    it[1] ? `[^${many ? "" : "/"}?#]*` : `\\${it}`,
  );
  return RegExp(`^${pattern}(\\?[^#]*)?$`);
}

/**
 * Where the application is, as the script's own URL tells: behind a proxy that puts a
 * prefix before it, the server does not know.
 * @param {string} script
 * @param {string} prefix
 */
function baseOf(script, prefix) {
  const folder = new URL(".", script).href;
  if (folder.endsWith(prefix + "/")) return folder.slice(0, -prefix.length - 1);
  return here?.origin ?? folder;
}

/**
 * The browser's own class over our streams. Control events are events here, as there.
 * @param {(url: string, options: AllOptions) => any} open
 */
function createEventSource(open) {
  class EventSource extends EventTarget {
    /** @type {any} */
    #stream;
    /** @type {any} */
    #off;

    /** @param {string | URL} url @param {Options & {withCredentials?: boolean}} [init] */
    constructor(url, { withCredentials = false, ...options } = {}) {
      super();
      const { href, origin } = new URL(url, doc?.baseURI);
      const self = /** @type {any} */ (this);
      for (const type of ["open", "message", "error"]) {
        /** @param {Event} event */
        const tell = (event) => self["on" + type]?.call?.(self, event);
        self["on" + type] = null;
        self.addEventListener(type, tell);
      }
      self.withCredentials = withCredentials;
      const stream = (self.#stream = open(href, {
        credentials: withCredentials ? "include" : "same-origin",
        ...options,
        tap: ({ type, data }, lastEventId) => {
          const event = { data, lastEventId, origin };
          if (data !== null) self.dispatchEvent(new MessageEvent(type, event));
        },
      }));
      self.url = stream.url;
      /** @type {State} */
      let before;
      self.#off = stream.onState((/** @type {StateInfo} */ { state }) => {
        // It may be open on another connection now, which is no news here.
        if (state !== "connecting" && state !== before)
          self.dispatchEvent(new Event(state === "open" ? state : "error"));
        before = state;
      });
    }

    get readyState() {
      const states = /** @type {Record<State, number>} */ ({ open: 1, closed: 2 });
      return states[/** @type {State} */ (this.#stream.info.state)] ?? 0;
    }

    close() {
      this.#off();
      this.#stream.close();
    }
  }
  for (const target of [EventSource, EventSource.prototype]) {
    Object.assign(target, { CONNECTING: 0, OPEN: 1, CLOSED: 2 });
  }
  return EventSource;
}

/**
 * @param {Record<string, Route>} routes
 * @param {string} prefix Where the script and the endpoints of its own are.
 * @param {string} script
 * @param {string | URL | null} [base] Where the application is, if not where the script
 *   is from.
 * @param {Options} [defaults]
 * @param {string} [hub] The file of the hub; none, and nothing is shared.
 */
function createClient(routes, prefix, script, base, defaults, hub) {
  const root = (base ? new URL(base, script).href : baseOf(script, prefix)).replace(/\/+$/, "");
  const folder = root + prefix;
  const settings = { ...defaults };
  // What the hub, once it is there, makes transports with.
  /** @type {Promise<((url: string, share: number, heartbeatMs: number, options: Options) =>
   *   Transport | null) | null> | undefined} */
  let attached;
  /** @type {ReturnType<typeof createEventSource> | undefined} */
  let eventSource;

  const streams = createStreams();
  const wakeSharing = () => [...streams].forEach((stream) => stream.wake(0, "sharing"));

  /**
   * A connection of its own until there are several streams, and the hub's from then on.
   * @param {string} url
   * @param {Route} route
   * @param {Options} options
   * @returns {Choice}
   */
  function createChoice(url, [, , heartbeatMs, , most = 0], options) {
    const share = most > 2 && !options.session ? 1 : most;
    let isMade = false;
    return {
      isDue: () => !isMade && !!attached,
      make() {
        if (isMade || !(attached || share > 1 || streams.size > 1)) return;
        // Another version of it, as in a rolling deploy, may not understand.
        attached ??= import(`${folder}/${hub}`)
          .then((module) => module.attach(root, folder, hub, SseError, wakeSharing))
          .catch(() => null);
        return attached.then((attach) => {
          isMade = true;
          return attach?.(url, share, heartbeatMs, options);
        });
      },
    };
  }

  /** @param {string} url @param {Route} route @param {AllOptions} [options] */
  function start(url, route, options) {
    const all = { ...settings, ...options };
    const { fetch = globalThis.fetch, credentials, lastEventId = "", share } = all;
    if (/[\0\r\n]/.test(lastEventId)) throw new TypeError("lastEventId has a line end");
    const mayShare =
      hub &&
      route[4] &&
      share !== "off" &&
      url.startsWith(here?.origin + "/");
    /** @param {string} body */
    const release = (body) => {
      // Only a private run has something to end, and only the server that made it can.
      if (!/^sse1\.r\..*\d$/.test(body) || !url.startsWith(root + "/")) return;
      const request = { method: "POST", body, credentials, keepalive: true };
      fetch(folder + "/close", request).catch(() => {});
    };
    const choice = mayShare ? createChoice(url, route, all) : undefined;
    return createStream(url, route, all, createFetchTransport(), streams, release, choice);
  }

  /** @param {string} path @param {AllOptions} [options] */
  function open(path, options) {
    const href = /^[a-z][\w+.-]*:/i.test(path) ? path : root + path.replace(/^\/?/, "/");
    const url = withQuery(href, options?.query);
    const known = Object.values(routes).find(
      ([path, method]) => method === "GET" && patternOf(root + path).test(url),
    );
    return start(url, [path, "GET", 0, false, known?.[4]], options);
  }

  /** @type {Record<string, any>} */
  const client = {
    open,
    /** @param {Options} options */
    configure(options) {
      Object.assign(settings, options);
    },
    closeAll() {
      [...streams].forEach((stream) => stream.close());
    },
    get EventSource() {
      return (eventSource ??= createEventSource(open));
    },
  };

  for (const [name, route] of Object.entries(routes)) {
    const [path, method, heartbeatMs] = route;
    /** @param {any} [params] @param {any} [query] */
    const url = (params, query) => {
      const [filled, rest] = fillPath(path, params);
      return withQuery(root + filled, { ...rest, ...query });
    };
    /** @param {any} [params] @param {Options} [options] */
    const openRoute = (params, options) => start(url(params, options?.query), route, options);
    client[name] = Object.assign(openRoute, { url, meta: { path, method, heartbeatMs } });
  }
  return client;
}

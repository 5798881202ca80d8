// @ts-check
// The hub: one connection for several streams, of a tab or of all tabs of a browser. A
// page loads it with its second stream, and it is the SharedWorker that pages meet in.
//
// Law: it stands behind `core.js`, and makes transports for the streams that are there.
// What it hands on are blocks as they came. A place is compared for being the same and
// never for being before another; where it cannot be told what a stream has missed, the
// server is asked. Whoever is given a shared stream has been let in by the server.

/**
 * @typedef {object} Sub A stream on a connection with others.
 * @property {string} key
 * @property {string} path
 * @property {string} lastEventId
 * @property {boolean} isAsked
 * @property {boolean} isSettled It has a place to go on from.
 * @property {boolean} isOver The server has ended it, or is about to.
 * @property {Sink} sink
 * @property {() => void} giveUp Told that there is no such endpoint.
 * @property {(error: SseError) => void} turnAway Told that the server would have it by
 *   itself: what its URL leads to is none of the routes that may share.
 *
 * @typedef {object} Member A stream of a tab, as its worker knows it.
 * @property {string} cursor The last place that it was told.
 * @property {boolean} isIn Whether the server has let it in.
 * @property {(what: string, value?: any) => void} post
 * @property {any} lane What it gets until it is where the others are.
 * @property {number} greetedAt
 * @property {number} heardAt
 * @property {number} past How much the stream had told when it came.
 */

// What the server takes in one request.
const MOST = 32;

// It may be asked for on another connection (RFC 9110, 15.5.20).
const MISDIRECTED = 421;

/** What is open here, be it a tab or the worker. */
const page = createStreams();

/** Whether this is the place of who has a part of a snapshot only. @param {string} id */
const isUnready = (id) => id.startsWith("sse1.s.");

/**
 * One connection and the streams on it. Streams that come or go within one turn, or
 * while others are being opened, cost one new request.
 * @param {string} endpoint
 * @param {() => void} wake Makes the streams that wait come along.
 * @param {() => void} giveUp
 */
function createLine(endpoint, wake, giveUp) {
  /** @type {Map<string, Sub>} */
  const subs = new Map();
  const transport = createFetchTransport();
  /** @type {Sub | undefined} */
  let current;
  /** @type {object | null} */
  let request = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let dueAt = Infinity;
  let askedAt = 0;
  let isOurs = true;

  /** @param {number} ms */
  function schedule(ms) {
    if (Date.now() + ms >= dueAt) return;
    dueAt = Date.now() + ms;
    clearTimeout(timer);
    timer = setTimeout(gather, ms);
  }

  function gather() {
    dueAt = Infinity;
    // Who has no place yet would begin anew: a moment for that.
    const isOpening = [...subs.values()].some((sub) => sub.isAsked && !sub.isSettled);
    if (isOpening && Date.now() < askedAt + 1000) return schedule(20);
    dueAt = 0;
    wake();
    timer = setTimeout(ask, 0);
  }

  function ask() {
    stop();
    if (!subs.size) return;
    askedAt = Date.now();
    isOurs = true;
    const mine = (request = {});
    const streams = [];
    for (const sub of subs.values()) {
      const { key, path, lastEventId } = sub;
      sub.isAsked = true;
      streams.push({ key, url: path, ...(lastEventId && { lastEventId }) });
    }
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ streams });
    const about = { url: endpoint, method: "POST", headers, body, lastEventId: "" };
    transport.open({ ...about, attempt: 0, error: null }, (what, value) => {
      if (request === mine) hear(what, value);
    });
  }

  function stop() {
    clearTimeout(timer);
    dueAt = Infinity;
    request = null;
    current = undefined;
    transport.close();
  }

  /** @type {Sink} */
  function hear(what, value) {
    if (what === "stream") {
      current = subs.get(value);
      isOurs = false;
    } else if (what === "end" || what === "final") lose(value);
    else if (what === "block" && current) take(current, value);
    else if (what === "comment") current?.sink(what, value);
    // Before the first stream has its turn, the endpoint itself says that it is busy.
    else if (what === "open") tellAll(what);
    else if (what === "bytes" || isOurs) tellAll(what, value);
    else if (what === "retry") current?.sink(what, value);
  }

  /** @type {Sink} */
  function tellAll(what, value) {
    for (const sub of [...subs.values()]) sub.sink(what, value);
  }

  /** @param {Sub} sub @param {Block} block */
  function take(sub, block) {
    const { type, data, id } = block;
    if (type === "sse-status" || type === "sse-eof") {
      subs.delete(sub.key);
      current = undefined;
      const { status, retryAfter, body = "" } = JSON.parse(data ?? "{}");
      const error = refusal(status, "", `${retryAfter}`, body);
      if (type === "sse-eof") sub.sink("end", null);
      else if (status === 204) sub.sink("final");
      else if (status === MISDIRECTED) sub.turnAway(error);
      else sub.sink("end", error);
      return;
    }
    if (id !== null) sub.lastEventId = id;
    sub.isSettled = !isUnready(sub.lastEventId);
    sub.isOver = /^sse-(end|busy)$/.test(type);
    sub.sink("block", block);
  }

  /** @param {SseError | null} error */
  function lose(error) {
    const lost = [...subs.values()];
    const guilty = error?.kind === "too-large" ? current : undefined;
    stop();
    subs.clear();
    if (error && !error.retryable && !guilty) {
      giveUp();
      lost.forEach((sub) => sub.giveUp());
      return;
    }
    // All of them come back together.
    const luck = Math.random();
    for (const sub of lost) {
      sub.sink("end", !guilty || sub === guilty ? error : null, luck);
    }
  }

  return {
    hasRoom: () => subs.size < MOST,
    /** @param {Sub} sub */
    add(sub) {
      subs.set(sub.key, sub);
      schedule(0);
    },
    /** @param {Sub} sub */
    remove(sub) {
      if (!subs.delete(sub.key)) return;
      if (sub === current) current = undefined;
      if (!subs.size) stop();
      else if (!sub.isOver) schedule(200);
    },
  };
}

/**
 * The multiplexed endpoint. Where the server has none, or refuses, each stream has a
 * connection of its own.
 * @param {string} root Where the application is: the server may not know.
 * @param {string} endpoint
 * @param {() => void} wake
 * @param {boolean} [isForTabs] Then a stream that is turned away is an error: each tab is to
 *   ask for it by itself.
 */
function createMux(root, endpoint, wake, isForTabs) {
  /** @type {ReturnType<typeof createLine>[]} */
  const lines = [];
  let count = 0;
  let isRefused = false;

  function lineWithRoom() {
    const line = lines.find((one) => one.hasRoom());
    if (line) return line;
    lines.push(createLine(endpoint, wake, () => (isRefused = true)));
    return lines[lines.length - 1];
  }

  /** @returns {Transport} */
  return () => {
    /** @type {Transport | null} */
    let own = null;
    let isAlone = false;
    let leave = () => {};
    return {
      get via() {
        return own ? "direct" : "mux";
      },
      open(attempt, sink) {
        /** @type {Sub} */
        const sub = {
          key: (count++).toString(36),
          path: attempt.url.slice(root.length),
          lastEventId: attempt.lastEventId,
          isAsked: false,
          isSettled: false,
          isOver: false,
          sink,
          giveUp() {
            own = createFetchTransport();
            own.open({ ...attempt, lastEventId: sub.lastEventId }, sink);
          },
          turnAway(error) {
            if (isForTabs) return sink("end", error);
            isAlone = true;
            sub.giveUp();
          },
        };
        own = null;
        if (isRefused || isAlone) return sub.giveUp();
        const line = lineWithRoom();
        leave = () => line.remove(sub);
        line.add(sub);
      },
      close() {
        own?.close();
        leave();
      },
    };
  };
}

// ---- in the worker

/**
 * A stream for all tabs. It remembers what it has told, so that who comes back is told
 * the rest; who has another place, or none yet, has a lane of its own to the server
 * until it is where the others are.
 * @param {string} url
 * @param {number} heartbeatMs
 * @param {string} lastEventId
 * @param {{main: () => Transport, side: () => Transport}} connections
 * @param {() => void} wake Makes the streams that wait come along.
 * @param {() => void} onEnd
 */
function createSource(url, heartbeatMs, lastEventId, { main, side }, wake, onEnd) {
  /** @type {{block: Block, id: string, number: number}[]} */
  const ring = [];
  let count = 0;
  /** @type {Set<Member>} */
  const live = new Set();
  /** @type {Set<Member>} */
  const lanes = new Set();
  // The place before all that the ring has.
  let floor = lastEventId;
  let size = 0;
  let heardAt = 0;
  let isGreeted = false;
  let isForeign = false;

  /** @param {() => Transport} connection @param {string} at @param {(block: Block) => void} tap */
  const follow = (connection, at, tap) =>
    createStream(
      url,
      ["", "GET", heartbeatMs, true],
      { lastEventId: at, tap },
      connection(),
      page,
      () => {},
    );

  /** @param {SseError | null} error An error of ours cannot be posted as it is. */
  const plain = (error) => error && { ...error, cause: null, message: error.message };

  /** @param {StateInfo} info @param {Iterable<Member>} members */
  function tell({ state, attempt, retryInMs, error }, members) {
    for (const { post } of members) {
      if (state !== "closed") post("state", { state, attempt, retryInMs, error: plain(error) });
      else if (isForeign || error?.status === MISDIRECTED) post("alone");
      else if (error) post("end", plain(error));
      else post("final");
    }
  }

  /** @param {Block} block */
  function keep(block) {
    const { id, data, type } = block;
    if (id === null) return;
    if (type === "sse-gap") ring.length = size = 0;
    if (type === "sse-gap" || !floor) floor = id;
    else if (type !== "sse-hello") {
      size += data?.length ?? 0;
      ring.push({ block, id, number: ++count });
    }
    while (ring.length > 1024 || size > 4 << 20) {
      const [oldest] = ring.splice(0, 1);
      floor = oldest.id;
      size -= oldest.block.data?.length ?? 0;
    }
  }

  /** @param {Member} member @param {Block} block */
  function hand(member, block) {
    if (block.id !== null) member.cursor = block.id;
    member.post("block", block);
  }

  /** Whether `member` is where the source has been, so that the rest can be told. @param {Member} member */
  function catchUp(member) {
    const { cursor, isIn } = member;
    if (!isIn || !cursor || isUnready(cursor)) return false;
    const at = ring.map(({ id }) => id).lastIndexOf(cursor);
    if (at < 0 && cursor !== floor) return false;
    join(member, ring.slice(at + 1));
    return true;
  }

  /** @param {Member} member @param {{block: Block, number: number}[]} rest */
  function join(member, rest) {
    const { lane } = member;
    // Later, for it may be its own block that is being told.
    if (lane) setTimeout(() => lane.close(), 0);
    if (lane?.info.state !== "open") {
      // It has no hello to open at.
      const data = JSON.stringify({ heartbeat: heartbeatMs / 1000, resumed: "continued" });
      member.post("block", { type: "sse-hello", data, id: null });
    }
    member.lane = null;
    lanes.delete(member);
    live.add(member);
    for (const { block, number } of rest) {
      hand(member, { ...block, replayed: block.replayed || number <= member.past });
    }
  }

  const stream = follow(main, lastEventId, (block) => {
    if (block.type === "sse-busy") return;
    // Without a hello it is none of ours, and nobody knows whom it is for.
    isForeign = !isGreeted && !block.type.startsWith("sse-");
    if (isForeign) return stream.close();
    // A place that moves without an event is nothing by which the two differ.
    if (block.type !== "sse-cursor") heardAt = Date.now();
    isGreeted = true;
    keep(block);
    for (const member of live) hand(member, block);
    for (const member of lanes) catchUp(member);
  });
  stream.onComment((/** @type {string} */ text) => {
    for (const { post } of live) post("comment", text);
  });
  stream.onState((/** @type {StateInfo} */ info) => {
    if (info.state !== "open") tell(info, live);
    if (info.state !== "closed") return;
    // They come again, and the first of them begins a new source.
    for (const member of lanes) {
      endLane(member);
      member.post("end", null);
    }
    onEnd();
  });

  /** Without a word to `member`, who has not come to an end. @param {Member} member */
  function endLane(member) {
    const { lane } = member;
    member.lane = null;
    lanes.delete(member);
    lane?.close();
  }

  /** @param {Member} member */
  function openLane(member) {
    lanes.add(member);
    const lane = follow(side, member.cursor, (block) => {
      const { type } = block;
      if (member.lane !== lane || type === "sse-busy") return;
      if (!member.greetedAt && !type.startsWith("sse-")) {
        member.post("alone");
        return remove(member);
      }
      if (type !== "sse-cursor") member.heardAt = Date.now();
      if (type === "sse-hello") {
        member.isIn = true;
        member.greetedAt = member.heardAt;
      }
      hand(member, block);
      if (stream.info.state === "open") catchUp(member);
    });
    member.lane = lane;
    lane.onComment((/** @type {string} */ text) => member.post("comment", text));
    lane.onState((/** @type {StateInfo} */ info) => {
      if (info.state === "open" || member.lane !== lane) return;
      tell(info, [member]);
      if (info.state === "closed") lanes.delete(member);
    });
    setTimeout(settle, 500, member);
  }

  /**
   * Joins who cannot be told apart from the others any more: nothing has come for a
   * while on either way, so that the next event comes on both.
   * @param {Member} member
   */
  function settle(member) {
    if (!lanes.has(member)) return;
    const { cursor, lane, greetedAt } = member;
    const isOpen = lane.info.state === "open" && stream.info.state === "open";
    const quiet = Date.now() - Math.max(member.heardAt, heardAt);
    // What only the source has had is from before the lane, unless it is on its way.
    const least = heardAt < greetedAt ? 2000 : 5000;
    if (isOpen && greetedAt && !isUnready(cursor) && quiet > least) join(member, []);
    else setTimeout(settle, 500, member);
  }

  /** @param {Member} member */
  function remove(member) {
    endLane(member);
    live.delete(member);
    // At once: with the last page that goes to the back-forward cache the worker is frozen.
    if (!live.size && !lanes.size) stream.close();
  }

  return {
    /** @param {Member} member */
    add(member) {
      member.past = count;
      // Who comes does not wait, but for what the server has asked for.
      if (stream.info.state === "waiting") wake();
      if (!isGreeted && member.cursor === lastEventId) live.add(member);
      else if (!catchUp(member)) return openLane(member);
      if (stream.info.state !== "open") tell(stream.info, [member]);
    },
    remove,
  };
}

/** The worker. @param {string} build */
function serveTabs(build) {
  /** @type {Map<string, ReturnType<typeof createSource>>} */
  const sources = new Map();
  /** @type {Map<MessagePort, {heardAt: number, members: Map<number, [Member, any]>}>} */
  const tabs = new Map();
  const wake = () => page.forEach((stream) => stream.wake(0));
  /** @type {{main: () => Transport, side: () => Transport}} */
  let connections;
  let lookedAt = Date.now();

  /** @param {MessagePort} port @param {any} message */
  function hear(port, { type, root, endpoint, key, streams }) {
    const tab = tabs.get(port);
    if (tab) tab.heardAt = Date.now();
    if (type === "hello") {
      const make = () => createMux(root, endpoint, wake, true);
      connections ??= { main: make(), side: make() };
      tabs.set(port, { heardAt: Date.now(), members: new Map() });
      port.postMessage({ type, build });
    } else if (type === "ping") {
      port.postMessage({ type: tab ? "pong" : "gone" });
    } else if (type === "join" && tab) {
      for (const stream of streams) join(port, tab.members, stream);
    } else if (type === "leave" && tab) {
      const [member, source] = tab.members.get(key) ?? [];
      source?.remove(member);
      tab.members.delete(key);
    } else if (type === "bye") {
      forget(port);
    }
  }

  /** @param {MessagePort} port */
  function forget(port) {
    for (const [member, source] of tabs.get(port)?.members.values() ?? []) source.remove(member);
    tabs.delete(port);
  }

  /**
   * @param {MessagePort} port
   * @param {Map<number, [Member, any]>} members
   * @param {{key: number, url: string, heartbeatMs: number, cursor: string,
   *   isIn: boolean}} stream
   */
  function join(port, members, { key, url, heartbeatMs, cursor, isIn }) {
    let source = sources.get(url);
    if (!source) {
      const onEnd = () => sources.delete(url);
      source = createSource(url, heartbeatMs, cursor, connections, wake, onEnd);
      sources.set(url, source);
    }
    /** @type {Member} */
    const member = {
      cursor,
      isIn,
      post: (what, value) => port.postMessage({ key, what, value }),
      lane: null,
      greetedAt: 0,
      heardAt: 0,
      past: 0,
    };
    members.set(key, [member, source]);
    source.add(member);
  }

  // A tab that has crashed says nothing any more, and hidden ones say little.
  setInterval(() => {
    const now = Date.now();
    const isLate = now > lookedAt + 60000;
    lookedAt = now;
    for (const [port, tab] of tabs) {
      if (isLate) tab.heardAt = now;
      if (now >= tab.heardAt + 200000) forget(port);
    }
  }, 30000);

  globalThis.addEventListener("connect", (/** @type {any} */ { ports: [port] }) => {
    port.onmessage = (/** @type {MessageEvent} */ { data }) => hear(port, data);
  });
}

// ---- in a page

/** @type {{createScriptURL: (url: string) => any} | undefined} */
let policy;

/**
 * What a page has to do with its worker. It finds out by itself that there is none, or
 * none any more, and its streams go on by another way.
 * @param {{root: string, endpoint: string, build: string}} site
 * @param {string} script
 * @param {string} name
 * @param {() => Transport} mux
 */
function createLink({ root, endpoint, build }, script, name, mux) {
  /** @type {Map<number, {url: string, heartbeatMs: number, cursor: string, sink: Sink,
   *   isJoined: boolean, isIn: boolean, part: () => void}>} */
  const members = new Map();
  /** @type {MessagePort | null} */
  let port = null;
  let isUp = false;
  let isDown = false;
  let count = 0;
  let heardAt = 0;
  let askedAt = 0;
  let lookedAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let patience;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let looking;

  /** A policy may forbid a worker, which is no news to the page. @param {any} event */
  function hush(event) {
    if (script.startsWith(event.blockedURI)) event.stopImmediatePropagation();
  }

  function start() {
    isUp = false;
    hangUp();
    addEventListener("securitypolicyviolation", hush, true);
    setTimeout(() => removeEventListener("securitypolicyviolation", hush, true), 3000);
    try {
      const { trustedTypes } = /** @type {any} */ (globalThis);
      policy ??= trustedTypes?.createPolicy("aiohttp-sse-routes", {
        createScriptURL: (/** @type {string} */ url) => url,
      });
      const url = policy ? policy.createScriptURL(script) : script;
      const worker = new SharedWorker(url, { name, type: "module" });
      const mine = (port = worker.port);
      worker.onerror = () => port === mine && !isUp && fall();
      mine.onmessage = ({ data }) => port === mine && hear(data);
      mine.postMessage({ type: "hello", root, endpoint });
      wait(2000);
    } catch {
      fall();
    }
  }

  // Perhaps it was only late: it would keep our streams open for nobody.
  function hangUp() {
    clearTimeout(patience);
    port?.postMessage({ type: "bye" });
    port?.close();
    port = null;
  }

  /** A page that is busy when it should look has its answer, perhaps. @param {number} ms */
  function wait(ms) {
    const due = Date.now() + ms;
    patience = setTimeout(() => (Date.now() > due + 500 ? wait(1000) : fall()), ms);
  }

  // Without a worker: there is none for as long as this page lives.
  function fall() {
    clearInterval(looking);
    hangUp();
    isDown = true;
    const left = [...members.values()];
    members.clear();
    for (const { sink } of left) sink("move");
  }

  // Those that open together are asked for together.
  function join() {
    const streams = [];
    for (const [key, member] of members) {
      const { url, heartbeatMs, cursor, isJoined, isIn } = member;
      if (isUp && !isJoined) streams.push({ key, url, heartbeatMs, cursor, isIn });
      member.isJoined = isUp;
    }
    if (streams.length) port?.postMessage({ type: "join", streams });
  }

  /** @param {any} message */
  function hear({ type, build: theirs, key, what, value }) {
    heardAt = Date.now();
    if (type === "hello") {
      clearTimeout(patience);
      if (theirs !== build) return fall();
      isUp = true;
      for (const member of members.values()) member.isJoined = false;
      join();
    } else if (type === "gone") {
      start();
    } else if (type === "pong") {
      for (const { sink } of members.values()) sink("bytes");
    } else {
      const member = members.get(key);
      if (!member) return;
      if (what === "alone") return member.part();
      if (what === "block") {
        member.isIn = true;
        member.cursor = value.id ?? member.cursor;
      }
      member.sink(what, value);
    }
  }

  // A worker may be killed without a word. Who looks late has slept, and asks first.
  function look() {
    const now = Date.now();
    const isLate = now > lookedAt + 4000;
    lookedAt = now;
    if (!isUp) return;
    if (!isLate && askedAt > heardAt && now > askedAt + 1900) return start();
    if (isLate || askedAt <= heardAt) askedAt = now;
    port?.postMessage({ type: "ping" });
  }

  start();
  /** @param {number} heartbeatMs @returns {Transport} */
  return (heartbeatMs) => {
    /** @type {Transport | null} */
    let other = null;
    let key = 0;
    // A place may be from anywhere, such as the page's own text: the server is to be asked.
    let isIn = false;
    return {
      get via() {
        return other ? other.via : "worker";
      },
      open(attempt, sink) {
        if (isDown) other ??= mux();
        if (other) return other.open(attempt, sink);
        key = ++count;
        if (!members.size) {
          lookedAt = Date.now();
          looking = setInterval(look, 2000);
        }
        const { url, lastEventId: cursor } = attempt;
        // For as long as it lives: what is not for all tabs asks for itself.
        const part = () => {
          other = createFetchTransport();
          sink("move");
        };
        members.set(key, { url, heartbeatMs, cursor, sink, isJoined: false, isIn, part });
        setTimeout(join, 0);
      },
      close() {
        other?.close();
        const member = members.get(key);
        if (!member) return;
        members.delete(key);
        isIn = member.isIn;
        if (member.isJoined) port?.postMessage({ type: "leave", key });
        // Nobody speaks with a page that lies in the back-forward cache: it would be evicted.
        if (!members.size) clearInterval(looking);
      },
    };
  };
}

// Options with which a stream may share a connection; and those that only a machine in
// its own tab can follow.
const COMMON = /^(lastEventId|signal|query|buffer|parse|session|share|persist|pause|credentials|tap)$/;
const PACE = /^(backoff|shouldRetry|stallTimeoutMs|connectTimeoutMs)$/;

/**
 * What the client calls with its second stream, or its first that tabs share.
 * @param {string} build
 * @param {string} root Where the application is.
 * @param {string} folder Where its endpoints of ours are.
 * @param {string} file This file, there.
 * @param {typeof SseError} PageError The class of errors that the page knows.
 * @param {() => void} wake
 */
function attachTo(build, root, folder, file, PageError, wake) {
  const endpoint = folder + "/streams";
  const script = `${folder}/${file}`;
  const mux = createMux(root, endpoint, wake);
  /** @type {Record<string, (heartbeatMs: number) => Transport>} */
  const links = Object.create(null);

  /** @param {any} error */
  function revive(error) {
    if (!error || error instanceof PageError) return error;
    return Object.assign(new PageError(error.kind, error.message), error);
  }

  /** @param {Transport} inner @returns {Transport} */
  const known = (inner) => ({
    get via() {
      return inner.via;
    },
    open(attempt, sink) {
      inner.open(attempt, (what, value, luck) => {
        if (what === "end") value = revive(value);
        if (what === "state") value = { ...value, error: revive(value.error) };
        sink(what, value, luck);
      });
    },
    close: () => inner.close(),
  });

  /** @param {string} url @param {number} share @param {number} heartbeatMs @param {Options} options */
  return (url, share, heartbeatMs, options) => {
    const { session = "", credentials } = options;
    const isOurs = [root, location.origin].every((one) => url.startsWith(one + "/"));
    // Over HTTP/2 and 3 streams share a connection by themselves.
    /** @type {any} */
    const [entry] = performance.getEntriesByName(script);
    if (/^h[23]/.test(entry?.nextHopProtocol)) return null;
    if (!isOurs || credentials === "omit") return null;
    for (const [name, value] of Object.entries(options)) {
      if (PACE.test(name)) share = 1;
      else if (!COMMON.test(name) && value !== undefined) return null;
    }
    if (share < 2) return known(mux());
    const name = `aiohttp-sse-routes ${build} ${session}`;
    links[session] ??= createLink({ root, endpoint, build }, script, name, mux);
    return known(links[session](heartbeatMs));
  };
}

// better-sse on Node, told what to do in lines of JSON; see benchmarks/worker.py.
//
// As its documentation writes it: a session for each request, registered with a channel
// that broadcasts, `session.batch` for events that belong together, and
// `session.iterate` for a generator.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { createChannel, createEventBuffer, createSession } from "better-sse";

const channel = createChannel();
const now = () => Number(process.hrtime.bigint()) / 1e9;
const sleep = (seconds) =>
  new Promise((resolve) => setTimeout(resolve, seconds * 1000));

// Each promise gives an event and the promise of the next one, so that none is missed.
let tell;
let next;
const renew = () => {
  next = new Promise((resolve) => {
    tell = resolve;
  });
};
renew();

async function* run() {
  for (let waiting = next; ; ) {
    const [data, after] = await waiting;
    waiting = after;
    yield data;
  }
}

const server = createServer(async (request, response) => {
  if (request.url === "/ping") {
    response.end("ok");
    return;
  }
  const session = await createSession(request, response);
  if (request.url === "/private") await session.iterate(run());
  else channel.register(session);
});

const event = (number, size) => ({
  n: number,
  text: `# hello to everybody${".".repeat(size)}`,
  at: 1767225600.25,
});

const ways = {
  publish(events) {
    for (const data of events)
      channel.broadcast(data, "message", { eventId: String(data.n) });
  },
  together(events) {
    const buffer = createEventBuffer();
    for (const data of events) buffer.push(data, "message", String(data.n));
    for (const session of channel.activeSessions) session.batch(buffer);
  },
  tick([data]) {
    const told = tell;
    renew();
    told([data, next]);
  },
};

const methods = {
  port: () => server.address().port,
  tidy: () => {
    global.gc();
    return null;
  },
  async pace({ count, batch, interval, way, size }) {
    const times = [];
    let due = now();
    for (let number = 0; number < count; number += 1) {
      const events = Array.from({ length: batch }, (_, n) =>
        event(number * batch + n, size),
      );
      times.push(now());
      ways[way](events);
      due += interval;
      await sleep(Math.max(0, due - now()));
    }
    return times;
  },
};

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, async () => {
  answer({ result: [process.pid] });
  for await (const line of createInterface({ input: process.stdin })) {
    const [method, options] = JSON.parse(line);
    try {
      answer({ result: await methods[method](options) });
    } catch (error) {
      answer({ error: String(error?.stack ?? error) });
    }
  }
  process.exit();
});

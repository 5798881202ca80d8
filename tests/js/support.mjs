// What the tests of the client share: the rendered files, a `fetch` that a test plays by
// hand, and a server that answers from a script, byte for byte.

import { readFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.env.SSE_CLIENT_DIR;
if (!folder) {
  throw new Error("these run by `pytest tests/test_client_files.py`, which renders the client");
}

/** @param {string} name The path of a rendered file. */
export const rendered = (name) => join(folder, name);

/** @param {string} name */
export const load = (name) => import(pathToFileURL(rendered(name)).href);

/** @param {string} name */
export function vectors(name) {
  const url = new URL(`../vectors/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8"));
}

/** Lets every promise that can settle do so; timers stand still. */
export async function settle() {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A `fetch` whose answers the test gives: `wire.last.open()`, `.send(text)`, `.end()`. */
export function createWire() {
  const requests = [];
  const fetch = (url, init) =>
    new Promise((resolve, reject) => {
      let controller;
      const body = new ReadableStream({ start: (it) => (controller = it) });
      const request = {
        url,
        ...init,
        open(headers = {}, status = 200) {
          const all = { "Content-Type": "text/event-stream", ...headers };
          resolve(new Response(status === 204 ? null : body, { status, headers: all }));
          return settle();
        },
        send(text) {
          controller.enqueue(new TextEncoder().encode(text));
          return settle();
        },
        end() {
          controller.close();
          return settle();
        },
        fail(error = new TypeError("fetch failed")) {
          reject(error);
          controller.error(error);
          return settle();
        },
      };
      init.signal?.addEventListener("abort", () => {
        reject(init.signal.reason);
        controller.error(init.signal.reason);
      });
      requests.push(request);
      if (init.method === "POST" && url.endsWith("/close")) request.open({}, 204);
    });
  return {
    fetch,
    requests,
    get last() {
      return requests.at(-1);
    },
  };
}

/** Answers connection number n by exchange number n, and what comes after by the last. */
export async function serve(exchanges) {
  const requests = [];
  const sockets = new Set();
  let go = () => {};
  const gate = new Promise((resolve) => (go = resolve));

  async function answer(socket, { status, headers, body = [], end }) {
    if (end === "rst" && status === undefined) return socket.resetAndDestroy();
    if (status === undefined) return socket.end();
    const chunked = end.startsWith("chunked");
    const head = [`HTTP/1.1 ${status} X`, "Connection: close"];
    for (const [name, value] of Object.entries(headers)) head.push(`${name}: ${value}`);
    if (chunked) head.push("Transfer-Encoding: chunked");
    socket.write(head.join("\r\n") + "\r\n\r\n");
    for (const text of body) {
      if (text.startsWith("<")) {
        await gate;
        continue;
      }
      const bytes = Buffer.from(text);
      if (chunked) socket.write(bytes.length.toString(16) + "\r\n");
      socket.write(bytes);
      if (chunked) socket.write("\r\n");
    }
    if (end === "chunked-final") socket.write("0\r\n\r\n");
    if (end === "hold") return;
    // What was written has to be there before the reset is.
    if (end === "rst") return setTimeout(() => socket.resetAndDestroy(), 50);
    socket.end();
  }

  const server = net.createServer((socket) => {
    sockets.add(socket);
    let text = "";
    socket.on("error", () => {});
    socket.on("data", (data) => {
      text += data.toString("latin1");
      if (!text.includes("\r\n\r\n")) return;
      const [first, ...lines] = text.split("\r\n\r\n")[0].split("\r\n");
      text = "";
      const [method, path] = first.split(" ");
      const headers = Object.fromEntries(
        lines.map((line) => [
          line.slice(0, line.indexOf(":")).toLowerCase(),
          line.slice(line.indexOf(":") + 1).trim(),
        ]),
      );
      requests.push({ method, path, headers });
      answer(socket, exchanges[Math.min(requests.length, exchanges.length) - 1]);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    requests,
    go,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A page, as the client sees one: to be put in place before the client is loaded. */
export function installPage() {
  const window = new EventTarget();
  const document = { hidden: false };
  const navigator = { onLine: true };
  const reported = [];
  for (const [name, value] of Object.entries({
    document,
    navigator,
    addEventListener: window.addEventListener.bind(window),
    reportError: (error) => reported.push(error),
  })) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  const fire = (target, type, fields) =>
    target.dispatchEvent(Object.assign(new Event(type), fields));
  return {
    document,
    navigator,
    reported,
    onWindow: (type, fields) => fire(window, type, fields),
    // It is heard on its way to the document.
    onDocument: (type, fields) => fire(window, type, fields),
  };
}

// Stands before a server as a terminator of TLS does that speaks HTTP/2 with browsers:
// `node terminator.js PORT CERTIFICATE KEY`. Its own port comes as the first line on
// stdout, and then a line for each stream that begins: the number of its connection.
//
// Law: headers and bytes go through as they are; when stdin ends, so does this.

import { readFileSync } from "node:fs";
import { request } from "node:http";
import { createSecureServer } from "node:http2";

const [target, cert, key] = process.argv.slice(2);

// What HTTP/2 has no place for (RFC 9113, 8.2.2).
const HOP_BY_HOP = ["connection", "keep-alive", "transfer-encoding"];

const connections = new Map();

function say(value) {
  process.stdout.write(`${value}\n`);
}

function answer(asked, response) {
  const { method, url: path, headers, authority } = asked;
  const sent = Object.entries({ ...headers, host: authority ?? headers.host });
  const there = request({
    port: target,
    host: "127.0.0.1",
    method,
    path,
    headers: Object.fromEntries(sent.filter(([name]) => !name.startsWith(":"))),
  });
  there.on("response", (from) => {
    const passed = Object.entries(from.headers).filter(([name]) => !HOP_BY_HOP.includes(name));
    response.writeHead(from.statusCode, Object.fromEntries(passed));
    const session = asked.stream?.session;
    if (!connections.has(session)) connections.set(session, connections.size);
    if (/event-stream/.test(from.headers["content-type"])) say(connections.get(session));
    from.on("error", () => response.destroy());
    from.pipe(response);
  });
  there.on("error", () => response.destroy());
  response.on("close", () => there.destroy());
  asked.pipe(there);
}

const options = { cert: readFileSync(cert), key: readFileSync(key), allowHTTP1: true };
const server = createSecureServer(options, answer);
server.on("sessionError", () => {});
server.listen(0, "127.0.0.1", () => say(server.address().port));
process.stdin.resume().on("end", () => process.exit());

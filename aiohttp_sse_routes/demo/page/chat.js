// The chat room: what is said, and what is on its way to the server.

import { Wire, find, keepDrawing, listenToButtons, seen } from "./demo.js";

const MOST = 500; // messages that are shown
const KEPT = "aiohttp-sse-routes-demo-name";

await seen();

const room = find("#room");
const talk = find("#talk");
const list = find("#said-here");
const name = find("#name");
const text = find("#text");
const refused = find("#refused");

// -- what is said ------------------------------------------------------------------

const today = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const earlier = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function when(seconds) {
  const date = new Date(seconds * 1000);
  const isToday = date.toDateString() === new Date().toDateString();
  return (isToday ? today : earlier).format(date);
}

/** A message as a list's item; whatever is in it is text. */
function itemOf(message, note) {
  const item = document.createElement("li");
  const visitor = message.sender.split(".")[0];
  if (visitor === room.dataset.visitor) item.classList.add("mine");
  item.classList.add(`hue-${Number.parseInt(visitor.slice(0, 4), 16) % 6}`);
  for (const [kind, content] of [["name", message.name], ["when", note], ["text", message.text]]) {
    // Isolated, for a text may go from right to left.
    const part = document.createElement("bdi");
    part.className = kind;
    part.textContent = content;
    item.append(part);
  }
  return item;
}

/** Does what changes the list; who has read to its end stays there. */
function keepingEnd(change) {
  const atEnd = talk.scrollTop + talk.clientHeight > talk.scrollHeight - 40;
  change();
  find("#empty").hidden = list.childElementCount + outbox.length > 0;
  if (atEnd) talk.scrollTop = talk.scrollHeight;
}

function show(item) {
  keepingEnd(() => {
    list.append(item);
    while (list.childElementCount > MOST) list.firstElementChild.remove();
  });
}

const LOST = {
  expired: "some older messages are not kept any more",
  slow: "this page was too slow: some messages were passed over",
};

function attach(stream) {
  stream.on("message", (message) => {
    arrived(message);
    show(itemOf(message, when(message.at)));
  });
  stream.onGap(({ reason }) => {
    // After the others comes what a new page would get.
    if (!(reason in LOST)) list.replaceChildren();
    for (const saying of outbox) if (saying.isThere) saying.item.remove();
    const item = document.createElement("li");
    item.className = "notice";
    item.textContent = LOST[reason] ?? "the room has begun anew";
    show(item);
  });
}

// -- what is on its way ------------------------------------------------------------

// The messages of a tab are numbered from 1, and sent in turn, each until it is there:
// one that comes a second time, because its answer was lost, is said once.
const tab = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => (byte % 36).toString(36)).join("");
const outbox = [];
let number = 0;
let sending = false;
let wake = () => {};

function arrived({ sender, n }) {
  const index = outbox.findIndex((saying) => saying.n === n);
  if (index < 0 || !sender.endsWith(`.${tab}`)) return;
  outbox[index].item.remove();
  if (outbox[index].isThere) outbox.splice(index, 1);
}

/** Tries once; returns how many ms to wait for the next try, 0 if it is done with. */
async function post(saying, tries) {
  const pause = Math.min(250 * 2 ** tries, 4000) * (0.5 + Math.random());
  try {
    const response = await fetch(sse.room.url(), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ n: saying.n, tab, name: saying.name, text: saying.text }),
      signal: AbortSignal.timeout(5000),
    });
    if (response.ok) return 0;
    if (response.status === 429) return 1000 * response.headers.get("Retry-After") || pause;
    if (response.status >= 500) return pause;
    refused.textContent = `Not said: ${(await response.text()).trim()}.`;
    saying.n = 0;
    return 0;
  } catch {
    return pause;
  }
}

async function deliver() {
  if (sending) return;
  sending = true;
  for (let saying; (saying = outbox.find(({ isThere }) => !isThere)); ) {
    saying.n = number + 1;
    for (let tries = 0, wait; (wait = await post(saying, tries)); tries++) {
      saying.item.classList.add("late");
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, wait);
      });
    }
    if (saying.n) number = saying.n;
    saying.isThere = true;
    // What the stream has brought already, or never will.
    if (!saying.n || !saying.item.isConnected) {
      outbox.splice(outbox.indexOf(saying), 1);
      keepingEnd(() => saying.item.remove());
    }
  }
  sending = false;
}

function say(content) {
  const saying = { n: 0, name: name.value.trim() || "somebody", text: content, isThere: false };
  const sender = `${room.dataset.visitor}.${tab}`;
  saying.item = itemOf({ ...saying, sender }, "on its way");
  outbox.push(saying);
  keepingEnd(() => find("#outbox").append(saying.item));
  talk.scrollTop = talk.scrollHeight;
  deliver();
}

// -- all of it ---------------------------------------------------------------------

function remember() {
  try {
    localStorage.setItem(KEPT, name.value.trim());
  } catch {
    // A browser that keeps nothing.
  }
}

try {
  name.value = localStorage.getItem(KEPT) ?? "";
} catch {
  // As above.
}
name.value ||= `guest ${room.dataset.visitor.slice(0, 4)}`;
name.addEventListener("change", remember);
find("#composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = text.value.trim();
  if (!content) return;
  refused.textContent = "";
  text.value = "";
  say(content);
});

const wire = new Wire("room");
wire.follow((options) => sse.room({}, options), (stream) => {
  attach(stream);
  // The server is there again: no need to wait.
  stream.onState(({ state }) => state === "open" && wake());
});
keepDrawing(listenToButtons([wire]), () => wire.show(), () => wire.strip.draw());

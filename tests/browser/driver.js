// Drives one browser for tests/browser/driver.py: commands come as lines of JSON on
// stdin, answers go as lines of JSON to stdout, each with its command's id.
//
// Law: commands run side by side; what takes time is waited for here, by an expression
// that becomes true in the page. Pages that share no context share nothing, not even
// connections. When stdin ends, whoever ended it, the browser ends, and so does this.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import puppeteer from "puppeteer-core";

const [name, executablePath, userDataDir] = process.argv.slice(2);

// How often an expression is looked at, in ms.
const LOOK = 10;

const OPTIONS = {
  chromium: {
    args: [
      "--headless=new",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      // Any name of this kind is loopback, but not a secure origin.
      "--host-resolver-rules=MAP *.test 127.0.0.1",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  },
  firefox: {
    extraPrefsFirefox: {
      // Nothing of its own goes over the network.
      "app.normandy.enabled": false,
      // As above.
      "network.dns.localDomains": "page.test,other.test",
      "browser.safebrowsing.malware.enabled": false,
      "browser.safebrowsing.phishing.enabled": false,
      "datareporting.policy.dataSubmissionEnabled": false,
      "network.captive-portal-service.enabled": false,
      "network.connectivity-service.enabled": false,
      "toolkit.telemetry.enabled": false,
    },
  },
};

function answer(value) {
  process.stdout.write(JSON.stringify(value) + "\n");
}

const browser = await puppeteer.launch({
  browser: name === "chromium" ? "chrome" : name,
  executablePath,
  userDataDir,
  headless: true,
  // Those of the tests are nobody's that a browser knows.
  acceptInsecureCerts: true,
  ...OPTIONS[name],
});

const tabs = new Map();
let opened = 0;

/** Looks at `code` until it is true; a page that is being left has no answer. */
async function until(page, code, timeout) {
  const limit = performance.now() + timeout;
  let last;
  for (;;) {
    try {
      last = await page.evaluate(code);
      if (last) return last;
    } catch (error) {
      last = `${error}`;
    }
    if (performance.now() > limit) {
      throw new Error(`never true in ${timeout} ms: ${code}; at last: ${JSON.stringify(last)}`);
    }
    await sleep(LOOK);
  }
}

const commands = {
  /** Opens a tab, in the context of the tab `beside` or in one of its own. */
  async open({ beside, width = 1280, height = 800 }) {
    const context = tabs.get(beside)?.context ?? (await browser.createBrowserContext());
    const page = await context.newPage();
    await page.setViewport({ width, height });
    const messages = [];
    page.on("console", (message) => {
      const { url = "" } = message.location();
      messages.push({ kind: message.type(), text: message.text(), url });
    });
    page.on("pageerror", (error) => messages.push({ kind: "uncaught", text: `${error}`, url: "" }));
    tabs.set(++opened, { context, page, messages });
    return opened;
  },
  /** Makes it the one that is seen. */
  async show({ tab }) {
    await tab.page.bringToFront();
  },
  async go({ tab, url, timeout }) {
    const response = await tab.page.goto(url, { timeout, waitUntil: "load" });
    return response?.status() ?? null;
  },
  async reload({ tab, timeout }) {
    await tab.page.reload({ timeout, waitUntil: "load" });
  },
  async evaluate({ tab, code }) {
    return (await tab.page.evaluate(code)) ?? null;
  },
  async until({ tab, code, timeout }) {
    return until(tab.page, code, timeout);
  },
  /** Freezes a page, or thaws it: Chromium only. */
  async freeze({ tab, frozen }) {
    tab.session ??= await tab.page.createCDPSession();
    await tab.session.send("Page.setWebLifecycleState", { state: frozen ? "frozen" : "active" });
  },
  /** Ends the shared workers of the tab's context, as a browser short of memory does:
   * Chromium only. Returns how many there were. */
  async killWorkers({ tab }) {
    const workers = tab.context.targets().filter((target) => target.type() === "shared_worker");
    const session = await browser.target().createCDPSession();
    for (const { _targetId: targetId } of workers) {
      await session.send("Target.closeTarget", { targetId });
    }
    await session.detach();
    return workers.length;
  },
  async offline({ tab, isOffline }) {
    await tab.page.setOfflineMode(isOffline);
  },
  async click({ tab, selector }) {
    await tab.page.click(selector);
  },
  async screenshot({ tab, path }) {
    await tab.page.screenshot({ path, fullPage: true });
  },
  async messages({ tab }) {
    return tab.messages;
  },
  async close({ tab, number }) {
    tabs.delete(number);
    await tab.page.close();
    const { context } = tab;
    if (![...tabs.values()].some((other) => other.context === context)) await context.close();
  },
};

async function run({ id, command, tab: number, ...options }) {
  try {
    const tab = tabs.get(number);
    answer({ id, value: (await commands[command]({ ...options, number, tab })) ?? null });
  } catch (error) {
    answer({ id, error: error?.stack ?? `${error}` });
  }
}

answer({ ready: await browser.version(), pid: browser.process().pid });
for await (const line of createInterface({ input: process.stdin })) run(JSON.parse(line));
await Promise.race([browser.close(), sleep(5000)]);
browser.process().kill("SIGKILL");
process.exit();

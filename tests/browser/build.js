// Makes the files that are served of the sources in templates/: `core.min.js` of the core,
// `hub.min.js` of the core and the hub, which stands behind it. They are written beside the
// sources, or into the folder that is named.
//
// Law: the same sources and the same terser give the same bytes; the tests compare them
// with what is there. No string and no name in the sources is `const`.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { minify } from "terser";

const templates = new URL("../../templates", import.meta.url).pathname;
const target = process.argv[2] ?? templates;

// Names of properties that nobody sees from without: neither a page, nor what is built of
// another file, nor what another version of it may get.
const OWN = /^(deliver|emit|isDue|isEmpty|iterate|listen|lost|make|silent|tellGap|wake)$/;

// What short names are made of, in the order in which gzip makes least of the core: found by
// trying. By its own order terser's would be some thirty bytes more.
const LETTERS = "ertdonsiapmuckbExCygDflhOUVYAwGKQNLMqTzBSRIHPWjFXZJv";

/** The short name number `n`; terser leaves out the words of the language. */
function nthName(n) {
  const name = LETTERS[n % LETTERS.length];
  return n < LETTERS.length ? name : nthName(Math.floor(n / LETTERS.length) - 1) + name;
}

/** Writes `name` of `sources`; `names` are what templates refer to. */
async function build(name, sources, names) {
  const source = sources.map((file) => readFileSync(join(templates, file), "utf8")).join("\n");
  const { code } = await minify(source, {
    ecma: 2022,
    toplevel: true,
    // By what they make of it when it is compressed.
    compress: {
      comparisons: false,
      evaluate: false,
      hoist_funs: true,
      pure_getters: true,
      unsafe_methods: true,
      top_retain: names,
    },
    mangle: {
      reserved: names,
      nth_identifier: { get: nthName },
      properties: { regex: OWN },
    },
    format: { ecma: 2022 },
  });
  // One word for both compresses better.
  writeFileSync(join(target, name), code.replace(/\bconst\b/g, "let") + "\n");
}

await build("core.min.js", ["core.js"], ["SseError", "createClient"]);
await build("hub.min.js", ["core.js", "hub.js"], ["attachTo", "serveTabs"]);

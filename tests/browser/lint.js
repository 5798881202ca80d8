// Checks the sources of the client with eslint and tsc; what they find is printed, and the
// exit status is 1. Nothing is found in a program that is right.

import { readFileSync } from "node:fs";
import { ESLint } from "eslint";
import ts from "typescript";

const templates = new URL("../../templates/", import.meta.url).pathname;
const [core, hub, inspector] = ["core.js", "hub.js", "inspector.js"].map((name) => templates + name);

/** What eslint finds in `files`, put behind one another; `used` are names for others. */
async function style(used, ...files) {
  const sourceType = files.includes(inspector) ? "module" : "script";
  const text = files.map((file) => readFileSync(file, "utf8")).join("\n");
  const eslint = new ESLint({
    cwd: new URL(".", import.meta.url).pathname,
    overrideConfig: { languageOptions: { sourceType }, rules: { "no-unused-vars": ["error", { varsIgnorePattern: used }] } },
  });
  const [{ messages }] = await eslint.lintText(text, { filePath: "client.js" });
  return messages.map(({ line, message, ruleId }) => `${files.at(-1)} ${line}: ${message} ${ruleId}`);
}

/** What tsc finds in `files` as one program. */
function types(...files) {
  const program = ts.createProgram(files, {
    allowJs: true,
    checkJs: true,
    noEmit: true,
    strict: true,
    exactOptionalPropertyTypes: false,
    target: ts.ScriptTarget.ESNext,
    module: ts.ModuleKind.ESNext,
    lib: ["lib.esnext.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts"],
    types: [],
  });
  return ts.getPreEmitDiagnostics(program).map((found) => {
    const { line } = found.file?.getLineAndCharacterOfPosition(found.start ?? 0) ?? {};
    return `${found.file?.fileName}:${line + 1}: ${ts.flattenDiagnosticMessageText(found.messageText, "\n")}`;
  });
}

const found = [
  ...(await style("^(createClient)$", core)),
  ...(await style("^(createClient|attachTo|serveTabs)$", core, hub)),
  ...(await style("^$", inspector)),
  ...types(core, hub),
  ...types(inspector),
];
for (const line of found) console.log(line);
process.exitCode = found.length ? 1 : 0;

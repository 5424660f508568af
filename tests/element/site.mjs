// The web server of the widget host: its page, bundled here, and Element Call as it is published,
// in a folder per mode whose only difference is config.json.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const MODULES = "node_modules/";
const WASM = "@matrix-org/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm_bg.wasm";
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css",
  ".json": "application/json", ".wasm": "application/wasm", ".mjs": "text/javascript" };

export const MODES = ["compatibility", "matrix_2_0"];

/** Pins the mode. 360p is what two cores can encode and decode for three people. */
const config = (mode) => JSON.stringify({
  matrix_rtc_mode: mode,
  media_quality: { video: { max_resolution: 360 } },
});

/** The host's page as one module. */
async function bundle() {
  const made = await build({ entryPoints: [here("host.js")], bundle: true, format: "esm",
    define: { global: "globalThis" }, write: false, logLevel: "error" });
  return made.outputFiles[0].contents;
}

/** Where a path of Element Call is on disk. */
function published(path) {
  return here(`${MODULES}@element-hq/element-call-embedded/dist/${path}`);
}

export async function openSite() {
  const script = await bundle();
  const found = async (path) => {
    if (path === "/") return readFile(here("host.html"));
    if (path === "/host.js") return script;
    if (path.startsWith("/pkg/")) return readFile(here(MODULES + WASM));
    const [, mode, file] = /^\/call\/(\w+)\/(.+)$/.exec(path) ?? [];
    if (!MODES.includes(mode) || normalize(file).startsWith("..")) return null;
    return file === "config.json" ? config(mode) : readFile(published(file));
  };
  const server = createServer(async (request, response) => {
    const path = new URL(request.url, "http://site").pathname;
    const body = await found(path).catch(() => null);
    if (body === null) return response.writeHead(404).end();
    const type = TYPES[extname(path)] ?? (path === "/" ? "text/html" : "application/octet-stream");
    response.writeHead(200, { "content-type": type }).end(body);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

// A real browser against a real server: its documentation, the examples of the guides, and those who
// follow its changes while it is killed and started again.
//
//     node main.mjs <the server's program> <a folder for what is written> <the browser's program>
//
// The folder has the driver in its node_modules; the environment is the server's.

import { once } from "node:events";
import { createServer } from "node:http";
import { createRequire } from "node:module";

import { documentation } from "./documentation.mjs";
import { feed } from "./feed.mjs";
import { guides } from "./guides.mjs";
import { LONGEST, Server } from "./server.mjs";

const [binary, site, program] = process.argv.slice(2);
const { chromium } = createRequire(`${site}/node_modules/`)("playwright-core");

// A page of another origin.
const other = createServer((_, answer) => {
    answer.setHeader("content-type", "text/html");
    answer.end("<!doctype html><link rel=icon href='data:,'><title>another origin</title>");
});
other.listen(0, "127.0.0.1");
await once(other, "listening");

const server = new Server(binary, site);
process.on("exit", () => server.child?.kill("SIGKILL"));
const late = () => {
    console.error("it did not come to an end");
    process.exit(1);
};
setTimeout(late, 10 * LONGEST).unref();
const browser = await chromium.launch({
    executablePath: program,
    // No name is known but the server's own address.
    args: ["--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"],
});
try {
    await server.start();
    const run = async (name, part) => {
        const began = Date.now();
        const seen = await part();
        console.log(`${name}: ${seen} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    };
    await run("documentation", () => documentation(browser, server));
    await run("guides", () => guides(browser, server));
    await run("feed", () => feed(browser, server, `http://127.0.0.1:${other.address().port}/`));
    await server.stop();
} finally {
    await browser.close();
    await server.kill();
    other.close();
}

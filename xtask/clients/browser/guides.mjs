// What the guides show for pages, run in one as it stands there: nothing is changed but the address and
// the ids, and what the examples leave to the reader (an element, a function) is put beside them.

import { readFileSync } from "node:fs";

import { check, until } from "./server.mjs";

const examples = readFileSync(new URL("../fixtures/guides.md", import.meta.url), "utf8");

// A page of the server's own with what it says, and the examples run in it.
class Page {
    static async open(browser, server, library) {
        const page = new Page();
        page.page = await browser.newPage();
        page.said = [];
        page.page.on("console", (message) => page.said.push(message.text()));
        page.page.on("pageerror", (error) => page.said.push(`error: ${error}`));
        await page.page.goto(`${server.url}/docs`);
        page.session = await page.page.context().newCDPSession(page.page);
        page.fill = (code) =>
            code
                .replaceAll("localhost:8000", new URL(server.url).host)
                .replaceAll("your-library-id", library)
                .replaceAll("library_id=...", `library_id=${library}`);
        return page;
    }

    // As a script of the page, whose `const` and `class` the next one sees.
    async script(code) {
        const { exceptionDetails } = await this.session.send("Runtime.evaluate", {
            expression: code,
            awaitPromise: true,
        });
        check(!exceptionDetails, `${code}\n${JSON.stringify(exceptionDetails?.exception)}`);
    }

    // An example, and what has to be there before it in the same moment.
    async example(name, before = "") {
        const [, code] = examples.match(new RegExp(`## ${name}\n\n\`\`\`javascript\n([^]*?)\`\`\``)) ?? [];
        check(code, `no example ${name}`);
        await this.script(before + this.fill(code));
    }

    says(what) {
        return until(`"${what}" in the console, which has\n${this.said.join("\n")}`, () =>
            this.said.some((line) => line.includes(what)));
    }

    holds(condition) {
        return until(condition, () => this.page.evaluate(condition));
    }
}

async function events(page, server, library) {
    await page.example("page-events");
    await page.holds("eventSource.readyState === 1 && libEventSource.readyState === 1");
    await page.script("let told; libEventSource.addEventListener('document.added', (e) => { told = e.data; });");
    const id = await server.add(library, "shown");
    await page.says(`New document added: ${id}`);
    await page.says(`Library: ${library}`);
    await page.says("Chunks: 1");
    await page.holds(`typeof told === 'string' && JSON.parse(told).document_id === '${id}'`);
    await server.library("announced");
    await page.says("New library: announced");
}

async function counter(page, server, library) {
    await page.script("document.body.innerHTML = '<p id=count></p>';");
    await page.example("page-counter");
    await page.holds("eventSource.readyState === 1");
    await server.add(library, "counted");
    await server.add(library, "counted too");
    await page.holds("document.getElementById('count').textContent === '2'");
}

async function socket(page) {
    await page.script("const handled = []; const handleResults = (data) => handled.push(data);");
    await page.example("page-socket");
    await page.says("WebSocket connected");
    await page.script("document.body.innerHTML = '<input id=search-box>';");
    await page.example("page-typing");
    await page.page.fill("#search-box", "cats sleep");
    await page.holds("handled.length === 1 && handled[0].results[0].text === 'cats sleep'");
    check(!page.said.some((line) => line.startsWith("Error:")), page.said.join("\n"));
    await page.script("ws.close();");
    await page.says("WebSocket disconnected");
}

async function session(page, library) {
    await page.example("page-session");
    await page.script(`const shown = [[], []];
        const both = shown.map((seen) => {
            const one = new CollaborativeSearch('${library}', 'planning');
            one.onResults((results) => seen.push(results));
            return one;
        });`);
    await page.holds("both.every(({ ws }) => ws.readyState === 1)");
    // Who searches takes part from then on, and sees what the others find.
    await page.script("both[0].search('cats sleep');");
    await page.holds("shown[0].length === 1");
    await page.script("both[1].search('dogs bark');");
    await page.holds("shown.map((it) => it.length).join() === '2,1'");
    await page.holds("shown[0][1][0].text === 'dogs bark' && shown[1][0][0].text === 'dogs bark'");
}

// Those that are about a server that goes away.
async function losing(first, second, server, library) {
    const url = `${server.url.replace("http", "ws")}/v1/libraries/${library}/ws`;
    await first.example("page-resilient");
    await first.script(`const resilient = new ResilientWebSocket('${url}');`);
    await first.says("Connected");
    await second.script(`const wsUrl = '${url}'; let ws = new WebSocket(wsUrl);`);
    await second.holds("ws.readyState === 1");
    await second.example("page-errors");
    await server.kill();
    await first.says("Reconnecting in 1000ms...");
    await second.says("WebSocket closed unexpectedly: 1006");
    // One that cannot even connect.
    await second.example("page-errors", "ws = new WebSocket(wsUrl);");
    await second.says("WebSocket error:");
    await server.start();
    await first.holds("resilient.ws.readyState === 1 && resilient.reconnectDelay === 1000");
    await second.holds("ws.readyState === 1");
}

export async function guides(browser, server) {
    const library = await server.library("guides");
    for (const text of ["cats sleep", "dogs bark"]) await server.add(library, text);
    const opened = [];
    const open = async () => {
        opened.push(await Page.open(browser, server, library));
        return opened.at(-1);
    };
    await events(await open(), server, library);
    await counter(await open(), server, library);
    await socket(await open());
    await session(await open(), library);
    for (const { page } of opened) await page.close();
    await losing(await open(), await open(), server, library);
    for (const { page } of opened.slice(-2)) await page.close();
    return "7 examples for pages run as they stand";
}

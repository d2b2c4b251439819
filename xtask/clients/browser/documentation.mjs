// The documentation as a page: it needs nobody but the server, has nothing to complain of, and its
// "Try it out" works.

import { check } from "./server.mjs";

// The header with it is what clients were promised, and this is all that browsers say of it.
const KNOWN = "Unrecognized feature: 'speaker'";

// What a page does that a user would see in its console, or a firewall in its log.
export function watch(page, server) {
    const faults = [];
    page.on("request", (request) => {
        const { protocol, host } = new URL(request.url());
        const inside = ["data:", "blob:"].includes(protocol) || host === new URL(server.url).host;
        if (!inside) faults.push(`a request to ${request.url()}`);
    });
    page.on("requestfailed", (request) => {
        faults.push(`${request.url()}: ${request.failure()?.errorText}`);
    });
    page.on("response", (answer) => {
        if (answer.status() >= 400) faults.push(`${answer.url()}: ${answer.status()}`);
    });
    page.on("console", (message) => {
        const [type, text] = [message.type(), message.text()];
        const bad = ["error", "warning"].includes(type) && !text.includes(KNOWN);
        if (bad) faults.push(`console, ${type}: ${text}`);
    });
    page.on("pageerror", (error) => faults.push(`error: ${error}`));
    return faults;
}

export async function documentation(browser, server) {
    const page = await browser.newPage();
    const faults = watch(page, server);
    await page.goto(`${server.url}/docs`);
    await page.waitForSelector(".opblock");
    const operations = await page.locator(".opblock").count();
    check(operations > 20, `${operations} operations are shown`);

    const operation = page.locator('.opblock[id$="-create_library"]');
    await operation.locator(".opblock-summary").click();
    const execute = operation.locator(".execute");
    // Some pages have it open from the beginning.
    if ((await execute.count()) === 0) await operation.locator(".try-out__btn").click();
    await execute.click();
    const status = operation.locator(".live-responses-table tbody .response-col_status").first();
    await status.waitFor();
    check((await status.innerText()).startsWith("201"), await status.innerText());
    const libraries = await server.ask("GET", "/v1/libraries");
    check(libraries.length === 1, `${libraries.length} libraries after one was created`);

    check(faults.length === 0, faults.join("\n"));
    await page.close();
    return `${operations} operations, one tried out, no request to others, nothing in the console`;
}

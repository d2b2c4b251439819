// Pages that follow a library while its server is killed: EventSource comes back by itself, a socket
// with `after`, and both see every change exactly once, in the log's order. One page is the server's
// own, one of another origin.

import { check, freePort, until } from "./server.mjs";

const ROUNDS = 3;
const TYPES = ["document.added", "document.updated", "document.deleted", "reset", "cut-off"];

// Runs in the page. `window.followed` has what came, by the way it came.
function follow([url, library, types]) {
    const events = { opened: 0, lost: 0, seen: [] };
    const source = new EventSource(`${url}/v1/events/stream?library_id=${library}`);
    source.onopen = () => events.opened++;
    source.onerror = () => events.lost++;
    for (const type of types) {
        source.addEventListener(type, ({ data, lastEventId }) => {
            const { type: told, ...rest } = JSON.parse(data);
            events.seen.push({ id: lastEventId, type, told, data: rest });
        });
    }
    const socket = { opened: 0, lost: 0, seen: [] };
    let after = null;
    const connect = () => {
        const place = after ? `&after=${after}` : "";
        const path = `/v1/libraries/${library}/ws?event_types=*${place}`;
        const following = new WebSocket(url.replace("http", "ws") + path);
        // Its answer says where this begins: who is cut off before the first event misses none either.
        following.onopen = () => following.send('{"request_id": "begin", "action": "subscribe", "data": {}}');
        following.onmessage = (message) => {
            const frame = JSON.parse(message.data);
            if (frame.type === "event") {
                after = frame.event_id;
                const { event_type, data } = frame;
                socket.seen.push({ id: after, type: event_type, told: event_type, data });
            } else if (frame.type === "reset") {
                socket.seen.push({ id: "", type: "reset", data: frame });
            } else {
                after ??= frame.data.after;
                socket.opened++;
            }
        };
        following.onclose = () => {
            socket.lost++;
            setTimeout(connect, 100);
        };
    };
    connect();
    window.followed = { events, socket };
}

const ways = (page) => page.evaluate(() => Object.values(window.followed));

// Waits until each page, in each way, fulfils a condition.
function all(what, pages, condition) {
    return until(what, async () => {
        const followed = (await Promise.all(pages.map(ways))).flat();
        return followed.every(condition);
    });
}

// What a page saw has to be what the log tells.
function compare(name, seen, events) {
    const lists = `${seen.map(({ id }) => id)}\nand the log has\n${events.map(({ id }) => id)}`;
    check(seen.length === events.length, `${name} saw ${lists}`);
    for (const [n, event] of events.entries()) {
        const { id, type, told, data } = seen[n];
        const right = id === event.id && type === event.type && told === event.type;
        check(right, `${name} saw ${lists}`);
        for (const [key, value] of Object.entries(event.data)) {
            const same = JSON.stringify(data[key]) === JSON.stringify(value);
            check(same, `${name}: ${key} of ${id} is ${JSON.stringify(data[key])}`);
        }
    }
}

// Adds until the server is gone; how many were acknowledged is counted.
async function write(server, library, count) {
    for (;;) {
        const added = await server.add(library, `under load ${count.acknowledged}`).catch(() => null);
        if (!added) return;
        count.acknowledged++;
    }
}

export async function feed(browser, server, otherOrigin) {
    const library = await server.library("followed");
    const start = (await server.ask("GET", "/v1/events?limit=1000")).next;
    const pages = [];
    for (const url of [`${server.url}/docs`, otherOrigin]) {
        const page = await browser.newPage();
        await page.goto(url);
        await page.evaluate(follow, [server.url, library, TYPES]);
        pages.push(page);
    }
    for (let round = 1; round <= ROUNDS; round++) {
        await all("connections", pages, ({ opened }) => opened === round);
        // Nobody has seen anything yet in the first round: even so, nothing is missed.
        if (round > 1) {
            const count = { acknowledged: 0 };
            const writing = write(server, library, count);
            await until("acknowledged writes", () => count.acknowledged >= 20);
            await server.kill();
            await writing;
        } else {
            await server.kill();
        }
        await all("an end of the connections", pages, ({ lost }) => lost >= round);
        // Where the pages cannot see it: what happens now can come only from the past.
        await server.start(await freePort());
        const gone = await server.add(library, `away ${round}`);
        await server.add(library, `away too ${round}`);
        await server.ask("DELETE", `/v1/libraries/${library}/documents/${gone}`);
        await server.kill();
        await server.start();
        await all("new connections", pages, ({ opened }) => opened === round + 1);
        await server.add(library, `back ${round}`);
    }
    const events = await server.events(library, start);
    const last = events.at(-1).id;
    await all("the last event", pages, ({ seen }) => seen.at(-1)?.id === last);
    for (const [n, page] of pages.entries()) {
        const [source, socket] = await ways(page);
        const origin = n === 0 ? "own origin" : "another origin";
        compare(`EventSource, ${origin}`, source.seen, events);
        compare(`WebSocket, ${origin}`, socket.seen, events);
    }
    return `${events.length} events, each once, in order, over ${2 * ROUNDS} kills, by EventSource and WebSocket from two origins`;
}

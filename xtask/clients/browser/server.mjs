// The server, as this script starts and kills it, and what is asked of it over HTTP.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync } from "node:fs";
import { createServer } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

// Milliseconds that anything may take.
export const LONGEST = 60_000;

export function check(right, what) {
    if (!right) throw new Error(what);
}

// What `condition` answers, once it answers something; the error says what did not come.
export async function until(what, condition) {
    const end = Date.now() + LONGEST;
    for (;;) {
        const answer = await condition();
        if (answer) return answer;
        if (Date.now() > end) throw new Error(`in ${LONGEST} ms there was not: ${what}`);
        await pause(20);
    }
}

export async function freePort() {
    const socket = createServer().listen(0, "127.0.0.1");
    await once(socket, "listening");
    const { port } = socket.address();
    socket.close();
    await once(socket, "close");
    return port;
}

export class Server {
    constructor(binary, site) {
        this.binary = binary;
        this.site = site;
        this.log = `${site}/server.log`;
    }

    // Starts it; at `port` where it is said, else at one of its own that stays the same.
    async start(port) {
        this.port ??= await freePort();
        this.url = `http://127.0.0.1:${port ?? this.port}`;
        const environment = { ...process.env, PORT: String(port ?? this.port) };
        this.child = spawn(this.binary, [], { cwd: this.site, env: environment });
        const write = (text) => appendFileSync(this.log, text);
        this.child.stdout.on("data", write);
        this.child.stderr.on("data", write);
        this.ended = once(this.child, "exit");
        await until("a server that is ready", async () => {
            check(this.child.exitCode === null, `the server ended: see ${this.log}`);
            return (await fetch(`${this.url}/ready`).catch(() => null))?.ok;
        });
    }

    async kill(signal = "SIGKILL") {
        if (this.child.exitCode !== null || this.child.signalCode !== null) return;
        this.child.kill(signal);
        await this.ended;
    }

    async stop() {
        await this.kill("SIGTERM");
        check(this.child.exitCode === 0, `the server did not end in good order: see ${this.log}`);
    }

    async ask(method, path, body) {
        const headers = { "content-type": "application/json" };
        const answer = await fetch(this.url + path, { method, headers, body: JSON.stringify(body) });
        const text = await answer.text();
        check(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
        return text ? JSON.parse(text) : null;
    }

    async library(name) {
        return (await this.ask("POST", "/v1/libraries", { name })).id;
    }

    async add(library, title) {
        return (await this.ask("POST", `/v1/libraries/${library}/documents`, { title, text: title })).id;
    }

    // Every event of a library after a place, as programs read them.
    async events(library, after) {
        const events = [];
        for (;;) {
            const query = `library_id=${library}&after=${after}&limit=1000`;
            const page = await this.ask("GET", `/v1/events?${query}`);
            if (page.events.length === 0) return events;
            events.push(...page.events);
            after = page.next;
        }
    }
}

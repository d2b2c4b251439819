// A page's own WebSocket and EventSource: two who share a session, one that comes back, and one that
// follows the events.

const [url, library] = process.argv.slice(2);
const socketUrl = `${url.replace("http", "ws")}/v1/libraries/${library}/ws`;

const fail = (what) => {
    console.error(what);
    process.exit(1);
};
setTimeout(() => fail("nothing came in time"), 30000).unref();

// A socket that is open, and its frames one by one.
function open() {
    const socket = new WebSocket(socketUrl);
    const frames = [];
    const waiting = [];
    socket.onmessage = (event) => {
        const frame = JSON.parse(event.data);
        const next = waiting.shift();
        if (next) next(frame);
        else frames.push(frame);
    };
    const next = () =>
        frames.length ? Promise.resolve(frames.shift()) : new Promise((take) => waiting.push(take));
    const ask = async (request_id, action, data) => {
        socket.send(JSON.stringify({ request_id, action, data }));
        const answer = await next();
        if (answer.request_id !== request_id || !answer.success) fail(JSON.stringify(answer));
        return answer.data;
    };
    return new Promise((opened, failed) => {
        socket.onopen = () => opened({ socket, next, ask });
        socket.onerror = failed;
    });
}

const session_id = "shared";
const [ada, bob] = await Promise.all([open(), open()]);
await bob.ask("b", "subscribe", { session_id });
const found = await ada.ask("a", "search", { query_text: "cats", k: 10, session_id });
const shown = await bob.next();
if (!shown.success || shown.data.results.length !== found.results.length) fail(JSON.stringify(shown));

const closed = new Promise((done) => (ada.socket.onclose = done));
ada.socket.close(1000);
if ((await closed).code !== 1000) fail("not closed in order");
const again = await open();
await again.ask("c", "ping", {});

const source = new EventSource(`${url}/v1/events/stream?library_id=${library}`);
const added = new Promise((take) => source.addEventListener("document.added", take));
await new Promise((opened) => (source.onopen = opened));
await again.ask("d", "add", { text: "mice hide", title: "Mice" });
const event = JSON.parse((await added).data);
if (event.title !== "Mice" || event.library_id !== library) fail(JSON.stringify(event));
source.close();
process.exit(0);

"""What the guides show for programs and for a terminal, run as it stands there: nothing is changed but the
address and the ids, and what the examples leave to the reader (a function, a list of documents, an import)
is put beside them.
"""

import asyncio
import json
import pathlib
import re
import subprocess
import tempfile
import threading
import types

import requests
import sseclient
import websockets

# Seconds that anything may take.
LONGEST = 60
EXAMPLE = re.compile(r"^## ([a-z-]+)\n\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Enough(Exception):
    """What was to be seen was seen: the example would go on for ever."""


class Guides:
    """The examples, and the library that they are filled in with."""

    def __init__(self, url, fixtures):
        self.url, self.fixtures = url, fixtures
        text = (fixtures / "guides.md").read_text(encoding="utf-8")
        self.examples = {name: code for name, _, code in EXAMPLE.findall(text)}
        self.ran = set()
        made = requests.post(f"{url}/v1/libraries", json={"name": "guides"}, timeout=LONGEST)
        made.raise_for_status()
        self.library = made.json()["id"]

    def filled(self, name, **ids):
        """An example with the address and the ids in it."""
        self.ran.add(name)
        code = self.examples[name].replace("localhost:8000", self.url.removeprefix("http://"))
        code = code.replace("your-library-id", self.library).replace("'/v1/", f"'{self.url}/v1/")
        for name_of_id, value in {"library_id=...": f"library_id={self.library}", **ids}.items():
            code = code.replace(name_of_id, value)
        return code

    def python(self, name, given, **ids):
        """Runs an example beside what is given; what it has defined, and what it has printed."""
        said = []
        names = {"print": lambda *words: said.append(" ".join(map(str, words))), **given}
        exec(compile(self.filled(name, **ids), name, "exec"), names)
        return names, said

    def shell(self, name, folder, **ids):
        """The commands of an example; where an answer is shown below them, they end before it."""
        code = self.filled(name, **{"{id}": self.library, "{library_id}": self.library, **ids})
        code = code.split("\n# Response")[0]
        command = ["bash", "-e", "-o", "pipefail", "-c", code]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=LONGEST)
        assert done.returncode == 0, (name, done.stderr.decode())
        return done.stdout.decode()

    def add(self, title):
        """Adds a document; its id."""
        path = f"{self.url}/v1/libraries/{self.library}/documents"
        added = requests.post(path, json={"title": title, "text": title}, timeout=LONGEST)
        added.raise_for_status()
        return added.json()["id"]

    def subscribers(self):
        """How many follow the events now."""
        answer = requests.get(f"{self.url}/v1/events/statistics", timeout=LONGEST)
        return answer.json()["subscriber_count"]

    def once_followed(self, act):
        """Does something as soon as one more follows than now, in a thread that has to be joined."""
        before = self.subscribers()

        def wait():
            for _ in range(LONGEST * 20):
                if self.subscribers() > before:
                    act()
                    return
                threading.Event().wait(0.05)

        waiting = threading.Thread(target=wait)
        waiting.start()
        return waiting


def shows(shown, real, path=""):
    """Whatever an answer is shown to have, it has."""
    if isinstance(shown, dict):
        for key, value in shown.items():
            assert key in real, f"{path}/{key} is not in {real}"
            shows(value, real[key], f"{path}/{key}")
    elif isinstance(shown, list) and shown:
        assert real, f"{path} is empty"
        for value in real:
            shows(shown[0], value, path)
    elif isinstance(shown, (bool, str)):
        assert isinstance(real, type(shown)), f"{path} is {real!r}, shown is {shown!r}"


def shown(guides, name):
    """An answer as it is shown, in JSON with comments."""
    return json.loads(re.sub(r"/\*.*?\*/", "", guides.filled(name)))


def terminal(guides, folder):
    """What is typed: documents in lines, export, search."""
    guides.shell("shell-lines", folder)
    lines = (folder / "documents.ndjson").read_text()
    assert len(lines.splitlines()) == 3, lines
    # Its second quote closes too early, as it is shown: no shell accepts it.
    answer = json.loads(guides.shell("curl-upload", folder, **{'"Content-Type": ': '"Content-Type: '}))
    shows(shown(guides, "upload-answer"), answer)
    assert (answer["successful"], answer["failed"]) == (3, 0), answer
    answer = json.loads(guides.shell("curl-ingest", folder))
    assert (answer["successful"], answer["failed"]) == (3, 0), answer
    found = json.loads(guides.shell("curl-search", folder))
    assert found["total"] == 6, found
    shows(shown(guides, "search-answer"), found)
    found = json.loads(guides.shell("curl-search-body", folder))
    assert found["total"] == len(found["results"]), found
    guides.shell("curl-export", folder)
    exported = [json.loads(line) for line in (folder / "backup.ndjson").read_text().splitlines()]
    assert (exported[-1]["status"], exported[-1]["total_documents"]) == ("complete", 6), exported[-1]
    documents = "\n".join(json.dumps(json.loads(guides.filled(name))) for name in ["document-chunks", "document-metadata"])
    (folder / "documents.ndjson").write_text(documents)
    answer = json.loads(guides.shell("curl-ingest", folder))
    assert [result.get("num_chunks") for result in answer["results"]] == [3, 1], answer


def terminal_events(guides, folder):
    """Each of the commands that watch events, while a document is added as it is typed."""
    typed = guides.filled("curl-terminals", **{"{id}": guides.library})
    add = typed[typed.index("echo "):].split("\n\n")[0]
    watching = [line for line in guides.filled("curl-events").splitlines() if line.startswith("curl")]
    watching += [line for line in typed.splitlines() if line.startswith("curl -N")]
    assert len(watching) == 4, watching
    for line in watching:
        with subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=folder, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True) as curl:
            # A command that says nothing is ended, and so seen to have said nothing.
            late = threading.Timer(LONGEST, curl.kill)
            late.start()
            assert curl.stdout.readline().startswith(":"), line
            subprocess.run(["bash", "-c", add], check=True, capture_output=True, timeout=LONGEST)
            told = iter(curl.stdout.readline, "")
            assert any(text == "event: document.added\n" for text in told), line
            assert json.loads(next(told).removeprefix("data: "))["title"] == "Test Doc", line
            late.cancel()
            curl.kill()


def programs(guides):
    """Uploads and searches from Python."""
    names, said = guides.python("python-upload", {})
    assert said == ["Successfully uploaded: 3/3 documents"], said
    _, said = guides.python("python-search", {})
    assert said == [] or said[0].startswith("Rank 1: "), said
    # As it is shown, but for the query, which is like nothing there.
    _, said = guides.python("python-search", {}, **{"quantum computing applications": "content 1"})
    assert said[0].startswith("Rank 1: Content 1..."), said
    broken = [{"title": "Right", "texts": ["right"]}, {"title": "Wrong", "texts": []}]
    given = {"stream_documents": names["stream_documents"], "library_id": guides.library, "documents": broken}
    _, said = guides.python("python-partial", given)
    assert "1 documents failed" in said[0] and said[1].startswith("Failed: "), said
    names, _ = guides.python("python-validate", {"json": json})
    names["validate_ndjson"](json.dumps(broken[0]))
    names, _ = guides.python("python-pool", {})
    answer = names["create_session"]().get(f"{guides.url}/v1/libraries", timeout=LONGEST)
    assert answer.status_code == 200, answer
    path = f"{guides.url}/v1/libraries/{guides.library}/documents/stream"
    lines = json.dumps(broken[0])
    given = {"requests": requests, "ndjson_data": lines}
    names, said = guides.python("python-errors", {"url": path, **given})
    assert said == [] and names["result"]["successful"] == 1, said
    _, said = guides.python("python-errors", {"url": f"{guides.url}/nothing", **given})
    assert said == ["HTTP error: 404"], said
    _, said = guides.python("python-errors", {"url": "http://127.0.0.1:1", **given})
    assert said == ["Connection failed"], said
    seen = []
    progress = types.SimpleNamespace(update=seen.append)
    given = {"requests": requests, "json": json, "ndjson_data": lines, "progress_bar": progress}
    guides.python("python-progress", given, **{"{id}": guides.library})
    assert seen[-1]["successful"] == 1, seen


def events(guides):
    """Those who follow from Python, until they have seen what is added meanwhile."""
    def follow():
        path = f"{guides.url}/v1/events/stream"
        with requests.get(path, stream=True, timeout=LONGEST) as response:
            for event in sseclient.SSEClient(response).events():
                yield types.SimpleNamespace(type=event.event, data=json.loads(event.data))

    def stop_at(expected):
        def see(what):
            assert expected(what), what
            raise Enough
        return see

    added = []
    new = {
        "python-events": ({"json": json, "print": stop_at(lambda text: text.startswith("New document: "))},
                          lambda: added.append(guides.add("told of"))),
        "python-notify": ({"notify_slack": stop_at(lambda text: text == "New doc: told of")},
                          lambda: added.append(guides.add("told of"))),
        "python-audit": ({"log_to_database": stop_at(lambda event: event.type == "library.created")},
                         lambda: Guides(guides.url, guides.fixtures)),
    }
    for name, (given, act) in new.items():
        waiting = guides.once_followed(act)
        try:
            guides.python(name, {"subscribe_to_events": follow, **given})
            raise AssertionError(f"{name} came to an end")
        except Enough:
            waiting.join()
    assert len(added) == 2, added


async def sockets(guides):
    """Requests and events over a WebSocket."""
    uri = f"{guides.url.replace('http', 'ws', 1)}/v1/libraries/{guides.library}/ws"
    async with websockets.connect(uri) as websocket:
        async def ask(action, **ids):
            await websocket.send(guides.filled(f"{action}-request", **ids))
            while True:
                answer = json.loads(await asyncio.wait_for(websocket.recv(), LONGEST))
                if answer["type"] != "event":
                    return answer

        document = "doc-id"
        for action in ["add", "search", "get", "delete"]:
            ids = {"doc-id-to-retrieve": document, "doc-id-to-delete": document}
            if action == "search":
                # As it stands it asks for what somebody wrote who wrote nothing.
                nothing = await ask(action)
                assert nothing["success"] and nothing["data"]["results"] == [], nothing
                # Its query is like nothing there, nearer than it asks for.
                ids = {"John Doe": "Jane Smith", "semantic search query": "Document content to add"}
            answer = await ask(action, **ids)
            assert answer["success"], answer
            shows(shown(guides, f"{action}-response"), answer)
            if action == "add":
                document = answer["data"]["document"]["id"]
    names, _ = guides.python("python-monitor", {"websockets": websockets, "json": json})
    seen = asyncio.Queue()
    said = []
    names["print"], names["handle_event"] = said.append, seen.put_nowait
    monitor = asyncio.create_task(names["monitor_library"](guides.library))
    answer = await asyncio.wait_for(seen.get(), LONGEST)
    assert answer["type"] == "response", answer
    await asyncio.to_thread(guides.add, "monitored")
    event = await asyncio.wait_for(seen.get(), LONGEST)
    assert event["event_type"] == "document.added" and event["data"]["title"] == "monitored", event
    assert said == ["Event received: response", "Event received: event"], said
    monitor.cancel()


def run(url, fixtures):
    """Every example; how many there were."""
    guides = Guides(url, fixtures)
    with tempfile.TemporaryDirectory() as folder:
        terminal(guides, pathlib.Path(folder))
        programs(guides)
        events(guides)
        terminal_events(guides, pathlib.Path(folder))
        asyncio.run(asyncio.wait_for(sockets(guides), LONGEST))
        # It brings its own loop.
        guides.add("artificial intelligence")
        _, said = guides.python("python-socket", {})
        assert said[1].startswith("Received ") and len(said) > 2, said
    missing = {name for name in guides.examples if not name.startswith("page-")} - guides.ran
    assert not missing, f"not run: {missing}"
    return len(guides.ran)

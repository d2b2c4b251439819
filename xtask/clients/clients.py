"""Clients as people write them, against a server: WebSocket and server-sent events, with the packages
that they use for it, what the guides show, and JavaScript where Node has WebSocket and EventSource.

    clients.py <url of the server> <folder of the scripts> <folder of Node's packages>
"""

import asyncio
import faulthandler
import json
import pathlib
import shutil
import subprocess
import sys
import threading

import requests
import sseclient
import websockets

import guides
import webhooks

TEXTS = ["artificial intelligence is broad", "cats sleep", "dogs bark"]
# Seconds that anything may take.
LONGEST = 60
# Node 20 and 22 have one or both of these behind a flag.
FLAGS = ["--experimental-websocket", "--experimental-eventsource"]


def library(url):
    """A library with some documents."""
    made = requests.post(f"{url}/v1/libraries", json={"name": "clients"}, timeout=LONGEST)
    made.raise_for_status()
    for text in TEXTS:
        add(url, made.json()["id"], text)
    return made.json()["id"]


def add(url, library_id, text):
    """Adds a document over HTTP; its id."""
    body = {"title": text, "text": text}
    path = f"{url}/v1/libraries/{library_id}/documents"
    added = requests.post(path, json=body, timeout=LONGEST)
    added.raise_for_status()
    return added.json()["id"]


async def ask(websocket, request_id, action, data):
    """Sends a request; the next frame has to be its answer."""
    await websocket.send(json.dumps({"request_id": request_id, "action": action, "data": data}))
    answer = json.loads(await websocket.recv())
    assert answer["request_id"] == request_id and answer["success"], answer
    return answer["data"]


async def requests_over_websocket(url, library_id):
    """The first frame is the answer; each action does what it says."""
    uri = f"{url.replace('http', 'ws', 1)}/v1/libraries/{library_id}/ws"
    async with websockets.connect(uri, open_timeout=10, close_timeout=10) as websocket:
        query = {"query_text": TEXTS[0], "k": 5}
        found = (await ask(websocket, "search-1", "search", query))["results"]
        assert len(found) == len(TEXTS) and found[0]["text"] == TEXTS[0], found
        await ask(websocket, "subscribe-1", "subscribe", {"events": ["document.added", "document.deleted"]})
        document = (await ask(websocket, "add-1", "add", {"text": "birds sing", "title": "Birds"}))["document"]
        event = json.loads(await websocket.recv())
        assert event["type"] == "event" and event["event_type"] == "document.added", event
        got = await ask(websocket, "get-1", "get", {"document_id": document["id"]})
        assert got["document"]["text"] == "birds sing", got
        assert (await ask(websocket, "delete-1", "delete", {"document_id": document["id"]}))["deleted"]
        async for message in websocket:
            assert json.loads(message)["event_type"] == "document.deleted", message
            break


def events_over_sse(url, library_id):
    """An event that comes after the stream was opened."""
    path = f"{url}/v1/events/stream"
    response = requests.get(path, stream=True, timeout=LONGEST)
    adding = threading.Thread(target=add, args=(url, library_id, "fish swim"))
    adding.start()
    for event in sseclient.SSEClient(response).events():
        if event.event == "document.added":
            assert json.loads(event.data)["title"] == "fish swim", event.data
            break
    response.close()
    adding.join()


def javascript(url, library_id, scripts):
    """The same in Node, where it has what a browser has. Whether it could be run."""
    node = shutil.which("node")
    flags = [flag for flag in FLAGS if node and accepts(node, flag)]
    if not node or len(flags) < len(FLAGS):
        return False
    script = str(scripts / "clients.mjs")
    subprocess.run([node, *flags, script, url, library_id], check=True, timeout=LONGEST)
    return True


def accepts(node, flag):
    """Whether a build of Node knows a flag."""
    tried = subprocess.run([node, flag, "-e", ""], capture_output=True, check=False, timeout=LONGEST)
    return tried.returncode == 0


def main():
    faulthandler.dump_traceback_later(10 * LONGEST, exit=True)
    url, scripts = sys.argv[1], pathlib.Path(sys.argv[2])
    library_id = library(url)
    asyncio.run(asyncio.wait_for(requests_over_websocket(url, library_id), LONGEST))
    events_over_sse(url, library_id)
    examples = guides.run(url, scripts / "fixtures")
    ran = javascript(url, library_id, scripts)
    document = scripts.parent.parent / "docs" / "webhooks.md"
    receivers = webhooks.run(url, document, pathlib.Path(sys.argv[3]))
    print(f"clients: Python, {examples} examples of the guides, {receivers} receivers of webhooks" + (" and JavaScript" if ran else "; Node was not there for JavaScript"))


main()

"""The receivers of docs/webhooks.md, run as they stand there: each has to take what a server sends, with the
reference library, and nothing that somebody else signed.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time

import requests

# Seconds that anything may take.
LONGEST = 60
TITLES = [f"told of {n}" for n in range(5)]


def run(url, document, node_folder):
    """Runs the receivers; how many there were."""
    text = document.read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(python|javascript)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    programs = [(blocks["python"], "receiver.py", [sys.executable])]
    if shutil.which("node") and (node_folder / "node_modules" / "standardwebhooks").is_dir():
        programs.append((blocks["javascript"], "receiver.mjs", ["node"]))
    for source, name, command in programs:
        script = node_folder / name
        script.write_text(source, encoding="utf-8")
        receive(url, [*command, str(script)])
    return len(programs)


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def post(url, body, status):
    answer = requests.post(url, json=body, timeout=LONGEST)
    assert answer.status_code == status, answer.text
    return answer.json()


def receive(url, command):
    """Has a receiver told of documents."""
    port = free_port()
    hooks = f"{url}/api/v1/webhooks"
    hook = post(hooks, {"url": f"http://127.0.0.1:{port}/", "events": ["document.added"], "retry_delay_seconds": 1}, 201)
    one = f"{hooks}/{hook['id']}"
    environment = {**os.environ, "WEBHOOK_SECRET": hook["secret"], "PORT": str(port)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        listening(port, process)
        library = post(f"{url}/v1/libraries", {"name": "told"}, 201)["id"]
        for title in TITLES:
            post(f"{url}/v1/libraries/{library}/documents", {"title": title, "text": title}, 201)
        told = [process.stdout.readline().rstrip("\n") for _title in TITLES]
        assert told == [f"document.added {title}" for title in TITLES], told
        # A second secret beside the first.
        post(f"{one}/rotate-secret", {}, 200)
        post(f"{url}/v1/libraries/{library}/documents", {"title": "rotated", "text": "rotated"}, 201)
        assert process.stdout.readline() == "document.added rotated\n"
        # And none that it knows.
        post(f"{one}/rotate-secret", {"grace_seconds": 0}, 200)
        test = post(f"{one}/test", {}, 200)
        assert not test["success"] and test["delivery"]["status_code"] == 401, test
        assert requests.get(f"{one}/stats", timeout=LONGEST).json()["successful_deliveries"] == len(TITLES) + 1
    finally:
        process.kill()
        process.wait()
        requests.delete(one, timeout=LONGEST)


def listening(port, process):
    """Waits until somebody listens."""
    began = time.monotonic()
    while time.monotonic() - began < LONGEST:
        assert process.poll() is None, "the receiver ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the receiver does not listen")

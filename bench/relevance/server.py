"""The server under test: started here or somewhere already, filled and asked over HTTP."""

import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from .corpus import Corpus, Document

#: Ways of searching; the last two are newer than the first.
MODES = ("vector", "keyword", "hybrid")
#: Where titles go: before the text, as in the references, into the field for them, or both.
TITLES = ("in-text", "apart", "both")
#: Passages of an answer: the most that the server gives.
K = 100
#: Documents of one request.
BATCH = 64
#: Characters of a passage and of a title: the most that the server takes.
PASSAGE_CHARACTERS = 10_000
TITLE_CHARACTERS = 1_000
#: How long the server may take to start, where the model may have to be fetched, and to answer.
START_SECONDS = 600.0
ANSWER_SECONDS = 600.0
#: Identifiers of documents are made of the collection's own ones, so that nothing is kept of them.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "arrwdb-relevance")

UNPROCESSABLE = 422


class ServerError(Exception):
    """The server cannot be used; the text says what to do."""


class RefusedError(ServerError):
    """An answer other than of success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"status {status}: {reason(text)}")
        self.status = status


def reason(text: str) -> str:
    """What an answer of failure says is wrong."""
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, TypeError, KeyError):
        return text[:500]


@dataclass(frozen=True)
class Answers:
    """What one way of searching found: documents of each query, best first, and seconds."""

    rankings: dict[str, list[str]]
    seconds: list[float]


class Client:
    """One connection that is kept."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ServerError(f"{url!r} is no http://host:port of a server")
        self.connection = http.client.HTTPConnection(
            parts.hostname, parts.port or 80, timeout=ANSWER_SECONDS
        )
        self.prefix = parts.path.rstrip("/")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON."""
        sent = None if body is None else json.dumps(body).encode()
        try:
            self.connection.request(
                method, self.prefix + path, sent, {"content-type": "application/json"}
            )
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            raise ServerError(f"no answer from the server to {method} {path}: {error}") from None
        if answer.status // 100 != 2:
            raise RefusedError(answer.status, text.decode(errors="replace"))
        return json.loads(text) if text else None


@contextmanager
def started(program: Path) -> Iterator[str]:
    """The program, serving a directory of its own on this machine until the block ends."""
    if not program.is_file():
        raise ServerError(
            f"{program} is missing: build it with `cargo build --release -p arrwdb-server`, or say "
            "with --binary where it is"
        )
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        settings = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "VECTOR_DB_DATA_DIR": str(Path(folder) / "data"),
            "RATE_LIMIT_ENABLED": "false",
            "EMBEDDING_PROVIDER": "local",
            # A query that was embedded before would be answered sooner than one of a user.
            "EMBEDDING_CACHE_BYTES": "0",
        }
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(program.resolve()), "serve"],
                cwd=folder,
                env={**os.environ, **settings},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when the server answers; the program may not end meanwhile."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            told = log.read_text(errors="replace").strip()[-500:]
            raise ServerError(f"the server ended with {process.returncode} as it started: {told}")
        try:
            Client(url).ask("GET", "/ready")
        except ServerError:
            time.sleep(0.05)
        else:
            return
    raise ServerError(f"the server was not ready within {START_SECONDS:.0f} s")


class Library:
    """A library of the server with the documents of one collection."""

    def __init__(
        self,
        client: Client,
        corpus: Corpus,
        titles: str = TITLES[0],
        vectors: np.ndarray | None = None,
    ) -> None:
        self.client = client
        self.corpus = corpus
        self.titles = titles
        #: Of the documents, where the server is not to compute them.
        self.vectors = vectors
        self.known = {self.identifier(one): one.id for one in corpus.documents}
        body = {"name": f"relevance {corpus.name}"[:255], "index_type": "brute_force"}
        self.path = f"/v1/libraries/{client.ask('POST', '/v1/libraries', body)['id']}"

    def delete(self) -> None:
        self.client.ask("DELETE", self.path)

    def fill(self) -> float:
        """Sends all documents; returns the seconds that it took."""
        began = time.perf_counter()
        requests = [self.request(one) for one in self.corpus.documents]
        path = f"{self.path}/documents/batch"
        if self.vectors is not None:
            path += "-with-embeddings"
            for request, vector in zip(requests, self.vectors.tolist(), strict=True):
                texts = request.pop("texts")
                request["chunks"] = [{"text": text, "embedding": vector} for text in texts]
        for start in range(0, len(requests), BATCH):
            body = {"documents": requests[start : start + BATCH]}
            answer = self.client.ask("POST", path, body)
            failed = [one for one in answer["results"] if not one["success"]]
            if failed:
                raise ServerError(f"the server did not take a document: {failed[0]['error']}")
        return time.perf_counter() - began

    def identifier(self, document: Document) -> str:
        return str(uuid.uuid5(NAMESPACE, f"{self.corpus.name}/{document.id}"))

    def request(self, document: Document) -> dict[str, Any]:
        """A document as it is sent: one passage, unless it is longer than one may be."""
        apart = self.titles == "apart" and document.text
        text = document.text if apart else document.whole
        passages = [
            part
            for start in range(0, len(text), PASSAGE_CHARACTERS)
            if (part := text[start : start + PASSAGE_CHARACTERS]).strip()
        ]
        title = "" if self.titles == "in-text" else document.title[:TITLE_CHARACTERS]
        # A title is required, and this one has no word.
        return {"id": self.identifier(document), "title": title or "-", "texts": passages}

    def search(self, more: dict[str, Any], rounds: int) -> Answers:
        """Asks every query, with what the body is to have beside it.

        The seconds are of all rounds, the rankings of the last.
        """
        rankings, seconds = {}, []
        for _ in range(rounds):
            for query in self.corpus.queries:
                body = {"query": query.text, "k": K, **more}
                began = time.perf_counter()
                answer = self.client.ask("POST", f"{self.path}/search", body)
                seconds.append(time.perf_counter() - began)
                rankings[query.id] = self.documents(answer)
        return Answers(rankings, seconds)

    def keyword_route(self, query: str) -> list[str]:
        """What the route of keyword search finds, which is to be what the mode finds."""
        body = {"query": query, "k": K}
        return self.documents(self.client.ask("POST", f"{self.path}/search/keyword", body))

    def documents(self, answer: dict[str, Any]) -> list[str]:
        """Documents by their best passage."""
        try:
            found = [self.known[result["document_id"]] for result in answer["results"]]
        except KeyError as error:
            raise ServerError(f"an answer has no or an unknown {error}") from None
        return list(dict.fromkeys(found))

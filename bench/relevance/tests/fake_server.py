"""Just enough of the server to be filled and asked, with answers made up from words."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeServer:
    """Keyword search finds passages with words of the query, vector search all of them."""

    def __init__(self, modes: tuple[str, ...] = ("vector", "keyword", "hybrid")) -> None:
        self.modes = modes
        #: Takes any mode, and knows none.
        self.heedless = False
        #: Whether the route of keyword search finds what the mode finds.
        self.routes_agree = True
        self.documents: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.answer(*fake.post(self.path, body))

            def do_DELETE(self) -> None:
                fake.requests.append(("DELETE", self.path, None))
                self.answer(204, None)

            def answer(self, status: int, body: Any) -> None:
                data = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        self.requests.append(("POST", path, body))
        if path == "/v1/libraries":
            return 201, {"id": "lib"}
        if path == "/v1/libraries/lib/documents/batch":
            return 201, {"results": [self.take(one) for one in body["documents"]]}
        if path == "/v1/libraries/lib/documents/batch-with-embeddings":
            for one in body["documents"]:
                one["texts"] = [chunk["text"] for chunk in one["chunks"]]
            return 201, {"results": [self.take(one) for one in body["documents"]]}
        if path == "/v1/libraries/lib/search/keyword" and "keyword" in self.modes:
            found = self.search("keyword", body["query"])
            return 200, found if self.routes_agree else {"results": found["results"][1:]}
        if path == "/v1/libraries/lib/search":
            mode = body.get("mode", "vector")
            if "mode" in body and not self.heedless and mode not in self.modes:
                return 422, {"detail": "/mode: is not available"}
            return 200, self.search("vector" if self.heedless else mode, body["query"])
        return 404, {"detail": "Not found"}

    def take(self, document: dict[str, Any]) -> dict[str, Any]:
        if "refuse me" in document["texts"]:
            return {"success": False, "error": "it asked for it"}
        self.documents[document["id"]] = document
        return {"success": True}

    def search(self, mode: str, query: str) -> dict[str, Any]:
        words = set(query.split())
        found = []
        for id, document in self.documents.items():
            for text in document["texts"]:
                common = len(words.intersection(text.split()))
                if common or mode != "keyword":
                    found.append((common, id))
        found.sort(key=lambda one: -one[0])
        return {"results": [{"document_id": id, "score": score} for score, id in found]}

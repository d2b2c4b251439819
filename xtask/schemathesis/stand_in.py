"""A stand-in for an embedding provider: Cohere's wire format, vectors that follow from the texts.

Prints the port it listens on, and serves until it is killed. The standard library alone is needed.
"""

import json
import sys
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIMENSION = 1024


def vector(text):
    """A bag of words: each word adds one to a place of its own."""
    numbers = [0.0] * DIMENSION
    for word in text.lower().split():
        numbers[zlib.crc32(word.encode("utf-8", "surrogatepass")) % DIMENSION] += 1.0
    # No text is without direction, nor is the beginning of its vector.
    numbers[0] += 0.5
    return numbers


class Handler(BaseHTTPRequestHandler):
    """Answers every POST with embeddings."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        texts = json.loads(self.rfile.read(length))["texts"]
        answer = {
            "embeddings": [vector(text) for text in texts],
            "meta": {"billed_units": {"input_tokens": 1}},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """Does not mind who is gone: servers are killed in tests."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()

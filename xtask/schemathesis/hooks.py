"""What schemathesis does not know by itself: NDJSON, as one line."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def write_line(context, value):
    """One line, whatever was made up for it."""
    return value if isinstance(value, bytes) else json.dumps(value).encode("utf-8", "replace")


@schemathesis.deserializer("application/x-ndjson")
def read_lines(context, response):
    """The first line: the document describes one of them."""
    text = response.content.decode("utf-8")
    return json.loads(text.splitlines()[0]) if text else None

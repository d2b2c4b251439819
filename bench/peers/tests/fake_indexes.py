#!/usr/bin/env python3
"""Stands in for the program `indexes`: answers as it does, of made-up figures, and notes its calls.

A setting `ef_search` of n has a recall of n / 100, and rates that fall as it grows.
"""

import argparse
import json
import math
from pathlib import Path

parser = argparse.ArgumentParser()
for required in ("--base", "--queries", "--truth", "--metric", "--index", "--threads", "--sweep"):
    parser.add_argument(required, required=True)
parser.add_argument("--k", type=int, required=True)
parser.add_argument("--json", type=Path, required=True)
parser.add_argument("--targets")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--save", type=Path)
parser.add_argument("--load", type=Path)
options = parser.parse_args()

index = json.loads(options.index)
threads = options.threads.split(",")
calls = Path(__file__).with_suffix(".calls")
with calls.open("a") as out:
    print("save" if options.save else "load", "targets" if options.targets else "sweep", file=out)
if options.save:
    options.save.write_bytes(b"x" * 5000)
elif not options.load.is_file():
    raise SystemExit(f"{options.load} is missing")

if options.targets:
    efforts = [math.ceil(100 * float(target)) for target in options.targets.split(",")]
    # Out of reach, as with an index that loses too much.
    sweep = [{"ef_search": effort} for effort in efforts if effort <= 95]
else:
    sweep = json.loads(options.sweep)


def point(parameters: dict[str, int]) -> dict[str, object]:
    effort = parameters.get("ef_search", 100)
    rate = 100_000 / effort
    return {
        "parameters": parameters,
        "recall_at_10": effort / 100,
        "recall_at_100": None,
        "qps": {count: rate * int(count) for count in threads},
        "p50_ms": 1e3 / rate,
        "p99_ms": 2e3 / rate,
        "rounds": [],
    }


build = {"seconds": [1.5 for _ in threads], "cpu_seconds": 2.5, "threads": int(threads[-1])}
answer = {
    "index": index,
    "rows": 300,
    "dimension": 8,
    "metric": options.metric,
    "build": build if options.save else None,
    "bytes": {"resident": 1_000_000, "mapped": 2_000_000, "file": 5000},
    "points": [point(parameters) for parameters in sweep],
}
options.json.write_text(json.dumps(answer))

"""One stage of one engine, in a process of its own: `python -m peers.worker REQUEST RESULT`.

The request and the result are JSON files. A process for each stage keeps one library's memory and
threads from another's figures, and a crash of one from the whole run.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import engines, machine, matching
from .datasets import Dataset
from .engines import Engine

#: Single queries whose latencies are taken at least: a hundredth of them are the slowest.
SINGLES_MIN = 1_000
#: Times the seconds asked for after which fewer have to do.
SINGLES_PATIENCE = 5
#: The target that stands for what needs no setting.
EXACT = "exact"


def build(engine: Engine, dataset: Dataset, folder: Path, request: dict[str, Any]) -> Any:
    """Builds and saves the index."""
    base, threads = dataset.base(), request["build_threads"]
    with machine.Stopwatch() as watch:
        engine.build(base, dataset.metric, threads, folder)
    engine.save(folder)
    return {
        "seconds": watch.seconds,
        "cpu_seconds": watch.cpu_seconds,
        "threads": threads,
        "foreign": watch.foreign,
        "version": engines.version(request["engine"]),
    }


def tune(engine: Engine, dataset: Dataset, folder: Path, request: dict[str, Any]) -> Any:
    """Finds what reaches each target in the least processor time, and the size of the index."""
    before = machine.memory()
    load(engine, dataset, folder)
    k, queries, truth = request["k"], dataset.queries(), dataset.truth()
    settings: dict[str, Any] = {}
    if not engine.dials:
        found = engine.search(engine.prepare(queries, k), k, 1)
        settings[EXACT] = {"parameters": {}, "recall": matching.recall(found, truth, k)}
    for target in request["targets"] if engine.dials else []:
        best: dict[str, Any] | None = None
        for dial in engine.dials:
            costs: dict[int, float] = {}

            def reached(value: int, dial: Any = dial, costs: dict[int, float] = costs) -> float:
                engine.set(dial.at(value))
                prepared = engine.prepare(queries, k)
                # Processor time: the choice must not depend on who else is running.
                with machine.Stopwatch() as watch:
                    found = engine.search(prepared, k, 1)
                costs[value] = watch.cpu_seconds
                return matching.recall(found, truth, k)

            low, high = dial.range(k)
            hit = matching.smallest(reached, low, high, target)
            if hit and (best is None or costs[hit[0]] < best["cpu_seconds"]):
                best = {
                    "parameters": dial.at(hit[0]),
                    "recall": hit[1],
                    "cpu_seconds": costs[hit[0]],
                }
        if best:
            settings[str(target)] = best
    machine.release_freed_memory()
    after = machine.memory()
    sizes = {kind: max(0, after[kind] - before[kind]) for kind in before}
    return {"bytes": {**sizes, "file": machine.disk_bytes(folder)}, "settings": settings}


def measure(engine: Engine, dataset: Dataset, folder: Path, request: dict[str, Any]) -> Any:
    """One round: rates and latencies at each setting."""
    load(engine, dataset, folder)
    k, queries, seconds = request["k"], dataset.queries(), request["seconds"]
    quiet = machine.Quiet(request["quiet"]["limit"], request["quiet"]["patience"])
    results = {}
    for target, setting in request["settings"].items():
        if setting["parameters"]:
            engine.set(setting["parameters"])
        prepared = engine.prepare(queries, k)
        point: dict[str, Any] = {"qps": {}, "cpu_us": {}, "foreign": {}}
        for threads in request["threads"]:
            engine.search(prepared[:100], k, threads)
            rate, watch = machine.quietest(
                lambda prepared=prepared, threads=threads: rate_of(
                    lambda: engine.search(prepared, k, threads), len(queries), seconds
                ),
                quiet,
            )
            point["qps"][str(threads)] = rate
            point["cpu_us"][str(threads)] = 1e6 * watch.cpu_seconds / (rate * watch.seconds)
            point["foreign"][str(threads)] = watch.foreign
        singles = [engine.prepare(queries[at : at + 1], k) for at in range(len(queries))]
        engine.search(singles[0], k, 1)
        times, watch = machine.quietest(
            lambda singles=singles: latencies(
                [lambda one=one: engine.search(one, k, 1) for one in singles], seconds
            ),
            quiet,
        )
        point["p50_ms"], point["p99_ms"] = (1e3 * np.percentile(times, [50, 99])).tolist()
        point["foreign"]["single"] = watch.foreign
        results[target] = point
    return results


def load(engine: Engine, dataset: Dataset, folder: Path) -> None:
    """Makes the saved index ready."""
    engine.load(folder, dataset.metric, dataset.base().shape[1])


def rate_of(search: Callable[[], Any], queries: int, seconds: float) -> float:
    """Queries a second of whole passes over the queries, for at least so many seconds."""
    done, start = 0, time.perf_counter()
    while True:
        search()
        done += queries
        passed = time.perf_counter() - start
        if passed >= seconds:
            return done / passed


def latencies(searches: list[Callable[[], Any]], seconds: float) -> np.ndarray:
    """Seconds of single searches, one after the other, from the first query on."""
    times: list[float] = []
    start = time.perf_counter()
    while True:
        search = searches[len(times) % len(searches)]
        before = time.perf_counter()
        search()
        now = time.perf_counter()
        times.append(now - before)
        enough = now - start >= seconds and len(times) >= SINGLES_MIN
        if enough or now - start >= SINGLES_PATIENCE * seconds:
            return np.array(times)


STAGES = {"build": build, "tune": tune, "measure": measure}


def main() -> None:
    """Runs the stage that the request names."""
    request = json.loads(Path(sys.argv[1]).read_text())
    dataset = Dataset(request["data"], request["metric"], Path(request["data_folder"]))
    engine = engines.create(request["engine"])
    result = STAGES[request["stage"]](engine, dataset, Path(request["folder"]), request)
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()

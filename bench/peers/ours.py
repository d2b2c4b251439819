"""Our indexes, through the program `indexes` of this package (`bench/src/bin/indexes.rs`)."""

import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from . import machine
from .contestants import Contestant, ContestantError, Plan, run
from .datasets import Dataset

ROOT = Path(__file__).resolve().parents[2]
BUILD = "cargo build --release -p arrwdb-bench --bin indexes"
FILE = "index.arrwdb"
#: The target that stands for what needs no setting.
EXACT = "exact"
#: Kinds whose recall is always 1.
EXACT_TYPES = ("brute_force", "kd_tree")

INT8 = {"strategy": "scalar", "bits": 8}
HNSW = {"M": 16, "ef_construction": 200}


def program_path() -> Path:
    """Where cargo leaves the program."""
    target = os.environ.get("CARGO_TARGET_DIR")
    return (ROOT / target if target else ROOT / "target") / "release" / "indexes"


def lists(rows: int) -> int:
    """Inverted lists for so many rows: as many as faiss gets here."""
    return 2 ** round(math.log2(4 * rows**0.5))


def spec(name: str, rows: int, dimension: int) -> dict[str, Any] | None:
    """What the program is to build under this name, None where there is no such name."""
    inverted = {"n_clusters": lists(rows)}
    coded = {**inverted, "pq_subvectors": subvectors(dimension)}
    known: dict[str, dict[str, Any]] = {
        "ours-brute": {"index_type": "brute_force"},
        "ours-brute-int8": {"index_type": "brute_force", "quantization_config": INT8},
        "ours-kd": {"index_type": "kd_tree"},
        "ours-lsh": {"index_type": "lsh"},
        "ours-hnsw": {"index_type": "hnsw", "index_config": HNSW},
        "ours-hnsw-int8": {
            "index_type": "hnsw",
            "index_config": HNSW,
            "quantization_config": INT8,
        },
        "ours-ivf": {"index_type": "ivf", "index_config": inverted},
        "ours-ivf-int8": {
            "index_type": "ivf",
            "index_config": inverted,
            "quantization_config": INT8,
        },
        "ours-ivf-pq": {"index_type": "ivf_pq", "index_config": coded},
    }
    return known.get(name)


#: The names that `spec` knows.
NAMES = (
    "ours-brute",
    "ours-brute-int8",
    "ours-kd",
    "ours-lsh",
    "ours-hnsw",
    "ours-hnsw-int8",
    "ours-ivf",
    "ours-ivf-int8",
    "ours-ivf-pq",
)


def subvectors(dimension: int) -> int:
    """Parts of a product quantiser: the most that divide the dimension, of at least 4 numbers."""
    return next(count for count in range(max(1, dimension // 4), 0, -1) if dimension % count == 0)


class Ours(Contestant):
    """One of our indexes. `custom` is its description where the name is not one of ours."""

    def __init__(self, name: str, program: Path, custom: dict[str, Any] | None = None) -> None:
        self.name = name
        self.program = program
        self.custom = custom

    def check(self) -> None:
        if self.custom is None and self.name not in NAMES:
            raise ContestantError(
                f"there is no index {self.name!r} of ours: choose from {', '.join(NAMES)}, or "
                f"describe one with --ours '{self.name}={{\"index_type\": ...}}'"
            )
        if not self.program.is_file():
            raise ContestantError(
                f"our program is not built, {self.program} is missing: run `{BUILD}`, or say "
                "with --program where it is"
            )

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        # Not the program itself: it changes often, and refuses files that it cannot read.
        return {"engine": self.name, "spec": self.description(dataset)}

    def tuned_with(self) -> str:
        return hashlib.sha256(self.program.read_bytes()).hexdigest()[:16]

    def build(self, dataset: Dataset, plan: Plan, folder: Path) -> dict[str, Any]:
        options = ["--save", str(folder / FILE), "--sweep", "[{}]", "--rounds", "1"]
        answer, watch = self.ask(dataset, plan, (plan.build_threads,), options)
        built = answer.get("build") or {}
        seconds = built.get("seconds")
        return {
            "seconds": seconds[-1] if isinstance(seconds, list) else seconds,
            "cpu_seconds": built.get("cpu_seconds"),
            "threads": built.get("threads", plan.build_threads),
            "foreign": watch.foreign,
            "version": f"program {self.tuned_with()}",
            "spec": answer.get("index"),
        }

    def tune(self, dataset: Dataset, plan: Plan, folder: Path) -> dict[str, Any]:
        options = ["--load", str(folder / FILE), *self.tuning(dataset, plan)]
        answer, _ = self.ask(dataset, plan, (1,), options)
        sizes = {**answer["bytes"], "file": machine.disk_bytes(folder)}
        return {"bytes": sizes, "settings": self.settings(dataset, plan, answer["points"])}

    def tuning(self, dataset: Dataset, plan: Plan) -> list[str]:
        """The options that make the program look for settings, of what has settings."""
        if self.is_exact(dataset):
            return ["--sweep", "[{}]"]
        targets = ",".join(str(target) for target in plan.targets)
        return ["--sweep", "[{}]", "--targets", targets]

    def settings(self, dataset: Dataset, plan: Plan, points: list[Any]) -> dict[str, Any]:
        """For each target the quickest of the points that reach it."""
        found = {}
        if self.is_exact(dataset):
            point = points[0]
            found[EXACT] = {"parameters": {}, "recall": recall_of(point, plan.k)}
            return found
        for target in plan.targets:
            enough = [point for point in points if recall_of(point, plan.k) >= target]
            if enough:
                best = max(enough, key=lambda point: point["qps"]["1"])
                recall = recall_of(best, plan.k)
                found[str(target)] = {"parameters": best["parameters"], "recall": recall}
        return found

    def measure(
        self, dataset: Dataset, plan: Plan, folder: Path, settings: dict[str, Any]
    ) -> dict[str, Any]:
        sweep = json.dumps([setting["parameters"] for setting in settings.values()])
        options = ["--load", str(folder / FILE), "--rounds", "1", "--sweep", sweep]
        (answer, _), watch = machine.quietest(
            lambda: self.ask(dataset, plan, plan.threads, options), plan.quiet
        )
        points = answer["points"]
        if len(points) != len(settings):
            raise ContestantError(
                f"{self.program} measured {len(points)} of {len(settings)} settings"
            )
        # Others are seen over the whole call, not for each figure.
        foreign = dict.fromkeys([*map(str, plan.threads), "single"], watch.foreign)
        return {
            target: {
                "qps": point["qps"],
                "p50_ms": point["p50_ms"],
                "p99_ms": point["p99_ms"],
                "recall": recall_of(point, plan.k),
                "foreign": foreign,
            }
            for target, point in zip(settings, points, strict=True)
        }

    def ask(
        self, dataset: Dataset, plan: Plan, threads: tuple[int, ...], options: list[str]
    ) -> tuple[dict[str, Any], machine.Stopwatch]:
        """Runs the program and reads its answer."""
        with tempfile.TemporaryDirectory() as scratch:
            answer = Path(scratch) / "answer.json"
            command = [str(self.program)]
            for option, path in (
                ("--base", dataset.base_path),
                ("--queries", dataset.query_path),
                ("--truth", dataset.truth_path),
            ):
                command += [option, str(path)]
            command += ["--metric", dataset.metric, "--k", str(plan.k)]
            command += ["--index", json.dumps(self.description(dataset))]
            command += ["--threads", ",".join(map(str, threads))]
            command += [*options, "--json", str(answer)]
            with machine.Stopwatch() as watch:
                run(command, f"{self.name} on {dataset.name}", plan.timeout, ROOT)
            return json.loads(answer.read_text()), watch

    def description(self, dataset: Dataset) -> dict[str, Any]:
        if self.custom is not None:
            return self.custom
        described = spec(self.name, *dataset.base().shape)
        if described is None:
            raise ContestantError(f"there is no index {self.name!r} of ours")
        return described

    def is_exact(self, dataset: Dataset) -> bool:
        described = self.description(dataset)
        return (
            described["index_type"] in EXACT_TYPES and described.get("quantization_config") is None
        )


def recall_of(point: dict[str, Any], k: int) -> float:
    """The recall of the k neighbours that were asked for."""
    recall = point.get(f"recall_at_{k}")
    return point["recall_at_10"] if recall is None else recall

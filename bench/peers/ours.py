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
#: What describes an index.
KEYS = {"index_type", "index_config", "quantization_config"}
#: What an answer of the program has, and what each of its points has.
ANSWER = ("bytes", "points")
POINT = ("parameters", "recall_at_10", "qps", "p50_ms", "p99_ms")
#: Kinds whose recall is always 1.
EXACT_TYPES = ("brute_force", "kd_tree")

UNQUANTISED = {"strategy": "none"}
INT8 = {"strategy": "scalar", "bits": 8}
HYBRID = {"strategy": "hybrid", "bits": 8}
HNSW = {"M": 16, "ef_construction": 200}


def program_path() -> Path:
    """Where cargo leaves the program."""
    target = os.environ.get("CARGO_TARGET_DIR")
    return (ROOT / target if target else ROOT / "target") / "release" / "indexes"


def lists(rows: int) -> int:
    """Inverted lists for so many rows: as many as faiss gets here."""
    return 2 ** round(math.log2(4 * rows**0.5))


def specs(rows: int, dimension: int) -> dict[str, dict[str, Any]]:
    """What the program is to build under each name, for so many rows of so many numbers."""
    inverted = {"n_clusters": lists(rows)}
    coded = {**inverted, "pq_subvectors": subvectors(dimension)}
    return {
        "ours-brute": described("brute_force"),
        "ours-brute-int8": described("brute_force", {}, INT8),
        "ours-kd": described("kd_tree"),
        "ours-lsh": described("lsh"),
        "ours-hnsw": described("hnsw", HNSW),
        "ours-hnsw-int8": described("hnsw", HNSW, INT8),
        "ours-hnsw-hybrid": described("hnsw", HNSW, HYBRID),
        "ours-ivf": described("ivf", inverted),
        "ours-ivf-int8": described("ivf", inverted, INT8),
        "ours-ivf-pq": described("ivf_pq", coded),
    }


def described(
    index_type: str,
    index_config: dict[str, Any] | None = None,
    quantization_config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """An index as the API describes it, with everything said."""
    return {
        "index_type": index_type,
        "index_config": index_config or {},
        "quantization_config": quantization_config or UNQUANTISED,
    }


def subvectors(dimension: int) -> int:
    """Parts of a product quantiser: the most that divide the dimension, of at least 4 numbers."""
    return next(count for count in range(max(1, dimension // 4), 0, -1) if dimension % count == 0)


#: The names that `specs` knows, whatever the data.
NAMES = tuple(specs(1, 1))


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
            return self.read(answer, threads), watch

    def read(self, path: Path, threads: tuple[int, ...]) -> dict[str, Any]:
        """The program's answer, which has to have what was asked for."""
        try:
            answer = json.loads(path.read_text())
            missing = [key for key in ANSWER if key not in answer]
            for point in answer.get("points", []):
                missing += [key for key in POINT if key not in point]
                rates = point.get("qps", {})
                missing += [f"qps of {count}" for count in threads if str(count) not in rates]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ContestantError(f"{self.program} wrote no answer as agreed: {error}") from None
        if missing:
            raise ContestantError(
                f"the answer of {self.program} is without {', '.join(dict.fromkeys(missing))}: "
                "build it from the same sources as this"
            )
        return answer

    def description(self, dataset: Dataset) -> dict[str, Any]:
        if self.custom is not None:
            return described(**self.custom)
        rows, dimension = dataset.base().shape
        return specs(rows, dimension)[self.name]

    def is_exact(self, dataset: Dataset) -> bool:
        description = self.description(dataset)
        kind, quantisation = description["index_type"], description["quantization_config"]
        return kind in EXACT_TYPES and quantisation.get("strategy", "none") == "none"


def recall_of(point: dict[str, Any], k: int) -> float:
    """The recall of the k neighbours that were asked for."""
    recall = point.get(f"recall_at_{k}")
    return point["recall_at_10"] if recall is None else recall

"""The command line, and the rounds."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from . import datasets, engines, environment, machine, ours, report
from .contestants import Contestant, ContestantError, Library, Plan, write_json
from .datasets import Dataset, DatasetError


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    home = environment.home()
    parser = argparse.ArgumentParser(
        description="Our vector indexes and those of other libraries, measured in turns.",
        epilog=f"engines: {', '.join([*engines.ENGINES, *ours.NAMES])}",
    )
    add = parser.add_argument
    add(
        "--data",
        default="smoke",
        help=f"sets, comma-separated; {', '.join(datasets.MADE)} "
        "are made, others are NAME_base.npy and NAME_query.npy in --data-folder",
    )
    add("--engines", default="hnswlib,ours-hnsw", help="who takes part, comma-separated")
    add(
        "--ours",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="another index of ours: its index_type, index_config, quantization_config",
    )
    add("--program", type=Path, default=ours.program_path(), help="our program `indexes`")
    add("--metric", choices=datasets.METRICS, help="otherwise cosine for unit vectors, else l2")
    add("--k", type=int, default=10, choices=[10, 100], help="neighbours a query")
    add("--targets", type=fractions, default=(0.90, 0.95, 0.99), help="recalls to be matched")
    add("--threads", type=counts, default=(1, 2), help="built with the most of these")
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=1.0, help="length of each measurement")
    add("--quiet-limit", type=float, default=0.05, help="cores that others may use")
    add(
        "--patience",
        type=float,
        default=30.0,
        help="seconds to try for a quiet machine, for each measurement",
    )
    add("--timeout", type=float, default=3600.0, help="seconds for each stage of an engine")
    add("--fresh", action="store_true", help="build again what is kept")
    add("--data-folder", type=Path, default=home / "data")
    add("--index-folder", type=Path, default=home / "indexes")
    add("--json", type=Path, help="all figures; otherwise a file in the folder of results")
    add("--markdown", type=Path, help="the tables, which are printed as well")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("at least one round of some length is needed")
    return options


def fractions(text: str) -> tuple[float, ...]:
    """Recalls above 0 and up to 1."""
    values = tuple(float(part) for part in text.split(","))
    if not all(0 < value <= 1 for value in values):
        raise argparse.ArgumentTypeError("recalls are above 0 and at most 1")
    return values


def counts(text: str) -> tuple[int, ...]:
    """Numbers of threads."""
    values = tuple(int(part) for part in text.split(","))
    if not all(value >= 1 for value in values):
        raise argparse.ArgumentTypeError("at least one thread is needed")
    return values


def contestants(options: argparse.Namespace) -> list[Contestant]:
    """Who takes part, checked before anything is measured."""
    described: dict[str, Any] = {}
    for text in options.ours:
        name, _, body = text.partition("=")
        try:
            described[name] = json.loads(body)
        except json.JSONDecodeError as error:
            raise ContestantError(f"--ours {name} is not NAME=JSON: {error}") from None
        keys = set(described[name]) if isinstance(described[name], dict) else set()
        if not name.startswith("ours-") or "index_type" not in keys or keys - ours.KEYS:
            raise ContestantError(
                f"--ours {name!r}: call it ours-..., give its index_type, and nothing but "
                f"{', '.join(sorted(ours.KEYS))}"
            )
    found: list[Contestant] = []
    for name in dict.fromkeys([*filter(None, options.engines.split(",")), *described]):
        if name.startswith("ours-"):
            found.append(ours.Ours(name, options.program.resolve(), described.get(name)))
        else:
            found.append(Library(name))
    for contestant in found:
        contestant.check()
    return found


def progress(text: str) -> None:
    """A line about what goes on, apart from the tables."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Comparison:
    """One run: everything that is measured, and where it goes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.plan = Plan(
            k=options.k,
            targets=options.targets,
            threads=options.threads,
            seconds=options.seconds,
            quiet=machine.Quiet(options.quiet_limit, options.patience),
            timeout=options.timeout,
            indexes=options.index_folder,
        )
        self.contestants = contestants(options)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.output = options.json or environment.home() / "results" / f"{stamp}.json"
        told = {key: getattr(options, key) for key in ("k", "targets", "threads", "rounds")}
        told |= {"seconds": options.seconds, "quiet_limit": options.quiet_limit}
        self.run: dict[str, Any] = {
            "machine": machine.describe(),
            "options": told,
            "datasets": {},
        }

    def measure(self, name: str) -> None:
        """All rounds of one data set."""
        dataset = datasets.prepare(name, self.options.data_folder, self.options.metric)
        rows, dimension = dataset.base().shape
        entry: dict[str, Any] = {
            "rows": rows,
            "dimension": dimension,
            "metric": dataset.metric,
            "fingerprint": dataset.fingerprint(),
            "engines": {},
            "failed": [],
        }
        self.run["datasets"][name] = entry
        ready = [one for one in self.contestants if self.prepare(one, dataset, entry)]
        for number in range(self.options.rounds):
            # Who begins changes, so that nobody always follows the same neighbour.
            shift = number % max(1, len(ready))
            for contestant in ready[shift:] + ready[:shift]:
                self.turn(contestant, dataset, entry, number)
            targets = [*(str(target) for target in self.plan.targets), "exact"]
            report.summarise(entry["engines"], targets)
            write_json(self.output, self.run)

    def prepare(self, contestant: Contestant, dataset: Dataset, entry: dict[str, Any]) -> bool:
        """Builds and tunes; false, and told, where that failed."""
        progress(f"{dataset.name}: {contestant.name}: build and settings")
        try:
            known = contestant.prepare(dataset, self.plan, self.options.fresh)
        except ContestantError as error:
            self.failed(str(error), entry)
            return False
        entry["engines"][contestant.name] = {**known, "rounds": [], "summary": {}}
        return True

    def turn(
        self, contestant: Contestant, dataset: Dataset, entry: dict[str, Any], number: int
    ) -> None:
        """One engine's turn in a round."""
        result = entry["engines"][contestant.name]
        folder = self.plan.indexes / dataset.name / contestant.name
        figures: dict[str, Any] | None = None
        try:
            if result["settings"]:
                figures = contestant.measure(dataset, self.plan, folder, result["settings"])
        except ContestantError as error:
            self.failed(f"round {number + 1}: {error}", entry)
        # A failed turn has its place, so that rounds of different engines stay side by side.
        result["rounds"].append(figures)
        told = " ".join(
            f"{target}: {' '.join(f'{rate:,.0f}/s' for rate in point['qps'].values())}"
            for target, point in (figures or {}).items()
        )
        progress(f"{dataset.name}: round {number + 1}: {contestant.name} {told}")

    def failed(self, text: str, entry: dict[str, Any]) -> None:
        progress(text)
        entry["failed"].append(text)


def main() -> int:
    """Measures and reports; 0 only when everybody finished every turn."""
    options = parse(sys.argv[1:])
    try:
        comparison = Comparison(options)
        for name in filter(None, options.data.split(",")):
            comparison.measure(name)
    except (ContestantError, DatasetError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = report.document(comparison.run)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    progress(f"all figures are in {comparison.output}")
    return 1 if any(one["failed"] for one in comparison.run["datasets"].values()) else 0

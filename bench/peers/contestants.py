"""Those that take turns: libraries in workers of their own, and our program `indexes`."""

import json
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import engines
from .datasets import Dataset
from .machine import Quiet

#: The folder from which `peers` is a package.
PACKAGES = Path(__file__).resolve().parent.parent

#: Our standard error, whatever Python's is: programs write to files, not to objects.
STDERR = 2


class ContestantError(Exception):
    """A contestant that cannot go on; the text says what to do."""


@dataclass(frozen=True)
class Plan:
    """What is measured, the same for all contestants."""

    k: int
    targets: tuple[float, ...]
    threads: tuple[int, ...]
    #: Seconds of each rate and of each series of single queries.
    seconds: float
    quiet: Quiet
    #: Seconds that one stage may take.
    timeout: float
    #: Where indexes are kept.
    indexes: Path

    @property
    def build_threads(self) -> int:
        return max(self.threads)


class Contestant(ABC):
    """One index of one library, on any data set."""

    name: str

    @abstractmethod
    def check(self) -> None:
        """Raises where it cannot run at all, before anything is measured."""

    @abstractmethod
    def identity(self, dataset: Dataset) -> dict[str, Any]:
        """What an index that was built before has to be of, to be used again."""

    @abstractmethod
    def build(self, dataset: Dataset, plan: Plan, folder: Path) -> dict[str, Any]:
        """Builds, saves in the empty folder, and says how long it took."""

    @abstractmethod
    def tune(self, dataset: Dataset, plan: Plan, folder: Path) -> dict[str, Any]:
        """The setting for each target that it reaches, and the bytes that it takes."""

    @abstractmethod
    def measure(
        self, dataset: Dataset, plan: Plan, folder: Path, settings: dict[str, Any]
    ) -> dict[str, Any]:
        """One round at these settings: rates, latencies and the load of others, by target."""

    def prepare(self, dataset: Dataset, plan: Plan, fresh: bool) -> dict[str, Any]:
        """Builds and tunes, or takes what was built and tuned for the same before."""
        folder = plan.indexes / dataset.name / self.name
        record = folder.with_suffix(".json")
        wanted = {**self.identity(dataset), "data": dataset.fingerprint(), "metric": dataset.metric}
        known = json.loads(record.read_text()) if record.is_file() and not fresh else {}
        if known.get("of") != wanted or not folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            record.unlink(missing_ok=True)
            folder.mkdir(parents=True)
            known = {"of": wanted, "build": self.build(dataset, plan, folder), "tuned": {}}
            write_json(record, known)
        asked = json.dumps([plan.k, plan.targets, self.tuned_with()])
        if asked not in known["tuned"]:
            known["tuned"][asked] = self.tune(dataset, plan, folder)
            write_json(record, known)
        return {"build": known["build"], **known["tuned"][asked]}

    def tuned_with(self) -> str:
        """What settings depend on beyond the index: they are found again when it changes."""
        return ""


class Library(Contestant):
    """A library that is called from Python."""

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self) -> None:
        if self.name not in engines.ENGINES:
            raise ContestantError(
                f"there is no engine {self.name!r}: choose from {', '.join(engines.ENGINES)}"
            )

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        del dataset
        return {"engine": self.name, "version": engines.version(self.name)}

    def build(self, dataset: Dataset, plan: Plan, folder: Path) -> dict[str, Any]:
        return self.work("build", dataset, plan, folder, {"build_threads": plan.build_threads})

    def tune(self, dataset: Dataset, plan: Plan, folder: Path) -> dict[str, Any]:
        request = {"k": plan.k, "targets": plan.targets}
        return self.work("tune", dataset, plan, folder, request)

    def measure(
        self, dataset: Dataset, plan: Plan, folder: Path, settings: dict[str, Any]
    ) -> dict[str, Any]:
        request = {
            "k": plan.k,
            "threads": plan.threads,
            "seconds": plan.seconds,
            "settings": settings,
            "quiet": {"limit": plan.quiet.limit, "patience": plan.quiet.patience},
        }
        return self.work("measure", dataset, plan, folder, request)

    def work(
        self, stage: str, dataset: Dataset, plan: Plan, folder: Path, request: dict[str, Any]
    ) -> dict[str, Any]:
        """Runs a stage in a worker."""
        with tempfile.TemporaryDirectory() as scratch:
            asked, answered = Path(scratch) / "request.json", Path(scratch) / "result.json"
            about = {
                "stage": stage,
                "engine": self.name,
                "data": dataset.name,
                "metric": dataset.metric,
                "data_folder": str(dataset.folder),
                "folder": str(folder),
            }
            asked.write_text(json.dumps({**about, **request}))
            command = [sys.executable, "-m", "peers.worker", str(asked), str(answered)]
            run(command, f"{stage} of {self.name}", plan.timeout, PACKAGES)
            if not answered.is_file():
                # A library may end the process by itself, and successfully.
                raise ContestantError(f"{stage} of {self.name} ended without a result")
            return json.loads(answered.read_text())


def run(command: list[str], what: str, timeout: float, folder: Path) -> None:
    """Runs a program to its end; what it says goes to our standard error."""
    try:
        done = subprocess.run(command, cwd=folder, timeout=timeout, stdout=STDERR, check=False)
    except subprocess.TimeoutExpired:
        raise ContestantError(
            f"{what} took longer than {timeout:.0f} s: give it longer with --timeout"
        ) from None
    if done.returncode != 0:
        raise ContestantError(f"{what} failed with status {done.returncode}: see above")


def write_json(path: Path, value: Any) -> None:
    """Writes all of the file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1))
    partial.replace(path)

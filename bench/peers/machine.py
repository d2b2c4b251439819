"""What the machine does besides us: processor time of others, waiting for quiet, memory, disk."""

import ctypes
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

Result = TypeVar("Result")

#: Clock ticks a second in /proc/stat.
TICKS = os.sysconf("SC_CLK_TCK")
#: Seconds over which the load of others is looked at before a measurement. Ticks are of 10 ms, so
#: that a shorter look could not tell 0.05 of a core from nothing.
SAMPLE_SECONDS = 0.4


@dataclass(frozen=True)
class Quiet:
    """What counts as a quiet machine, and how long to try for one."""

    #: Cores that others may use.
    limit: float
    #: Seconds after which a disturbed measurement is taken as it is, and marked.
    patience: float


def busy_seconds() -> float:
    """Seconds that all cores together have spent on anything, stolen time included."""
    with Path("/proc/stat").open() as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / TICKS


def own_seconds() -> float:
    """Processor seconds of this process and of the children it has waited for."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Stopwatch:
    """Times a block: `seconds` by the clock, `cpu_seconds` of ours, `foreign` cores of others."""

    seconds = 0.0
    cpu_seconds = 0.0
    foreign = 0.0

    def __enter__(self) -> Self:
        self._busy, self._own, self._start = busy_seconds(), own_seconds(), time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = own_seconds() - self._own
        others = busy_seconds() - self._busy - self.cpu_seconds
        self.foreign = max(0.0, others) / self.seconds


def wait_until_quiet(quiet: Quiet) -> None:
    """Returns when others use less than the limit, or when patience is at its end."""
    end = time.monotonic() + quiet.patience
    while time.monotonic() < end:
        with Stopwatch() as watch:
            time.sleep(SAMPLE_SECONDS)
        if watch.foreign < quiet.limit:
            return


def quietest(measure: Callable[[], Result], quiet: Quiet) -> tuple[Result, Stopwatch]:
    """Measures until a run was undisturbed or patience is at its end; the quietest run counts."""
    end = time.monotonic() + quiet.patience
    best: tuple[Result, Stopwatch] | None = None
    while True:
        wait_until_quiet(Quiet(quiet.limit, end - time.monotonic()))
        with Stopwatch() as watch:
            result = measure()
        if best is None or watch.foreign < best[1].foreign:
            best = result, watch
        if best[1].foreign < quiet.limit or time.monotonic() >= end:
            return best


def memory() -> dict[str, int]:
    """Bytes of this process in memory: `resident` of its own, `mapped` of files."""
    fields = {"RssAnon": "resident", "RssFile": "mapped"}
    found = {}
    with Path("/proc/self/status").open() as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in fields:
                found[fields[name]] = int(value.split()[0]) * 1024
    return found


def release_freed_memory() -> None:
    """Gives memory that was freed back to the system, so that it is not counted."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def disk_bytes(folder: Path) -> int:
    """Bytes that the files below a folder take on disk: holes are not counted."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def describe() -> dict[str, Any]:
    """The machine in words, to stand beside the figures."""
    with Path("/proc/cpuinfo").open() as cpuinfo:
        models = [
            line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")
        ]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_bytes": pages,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

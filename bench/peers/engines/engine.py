"""What a library has to offer to be measured."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

#: Links a node of a graph, and candidates while it is built: those of hnswlib's own examples, the
#: same for every graph here and for ours.
GRAPH_LINKS = 16
GRAPH_CANDIDATES = 200

Parameters = Mapping[str, int]


@dataclass(frozen=True)
class Dial:
    """A search parameter that buys recall: a larger value finds more and takes longer."""

    name: str
    low: int
    high: int
    #: Other parameters that stay as they are meanwhile.
    fixed: Parameters = field(default_factory=dict)

    def range(self, k: int) -> tuple[int, int]:
        """The values that may be tried where k neighbours are wanted."""
        return self.low, max(self.low, self.high, k)

    def at(self, value: int) -> dict[str, int]:
        return {self.name: value, **self.fixed}


class Candidates(Dial):
    """A number of candidates, of which there have to be at least as many as neighbours."""

    def range(self, k: int) -> tuple[int, int]:
        low, high = super().range(k)
        return max(low, k), high


class Engine(ABC):
    """One library with one kind of index. Rows are known by their positions."""

    #: Each is tried, and the quickest that reaches a target is taken. None: the index is exact.
    dials: tuple[Dial, ...] = ()

    @abstractmethod
    def build(self, base: np.ndarray, metric: str, threads: int, folder: Path) -> None:
        """Builds the index of `base` (rows x dimension); `folder` is empty and may be used."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Leaves in `folder` all that `load` needs."""

    @abstractmethod
    def load(self, folder: Path, metric: str, dimension: int) -> None:
        """Makes the index that was saved ready for searches."""

    def set(self, parameters: Parameters) -> None:
        """Sets search parameters: only called where there are dials."""
        raise NotImplementedError(f"{type(self).__name__} has no search parameters")

    def prepare(self, queries: np.ndarray, k: int) -> Any:
        """The queries as the library takes them, with the parameters set before; not timed."""
        del k
        return queries

    @abstractmethod
    def search(self, prepared: Any, k: int, threads: int) -> np.ndarray:
        """The ids found, a row for each query, nearest first; -1 where there is none."""

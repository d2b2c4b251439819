#!/usr/bin/env python3
"""Measures our indexes and those of other libraries in turns, in one run, on this machine.

    python3 bench/peers/compare.py --data minilm --engines hnswlib,ours-hnsw

The first use makes a virtual environment with the other libraries. See README.md beside this file.
"""

import sys
from pathlib import Path


def main() -> int:
    """Runs the comparison inside the environment that has the peers."""
    # The folder above is the one from which `peers` is a package.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from peers import environment

    environment.enter(Path(__file__).resolve())
    from peers import command

    return command.main()


if __name__ == "__main__":
    sys.exit(main())

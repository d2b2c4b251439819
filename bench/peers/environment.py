"""The virtual environment of the peers: made on first use, and again when the versions change.

Only the standard library is used here: this runs before the environment exists.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"
#: Which requirements an environment was made of.
STAMP = "arrwdb-bench-requirements"


def home() -> Path:
    """Where everything large is kept: the environment, data, indexes and results."""
    return Path(os.environ.get("ARRWDB_BENCH", Path.home() / ".cache" / "arrwdb-bench"))


def enter(program: Path) -> None:
    """Goes on in the environment: replaces this process unless it runs there already."""
    # Whatever runs this first need not be the Python that the rest is written for.
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit("the peers need Python 3.11 or later: run this with a newer one")
    folder = home() / "venv"
    if Path(sys.prefix).resolve() == folder.resolve():
        return
    prepare(folder)
    python = str(folder / "bin" / "python")
    os.execv(python, [python, str(program), *sys.argv[1:]])


def prepare(folder: Path) -> None:
    """Makes the environment, or brings it to the versions asked for."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp = folder / STAMP
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that start at once must not install over each other.
    with (folder.parent / "venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        print(f"installing {REQUIREMENTS.name} into {folder}", file=sys.stderr, flush=True)
        if not (folder / "bin" / "pip").is_file():
            venv.create(folder, with_pip=True)
        install = [str(folder / "bin" / "pip"), "install", "--quiet"]
        install += ["--disable-pip-version-check", "--requirement", str(REQUIREMENTS)]
        if subprocess.run(install, check=False).returncode != 0:
            sys.exit(
                f"the peers could not be installed into {folder}: see the message of pip above; "
                "they are built for Python 3.11 on x86-64 Linux"
            )
        stamp.write_text(wanted)

"""The whole run, on a small set: real libraries, and a stand-in for our program."""

import contextlib
import io
import json
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

from peers import command, engines

STAND_IN = Path(__file__).resolve().parent / "fake_indexes.py"


class ComparisonTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        random = np.random.default_rng(3)
        (self.folder / "data").mkdir()
        for kind, rows in (("base", 3000), ("query", 40)):
            table = random.standard_normal((rows, 16), dtype=np.float32)
            np.save(self.folder / "data" / f"x_{kind}.npy", table)
        self.program = self.folder / "indexes.py"
        shutil.copy(STAND_IN, self.program)
        self.program.chmod(0o755)

    def run_command(self, *options: str) -> tuple[int, str, str]:
        out, errors = io.StringIO(), io.StringIO()
        arguments = ["compare.py", "--data", "x", "--rounds", "2", "--seconds", "0.02"]
        arguments += ["--patience", "0", "--data-folder", str(self.folder / "data")]
        arguments += ["--index-folder", str(self.folder / "indexes")]
        arguments += ["--json", str(self.folder / "out.json"), "--program", str(self.program)]
        with (
            mock.patch("sys.argv", [*arguments, *options]),
            contextlib.redirect_stdout(out),
            mock.patch("peers.command.progress", lambda text: print(text, file=errors)),
            contextlib.redirect_stderr(errors),
        ):
            status = command.main()
        return status, out.getvalue(), errors.getvalue()

    def results(self) -> dict[str, dict]:
        written = json.loads((self.folder / "out.json").read_text())
        return written["datasets"]["x"]["engines"]

    def test_every_library_is_built_tuned_and_measured(self) -> None:
        status, text, errors = self.run_command("--engines", ",".join(engines.ENGINES))
        self.assertEqual(status, 0, errors)
        found = self.results()
        self.assertEqual(set(found), set(engines.ENGINES))
        for name, result in found.items():
            self.assertEqual(len(result["rounds"]), 2)
            self.assertGreater(result["bytes"]["file"], 0)
            self.assertGreater(result["build"]["seconds"], 0)
            for target, setting in result["settings"].items():
                wanted = 1.0 if target == "exact" else float(target)
                self.assertGreaterEqual(setting["recall"], wanted, name)
                figures = result["summary"][target]
                self.assertGreater(figures["qps"]["1"], 0)
                self.assertLessEqual(figures["p50_ms"], figures["p99_ms"])
            self.assertIn(f"| {name} |", text)
            # 8 bits alone may not reach the highest target.
            self.assertTrue({"exact", "0.95"} & set(result["settings"]), name)

    def test_ours_is_driven_as_agreed_and_told_beside_hnswlib(self) -> None:
        chosen = ("--engines", "hnswlib,ours-hnsw")
        status, text, errors = self.run_command(*chosen)
        self.assertEqual(status, 0, errors)
        ours = self.results()["ours-hnsw"]
        self.assertEqual(ours["settings"]["0.9"], {"parameters": {"ef_search": 90}, "recall": 0.9})
        # Out of its reach, and so said.
        self.assertNotIn("0.99", ours["settings"])
        self.assertRegex(text, r"\| ours-hnsw \|.*\| 0.99 \| not reached \|")
        self.assertEqual(ours["build"]["seconds"], 1.5)
        self.assertEqual(ours["bytes"]["mapped"], 2_000_000)
        self.assertAlmostEqual(ours["summary"]["0.95"]["qps"]["2"], 2 * 100_000 / 95)
        calls = self.program.with_suffix(".calls")
        expected = ["save sweep", "load targets", "load sweep", "load sweep"]
        self.assertEqual(calls.read_text().splitlines(), expected)

        # A second run builds and tunes nothing; another program is tuned again.
        self.assertEqual(self.run_command(*chosen)[0], 0)
        self.assertEqual(calls.read_text().splitlines()[4:], expected[2:])
        self.program.write_text(self.program.read_text() + "\n# changed\n")
        self.assertEqual(self.run_command(*chosen)[0], 0)
        self.assertEqual(calls.read_text().splitlines()[6:], expected[1:])
        self.assertEqual(self.run_command(*chosen, "--fresh")[0], 0)
        self.assertEqual(calls.read_text().splitlines()[9:], expected)

    def test_an_index_can_be_described(self) -> None:
        status, _, errors = self.run_command(
            "--engines", "", "--ours", 'ours-wide={"index_type": "hnsw", "index_config": {"M": 32}}'
        )
        self.assertEqual(status, 0, errors)
        index = json.loads((self.folder / "indexes" / "x" / "ours-wide.json").read_text())
        self.assertEqual(index["build"]["spec"]["index_config"], {"M": 32})
        for wrong in ('ours-x={"M": 1}', 'x={"index_type": "hnsw"}', "ours-x", "ours-x=[1]"):
            self.assertEqual(self.run_command("--engines", "", "--ours", wrong)[0], 2, wrong)

    def test_what_cannot_take_part_is_said_before_anything_is_measured(self) -> None:
        status, _, errors = self.run_command("--engines", "hnswlib,nonsense")
        self.assertEqual(status, 2)
        self.assertIn("there is no engine 'nonsense'", errors)
        self.program.unlink()
        status, _, errors = self.run_command("--engines", "hnswlib,ours-hnsw")
        self.assertEqual(status, 2)
        self.assertIn("cargo build --release -p arrwdb-bench --bin indexes", errors)
        self.assertFalse((self.folder / "indexes").exists())

    def test_an_answer_that_is_not_as_agreed_is_said_to_be_so(self) -> None:
        stand_in = self.program.read_text()
        self.program.write_text(stand_in.replace('"p99_ms"', '"p98_ms"'))
        status, _, errors = self.run_command("--engines", "ours-hnsw")
        self.assertEqual(status, 1)
        self.assertIn("is without p99_ms", errors)
        self.program.write_text(stand_in.replace("json.dumps(answer)", "'{'"))
        status, _, errors = self.run_command("--engines", "ours-hnsw")
        self.assertEqual(status, 1)
        self.assertIn("wrote no answer as agreed", errors)

    def test_one_that_fails_leaves_the_others_their_figures(self) -> None:
        self.program.write_text("#!/bin/sh\nexit 3\n")
        status, text, errors = self.run_command("--engines", "hnswlib,ours-hnsw")
        self.assertEqual(status, 1)
        self.assertIn("failed with status 3", errors)
        self.assertIn("Failed: ours-hnsw on x failed with status 3", text)
        self.assertEqual(len(self.results()["hnswlib"]["rounds"]), 2)


if __name__ == "__main__":
    unittest.main()

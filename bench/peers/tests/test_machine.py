import itertools
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from peers import machine


class MachineTest(unittest.TestCase):
    def test_own_work_is_not_foreign(self) -> None:
        with (
            mock.patch("peers.machine.busy_seconds", side_effect=[10.0, 13.0]),
            mock.patch("peers.machine.own_seconds", side_effect=[1.0, 2.0]),
            mock.patch("time.perf_counter", side_effect=[0.0, 4.0]),
            machine.Stopwatch() as watch,
        ):
            pass
        self.assertEqual((watch.seconds, watch.cpu_seconds, watch.foreign), (4.0, 1.0, 0.5))

    def measured(self, patience: float, *loads: float) -> tuple[int, float]:
        """What `quietest` takes while others use so much, over and over from the last on."""
        others = itertools.chain(loads, itertools.repeat(loads[-1]))
        number = itertools.count()

        class Watch(machine.Stopwatch):
            def __exit__(self, *_: object) -> None:
                self.foreign = next(others)

        with (
            mock.patch("peers.machine.Stopwatch", Watch),
            mock.patch("peers.machine.wait_until_quiet"),
        ):
            taken, watch = machine.quietest(lambda: next(number), machine.Quiet(0.05, patience))
        return taken, watch.foreign

    def test_measures_until_it_is_quiet(self) -> None:
        self.assertEqual(self.measured(60, 0.9, 0.5, 0.01, 0.0), (2, 0.01))

    def test_takes_the_quietest_when_patience_ends(self) -> None:
        self.assertEqual(self.measured(0.0, 0.9), (0, 0.9))
        self.assertEqual(self.measured(0.05, 0.9, 0.3, 0.8), (1, 0.3))

    def test_waits_no_longer_than_patience(self) -> None:
        with mock.patch("peers.machine.busy_seconds", side_effect=itertools.count(0, 100)):
            start = time.monotonic()
            machine.wait_until_quiet(machine.Quiet(0.05, 0.1))
        self.assertLess(time.monotonic() - start, 5)

    def test_bytes_on_disk_are_of_all_files_below(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "a" / "b").mkdir(parents=True)
            (Path(folder) / "a" / "b" / "c").write_bytes(b"x" * 100_000)
            self.assertGreaterEqual(machine.disk_bytes(Path(folder)), 98_304)
            self.assertLess(machine.disk_bytes(Path(folder)), 200_000)


if __name__ == "__main__":
    unittest.main()

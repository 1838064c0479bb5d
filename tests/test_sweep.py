"Several processes on one sweep, one of them killed, and one that only retries."

import os
import signal
import subprocess
import sys
import time

from rcg.sweep import Sweep, claim, progress, work

SCRIPT = """
import sys, time
from pathlib import Path
from rcg.sweep import Sweep, work

folder, log = Path(sys.argv[1]), Path(sys.argv[2])

def cell(settings):
    start = time.time()
    if settings["x"] == 5 and not (folder / "repaired").exists():
        raise ValueError("five does not work")
    time.sleep(0.3)
    with open(log, "a") as file:
        file.write(f"{settings['x']} {start} {time.time()}\\n")
    return settings["x"] ** 2

print("ready", flush=True)
work(Sweep(folder, [{"x": x} for x in range(12)], stale=2), cell, poll=0.2)
"""


def test_processes_share_a_sweep(tmp_path):
    folder, log = tmp_path / "sweep", tmp_path / "log"
    start = lambda: subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(log)], stdout=subprocess.PIPE)
    victim = start()
    assert victim.stdout.readline() == b"ready\n"
    while not list(folder.glob("*.claim")):
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert list(folder.glob("*.claim")), "the killed process should have left its claim"
    others = [start() for _ in range(3)]
    assert [p.wait() for p in others] == [0, 0, 0]

    cells = [{"x": x} for x in range(12)]
    sweep = Sweep(folder, cells, stale=2)
    assert [sweep.result(cell) for cell in cells] == [None if x == 5 else x**2 for x in range(12)]
    runs = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(x) for x, _, _ in runs) == [x for x in range(12) if x != 5], "a cell was done twice, or not at all"
    assert "five does not work" in progress(sweep) and "1 failed" in progress(sweep)
    assert not list(folder.glob("*.claim"))

    done = []
    assert work(sweep, lambda cell: done.append(cell) or 25, failed="only") == [] and done == [{"x": 5}]
    assert sweep.result({"x": 5}) == 25 and "failed" not in progress(sweep)


def test_a_cell_in_other_hands_is_left_to_them(tmp_path):
    sweep = Sweep(tmp_path, [{"x": 1}, {"x": 2}])
    first = next(iter(sweep.cells))
    with claim(sweep.file(first, "claim")):
        assert sweep.state(first) == "running" and "1 running" in progress(sweep)
        work(sweep, lambda cell: cell["x"], wait=False)
        assert sweep.result({"x": 1}) is None and sweep.result({"x": 2}) == 2
    assert sweep.state(first) == "waiting"


def test_an_abandoned_claim_goes_to_one(tmp_path):
    file = tmp_path / "cell.claim"
    file.write_text("elsewhere 1\n")
    os.utime(file, (0, 0))
    with claim(file) as first, claim(file) as second:
        assert first and not second


def test_an_interrupted_cell_is_waiting(tmp_path):
    sweep = Sweep(tmp_path, [{"x": 1}])

    def interrupted(cell):
        raise KeyboardInterrupt

    try:
        work(sweep, interrupted)
    except KeyboardInterrupt:
        pass
    assert list(map(sweep.state, sweep.cells)) == ["waiting"]

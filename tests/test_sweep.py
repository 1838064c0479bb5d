"Several processes on one sweep, one of them killed, and one that only retries."

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import execute

from rcg.attack import Attack
from rcg.running.files import load_json
from rcg.running.runs import claim, is_claimed
from rcg.running.sweeps import Sweep, progress, work

SCRIPT = """
import sys, time
from pathlib import Path
from rcg.running.sweeps import Sweep, work

folder, log = Path(sys.argv[1]), Path(sys.argv[2])

def cell(settings):
    x = settings["x"]
    with open(log, "a") as file:
        file.write(f"{x}\\n")
    while x == 0 and (folder / "hold").exists():
        time.sleep(0.01)
    if x == 5 and not (folder / "repaired").exists():
        raise ValueError("five does not work")
    time.sleep(0.3)
    return x**2

work(Sweep(folder, [{"x": x} for x in range(12)]), cell, poll=0.2)
"""


def until(condition):
    while not condition():
        time.sleep(0.01)


def test_processes_share_a_sweep(tmp_path):
    folder, log = tmp_path / "sweep", tmp_path / "log"
    cells = [{"x": x} for x in range(12)]
    sweep = Sweep(folder, cells)
    first = next(iter(sweep.cells))
    folder.mkdir()
    (folder / "hold").touch()
    start = lambda: subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(log)]
    )
    victim = start()
    until(log.exists)
    assert sweep.state(first) == "running", (
        "the first cell should be in the victim's hands"
    )
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert sweep.state(first) == "waiting", (
        "a cell is free at once when its process is killed"
    )
    (folder / "hold").unlink()
    others = [start() for _ in range(3)]
    assert [p.wait() for p in others] == [0, 0, 0]

    assert [sweep.result(cell) for cell in cells] == [
        None if x == 5 else x**2 for x in range(12)
    ]
    begun = sorted(int(x) for x in log.read_text().split())
    assert begun == [0, *range(12)], (
        "only the killed process's cell should have been begun twice"
    )
    assert "five does not work" in progress(sweep) and "1 failed" in progress(sweep)
    assert not any(is_claimed(sweep.lock(key)) for key in sweep.cells)

    done = []
    assert work(
        sweep, lambda cell: done.append(cell) or 25, failed="only"
    ) == [] and done == [{"x": 5}]
    assert sweep.result({"x": 5}) == 25 and "failed" not in progress(sweep)


def test_a_cell_in_other_hands_is_left_to_them(tmp_path):
    sweep = Sweep(tmp_path, [{"x": 1}, {"x": 2}])
    first = next(iter(sweep.cells))
    with claim(sweep.lock(first)):
        assert sweep.state(first) == "running" and "1 running" in progress(sweep)
        work(sweep, lambda cell: cell["x"], wait=False)
        assert sweep.result({"x": 1}) is None and sweep.result({"x": 2}) == 2
    assert sweep.state(first) == "waiting"


def test_a_claim_is_given_back_even_if_children_live_on(tmp_path):
    "Processes that load data inherit the lock's file."
    file = tmp_path / "cell"
    with claim(file):
        child = os.fork()
        if not child:
            time.sleep(2)
            os._exit(0)
        assert is_claimed(file)
    assert not is_claimed(file)
    os.waitpid(child, 0)


def test_a_folder_without_locks_is_refused(tmp_path, monkeypatch):
    from filelock import FileLock, Timeout

    def refuse(self, **options):
        raise Timeout(self.lock_file)

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(OSError, match="without file locks"):
        work(Sweep(tmp_path, [{"x": 1}]), lambda cell: cell)


def test_a_damaged_result_is_named(tmp_path):
    sweep = Sweep(tmp_path, [{"x": 1}, {"x": 2}])
    first = sweep.file(next(iter(sweep.cells)), "json")
    first.write_text("{half")
    with pytest.raises(OSError, match=f"{first.name}.*delete it to do the cell again"):
        work(sweep, lambda cell: cell["x"])


@pytest.mark.parametrize(
    "content, said",
    [
        ("[]", "the value"),
        ("null", "the value"),
        ("{}", "seconds: Field required"),
        ('{"result": 1}', "seconds: Field required"),
        ('{"result": 1, "seconds": "a"}', "seconds: "),
        ('{"result": 1, "seconds": NaN}', "seconds: "),
    ],
)
def test_what_is_no_result_is_named(tmp_path, content, said):
    sweep = Sweep(tmp_path, [{"x": 1}])
    (key,) = sweep.cells
    for ending, expected in (("failed.json", "the value|error: "), ("json", said)):
        file = sweep.file(key, ending)
        file.write_text(content)
        for read in (progress, lambda s: [s.stored(key, ending)]):
            with pytest.raises(OSError, match=f"{file.name} .*({expected}).*delete it"):
                read(sweep)


def test_no_setting_breaks_the_table(tmp_path):
    sweep = Sweep(tmp_path, [{"x": "a|b"}, {"x": "two\nlines"}])
    table = progress(sweep).splitlines()
    assert table[2:4] == ["| a\\|b | waiting |  |", "| two lines | waiting |  |"]


def test_a_result_that_is_no_json_is_a_failure(tmp_path):
    sweep = Sweep(tmp_path, [{"x": 1}, {"x": 2}])
    work(sweep, lambda cell: {"fid": float("nan") if cell["x"] == 1 else 2.5})
    assert list(map(sweep.state, sweep.cells)) == ["failed", "done"]
    assert "value.result.fid is nan" in progress(sweep)


def test_an_interrupted_cell_is_waiting(tmp_path):
    sweep = Sweep(tmp_path, [{"x": 1}])

    def interrupted(cell):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(sweep, interrupted)
    assert list(map(sweep.state, sweep.cells)) == ["waiting"]


ABLATION = dict(
    preset="digits",
    reference="digits",
    extractor="pixels",
    draws=2,
    checkpoints=[1, 2],
    best=2,
    threats=[],
    attack_steps=[],
    robust=["Linf", 0.1, 1],
    scales=[0.0, 1.0],
    table4_scale=1.0,
    denoiser_settings={"schedule": 2, "batch_size": 8},
    classifier_settings={"steps": 2, "schedule": 2, "batch_size": 8},
    sampling_settings={"images": 10, "steps": 2},
)


def ablation(folder: Path, name: str, **changes) -> dict[str, dict]:
    "Run the notebook; returns what was measured, by the ledger's file."
    places = dict(folder=str(folder / "networks"), results=str(folder / name))
    settings = ABLATION | places | changes
    execute("experiments/ablation_cifar10.ipynb", **settings)
    return {f.name: load_json(f) for f in (folder / name / "measured").glob("*.json")}


def test_the_ablation_measures_only_networks_that_are_trained(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no attack today")

    monkeypatch.setattr(Attack, "__call__", broken)  # no robust training can succeed
    first = ablation(tmp_path, "ledger")
    kinds = {
        (cell["settings"]["guidance"], cell["settings"]["iterations"], "result" in cell)
        for cell in first.values()
    }
    assert kinds == {
        ("none", 1, True),
        ("none", 2, True),
        ("vanilla", 2, True),
        ("robust", 2, False),
    }
    (failed,) = (cell for cell in first.values() if "error" in cell)
    assert "the robust of this entry is not trained" in failed["error"]

    # Ledger lost, other loading processes, another order: nothing is trained anew.
    files = sorted((tmp_path / "networks").glob("*/model*.safetensors"))
    before = [file.stat().st_mtime_ns for file in files]
    same = ABLATION["classifier_settings"] | {"workers": 0, "save_every": 1}
    second = ablation(tmp_path, "again", classifier_settings=same, scales=[1.0, 0.0])
    assert first.keys() == second.keys()
    for key, cell in first.items():
        assert second[key].get("result") == cell.get("result")
    assert [file.stat().st_mtime_ns for file in files] == before

"The study of ways to train at a small setting, killed on the way and continued."

import os
import signal
import subprocess
import sys
import time

import yaml
from conftest import ROOT, execute

from rcg.running.files import load_json, read_table

SMALL = yaml.safe_load((ROOT / ".ci" / "training-study-small.yaml").read_text())
NOTEBOOK = ROOT / "nbs" / "experiments" / "training_study.ipynb"


def stored(folder) -> dict:
    "The results of a sweep, with the times at which they were written."
    return {f: f.stat().st_mtime_ns for f in folder.glob("*.json")}


def killed_after_first_network(settings: dict):
    "Start the notebook in a process of its own, and kill it with its kernel."
    parameters = [v for k in settings for v in ("-y", f"{k}: {settings[k]!r}")]
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), os.devnull]
    process = subprocess.Popen(
        [*command, "--cwd", str(NOTEBOOK.parent), *parameters],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    done = ROOT / settings["results"] / "trained"
    while process.poll() is None and not stored(done):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return stored(done)


def test_study_is_killed_and_continued(tmp_path):
    results = tmp_path / "results"
    settings = SMALL | dict(run_dir=str(tmp_path / "run"), results=str(results))
    before = killed_after_first_network(settings)
    assert before

    shown = execute("experiments/training_study.ipynb", **settings)
    ways, seeds = SMALL["only"], SMALL["seeds"]
    sweeps = {name: stored(results / name) for name in ("trained", "tuned", "reported")}
    counts = {name: len(files) for name, files in sweeps.items()}
    networks = len(ways) * (len(seeds) + len(SMALL["tuning_seeds"]))
    assert counts == {
        "trained": networks,
        "tuned": (len(ways) + 1) * len(SMALL["scales"]) * len(SMALL["tuning_seeds"]),
        "reported": (len(ways) + 2) * len(seeds),
    }
    assert before.items() <= sweeps["trained"].items()  # done before, so not again

    costs = {row["way"]: row for row in read_table(results / "costs.csv")}
    vanilla = costs["vanilla"]["seconds"] * SMALL["budget"]
    for row in costs.values():  # equal time, but for whole iterations
        assert abs(row["seconds"] * row["iterations"] - vanilla) <= row["seconds"]
    cells = [load_json(f) for f in sweeps["trained"]]
    for cell in cells:
        settings_of, result = cell["settings"], cell["result"]
        seen = settings_of["iterations"] * settings_of["batch_size"]
        if settings_of["way"] == "vanilla" and result["backward"] > 0:
            assert result["forward"] == result["backward"] == seen
    for way in ways:
        assert f"| {way} |" in shown

    again = execute("experiments/training_study.ipynb", **settings)
    assert {name: stored(results / name) for name in sweeps} == sweeps
    tables = [line for line in shown.splitlines() if line.startswith("| ")]
    assert all(line in again for line in tables)

"The study of ways to train at a small setting, interrupted and continued."

import yaml
from conftest import ROOT, execute

from rcg.running.files import load_json, read_table

SMALL = yaml.safe_load((ROOT / ".ci" / "training-study-small.yaml").read_text())
NOTEBOOK = "experiments/training_study.ipynb"


def stored(folder) -> dict:
    "The results of a sweep, with the times at which they were written."
    return {f: f.stat().st_mtime_ns for f in folder.glob("*.json")}


def vanilla_cell(folder):
    "The first result of vanilla training in a sweep."
    way = lambda file: load_json(file)["settings"]["way"]
    return min(file for file in stored(folder) if way(file) == "vanilla")


def test_study_is_interrupted_and_continued(tmp_path):
    results = tmp_path / "results"
    settings = SMALL | dict(run_dir=str(tmp_path / "run"), results=str(results))
    shown = execute(NOTEBOOK, **settings)
    ways, seeds = SMALL["only"], SMALL["seeds"]
    sweeps = {name: stored(results / name) for name in ("trained", "tuned", "reported")}
    counts = {name: len(files) for name, files in sweeps.items()}
    networks = len(ways) * (len(seeds) + len(SMALL["tuning_seeds"]))
    assert counts == {
        "trained": networks,
        "tuned": (len(ways) + 1) * len(SMALL["scales"]) * len(SMALL["tuning_seeds"]),
        "reported": (len(ways) + 2) * len(seeds),
    }

    costs = {row["way"]: row for row in read_table(results / "costs.csv")}
    vanilla = costs["vanilla"]["seconds"] * SMALL["budget"]
    for row in costs.values():  # equal time, but for whole iterations
        assert abs(row["seconds"] * row["iterations"] - vanilla) <= row["seconds"]
    for file in sweeps["trained"]:
        cell = load_json(file)
        settings_of, result = cell["settings"], cell["result"]
        seen = settings_of["iterations"] * settings_of["batch_size"]
        if settings_of["way"] == "vanilla":
            assert result["forward"] == result["backward"] == seen
    for way in ways:
        assert f"| {way} |" in shown

    # as if killed after a training, before its network was measured, and in sampling
    lost = [vanilla_cell(results / name) for name in sweeps]
    for file in lost:
        file.unlink()
    again = execute(NOTEBOOK, **settings)
    for name, files in sweeps.items():
        now = stored(results / name)
        assert now.keys() == files.keys()
        assert all(f in lost for f in files if now[f] != files[f])
    assert load_json(lost[0])["result"]["seconds"] is None  # nobody has measured them
    tables = [line for line in shown.splitlines() if line.startswith("| ")]
    other = [line for line in tables if line not in again]
    assert len(other) <= 1 and all(f"| {SMALL['budget']} |" in line for line in other)

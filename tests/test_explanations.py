"The explanations at a small setting, and that they show no results of other settings."

import pytest
from conftest import execute

from rcg.running.files import read_table


def chosen(path, **wanted) -> list[dict]:
    "The rows of a table with these values."
    return [row for row in read_table(path) if wanted.items() <= row.items()]


@pytest.mark.parametrize(
    "name, parameter, was, value",
    [
        ("early_stopping", "iterations", 300, 3000),
        ("oracle", "iterations", 1500, 1501),
        ("gradient_score", "images", 500, 100),
    ],
)
def test_results_of_other_settings_are_refused(name, parameter, was, value):
    with pytest.raises(ValueError) as error:
        execute(f"explanations/{name}.ipynb", **{parameter: value})
    assert f"other settings ({parameter} was {was}, is {value}" in str(error.value)


def test_early_stopping(tmp_path):
    results = tmp_path / "results"
    small = dict(iterations=2, every=2, seeds=[0], results=str(results))
    shown = execute("explanations/early_stopping.ipynb", **small)
    assert "After 2 iterations" in shown and "ε = 3, full" in shown
    clean = chosen(results / "seed-0.csv", images="clean")
    attacked = chosen(results / "seed-0.csv", images="attacked")
    assert len(clean) == len(attacked) == 5 * 3  # trainings, noise levels
    for before, after in zip(clean, attacked):  # no attack makes a wrong answer right
        assert after["accuracy"] <= before["accuracy"]
    assert any(a["accuracy"] < b["accuracy"] for b, a in zip(clean, attacked))
    for row in chosen(results / "seed-0.csv", noise="high"):
        assert abs(row["loss"] - 2.3) < 0.3  # log 10: nothing is learned yet


def test_oracle(tmp_path):
    results = tmp_path / "results"
    small = dict(
        iterations=3,
        sizes=[50],
        budgets=[0.0, 0.3],
        seeds=[0],
        timesteps=[100, 300, 600],
        scales=[1.0],
        samples=150,
        results=str(results),
    )
    shown = execute("explanations/oracle.ipynb", **small)
    table = [
        line.split("|")[2:-1]
        for line in shown.splitlines()
        if "dimensions" in line and line.startswith("|")
    ]
    for accuracy in table:  # of the exact classifier: noise only hides the class
        at_100, at_300, at_600 = map(float, accuracy)
        assert at_100 > at_300 > at_600
    assert len(table) == 3
    untrained = dict(points=50, eps=0.0, times=1)
    for data, chance in (("plane", 1 / 3), ("subspace", 0.1), ("isotropic", 0.1)):
        (guided,) = chosen(results / "guided.csv", data=data, points=0)
        (vanilla,) = chosen(results / "guided.csv", data=data, **untrained)
        assert guided["accuracy"] > 0.9 and vanilla["accuracy"] < chance + 0.3
        mean = {"plane": 1.25}.get(data, 7.97)  # of the χ distribution
        assert abs(guided["distance"] / mean - 1) < 0.15


def test_gradient_score(tmp_path):
    results = tmp_path / "results"
    small = dict(
        budgets=[0.0, 1.0],
        lengths=[2, 4],
        seeds=[0, 1],
        scales=[0.0, 1.0],
        images=12,
        scored=12,
        results=str(results),
    )
    shown = execute("explanations/gradient_score.ipynb", **small)
    assert "| alignment |" in shown
    scores = chosen(results / "scores.csv", eps=1.0, iterations=4, seed=1)
    assert [row["t"] for row in scores] == [0, 100, 200, 300, 400]
    unguided = chosen(results / "distances.csv", scale=0.0, seeds="selection")
    assert len(unguided) == 8
    assert len({row["distance"] for row in unguided}) == 1  # whatever the classifier
    for fresh in chosen(results / "distances.csv", seeds="fresh"):
        classifier = {k: fresh[k] for k in ("eps", "iterations", "seed")}
        tried = chosen(results / "distances.csv", seeds="selection", **classifier)
        best = min(tried, key=lambda row: row["distance"])
        assert fresh["scale"] == best["scale"]
        assert fresh["distance"] != best["distance"]

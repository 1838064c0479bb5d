"The scale that a report recommends, and what an evaluation reports."

import pytest
import torch
from conftest import execute

from rcg.checkpoints import load_classifier
from rcg.data import digits, to_uint8
from rcg.metrics import ImageSet, Interval
from rcg.running.files import load_json
from rcg.running.images import save_images
from rcg.running.report import recommended_scale


def share(value: float, error: float) -> Interval:
    return Interval(value, value - error, value + error)


def test_the_smallest_scale_that_is_not_below_the_best():
    shares = {0.0: share(0.5, 0.05), 1.0: share(0.78, 0.05), 8.0: share(0.8, 0.05)}
    assert recommended_scale(shares) == 1.0
    assert recommended_scale(shares | {1.0: share(0.7, 0.05)}) == 8.0
    assert recommended_scale({0.0: share(0.5, 0.3), 4.0: share(0.6, 0.3)}) == 0.0


def test_an_evaluation_counts_what_is_recognised_and_what_is_copied(tmp_path):
    train, test = digits("train"), digits("test")
    rgb = lambda images: to_uint8(images).expand(-1, 3, -1, -1)
    copies = torch.cat([train.images[:10], test.images[:20]])
    labels = torch.cat([train.labels[:10], test.labels[:20]])
    save_images(tmp_path / "samples.npz", ImageSet(rgb(copies), labels))
    save_images(tmp_path / "training.npz", ImageSet(rgb(train.images), train.labels))
    load_classifier("digits-robust").save_pretrained(tmp_path / "judge")
    one = dict(method="copied", scale=0.0, path=str(tmp_path / "samples.npz"))
    settings = dict(samples=[one], reference="digits", extractor="pixels", draws=5)
    settings |= dict(results=str(tmp_path / "a"), judge=str(tmp_path / "judge"))
    said = execute(
        "evaluate.ipynb", training=str(tmp_path / "training.npz"), **settings
    )
    assert "| precision | recall | recognised | memorised |" in said
    row = load_json(tmp_path / "a" / "copied-0.json")
    judge = load_classifier("digits-robust")
    with torch.no_grad():
        right = judge(copies, torch.zeros(30, dtype=torch.int64)).argmax(1) == labels
    assert row["recognised"][0] == pytest.approx(right.double().mean().item())
    assert 10 / 30 <= row["memorised"][0] <= 12 / 30
    assert row["measured"]["extractor"] == "pixels"
    assert row["measured"]["resizing"] == "means over 8×8 fields"
    assert "5 draws" in row["measured"]["errors"]
    assert (row["images"], row["real"]) == (30, 360)
    settings["results"] = str(tmp_path / "b")
    with pytest.raises(ValueError, match="held_out has images of the training set"):
        execute(
            "evaluate.ipynb",
            **settings
            | {"training": "digits", "reference": str(tmp_path / "training.npz")},
        )

"The scale that a report recommends, and what an evaluation reports."

import math

import pytest
import torch
from conftest import execute

from rcg.attack import L2, Attack
from rcg.checkpoints import load_classifier, load_unet
from rcg.data import digits, to_uint8
from rcg.diffusion import Diffusion
from rcg.gradients import gradient_score
from rcg.metrics import ImageSet, Interval
from rcg.running.files import load_json
from rcg.running.images import save_images
from rcg.running.report import classifier_report, recommended_scale, scale_report


def share(value: float, error: float) -> Interval:
    return Interval(value, value - error, value + error)


def test_the_smallest_scale_that_is_not_below_the_best():
    shares = {0.0: share(0.5, 0.05), 1.0: share(0.78, 0.05), 8.0: share(0.8, 0.05)}
    assert recommended_scale(shares) == 1.0
    assert recommended_scale(shares | {1.0: share(0.7, 0.05)}) == 8.0
    assert recommended_scale({0.0: share(0.5, 0.3), 4.0: share(0.6, 0.3)}) == 0.0


@pytest.mark.parametrize(
    "shares, message",
    [
        ({}, "shares is {}"),
        ({0.0: share(math.nan, 0.1)}, "is nan: it must be a finite number"),
        ({-1.0: share(0.5, 0.1)}, "shares is -1.0"),
        ({0.0: 0.5}, "shares is 0.5"),
    ],
)
def test_shares_that_recommend_nothing(shares, message):
    with pytest.raises(ValueError, match=message):
        recommended_scale(shares)


def known() -> dict:
    networks = load_classifier("digits-robust"), load_unet("digits-denoiser")
    return dict(zip(("classifier", "unet"), networks)) | dict(diffusion=Diffusion())


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(images=torch.zeros(0, 1, 8, 8), labels=torch.arange(0)), "images"),
        (dict(images=torch.full((4, 1, 8, 8), math.nan)), "images"),
        (dict(labels=torch.full((4,), 12)), "labels must be from 0 to 9"),
        (dict(timesteps=()), "timesteps"),
        (dict(timesteps=(1000,)), "t must be from 0 to 999"),
        (dict(classifier=lambda x, t: torch.ones(len(x), 10)), "lost their gradient"),
        (dict(classifier=lambda x, t: x.flatten(1)[:, :10] * math.nan), "NaN"),
        (dict(unet=load_classifier("digits-robust")), "are two networks swapped"),
        (dict(unet=lambda x, t, y: x * math.nan), "unet predicts NaN"),
    ],
)
def test_a_report_of_nothing(changes, message):
    given = known() | dict(images=torch.randn(4, 1, 8, 8).clamp(-1, 1), timesteps=(0,))
    given |= dict(labels=torch.arange(4), attack=Attack(L2(0.5), 1))
    with pytest.raises((ValueError, TypeError), match=message):
        classifier_report(**given | changes)


def test_a_report_on_few_classes_compares_with_all():
    data = digits("test")
    chosen = data.labels < 3
    given = known() | dict(images=data.images[chosen][:9], timesteps=(100,))
    given |= dict(labels=data.labels[chosen][:9], attack=Attack(L2(0.5), 1))
    (row,) = classifier_report(**given)
    named = given["unet"]
    given["unet"] = lambda x, t, y: named(x, t, y)
    assert classifier_report(**given) == [row]
    wrapped = dict(classifier=torch.nn.DataParallel(given["classifier"]), unet=None)
    unaligned = {k: v for k, v in row.items() if k != "alignment"}
    assert classifier_report(**given | wrapped) == [unaligned]
    scores = gradient_score(
        {"": given["classifier"]},
        *(Diffusion(), given["images"], given["labels"], (100,)),
        unet=named,
        classes=10,
    )
    assert row["alignment"] == pytest.approx(scores[0]["alignment"], abs=1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(scales=()), "scales"),
        (dict(scales=(-1.0,)), "scales.0 is -1.0"),
        (dict(scales=(math.nan,)), "scales.0 is nan"),
        (dict(labels=torch.arange(0)), "labels must be int64"),
        (dict(labels=torch.tensor(3)), "labels must be int64"),
        (dict(judge=None), "judge is None"),
        (dict(judge=lambda images: images.flatten(1) * math.nan), "not finite"),
        (dict(judge=lambda images: images.flatten(1)[:, :2]), "labels must be from 0"),
    ],
)
def test_scales_that_are_not_reported(changes, message):
    given = known() | dict(judge=lambda images: images.flatten(1), scales=(0.0, 1.0))
    given |= dict(labels=torch.arange(4), sampler="ddim", steps=2)
    assert set(scale_report(**given)) == {0.0, 1.0}
    with pytest.raises(ValueError, match=message):
        scale_report(**given | changes)


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

"The classifiers that come with the package, as an installed package finds them."

import pytest
import torch

from rcg.attack import Attack
from rcg.checkpoints import SHIPPED, card, load_classifier, shipped
from rcg.data import cifar10_samples
from rcg.diffusion import Diffusion
from rcg.experiment import load_json, preset
from rcg.jobs import find_file
from rcg.training import accuracy, load_tensors


@pytest.mark.parametrize("name", SHIPPED)
def test_loads_by_name(name):
    classifier = load_classifier(name)
    assert sum(p.numel() for p in classifier.parameters()) == 2_065_546 and not classifier.training
    assert classifier.config == preset("cifar10").classifier
    assert find_file(name) == shipped(name) and shipped(name).stat().st_size < 5e6
    facts = load_json(shipped(name, "json"))
    assert {"network", "data", "training", "attack", "iterations", "optimiser", "measured on", "licence"} <= facts.keys()
    assert name in card(name) and facts["iterations"] in card(name)


def test_what_the_cards_say_holds_on_the_samples():
    samples, diffusion, attack = cifar10_samples(), Diffusion(preset("cifar10").diffusion), Attack()
    found = {}
    for name in SHIPPED:
        common = load_classifier(name), diffusion, samples.all(), samples.labels, [0, 900]
        table = load_json(shipped(name, "json"))["accuracy"]
        for kind, against in (("clean", None), ("attacked", attack)):
            found[name, kind], noise = accuracy(*common, against)
            # 50 images: 0.21 is three standard deviations of a share of one half
            assert found[name, kind] == pytest.approx(table[kind][0], abs=0.21) and noise < 0.4
    assert found["cifar10-robust", "clean"] > 0.35
    assert found["cifar10-robust", "attacked"] > found["cifar10-vanilla", "attacked"]


def test_bf16_file_is_float32_in_memory():
    classifier = load_classifier("cifar10-robust")
    x, t = torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64)
    assert classifier(x, t).dtype == torch.float32 and all(p.dtype == torch.float32 for p in classifier.parameters())
    assert {v.dtype for v in load_tensors(shipped("cifar10-robust"))[0].values()} == {torch.bfloat16}

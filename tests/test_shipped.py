"The networks that come with the package, as an installed package finds them."

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

from rcg.data import cifar10_samples, digits
from rcg.diffusion import Diffusion
from rcg.guidance import sample
from rcg.metrics import accuracy
from rcg.running.checkpoints import SHIPPED, card, load_classifier, load_unet, shipped
from rcg.running.files import load_json
from rcg.running.jobs import find_file
from rcg.running.presets import preset
from rcg.training import load_tensors

sys.path.insert(0, str(ROOT / "tools"))
import train_cifar10

CIFAR10 = [name for name, p in SHIPPED.items() if p == "cifar10"]
FACTS = {"network", "data", "training", "iterations", "optimiser", "licence"}


@pytest.mark.parametrize("name", SHIPPED)
def test_loads_by_name(name):
    facts = load_json(shipped(name, "json"))
    denoiser = facts["network"].startswith("the denoiser")
    network = (load_unet if denoiser else load_classifier)(name)
    p = preset(SHIPPED[name])
    assert network.config == (p.unet if denoiser else p.classifier)
    assert not network.training
    count = sum(p.numel() for p in network.parameters())
    assert f"{count:,} parameters" in facts["network"]
    assert find_file(name) == shipped(name) and shipped(name).stat().st_size < 5e6
    assert "checksum" in load_tensors(shipped(name))[1]
    assert FACTS <= facts.keys()
    assert ("accuracy" in facts) == ("measured on" in facts) == (not denoiser)
    assert name in card(name) and facts["iterations"] in card(name)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose from .*cifar10-robust"):
        card("cifar10")


def test_digits_cards_and_guidance():
    test, p = digits("test"), preset("digits")
    diffusion, found = Diffusion(p.diffusion), {}
    for kind in ("vanilla", "robust"):
        common = (
            load_classifier(f"digits-{kind}"),
            diffusion,
            test.all(),
            test.labels,
            [0],
        )
        table = load_json(shipped(f"digits-{kind}", "json"))["accuracy"]
        for column, against in (("clean", None), ("attacked", p.attack)):
            found[kind, column] = accuracy(*common, against)[0]
            assert found[kind, column] == pytest.approx(table[column][0], abs=0.05)
    assert found["robust", "attacked"] > found["vanilla", "attacked"] + 0.05
    labels = torch.arange(10).repeat(5)
    drawn = sample(
        load_unet("digits-denoiser"),
        diffusion,
        labels,
        steps=20,
        sampler="ddim",
        seeds=range(50),
    )
    right = (
        load_classifier("digits-vanilla")(drawn, torch.zeros_like(labels)).argmax(1)
        == labels
    )
    assert right.float().mean() > 0.8


def test_what_the_cards_say_holds_on_the_samples():
    samples, found = cifar10_samples(), {}
    diffusion = Diffusion(preset("cifar10").diffusion)
    for stage in train_cifar10.SHIPPED:
        name, attack = stage.name, stage.tested
        common = (
            load_classifier(name),
            diffusion,
            samples.all(),
            samples.labels,
            [0, 900],
        )
        assert f"ε = {attack.threat.eps:g} " in card(name)
        table = load_json(shipped(name, "json"))["accuracy"]
        for kind, against in (("clean", None), ("attacked", attack)):
            found[name, kind], noise = accuracy(*common, against)
            # 50 images: 0.21 is three standard deviations of a share of one half
            assert (
                found[name, kind] == pytest.approx(table[kind][0], abs=0.21)
                and noise < 0.4
            )
    assert found["cifar10-robust", "clean"] > 0.5
    assert found["cifar10-robust", "attacked"] > found["cifar10-vanilla", "attacked"]


def test_the_cards_of_cifar10_are_of_its_recipe():
    assert [stage.name for stage in train_cifar10.SHIPPED] == CIFAR10
    for stage in train_cifar10.SHIPPED:
        facts = load_json(shipped(stage.name, "json"))
        assert f" {stage.iterations:,} " in facts["iterations"]
        assert f"from {stage.lr:g} " in facts["optimiser"]
        assert (stage.attack is None) == ("not attacked" in facts["training"])
        assert ("average" in facts["optimiser"]) == bool(stage.ema_decay)


def test_cifar10_images_are_shifted_and_early_timesteps_drawn():
    image = torch.arange(3 * 32 * 32.0).view(3, 32, 32)
    rng = np.random.default_rng(0)
    moved = [train_cifar10.shifted(image, rng) for _ in range(1000)]
    assert {m.shape for m in moved} == {image.shape}
    assert len({m.numpy().tobytes() for m in moved}) == 50  # 25 places, mirrored or not
    loss = train_cifar10.EarlyTimesteps(lambda model, x0, y, t, noise: t)
    t = loss(None, None, None, torch.arange(1000), None)
    assert t.min() == 0 and t.max() == 998 and (t < 250).float().mean() == 0.5


def test_bf16_file_is_float32_in_memory():
    classifier = load_classifier("cifar10-robust")
    x, t = torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64)
    assert classifier(x, t).dtype == torch.float32 and all(
        p.dtype == torch.float32 for p in classifier.parameters()
    )
    assert {v.dtype for v in load_tensors(shipped("cifar10-robust"))[0].values()} == {
        torch.bfloat16
    }


def test_networks_load_from_the_folder_that_holds_the_clone(tmp_path):
    (tmp_path / "rcg").symlink_to(ROOT)
    code = (
        "from rcg.lab.views import open_lab; from rcg.data import cifar10_samples; "
        "open_lab(); print(len(cifar10_samples()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "50\n", done.stderr

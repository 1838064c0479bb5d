"Classifiers of others: timm's own preprocessing, and what they do not say."

import sys
from dataclasses import replace

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from rcg.experiment import preset
from rcg.jobs import SamplingJob, TrainingJob, check, sample_job, train_job
from rcg.running.classifiers import (
    clean_classifier,
    custom_classifier,
    labels_named,
    load_custom_classifier,
    named_judge,
    wanted_by,
)
from rcg.running.files import load_json
from rcg.training import save_tensors


def test_a_network_of_timm_sees_what_timm_shows_it():
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", num_classes=7).eval()
    classify = clean_classifier(network)
    config = timm.data.resolve_model_data_config(network)
    side = config["input_size"][-1]
    images = torch.rand(2, 3, side, side)
    mean, std = (torch.tensor(config[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        expected = network((images - mean) / std)
        torch.testing.assert_close(classify(2 * images - 1), expected)


def test_what_is_not_known_is_asked_for(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="pass `weights` of torchvision, or size"):
        wanted_by(network)
    save_tensors(tmp_path / "other.safetensors", {"1.weight": torch.ones(2, 5)})
    with pytest.raises(ValueError, match="not those of this Sequential"):
        clean_classifier(network, tmp_path / "other.safetensors", size=None)


def test_weights_that_are_not_finite(own, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    tensors = {k: v + torch.nan for k, v in network.state_dict().items()}
    save_tensors(tmp_path / "a.safetensors", tensors)
    with pytest.raises(ValueError, match="weights that are not finite numbers"):
        clean_classifier(network, tmp_path / "a.safetensors", size=None)
    name = "own_networks:Knowing"
    model = custom_classifier(name, preset("digits").classifier)
    tensors = {k: v + torch.inf for k, v in model.state_dict().items()}
    save_tensors(tmp_path / "a.safetensors", tensors)
    with pytest.raises(ValueError, match="weights that are not finite numbers"):
        load_custom_classifier(tmp_path / "a.safetensors", "digits", architecture=name)


@pytest.mark.parametrize(
    "wanted, message",
    [
        (dict(std=(0.0,)), "std.0 is 0.0: it must be"),
        (dict(std=(-1.0,)), "std.0 is -1.0: it must be"),
        (dict(std=(torch.nan,)), "std.0 is nan"),
        (dict(mean=(torch.inf,)), "mean.0 is inf"),
        (dict(mean=(), std=()), "mean is .* and std .*: pass one of each a channel"),
        (dict(std=(0.5, 0.5)), "mean is .* and std .*: pass one of each a channel"),
        (dict(size=0), "size is 0"),
        (dict(side=8), "no argument 'side'"),
        (dict(weights="DEFAULT"), "weights is 'DEFAULT'"),
    ],
)
def test_how_images_cannot_be_seen(wanted, message):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    known = dict(size=None, mean=(0.5,), std=(0.5,))
    with pytest.raises(ValueError, match=message):
        clean_classifier(network, **known | wanted)


def test_weights_of_torchvision_for_something_else():
    weights = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT
    with pytest.raises(ValueError, match="does not say how it wants to see images"):
        wanted_by(nn.Linear(2, 3), weights)


@pytest.mark.parametrize(
    "name, message",
    [
        ("timm:nothing", "judge 'timm:nothing' cannot be had: Unknown model"),
        ("torchvision:nothing", "judge 'torchvision:nothing' cannot be had: Unknown"),
        ("own_networks:number", "judge 'own_networks:number' cannot be imported"),
        ("divides:plain", "judge 'divides:plain' cannot be imported: .*division"),
        ("digits", "judge 'digits' cannot be imported: it must be like"),
    ],
)
def test_judges_that_are_none(own, name, message):
    with pytest.raises(ValueError, match=message):
        named_judge(name)


def test_names_of_classes():
    classes = ["cat", "dog", "crane", "crane"]
    assert labels_named(["dog", "cat"], classes).tolist() == [1, 0]
    with pytest.raises(ValueError, match="2 classes are called 'crane'"):
        labels_named(["crane"], classes)
    with pytest.raises(ValueError, match="^no class is called 'fish'"):
        labels_named(["fish"], classes)


def test_fine_tuned_weights_with_batch_normalisation(tmp_path):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    tensors = {k: v + 1 for k, v in network.state_dict().items()}
    save_tensors(tmp_path / "tuned.safetensors", tensors)
    torch.save(tensors, tmp_path / "tuned.pth")
    (tmp_path / "folder").mkdir()
    save_tensors(tmp_path / "folder" / "model.safetensors", tensors)
    for file in ("tuned.safetensors", "tuned.pth", "folder"):
        network.load_state_dict({k: 0 * v for k, v in tensors.items()})
        clean_classifier(network, tmp_path / file, size=None)
        assert all(v.equal(tensors[k]) for k, v in network.state_dict().items())


OWN = """
from torch import nn

def plain(config):
    return nn.Sequential(
        nn.Conv2d(config.channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(config.classes),
    )

class Knowing(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = nn.Linear(config.image_size**2, config.classes)

    def forward(self, x, t):
        assert t.shape == x.shape[:1]
        return self.layer(x.flatten(1)) * (1 - t[:, None] / 1000)

def colour(config):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(10))

def no_network(config):
    return lambda x: x

def no_settings():
    return None

def nothing(config):
    return None

class Undefined(Knowing):
    def forward(self, x, t):
        return super().forward(x, t) / 0

number = 3
"""
BROKEN = {"divides": "1 / 0", "misspelt": "def", "leaves": "raise SystemExit(3)"}


@pytest.fixture
def own(tmp_path, monkeypatch):
    "The module `own_networks`, where a command would find it."
    (tmp_path / "own_networks.py").write_text(OWN)
    for name, source in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)


@pytest.mark.parametrize("name", ["own_networks:plain", "own_networks:Knowing"])
def test_a_network_of_one_s_own_is_trained_resumed_and_guides(own, name, tmp_path):
    settings = dict(preset="digits", architecture=name, run_dir=str(tmp_path / "run"))
    settings |= dict(batch_size=16, workers=0, trial_steps=0, ema_decay=0.9)
    settings |= dict(validate_every=4, validation_images=40, attack_steps=2)
    train_job(TrainingJob(**settings, steps=2))
    assert "0.0" in "\n".join(check(TrainingJob(**settings, steps=4)))
    state = train_job(TrainingJob(**settings, steps=4))
    assert state.start == 2 and state.step == 4
    record = load_json(tmp_path / "run" / "settings.json")
    assert record["architecture"] == name
    other = dict(architecture="own_networks:Knowing" if "plain" in name else "")
    with pytest.raises(ValueError, match="architecture"):
        train_job(TrainingJob(**settings | other, steps=5))

    weights = tmp_path / "run" / "model.safetensors"
    loaded = load_custom_classifier(weights, "digits", architecture=name)
    assert loaded.class_names == [str(k) for k in range(10)]
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    with torch.no_grad():
        assert loaded(x, t).equal(state.result.eval()(x, t))
    job = SamplingJob(
        run_dir=str(tmp_path / "samples"),
        denoiser="digits-denoiser",
        classifier=str(weights),
        architecture=name,
        preset="digits",
        images=2,
        steps=3,
    )
    unguided = replace(job, classifier="", run_dir=str(tmp_path / "unguided"))
    drawn, plain = (
        [Image.open(file).tobytes() for file in sample_job(j)]
        for j in (replace(job, scale=300.0), unguided)
    )
    assert len(drawn) == 2 and drawn != plain


def test_a_network_of_images_is_told_t(own):
    torch.manual_seed(0)
    config = preset("digits").classifier
    model = custom_classifier("own_networks:plain", config).eval()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 800])
    with torch.no_grad():
        torch.testing.assert_close(model(x, t), model.network(x))
        assert model(x.bfloat16(), t).dtype == torch.bfloat16
        nn.init.normal_(model.time[2].bias)
        scale, shift = model.time[2].bias
        expected = model.network((1 + scale) * x + shift)
        torch.testing.assert_close(model(x, t), expected)
        nn.init.normal_(model.time[2].weight)
        assert not model(x, t).allclose(model(x, t + 5))


@pytest.mark.parametrize(
    "name, message",
    [
        ("own_network:plain", "No module named 'own_network'"),
        ("own_networks:plane", "no attribute 'plane'"),
        ("own_networks", "must be like"),
        ("own_networks:colour", r"makes no classifier of images \(2, 1, 8, 8\)"),
        ("own_networks:no_network", "makes no classifier"),
        ("own_networks:no_settings", "takes 0 positional arguments"),
        ("own_networks:nothing", "network is None: it must be an instance of Module"),
        ("own_networks:Undefined", "gives logits that hold NaN"),
        ("own_networks:number", "it is an? int, not a function"),
        ("divides:plain", "cannot be imported: .*division by zero"),
        ("misspelt:plain", "cannot be imported: .*invalid syntax"),
        ("leaves:plain", "cannot be imported: .*3"),
        ("torch.nn:Identity", r"gives \(2, 1, 8, 8\) for two images, not logits"),
    ],
)
def test_architectures_that_are_none(own, name, message):
    with pytest.raises(ValueError, match=f"^architecture .*{message}"):
        TrainingJob(preset="digits", architecture=name).resolve()


def test_a_denoiser_has_no_other_architecture():
    job = TrainingJob(preset="digits", network="denoiser", architecture="a:b")
    with pytest.raises(ValueError, match="leave it out for a denoiser"):
        job.resolve()

"Classifiers of others: timm's own preprocessing, and what they do not say."

import pytest
import torch
from torch import nn

from rcg.running.classifiers import clean_classifier, labels_named, wanted_by
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


def test_names_of_classes():
    classes = ["cat", "dog", "crane", "crane"]
    assert labels_named(["dog", "cat"], classes).tolist() == [1, 0]
    with pytest.raises(ValueError, match="2 classes are called 'crane'"):
        labels_named(["crane"], classes)
    with pytest.raises(ValueError, match="0 classes are called 'fish'"):
        labels_named(["fish"], classes)

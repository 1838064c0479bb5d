"""Ways that the notebooks do not take: bfloat16, loading processes, Inception."""

from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from rcg.classifier import Classifier
from rcg.data import batches, digits
from rcg.diffusion import Diffusion
from rcg.metrics import Inception, features
from rcg.running.images import ImageFolder
from rcg.running.presets import preset
from rcg.training import TrainingConfig, train_classifier


def test_bf16_training_stays_close_to_float32():
    p, losses = preset("digits"), {}
    for bf16 in (False, True):
        torch.manual_seed(0)
        config = TrainingConfig(
            steps=5, lr=1e-3, batch_size=32, microbatch=16, bf16=bf16
        )
        run = train_classifier(
            Classifier(p.classifier), Diffusion(), digits(), config, p.attack
        )
        losses[bf16] = [row["loss"] for row in list(run)[-1].history]
    assert (
        losses[True] == pytest.approx(losses[False], rel=0.02)
        and losses[True] != losses[False]
    )


def test_loading_processes_give_the_same_batches(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(5):
            Image.fromarray(rng.integers(256, size=(20, 30, 3), dtype=np.uint8)).save(
                tmp_path / label / f"{i}.png"
            )
    folder = ImageFolder(tmp_path, 16)
    here, there = (list(islice(batches(folder, 4, workers=w), 6)) for w in (0, 2))
    for (x, y), (u, v) in zip(here, there):
        assert x.equal(u) and y.equal(v)


class Layers(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean([2, 3]).repeat(1, 683)[:, :2048]


class Stub(torch.nn.Module):
    "The interface of the Inception file: three channel means instead of features."

    def __init__(self):
        super().__init__()
        self.layers = Layers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.filterwarnings(
    "ignore:`torch.jit"
)  # the file that everyone's FID is measured with is TorchScript
def test_inception_pipeline(tmp_path):
    torch.jit.script(Stub()).save(tmp_path / "inception-2015-12-05.pt")
    extractor = Inception(folder=tmp_path)
    images = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    f = features(images, extractor, batch_size=2)
    assert f.shape == (3, 2048) and f.dtype == torch.float64
    assert f[:, 0].tolist() == pytest.approx(
        [-1, 0, 127 / 128], abs=0.01
    )  # bytes, shifted and scaled as Inception expects

    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"half a download")
    with pytest.raises(RuntimeError, match="is damaged.*delete it"):
        Inception(folder=tmp_path)

"""ADM's evaluator against torch-fidelity 0.4.0 and SciPy 1.17.1.

`FEATURES` are of `FeatureExtractorInceptionV3` of torch-fidelity with the weights of
`randomised`, on the images of `pictures(0, 2, (20, 28))`: "2048" and "logits_unbiased",
and of a forward hook on its `Mixed_6d.branch1x1`, of which the first seven channels in
the order (height, width, channel). `SCORES` are of the features of `Linear`: FID by
`fid_statistics_to_metric`, inception score by `isc_features_to_metric` with one split
for every 5,000 samples and no shuffling, precision and recall by
`calculate_precision_recall_full` (samples first), all of torch-fidelity, and sFID by
`scipy.linalg.sqrtm` as in the formula.
"""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rcg.running.evaluator import (
    PORT,
    TensorFlowInception,
    adm_scores,
    main,
    npz_images,
    tensorflow_inception,
)
from rcg.running.files import save_arrays

FEATURES = Path(__file__).parent / "golden" / "inception_tiny.safetensors"
SCORES = {
    "Inception Score": 2.303935082454016,
    "FID": 4.328118692537785,
    "sFID": 3.3607679295848985,
    "Precision": 0.9909803867340088,
    "Recall": 0.33666667342185974,
}


def pictures(seed: int, count: int, size: tuple[int, int]) -> np.ndarray:
    "Random pixels (N, H, W, 3)."
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, *size), np.uint8).transpose(0, 2, 3, 1)


@torch.no_grad()
def randomised() -> TensorFlowInception:
    "The network with weights that are nowhere zero, and keep activations in range."
    network, g = TensorFlowInception(), torch.Generator().manual_seed(0)
    for name, value in sorted(network.state_dict().items()):
        if value.is_floating_point():
            z = torch.randn(value.shape, generator=g)
            if name.endswith("conv.weight"):
                value.copy_(z * (2 / value[0].numel()) ** 0.5)
            elif name == "fc.weight":
                value.copy_(0.5 * z)
            elif name.endswith(("bn.weight", "running_var")):
                value.copy_(1 + 0.1 * (z.abs() if "var" in name else z))
            else:
                value.copy_(0.1 * z)
    return network


class Linear:
    "A network of two matrices, with more images than features."

    def __init__(self):
        rng = np.random.default_rng(7)
        draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape)).float()
        self.pool, self.space, self.class_ = draw(48, 16), draw(48, 12), draw(16, 10)

    def __call__(self, images):
        x = images.flatten(1).float() / 255
        return x @ self.pool, x @ self.space

    def logits(self, pooled):
        return pooled @ self.class_


@pytest.fixture
def files(tmp_path):
    "Reference and samples as ADM lays them out."
    save_arrays(tmp_path / "real.npz", arr_0=pictures(1, 300, (4, 4)))
    save_arrays(tmp_path / "fake.npz", arr_0=pictures(2, 5100, (4, 4)) // 4 * 3 + 40)
    return tmp_path / "real.npz", tmp_path / "fake.npz"


def test_features_are_those_of_the_ported_network():
    network, expected = randomised(), load_file(FEATURES)
    images = torch.tensor(pictures(0, 2, (20, 28))).permute(0, 3, 1, 2)
    pooled, spatial = network(images)
    assert pooled.shape == (2, 2048) and spatial.shape == (2, 7 * 17 * 17)
    found = dict(pooled=pooled, spatial=spatial, logits=network.logits(pooled))
    for name, values in found.items():
        step = 32 if name == "logits" else 64
        torch.testing.assert_close(
            values[:, ::step], expected[name], atol=1e-4, rtol=1e-4, msg=name
        )


def test_every_score_is_that_of_a_public_implementation(files):
    found = adm_scores(*files, Linear(), batch_size=700)
    assert found == pytest.approx(SCORES, rel=1e-6)


def test_stored_statistics_are_those_of_the_whole_data_set(files, tmp_path):
    features = dict(
        zip(
            ("", "_s"),
            Linear()(torch.tensor(pictures(1, 300, (4, 4))).permute(0, 3, 1, 2)),
        )
    )
    statistics = {}
    for end, x in features.items():
        x = x.double().numpy()
        statistics |= {f"mu{end}": x.mean(0), f"sigma{end}": np.cov(x, rowvar=False)}
    some = pictures(1, 300, (4, 4))[:100]
    save_arrays(tmp_path / "virtual.npz", arr_0=some, **statistics)
    found = adm_scores(tmp_path / "virtual.npz", files[1], Linear())
    same = ("Inception Score", "FID", "sFID")
    assert [found[k] for k in same] == pytest.approx([SCORES[k] for k in same])
    assert found["Precision"] != SCORES["Precision"]
    save_arrays(tmp_path / "bare.npz", **statistics)  # no images
    found = adm_scores(tmp_path / "bare.npz", files[1], Linear())
    assert list(found) == list(same)
    del statistics["mu_s"], statistics["sigma_s"]
    save_arrays(tmp_path / "old.npz", arr_0=some, **statistics)
    assert "sFID" not in adm_scores(tmp_path / "old.npz", files[1], Linear())


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(FileNotFoundError):
        next(npz_images(path))
    path.write_bytes(b"PK, but no archive")
    with pytest.raises(OSError, match="a.npz is no whole .npz file"):
        next(npz_images(path))
    save_arrays(path, arr_1=np.arange(3))
    with pytest.raises(OSError, match="arr_0"):
        next(npz_images(path))
    save_arrays(path, arr_0=np.zeros((3, 4, 4, 3), np.float32))
    with pytest.raises(OSError, match=r"must be uint8 \(N, H, W, 3\), not float32"):
        next(npz_images(path))
    save_arrays(path, arr_0=np.asfortranarray(np.zeros((3, 4, 4, 3), np.uint8)))
    with pytest.raises(OSError, match="in Fortran order: store np.ascontiguous"):
        next(npz_images(path))
    save_arrays(path, arr_0=pictures(0, 4, (8, 8)))
    damaged = bytearray(path.read_bytes())
    damaged[-400] ^= 1  # in the last picture
    path.write_bytes(damaged)
    with pytest.raises(OSError, match="CRC"):
        list(npz_images(path))


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (3, 0, 4, 3), (10**12, 4, 4, 3)])
def test_files_that_hold_no_images_or_fewer_than_they_say(files, tmp_path, shape):
    path, header = tmp_path / "a.npz", dict(descr="|u1", fortran_order=False)
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header | dict(shape=shape))
    for both in ((path, files[1]), (files[0], path)):
        with pytest.raises(OSError, match="a.npz is no whole .npz file of images"):
            adm_scores(*both, Linear())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
def test_pipes_are_not_waited_for(files, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for both in ((tmp_path / "pipe", files[1]), (files[0], tmp_path / "pipe")):
        with pytest.raises(OSError, match="is a pipe or a device: name a file"):
            adm_scores(*both, Linear())


def test_references_that_are_something_else(files, tmp_path):
    path = tmp_path / "reference.npz"
    for content in (b"no archive", b"PK, but no archive", b""):
        path.write_bytes(content)
        with pytest.raises(OSError, match="reference.npz is no whole .npz file"):
            adm_scores(path, files[1], Linear())
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "array.npy").rename(path)
    with pytest.raises(OSError, match="holds something else"):
        adm_scores(path, files[1], Linear())
    save_arrays(path, labels=np.arange(3))
    with pytest.raises(ValueError, match="has neither images, as arr_0, nor stat"):
        adm_scores(path, files[1], Linear())
    save_arrays(path, mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(ValueError, match="is of 3 features, but the extractor has 16"):
        adm_scores(path, files[1], Linear())


def test_sets_of_another_size_are_warned_of(files, tmp_path):
    small, network = (
        tmp_path / "small.npz",
        lambda x: Linear()(x.repeat(1, 1, 4, 4)[..., :4, :4]),
    )
    save_arrays(small, arr_0=pictures(1, 300, (2, 2)))
    network.logits = Linear().logits
    with pytest.warns(UserWarning, match="samples are 2×2 pixels, the reference 4×4"):
        adm_scores(files[0], small, network)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda pooled, spatial: pooled,
            "gives a torch.Tensor .*: it must give pooled",
        ),
        (lambda pooled, spatial: (pooled * np.nan, spatial), "real.npz .* not finite"),
        (lambda pooled, spatial: (pooled, spatial / 0), "real.npz .* not finite"),
    ],
)
def test_networks_that_answer_something_else(files, change, said):
    with pytest.raises(ValueError, match=said):
        adm_scores(*files, lambda images: change(*Linear()(images)))


def test_weights_that_are_something_else(files, tmp_path, monkeypatch, capsys):
    torch.save({"fc.weight": torch.ones(3, 4)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold the weights of Inception V3"):
        tensorflow_inception(tmp_path / "other.pth")

    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(SystemExit, match="no route to host.*put it at .*/pt_inception"):
        main(list(map(str, files)))
    path = tmp_path / "hub" / "checkpoints" / PORT.rsplit("/", 1)[1]
    path.write_bytes(b"something else")
    with pytest.raises(OSError, match="the SHA-256 of .* is not 6726825d"):
        tensorflow_inception()


def test_a_set_against_itself(files):
    found = adm_scores(files[0], files[0], Linear())
    assert (found["Precision"], found["Recall"]) == (1, 1)
    assert max(found["FID"], found["sFID"]) < 1e-9


def test_help_and_absent_files_do_not_wait(files, tmp_path, monkeypatch):
    command = [sys.executable, "-X", "importtime", "-m", "rcg.evaluator"]
    for words in (["--help"], ["a.npz", "b.npz", "--batch_size", "many"]):
        done = subprocess.run([*command, *words], capture_output=True, text=True)
        assert not re.search(r"\| +torch$", done.stderr, re.M), words
    assert "batch_size" in done.stderr and done.returncode == 2
    monkeypatch.setattr("rcg.running.evaluator.download", None)  # not reached
    with pytest.raises(SystemExit, match="there is no file .*absent.npz"):
        main([str(files[0]), str(tmp_path / "absent.npz")])

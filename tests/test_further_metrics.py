"Further metrics against numbers of torch-fidelity 0.4.0, and what they refuse."

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import (
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)

from rcg.data import from_uint8
from rcg.metrics import (
    DINOv2,
    density_coverage,
    named_extractor,
    precision_recall,
)
from rcg.running.further_metrics import (
    GaussianKernel,
    inception_score,
    kernel_distance,
    measuring_network,
    memorised,
    mmd,
    nearest_ratio,
    recognised,
)

# torch_fidelity.metric_kid.kid_features_to_metric and metric_isc.isc_features_to_metric
# of the features below, with a cubic kernel but where a Gaussian of σ = 10 is named
# and, by k, precision, recall, density and coverage by prdc 0.2's compute_prdc
PRDC = {
    3: (0.244, 0.8366666666666667, 0.164, 0.2733333333333333),
    5: (0.332, 0.9133333333333333, 0.1736, 0.4166666666666667),
}
SUBSETS = (0.2947936943128632, 0.03370132095477474)  # 10 of 100
CUBIC, GAUSSIAN = 0.29721165800718596, 0.029641091034039335  # 250 of each
SCORE, WHOLE = (3.6376665714610525, 0.3441541064538042), 3.8850572816612874


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((300, 64))
    fake = 0.3 + 1.1 * rng.standard_normal((250, 64))
    logits = 3 * rng.standard_normal((250, 10))
    return [torch.from_numpy(x) for x in (real, fake, logits)]


@pytest.mark.parametrize("k", PRDC)
def test_precision_recall_density_coverage(clouds, k):
    real, fake, _ = clouds
    found = (*precision_recall(real, fake, k), *density_coverage(real, fake, k))
    assert found == pytest.approx(PRDC[k], rel=1e-9)


def test_kernel_distance(clouds):
    real, fake, _ = clouds
    found = kernel_distance(real, fake, subsets=10, size=100)
    np.testing.assert_allclose(found, SUBSETS, rtol=1e-9)


def test_mmd_of_all_pairs(clouds):
    real, fake, _ = clouds
    for block in (7, 2048):
        assert mmd(real[:250], fake, block=block) == pytest.approx(CUBIC, rel=1e-9)
        found = mmd(real[:250], fake, GaussianKernel(10.0), block)
        assert found == pytest.approx(GAUSSIAN, rel=1e-9)


def test_inception_score(clouds):
    logits = clouds[2]
    np.testing.assert_allclose(inception_score(logits), SCORE, rtol=1e-9)
    assert inception_score(logits, splits=1)[0] == pytest.approx(WHOLE, rel=1e-9)


def test_what_cannot_be_computed(clouds):
    real, fake, logits = clouds
    with pytest.raises(ValueError, match="take smaller subsets"):
        kernel_distance(real, fake)
    with pytest.raises(ValueError, match="differ in width: 64 and 63"):
        mmd(real, fake[:, :63])
    with pytest.raises(ValueError, match="differ in width: 64 and 63"):
        nearest_ratio(real, fake[:, :63])
    with pytest.raises(ValueError, match="block is 0"):
        mmd(real, fake, block=0)
    with pytest.raises(ValueError, match="at least 2"):
        mmd(real[:1], fake)
    with pytest.raises(ValueError, match="at least 10"):
        inception_score(logits[:9])
    with pytest.raises(ValueError, match="at least 50"):
        nearest_ratio(fake, real[:49])
    with pytest.raises(ValueError, match="not finite"):
        nearest_ratio(fake / 0, real)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda x: mmd(x, x, lambda a, b: None), "kernel gives None"),
        (lambda x: mmd(x, x, lambda a, b: a), r"kernel gives .*\(60, 4\)"),
        (lambda x: mmd(x, x, lambda a, b: a @ b.T / 0), "kernel gives NaN or inf"),
        (lambda x: mmd(1e110 * x, x), "kernel gives NaN or infinity"),
        (lambda x: kernel_distance(x, x, size=3, seed=2**32), "seed is 4294967296"),
        (lambda x: kernel_distance(x, x, 10**9, 3), "subsets is 1000000000"),
        (lambda x: kernel_distance(1e30 * x, x, 2, 3), "real and fake are too far"),
        (lambda x: inception_score(x, seed=-1), "seed is -1"),
        (lambda x: inception_score(x[:, :0]), "D at least 1"),
        (lambda x: nearest_ratio(x, x, k=1), "k is 1"),
        (lambda x: memorised(x, x, x[:0], k=3), "held_out must be"),
        (lambda x: memorised(x, x, x, k=1), "k is 1"),
        (lambda x: measuring_network(3, 10**9), "classes is 1000000000"),
        (lambda x: recognised(lambda a: None, x[:, None, None], None), "labels"),
    ],
)
def test_what_would_give_no_number(clouds, call, said):
    with pytest.raises(ValueError, match=said):
        call(clouds[0][:60, :4])


def test_a_narrow_kernel_tells_all_images_apart(clouds):
    assert mmd(*clouds[:2], GaussianKernel(1e-300)) == 0


@torch.no_grad()
def test_dinov2_sees_what_its_authors_show_it(monkeypatch):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    extract = DINOv2(model="vit_small_patch14_dinov2", pretrained=False)
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0).eval()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    resize = Resize((224, 224), InterpolationMode.BICUBIC)
    published = Compose([resize, ToTensor(), Normalize(mean, std)])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), np.uint8)
    shown = torch.stack([published(Image.fromarray(x)) for x in pixels])
    images = from_uint8(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    found = extract(images)
    assert found.shape == (2, 384)
    # at each of 16×16 patches, bicubic between the 37×37 positions (A = -0.75)
    torch.testing.assert_close(
        extract.network.pos_embed[0, 1 + 16 * 4 + 9],
        bicubic(model.pos_embed[0, 1:].unflatten(0, (37, 37)), 4, 9, 37 / 16.1),
        atol=1e-5,
        rtol=0,
    )
    model.set_input_size(img_size=224)
    model.pos_embed = extract.network.pos_embed
    torch.testing.assert_close(found, model(shown))

    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(RuntimeError, match="no route to host.*hf download timm/vit_la"):
        named_extractor("dinov2")


def bicubic(grid, i: int, j: int, scale: float):
    "The value of a grid (n, n, D) in the middle of cell (i, j) of a coarser one."

    def weight(d: float) -> float:
        a, d = -0.75, abs(d)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        return near if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4) * (d < 2)

    y, x = (scale * (k + 0.5) - 0.5 for k in (i, j))
    rows, columns = (range(int(v) - 1, int(v) + 3) for v in (y, x))
    return sum(
        weight(y - p) * weight(x - q) * grid[p, q] for p in rows for q in columns
    )


def test_memorised(clouds):
    real, fake, _ = clouds
    training, held_out = real[:200], real[200:]
    copies = training[:20] + 1e-3
    given = torch.cat([fake[:60], copies])
    ratios, limits = (nearest_ratio(x, training)[0] for x in (given, held_out))
    expected = (ratios < np.quantile(limits.numpy(), 0.05)).double().mean().item()
    share = memorised(given, training, held_out, level=0.05)
    assert share.value == expected >= 0.25
    assert share.low < share.value < share.high
    with pytest.raises(ValueError, match="held_out has images of the training set, 5%"):
        memorised(given, training, real, level=0.05)


def test_recognised():
    images, labels = torch.rand(7, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    seen = []

    def judge(x):
        seen.append(len(x))
        return torch.eye(3)[[0] * len(x)]

    share = recognised(judge, images, labels, batch_size=3)
    assert (share.value, seen) == (3 / 7, [3, 3, 1])
    with pytest.raises(ValueError, match="labels must be from 0 to 2"):
        recognised(judge, images, labels + 1)
    with pytest.raises(ValueError, match="one number for each of the 7"):
        recognised(judge, images, labels[:3])

"""Metrics against slow exact ways to compute them, and what they refuse."""

import numpy as np
import pytest
import torch

from rcg.diffusion import Diffusion
from rcg.metrics import (
    Gaussian,
    ImageSet,
    Interval,
    Reference,
    accuracy,
    bootstrap,
    centred_interval,
    check_features,
    density_coverage,
    distinguishable,
    features,
    frechet_distance,
    gaussian,
    in_manifold,
    mean_interval,
    measure,
    named_extractor,
    neighbourhoods,
    pixels,
    precision_recall,
    proportion,
)


def normal(*shape, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return torch.from_numpy(rng.standard_normal(shape))


# --- Fréchet distance


def by_svd(x, y):
    "From the QR decomposition of each cloud, which squares nothing."
    roots = [torch.linalg.qr((v - v.mean(0)) / (len(v) - 1) ** 0.5).R for v in (x, y)]
    overlap = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    traces = sum(r.square().sum() for r in roots)
    return ((x.mean(0) - y.mean(0)).square().sum() + traces - 2 * overlap).item()


@pytest.mark.parametrize(
    "n, m, width",
    [(500, 400, 64), (100, 90, 256), (300, 40, 256), (64, 65, 64), (2, 3, 5)],
)
@pytest.mark.parametrize("decades", [0, 2, 4, 6])
def test_frechet_distance_is_that_of_singular_values(n, m, width, decades):
    mix = normal(width, width) * torch.logspace(0, -decades, width).double()
    x, y = normal(n, width) @ mix, 1.1 * normal(m, width, seed=1) @ mix + 0.1
    expected = by_svd(x, y)
    for a, b in ((x, y), (y, x), (gaussian(x), y)):
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    bare = [Gaussian(g.mean, g.covariance) for g in map(gaussian, (x, y))]
    assert frechet_distance(*bare) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_equal_clouds_and_constant_features():
    x = normal(50, 8)
    x[:, 3:] = 1.0  # no variance, so that Cholesky's factor does not exist
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(torch.ones(9, 4), torch.zeros(9, 4)) == pytest.approx(4)


def test_the_root_of_a_reference_is_computed_once():
    reference = gaussian(normal(50, 8))
    assert reference.root is reference.root
    assert (reference.root.T @ reference.root).allclose(reference.covariance)


# --- precision, recall, density, coverage


def slowly(real, fake, k):
    "All four by their definitions, from differences of all pairs."

    def distances(a, b):
        return (a[:, None] - b[None]).norm(dim=2)

    radii = [distances(x, x).sort(1).values[:, k] for x in (real, fake)]
    held = distances(fake, real) <= radii[0]
    recall = (distances(real, fake) <= radii[1]).any(1)
    density = held.double().sum() / (k * len(fake))
    shares = (held.any(1), recall, density, held.any(0))
    return [share.double().mean().item() for share in shares]


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("block", [7, 64, 2048])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_neighbourhoods_are_those_of_their_definitions(k, block, shift):
    real, fake = normal(90, 4) + shift, 0.8 * normal(70, 4, seed=1) + 0.3 + shift
    found = [
        *precision_recall(real, fake, k, block),
        *density_coverage(real, fake, k, block),
    ]
    assert found == pytest.approx(slowly(real, fake, k), abs=1e-12)
    inside = in_manifold(fake[:2], real, k, block)  # fewer points than neighbours
    assert inside.equal((neighbourhoods(real, fake, k).holding > 0)[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_copies_lie_in_themselves(dtype, scale):
    torch.manual_seed(0)
    real = (scale * torch.rand(5, 2048)).to(dtype).repeat_interleave(4, 0)
    assert precision_recall(real, real.repeat(2, 1)) == (1, 1)
    assert density_coverage(real, real.repeat(2, 1), k=3) == (pytest.approx(4 / 3), 1)
    black = torch.zeros(20, 64, dtype=dtype)
    assert precision_recall(black, black) == (1, 1)
    nearly = real + scale * 1e-4 * torch.rand_like(real)  # no copies, radius 0
    assert precision_recall(real, nearly)[0] == 0


def test_one_far_image_does_not_spoil_the_others():
    real = torch.cat([normal(40, 16), 1e6 * torch.ones(1, 16)])
    fake = normal(40, 16, seed=1)
    assert precision_recall(real, fake) == pytest.approx(slowly(real, fake, 3)[:2])


def hard_sets(name):
    "Features at which single precision is not enough."
    rng = torch.Generator().manual_seed(0)
    centres = 100 * normal(5, 512)
    at = [torch.randint(5, (n,), generator=rng) for n in (120, 90)]
    if name == "tight clusters":
        return [centres[i] + 1e-3 * normal(len(i), 512, seed=len(i)) for i in at]
    if name == "tight clusters, float32":
        return [x.float() for x in hard_sets("tight clusters")]
    if name == "ties":
        return [torch.randint(3, (n, 4), generator=rng).double() for n in (150, 99)]
    if name == "many copies":
        copies = normal(3, 512).repeat_interleave(30, 0)
        return copies, torch.cat([copies[::2], normal(9, 512, seed=2)])
    scale = {"tiny": 1e-30, "huge": 1e30}[name]
    return scale * normal(90, 16), scale * normal(80, 16, seed=1)


HARD = ["tight clusters", "tight clusters, float32", "ties", "many copies"]


@pytest.mark.parametrize("name", [*HARD, "tiny", "huge"])
@pytest.mark.parametrize("block", [32, 2048])
def test_answers_are_exact_where_rounding_could_change_them(name, block):
    real, fake = hard_sets(name)
    near, (a, b) = neighbourhoods(real, fake, 3, block), (real.double(), fake.double())

    def squares(x, y):
        return (x[:, None] - y[None]).square().sum(2)

    radii = [squares(x, x).sort(1).values[:, 3] for x in (a, b)]
    held, recalled = squares(a, b) <= radii[0][:, None], squares(a, b) <= radii[1]
    assert near.holding.equal(held.sum(0)) and near.reached.equal(held.any(1))
    assert near.recalled.equal(recalled.any(1))


# --- what is refused


@pytest.mark.parametrize(
    "value, error",
    [(float("nan"), ValueError), (float("inf"), ValueError), (1e200, ValueError)],
)
def test_features_that_are_no_numbers(value, error):
    x, y = normal(20, 4), normal(20, 4)
    y[7, 2] = value
    for call in (frechet_distance, precision_recall, density_coverage):
        with pytest.raises(error, match="not finite, or are too large"):
            call(x, y)


def test_features_of_the_wrong_type_or_shape():
    with pytest.raises(
        TypeError, match="real must be a tensor of floats, not torch.int"
    ):
        precision_recall(torch.ones(9, 4, dtype=torch.int64), normal(9, 4))
    with pytest.raises(TypeError, match="features must be a tensor of floats"):
        gaussian(np.ones((9, 4)))
    with pytest.raises(ValueError, match=r"fake must be \(N, D\), N at least 4"):
        precision_recall(normal(9, 4), normal(3, 4))
    with pytest.raises(ValueError, match="k is 0"):
        neighbourhoods(normal(9, 4), normal(9, 4), k=0)
    with pytest.raises(ValueError, match="differ in width: 4 and 3"):
        frechet_distance(normal(9, 4), normal(9, 3))
    with pytest.raises(ValueError, match="differ in width: 4 and 3"):
        precision_recall(normal(9, 4), normal(9, 3))
    check_features(normal(1, 1))


X, ONE = torch.zeros(4, 1, 8, 8), torch.eye(3).double()
SET = ImageSet(torch.randint(256, (8, 3, 8, 8)).byte(), torch.arange(8) % 2)
REAL = Reference(gaussian(normal(400, 192)), normal(20, 192))


def normals(covariance, mean=3):
    return frechet_distance(Gaussian(torch.zeros(mean), covariance), normal(9, 3))


def measured(**changes):
    return measure(SET._replace(**changes), REAL, pixels, draws=2)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: normals(torch.eye(2)), r"must be \(D,\) and \(D, D\), not \(3,\) and"),
        (lambda: normals(torch.eye(0), mean=0), r"not \(0,\)"),
        (lambda: normals(-ONE), "covariance is none: it has the eigenvalue -1"),
        (lambda: normals(torch.diag(ONE[0] - 0.01)), "has the eigenvalue -0.01"),
        (lambda: normals(ONE + torch.ones(3, 3).triu(1)), "it is not symmetric"),
        (lambda: frechet_distance(X[0, 0, :, :0], X[0, 0, :, :0]), "D at least 1"),
        (lambda: precision_recall(normal(9, 3).to("meta"), normal(9, 3)), "floats"),
        (lambda: features(X, lambda x: None), "extractor gives None for 4 images"),
        (lambda: features(X, lambda x: x), r"gives .*\(4, 1, 8, 8\) for 4 images"),
        (lambda: features(X, lambda x: x[:3, 0, 0]), r"gives .*\(3, 8\) for 4 images"),
        (lambda: features(X, lambda x: x[:, 0, 0].numpy()), "gives a numpy.ndarray"),
        (lambda: features(X, lambda x: x[:, 0, 0, : len(x)], 3), "differ in width"),
        (lambda: mean_interval([]), "values are none"),
        (lambda: mean_interval([1e308, 1e308]), "values must be .* not too large"),
        (lambda: mean_interval([[1.0], [2.0, 3.0]]), "values must be numbers"),
        (lambda: centred_interval(1.0, [1e308, -1e308]), "not too large"),
        (
            lambda: distinguishable(Interval(0, 0, 1), Interval(np.nan, 0, 1)),
            "b is .*Na",
        ),
        (lambda: bootstrap(lambda i: 1.0, torch.ones(5) + 1j, 3), "labels must be"),
        (lambda: bootstrap(lambda i: np.nan, 5, 3), "finite"),
        (lambda: bootstrap(lambda i: 1.0, 10**12, 3), "labels is 1000000000000"),
        (lambda: proportion(torch.ones(0).bool()), "hits must be"),
        (lambda: measured(labels=torch.zeros(7).long()), "samples must hold a label"),
        (lambda: measured(labels=torch.zeros(8)), "samples must hold a label"),
        (lambda: measured(images=SET.images / 255), "samples must be images, uint8"),
        (lambda: measured(images=SET.images[:0]), "samples must be images, uint8"),
        (lambda: named_extractor("math:pi"), "it is a float, not a function"),
    ],
)
def test_what_is_no_measurement(call, said):
    with pytest.raises((TypeError, ValueError), match=said):
        call()


def test_numbers_may_be_any_floats_or_need_gradients():
    x, g = normal(20, 3), gaussian(normal(20, 3, seed=1))
    for kind in (torch.float32, torch.float16):
        rough = Gaussian(g.mean.to(kind), g.covariance.to(kind))
        assert rough.covariance.dtype == torch.float64
        found = frechet_distance(rough, x)
        assert found == pytest.approx(frechet_distance(g, x), abs=0.02)
    few = gaussian(normal(20, 64)).covariance.float()  # rank 19, rounded
    assert frechet_distance(Gaussian(torch.zeros(64), few), normal(80, 64)) > 0
    y = x.clone().requires_grad_()
    assert precision_recall(y, y) == (1, 1) and in_manifold(y, y).all()
    assert mean_interval(y[:, 0]) == mean_interval(x[:, 0])


@pytest.mark.parametrize(
    "labels, draws",
    [
        (torch.tensor([0.0, 1.0]), 9),
        (torch.tensor([0.0, float("nan")]), 9),
        (torch.zeros(2, 2, dtype=torch.int64), 9),
        (torch.zeros(0, dtype=torch.int64), 9),
        (torch.zeros(2, dtype=torch.int64), 0),
    ],
)
def test_labels_of_a_bootstrap(labels, draws):
    with pytest.raises(ValueError, match="labels must be|draws is 0"):
        bootstrap(lambda i: 0.0, labels, draws)


def test_huge_labels_cost_nothing():
    labels = torch.tensor([0] * 10 + [20_000_000] * 10)
    seen = []
    bootstrap(lambda i: seen.append(i) or 0.0, labels, 5)
    assert all((i < 10).sum() == 10 for i in seen)


def test_images_in_other_units():
    bytes_as_floats = torch.rand(4, 3, 8, 8) * 255
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        features(bytes_as_floats, pixels)
    shown = [
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4), TypeError),
        (bytes_as_floats, torch.arange(4), ValueError),
        (torch.zeros(4, 1, 8, 8), torch.arange(4).float(), TypeError),
        (torch.zeros(4, 1, 8, 8), torch.arange(3), ValueError),
    ]
    for images, labels, error in shown:
        with pytest.raises(error, match="images|labels"):
            accuracy(lambda x, t: x.mean((1, 2)), Diffusion(), images, labels, [0])


@pytest.mark.parametrize("name", ["resnet", "rcg.metrics:nothing", "nowhere:pixels"])
def test_unknown_extractors(name):
    with pytest.raises(ValueError, match="extractor"):
        named_extractor(name)


# --- accuracy


def test_shares_of_the_accuracy_add_up():
    images = normal(53, 1, 8, 8).float().clamp(-1, 1)
    labels = torch.arange(53) % 4

    def classifier(x, t):
        return x.flatten(1)[:, :4]

    on = (classifier, Diffusion(), images, labels, [100, range(0, 500)])
    parts = [
        np.array(accuracy(*on, batch_size=7, share=(k, 5))) * len(range(k, 53, 5))
        for k in range(5)
    ]
    assert np.allclose(sum(parts) / 53, accuracy(*on, batch_size=7))


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(images=X[:0], labels=torch.arange(0)), "at least one image"),
        (dict(images=X[:, :0]), "at least one image"),
        (dict(share=(2, 2)), "k below n"),
        (dict(labels=torch.arange(4) + 1), "labels must be from 0 to 3"),
        (dict(labels=torch.arange(4) - 1), "labels must be at least 0"),
        (dict(labels=torch.arange(4).int()), "labels must be an int64"),
        *[(dict(timesteps=[k]), "t must be from 0 to 999") for k in (1000, 10**30)],
        (dict(timesteps=[range(1001)]), "t must be from 0 to 999"),
        (dict(timesteps=[]), "timesteps"),
        (dict(timesteps=[-1]), "timesteps"),
        (dict(timesteps=[range(5, 5)]), "timesteps.*rising ranges"),
        (dict(timesteps=[range(-5, 5)]), "timesteps.*rising ranges"),
        (dict(timesteps=[range(0, 9, 2)]), "timesteps.*rising ranges"),
        (dict(timesteps=[range(9, 0, -1)]), "timesteps.*rising ranges"),
    ],
)
def test_accuracy_of_nothing_or_at_no_timestep(changes, said):
    given = dict(images=X, labels=torch.arange(4), timesteps=[0]) | changes
    with pytest.raises((TypeError, ValueError), match=said):
        accuracy(lambda x, t: x.flatten(1)[:, :4], Diffusion(), **given)

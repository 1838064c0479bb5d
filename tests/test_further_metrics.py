"Further metrics against numbers of torch-fidelity 0.4.0, and what they refuse."

import numpy as np
import pytest
import torch

from rcg.further_metrics import (
    GaussianKernel,
    inception_score,
    kernel_distance,
    mmd,
    nearest_ratio,
)

# torch_fidelity.metric_kid.kid_features_to_metric and metric_isc.isc_features_to_metric
# of the features below, with a cubic kernel but where a Gaussian of σ = 10 is named
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

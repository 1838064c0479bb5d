"""What the method's functions refuse, in a sentence that names the argument."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from rcg.attack import L2, Attack, Linf, Threat, pgd
from rcg.classifier import Classifier, ClassifierConfig, log_prob_gradient
from rcg.diffusion import (
    Diffusion,
    DiffusionConfig,
    check_inputs,
    cosine_betas,
    denoising_loss,
    evenly_strided,
    noise_like,
)
from rcg.gradient_training import (
    Denoised,
    GradientPenaltyLoss,
    JointEnergyLoss,
    ScoreMatchingLoss,
    SingleStepLoss,
    SmallClassifier,
    SmoothingLoss,
)
from rcg.running.presets import Sampling
from rcg.running.settings import described
from rcg.solvers import (
    DDIM,
    DDPM,
    DPMSolver2M,
    Level,
    Mixture,
    orders_figure,
    predictor,
    solve,
)
from rcg.training import ClassifierLoss
from rcg.unet import UNet, UNetConfig

SHAPE = dict(
    image_size=8, channels=1, width=32, multipliers=(1, 2), depth=1, attention=(4,)
)
UNET = UNetConfig(**SHAPE)
CLASSIFIER = ClassifierConfig(**SHAPE, head_width=32)

D = Diffusion()
x, t, y = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 500, 999]), torch.arange(4)


def randomised(network: nn.Module) -> nn.Module:
    "In training the last layers start at zero, which would hide most differences."
    for p in network.parameters():
        nn.init.normal_(p, std=0.1)
    return network.eval()


@pytest.fixture
def calls():
    "The functions that take a batch, by name, as functions of (images, t, labels)."
    unet, classifier = UNet(UNET), Classifier(CLASSIFIER)
    diffusion, foreign = Diffusion(), lambda x, t: classifier(x, t)
    output = torch.zeros(4, 2, 8, 8)
    return {
        "q_sample": lambda x, t, y: diffusion.q_sample(x, t),
        "p": lambda x, t, y: diffusion.p(output, x, t),
        "unet": unet,
        "classifier": lambda x, t, y: classifier(x, t),
        "gradient": lambda x, t, y: classifier.log_prob_gradient(x, t, y),
        "gradient of a function": lambda x, t, y: log_prob_gradient(foreign, x, t, y),
        "pgd": lambda x, t, y: pgd(classifier, x, t, y, L2(0.5)),
        "pgd to the end": lambda x, t, y: pgd(
            classifier, x, t, y, Linf(0.5), early_stop=False
        ),
    }


def refused(call, kind, words: str):
    with pytest.raises(kind, match=words) as found:
        call()
    assert "\n" not in str(found.value)


TAKE_LABELS = ("unet", "gradient", "gradient of a function", "pgd", "pgd to the end")


@torch.no_grad()
def test_a_good_batch_is_taken(calls):
    for call in calls.values():
        assert torch.isfinite(torch.as_tensor(call(x, t, y)[0])).all()


@pytest.mark.parametrize(
    "images, kind, words",
    [
        (x.byte(), TypeError, "images must be floats in .* not torch.uint8"),
        (x.numpy(), TypeError, "images must be a tensor, not ndarray"),
        (x[:, 0], ValueError, r"shape \(N, C, H, W\), not \(4, 8, 8\)"),
        (x + torch.nan, ValueError, "images hold NaN or infinity"),
        (x + torch.inf, ValueError, "images hold NaN or infinity"),
        ((x + 1) * 255, ValueError, "images range from 255 to 255"),
    ],
    ids=["bytes", "numpy", "three axes", "nan", "infinity", "0 to 255"],
)
def test_images(calls, images, kind, words):
    for call in calls.values():
        refused(lambda call=call: call(images, t, y), kind, words)


@pytest.mark.parametrize(
    "times, kind, words",
    [
        (t - 1, ValueError, "t must be .* 0.*, but ranges from -1 to 998"),
        (t + 1, ValueError, "t must be from 0 to 999, but ranges from 1 to 1000"),
        (t.float(), TypeError, "t must be an int64 tensor, not torch.float32"),
        (t.int(), TypeError, "t must be an int64 tensor, not torch.int32"),
        (5, TypeError, "t must be an int64 tensor, not int"),
        (t[:1], ValueError, "t must be one number for each of the 4 images"),
        (t[:, None], ValueError, "t must be one number for each of the 4 images"),
    ],
    ids=["below", "above", "float", "int32", "number", "too few", "two axes"],
)
def test_timesteps(calls, times, kind, words):
    for call in calls.values():
        refused(lambda call=call: call(x, times, y), kind, words)


@pytest.mark.parametrize(
    "labels, kind, words",
    [
        (y - 1, ValueError, "labels must be .* 0.*, but ranges from -1 to 2"),
        (y + 7, ValueError, "labels must be from 0 to 9, but ranges from 7 to 10"),
        (y - 100, ValueError, "labels must be .* ranges from -100 to -97"),
        (y.float(), TypeError, "labels must be an int64 tensor, not torch.float32"),
        (y[:1], ValueError, "labels must be one number for each of the 4 images"),
    ],
    ids=["below", "above", "ignore_index", "float", "too few"],
)
def test_labels(calls, labels, kind, words):
    for name in TAKE_LABELS:
        refused(lambda name=name: calls[name](x, t, labels), kind, words)


def test_shapes():
    rgb, noise = torch.zeros(4, 3, 8, 8), torch.zeros(4, 1, 8, 4)
    takes = r"takes images \(N, 1, 8, 8\), not \(4, 3, 8, 8\)"
    refused(lambda: UNet(UNET)(rgb, t, y), ValueError, takes)
    refused(lambda: Classifier(CLASSIFIER)(rgb, t), ValueError, takes)
    refused(lambda: Diffusion().q_sample(x, t, noise), ValueError, "noise must have")
    output = "a model with 2 output channels.*or pass the process that it was trained"
    refused(lambda: Diffusion().p(x, x, t), ValueError, output)


@pytest.mark.parametrize(
    "timesteps",
    [[5, 3], [3, 3], [-1, 3], [5000], [0.5], [], [[1, 2]]],
)
def test_timesteps_to_visit_rise(timesteps):
    wrong = np.array(timesteps)
    refused(lambda: Diffusion(D.config, wrong), ValueError, "timesteps are .* rising")


@pytest.mark.parametrize("times", [t + 1, t - 1, t.float()])
def test_coefficients_are_of_timesteps(times):
    for call in (D.x0_from_noise, D.noise_from_x0, D.posterior_mean):
        order = (x, x, times) if call == D.posterior_mean else (x, times, x)
        refused(lambda c=call, o=order: c(*o), ValueError, "t must be int64 .* to 999")


def test_a_batch_may_be_empty(calls):
    "Nothing in, nothing out."
    del calls["p"]  # whose output is of four images
    for call in calls.values():
        assert len(call(x[:0], t[:0], y[:0])) == 0


def test_networks_and_images_are_on_one_device():
    for network in (UNet(UNET).to("meta"), Classifier(CLASSIFIER).to("meta")):
        args = (x, t, y)[: 3 if isinstance(network, UNet) else 2]
        refused(lambda n=network, a=args: n(*a), ValueError, "images are on cpu")


@pytest.mark.parametrize(
    "answer", [None, np.zeros((4, 2, 8, 8)), t.float(), x[:1], torch.zeros(4, 3, 8, 8)]
)
def test_denoisers_give_noise(answer):
    model = lambda x_t, t, labels=None: answer
    plain = Diffusion(DiffusionConfig(variance="small"))
    small = SmallClassifier(1, 10)
    words = "not noise like x_t" + "|output channels" * isinstance(answer, torch.Tensor)
    for call in (
        lambda: denoising_loss(D, model, x, t, y),
        lambda: denoising_loss(plain, model, x, t, y),
        lambda: list(solve(DDIM(5), D, predictor(model), x)),
        lambda: Denoised(small, model, D)(x, t),
        lambda: ScoreMatchingLoss(D, 1.0, model)(small, x, y, t, x),
    ):
        refused(call, ValueError, words)


def test_networks_in_the_wrong_place():
    classifier, unet = Classifier(CLASSIFIER), UNet(UNET)
    swapped = "are two networks swapped"
    for call in (
        lambda: denoising_loss(D, classifier, x, t, y),
        lambda: pgd(lambda images: images.flatten(1), x, t, y),
        lambda: log_prob_gradient(lambda images: images.flatten(1), x, t, y),
        lambda: ScoreMatchingLoss(D, 1.0, classifier)(classifier, x, y, t, x),
    ):
        refused(call, TypeError, swapped)
    refused(lambda: pgd(unet, x, t, y), ValueError, "needs labels")


@pytest.mark.parametrize("solver", [DDPM(5), DPMSolver2M(5, stochastic=True)])
@pytest.mark.parametrize("drawn", [None, x[:1], x.numpy()[:1]])
def test_noise_is_like_the_images(solver, drawn):
    predict = predictor(lambda x, t: torch.zeros(4, 2, 8, 8))
    run = lambda: list(solve(solver, D, predict, x, lambda: drawn))
    refused(run, ValueError, "noise gives .*, not noise like x")


def test_predictions_are_given_back():
    run = lambda: list(solve(DDIM(5), D, lambda *_: None, x))
    refused(run, ValueError, "predict gives None, not a Denoised")


def test_levels_without_noise_or_signal():
    ends = (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)
    assert [Level(0, *ab).log_snr for ab in ends] == [math.inf, -math.inf, 0]


LOSSES = (
    *(ClassifierLoss(D), SingleStepLoss(D, L2(0.5)), SmoothingLoss(D, 0.5)),
    *(GradientPenaltyLoss(D, 1.0), JointEnergyLoss(D, 1.0)),
    ScoreMatchingLoss(D, 1.0, UNet(UNetConfig(**SHAPE, null_label=True))),
)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("small", [False, True])
def test_losses_take_batches(loss, small):
    model = SmallClassifier(1, 10) if small else Classifier(CLASSIFIER)
    for labels in (y + 7, y - 100, y.float(), y[:2]):
        refused(
            lambda y=labels: loss(model, x, y, t, x), (TypeError, ValueError), "labels"
        )
    assert loss(model, x, y, t, x)["loss"].shape == (4,)


def test_a_mixture_takes_its_own_points_and_labels():
    two = Mixture(torch.randn(3, 2), 0.5)
    points = torch.zeros(4, 2, 1, 1)
    refused(lambda: two.classifier(x, t), ValueError, r"\(N, 2, 1, 1\), not")
    for labels in (y, y - 2):
        refused(
            lambda y=labels: two.denoiser(points, t, y), ValueError, "the mixture knows"
        )


def test_networks_of_another_length():
    long = UNet(UNetConfig(**SHAPE, timesteps=4000))
    assert long(x, torch.full((4,), 3999), y).shape == (4, 2, 8, 8)
    refused(lambda: long(x, torch.full((4,), 4000), y), ValueError, "from 0 to 3999")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: L2(-1.0), "eps is -1.0"),
        (lambda: Linf(float("nan")), "eps is nan"),
        (lambda: Linf(float("inf")), "eps is inf"),
        (lambda: L2(1e30), "eps is 1e.30"),
        (lambda: Linf(1e308), "eps is 1e.308"),
        (lambda: Attack(step_size=1e30), "step_size is 1e.30"),
        (lambda: DiffusionConfig(steps=10**9), "steps is 1000000000"),
        (lambda: cosine_betas(10**15), "steps is 1000000000000000"),
        (lambda: evenly_strided(3, 10**9), "steps is 1000000000"),
        (lambda: UNetConfig(8, depth=10**9), "depth is 1000000000"),
        (lambda: UNetConfig(8, width=32 * 10**6), "width is 32000000"),
        (lambda: UNetConfig(8, classes=10**12), "classes is 1000000000000"),
        (lambda: ClassifierConfig(8, classes=10**12), "classes is 1000000000000"),
        (lambda: UNetConfig(2**40), "image_size is 1099511627776"),
        (lambda: Sampling(sampler="none"), "unknown sampler 'none'"),
        (lambda: noise_like(x, 2**63), "seed is 9223372036854775808"),
        (lambda: orders_figure({"a": {}}), "errors.a"),
        (lambda: orders_figure({"a": {10: 0.0, 20: 1.0}}), "errors.a.10 is 0.0"),
        (lambda: Mixture(torch.zeros(0, 3), 1.0), "means must have the shape"),
        (lambda: Attack(0.5), "threat is 0.5: it must be an instance of Threat"),
        (lambda: Attack(steps=0), "steps is 0"),
        (lambda: Attack(step_size=-0.1), "step_size is -0.1"),
        (lambda: pgd(None, x, t, y, L2(0.5), steps=0), "steps is 0"),
        (lambda: DiffusionConfig(schedule="square"), "schedule is 'square'"),
        (lambda: DiffusionConfig(variance="none"), "variance is 'none'"),
        (lambda: DiffusionConfig(steps=0), "steps is 0"),
        (lambda: DiffusionConfig(steps=15), "15 steps are too few"),
        (lambda: UNetConfig(0), "image_size is 0"),
        (lambda: UNetConfig(9, multipliers=(1, 2)), "image_size is 9"),
        (lambda: UNetConfig(8, multipliers=()), "multipliers is"),
        (lambda: UNetConfig(8, multipliers=(1, 0)), "multipliers.1 is 0"),
        (lambda: UNetConfig(8, width=48), "width is 48"),
        (lambda: UNetConfig(8, dropout=1.0), "dropout is 1.0"),
        (lambda: UNetConfig(8, classes=0), "classes is 0"),
        (lambda: UNetConfig(8, classes=None, null_label=True), "null_label needs"),
        (lambda: ClassifierConfig(8, classes=-1), "classes is -1"),
    ],
)
def test_settings(make, words):
    refused(make, ValueError, words)


def test_null_label():
    with_null = randomised(UNet(UNetConfig(**SHAPE, null_label=True)))
    null = torch.full_like(y, with_null.null_label)
    assert with_null.classes == with_null.null_label == 10
    assert with_null(x, t).equal(with_null(x, t, null))
    assert not torch.allclose(with_null(x, t), with_null(x, t, y))
    refused(
        lambda: with_null(x, t, null + 1), ValueError, "labels must be from 0 to 10"
    )


def test_labels_where_there_are_none():
    free = UNet(UNetConfig(**SHAPE, classes=None))
    assert free.classes is None and free(x, t).shape == (4, 2, 8, 8)
    refused(lambda: free(x, t, y), ValueError, "takes no labels")
    refused(lambda: UNet(UNET)(x, t), ValueError, "needs labels")


class Own:
    "A threat model of somebody else, without any base class."

    eps = 0.5

    def step(self, x, gradient, size):
        return L2(self.eps).step(x, gradient, size)

    def project(self, x, center):
        return L2(self.eps).project(x, center)


class Broken(Own):
    "One that forgets to return its images."

    def project(self, x, center):
        pass


class Worded(Own):
    eps = "big"


def test_a_threat_has_a_size():
    refused(lambda: Attack(Worded())(None, x, t, y), ValueError, "eps is 'big'")


def test_a_threat_gives_images():
    attack = Attack(Broken(), early_stop=False)
    network = randomised(Classifier(CLASSIFIER))
    refused(lambda: attack(network, x, t, y), ValueError, "gives None, not images")


def test_no_budget_moves_nothing():
    network = randomised(Classifier(CLASSIFIER))
    for threat in (L2(0.0), Linf(0.0)):
        assert pgd(network, x, t, y, threat, early_stop=False).equal(x)


def test_a_threat_of_ones_own():
    network = randomised(Classifier(CLASSIFIER))
    noisy = torch.randn(4, 1, 8, 8)
    labels = network(noisy, t).argmax(1)
    ours, theirs = (pgd(network, noisy, t, labels, a) for a in (L2(0.5), Own()))
    assert isinstance(Own(), Threat) and not ours.equal(noisy) and ours.equal(theirs)
    refused(lambda: described(Attack(Own())), TypeError, "is no setting")


def test_weights_that_are_not_finite_do_not_hide():
    "The attack leaves such samples alone, so that the loss can say so."
    broken = Classifier(CLASSIFIER)
    nn.init.constant_(broken.out[2].c_proj.bias, torch.nan)
    for early_stop in (True, False):
        assert pgd(broken, x, t, y, L2(0.5), early_stop=early_stop).equal(x)


numbers = st.floats(-1, 1, width=32) | st.sampled_from([torch.nan, torch.inf, 300.0])


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    st.lists(numbers, min_size=2, max_size=2),
    st.lists(st.integers(-3, 1003), max_size=3),
    st.lists(st.integers(-3, 13), max_size=3),
)
def test_a_batch_is_taken_exactly_if_it_is_one(values, times, labels):
    images = torch.tensor(values)[:, None, None, None].expand(2, 1, 2, 2)
    times, labels = (torch.tensor(v, dtype=torch.int64) for v in (times, labels))
    plainly_bytes = min(values) >= 0 and max(values) > 10
    good = all(map(torch.isfinite, torch.tensor(values))) and not plainly_bytes
    good = good and len(times) == len(labels) == 2
    good = good and all(0 <= v < 1000 for v in times.tolist())
    good = good and all(0 <= v < 10 for v in labels.tolist())
    try:
        check_inputs(images, times, labels, steps=1000, classes=10)
    except ValueError as e:
        assert not good and any(w in str(e) for w in ("images", "t must", "labels"))
    else:
        assert good

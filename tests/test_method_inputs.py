"""What the method's functions refuse, in a sentence that names the argument."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from rcg.attack import L2, Attack, Linf, Threat, pgd
from rcg.classifier import Classifier, ClassifierConfig, log_prob_gradient
from rcg.diffusion import Diffusion, DiffusionConfig, check_inputs
from rcg.running.settings import described
from rcg.unet import UNet, UNetConfig

SHAPE = dict(
    image_size=8, channels=1, width=32, multipliers=(1, 2), depth=1, attention=(4,)
)
UNET = UNetConfig(**SHAPE)
CLASSIFIER = ClassifierConfig(**SHAPE, head_width=32)

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


def refused(call, kind: type[Exception], words: str):
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
        (x.numpy(), TypeError, "images must be floats in .* not float32"),
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
    output = "a model with 2 output channels"
    refused(lambda: Diffusion().p(x, x, t), ValueError, output)


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

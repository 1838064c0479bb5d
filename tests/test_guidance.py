"Guidance and its sampler: names of classes, half precision, and what is refused."

import math
import warnings
from functools import partial
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn

from rcg.attack import Attack
from rcg.classifier import log_prob_gradient
from rcg.data import digits
from rcg.diffusion import Diffusion
from rcg.gradient_training import GradientPenaltyLoss
from rcg.guidance import (
    AnyOf,
    Dynamic,
    Static,
    as_guidance,
    autoguidance,
    classifier_free,
    classifier_guidance,
    discriminator_guidance,
    image_guidance,
    prepared,
    sample,
)
from rcg.running.checkpoints import convert, load_classifier, load_unet
from rcg.running.presets import preset
from rcg.solvers import DDIM
from rcg.training import TrainingConfig, fit, train_classifier

T = Diffusion().config.steps
LABELS = torch.tensor([3, 8])


@pytest.fixture(scope="module")
def unet():
    return load_unet("digits-denoiser")


@pytest.fixture(scope="module")
def robust():
    return load_classifier("digits-robust")


def draw(unet, labels=LABELS, *args, **options):
    "Two digits in three steps."
    plain = dict(sampler=DDIM(5), seeds=range(len(labels)))
    return sample(unet, Diffusion(), labels, *args, **plain | options)


def test_classes_have_names(unet, robust):
    assert draw(unet, ["3", "8"]).equal(draw(unet))
    wrapped = torch.nn.DataParallel(unet)
    assert draw(wrapped, ["3", "8"], robust).equal(draw(unet, LABELS, robust))
    nameless = lambda x, t, y: unet(x, t, y)
    found = draw(nameless, ["3", "8"], robust, shape=unet.shape)
    assert found.equal(draw(unet, LABELS, robust))
    with pytest.raises(ValueError, match="no network knows names of its classes"):
        draw(nameless, ["3", "8"], shape=unet.shape)
    for labels in ([3, 8], LABELS.numpy(), "38"):
        with pytest.raises(ValueError, match=r"^labels are .*: pass torch.tensor.labe"):
            draw(unet, labels)


def test_a_training_keeps_the_names_of_its_classes(tmp_path):
    p, data = preset("digits"), digits("train")
    data.classes = [f"digit {k}" for k in range(10)]
    network = type(load_classifier("digits-robust"))(p.classifier)
    config = TrainingConfig(1, batch_size=4)
    fit(train_classifier(network, Diffusion(), data, config, folder=tmp_path))
    convert(tmp_path / "model.safetensors", tmp_path / "half.safetensors")
    for file in ("model", "half"):
        loaded = load_classifier(tmp_path / f"{file}.safetensors", "digits")
        assert loaded.class_names == network.class_names == data.classes


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_noise_in_half_precision_is_sampled_in_float32(unet, half):
    noise = torch.randn(2, *unet.shape).to(half)
    found = draw(unet, init_noise=noise)
    assert found.dtype == torch.float32
    assert found.equal(draw(unet, init_noise=noise.float()))


def test_terms_print_their_networks_and_functions(robust):
    def force(x, t, y, seen):
        return x

    term = classifier_guidance(robust).scheduled(lambda time: 1.0) + force
    expected = ["classifier_guidance(digits-robust).scheduled(<lambda>)", "force"]
    assert term.described() == expected


def test_networks_in_the_wrong_place_are_refused(unet, robust):
    guided = partial(draw, unet, LABELS)
    swapped = "are two networks swapped"
    for mistake in (
        lambda: draw(robust, LABELS, unet),
        lambda: guided(lambda x: x.flatten(1)),
        lambda: guided(guidance=image_guidance(robust)),
        lambda: guided(guidance=image_guidance(unet)),
        lambda: guided(guidance=autoguidance(robust)),
        lambda: guided(guidance=classifier_free(1.0, robust)),
        lambda: guided(guidance=lambda x_t, t: x_t),
    ):
        with pytest.raises(TypeError, match=swapped):
            mistake()
    with pytest.raises(TypeError, match="is a digits-denoiser, which is a denoiser"):
        guided(unet)
    with pytest.raises(ValueError, match=r"gives \(2, 1, 8, 8\), not logits"):
        guided(lambda x_t, t: x_t)
    with pytest.raises(ValueError, match="digits-robust knows 10 classes"):
        discriminator_guidance(robust)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "heun", "dpm++2m"])
def test_clipping_hides_no_overflow(unet, value, sampler):
    def broken(x, t, labels):
        noise = unet(x, t, labels)
        noise[1, 0, 2, 3] = value  # one pixel
        return noise

    how = dict(sampler=sampler, steps=5, shape=unet.shape, seeds=[7, 8])
    said = r"1 of 2 images are .* far too large \(of the seeds 8\), by what {} gives"
    with pytest.raises(ValueError, match=said.format("the denoiser")):
        draw(broken, **how)
    push = lambda x, t, y, seen: broken(x, t, y)[:, :1]
    for threshold in (None, Static(), Dynamic()):
        with pytest.raises(ValueError, match=said.format("<lambda>")):
            draw(unet, guidance=push, threshold=threshold, **how)


def test_a_scale_weighs_a_classifier(unet, robust):
    for options in (dict(guidance=classifier_guidance(robust)), {}):
        with pytest.raises(ValueError, match="there is none: write 50 . guidance"):
            draw(unet, scale=50.0, **options)


def test_guidance_is_subtracted_and_divided(robust):
    g, h = 4 * classifier_guidance(robust), as_guidance(Static())
    assert g / 2 == 0.5 * g and -g == -1 * g and g - h == g + -1 * h


def test_terms_that_cannot_guide_are_refused(unet, robust):
    bayes, guided = classifier_guidance(robust), partial(draw, unet)
    for term, said in (
        (bayes.within(0, T + 1), "beyond the last timestep, 999"),
        (bayes.within(T), "beyond the last timestep, 999"),
        (bayes.scheduled(lambda time: math.nan), "schedule gives nan"),
        (as_guidance(lambda x, t, y, seen: None), "<lambda> gives None"),
        (as_guidance(lambda x, t, y, seen: x[0]), r"not a tensor like x_t \(2, 1, 8"),
        (classifier_guidance(robust, AnyOf((3, 12))), "the labels 0 to 9"),
        (classifier_free(1.0), "can do without labels"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            guided(guidance=term)
    for schedule in (lambda t, T: 1, lambda: 1):
        with pytest.raises(TypeError, match="the schedule is called with .t / T.,"):
            bayes.scheduled(schedule)
    with pytest.raises(ValueError, match="classes is .*: .* at least 1"):
        AnyOf(())
    with pytest.raises(ValueError, match="the interval from 800 to 100 is empty"):
        bayes.within(800, 100)


def test_seeds_and_noise_that_do_not_fit_are_refused(unet):
    for wrong in (
        *(range(1), 0, [0.5, 1], [-1, 0], "01", [math.inf, 0], [True, False], count()),
        *(range(10**12), [None, None], torch.tensor(3)),
    ):
        with pytest.raises(ValueError, match="seeds"):
            draw(unet, seeds=wrong)
    assert draw(unet, seeds=[2**63, 2**200]).isfinite().all()
    with pytest.raises(ValueError, match="init_noise must be standard normal"):
        draw(unet, init_noise=255 * torch.rand(2, *unet.shape))
    for wrong in (
        *(torch.ones(2, 1, 8, 8).bool(), torch.ones(2, 1, 8, 8).long()),
        *(torch.ones(2, 1, 8, 8, device="meta"), torch.ones(2, 1, 8, 8) * math.nan),
        *(torch.ones(2, 1, 0, 8), torch.ones(2, 8, 8), torch.ones(3, 1, 8, 8)),
    ):
        with pytest.raises(ValueError, match="init_noise must"):
            draw(unet, init_noise=wrong)
    with pytest.raises(ValueError, match=r"shape is \(1, 4, 8\), but init_noise has"):
        draw(unet, init_noise=torch.ones(2, 1, 8, 8), shape=(1, 4, 8))


def test_labels_without_values_are_refused(unet):
    with pytest.raises(ValueError, match="labels must be int64"):
        draw(unet, LABELS.to("meta"))


def test_more_images_than_memory_are_refused(unet):
    plain = lambda x, t, y: unet(x, t, y)
    with pytest.raises(ValueError, match="GB of memory, .*: draw fewer at a time"):
        draw(plain, shape=(1, 10**6, 10**6))


def test_a_classifier_of_other_images_is_named(unet):
    colours = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())
    half = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).half()
    for net in (colours, half):
        said = r"^the classifier Sequential fails on images .* prepared\(net, size"
        with pytest.raises(RuntimeError, match=said):
            draw(unet, guidance=image_guidance(net))


ANSWERS = {  # of a classifier of two images
    "None": lambda x: None,
    "an array": lambda x: np.zeros((2, 10)),
    "a text": lambda x: "logits",
    "integers": lambda x: torch.zeros(2, 10).long(),
    "complex": lambda x: torch.zeros(2, 10) + 0j,
    "no classes": lambda x: x.flatten(1)[:, :0],
    "one image": lambda x: x.flatten(1)[:1],
    "an image": lambda x: x,
    "a pair": lambda x: (x.flatten(1), 0),
}
LOST = {
    "detached": lambda x: x.detach().flatten(1),
    "another graph": lambda x: torch.zeros(2, 10, requires_grad=True) * 1,
}


@pytest.mark.parametrize(
    "make, said",
    [(f, "not logits") for f in ANSWERS.values()]
    + [(f, "lost their gradient") for f in LOST.values()],
    ids=[*ANSWERS, *LOST],
)
def test_what_are_no_logits_guides_nothing(unet, make, said):
    noisy, clean = lambda x_t, t: make(x_t), lambda images: make(images)
    times, x = torch.zeros(2, dtype=torch.int64), torch.zeros(2, 1, 8, 8)
    attack = Attack(early_stop=False)
    for call in (
        lambda: draw(unet, LABELS, noisy),
        lambda: draw(unet, guidance=image_guidance(clean)),
        lambda: log_prob_gradient(noisy, x, times, LABELS),
        lambda: attack(noisy, x, times, LABELS),
        lambda: GradientPenaltyLoss(Diffusion(), 1.0)(noisy, x, LABELS, times, x),
    ):
        with pytest.raises(ValueError, match=said):
            call()


TARGETS = {
    "None": lambda logits, y: None,
    "a number": lambda logits, y: 1.0,
    "one for all": lambda logits, y: logits.sum(),
    "all logits": lambda logits, y: logits,
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target_is_one_value_per_image(unet, robust, target):
    with pytest.raises(ValueError, match="the target <lambda> gives .* one value per"):
        draw(unet, guidance=classifier_guidance(robust, target))


def test_functions_are_not_asked_for_classes_that_they_lack(unet, robust):
    few = lambda x_t, t: robust(x_t, t)[:, :2]
    for term in (
        *(classifier_guidance(few), classifier_guidance(few, AnyOf((3,)))),
        discriminator_guidance(lambda x_t, t: few(x_t, t)[:, :1]),
    ):
        with pytest.raises(ValueError, match="the classifier knows the labels 0 to"):
            draw(unet, guidance=term)


@pytest.mark.parametrize("given", [None, "a", torch.ones(2), math.inf])
def test_a_schedule_gives_numbers(unet, robust, given):
    term = classifier_guidance(robust).scheduled(lambda time: given)
    with pytest.raises(ValueError, match="its schedule gives .* not a number"):
        draw(unet, guidance=term)


@pytest.mark.parametrize(
    "make",
    [
        *(lambda x: None, lambda x: x.numpy(), lambda x: x[:1], lambda x: x.long()),
        lambda x: x.expand(-1, 6, -1, -1),
    ],
)
def test_terms_and_denoisers_give_tensors_like_their_images(unet, make):
    with pytest.raises(ValueError, match="not a tensor like x_t"):
        draw(unet, guidance=lambda x, t, y, seen: make(x))
    if make(torch.ones(2, 1)[..., None, None]) is not None:
        wrong = lambda x_t, t, labels: make(x_t) if len(x_t) < 2 else make(x_t)[:1]
        with pytest.raises(ValueError, match="the denoiser gives .* not noise like"):
            draw(unet, guidance=autoguidance(wrong))


def test_a_term_in_double_precision_leaves_images_as_they_are(unet):
    found = draw(unet, guidance=lambda x, t, y, seen: x.double())
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    "options, said",
    [
        (dict(std=(0.0,) * 3), "std"),
        (dict(std=(math.nan,) * 3), "std"),
        (dict(std=(1e-300,) * 3), "std"),
        (dict(std=(-1.0, 1.0, 1.0)), "std"),
        (dict(mean=(1e39,) * 3), "mean"),
        (dict(mean=(), std=()), "mean"),
        (dict(mean=(0.5, 0.5)), "mean"),
        (dict(size=10**6), "size"),
    ],
)
def test_a_classifier_is_prepared_with_colours_that_can_be(options, said):
    with pytest.raises(ValueError, match=said):
        prepared(lambda x: x.flatten(1), **options)


@pytest.mark.parametrize("x", [np.ones((2, 3, 8, 8)), torch.ones(3, 8, 8)])
def test_a_prepared_classifier_takes_images(x):
    with pytest.raises((TypeError, ValueError), match="images must"):
        prepared(lambda x: x.flatten(1), 8)(x)


@pytest.mark.parametrize("layer, told", [(nn.BatchNorm2d(1), 1), (nn.Dropout(0), 0)])
def test_a_network_in_training_mode_is_told(layer, told):
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 10))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        prepared(network, None, (0.5,), (0.5,))
        image_guidance(network).parts[0].term.check(None, torch.arange(3))
        prepared(network.eval(), None, (0.5,), (0.5,))
    said = [str(w.message) for w in heard if "in training mode" in str(w.message)]
    assert len(said) == 2 * told and all("BatchNorm2d" in text for text in said)

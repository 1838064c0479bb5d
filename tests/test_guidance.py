"Guidance and its sampler: names of classes, half precision, and what is refused."

import math
from functools import partial

import pytest
import torch

from rcg.data import digits
from rcg.diffusion import Diffusion
from rcg.guidance import (
    AnyOf,
    as_guidance,
    autoguidance,
    classifier_free,
    classifier_guidance,
    discriminator_guidance,
    image_guidance,
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
    with pytest.raises(ValueError, match="labels is .3, 8.: it must be an instance"):
        draw(unet, [3, 8])


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
    with pytest.raises(ValueError, match="classes is .*: .* at least 1"):
        AnyOf(())
    with pytest.raises(ValueError, match="the interval from 800 to 100 is empty"):
        bayes.within(800, 100)


def test_seeds_and_noise_that_do_not_fit_are_refused(unet):
    for wrong in (range(1), 0, [0.5, 1], [-1, 0]):
        with pytest.raises(ValueError, match="seeds"):
            draw(unet, seeds=wrong)
    with pytest.raises(ValueError, match="init_noise is standard normal"):
        draw(unet, init_noise=255 * torch.rand(2, *unet.shape))

"Bridges to diffusers: the reference's networks there and back, and its absence."

import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_golden import ADM_UNET, IDDPM_UNET, built
from torch import nn

from rcg.checkpoints import load_classifier, load_unet
from rcg.diffusion import Diffusion
from rcg.experiment import preset
from rcg.guidance import sample
from rcg.solvers import Denoised
from rcg.unet import UNet, UNetConfig

diffusers = pytest.importorskip("diffusers")

from rcg.interop import (  # noqa: E402
    ClassifierGuider,
    DiffusersDenoiser,
    GuidanceClassifier,
    RobustGuidancePipeline,
    Scheduled,
    from_diffusers,
    load_denoiser,
    model_output,
    process_of,
    to_diffusers,
)


def drawn(config: UNetConfig) -> UNet:
    "A network of random weights none of which is zero."
    unet = UNet(config).eval()
    for p in unet.parameters():
        nn.init.normal_(p, std=0.1)
    return unet


def inputs(config: UNetConfig) -> tuple:
    x = torch.randn(2, config.channels, config.image_size, config.image_size)
    labels = torch.tensor([0, config.classes - 1]) if config.classes else None
    return x, torch.tensor([3, 900]), labels


SHAPES = {
    "ADM, heads of a width": dict(heads=1, head_width=16),
    "ADM, as many heads everywhere": dict(heads=4),
    "IDDPM": dict(residual_resize=False, dropout=0.1),
    "no labels, fixed variance": dict(classes=None, learned_variance=False),
    "a null label": dict(null_label=True),
    "one level": dict(multipliers=(1,), attention=(16,)),
    "no attention but in the middle": dict(attention=()),
    "grey": dict(channels=1),
}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_networks_there_and_back(changes, tmp_path):
    shape = dict(image_size=16, width=32, multipliers=(1, 2, 4), depth=1)
    config = UNetConfig(**{**shape, "attention": (8, 4), **changes})
    unet, batch = drawn(config), inputs(config)
    model = to_diffusers(unet)
    model.save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path)
    back = from_diffusers(model, null_label=config.null_label)
    assert sum(map(torch.numel, model.parameters())) == sum(
        map(torch.numel, unet.parameters())
    )
    assert {k: v.shape for k, v in back.state_dict().items()} == {
        k: v.shape for k, v in unet.state_dict().items()
    }
    with torch.no_grad():
        expected = unet(*batch)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(model(*batch).sample, expected, atol=1e-5, rtol=0)
    for name, value in unet.state_dict().items():
        assert back.state_dict()[name].equal(value), name


@pytest.mark.parametrize(
    "name, config", [("adm_unet_tiny", ADM_UNET), ("iddpm_unet_tiny", IDDPM_UNET)]
)
@torch.no_grad()
def test_the_reference_s_outputs(name, config, golden):
    weights, d = golden(name)
    model = to_diffusers(built(UNet(config), weights))
    found = model(d["x"], d["t"], d["y"]).sample
    torch.testing.assert_close(found, d["out"], atol=1e-5, rtol=1e-5)


def test_the_paper_s_network_at_full_size():
    config = preset("cifar10").unet
    unet, batch = drawn(config), inputs(config)
    with torch.no_grad():
        expected, found = unet(*batch), to_diffusers(unet)(*batch).sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_without_diffusers_the_extra_is_named():
    code = "import sys; sys.modules['diffusers'] = None; import rcg.interop"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "rcg[diffusers]"' in run.stderr.splitlines()[-1]
    assert "During handling" not in run.stderr


class AsKind(nn.Module):
    "A model of noise that predicts something else instead."

    def __init__(self, model, kind, process):
        super().__init__()
        self.model, self.kind, self.process = model, kind, process
        self.config, self.dtype = model.config, model.dtype

    def forward(self, x_t, t, labels, return_dict=True):
        t = torch.as_tensor(t).expand(len(x_t))
        noise = self.model(x_t, t, labels).sample
        a, b = self.process.at("signal", t), self.process.at("noise", t)
        x0 = (x_t - b * noise) / a
        predicted = {"sample": x0, "v_prediction": a * noise - b * x0}[self.kind]
        if not return_dict:
            return (predicted,)
        return diffusers.models.unets.unet_2d.UNet2DOutput(predicted)


@pytest.mark.parametrize("kind", ["sample", "v_prediction"])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2", "scaled_linear"])
@torch.no_grad()
def test_other_predictions_are_noise_here(kind, schedule):
    config = UNetConfig(16, width=32, multipliers=(1,), depth=1, learned_variance=False)
    model, batch = to_diffusers(drawn(config)), inputs(config)
    scheduler = diffusers.DDPMScheduler(beta_schedule=schedule, prediction_type=kind)
    process = process_of(scheduler, learned=False)
    denoiser = DiffusersDenoiser(AsKind(model, kind, process), scheduler)
    expected = model(*batch).sample
    torch.testing.assert_close(denoiser(*batch), expected, atol=1e-4, rtol=1e-3)


def test_a_folder_says_what_its_model_predicts(tmp_path):
    config = UNetConfig(16, width=32, multipliers=(1,), depth=1, learned_variance=False)
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=500,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
    )
    diffusers.DDIMPipeline(to_diffusers(drawn(config)), scheduler).save_pretrained(
        tmp_path
    )
    denoiser = load_denoiser(tmp_path)
    assert (denoiser.kind, denoiser.classes) == ("v_prediction", 10)
    assert denoiser.diffusion.config.variance == "small"
    torch.testing.assert_close(
        torch.tensor(denoiser.diffusion.alphas_cumprod).float(),
        scheduler.alphas_cumprod,
        atol=1e-5,
        rtol=1e-4,
    )
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(
        '{"_class_name": "UNet2DModel"}'
    )
    with pytest.raises(OSError, match="no scheduler of diffusers"):
        load_denoiser(tmp_path)


def test_schedulers_that_cannot_be_used_are_named():
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler has no alph"):
        process_of(diffusers.FlowMatchEulerDiscreteScheduler(), learned=False)
    with pytest.raises(ValueError, match="learned_range"):
        process_of(diffusers.DDPMScheduler(variance_type="learned"), learned=True)


@torch.no_grad()
def test_a_learned_variance_reaches_their_ancestral_sampler():
    config = UNetConfig(16, width=32, multipliers=(1,), depth=1)
    unet, (x, t, y) = drawn(config), inputs(config)
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    diffusion = Diffusion()
    visited = Scheduled(20, scheduler=scheduler).timesteps(diffusion)
    process = Diffusion(diffusion.config, visited)
    t = torch.full_like(t, int(visited[10]))
    output = unet(x, t, y)
    p = process.p(output, x, t, clip=False)
    found = model_output(scheduler, process, Denoised(p, p.x0), x, int(t[0]))
    torch.testing.assert_close(found, output, atol=1e-3, rtol=1e-3)


def test_a_pipeline_is_our_sampler(tmp_path):
    unet, classifier = load_unet("digits-denoiser"), load_classifier("digits-robust")
    noise, labels = torch.randn(3, 1, 8, 8), torch.tensor([0, 4, 9])
    expected = sample(
        *(unet, Diffusion(), labels, classifier, 3.0, 10, "ddim"), init_noise=noise
    )
    plain = sample(
        unet, Diffusion(), labels, steps=10, sampler="ddim", init_noise=noise
    )
    assert (expected - plain).abs().max() > 1e-2
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    RobustGuidancePipeline(unet, scheduler, classifier).save_pretrained(tmp_path)
    pipe = RobustGuidancePipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    seen = []
    (found,) = pipe(
        labels.tolist(),
        guidance_scale=3.0,
        num_inference_steps=10,
        latents=noise,
        output_type="pt",
        return_dict=False,
        callback_on_step_end=lambda pipe, k, t, tensors: seen.append(tensors),
    )
    assert len(seen) == 10
    torch.testing.assert_close(seen[-1]["latents"], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        found, (expected / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0
    )


def test_load_unet_takes_a_folder(tmp_path):
    unet = load_unet("digits-denoiser")
    scheduler = diffusers.DDIMScheduler()
    RobustGuidancePipeline(unet, scheduler).save_pretrained(tmp_path)
    denoiser, batch = load_unet(tmp_path), inputs(unet.config)
    with torch.no_grad():
        torch.testing.assert_close(denoiser(*batch), unet(*batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@torch.no_grad()
def test_a_guider_in_a_modular_pipeline_is_our_sampler(kind):
    from diffusers.modular_pipelines import BlockState

    unet, classifier = load_unet("digits-denoiser"), load_classifier("digits-robust")
    noise, labels = torch.randn(3, 1, 8, 8), torch.tensor([0, 4, 9])
    how = dict(steps=10, sampler="ddim", init_noise=noise, clip=False)
    run = (unet, Diffusion(), labels)
    expected = sample(*run, classifier, 3.0, **how)
    plain = sample(*run, **how)
    scheduler = diffusers.DDIMScheduler(clip_sample=False, prediction_type=kind)
    scheduler.set_timesteps(10)
    model = to_diffusers(unet)
    if kind != "epsilon":
        model = AsKind(FirstHalf(model), kind, Diffusion())

    def drawn(guider):
        "What a modular pipeline does, as in its denoising loops."
        x = noise
        for i, t in enumerate(scheduler.timesteps):
            guider.set_state(step=i, num_inference_steps=10, timestep=t)
            if i % 2:
                (batch,) = guider.prepare_inputs({"labels": (labels, None)})
            else:
                state = BlockState(latents=x, class_labels=labels)
                fields = {"labels": "class_labels"}
                (batch,) = guider.prepare_inputs_from_block_state(state, fields)
            guider.prepare_models(model)
            batch.noise_pred = model(x, t, batch.labels, return_dict=False)[0]
            guider.cleanup_models(model)
            x = scheduler.step(guider([batch])[0][:, :1], t, x).prev_sample
        assert not model._forward_pre_hooks
        return x

    known = dict(classifier=classifier, scheduler=scheduler, labels=labels)
    made = lambda **how: ClassifierGuider(**known, **how)
    found = drawn(made(guidance_scale=3.0))
    assert (expected - plain).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    for off in (
        dict(enabled=False),
        dict(start=0.99),
        dict(stop=0.0),
        dict(guidance_scale=0),
    ):
        torch.testing.assert_close(drawn(made(**off)), plain, atol=1e-3, rtol=1e-3)
    assert made(guidance_scale=2.5).config.guidance_scale == 2.5


class FirstHalf(nn.Module):
    "A model without its variance."

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.dtype = model, model.config, model.dtype

    def forward(self, x_t, t, labels):
        output = self.model(x_t, t, labels).sample[:, : x_t.shape[1]]
        return diffusers.models.unets.unet_2d.UNet2DOutput(output)


def test_a_guider_of_a_flow_is_refused():
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="has no alphas_cumprod"):
        ClassifierGuider(classifier=print, scheduler=flow, labels=torch.arange(3))


def drawn_by(pipe, **options):
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    options = dict(class_labels=[1, 2], latents=noise, output_type="pt") | options
    return pipe(guidance_scale=3.0, num_inference_steps=3, **options).images


def test_networks_of_others_take_a_pipeline_s_places(tmp_path):
    unet, scheduler = load_unet("digits-denoiser"), diffusers.DDIMScheduler()
    robust, vanilla = map(load_classifier, ("digits-robust", "digits-vanilla"))
    pipe = RobustGuidancePipeline(unet, scheduler, robust)
    pipe.save_pretrained(tmp_path)
    expected = drawn_by(RobustGuidancePipeline(unet, scheduler, vanilla))
    assert not drawn_by(pipe).allclose(expected)
    for other in (vanilla, GuidanceClassifier.holding(vanilla)):
        found = RobustGuidancePipeline.from_pretrained(tmp_path, classifier=other)
        torch.testing.assert_close(drawn_by(found), expected)
    denoiser = load_denoiser(tmp_path)
    found = RobustGuidancePipeline(denoiser, scheduler, lambda x, t: vanilla(x, t))
    torch.testing.assert_close(drawn_by(found), expected)

    own = nn.Module()
    own.forward, own.inner = (lambda x, t: vanilla(x, t)), vanilla
    found = RobustGuidancePipeline(unet, scheduler, own)
    torch.testing.assert_close(drawn_by(found), expected)
    assert len(found(3, num_inference_steps=2).images) == 1  # a single label
    torch.testing.assert_close(drawn_by(pipe, class_labels=["1", "2"]), drawn_by(pipe))
    with pytest.raises(ValueError, match="a Module is not saved with a pipeline"):
        found.save_pretrained(tmp_path / "own")


def test_what_a_pipeline_does_not_know_is_said():
    unet, scheduler = load_unet("digits-denoiser"), diffusers.DDIMScheduler()
    with pytest.raises(ValueError, match="classifier is 'mnist-robust': load it first"):
        RobustGuidancePipeline(unet, scheduler, "mnist-robust")
    pipe = RobustGuidancePipeline(unet, scheduler)
    with pytest.raises(TypeError, match="no argument 'scale'.*clip, eta, generator"):
        drawn_by(pipe, scale=2.0)
    with pytest.raises(ValueError, match="labels"):
        drawn_by(pipe, class_labels=[])
    with pytest.raises(TypeError, match="unet is a Classifier"):
        to_diffusers(load_classifier("digits-robust"))
    with pytest.raises(TypeError, match="model is a Linear"):
        from_diffusers(nn.Linear(2, 3))


NAMES = [f"number {k}" for k in range(10)]


def test_names_of_classes_stay_with_a_pipeline(tmp_path):
    unet, classifier = load_unet("digits-denoiser"), load_classifier("digits-robust")
    scheduler = diffusers.DDIMScheduler()
    for ours, named in ((unet, None), (unet, classifier), (None, classifier)):
        unet.class_names = classifier.class_names = None
        (ours or named).class_names = NAMES
        RobustGuidancePipeline(unet, scheduler, named).save_pretrained(tmp_path)
        pipe = RobustGuidancePipeline.from_pretrained(tmp_path)
        assert pipe.class_names == NAMES
        expected = drawn_by(pipe)
        for names in (["number 1", "number 2"], torch.tensor([1, 2])):
            assert drawn_by(pipe, class_labels=names).equal(expected)
        denoiser = load_denoiser(tmp_path)
        assert denoiser.class_names == (NAMES if ours else None)
        run = (denoiser, denoiser.diffusion, ["number 3"], pipe.classifier, 1.0, 2)
        assert sample(*run).isfinite().all()
    (tmp_path / "model_index.json").write_text('{"id2label": 3}')
    with pytest.raises(ValueError, match="id2label is 3"):
        load_denoiser(tmp_path, scheduler)
    unet.class_names = NAMES[::-1]  # of one that takes the saved one's place
    pipe = RobustGuidancePipeline(unet, scheduler)
    pipe.save_pretrained(tmp_path)
    unet.class_names = NAMES
    pipe = RobustGuidancePipeline.from_pretrained(tmp_path, unet=unet)
    assert pipe.class_names == NAMES


def test_a_callback_sees_changes_and_stops():
    unet, scheduler = load_unet("digits-denoiser"), diffusers.DDIMScheduler()
    pipe, seen = RobustGuidancePipeline(unet, scheduler), []

    def callback(given, index, timestep, tensors):
        assert given is pipe and pipe.num_timesteps == 3
        seen.append((index, int(timestep), list(tensors)))
        pipe._interrupt = index == 1
        return {"latents": torch.full_like(tensors["latents"], 0.5)}

    wanted = ["pred_original_sample", "latents"]
    images = drawn_by(
        pipe,
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=wanted,
        output_type="latent",
    )
    assert seen == [(0, 666, wanted), (1, 333, wanted)]
    assert images.equal(torch.full((2, 1, 8, 8), 0.5))
    counted = []

    class Counting(diffusers.callbacks.PipelineCallback):
        tensor_inputs = ["latents"]

        def callback_fn(self, pipe, index, timestep, tensors):
            counted.append(index)
            return tensors

    plain = drawn_by(pipe)
    several = diffusers.callbacks.MultiPipelineCallbacks([Counting()])
    assert drawn_by(pipe, callback_on_step_end=several).equal(plain)
    assert counted == [0, 1, 2]
    assert drawn_by(pipe, callback_on_step_end=lambda *_: None).equal(plain)


BAD_CALLS = [
    (dict(output_type="tensor"), "output_type is 'tensor': it must be 'pil'"),
    (dict(num_inference_steps=0), "num_inference_steps is 0"),
    (dict(num_inference_steps=2.5), "num_inference_steps is 2.5"),
    (dict(num_inference_steps=1001), "steps is 1001, but there are 1000"),
    (dict(guidance_scale=math.nan), "guidance_scale is nan"),
    (dict(class_labels=None), "class_labels is None"),
    (dict(class_labels=[1.5, 2]), "class_labels"),
    (dict(class_labels=[True, False]), "class_labels"),
    (dict(class_labels=[[1], [2]]), "class_labels"),
    (dict(class_labels=["three", "4"]), "no class is called 'three'"),
    (dict(class_labels=[3, 10]), "labels 0 to 9"),
    (dict(generator=3), "generator is 3"),
    (dict(latents=None, generator=[torch.Generator()]), "generator has 1 for 2 labels"),
    (dict(latents=3), "latents is 3"),
    (
        dict(latents=torch.ones(3, 1, 8, 8)),
        "latents must have the shape .2, C, H, W., one .*: .3, 1, 8, 8.",
    ),
    (dict(latents=torch.ones(2, 3, 8, 8)), r"images \(N, 1, H, W\) with sides divis"),
    (dict(latents=torch.ones(2, 1, 8, 7)), r"images \(N, 1, H, W\) with sides divis"),
    (dict(callback_on_step_end=3), "callback_on_step_end is 3"),
    (dict(callback_on_step_end=lambda *_: 3), "callback_on_step_end returns 3"),
    (
        dict(callback_on_step_end=lambda *_: {"latents": torch.ones(1)}),
        "callback_on_step_end returns .*latents of the same shape",
    ),
    (dict(callback_on_step_end_tensor_inputs=["x"]), "inputs has .'x'.: there are"),
    (
        dict(callback_on_step_end=lambda *a: {"latents": a[3]["latents"] * math.nan}),
        "images are not finite",
    ),
]


def test_a_classifier_of_clean_images_is_told_where_it_belongs():
    clean, unet = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), load_unet("mnist")
    with pytest.raises(TypeError, match="is called with .x_t, t., but Sequential"):
        RobustGuidancePipeline(unet, diffusers.DDIMScheduler(), clean)


@pytest.mark.parametrize("options, message", BAD_CALLS)
def test_bad_calls_of_a_pipeline(options, message):
    unet, classifier = load_unet("digits-denoiser"), load_classifier("digits-robust")
    pipe = RobustGuidancePipeline(unet, diffusers.DDIMScheduler(), classifier)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(2, 1, 8, 8)
    given = dict(class_labels=[1, 2], latents=noise, num_inference_steps=2)
    with pytest.raises(ValueError, match=message):
        pipe(**given | options)


def test_a_denoiser_is_no_classifier():
    unet = load_unet("digits-denoiser")
    for other in (unet, to_diffusers(unet)):
        with pytest.raises(TypeError, match="classifier is a UNet.*which is a denois"):
            RobustGuidancePipeline(unet, diffusers.DDIMScheduler(), other)


def small(**changes) -> diffusers.UNet2DModel:
    settings = dict(sample_size=8, in_channels=1, out_channels=1, layers_per_block=1)
    settings |= dict(block_out_channels=(32, 32), num_class_embeds=4)
    settings |= dict(down_block_types=["DownBlock2D"] * 2)
    settings |= dict(up_block_types=["UpBlock2D"] * 2)
    return diffusers.UNet2DModel(**settings | changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(t=torch.tensor([0, 1000])), "t must be from 0 to 999"),
        (dict(t=torch.zeros(2)), "t must be an int64 tensor"),
        (dict(t=torch.tensor([3])), "t must be one number for each of the 2"),
        (dict(labels=torch.tensor([0, 4])), "labels must be from 0 to 3"),
        (dict(labels=torch.zeros(2)), "labels must be an int64 tensor"),
        (dict(labels=None), "needs labels"),
        (dict(x_t=torch.full((2, 1, 8, 8), math.nan)), "images hold NaN"),
        (dict(x_t=torch.zeros(2, 1, 8, 8).byte()), "images must be floats"),
        (dict(x_t=torch.zeros(2, 3, 8, 8)), r"takes images \(N, 1, H, W\)"),
        (dict(x_t=torch.zeros(2, 1, 7, 8)), "with sides divisible by 2"),
    ],
)
def test_a_denoiser_names_what_it_cannot_take(changes, message):
    denoiser = DiffusersDenoiser(small(), diffusers.DDPMScheduler())
    batch = dict(x_t=torch.zeros(2, 1, 8, 8), t=torch.tensor([0, 999]))
    batch |= dict(labels=torch.tensor([0, 3]))
    assert denoiser(**batch).isfinite().all()
    with pytest.raises((ValueError, TypeError), match=message):
        denoiser(**batch | changes)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(prediction_type="epsilom"), "prediction_type is 'epsilom'.*one of epsil"),
        (dict(variance_type="fixed"), "variance_type is 'fixed'.*one of fixed_small"),
        (dict(trained_betas=[math.nan] * 9), "β_t from nan to nan"),
        (dict(rescale_betas_zero_snr=True), "β_t from 0.0001.* to 1, not all"),
    ],
)
def test_settings_of_schedulers_that_mean_nothing(settings, message):
    scheduler = diffusers.DDPMScheduler(**settings)
    for make in (
        lambda: DiffusersDenoiser(small(), scheduler),
        lambda: Scheduled(2, scheduler=scheduler).timesteps(Diffusion()),
        lambda: ClassifierGuider(
            classifier=print, scheduler=scheduler, labels=torch.arange(3)
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_models_that_are_no_denoisers_of_images():
    scheduler = diffusers.DDPMScheduler()
    for unet in (nn.Linear(2, 3), load_unet("digits-denoiser")):
        with pytest.raises(ValueError, match="pass a UNet2DModel"):
            DiffusersDenoiser(unet, scheduler)
    with pytest.raises(ValueError, match="null_label is 4, but the model has 4"):
        DiffusersDenoiser(small(), scheduler, null_label=4)
    pipe = RobustGuidancePipeline(small(sample_size=None), scheduler)
    with pytest.raises(ValueError, match="does not tell its images' shape: pass lat"):
        pipe([1])


def changed(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def weights_of(path, change):
    save_file({k: change(v) for k, v in load_file(path).items() if change}, path)


FOLDERS = {
    "no model": (lambda f, w: w.unlink(), "unet holds no whole UNet2DModel"),
    "empty": (lambda f, w: w.write_bytes(b""), "unet holds no whole UNet2DModel"),
    "half": (
        lambda f, w: w.write_bytes(w.read_bytes()[:-9]),
        "unet holds no whole UNet2DModel",
    ),
    "no weights": (lambda f, w: weights_of(w, None), "unet lacks weights, like "),
    "NaN": (lambda f, w: weights_of(w, lambda v: v * math.nan), "not finite numbers"),
    "settings": (
        lambda f, w: changed(f / "unet" / "config.json", block_out_channels="x"),
        "unet holds no whole UNet2DModel",
    ),
    "no settings": (
        lambda f, w: (f / "unet" / "config.json").write_text(""),
        "config.json is not valid JSON",
    ),
    "scheduler": (
        lambda f, w: changed(
            f / "scheduler" / "scheduler_config.json", num_train_timesteps="x"
        ),
        "scheduler holds no whole DDPMScheduler",
    ),
    "prediction": (
        lambda f, w: changed(
            f / "scheduler" / "scheduler_config.json", prediction_type="x"
        ),
        "prediction_type is 'x'",
    ),
    "no scheduler": (
        lambda f, w: (f / "scheduler" / "scheduler_config.json").unlink(),
        "there is no file .*scheduler_config.json",
    ),
}


@pytest.mark.parametrize("damage, message", FOLDERS.values(), ids=FOLDERS)
def test_folders_that_hold_no_whole_pipeline(tmp_path, damage, message):
    pipe = RobustGuidancePipeline(small(), diffusers.DDPMScheduler())
    pipe.save_pretrained(tmp_path)
    load_denoiser(tmp_path)
    damage(tmp_path, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises((OSError, ValueError), match=message):
        load_denoiser(tmp_path)


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*config.json"):
        load_denoiser(tmp_path)


def test_a_folder_without_subfolders_and_a_repository(tmp_path, monkeypatch):
    "As older repositories of the Hub are laid out, like google/ddpm-cifar10-32."
    unet = load_unet("digits-denoiser")
    scheduler = diffusers.DDIMScheduler(prediction_type="sample")
    RobustGuidancePipeline(unet, scheduler).save_pretrained(tmp_path)
    for part in ("unet", "scheduler"):
        for file in (tmp_path / part).iterdir():
            file.rename(tmp_path / file.name)
        (tmp_path / part).rmdir()
    asked = []

    def snapshot_download(name, **_):
        if name != "somebody/digits":
            raise OSError("no route to host")
        asked.append(name)
        return str(tmp_path)

    place = "rcg.interop.denoisers.snapshot_download"
    monkeypatch.setattr(place, snapshot_download)
    for name in (tmp_path, "somebody/digits"):
        denoiser = load_denoiser(name)
        assert denoiser.kind == "sample" and denoiser.shape == (1, 8, 8)
    assert asked == ["somebody/digits"]
    with pytest.raises(FileNotFoundError, match="no folder nowhere/at_all.*no route"):
        load_denoiser("nowhere/at_all")

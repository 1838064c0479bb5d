"""Every public function, given what nobody should give it.

Each has one good call in `GOOD`; hypothesis changes one or two of its arguments. What
comes of it is fine (a finite result), clear (an error of ours that names the argument
or the value), raw (somebody else's error), or silent (a result where there is none).

`python tests/test_inputs.py FILE.csv` counts them over a fixed list of calls.
"""

import contextlib
import copy
import dataclasses
import hashlib
import importlib
import inspect
import io
import math
import os
import pkgutil
import re
import signal
import subprocess
import sys
import tempfile
import traceback
import typing
import warnings
from collections import Counter
from fnmatch import fnmatch
from functools import cache
from itertools import count, islice
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from safetensors.torch import save_file
from torch import nn

matplotlib.use("Agg")
os.environ["HF_HUB_OFFLINE"] = "1"  # names of repositories are asked of nobody

import diffusers

import rcg
from rcg import data, diffusion, figures, guidance, metrics, solvers, training
from rcg.attack import L2, Attack
from rcg.checkpoints import load_classifier
from rcg.classifier import Classifier, ClassifierConfig
from rcg.gradients import gradient_score, score_figure
from rcg.guidance import classifier_guidance
from rcg.interop import DiffusersDenoiser, RobustGuidancePipeline, to_diffusers
from rcg.lab import views
from rcg.running import files, images, presets, runs, sweeps
from rcg.running.classifiers import CustomClassifier
from rcg.running.commands import SamplingJob
from rcg.survey import answers, making, opinions
from rcg.unet import UNet, UNetConfig

# What is not called here, and why.
LEFT_OUT = {
    "what functions return, made by nobody else": """
        attack.AttackStep diffusion.Prediction diffusion.Loss guidance.Seen
        solvers.Level solvers.Denoised solvers.SampleStep metrics.Neighbourhoods
        metrics.Interval metrics.ImageSet metrics.Reference training.NonFiniteLoss
        running.jobs.Stopped running.jobs.Task running.jobs.TrainingPlan
        running.jobs.SamplingPlan running.jobs.Part running.jobs.Networks
        running.downloads.PublicFile
        survey.opinions.Summary survey.opinions.Preference survey.opinions.Variances
        running.models.Cost guidance.Guided diffusion.SeededNoise training.TrainingState
        running.jobs.ImageSource running.jobs.Validation survey.answers.Store""",
    "descriptions of types": """
        attack.Threat running.settings.Count running.settings.Natural
        running.settings.Positive running.settings.NonNegative
        running.settings.Share running.settings.Seed metrics.Samples""",
    "layers, whose sizes come from a checked configuration": """
        classifier.AttentionPool unet.ResBlock unet.Downsample unet.Upsample
        unet.AttentionBlock unet.Stage unet.Parts unet.Encoder unet.zeroed unet.norm
        unet.halve unet.double unet.attend unet.timestep_embedding""",
    "steps of a job, which begins with checked settings (tests/test_jobs.py)": """
        running.jobs.training_plan running.jobs.training_run running.jobs.check_images
        running.jobs.this_process running.jobs.allow_tf32 running.jobs.stop_signals
        running.jobs.sampling_plan running.jobs.load_networks
        running.jobs.draw running.jobs.sampling_run running.jobs.train_job
        running.jobs.sample_job running.jobs.pack running.jobs.check
        running.jobs.contents running.commands.launch""",
    "command lines, whose errors are their output (tests/test_jobs.py)": """
        running.commands.main running.commands.checkpoints_main running.commands.parse
        survey.serving.main
        survey.serving.serve""",
    "parts of `Attack`, which has checked": "attack.going_on attack.moved_by",
    "parts of `denoising_loss`, which has checked": """
        diffusion.pixel_log_likelihood diffusion.gaussian_kl""",
    "parts of solvers and of `Guided`, which have checked": """
        solvers.shifted solvers.evenly_in_log_snr guidance.guided_mean
        guidance.guided_x0 guidance.check_finite guidance.target_of
        guidance.asked_for running.models.check_labels running.models.check_takes
        running.models.called running.models.in_short running.models.told
        running.models.labels_given
        classifier.input_gradient classifier.gradient_by classifier.as_logits
        diffusion.noise_in diffusion.seed_list""",
    "decorators and what notebooks call, tried in their notebook": """
        running.settings.checked running.settings.settings
        running.settings.notebook_parameters""",
    "parts of `to_diffusers` and `from_diffusers`, which have checked": """
        interop.networks.head_channels interop.networks.heads_setting
        interop.networks.empty_model interop.networks.in_order
        interop.networks.paired_blocks interop.networks.weighted
        interop.networks.paired_layers interop.networks.check_same""",
    "parts of denoisers, guiders and pipelines, which have checked": """
        interop.denoisers.to_noise interop.denoisers.from_noise
        interop.pipeline.model_output interop.pipeline.guided_output
        interop.pipeline.finishing interop.pipeline.step_options
        interop.pipeline.as_component""",
    "made by diffusers, and checked when called (tests/test_interop.py)": """
        interop.networks.ADMUNet2DModel interop.pipeline.GuidanceClassifier
        interop.pipeline.PipelineParts interop.pipeline.RobustGuidancePipeline""",
    "what networks inherit": "running.hub.OnHub",
    "blocks and networks of torchvision, and the command (tests/test_evaluator.py)": """
        running.evaluator.pooled_by running.evaluator.average_pool
        running.evaluator.max_pool running.evaluator.TensorFlowInception
        running.evaluator.Activations running.evaluator.main
        running.evaluator.tensorflow_inception running.evaluator.activations
        running.evaluator.adm_scores running.evaluator.tensorflow_resize
        running.evaluator.npz_images""",
    "contexts that take a network or nothing": """
        classifier.frozen training.evaluating""",
    "reads our own source only (tests/test_docs.py)": "running.site.*",
    "checks of sets and tables, for measures and figures": """
        metrics.check_sets data.check_numbers""",
    "parts of `save_reference` and `load_reference`, which have checked": """
        running.images.moments running.images.stored_gaussian""",
    "a loss, for `train`, which has checked": "running.further_metrics.plain_loss",
    "runs what `train` gives": "training.fit",
    "takes anything (tests/test_parameters.py)": """
        running.settings.shown running.tensors.is_dense""",
    "a part of `identity`, which has checked": "training.files_listed",
    "need a download (tests/test_paths.py, tests/test_download.py)": """
        metrics.Inception metrics.DINOv2 running.downloads.fetch data.cifar10
        interop.denoisers.downloaded""",
    "takes what pydantic has found": "running.settings.in_words",
    "widgets that hold others (tests/test_explore.py)": """
        lab.widgets.Explorer lab.widgets.ImageChoice lab.widgets.AttackChoice
        lab.worker.Worker""",
}
left_out = {name for names in LEFT_OUT.values() for name in names.split()}


def public() -> dict[str, object]:
    "Every function and class that a module of rcg exports, by its name below rcg."
    found = {}
    for module in pkgutil.walk_packages(rcg.__path__, "rcg."):
        if not module.name.endswith(("__main__", "_modidx")):
            room = importlib.import_module(module.name)
            for name in getattr(room, "__all__", ()):
                value = getattr(room, name)
                if (
                    callable(value)
                    and getattr(value, "__module__", "") == room.__name__
                ):
                    found[f"{room.__name__}.{name}".removeprefix("rcg.")] = value
    return found


# Good calls

SHAPE = dict(
    image_size=8, channels=1, width=32, multipliers=(1, 2), depth=1, attention=(4,)
)


class World:
    "Networks, images and files for good calls; nothing in it is changed by them."

    def __init__(self):
        torch.manual_seed(0)
        self.unet = UNet(UNetConfig(**SHAPE, null_label=True)).eval()
        self.classifier = Classifier(ClassifierConfig(**SHAPE, head_width=32)).eval()
        for p in [*self.unet.parameters(), *self.classifier.parameters()]:
            nn.init.normal_(p, std=0.1)
        self.diffusion = diffusion.Diffusion()
        self.x = torch.randn(4, 1, 8, 8).clamp(-1, 1)
        self.t, self.y = torch.tensor([0, 1, 500, 999]), torch.arange(4)
        self.features = torch.randn(12, 5)
        self.digits = data.digits("test")
        self.lab = views.Lab(
            {"vanilla": self.classifier}, self.diffusion, self.digits, self.unet
        )
        self.config = training.TrainingConfig(steps=1, batch_size=4)
        self.prediction = self.diffusion.p(torch.zeros(4, 2, 8, 8), self.x, self.t)
        self.set = metrics.ImageSet(
            torch.randint(256, (8, 3, 8, 8)).byte(), torch.arange(8) % 2
        )
        self.reference = metrics.Reference(
            metrics.gaussian(torch.randn(400, 192)), torch.randn(20, 192)
        )
        population = opinions.Population(0.4, 0.3, 0.2, 0.2)
        self.opinions = population.draw(8, 6)
        self.rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
        self.scores = gradient_score(
            {"vanilla": self.classifier}, self.diffusion, self.x, self.y, (0, 100)
        )
        self._files(Path(tempfile.mkdtemp()))

    def _files(self, root: Path):
        self.root = root
        for k in range(4):
            for name in ("cat", "dog"):
                (root / "pictures" / name).mkdir(parents=True, exist_ok=True)
                picture = Image.new("RGB", (12, 10), (k, 90 * (name == "cat"), 9))
                picture.save(root / "pictures" / name / f"{k}.png")
        images.save_images(root / "a.npz", self.set, ["x", "y"])
        other = metrics.ImageSet(255 - self.set.images, self.set.labels)
        images.save_images(root / "b.npz", other, ["x", "y"])
        images.save_reference(root / "ref.npz", self.set.images, metrics.pixels)
        files.save_json(root / "a.json", {"a": 1})
        files.write_table(root / "a.csv", self.rows)
        training.save_tensors(root / "a.safetensors", {"a": torch.ones(3)})
        weights = self.classifier.state_dict()
        training.save_tensors(root / "weights.safetensors", weights)
        training.save_tensors(root / "unet.safetensors", self.unet.state_dict())
        (root / "names.txt").write_text("x\ny\n")
        self._others(root)
        both = {"robust": root / "a.npz", "vanilla": root / "b.npz"}
        self.survey = making.make_survey(root / "survey", both, 4)
        self.answers = answers.Answers(self.survey)
        self.secret = answers.Raters(self.survey).join()
        self.rater = answers.Raters(self.survey).rater(self.secret)
        for place in range(1, 4):
            self.answers.task(self.rater, place)
            answers.give(self.answers, self.rater, place, "left", 1.5)

    def _others(self, root: Path):
        "What belongs to other libraries, and folders as they have them."
        self.scheduler = diffusers.DDIMScheduler()
        self.theirs = to_diffusers(self.unet)
        self.denoiser = DiffusersDenoiser(self.theirs, self.scheduler)
        self.pipe = RobustGuidancePipeline(self.unet, self.scheduler, self.classifier)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.save_pretrained(root / "pipeline")
        self.classifier.save_pretrained(root / "hub")
        convolve = nn.Conv2d(1, 1, 1)
        self.plain = nn.Sequential(convolve, nn.Flatten(), nn.Linear(64, 10)).eval()
        training.save_tensors(root / "plain.safetensors", self.plain.state_dict())
        self.custom = CustomClassifier(self.plain, self.classifier.config).eval()
        own = CustomClassifier(self.classifier, self.classifier.config)
        training.save_tensors(root / "own.safetensors", own.state_dict())
        network = {"channels": 1, "image_size": 8}
        record = dict(kind="a training", classes=["a"], data="0", network=network)
        record |= dict(diffusion={"steps": 9, "schedule": "linear"}, attack=None)
        files.save_json(root / "run" / "settings.json", record)
        files.write_table(root / "run" / "history.csv", [{"iteration": 1}])

    def state(self) -> training.TrainingState:
        network = Classifier(ClassifierConfig(**SHAPE, head_width=32))
        loss = training.ClassifierLoss(self.diffusion)
        state = next(training.train(network, loss, self.digits, 1000, self.config))
        return state


world = cache(World)
_numbers = count()


def out(name: str = "out") -> Path:
    "A path that nothing is at."
    return world().root / "new" / f"{next(_numbers)}" / name


def logits(x, t):
    return world().classifier(x, t)


def batch(**names):
    "Images, timesteps and labels under these names."
    w = world()
    return {name: getattr(w, key) for name, key in names.items()}


@cache
def good() -> dict[str, typing.Callable[[], dict]]:
    "What makes the arguments of a good call, by function; `self` for methods."
    w = world()
    x, t, y, D, u, c = w.x, w.t, w.y, w.diffusion, w.unet, w.classifier
    attack, term = Attack(L2(0.5), 2), classifier_guidance(c)
    both = {"vanilla": c, "robust": logits}
    config = dict(SHAPE)
    level = dict(level=0.95)
    drawing = dict(unet=u, diffusion=D, labels=y, classifier=c, scale=0.1, steps=2)
    drawing |= dict(sampler="ddim", seeds=[0, 1, 2, 3])
    made = {
        "attack.L2": lambda: dict(eps=0.5),
        "attack.Linf": lambda: dict(eps=0.5),
        "attack.Attack": lambda: dict(threat=L2(0.5), steps=3, step_size=0.1),
        "attack.Attack.__call__": lambda: dict(
            self=attack, classifier=c, x_t=x, t=t, y=y
        ),
        "attack.pgd": lambda: dict(
            classifier=c, x_t=x, t=t, y=y, threat=L2(0.5), steps=2
        ),
        "attack.pgd_steps": lambda: dict(classifier=c, x_t=x, t=t, y=y, threat=L2(0.5)),
        "classifier.ClassifierConfig": lambda: config | dict(classes=10, head_width=32),
        "classifier.Classifier": lambda: dict(config=c.config),
        "classifier.Classifier.forward": lambda: dict(self=c, x_t=x, t=t),
        "classifier.checked_logits": lambda: dict(classifier=c, x_t=x, t=t, y=y),
        "classifier.log_prob_gradient": lambda: dict(classifier=c, x_t=x, t=t, y=y),
        "data.from_uint8": lambda: dict(pixels=w.set.images),
        "data.to_uint8": lambda: dict(images=x),
        "data.LabeledImages": lambda: dict(images=x, labels=y, classes=list("abcd")),
        "data.digits": lambda: dict(split="train"),
        "data.plain": lambda: dict(text="a"),
        "data.method_colour": lambda: dict(name="mine", names=["vanilla", "mine"]),
        "data.image_grid": lambda: dict(images=x, columns=2, cell=0.7),
        "data.asset": lambda: dict(name="mnist.npz"),
        "data.mnist": lambda: dict(split="test"),
        "data.cifar10_samples": lambda: {},
        "data.min_max": lambda: dict(x=x),
        "data.Augmented": lambda: dict(data=w.digits, change=data.mirrored, seed=1),
        "data.mirrored": lambda: dict(image=x[0], rng=np.random.default_rng(0)),
        "data.batches": lambda: dict(data=w.digits, batch_size=4, seed=0, start=0),
        "diffusion.linear_betas": lambda: dict(steps=50),
        "diffusion.cosine_betas": lambda: dict(steps=50),
        "data.check_inputs": lambda: dict(images=x, t=t, labels=y),
        "diffusion.evenly_spaced": lambda: dict(count=10, steps=1000),
        "diffusion.evenly_strided": lambda: dict(count=10, steps=1000),
        "diffusion.DiffusionConfig": lambda: dict(steps=1000, schedule="linear"),
        "diffusion.NoisingProcess": lambda: dict(config=D.config),
        "diffusion.Diffusion": lambda: dict(config=D.config),
        "diffusion.Diffusion.respaced": lambda: dict(self=D, steps=10, rule="ddpm"),
        "diffusion.Diffusion.q_sample": lambda: dict(self=D, x0=x, t=t, noise=x),
        "diffusion.Diffusion.p": lambda: dict(
            self=D, output=torch.zeros(4, 2, 8, 8), x_t=x, t=t
        ),
        "diffusion.noise_like": lambda: dict(x=x, seed=0),
        "diffusion.denoising_loss": lambda: dict(
            diffusion=D, model=u, x0=x, t=t, labels=y
        ),
        "figures.samples_figure": lambda: dict(
            images=x, labels=y, names=list("abcd"), per_class=1
        ),
        "figures.pairs_figure": lambda: dict(samples={"a": x, "b": x}, chosen=[0, 2]),
        "figures.nearest_real": lambda: dict(
            features=w.features,
            labels=torch.arange(12) % 2,
            real=w.features + 1,
            real_labels=torch.arange(12) % 2,
        ),
        "figures.greatest_losses": lambda: dict(
            first=torch.rand(5), second=torch.rand(5), count=2
        ),
        "figures.spread_steps": lambda: dict(count=20, columns=5),
        "figures.trajectory_figure": lambda: dict(
            unet=u,
            diffusion=D,
            labels=y,
            classifiers={"vanilla": c},
            seeds=[0, 1, 2, 3],
            scale=0.1,
            steps=2,
            columns=2,
        ),
        "figures.training_figure": lambda: dict(
            history=[{"step": k, "loss": 1.0 / (k + 1)} for k in range(5)], points=3
        ),
        "figures.accuracy_figure": lambda: dict(
            rows=[{"step": 1, "kind": "clean", "t 0-99": 0.5, "t 100-199": 0.4}]
        ),
        "gradients.gradient_figure": lambda: dict(
            classifiers=both, diffusion=D, images=x, labels=y, timesteps=(0, 200)
        ),
        "gradients.attack_figure": lambda: dict(
            classifiers=both,
            images=x,
            targets=y,
            attack=Attack(L2(1), 2, targeted=True),
        ),
        "gradients.denoiser_gradient": lambda: dict(
            unet=u, diffusion=D, x_t=x, t=t, y=y, classes=10
        ),
        "gradients.cosine": lambda: dict(u=x, v=x + 1),
        "gradients.relative_error": lambda: dict(u=x, truth=x + 1),
        "gradients.linearity": lambda: dict(classifier=c, x_t=x, t=t, y=y, length=0.5),
        "gradients.stability": lambda: dict(
            classifier=c, x_t=x, t=t, y=y, length=0.5, seed=0
        ),
        "gradients.high_frequency_share": lambda: dict(gradient=x),
        "gradients.gradient_score": lambda: dict(
            classifiers=both,
            diffusion=D,
            images=x,
            labels=y,
            timesteps=(0,),
            length=0.5,
        ),
        "gradients.score_figure": lambda: dict(rows={"digits": w.scores}),
        "guidance.Weighted": lambda: dict(
            term=logits, scale=1.0, low=0, high=100, every=2
        ),
        "guidance.Guidance": lambda: dict(parts=term.parts),
        "guidance.Guidance.__mul__": lambda: dict(self=term, scale=2.0),
        "guidance.Guidance.within": lambda: dict(self=term, low=10, high=100),
        "guidance.Guidance.reused": lambda: dict(self=term, steps=2),
        "guidance.Guidance.smoothed": lambda: dict(self=term, copies=2, deviation=0.1),
        "guidance.as_guidance": lambda: dict(term=logits),
        "running.models.name_of": lambda: dict(network=logits),
        "running.models.labels_named": lambda: dict(
            names=["hen"], classes=["hen", "cat"]
        ),
        "guidance.LogProb": lambda: dict(joint=1.0, marginal=1.0),
        "guidance.ClassifierTerm": lambda: dict(classifier=c),
        "guidance.classifier_guidance": lambda: dict(classifier=c),
        "guidance.Static": lambda: dict(limit=1.0),
        "guidance.Dynamic": lambda: dict(share=0.9),
        "guidance.sample_steps": lambda: drawing | dict(init_noise=x),
        "guidance.sample": lambda: drawing | dict(batch_size=3),
        "guidance.Sine": lambda: dict(gain=0.3),
        "guidance.AllOf": lambda: dict(classes=(1, 2)),
        "guidance.AnyOf": lambda: dict(classes=(1, 2)),
        "guidance.CleanTerm": lambda: dict(classifier=c),
        "guidance.image_guidance": lambda: dict(classifier=c),
        "guidance.prepared": lambda: dict(classifier=w.plain, size=8),
        "guidance.ContrastTerm": lambda: dict(other=u, labelled=True),
        "guidance.classifier_free": lambda: dict(w=1.0),
        "guidance.autoguidance": lambda: dict(worse=u, w=2.0),
        "guidance.Real": lambda: {},
        "guidance.discriminator_guidance": lambda: dict(discriminator=logits),
        "guidance.Smoothed": lambda: dict(term=logits, copies=2, deviation=0.1),
        "classifier.Classifier.save_pretrained": lambda: dict(
            self=c, folder=out(), records="a"
        ),
        "classifier.Classifier.from_pretrained": lambda: dict(
            name=w.root / "hub", device="cpu", dtype=torch.float32
        ),
        "interop.networks.unet2d_settings": lambda: dict(config=u.config),
        "interop.networks.to_diffusers": lambda: dict(unet=u),
        "interop.networks.unet_config": lambda: dict(model=w.theirs, null_label=True),
        "interop.networks.from_diffusers": lambda: dict(
            model=w.theirs, null_label=True
        ),
        "interop.denoisers.TabulatedConfig": lambda: dict(
            steps=3, variance="small", table=(0.1, 0.2, 0.3)
        ),
        "interop.denoisers.process_of": lambda: dict(
            scheduler=w.scheduler, learned=True
        ),
        "interop.denoisers.DiffusersDenoiser": lambda: dict(
            unet=w.theirs, scheduler=w.scheduler, null_label=10
        ),
        "interop.denoisers.DiffusersDenoiser.forward": lambda: dict(
            self=w.denoiser, x_t=x, t=t, labels=y
        ),
        "interop.denoisers.saved_scheduler": lambda: dict(folder=w.root / "pipeline"),
        "interop.denoisers.load_denoiser": lambda: dict(
            folder=w.root / "pipeline", scheduler=w.scheduler, null_label=10
        ),
        "interop.pipeline.Scheduled": lambda: dict(
            steps=5, scheduler=w.scheduler, options={}
        ),
        "interop.pipeline.RobustGuidancePipeline.__call__": lambda: dict(
            self=w.pipe,
            class_labels=[0, 1, 2, 3],
            guidance_scale=0.1,
            num_inference_steps=2,
            guidance=term,
            latents=x,
            output_type="pt",
            callback_on_step_end=lambda *_: None,
            callback_on_step_end_tensor_inputs=["latents"],
        ),
        "interop.pipeline.ClassifierGuider": lambda: dict(
            classifier=c, scheduler=w.scheduler, labels=y
        ),
        "lab.views.Lab": lambda: dict(
            classifiers=both, diffusion=D, images=w.digits, first=0
        ),
        "lab.views.open_lab": lambda: dict(name="digits"),
        "lab.views.open_image": lambda: dict(content=_png(), like=x[0]),
        "lab.views.gradient_frames": lambda: dict(
            lab=w.lab, image=x[0], label=1, t=10, seed=0
        ),
        "lab.views.attack_frames": lambda: dict(
            lab=w.lab, image=x[0], label=1, attack=attack, t=0
        ),
        "lab.views.How": lambda: dict(steps=2, sampler="ddim"),
        "lab.views.guidance_frames": lambda: dict(
            lab=w.lab, label=1, seed=0, scale=0.1, how=views.How(2)
        ),
        "lab.views.strip_frames": lambda: dict(
            lab=w.lab, label=1, seed=0, how=views.How(2), scales=[0, 0.1]
        ),
        "lab.widgets.gradient_explorer": lambda: dict(lab=w.lab),
        "lab.widgets.attack_explorer": lambda: dict(lab=w.lab),
        "lab.widgets.guidance_explorer": lambda: dict(lab=w.lab),
        "metrics.features": lambda: dict(
            images=x, extractor=metrics.pixels, batch_size=3
        ),
        "running.further_metrics.Cubic": lambda: {},
        "running.further_metrics.GaussianKernel": lambda: dict(width=10.0),
        "running.further_metrics.mmd": lambda: dict(
            real=w.features, fake=w.features, block=3
        ),
        "running.further_metrics.kernel_distance": lambda: dict(
            real=w.features, fake=w.features, subsets=2, size=3, seed=0
        ),
        "running.further_metrics.measuring_network": lambda: dict(
            channels=1, classes=10
        ),
        "running.further_metrics.inception_score": lambda: dict(
            logits=w.features, splits=2, seed=0
        ),
        "running.further_metrics.memorised": lambda: dict(
            fake=w.features, training=w.features + 1, held_out=w.features + 2, k=3
        ),
        "running.further_metrics.recognised": lambda: dict(
            judge=lambda images: images.flatten(1)[:, :10], images=x, labels=w.y
        ),
        "running.further_metrics.nearest_ratio": lambda: dict(
            fake=w.features, training=w.features, k=2, block=3
        ),
        "metrics.check_features": lambda: dict(
            features=w.features, name="features", least=2
        ),
        "metrics.Gaussian": lambda: dict(mean=torch.zeros(5), covariance=torch.eye(5)),
        "metrics.gaussian": lambda: dict(features=w.features),
        "metrics.frechet_distance": lambda: dict(real=w.features, fake=w.features + 1),
        "metrics.in_manifold": lambda: dict(
            points=w.features, centers=w.features, k=3, block=5
        ),
        "metrics.neighbourhoods": lambda: dict(
            real=w.features, fake=w.features + 1, k=3, block=5
        ),
        "metrics.precision_recall": lambda: dict(
            real=w.features, fake=w.features + 1, k=3
        ),
        "metrics.density_coverage": lambda: dict(
            real=w.features, fake=w.features + 1, k=3
        ),
        "metrics.mean_interval": lambda: dict(values=[1.0, 2.0, 4.0]),
        "metrics.centred_interval": lambda: dict(
            value=1.0, resampled=np.arange(9.0), **level
        ),
        "metrics.bootstrap": lambda: dict(
            statistic=lambda i: float(w.features[i].mean()),
            labels=torch.arange(12) % 3,
            draws=5,
            seed=0,
            **level,
        ),
        "metrics.proportion": lambda: dict(hits=torch.tensor([True, False, True])),
        "metrics.distinguishable": lambda: dict(
            a=metrics.Interval(1.0, 0.5, 1.5), b=metrics.Interval(2.0, 1.8, 2.5)
        ),
        "metrics.pixels": lambda: dict(images=x),
        "metrics.named_extractor": lambda: dict(name="pixels"),
        "metrics.imported": lambda: dict(name="rcg.metrics:pixels", what="extractor"),
        "metrics.measure": lambda: dict(
            samples=w.set,
            real=w.reference,
            extractor=metrics.pixels,
            neighbours=2,
            draws=3,
            batch_size=4,
        ),
        "metrics.accuracy": lambda: dict(
            classifier=c,
            diffusion=D,
            images=x,
            labels=y,
            timesteps=[0, range(5, 9)],
            seed=0,
            batch_size=3,
        ),
        "running.tensors.tensors_checksum": lambda: dict(tensors={"a": x}),
        "running.checkpoints.unwrapped": lambda: dict(found={"a": x}, source="a.pt"),
        "running.checkpoints.read_weights": lambda: dict(path=w.root / "a.safetensors"),
        "running.checkpoints.shipped": lambda: dict(name="mnist", ending="json"),
        "running.checkpoints.card": lambda: dict(name="mnist"),
        "running.checkpoints.class_names": lambda: dict(
            about={"classes": ["a", "b"]}, classes=2
        ),
        "running.checkpoints.check_weights": lambda: dict(
            tensors={"a": x}, source="a.pt"
        ),
        "running.checkpoints.load_network": lambda: dict(
            kind=Classifier, config=c.config, path=w.root / "weights.safetensors"
        ),
        "running.checkpoints.load_unet": lambda: dict(path="digits-denoiser"),
        "running.checkpoints.load_classifier": lambda: dict(
            path=w.root / "weights.safetensors", preset_name="digits"
        ),
        "running.checkpoints.convert": lambda: dict(
            path=w.root / "a.safetensors", target=out("a.safetensors")
        ),
        "running.classifiers.wanted_by": lambda: dict(
            network=w.plain,
            weights=torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1,
        ),
        "running.classifiers.clean_classifier": lambda: dict(
            network=copy.deepcopy(w.plain),
            path=w.root / "plain.safetensors",
            size=8,
            mean=(0.5,),
            std=(0.5,),
        ),
        "running.classifiers.named_judge": lambda: dict(name="digits-robust"),
        "running.classifiers.knows_t": lambda: dict(network=c),
        "running.classifiers.CustomClassifier": lambda: dict(
            network=w.plain, config=c.config, width=8
        ),
        "running.classifiers.CustomClassifier.forward": lambda: dict(
            self=w.custom, x_t=x, t=t
        ),
        "running.classifiers.custom_classifier": lambda: dict(
            architecture="rcg.classifier:Classifier", config=c.config
        ),
        "running.classifiers.load_custom_classifier": lambda: dict(
            path=w.root / "own.safetensors",
            preset_name="digits",
            architecture="rcg.classifier:Classifier",
        ),
        "running.commands.TrainingJob": lambda: dict(
            data="digits",
            run_dir="a",
            network="robust",
            preset="digits",
            classes=10,
            threat="L2",
            eps=0.5,
            attack_steps=3,
            step_size=0.1,
            steps=10,
            lr=1e-3,
            batch_size=8,
            save_every=5,
            workers=0,
            processes=1,
        ),
        "running.commands.GuidanceTerm": lambda: dict(
            kind="classifier_free", weight=1.0
        ),
        "running.commands.SamplingJob": lambda: dict(
            run_dir="a",
            denoiser="digits-denoiser",
            classifier="digits-robust",
            preset="digits",
            scale=1.0,
            steps=5,
            sampler="ddim",
            labels=[1, 2],
            images=4,
            first_seed=0,
            batch_size=2,
            processes=1,
        ),
        "running.downloads.sha256": lambda: dict(path=w.root / "a.csv"),
        "running.downloads.verify": lambda: dict(path=w.root / "a.csv"),
        "running.downloads.download": lambda: dict(
            url=(w.root / "a.csv").as_uri(), path=out(), tries=1, quiet=True
        ),
        "running.files.atomic_write": lambda: dict(path=out()),
        "running.files.run_path": lambda: dict(path="runs/a"),
        "running.files.regular_file": lambda: dict(path=w.root / "a.json"),
        "running.files.plain_terminal": lambda: dict(),
        "running.files.save_json": lambda: dict(path=out(), value={"a": [1, 2.0, "x"]}),
        "running.files.load_json": lambda: dict(path=w.root / "a.json"),
        "running.files.write_table": lambda: dict(path=out(), rows=w.rows),
        "running.files.read_table": lambda: dict(path=w.root / "a.csv"),
        "running.files.markdown_table": lambda: dict(rows=w.rows),
        "running.files.save_arrays": lambda: dict(path=out(), a=np.ones(3)),
        "running.files.load_arrays": lambda: dict(path=w.root / "a.npz"),
        "running.hub.fetched": lambda: dict(get=Path, name="a"),
        "running.hub.names_by_label": lambda: dict(
            id2label={0: "a", 1: "b"}, classes=2
        ),
        "running.hub.run_card": lambda: dict(
            folder=w.root / "run", accuracy=[{"t": 0, "clean": 0.9}], licence="a"
        ),
        "running.hub.text_of": lambda: dict(facts={"a": 1}),
        "running.images.printable": lambda: dict(path="a/b"),
        "running.images.read_image": lambda: dict(
            path=w.root / "pictures" / "cat" / "0.png"
        ),
        "running.images.scaled": lambda: dict(image=_picture(), short_side=8),
        "running.images.center_crop": lambda: dict(image=_picture(), size=8),
        "running.images.random_crop": lambda: dict(
            image=_picture(), size=8, rng=np.random.default_rng(0), smallest=0.8
        ),
        "running.images.files_below": lambda: dict(folder=w.root / "pictures"),
        "running.images.class_folders": lambda: dict(root=w.root / "pictures"),
        "running.images.check_classes": lambda: dict(source="a", found=2, expected=2),
        "running.images.ImageFiles": lambda: dict(root=w.root / "pictures", classes=2),
        "running.images.ImageFolder": lambda: dict(
            root=w.root / "pictures", size=8, classes=2, channels=3
        ),
        "running.images.unreadable": lambda: dict(
            folder=images.ImageFolder(w.root / "pictures", 8), workers=0
        ),
        "running.images.image_arrays": lambda: dict(
            arrays=files.load_arrays(w.root / "a.npz"), path="a.npz"
        ),
        "running.images.labeled_array": lambda: dict(path=w.root / "a.npz"),
        "running.images.open_images": lambda: dict(
            source=w.root / "pictures", size=8, classes=2, channels=3
        ),
        "running.images.Pictures": lambda: dict(folder=w.root / "pictures", size=8),
        "running.images.load_images": lambda: dict(path=w.root / "a.npz"),
        "running.images.save_images": lambda: dict(
            path=out("a.npz"), samples=w.set, classes=["x", "y"]
        ),
        "running.images.save_reference": lambda: dict(
            path=out("a.npz"),
            images=w.set.images,
            extractor=metrics.pixels,
            keep=4,
            batch_size=3,
            workers=0,
        ),
        "running.images.load_reference": lambda: dict(
            path=w.root / "ref.npz", extractor=metrics.pixels, batch_size=3
        ),
        "running.jobs.find_file": lambda: dict(name="digits-robust"),
        "running.jobs.reference_images": lambda: dict(name="digits"),
        "running.presets.Sampling": lambda: dict(
            steps=5, sampler="ddim", vanilla_scale=0.5
        ),
        "running.presets.Preset": lambda: {
            f.name: getattr(presets.DIGITS, f.name)
            for f in dataclasses.fields(presets.DIGITS)
        },
        "running.presets.preset": lambda: dict(name="digits"),
        "running.report.classifier_report": lambda: dict(
            classifier=c,
            diffusion=D,
            images=x,
            labels=y,
            attack=attack,
            timesteps=[0, 100],
            unet=u,
        ),
        "running.report.scale_report": lambda: dict(
            unet=u,
            diffusion=D,
            classifier=c,
            judge=lambda images: images.flatten(1)[:, :10],
            labels=y,
            scales=[0.0, 0.1],
            sampler="ddim",
            steps=2,
        ),
        "running.report.recommended_scale": lambda: dict(
            shares={0.0: metrics.Interval(0.5, 0.4, 0.6)}
        ),
        "running.runs.claim": lambda: dict(path=out(), patience=0.0),
        "running.runs.is_claimed": lambda: dict(path=out()),
        "running.runs.owned": lambda: dict(folder=out(), patience=0.0),
        "running.runs.Run": lambda: dict(path=out(), scale=0.5, name="a"),
        "running.runs.Run.reuse": lambda: dict(
            self=runs.Run(out()), name="a", make=lambda: x
        ),
        "running.runs.Run.reuse_json": lambda: dict(
            self=runs.Run(out()), name="a", make=lambda: 1
        ),
        "running.settings.described": lambda: dict(value={"a": [1, 2.0]}),
        "running.settings.fingerprint": lambda: dict(value={"a": [1, 2.0]}),
        "running.settings.differences": lambda: dict(then={"a": 1}, now={"a": 2}),
        "running.settings.check_same": lambda: dict(
            found="it was made", then={"a": 1}, now={"a": 1}, advice="make it again"
        ),
        "running.sweeps.Sweep": lambda: dict(folder=out(), cells=[{"a": 1}, {"a": 2}]),
        "running.sweeps.seconds_left": lambda: dict(
            sweep=sweeps.Sweep(out(), [{"a": 1}])
        ),
        "running.sweeps.progress": lambda: dict(sweep=sweeps.Sweep(out(), [{"a": 1}])),
        "running.sweeps.work": lambda: dict(
            sweep=sweeps.Sweep(out(), [{"a": 1}]),
            function=lambda cell: 1,
            failed="skip",
            poll=0.01,
            give_up=2,
        ),
        "solvers.intervals": lambda: dict(process=D),
        "solvers.visited": lambda: dict(spacing="section", count=5, diffusion=D),
        "solvers.Solver": lambda: dict(steps=5, spacing="section"),
        "solvers.DDPM": lambda: dict(steps=5, spacing="section", variance="small"),
        "solvers.DDIM": lambda: dict(steps=5, spacing="stride", eta=0.5),
        "solvers.Heun": lambda: dict(steps=5, spacing="log-snr"),
        "solvers.DPMSolver2M": lambda: dict(steps=5, spacing=(0, 10, 20)),
        "solvers.Mixture": lambda: dict(means=w.features, spread=0.1),
        "solvers.orders_figure": lambda: dict(errors={"DDIM": {10: 0.1, 20: 0.05}}),
        "solvers.predictor": lambda: dict(model=lambda x, t: x),
        "solvers.solve": lambda: dict(
            solver=solvers.DDIM(3),
            diffusion=D,
            predict=solvers.predictor(lambda x, t: u(x, t)),
            x=x,
        ),
        "solvers.named_solver": lambda: dict(sampler="ddim", steps=5),
        "survey.answers.Texts": lambda: dict(title="a", question="b"),
        "survey.answers.Pair": lambda: dict(label="a", origin="b", images={"c": "d"}),
        "survey.answers.Survey": lambda: dict(
            folder=w.root,
            key="a",
            methods=("a", "b"),
            texts=answers.Texts(),
            pairs=w.survey.pairs,
            made_from={},
        ),
        "survey.answers.save_survey": lambda: dict(
            survey=dataclasses.replace(w.survey, folder=out())
        ),
        "survey.answers.open_survey": lambda: dict(folder=w.root / "survey"),
        "survey.answers.Raters": lambda: dict(survey=w.survey),
        "survey.answers.Raters.join": lambda: dict(
            self=answers.Raters(w.survey), secret=w.secret
        ),
        "survey.answers.Task": lambda: dict(place=1, pair=0, left="a", right="b"),
        "survey.answers.Answer": lambda: dict(place=1, answer="left", seconds=1.5),
        "survey.answers.Answers": lambda: dict(survey=w.survey),
        "survey.answers.give": lambda: dict(
            answers=w.answers,
            rater=w.rater,
            place=1,
            answer="left",
            seconds=1.5,
            correct=True,
        ),
        "survey.answers.answer_rows": lambda: dict(survey=w.survey),
        "survey.answers.remove_rater": lambda: dict(
            answers=w.answers,
            rater=answers.Raters(w.survey).rater(answers.Raters(w.survey).join()),
        ),
        "survey.making.choose_pairs": lambda: dict(
            classes={"1": "a", "2": "b"}, count=2, seed=0
        ),
        "survey.making.named_classes": lambda: dict(names=w.root / "names.txt"),
        "survey.making.make_survey": lambda: dict(
            folder=out(),
            samples={"robust": w.root / "a.npz", "vanilla": w.root / "b.npz"},
            pairs=2,
            seed=0,
        ),
        "survey.opinions.Opinions": lambda: {
            f.name: getattr(w.opinions, f.name) for f in dataclasses.fields(w.opinions)
        },
        "survey.opinions.opinions_from": lambda: dict(
            rows=[dict(rater=k, pair=1, chosen=c) for k, c in enumerate(("a", "b"))]
        ),
        "survey.opinions.read_opinions": lambda: dict(path=w.root / "survey"),
        "survey.opinions.Population": lambda: dict(
            first=0.4, second=0.3, pair=0.2, rater=0.2
        ),
        "survey.opinions.Population.draw": lambda: dict(
            self=opinions.Population(0.4, 0.3), pairs=4, raters=3, complete=0.5, seed=0
        ),
        "survey.opinions.tally": lambda: dict(opinions=w.opinions),
        "survey.opinions.verdicts": lambda: dict(
            counts=opinions.tally(w.opinions), threshold=0.5
        ),
        "survey.opinions.preference_figure": lambda: dict(opinions=w.opinions),
        "survey.opinions.summarise": lambda: dict(
            opinions=w.opinions, thresholds=(0.5, 0.6), draws=5, seed=0, **level
        ),
        "survey.opinions.summary_table": lambda: dict(
            summary=opinions.summarise(w.opinions, draws=5)
        ),
        "survey.opinions.preference": lambda: dict(
            opinions=w.opinions, draws=20, seed=0
        ),
        "survey.opinions.agreement": lambda: dict(counts=opinions.tally(w.opinions)),
        "survey.opinions.suspicions": lambda: dict(
            opinions=w.opinions, level=0.01, fastest=1.0, few=5
        ),
        "survey.opinions.without": lambda: dict(opinions=w.opinions, raters=[0]),
        "survey.opinions.variances": lambda: dict(opinions=w.opinions),
        "survey.opinions.power": lambda: dict(
            net=0.2,
            pairs=8,
            raters=6,
            variances=opinions.variances(w.opinions),
            complete=1.0,
            level=0.05,
        ),
        "survey.opinions.raters_needed": lambda: dict(
            net=0.2,
            pairs=8,
            variances=opinions.variances(w.opinions),
            complete=1.0,
            wanted=0.8,
            level=0.05,
            most=50,
        ),
        "survey.opinions.progress_figure": lambda: dict(
            opinions=opinions.read_opinions(w.root / "survey")
        ),
        "survey.page.respond": lambda: dict(
            answers=w.answers, action="next", message={"rater": w.secret}
        ),
        "survey.page.first_page": lambda: dict(texts=answers.Texts()),
        "survey.serving.application": lambda: dict(
            answers=w.answers, names=("a",), base_url="/", raters=10
        ),
        "survey.serving.make": lambda: dict(
            folder=str(out()),
            first=f"robust={w.root / 'a.npz'}",
            second=f"vanilla={w.root / 'b.npz'}",
            pairs=2,
            seed=0,
        ),
        "survey.serving.export": lambda: dict(
            folder=str(w.root / "survey"), file=str(out("a.csv"))
        ),
        "survey.serving.remove": lambda: dict(
            folder=str(w.root / "survey"),
            rater=answers.Raters(w.survey).rater(answers.Raters(w.survey).join()),
        ),
        "gradient_training.SingleStepLoss": lambda: dict(diffusion=D, threat=L2(0.5)),
        "gradient_training.GradientPenaltyLoss": lambda: dict(diffusion=D, weight=1.0),
        "gradient_training.SmoothingLoss": lambda: dict(diffusion=D, deviation=0.5),
        "gradient_training.JointEnergyLoss": lambda: dict(diffusion=D, weight=1.0),
        "gradient_training.ScoreMatchingLoss": lambda: dict(
            diffusion=D, weight=1.0, denoiser=u, images=2
        ),
        "gradient_training.Denoised": lambda: dict(
            classifier=c, denoiser=u, diffusion=D
        ),
        "gradient_training.with_activation": lambda: dict(
            network=_new_classifier(), make=nn.Softplus
        ),
        "gradient_training.with_null_label": lambda: dict(
            unet=UNet(UNetConfig(**SHAPE))
        ),
        "gradient_training.SmallClassifier": lambda: dict(
            channels=1, classes=10, width=32
        ),
        "gradient_training.Passes": lambda: dict(network=_new_classifier()),
        "training.DenoiserLoss": lambda: dict(
            diffusion=D, drop_labels=0.1, null_label=10
        ),
        "training.ClassifierLoss": lambda: dict(diffusion=D, attack=attack),
        "training.TrainingConfig": lambda: dict(
            steps=10, lr=1e-3, batch_size=4, seed=0, ema_decay=0.9
        ),
        "training.identity": lambda: dict(data=w.digits),
        "training.train": lambda: dict(
            model=_new_classifier(),
            loss=training.ClassifierLoss(D),
            data=w.digits,
            timesteps=1000,
            config=w.config,
        ),
        "training.train_denoiser": lambda: dict(
            unet=UNet(UNetConfig(**SHAPE)), diffusion=D, data=w.digits, config=w.config
        ),
        "training.train_classifier": lambda: dict(
            classifier=_new_classifier(),
            diffusion=D,
            data=w.digits,
            config=w.config,
            attack=attack,
        ),
        "running.tensors.save_tensors": lambda: dict(
            path=out("a.safetensors"), tensors={"a": x}, note=1
        ),
        "running.tensors.load_tensors": lambda: dict(path=w.root / "a.safetensors"),
        "running.tensors.load_weights": lambda: dict(
            model=_new_classifier(), tensors=c.state_dict(), source="a"
        ),
        "training.save_state": lambda: dict(state=w.state(), folder=out()),
        "training.load_state": lambda: dict(state=w.state(), folder=_stored_state()),
        "unet.EncoderConfig": lambda: config,
        "unet.UNetConfig": lambda: config | dict(classes=10),
        "unet.UNet": lambda: dict(config=u.config),
        "unet.UNet.forward": lambda: dict(self=u, x_t=x, t=t, labels=y),
    }
    views_of = {k.replace("_frames", "_view"): v for k, v in made.items()}
    return made | {k: v for k, v in views_of.items() if k.endswith("_view")}


def _picture() -> Image.Image:
    return Image.new("RGB", (20, 16), (9, 99, 200))


def _png() -> bytes:
    file = io.BytesIO()
    _picture().save(file, "PNG")
    return file.getvalue()


def _new_classifier() -> Classifier:
    return Classifier(ClassifierConfig(**SHAPE, head_width=32))


def _stored_state() -> Path:
    folder = out()
    training.save_state(world().state(), folder)
    return folder


# Bad arguments

REFUSE, EITHER = True, False  # whether a result, even a finite one, is wrong


def _of_floats(x: torch.Tensor):
    some = x.clone()
    some.view(-1)[0] = torch.nan
    yield "NaN", some, REFUSE
    yield "infinity", torch.full_like(x, torch.inf), REFUSE
    yield "1e30", x * 1e30 + 1e30, EITHER
    yield "bytes", x.byte(), REFUSE
    yield "NumPy", x.numpy(), EITHER
    yield "list", x.tolist(), REFUSE
    yield "complex", x + 0j, REFUSE
    yield "float64", x.double(), EITHER
    yield "no axes", x.sum(), REFUSE
    yield "none of them", x[:0], EITHER
    if x.ndim > 1:
        yield "an axis missing", x[0], REFUSE
        yield "wider", torch.cat([x, x], -1), EITHER
    yield "fewer", x[:1], EITHER


def _of_integers(x: torch.Tensor):
    if x.dtype != torch.bool:
        yield "negative", x - 100, REFUSE
        yield "absurd", x + 10**9, REFUSE
    yield "floats", x.float(), REFUSE
    yield "NaN", x * torch.nan, REFUSE
    yield "fewer", x[:1], REFUSE
    yield "two axes", x[:, None], REFUSE
    yield "int32", x.int(), EITHER
    yield "NumPy", x.numpy(), EITHER
    yield "list", x.tolist(), EITHER
    yield "none of them", x[:0], EITHER


DEMANDS = {"workers", "processes", "steps", "classes"}  # so many are made, however many


def _of_number(x, huge: bool):
    for name, value in (("NaN", math.nan), ("infinity", math.inf)):
        yield name, value, REFUSE
    yield "-1", type(x)(-1), EITHER if isinstance(x, float) else REFUSE
    yield "0", type(x)(0), EITHER
    if huge:
        yield "huge", type(x)(2**40), EITHER
    yield "NumPy", np.float32(x), EITHER
    yield "digits", str(x), EITHER
    if isinstance(x, int):
        yield "1.5", 1.5, REFUSE


def _of_file(path: Path):
    garbage = out(path.name)
    garbage.parent.mkdir(parents=True, exist_ok=True)
    garbage.write_bytes(b"\x00\xffnonsense" * 9)
    yield "nothing there", out(path.name), EITHER
    yield "garbage", garbage, EITHER
    if path.is_file():
        half = out(path.name)
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        yield "half of it", half, EITHER
        yield "a folder", path.parent, EITHER


def _of_sequence(x):
    yield "empty", type(x)(), EITHER
    yield "of None", type(x)([None] * len(x)), REFUSE
    yield "of NaN", type(x)([math.nan] * len(x)), REFUSE
    yield "longer", type(x)([*x, *x]), EITHER


def _of_array(x: np.ndarray):
    yield "empty", x[:0], EITHER
    yield "texts", x.astype(str), REFUSE
    if x.dtype.kind == "f":
        yield "NaN", x * np.nan, REFUSE
    yield "no axes", np.array(1.0), REFUSE
    yield "list", x.tolist(), EITHER


def bad(name: str, argument: str, value):
    "Bad values in place of a good one: what they are, and whether to refuse them."
    yield "None", None, not optional(name, argument)
    yield "an object", object(), REFUSE
    if not isinstance(value, (str, Path)):
        yield "a word", "nonsense", REFUSE
    if not isinstance(value, dict):
        yield "a dictionary", {}, REFUSE
    if isinstance(value, torch.Tensor):
        yield from (_of_floats if value.is_floating_point() else _of_integers)(value)
    elif isinstance(value, bool):
        yield "5", 5, EITHER
    elif isinstance(value, (int, float)):
        yield from _of_number(value, argument not in DEMANDS)
    elif isinstance(value, Path):
        yield from _of_file(value)
    elif isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        yield from _of_sequence(value)
    elif isinstance(value, np.ndarray):
        yield from _of_array(value)
    elif isinstance(value, str):
        yield "another word", "nonsense", EITHER
        yield "nothing", "", EITHER
        yield "bytes", b"\xff", EITHER
    elif isinstance(value, dict):
        yield "empty", {}, EITHER
        yield "of objects", dict.fromkeys(value, object()), REFUSE
    elif callable(value):
        yield "a number", 3, REFUSE
        if argument in NETWORKS:
            yield "NaN for all", lambda *_, **__: torch.full((4, 10), torch.nan), EITHER
    else:
        yield "a number", 3, REFUSE


NETWORKS = {"classifier", "unet", "extractor", "discriminator", "worse"}


def optional(name: str, argument: str) -> bool:
    "Whether None is one of the values that a function says it takes."
    with contextlib.suppress(ValueError, TypeError):
        parameter = inspect.signature(resolve(name)).parameters.get(argument)
        if parameter is not None:
            return parameter.default is None or "None" in str(parameter.annotation)
    return False


# Arguments for which the rules above are too strict, and why
ANYTHING = {
    ("unet.UNetConfig", "classes"): "None is a network without labels",
    ("classifier.ClassifierConfig", "head_width"): "None is as many as `heads`",
    ("survey.opinions.without", "raters"): "what `suspicions` returns has them as keys",
    ("data.plain", "text"): "anything has a text",
    ("data.from_uint8", "pixels"): "bytes of any value and shape",
    ("data.to_uint8", "images"): "any shape",
    ("data.LabeledImages", "images"): "bytes, too",
    ("data.LabeledImages", "classes"): "numbers are names",
    ("metrics.features", "images"): "bytes, too",
    ("running.further_metrics.recognised", "images"): "bytes, too",
    ("metrics.bootstrap", "labels"): "any integers name classes",
    ("metrics.proportion", "hits"): "as many as there are",
    ("metrics.centred_interval", "resampled"): "as many as there are",
    ("running.tensors.save_tensors", "note"): "results may be anything that JSON holds",
    ("training.ClassifierLoss", "attack"): "settings may be given as dictionaries",
    ("running.images.save_images", "classes"): "numbers are names",
    ("running.images.save_reference", "images"): "bytes of any value",
    ("running.presets.Preset", "diffusion"): "settings may be given as dictionaries",
    ("running.presets.Preset", "attack"): "settings may be given as dictionaries",
    ("running.presets.Preset", "sampling"): "settings may be given as dictionaries",
    ("running.presets.Preset", "targets"): "what the paper reports",
    ("running.presets.Preset", "curves"): "what the paper reports",
    ("running.runs.Run", "scale"): "settings may be anything that JSON holds",
    ("running.runs.Run", "name"): "settings may be anything that JSON holds",
    ("figures.samples_figure", "names"): "numbers are names",
    ("survey.answers.Survey", "methods"): "numbers are names",
    ("survey.answers.Survey", "texts"): "settings may be given as dictionaries",
    ("survey.answers.Survey", "made_from"): "anything",
    ("survey.answers.Task", "pair"): "made by `Answers`",
    **{
        ("survey.opinions.Opinions", k): "made by `opinions_from`"
        for k in ("methods", "rater", "pair", "choice", "raters", "pairs", "side")
    },
    ("survey.page.respond", "message"): "what browsers send may be anything",
    ("survey.serving.application", "names"): "numbers are names",
    ("data.check_inputs", "t"): "their number of steps is not said here",
    ("data.check_inputs", "labels"): "their number of classes is not said here",
    ("diffusion.noise_like", "x"): "only its shape counts",
    ("diffusion.Diffusion.q_sample", "noise"): "the network finds NaN in it",
    ("diffusion.Diffusion.p", "output"): "the sampler finds NaN in it",
    ("diffusion.Diffusion.p", "clip"): "a flag of a step in a loop",
    ("classifier.checked_logits", "classifier"): "the loss finds NaN",
    ("running.models.name_of", "network"): "anything has a name",
    ("running.settings.fingerprint", "value"): "anything that JSON holds",
    ("running.settings.described", "value"): "anything that JSON holds",
    ("running.settings.described", "essential"): "anything is true or false",
    ("running.settings.differences", "then"): "anything that JSON holds",
    ("running.settings.differences", "now"): "anything that JSON holds",
    ("running.settings.differences", "name"): "anything that JSON holds",
    **{
        ("running.settings.check_same", k): "anything that JSON holds"
        for k in ("found", "then", "now", "advice")
    },
    ("running.checkpoints.class_names", "about"): "the headers of others",
    ("running.checkpoints.check_weights", "tensors"): "no tensors are finite",
    ("running.classifiers.clean_classifier", "size"): "None is as they are",
    ("running.report.scale_report", "labels"): "as many as there are",
    ("running.hub.text_of", "facts"): "anything has a text",
    ("running.hub.run_card", "accuracy"): "numbers are shown as they are",
    ("running.hub.fetched", "get"): "a function of huggingface_hub",
    ("interop.pipeline.ClassifierGuider", "labels"): "checked with the images",
    ("interop.pipeline.Scheduled", "options"): "what `step` of the scheduler takes",
    ("data.mirrored", "image"): "a change of images looks at nothing",
    ("running.files.save_arrays", "a"): "arrays of anything but objects",
    ("running.files.save_json", "value"): "results may be anything that JSON holds",
}


# What comes of a call


def resolve(name: str):
    "The function behind a name of `good`."
    parts = name.split(".")
    for k in range(len(parts) - 1, 0, -1):
        with contextlib.suppress(ImportError):
            value = importlib.import_module("rcg." + ".".join(parts[:k]))
            for part in parts[k:]:
                value = getattr(value, part)
            return value
    raise LookupError(name)


def finite(result) -> bool:
    "Whether all numbers in a result are finite."
    if isinstance(result, torch.Tensor):
        return not result.is_floating_point() or bool(result.isfinite().all())
    if isinstance(result, np.ndarray):
        return result.dtype.kind not in "fc" or bool(np.isfinite(result).all())
    if isinstance(result, float):
        return math.isfinite(result)
    if isinstance(result, dict):
        return all(map(finite, result.values()))
    if isinstance(result, (list, tuple)):
        return all(map(finite, result))
    return True


def called(function, arguments: dict):
    "The result; the first few of an iterator, what is inside a context."
    self = [arguments["self"]] if "self" in arguments else []
    names = {k: v for k, v in arguments.items() if k != "self"}
    result = function(*self, **names)
    plain = isinstance(result, (nn.Module, Path))
    if isinstance(result, contextlib.AbstractContextManager) and not plain:
        with result as inner:
            if isinstance(inner, Path):
                inner.touch()
            return inner
    if inspect.isgenerator(result) or isinstance(result, zip):
        return list(islice(result, 3))
    return result


WORDS = {  # what messages may call an argument instead
    "x": "image",
    "x_t": "image",
    "x0": "image",
    "image": "picture",
    "images": "image",
    "y": "label",
    "targets": "label",
    "labels": "label|real images",
    "t": "timestep",
    "timesteps": "timestep|t must",
    "real_labels": "label|real images",
    "real": "feature",
    "fake": "feature",
    "points": "feature",
    "centers": "feature",
    "k": "N at least",
    "neighbours": "N at least",
    "tensors": "weights",
    "value": "setting",
    "init_noise": "starting noise|image",
    "unet": "denoiser|model",
    "content": "upload",
    "latents": "init_noise|image",
    "class_labels": "label",
    "guidance_scale": "scale",
    "names": "name|label",
    "file": "csv",
    "samples": "method|path",
    "classes": "pairs|class",
    "counts": "answered",
    "rows": "answer",
    "complete": "numbers",
    "first": "samples",
    "second": "samples",
    "found": "state dict|classes",
    "arrays": "holds",
    "extractor": "features",
    "preset_name": "preset|whose",
    "path": "network|is a folder",
    "like": "image",
}


def named(message: str, argument: str, value) -> bool:
    "Whether a message says which argument is wrong, or shows what was given."
    stem = argument.strip("_").rstrip("s").replace("_", " ")
    words = f"{re.escape(argument)}|{re.escape(stem)}|{WORDS.get(argument, argument)}"
    found = re.search(rf"\b({words})(e?s|led)?\b", message) is not None
    shown = repr(value)[:20], str(value)[:60], f"/{value}:", f"'{value}'"
    return found or any(
        (len(text) > 2 or text == "''") and text in message for text in shown
    )


def outcome(name: str, arguments: dict, changed: dict) -> tuple[str, str]:
    "fine, clear, raw or silent, and what was said."
    try:
        quiet = contextlib.redirect_stderr(io.StringIO())
        with warnings.catch_warnings(), quiet, contextlib.chdir(world().root):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(io.StringIO()):
                result = called(
                    resolve(name), arguments | {k: v[1] for k, v in changed.items()}
                )
    except Hang:
        return "hang", ""
    except Exception as e:
        said = f"{type(e).__name__}: {e}"
        *_, last = traceback.extract_tb(e.__traceback__)
        ours = "/rcg/" in last.filename and last.line.startswith("raise")
        if isinstance(e, OSError) and any(
            str(v[1]) in str(e) for v in changed.values()
        ):
            ours = True  # Python says which file it could not find or open
        kinds = isinstance(e, (ValueError, TypeError, OSError, RuntimeError))
        known = any(named(str(e), k, v[1]) for k, v in changed.items())
        clear = ours and kinds and known and len(str(e)) > 15
        return (
            "clear" if clear else "raw"
        ), said + f" ({last.filename.split('/')[-1]}:{last.lineno})"
    strict = {k: v for k, v in changed.items() if (name, k) not in ANYTHING}
    if strict and (any(v[2] for v in strict.values()) or not finite(result)):
        return "silent", object.__repr__(result)[:80]
    return "fine", ""


class Hang(BaseException):
    "A call that took too long."


# The fixed list


def arguments_of(name: str) -> dict:
    "The good arguments of a function, and its other defaults that are values."
    made = good()[name]()
    plain = (bool, int, float, str)
    function = resolve(name)
    given = {}
    with contextlib.suppress(ValueError, TypeError):
        for k, p in inspect.signature(function).parameters.items():
            if k not in made and isinstance(p.default, plain):
                given[k] = p.default
    return given | made


def calls():
    "Name, argument and kind of bad value of every call that there is."
    for name in sorted(good()):
        with contextlib.suppress(LookupError, AttributeError):  # not there (yet)
            for argument, value in arguments_of(name).items():
                if argument != "self":
                    for kind, *_ in bad(name, argument, value):
                        yield name, argument, kind


def chosen(call: tuple[str, ...], share: float) -> bool:
    "Whether a call is in a choice that other calls do not change."
    digest = hashlib.sha256(" ".join(call).encode()).digest()
    return int.from_bytes(digest[:4]) < share * 2**32


def one(name: str, argument: str, kind: str) -> tuple[str, str]:
    "What comes of one changed argument."
    arguments = arguments_of(name)
    changed = next(b for b in bad(name, argument, arguments[argument]) if b[0] == kind)
    return outcome(name, arguments, {argument: changed})


def main(folder: str, name: str, share: str = "0.25", seconds: int = 20):
    "Count what comes of a fixed choice of calls, by module, and store it."

    def too_long(*_):
        raise Hang

    signal.signal(signal.SIGALRM, too_long)
    rows, kinds = [], ("fine", "clear", "raw", "silent", "hang")
    for function, argument, kind in calls():
        if not chosen((function, argument, kind), float(share)):
            continue
        signal.alarm(seconds)
        try:
            what, said = one(function, argument, kind)
        except Hang:
            what, said = "hang", ""
        finally:
            signal.alarm(0)
        call = dict(function=function, argument=argument, given=kind)
        rows.append(call | dict(outcome=what, said=said))
    files.write_table(Path(folder) / f"{name}-calls.csv", rows)
    found = Counter(
        (row["function"].rpartition(".")[0], row["outcome"]) for row in rows
    )
    table = [
        {"module": module} | {kind: found[module, kind] for kind in kinds}
        for module in sorted({module for module, _ in found})
    ]
    table.append({"module": "all"} | {k: sum(row[k] for row in table) for k in kinds})
    files.write_table(Path(folder) / f"{name}.csv", table)
    print(table[-1])


@cache
def with_arguments() -> list[str]:
    "The functions that take any."
    return sorted(name for name in good() if arguments_of(name))


def generated():
    "Any numbers, texts and tensors; they may be good, or not."
    shapes = st.lists(st.integers(0, 4), max_size=4)
    kinds = st.sampled_from(
        [
            torch.float32,
            torch.float64,
            torch.float16,
            torch.int64,
            torch.uint8,
            torch.bool,
        ]
    )
    numbers = st.floats(-1e3, 1e3) | st.sampled_from([math.nan, math.inf, 1e30])
    fill = lambda shape, kind, value: torch.full(shape, value).to(kind)
    tensors = st.builds(fill, shapes, kinds, numbers)
    plain = numbers | st.integers(-5, 5) | st.text(max_size=5) | st.booleans()
    many = st.lists(plain, max_size=4)
    values = plain | many | many.map(tuple) | tensors | tensors.map(torch.Tensor.numpy)
    return values.map(lambda value: ("generated", value, EITHER))


def test_every_public_name_is_called_or_left_out_for_a_reason():
    names, here = set(public()), set(good())
    excused = {n for n in names for rule in left_out if fnmatch(n, rule)}
    assert not here & excused
    assert names - here == excused
    assert all(any(fnmatch(n, rule) for n in names) for rule in left_out)
    assert all(name in here and k in arguments_of(name) for name, k in ANYTHING)


def test_good_calls_are_good():
    for name in good():
        said = outcome(name, arguments_of(name), {})
        assert said[0] == "fine", (name, said)


@hypothesis_settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_a_result_or_an_error_that_names_the_argument(data):
    name = data.draw(st.sampled_from(with_arguments()))
    arguments = arguments_of(name)
    names = st.sampled_from([k for k in arguments if k != "self"])
    changed = {}
    for k in data.draw(st.lists(names, min_size=1, max_size=2, unique=True)):
        known = st.sampled_from(list(bad(name, k, arguments[k])))
        changed[k] = data.draw(known | generated())
    what, said = outcome(name, arguments, changed)
    seen = {k: v[:2] for k, v in changed.items()}
    assert what in ("fine", "clear"), f"{name} with {seen} is {what}: {said}"


# Single cases


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, 1e30])
def test_an_impossible_scale_draws_nothing(scale):
    w = world()
    known = (w.unet, w.diffusion, w.y, w.classifier)
    with pytest.raises(ValueError, match="scale"):
        guidance.sample(*known, scale, 5, "ddim", range(4))


@pytest.mark.parametrize("name", ["unet", "classifier"])
def test_weights_that_are_not_finite_draw_nothing(name):
    w = world()
    networks = {k: copy.deepcopy(getattr(w, k)) for k in ("unet", "classifier")}
    next(networks[name].parameters()).data.fill_(math.nan)
    unet, classifier = networks.values()
    with pytest.raises(ValueError, match="weights"):
        guidance.sample(unet, w.diffusion, w.y, classifier, 1.0, 5, "ddim", range(4))


def test_sets_of_different_resolution_are_not_compared_in_silence(tmp_path):
    w = world()
    large = w.set.images.repeat_interleave(2, -1).repeat_interleave(2, -2)
    images.save_reference(tmp_path / "a.npz", large, metrics.pixels)
    for real in (large, tmp_path / "a.npz"):
        reference = images.load_reference(real, metrics.pixels)
        with pytest.warns(UserWarning, match="8 pixels wide, the real images 16"):
            metrics.measure(w.set, reference, metrics.pixels, draws=1)


@pytest.mark.parametrize(
    "classes, folders",
    [(["dog", "cat"], ["dog", "cat"]), (["a/b", "c"], ["0", "1"]), (None, ["0", "1"])],
)
def test_samples_are_in_folders_with_the_names_of_their_classes(
    tmp_path, classes, folders
):
    if classes:
        files.save_json(tmp_path / "run" / "settings.json", {"classes": classes})
    denoiser = str(tmp_path / "run" / "model.safetensors")
    job = dict(denoiser=denoiser, preset="digits", classes=2, images=2, steps=5)
    plan = SamplingJob(str(tmp_path / "drawn"), **job).resolve()
    assert [task.file.parent.name for task in plan.tasks] == folders


def test_names_with_dollar_signs_are_no_formulas():
    w, name = world(), r"$\frac{$"
    lab = dataclasses.replace(w.lab, classifiers={name: w.classifier})
    numbers = dataclasses.replace(w.digits, classes=[name] * 10)
    others = dataclasses.replace(w.opinions, methods=("a" + name, "b" + name))
    rows = [{"step": 1, "kind": name, "t 0-99": 0.5}]
    for figure in (
        views.gradient_view(dataclasses.replace(lab, images=numbers), w.x[0], 1, 10),
        views.attack_view(lab, w.x[0], 1, Attack(L2(0.5), 2)),
        figures.samples_figure(w.x, w.y, [name] * 4, 1),
        figures.pairs_figure({name: w.x}, [0], [name]),
        figures.accuracy_figure(rows),
        score_figure({name: [row | {"classifier": name} for row in w.scores]}),
        opinions.preference_figure(others),
    ):
        FigureCanvasAgg(figure).draw()


@pytest.mark.parametrize("value", ["[" * 100_000, "pt", '{"a": [}', "12", '"x"'])
def test_metadata_of_others_is_no_metadata_of_ours(tmp_path, value):
    path, about = tmp_path / "model.safetensors", {"step": value, "steps": value}
    weights = load_classifier("digits-robust").state_dict()
    save_file(weights, path, {"format": "pt"} | about)
    load_classifier(path, "digits")
    save_file(weights, path, {"format": "pt", "classes": value})
    assert load_classifier(path, "digits").class_names is None
    tensors = {"a": torch.ones(2)}
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt", "step": value})
    assert training.load_tensors(tmp_path / "a.safetensors")[0]["a"].equal(tensors["a"])
    path = tmp_path / training.CHECKPOINT
    save_file(tensors, path, {"format": "pt", "step": value})
    for call in (training.save_state, training.load_state):
        with pytest.raises(OSError, match="no checkpoint of a training here"):
            call(world().state(), tmp_path)


# What Windows lacks; other libraries bring their own versions for it
ELSEWHERE = """
import os, sys, accelerate, filelock, jsonargparse, psutil, scipy.stats
import asyncio, matplotlib.pyplot, sklearn.datasets, torch.utils.data, torchvision
import tornado.httpserver

gone = {"fcntl", "resource", "termios", "pwd", "grp"}
for name in gone:
    sys.modules[name] = None
for name in ("sched_getaffinity", "getuid", "geteuid", "uname", "killpg"):
    delattr(os, name)
import rcg.checkpoints, rcg.survey.serving
from rcg.jobs import TrainingJob, train_job

job = TrainingJob("digits", sys.argv[1], "vanilla", "digits", steps=2, workers=0)
train_job(job)
"""


def test_training_needs_nothing_that_windows_lacks(tmp_path):
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()


if __name__ == "__main__":
    main(*sys.argv[1:])

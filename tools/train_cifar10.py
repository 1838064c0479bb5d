r"""Train the CIFAR-10 classifiers of the package, and put them into it.

python tools/train_cifar10.py                        trains; repeated, it goes on
python tools/train_cifar10.py --ship "in words"      measures, writes weights and cards

The images are those of torchvision; `--train` and `--test`, and `-p data` below, name
others: folders of class folders, or .npz files. An iteration took 1.3 s on one core, or
3.5 to 4.4 s if its images are attacked.

All begin as the job does, with timesteps drawn uniformly:

papermill nbs/train_imagenet.ipynb runs/1.ipynb -p preset cifar10 -p network vanilla \
    -p steps 5000 -p schedule 5000 -p batch_size 64 -p lr 6e-4 -p ema_decay 0.998 \
    -p bf16 True -p run_dir runs/cifar10-1

The stages below go on from there. They crop and mirror, and draw t = T u², u uniform,
so that half of the timesteps are below T / 4, where there is an object to see.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from ship_network import measured, measured_on, put, trained
from torch import Tensor
from torch.nn import functional as F

from rcg.attack import L2, Attack
from rcg.checkpoints import convert, load_classifier
from rcg.data import Augmented, cifar10_samples, mirrored
from rcg.diffusion import Diffusion
from rcg.gradients import gradient_score
from rcg.metrics import Interval, accuracy, proportion
from rcg.running.files import read_table, run_path, write_table
from rcg.running.images import open_images
from rcg.training import ClassifierLoss, TrainingConfig, fit, train

ATTACK, STRONGER = (Attack(L2(eps), steps=7) for eps in (0.5, 2.0))


@dataclass(frozen=True)
class Stage:
    "Some iterations, from the averaged weights of the stage before."

    name: str
    before: str
    iterations: int
    schedule: int  # at whose end the learning rate would be 0
    lr: float
    attack: Attack | None = None
    ema_decay: float | None = 0.998  # a few hundred iterations want less of it

    @property
    def folder(self):
        return run_path(f"runs/{self.name}")

    @property
    def tested(self) -> Attack:
        "The attack of its table of accuracies."
        return self.attack or ATTACK

    @property
    def config(self) -> TrainingConfig:
        fixed = dict(warmup=100, batch_size=BATCH, weight_decay=0.05, save_every=100)
        own = {k: getattr(self, k) for k in ("lr", "schedule", "ema_decay")}
        return TrainingConfig(self.iterations, **own, **fixed)


BATCH, FIRST = 64, "5,000"  # iterations of the job
SECOND = Stage("cifar10-2", "cifar10-1", 4000, 5500, 6e-4)
VANILLA = Stage("cifar10-vanilla", "cifar10-2", 4500, 4500, 5e-4)
ROBUST = Stage("cifar10-robust", "cifar10-2", 750, 750, 4e-4, ATTACK, 0.99)
STRONGER_ROBUST = Stage(
    "cifar10-robust-eps2", "cifar10-2", 500, 500, 4e-4, STRONGER, None
)
SHIPPED = VANILLA, ROBUST, STRONGER_ROBUST


def shifted(image: Tensor, rng: np.random.Generator) -> Tensor:
    "Mirrored or not, and shifted by up to two pixels."
    image = F.pad(mirrored(image, rng), (2, 2, 2, 2), mode="reflect")
    down, right = rng.integers(0, 5, 2)
    return image[:, down : down + 32, right : right + 32]


@dataclass(frozen=True)
class EarlyTimesteps:
    "A loss, with t²/T in place of t."

    loss: ClassifierLoss
    timesteps: int = 1000

    def __call__(self, model, x0, labels, t, noise):
        return self.loss(model, x0, labels, t**2 // self.timesteps, noise)


def run(stage: Stage, data):
    "Train a stage, or what is left of it."
    weights = run_path(f"runs/{stage.before}/model.safetensors")
    model = load_classifier(weights, "cifar10").requires_grad_()
    loss = EarlyTimesteps(ClassifierLoss(Diffusion(), stage.attack))
    fit(train(model, loss, data, 1000, stage.config, stage.folder), stage.name)


def clean(network, held_out) -> Interval:
    "Share of all held-out images that are recognised at t = 0."
    images, labels = held_out.all(), held_out.labels
    known = accuracy(network, Diffusion(), images, labels, [0], batch_size=200)[0]
    return proportion(torch.arange(len(labels)) < round(known * len(labels)))


def ship(stage: Stage, held_out, words: str, count: int):
    "Measure a network, and put it into the package."
    source, file = (stage.folder / f"{n}.safetensors" for n in ("model", "shipped"))
    convert(source, file, torch.bfloat16)
    network = load_classifier(file, "cifar10")
    size = f"{sum(p.numel() for p in network.parameters()):,} parameters"
    before = f"{FIRST} with timesteps drawn uniformly, then {SECOND.iterations:,} "
    before += f"and {stage.iterations:,} with more of the early ones (t = T u²)"
    before += ", of which the last with attacks" if stage.attack else ""
    average = f", moving average of the weights ({stage.ema_decay})"
    average = average if stage.ema_decay else ""
    average += "; before that 0.0006, and the first part in bfloat16 autocast"
    facts = {
        "network": f"the paper's CIFAR-10 classifier, {size}",
        "data": f"CIFAR-10, the 50,000 training images, {words}; mirrored, "
        f"and after the first {FIRST} iterations shifted by up to two pixels",
        **trained("robust" if stage.attack else "vanilla", stage.tested),
        "iterations": f"of {BATCH} images: {before} (the paper's: 200,000 of 128)",
        "optimiser": "AdamW, weight decay 0.05, learning rate falling from "
        f"{stage.lr:g} to 0 in the last part{average}",
        "measured on": measured_on(min(count, len(held_out)), "of the same kind"),
    }
    right = clean(network, held_out)
    facts["held-out accuracy"] = f"{right} at t = 0, of all {len(held_out):,}"
    rows = measured(network, Diffusion(), stage.tested, held_out, count)
    put(stage.name, file, facts, rows, read_table(stage.folder / "history.csv"))


def describe_start():
    "Numbers of the gradients of the network that the three have in common."
    weights = run_path(f"runs/{SECOND.name}/model.safetensors")
    networks = {"common start": load_classifier(weights, "cifar10")}
    samples = cifar10_samples()
    known = Diffusion(), samples.all(), samples.labels
    rows = gradient_score(networks, *known, range(0, 500, 100), length=4.0)
    write_table(run_path("results/cifar10-classifiers/common-start.csv"), rows)


def chosen(stages, name: str) -> list[Stage]:
    "That of this name, or all."
    return [stage for stage in stages if name in ("", stage.name)]


def main():
    "The command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", default="cifar10", help="images to train on")
    parser.add_argument("--test", default="cifar10", help="held-out images")
    parser.add_argument("--ship", help="where the images are from, in words")
    parser.add_argument("--images", type=int, default=1000, help="held out, to measure")
    parser.add_argument("--only", default="", help="only the stage of this name")
    args = parser.parse_args()
    if args.ship:
        held_out = open_images(args.test, 32, train=False)
        for stage in chosen(SHIPPED, args.only):
            ship(stage, held_out, args.ship, args.images)
        return describe_start()
    data = Augmented(open_images(args.train, 32, mirror=False), shifted)
    for stage in chosen([SECOND, *SHIPPED], args.only):
        run(stage, data)


if __name__ == "__main__":
    main()

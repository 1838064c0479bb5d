"""Make a trained network part of the package: bfloat16 weights and the card's facts.

python tools/ship_network.py settings.yaml cifar10-robust "CIFAR-10, 50,000 images"

The settings are those of the training job, and name the held-out images as `validation`
(a classifier's) if they are not the preset's.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.utils.data import default_collate

from rcg.attack import Linf
from rcg.metrics import accuracy
from rcg.running.checkpoints import SHIPPED, convert, load_classifier, shipped
from rcg.running.files import read_table, run_path, save_json, write_table
from rcg.running.jobs import TrainingJob, TrainingPlan
from rcg.training import load_tensors

RESULTS = {
    "cifar10": "cifar10-classifiers",
    "mnist": "mnist-networks",
    "digits": "digits-networks",
}
TIMESTEPS = list(range(0, 1000, 100))
LICENCES = {
    "cifar10": "weights as the code, Apache-2.0; the authors of CIFAR-10 state no "
    "licence, and ask to cite Krizhevsky (2009)",
    "mnist": "weights as the code, Apache-2.0; the data are CC BY-SA 3.0 "
    "(LeCun, Cortes and Burges)",
    "digits": "weights as the code, Apache-2.0; the data are CC BY 4.0 "
    "(Alpaydin and Kaynak, 1998)",
}


def optimised(plan: TrainingPlan, step: int) -> dict:
    "Iterations and optimiser in words."
    config = plan.training
    paper = "; the paper's: 200,000 of 128" if plan.job.preset == "cifar10" else ""
    images = f"{config.batch_size} images ({step * config.batch_size:,} images{paper})"
    said = f"AdamW, learning rate {config.lr:g}"
    said += f" falling to {config.lr_at(step):g}" if config.schedule else ""
    said += f", weight decay {config.weight_decay:g}"
    if config.ema_decay:
        said += f", moving average of the weights ({config.ema_decay:g})"
    said += ", bfloat16 autocast" if config.bf16 else ""
    return {"iterations": f"{step:,} of {images}", "optimiser": said}


def trained(network: str, attack) -> dict:
    "What a network was shown, in words."
    if network == "denoiser":
        noisy = "noisy images and labels; noise and variance (the hybrid loss)"
        return {"training": noisy}
    norm = "Linf" if isinstance(attack.threat, Linf) else "L2"
    ball = f"{norm}, ε = {attack.threat.eps:g} in the units of images in [-1, 1]"
    pgd = f"PGD, {ball}, at most {attack.steps} steps, stopping once fooled"
    if network == "robust":
        return {"training": "attacked images (Eq. 5)", "attack": pgd}
    return {
        "training": "noisy images, not attacked",
        "attack": pgd + " (in the table only)",
    }


def measured(classifier, diffusion, attack, data, count: int) -> list[dict]:
    "Clean and attacked accuracy on held-out images, by timestep."
    chosen = np.random.default_rng(0).permutation(len(data))[:count]
    images, labels = default_collate([data[int(i)] for i in chosen])
    known = (classifier, diffusion, images, labels, TIMESTEPS)
    clean = accuracy(*known, batch_size=100)
    attacked = accuracy(*known, attack, batch_size=100)
    return [
        {"t": t, "clean": round(c, 4), "attacked": round(a, 4)}
        for t, c, a in zip(TIMESTEPS, clean, attacked)
    ]


def averaged(history: list[dict]) -> list[dict]:
    "At most a hundred rows of a training's history."
    pieces = np.array_split(history, min(100, len(history)))
    return [
        {k: float(f"{np.mean([r[k] for r in piece]):.5g}") for k in piece[0]}
        for piece in pieces
    ]


def put(name: str, file: Path, facts: dict, rows: list[dict], history: list[dict]):
    "A converted file and its card into the package, the tables into `results`."
    preset_name = SHIPPED[name]
    results, table = run_path("results") / RESULTS[preset_name], {}
    if rows:
        table["accuracy"] = {k: [row[k] for row in rows] for k in rows[0]}
        write_table(results / f"{name}.csv", rows)
    write_table(results / f"{name}-training.csv", averaged(history))
    facts = facts | {"licence": LICENCES[preset_name]}
    package = shipped("mnist").parent  # a name may be new
    save_json(package / f"{name}.json", facts | table)
    os.replace(file, package / f"{name}.safetensors")


def ship(plan: TrainingPlan, name: str, data: str, images: int, held_out: str):
    "What a job has trained."
    network = plan.job.network
    source, file = (plan.folder / f"{n}.safetensors" for n in ("model", "shipped"))
    convert(source, file, torch.bfloat16)
    tensors, metadata = load_tensors(source)
    size = f"{sum(v.numel() for v in tensors.values()):,} parameters"
    kind = network if network == "denoiser" else "classifier"
    facts = {"network": f"the {kind} of the preset {plan.job.preset}, {size}"}
    facts |= (
        {"data": data}
        | trained(network, plan.attack)
        | optimised(plan, metadata["step"])
    )
    rows = []
    if network != "denoiser":
        known, classifier = plan.held_out.open(), load_classifier(file, plan.job.preset)
        rows = measured(classifier, plan.diffusion, plan.attack, known, images)
        facts["measured on"] = measured_on(min(images, len(known)), held_out)
    put(name, file, facts, rows, read_table(plan.folder / "history.csv"))


def measured_on(images: int, held_out: str) -> str:
    "In words."
    whose = f" ({held_out})" if held_out else ""
    return f"{images:,} held-out images{whose}, accuracy by timestep t below"


def main():
    "The command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", help="YAML file of the training job")
    parser.add_argument("name", help="a name of rcg.checkpoints.SHIPPED")
    parser.add_argument("data", help="the data in words")
    parser.add_argument("--images", type=int, default=1000, help="held out, to measure")
    parser.add_argument("--held-out", default="", help="where those are from, in words")
    args = parser.parse_args()
    job = TrainingJob(**yaml.safe_load(Path(args.settings).read_text()))
    ship(job.resolve(), args.name, args.data, args.images, args.held_out)


if __name__ == "__main__":
    main()

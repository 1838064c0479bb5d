"""Make a trained network part of the package: bfloat16 weights and the facts of its card.

python tools/ship_network.py settings.yaml cifar10-robust "CIFAR-10, 50,000 training images"

The settings are those of the training job, and name the held-out images as `validation` (a classifier's).
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
import yaml

from rcg.attack import Linf
from rcg.diffusion import Diffusion
from rcg.metrics import accuracy
from rcg.running.checkpoints import convert, load_classifier, shipped
from rcg.running.files import read_table, run_path, save_json, write_table
from rcg.running.jobs import TrainingJob, from_parameters, job_attack, open_data, training_config
from rcg.running.presets import preset
from rcg.training import load_tensors

TIMESTEPS = list(range(0, 1000, 100))
LICENCES = {
    "cifar10": "weights as the code, Apache-2.0; the authors of CIFAR-10 state no licence, and ask to cite Krizhevsky (2009)",
    "digits": "weights as the code, Apache-2.0; the data are CC BY 4.0 (Alpaydin and Kaynak, 1998)",
}


def in_words(job: TrainingJob, step: int) -> dict:
    "How the network came about."
    config, attack = training_config(job), job_attack(job)
    ball = f"{'Linf' if isinstance(attack.threat, Linf) else 'L2'}, ε = {attack.threat.eps:g} in the units of images in [-1, 1]"
    end = f" falling to {config.lr_at(step):g}" if config.schedule else ""
    settings = (
        f"AdamW, learning rate {config.lr:g}{end}, weight decay {config.weight_decay:g}"
    )
    average = (
        f", moving average of the weights ({config.ema_decay:g})"
        if config.ema_decay
        else ""
    )
    paper = preset(job.preset).name != "digits" and "; the paper's: 200,000 of 128"
    facts = {
        "iterations": f"{step:,} of {config.batch_size} images ({step * config.batch_size:,} images{paper or ''})",
        "optimiser": settings
        + average
        + (", bfloat16 autocast" if config.bf16 else ""),
    }
    if job.network == "denoiser":
        return {
            "training": "noisy images and labels; noise and variance (the hybrid loss)"
        } | facts
    pgd = f"PGD, {ball}, at most {attack.steps} steps, stopping once fooled"
    kind = (
        "attacked images (Eq. 5)"
        if job.network == "robust"
        else "noisy images, not attacked"
    )
    return {
        "training": kind,
        "attack": pgd + ("" if job.network == "robust" else " (in the table only)"),
    } | facts


def measured(job: TrainingJob, file: Path, count: int) -> list[dict]:
    "Clean and attacked accuracy of a converted file on held-out images, by timestep."
    data, classifier = open_data(job, train=False), load_classifier(file, job.preset)
    chosen = np.random.default_rng(0).permutation(len(data))[:count]
    images, labels = (
        torch.stack(part) for part in zip(*(data[int(i)] for i in chosen))
    )
    common = (
        classifier,
        Diffusion(preset(job.preset).diffusion),
        images,
        labels,
        TIMESTEPS,
    )
    clean, attacked = (
        accuracy(*common, attack, batch_size=100) for attack in (None, job_attack(job))
    )
    return [
        {"t": t, "clean": round(c, 4), "attacked": round(a, 4)}
        for t, c, a in zip(TIMESTEPS, clean, attacked)
    ]


def main():
    "The command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", help="YAML file of the training job")
    parser.add_argument("name", help="a name of rcg.checkpoints.SHIPPED")
    parser.add_argument("data", help="the data in words")
    parser.add_argument(
        "--images",
        type=int,
        default=1000,
        help="held-out images to measure accuracy on",
    )
    parser.add_argument("--held-out", default="", help="where those are from, in words")
    args = parser.parse_args()
    job = from_parameters(
        TrainingJob, yaml.safe_load(Path(args.settings).read_text()), strict=True
    )
    source = job.folder / "model.safetensors"
    file = job.folder / "shipped.safetensors"
    convert(source, file, torch.bfloat16)
    tensors, metadata = load_tensors(source)
    size = f"{sum(v.numel() for v in tensors.values()):,} parameters"
    facts = {
        "network": f"the {job.network if job.network == 'denoiser' else 'classifier'} of the preset {job.preset}, {size}"
    }
    facts |= {"data": args.data} | in_words(job, metadata["step"])
    results = (
        run_path("results")
        / {"cifar10": "cifar10-classifiers", "digits": "digits-networks"}[job.preset]
    )
    if job.network != "denoiser":
        rows = measured(job, file, args.images)
        count = min(args.images, len(open_data(job, train=False)))
        facts["measured on"] = (
            f"{count:,} held-out images{f' ({args.held_out})' if args.held_out else ''}, accuracy by timestep t below"
        )
        write_table(results / f"{args.name}.csv", rows)
    facts["licence"] = LICENCES[job.preset]
    history = read_table(job.folder / "history.csv")
    pieces = np.array_split(history, min(100, len(history)))
    write_table(
        results / f"{args.name}-training.csv",
        [
            {k: float(f"{np.mean([r[k] for r in piece]):.5g}") for k in piece[0]}
            for piece in pieces
        ],
    )
    table = (
        {}
        if job.network == "denoiser"
        else {"accuracy": {k: [row[k] for row in rows] for k in rows[0]}}
    )
    save_json(shipped(args.name, "json"), facts | table)
    os.replace(file, shipped(args.name))


if __name__ == "__main__":
    main()

"""How much of an attack is needed while a classifier is trained: writes a small table.

python tools/attack_over_training.py settings.yaml results/attack.csv 0 100 300 1000

The settings are those of a training job. It is trained to each of the given iterations
in turn; a run that is there already is continued. One row of the table is the share of
images still under attack at each step of PGD, with the weights that the training has
reached. The images are the fifty of the package, at timesteps 0, 100, … 900.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from rcg.attack import pgd_steps
from rcg.classifier import Classifier
from rcg.data import cifar10_samples
from rcg.running.files import read_table, run_path, write_table
from rcg.running.jobs import TrainingJob, TrainingPlan, train_job


def classifier_after(job: TrainingJob, iterations: int) -> Classifier:
    "The network as it attacks itself: its weights, not their moving average."
    if iterations:
        return train_job(replace(job, steps=iterations)).model.eval()
    return job.resolve().build().eval()


def shares(plan: TrainingPlan, classifier: Classifier) -> dict[str, float]:
    "Share of images that are still attacked at each step."
    samples, attack = cifar10_samples(), plan.attack
    x0, y = samples.all().repeat(10, 1, 1, 1), samples.labels.repeat(10)
    t = torch.arange(0, 1000, 100).repeat_interleave(len(samples))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    x_t = plan.diffusion.q_sample(x0, t, noise)
    states = pgd_steps(
        classifier, x_t, t, y, attack.threat, attack.steps, attack.step_size
    )
    active = [len(state.active) / len(y) for state in states] + [0.0] * attack.steps
    return {f"step {k + 1}": active[k] for k in range(attack.steps)}


def main():
    "The command line."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", help="YAML file of the training job")
    parser.add_argument(
        "table",
        help="CSV file to write, relative to the repository; what it has is kept",
    )
    parser.add_argument("iterations", type=int, nargs="+", help="where to measure")
    args = parser.parse_args()
    job = TrainingJob(**yaml.safe_load(Path(args.settings).read_text()))
    table = run_path(args.table)
    rows = (
        {row["iterations"]: row for row in read_table(table)} if table.exists() else {}
    )
    for iterations in sorted(set(args.iterations) - set(rows)):
        rows[iterations] = {
            "iterations": iterations,
            **shares(job.resolve(), classifier_after(job, iterations)),
        }
        write_table(table, [rows[k] for k in sorted(rows)])
        print(rows[iterations], flush=True)


if __name__ == "__main__":
    main()

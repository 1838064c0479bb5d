"""Time two commits of the package in one sitting, and compare their results.

python tools/compare_versions.py cf39c0d
python tools/compare_versions.py cf39c0d HEAD --only "robust step" --repeats 3

Every piece of work runs in a fresh process for each commit in turns, several times
over; in each it is done once untimed and once timed, by the processor's time of all its
threads. A piece uses only what both commits have, with the CIFAR-10 weights of this
checkout for both. It makes its own inputs, which must be the same to the bit, and gives
numbers that are compared. Raw times go to `results/benchmarks/versions.csv`.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from tqdm import tqdm

from rcg.running.checkpoints import shipped
from rcg.running.files import read_table, run_path, write_table

ROOT = Path(__file__).parent.parent

ROBUST_STEP = """
import torch
from torch.nn import functional as F
from rcg.attack import Attack, L2
from rcg.checkpoints import load_classifier
from rcg.data import cifar10_samples
from rcg.diffusion import Diffusion

samples, generator = cifar10_samples(), torch.Generator().manual_seed(0)
chosen = torch.randint(50, (64,), generator=generator)
t = torch.randint(1000, (64,), generator=generator)
x0 = torch.stack([samples[int(k)][0] for k in chosen])
y, noise = samples.labels[chosen], torch.randn(x0.shape, generator=generator)
x_t = Diffusion().q_sample(x0, t, noise)
network, attack = load_classifier(WEIGHTS, "cifar10").requires_grad_(), Attack(L2(0.5))
if not TRAINED:
    with torch.no_grad():
        for w in network.parameters():
            w.copy_(torch.randn(w.shape, generator=generator) / w[0].numel() ** 0.5)
given = [x_t, t, y, *network.parameters()]


def work():
    network.zero_grad()
    loss = F.cross_entropy(network(attack(network, x_t, t, y), t), y)
    loss.backward()
    return loss.item(), max(w.grad.abs().max().item() for w in network.parameters())
"""
SAMPLING = """
import torch
from rcg.checkpoints import load_classifier, load_unet
from rcg.diffusion import Diffusion
from rcg.guidance import sample

denoiser, robust = load_unet("digits-denoiser"), load_classifier("digits-robust")
labels, generator = torch.arange(64) % 10, torch.Generator().manual_seed(0)
x_T = torch.randn(64, *FIRST_SHAPE, generator=generator)
given = [x_T, *denoiser.parameters(), *robust.parameters()]
how = dict(steps=20, sampler="ddim", init_noise=x_T)


def work():
    drawn = sample(denoiser, Diffusion(), labels, robust, 2.0, **how)
    return drawn.double().square().mean(), drawn.double().abs().max()
""".replace("FIRST_SHAPE", "(denoiser.config.channels, 8, 8)")
PHOTOGRAPHS = """
import torch
from pathlib import Path
try:
    from rcg.running.images import ImageFolder
except ImportError:
    from rcg.data import ImageFolder

read = ImageFolder(FOLDER, 128, train=False)
sizes = [file.stat().st_size for file in sorted(Path(FOLDER).glob("*/*"))]
given = [torch.tensor(sizes)]
work = lambda: [sum(read[k][0].double().mean().item() for k in range(len(read)))]
"""
FRECHET = """
import torch
from rcg.metrics import frechet_distance, gaussian

generator = torch.Generator().manual_seed(0)
real, fake = torch.randn(2, 5000, 2048, generator=generator, dtype=torch.float64)
fake = 1.1 * fake + 0.1
given = [real, fake]
work = lambda: [frechet_distance(gaussian(real), gaussian(fake))]
"""
PRECISION = """
import torch
from rcg.metrics import precision_recall

generator = torch.Generator().manual_seed(0)
real, fake = torch.randn(2, 5000, 2048, generator=generator)
fake = 1.01 * fake
given = [real, fake]
work = lambda: precision_recall(real, fake)
"""
PIECES = {  # code that defines tensors `given`, and `work`, which gives numbers
    "robust step, trained weights": f"TRAINED = True\n{ROBUST_STEP}",
    "robust step, random weights": f"TRAINED = False\n{ROBUST_STEP}",
    "guided sampling": SAMPLING,
    "photographs": PHOTOGRAPHS,
    "Fréchet distance": FRECHET,
    "precision and recall": PRECISION,
}
STARTING = {  # timed once, from the start
    "import rcg.attack": "import rcg.attack",
    "import rcg.guidance": "import rcg.guidance",
    "rcg.jobs --help": """
import contextlib, os, runpy, sys
sys.argv = ["jobs", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(open(os.devnull, "w")):
    runpy.run_module("rcg.jobs", run_name="__main__")
""",
}
TIMED = """
import hashlib, json, time
digest = hashlib.sha256()
for x in given:
    digest.update(x.detach().contiguous().numpy().tobytes())
work()
start, clock = time.process_time(), time.perf_counter()
values = work()
took = time.process_time() - start, time.perf_counter() - clock
print(json.dumps([*took, [float(v) for v in values], digest.hexdigest()]))
"""
STARTED = """
import json, time
clock = time.perf_counter()
{}
print(json.dumps([time.process_time(), time.perf_counter() - clock, [], ""]))
"""


def photographs(folder: Path, count: int = 60) -> Path:
    "A folder of one class with large JPEGs."
    (folder / "one").mkdir(parents=True)
    shots = load_sample_images().images
    for k in range(count):
        picture = Image.fromarray(np.roll(shots[k % 2], 7 * k, 1))
        picture.save(folder / "one" / f"{k:03d}.jpg", quality=90)
    return folder


def git(*arguments: str) -> bytes:
    return subprocess.check_output(["git", "-C", str(ROOT), *arguments])


def checkout(commit: str, folder: Path) -> str:
    "Unpack the package as it was, and return the commit's short name."
    found = git("rev-parse", "--short", "--verify", f"{commit}^{{commit}}")
    packed = git("archive", "--format=zip", commit, "rcg")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(folder)
    return found.decode().strip()


def once(code: str, folder: Path) -> tuple[float, float, list[float], str]:
    "Processor seconds, seconds, numbers and inputs of a piece in a fresh process."
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    result = subprocess.check_output(command, env=environment, cwd=folder, text=True)
    return json.loads(result.splitlines()[-1])


def codes(folder: Path, chosen: str) -> dict[str, str]:
    "What is run, by name."
    given = f"FOLDER, WEIGHTS = {str(folder)!r}, {str(shipped('cifar10-robust'))!r}\n"
    pieces = {name: given + code + TIMED for name, code in PIECES.items()}
    pieces |= {name: STARTED.format(code) for name, code in STARTING.items()}
    return {name: code for name, code in pieces.items() if chosen in name}


def apart(numbers: list[float], others: list[float]) -> float:
    "Largest relative difference."
    size = np.maximum(np.abs(numbers), 1e-9)
    return float(max(np.abs(np.subtract(others, numbers)) / size, default=0))


def in_turn(what: str, code: str, repeat: int, versions: dict) -> list[dict]:
    "A row for each version. Raises `ValueError` if they do not get the same inputs."
    rows, first = [], None
    for name, (commit, folder) in versions.items():
        spent, seconds, values, inputs = once(code, folder)
        first = first or (values, inputs)
        if inputs != first[1]:
            raise ValueError(f"{what}: the inputs of {commit} are others, to the bit")
        row = {"what": what, "version": name, "commit": commit, "repeat": repeat + 1}
        row |= {"threads": torch.get_num_threads(), "cpu_seconds": spent}
        rows.append(row | {"seconds": seconds, "apart": apart(first[0], values)})
    return rows


def compare(commits: dict[str, str], chosen: str, repeats: int, file: Path):
    "Run every piece in turns, and write each round down as soon as it is there."
    with TemporaryDirectory() as scratch:
        folders = {name: Path(scratch, name) for name in commits}
        versions = {k: (checkout(commits[k], f), f) for k, f in folders.items()}
        work = codes(photographs(Path(scratch, "pictures")), chosen)
        known = read_table(file) if file.exists() else []
        rows = [row for row in known if row["what"] not in work]
        sitting = {"sitting": time.strftime("%Y-%m-%d %H:%M")}
        for what, repeat in tqdm([(w, r) for w in work for r in range(repeats)]):
            turn = in_turn(what, work[what], repeat, versions)
            rows += [row | sitting for row in turn]
            write_table(file, rows)
    return [row for row in rows if row["what"] in work]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", help="the earlier commit")
    parser.add_argument("after", nargs="?", default="HEAD", help="the later one")
    parser.add_argument("--only", default="", help="pieces whose name holds this")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", default="results/benchmarks", help="folder")
    given = parser.parse_args()
    commits = {k: getattr(given, k) for k in ("before", "after")}
    file = run_path(given.results) / "versions.csv"
    rows = compare(commits, given.only, given.repeats, file)
    for what in dict.fromkeys(row["what"] for row in rows):
        own = [row for row in rows if row["what"] == what]
        seconds = {k: [] for k in commits}
        for row in own:
            seconds[row["version"]].append(row["cpu_seconds"])
        ratio = np.divide(seconds["after"], seconds["before"])
        spread = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
        most = max(row["apart"] for row in own)
        print(f"{what}: {spread} of the time before; results within {most:.1e}")


if __name__ == "__main__":
    main()

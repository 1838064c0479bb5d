"""Jobs on several processes, killed ones, and the notebooks that run them on a folder of photographs."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import yaml
from conftest import ROOT
from PIL import Image

from rcg.running.files import load_json, read_table
from rcg.running.images import center_crop, load_images
from rcg.running.jobs import SamplingJob, TrainingJob, launch, pack, train_job
from rcg.training import load_tensors


def training(folder: Path, **settings) -> TrainingJob:
    defaults = dict(
        preset="digits",
        steps=12,
        schedule=20,
        save_every=4,
        batch_size=32,
        validate_every=6,
        validation_images=30,
        workers=0,
    )
    return TrainingJob(
        "digits", str(folder), validation="digits", **defaults | settings
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    "A folder with a denoiser and a classifier, hardly trained."
    folder = tmp_path_factory.mktemp("weights")
    for network in ("denoiser", "robust"):
        train_job(training(folder / network, network=network, steps=8))
    return folder


def sampling(weights: Path, folder: Path, **settings) -> SamplingJob:
    files = [
        str(weights / kind / "model.safetensors") for kind in ("denoiser", "robust")
    ]
    return SamplingJob(
        str(folder),
        *files,
        **dict(preset="digits", images=21, batch_size=4, scale=1.5) | settings,
    )


def test_training_with_the_launcher_matches_one_process(tmp_path, capfd):
    one = train_job(training(tmp_path / "one"))
    launch("train", training(tmp_path / "two", steps=8), processes=2)  # stops early ...
    train_job(training(tmp_path / "two"))  # ... and one process goes on
    for a, b in zip(
        *(read_table(tmp_path / k / "history.csv") for k in ("one", "two")), strict=True
    ):
        assert list(b.values()) == pytest.approx(list(a.values()), rel=2e-3, abs=1e-4)
    a, b = (
        {(r["step"], r["kind"]): r for r in read_table(tmp_path / k / "validation.csv")}
        for k in ("one", "two")
    )
    assert set(b) - set(a) == {(8, "clean"), (8, "attacked")}  # where it had stopped
    for key in a:  # one of the 30 images, about 3 in a bin, may fall on the other side
        assert list(b[key].values())[2:] == pytest.approx(
            list(a[key].values())[2:], abs=0.034
        )
    a, b = (load_tensors(tmp_path / k / "model.safetensors")[0] for k in ("one", "two"))
    assert all(a[k].allclose(b[k], rtol=1e-2, atol=1e-4) for k in a)
    assert one.step == 12


def test_arrays_of_another_size_are_refused(tmp_path):
    np.savez(tmp_path / "large.npz", np.zeros((10, 9, 9, 1), np.uint8), np.arange(10))
    job = TrainingJob(
        str(tmp_path / "large.npz"), str(tmp_path / "run"), preset="digits", workers=0
    )
    with pytest.raises(
        ValueError, match=r"\(1, 9, 9\), but the network takes \(1, 8, 8\)"
    ):
        train_job(job)


def test_any_number_of_processes_draws_the_same_images(weights, tmp_path):
    one, two = sampling(weights, tmp_path / "one"), sampling(weights, tmp_path / "two")
    launch("sample", one)
    launch("sample", replace(two, images=9), processes=2)
    launch("sample", two, processes=2)  # more images later: only the new ones are drawn
    a, b = load_images(pack(one)), load_images(pack(two))
    assert len(a.images) == 21 and (a.images.int() - b.images.int()).abs().max() <= 1
    assert a.labels.tolist() == b.labels.tolist() == [i % 10 for i in range(21)]


def test_a_failing_process_is_reported(weights, tmp_path, capfd):
    with pytest.raises(RuntimeError, match="failed on 2 processes.*its output above"):
        launch("sample", sampling(weights, tmp_path / "out", labels=[12]), processes=2)
    assert "labels must be among 0 to 9" in "".join(capfd.readouterr())


def test_one_failing_process_ends_the_job(weights, tmp_path, capfd):
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "images" / "1").write_text(
        "in the way"
    )  # of the second process, which draws the odd labels
    with pytest.raises(RuntimeError, match="failed on 2 processes"):
        launch("sample", sampling(weights, tmp_path / "out", images=4), processes=2)
    assert "images/1 could not be made" in "".join(capfd.readouterr())


def test_killed_sampling_goes_on(weights, tmp_path):
    job = sampling(weights, tmp_path / "out", images=400, steps=50, batch_size=8)
    settings = tmp_path / "job.yaml"
    settings.write_text(yaml.safe_dump(asdict(job)))
    command = [
        sys.executable,
        "-m",
        "rcg.jobs",
        "sample",
        str(settings),
        "-p",
        "images",
    ]
    drawn = lambda: sorted((tmp_path / "out" / "images").glob("*/*.png"))
    killed = subprocess.Popen([*command, "400"])
    while killed.poll() is None and len(drawn()) < 16:
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it ended before it could be killed"
    before = {file: file.stat().st_mtime_ns for file in drawn()}
    assert 16 <= len(before) < 400
    count = len(before) + 4
    assert subprocess.run([*command, str(count)]).returncode == 0
    assert len(load_images(pack(replace(job, images=count))).images) == count
    assert all(file.stat().st_mtime_ns == then for file, then in before.items())


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    "Crops of the two photographs that come with scikit-learn, and some files as people have them."
    from sklearn.datasets import load_sample_image

    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for name in ("china", "flower"):
        (root / name).mkdir()
        picture = Image.fromarray(load_sample_image(f"{name}.jpg"))
        for k in range(12):
            left, top = rng.integers(640 - 250), rng.integers(427 - 250)
            center_crop(picture.crop((left, top, left + 250, top + 250)), 160).save(
                root / name / f"{k:02d}.jpg"
            )
    Image.fromarray(load_sample_image("china.jpg")).convert("CMYK").save(
        root / "china" / "print.jpg"
    )
    (root / "china" / "cut.jpg").write_bytes(
        (root / "china" / "00.jpg").read_bytes()[:900]
    )
    (root / "flower" / "readme.txt").write_text("two photographs")
    return root


def execute(name: str, out: Path, parameters: dict) -> str:
    "Run a notebook; returns everything it prints."
    papermill.execute_notebook(
        ROOT / "nbs" / name, out, parameters, cwd=ROOT / "nbs", progress_bar=False
    )
    outputs = [
        o for c in nbformat.read(out, as_version=4).cells for o in c.get("outputs", [])
    ]
    shown = [
        o.get("text", "") + o.get("data", {}).get("text/markdown", "") for o in outputs
    ]
    return "\n".join(shown)


def test_notebooks_on_a_folder_at_128_pixels(photographs, tmp_path):
    "Train, sample and evaluate with the ImageNet preset, small only by its parameters."
    size = dict(
        classes=2, width=32, steps=2, schedule=2, batch_size=2, trial_steps=1, workers=0
    )
    base = (
        dict(
            data=str(photographs),
            validation=str(photographs),
            validation_images=4,
            validate_every=1,
        )
        | size
    )
    with pytest.raises(
        papermill.PapermillExecutionError,
        match="1 images of .* cannot be read: china/cut.jpg",
    ):
        execute(
            "train_imagenet.ipynb",
            tmp_path / "a.ipynb",
            base | dict(run_dir=str(tmp_path / "stop")),
        )
    base |= dict(bad_images="skip", eps=1.0, step_size=None, save_every=1)
    report = execute(
        "train_imagenet.ipynb",
        tmp_path / "robust.ipynb",
        base | dict(run_dir=str(tmp_path / "robust")),
    )
    for said in (
        "26 images, 2 classes",
        "ignored, not images by name: 1 (flower/readme.txt)",
        "china/cut.jpg",
        "images per second",
    ):
        assert said in report
    without_validation = dict(
        network="denoiser", validation="", run_dir=str(tmp_path / "denoiser")
    )
    execute(
        "train_imagenet.ipynb", tmp_path / "denoiser.ipynb", base | without_validation
    )

    networks = {
        k: str(tmp_path / k / "model.safetensors") for k in ("denoiser", "robust")
    }
    drawing = dict(
        denoiser=networks["denoiser"],
        classes=2,
        denoiser_width=32,
        classifier_width=32,
        images=6,
        dtype="float32",
    )
    drawing |= dict(steps=2, sampler="ddim", batch_size=6)
    for method, classifier in (("unguided", ""), ("robust", networks["robust"])):
        settings = drawing | dict(
            classifier=classifier, run_dir=str(tmp_path / "samples" / method)
        )
        execute("sample.ipynb", tmp_path / "sample.ipynb", settings)
    assert load_images(
        tmp_path / "samples" / "robust" / "samples.npz"
    ).images.shape == (6, 3, 128, 128)

    (tmp_path / "samples" / "vanilla").mkdir()  # interrupted before it drew anything
    methods = (("unguided", 0.0), ("vanilla", 0.5), ("robust", 1.0))
    sets = [
        dict(method=m, scale=s, path=str(tmp_path / "samples" / m / "samples.npz"))
        for m, s in methods
    ]
    (tmp_path / "real").mkdir()
    for k, file in enumerate(sorted(photographs.glob("*/[0-9]*.jpg"))):
        center_crop(Image.open(file), 128).save(tmp_path / "real" / f"{k}.png")
    settings = dict(samples=sets, reference=str(tmp_path / "real"))
    settings |= dict(
        results=str(tmp_path / "results"),
        extractor="pixels",
        draws=5,
        build_reference=str(tmp_path / "ref.npz"),
    )
    tables = execute("evaluate.ipynb", tmp_path / "evaluate.ipynb", settings)
    stored = load_json(tmp_path / "results" / "robust-1.json")
    assert (
        stored["images"] == 6
        and stored["distance"][1] <= stored["distance"][0] <= stored["distance"][2]
    )
    assert (
        "not there yet" in tables
        and "| vanilla | 0.5 | not measured" in tables
        and "| 2.85 | 0.82 | 0.56 |" in tables
    )
    with pytest.raises(
        papermill.PapermillExecutionError, match="measured otherwise .k was 3, is 2"
    ):
        execute(
            "evaluate.ipynb", tmp_path / "evaluate.ipynb", settings | dict(neighbours=2)
        )
    assert "0 of 3 sets to measure" in execute(
        "evaluate.ipynb", tmp_path / "evaluate.ipynb", settings
    )


def test_benchmarks(tmp_path):
    small = dict(
        preset="digits",
        batch_size=8,
        training_steps=2,
        sample_batch=2,
        sampling_steps=2,
        modes=["float32", "bf16"],
    )
    tables = execute(
        "experiments/benchmarks.ipynb",
        tmp_path / "out.ipynb",
        small | dict(results=str(tmp_path / "results")),
    )
    assert "| bf16 | 8 |" in tables
    rows = [
        row
        for file in (tmp_path / "results").glob("*-training.csv")
        for row in read_table(file)
    ]
    assert [row["mode"] for row in rows] == ["float32", "bf16"] and rows[0][
        "ratio"
    ] == 1

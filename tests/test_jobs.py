"""Jobs on several processes, killed and interrupted, and the notebooks for them."""

import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, execute, parameters
from PIL import Image

from rcg.running import checkpoints, jobs
from rcg.running.commands import parse
from rcg.running.files import load_json, read_table, write_table
from rcg.running.images import center_crop, load_images
from rcg.running.jobs import (
    SamplingJob,
    TrainingJob,
    check,
    launch,
    pack,
    sample_job,
    train_job,
)
from rcg.running.presets import preset
from rcg.running.runs import owned
from rcg.solvers import named_solver
from rcg.training import load_tensors
from rcg.unet import UNet


def training(folder: Path, **settings) -> TrainingJob:
    defaults = dict(preset="digits", steps=12, schedule=20, save_every=4, batch_size=32)
    defaults |= dict(validate_every=6, validation_images=30, workers=0)
    return TrainingJob(run_dir=str(folder), **defaults | settings)


def sampling(folder: Path, **settings) -> SamplingJob:
    networks = dict(denoiser="digits-denoiser", classifier="digits-robust")
    defaults = dict(preset="digits", images=21, batch_size=4, scale=1.5) | networks
    return SamplingJob(str(folder), **defaults | settings)


def start(command: str, job, **streams) -> subprocess.Popen:
    "The job in a process of its own."
    settings = Path(job.run_dir).with_suffix(".yaml")
    settings.write_text(yaml.safe_dump(asdict(job)))
    words = [sys.executable, "-m", "rcg.jobs", command, "--config", str(settings)]
    return subprocess.Popen(words, text=True, **streams)


def until(condition, process: subprocess.Popen):
    "Wait for something that a process does."
    while not condition():
        assert process.poll() is None, "it ended before"
        time.sleep(0.02)


def steps_done(folder: Path) -> int:
    file = folder / "checkpoint.safetensors"
    return load_tensors(file)[1]["step"] if file.exists() else 0


def effective(name: str, weight: torch.Tensor) -> torch.Tensor:
    """A weight without the biases of attention keys.

    These cancel in the softmax, so their gradient is nothing but rounding error, which
    AdamW scales to full steps.
    """
    if name.endswith("qkv_proj.bias"):  # queries, keys, values
        return torch.cat(weight.chunk(3)[::2])
    if name.endswith("qkv.bias"):  # the same for each head of 32 channels
        return weight.view(-1, 3, 32)[:, ::2]
    return weight


def test_training_with_the_launcher_matches_one_process(tmp_path, capfd):
    one = train_job(training(tmp_path / "one"))
    launch("train", training(tmp_path / "two", steps=8, processes=2))  # stops early ...
    train_job(training(tmp_path / "two"))  # ... and one process goes on
    histories = (read_table(tmp_path / k / "history.csv") for k in ("one", "two"))
    for a, b in zip(*histories, strict=True):
        assert list(b.values()) == pytest.approx(list(a.values()), rel=2e-3, abs=1e-4)
    a, b = (
        {(r["step"], r["kind"]): r for r in read_table(tmp_path / k / "validation.csv")}
        for k in ("one", "two")
    )
    assert set(b) - set(a) == {(8, "clean"), (8, "attacked")}  # where it had stopped
    for key in a:  # one of the 30 images, about 3 in a bin, may fall on the other side
        ours, theirs = list(b[key].values())[2:], list(a[key].values())[2:]
        assert ours == pytest.approx(theirs, abs=0.034)
    a, b = (load_tensors(tmp_path / k / "model.safetensors")[0] for k in ("one", "two"))
    for name in a:
        ours, theirs = effective(name, a[name]), effective(name, b[name])
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4, msg=name)
    assert one.step == 12


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stores_the_state_and_says_how_to_go_on(tmp_path, kind):
    job = training(tmp_path / "run", steps=400, schedule=400, validation="")
    job = replace(job, batch_size=8, network="vanilla")
    first = start("train", job, stderr=subprocess.PIPE)
    until(lambda: steps_done(tmp_path / "run"), first)
    first.send_signal(kind)
    said = first.communicate()[1]
    step = int(re.search(r"step (\d+) is saved", said)[1])
    assert first.returncode == 130 and steps_done(tmp_path / "run") == step >= 4
    state = train_job(replace(job, steps=step + 3))
    assert state.start == step and state.step == step + 3


def test_a_directory_has_one_owner(tmp_path):
    job = training(tmp_path / "run", steps=400, schedule=400, validation="")
    job = replace(job, batch_size=8, save_every=1)
    first = start("train", job)
    until(lambda: steps_done(tmp_path / "run"), first)
    with pytest.raises(RuntimeError, match="another process is working in"):
        train_job(replace(job, eps=0.5))
    first.kill()  # and then it belongs to nobody
    first.wait()
    with owned(tmp_path / "run", patience=0):
        pass


def test_lost_weights_of_a_finished_run_are_restored(tmp_path):
    job = training(tmp_path / "run", steps=2, validation="")
    train_job(job)
    weights = tmp_path / "run" / "model.safetensors"
    before, said = load_tensors(weights)
    weights.unlink()
    train_job(job)
    after, says = load_tensors(weights)
    assert before.keys() == after.keys() and said == says
    assert all(before[k].equal(after[k]) for k in before)


def test_a_run_belongs_to_its_data(tmp_path):
    rng, file = np.random.default_rng(0), tmp_path / "images.npz"
    draw = lambda side: rng.integers(0, 255, (20, side, side, 1), np.uint8)
    labels = np.arange(20) % 10
    job = training(tmp_path / "run", data=str(file), steps=2)
    np.savez(file, draw(9), labels)
    with pytest.raises(ValueError, match=r"\(1, 9, 9\), but \(1, 8, 8\) are expected"):
        train_job(job)
    np.savez(file, draw(8), labels)
    train_job(job)
    np.savez(file, draw(8), labels)  # as many others
    with pytest.raises(ValueError, match="other settings .data was"):
        train_job(replace(job, steps=4))


def test_a_wrong_setting_stores_nothing(tmp_path):
    for wrong in (
        lambda: sample_job(sampling(tmp_path / "run", sampler="DDIM")),
        lambda: sample_job(sampling(tmp_path / "run", scale=float("nan"))),
        lambda: sample_job(sampling(tmp_path / "run", classifier="nowhere")),
        lambda: sample_job(sampling(tmp_path / "run", labels=[12])),
        lambda: train_job(training(tmp_path / "run", eps=-1)),
        lambda: train_job(training(tmp_path / "run", save_every=0)),
        lambda: train_job(training(tmp_path / "run", width=33)),
        lambda: train_job(training(tmp_path / "run", processes=5)),
    ):
        with pytest.raises((ValueError, OSError)):
            wrong()
        assert not list((tmp_path / "run").glob("*.json"))
    sample_job(sampling(tmp_path / "run", images=1, steps=2))  # and now the right one


def test_any_number_of_processes_draws_the_same_images(tmp_path):
    one, two = sampling(tmp_path / "one"), sampling(tmp_path / "two", processes=2)
    sample_job(one)
    sample_job(replace(two, images=9, processes=1))
    launch("sample", two)  # more images later: only the new ones are drawn
    a, b = load_images(pack(one)), load_images(pack(two))
    assert len(a.images) == 21 and (a.images.int() - b.images.int()).abs().max() <= 1
    assert a.labels.tolist() == b.labels.tolist() == [i % 10 for i in range(21)]


def test_one_failing_process_ends_the_job(tmp_path, capfd):
    images = tmp_path / "out" / "images"
    images.mkdir(parents=True)
    # Of the second process, which draws the odd labels.
    (images / "1").write_text("in the way")
    with pytest.raises(RuntimeError, match="failed on 2 processes.*its output above"):
        launch("sample", sampling(tmp_path / "out", images=4, processes=2))
    assert "images/1 could not be made" in "".join(capfd.readouterr())


def test_killed_sampling_goes_on(tmp_path):
    job = sampling(tmp_path / "out", images=400, steps=50, batch_size=8)
    drawn = lambda: sorted((tmp_path / "out" / "images").glob("*/*.png"))
    killed = start("sample", job)
    until(lambda: len(drawn()) >= 16, killed)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    before = {file: file.stat().st_mtime_ns for file in drawn()}
    assert 16 <= len(before) < 400
    more = replace(job, images=len(before) + 4)
    sample_job(more)
    assert len(load_images(pack(more)).images) == len(before) + 4
    assert all(file.stat().st_mtime_ns == then for file, then in before.items())


def test_a_damaged_image_is_drawn_again(tmp_path):
    job = sampling(tmp_path / "out", images=2, steps=2)
    first, second = sample_job(job)
    whole = np.array(Image.open(first))
    first.write_bytes(first.read_bytes()[:50])
    with pytest.raises(FileNotFoundError, match="1 of 2 images are not there yet, or"):
        pack(job)
    sample_job(job)
    assert np.abs(np.array(Image.open(first)) - whole.astype(int)).max() <= 1
    assert Image.open(second).text["seed"] == "1"


def test_only_a_jobs_own_images_are_packed(tmp_path):
    "Other settings, other networks, and pictures that came from elsewhere."
    job = SamplingJob(
        run_dir=str(tmp_path / "run"),
        denoiser="digits-denoiser",
        classifier="digits-robust",
        preset="digits",
        images=2,
        steps=2,
        sampler="ddim",
    )
    first, second = sample_job(job)
    with pytest.raises(FileNotFoundError, match="2 images are not .* of another job"):
        pack(replace(job, scale=7.0))
    for change, said in (
        (dict(classifier="digits-vanilla"), "weights.classifier was"),
        (dict(guide_to=500), "guidance was"),
        (dict(dtype="bfloat16"), "dtype was float32, is bfloat16"),
    ):
        with pytest.raises(ValueError, match=f"a run with other settings .{said}"):
            pack(replace(job, **change))
    drawn = first.read_bytes()
    for mode, size, kind in (("L", 8, "PNG"), ("RGB", 8, "JPEG"), ("L", 3, "PNG")):
        Image.new(mode, (size, size)).save(first, kind)
        with pytest.raises(FileNotFoundError, match="1 of 2 images are not there"):
            pack(job)
        assert sample_job(job) == [first, second]
        assert first.read_bytes() == drawn and len(load_images(pack(job)).images) == 2


def test_command_line(tmp_path, capfd):
    file = tmp_path / "settings.yaml"
    file.write_text("preset: digits\neps: 1e-1\n")
    _, job = parse(["train", "--config", str(file), "--network", "vanilla"])
    assert job == TrainingJob(preset="digits", eps=0.1, network="vanilla")
    command = [sys.executable, "-X", "importtime", "-m", "rcg.jobs"]
    for words in (["--help"], ["train", "--help"], ["train", "--epsilon", "1"]):
        done = subprocess.run([*command, *words], capture_output=True, text=True)
        assert not re.search(r"\| +torch$", done.stderr, re.M), words
    assert "no setting 'epsilon': did you mean eps" in done.stderr
    assert done.returncode == 1


def test_notebooks_and_jobs_have_the_same_settings():
    "What a notebook, a YAML file and a command line leave out must mean the same."
    assert TrainingJob(**parameters("train_imagenet.ipynb")) == TrainingJob()
    job = SamplingJob(**parameters("sample.ipynb"))
    assert job == SamplingJob(job.run_dir, job.denoiser, job.classifier)


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "imagenet128"])
def test_an_empty_job_is_the_presets(name):
    p = preset(name)
    plan = TrainingJob(preset=name).resolve()
    assert (plan.attack, plan.network) == (p.attack, p.classifier)
    workers = plan.training.workers
    assert plan.training == replace(p.classifier_training, workers=workers)
    assert (plan.train.name, plan.held_out.name) == (p.data, p.held_out)
    assert TrainingJob(preset=name, network="denoiser").resolve().network == p.unet
    drawn = SamplingJob("runs/x", "denoiser", preset=name).resolve()
    assert len(drawn.tasks) == p.sampling.images
    assert drawn.solver == named_solver(p.sampling.sampler, p.sampling.steps)


def test_the_threat_is_the_presets_unless_it_is_given():
    assert TrainingJob(threat="Linf").resolve().attack.threat.eps == 0.5
    assert type(TrainingJob(eps=0.1).resolve().attack.threat).__name__ == "L2"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    "Crops of scikit-learn's two photographs, and some files as people have them."
    from sklearn.datasets import load_sample_image

    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for name in ("china", "flower"):
        (root / name).mkdir()
        picture = Image.fromarray(load_sample_image(f"{name}.jpg"))
        for k in range(12):
            left, top = rng.integers(640 - 250), rng.integers(427 - 250)
            crop = picture.crop((left, top, left + 250, top + 250))
            center_crop(crop, 160).save(root / name / f"{k:02d}.jpg")
    china = Image.fromarray(load_sample_image("china.jpg"))
    china.convert("CMYK").save(root / "china" / "print.jpg")
    half = (root / "china" / "00.jpg").read_bytes()[:900]
    (root / "china" / "cut.jpg").write_bytes(half)
    (root / "flower" / "readme.txt").write_text("two photographs")
    return root


@pytest.fixture(scope="module")
def robust(photographs, tmp_path_factory) -> tuple[Path, str]:
    "A robust classifier of the ImageNet preset, hardly trained, and what was said."
    folder = tmp_path_factory.mktemp("trained")
    size = dict(classes=2, width=32, steps=2, schedule=2, batch_size=2, trial_steps=1)
    data = dict(data=str(photographs), validation=str(photographs), workers=0)
    how = dict(validation_images=2, validate_every=2, bad_images="skip", eps=1.0)
    place = dict(run_dir=str(folder / "robust"), save_every=1, attack_steps=2)
    settings = size | data | how | place
    with pytest.raises(OSError, match="1 images of .* cannot be read: china/cut.jpg"):
        job = TrainingJob(**settings | {"bad_images": "stop"})
        check(replace(job, run_dir=str(folder / "stop")))
    said = execute("train_imagenet.ipynb", **settings)
    job = TrainingJob(**settings)
    denoiser = dict(network="denoiser", run_dir=str(folder / "denoiser"))
    check(replace(job, **denoiser))
    train_job(replace(job, **denoiser))
    return folder, said


@pytest.mark.xdist_group("photographs")
def test_training_notebook_on_a_folder(robust):
    folder, said = robust
    for words in (
        "26 images, 2 classes",
        "ignored, not images by name: 1 (flower/readme.txt)",
        "china/cut.jpg",
        "images per second",
    ):
        assert words in said
    assert load_tensors(folder / "robust" / "model.safetensors")[1]["step"] == 2


@pytest.mark.xdist_group("photographs")
def test_sampling_and_evaluating_notebooks(robust, photographs, tmp_path):
    "Images of one's own classes, measured: a row for every set that has been drawn."
    networks, _ = robust
    files = {k: str(networks / k / "model.safetensors") for k in ("denoiser", "robust")}
    small = dict(denoiser=files["denoiser"], classes=2, images=6, batch_size=6)
    small |= dict(denoiser_width=32, classifier_width=32, steps=2, sampler="ddim")
    place = {m: tmp_path / m for m in ("unguided", "robust", "vanilla")}
    settings = dict(classifier=files["robust"], run_dir=str(place["robust"])) | small
    execute("sample.ipynb", **settings)
    unguided = SamplingJob(str(place["unguided"]), **small)
    sample_job(unguided)
    pack(unguided)
    drawn = load_images(place["robust"] / "samples.npz")
    assert drawn.images.shape == (6, 3, 128, 128)

    place["vanilla"].mkdir()  # interrupted before it drew anything
    (tmp_path / "real").mkdir()
    for k, file in enumerate(sorted(photographs.glob("*/[0-9]*.jpg"))):
        center_crop(Image.open(file), 128).save(tmp_path / "real" / f"{k}.png")
    scales = {"unguided": 0.0, "vanilla": 0.5, "robust": 2.0}
    sets = [
        dict(method=m, scale=s, path=str(place[m] / "samples.npz"))
        for m, s in scales.items()
    ]
    settings = dict(samples=sets, reference=str(tmp_path / "real"), draws=5)
    settings |= dict(results=str(tmp_path / "results"), extractor="pixels")
    settings |= dict(build_reference=str(tmp_path / "reference.npz"))
    tables = execute("evaluate.ipynb", **settings)
    assert "not there yet" in tables and "| robust | 2 | 6 |" in tables
    assert "paper" not in tables, "these are no images of the paper"
    stored = load_json(tmp_path / "results" / "robust-2.json")
    assert (stored["images"], stored["real"]) == (6, 24)
    assert (tmp_path / "reference.npz").exists()


def test_a_misspelt_parameter_stops_a_notebook_before_it_works(tmp_path):
    settings = dict(preset="digits", run_dir=str(tmp_path / "run"), epsilon=0.5)
    with pytest.raises(ValueError, match="'epsilon'.*mean eps"):
        execute("train_imagenet.ipynb", **settings)
    assert not (tmp_path / "run").exists()


def test_benchmarks(tmp_path):
    small = dict(preset="digits", batch_size=8, training_steps=2, sample_batch=2)
    small |= dict(small_batch=4, small_steps=5, repeats=1, pictures=4, points=60)
    small |= dict(width=16, sampling_steps=2, modes=["float32"], tried=False)
    small |= dict(modules=["json"], commands=["jobs"], compared="--help")
    small |= dict(results=str(tmp_path))
    small |= dict(before="HEAD" if (ROOT / ".git").exists() else "")
    file = tmp_path / f"cpu-{torch.get_num_threads()}-threads-training.csv"
    columns = ["mode", "batch", "images_per_second", "seconds_per_step"]
    columns += ["peak_gigabytes", "ratio", "machine", "torch", "sitting"]
    write_table(file, [dict.fromkeys(columns, "earlier")])
    tables = execute("experiments/benchmarks.ipynb", **small)
    assert "| float32 | 8 |" in tables
    found = [r for file in tmp_path.glob("*-training.csv") for r in read_table(file)]
    assert {row["mode"] for row in found} == {"earlier", "float32"}
    if small["before"]:
        versions = read_table(tmp_path / "versions.csv")
        assert [row["version"] for row in versions] == ["before", "after"]


def test_more_images_than_can_be_listed_are_refused(tmp_path):
    with pytest.raises(ValueError, match="images is 100000000: draw 10000000 at most"):
        sampling(tmp_path, images=10**8).resolve()


def test_nothing_is_looked_up_after_a_job_is_resolved(tmp_path, monkeypatch):
    worse = dict(kind="autoguidance", weight=2.0, network="digits-denoiser")
    sampled = sampling(tmp_path / "drawn", terms=[worse]).resolve()
    trained = training(tmp_path / "run").resolve()
    for module in (jobs, checkpoints):
        monkeypatch.setattr(module, "preset", None)
    found = jobs.load_networks(sampled, "cpu")
    terms = ["classifier_guidance(digits-robust)", "autoguidance(digits-denoiser)"]
    assert [repr(part.term) for part in found.guidance.parts] == terms
    assert type(trained.build()).__name__ == "Classifier"
    assert len(trained.train.open()) > len(trained.held_out.open()) > 0


def test_held_out_images_are_opened_once(tmp_path, monkeypatch):
    opened, open_images = [], jobs.open_images
    said = lambda name, *how, **more: (
        opened.append(name) or open_images(name, *how, **more)
    )
    monkeypatch.setattr(jobs, "open_images", said)
    train_job(training(tmp_path / "run", steps=1, batch_size=2, network="vanilla"))
    assert opened == ["digits", "digits"]  # one part each


@pytest.mark.parametrize(
    "given, sizes", [(None, [4, 2, 2, 2, 2, 2]), (7, [7, 3, 3, 3, 1])]
)
def test_batches_are_as_large_as_memory_allows(tmp_path, monkeypatch, given, sizes):
    job, draw, seen = sampling(tmp_path / "a", images=10, steps=2), jobs.draw, []
    whole = [np.array(Image.open(file)) for file in sample_job(job)]

    def limited(plan, networks, tasks, *more):
        seen.append(len(tasks))
        if len(tasks) > 3:
            raise torch.OutOfMemoryError
        return draw(plan, networks, tasks, *more)

    monkeypatch.setattr(jobs, "draw", limited)
    monkeypatch.setitem(jobs._AT_ONCE, "cpu", 4 * 8 * 8)
    files = sample_job(replace(job, run_dir=str(tmp_path / "b"), batch_size=given))
    assert seen == sizes
    for file, image in zip(files, whole, strict=True):
        assert np.abs(np.array(Image.open(file)) - image.astype(int)).max() <= 1


@pytest.mark.parametrize(
    "kind, free, size", [("cpu", 2**40, 41), ("cuda", 2**40, 1337), ("mps", 2**26, 8)]
)
def test_batches_are_chosen_by_pixels_and_memory(monkeypatch, kind, free, size):
    unet = UNet(preset("mnist").unet)
    monkeypatch.setattr(jobs, "_free_memory", lambda device: free)
    assert jobs._batch_size(unet, torch.device(kind)) == size
    monkeypatch.setattr(jobs, "_free_memory", lambda device: 0)
    assert jobs._batch_size(unet, torch.device(kind)) == 1


def test_another_order_in_memory_draws_the_same_images(tmp_path):
    job = sampling(tmp_path / "a", images=4, steps=3)
    other = replace(job, run_dir=str(tmp_path / "b"), channels_last=True)
    weight = jobs.load_networks(other.resolve(), "cpu").unet.input_blocks[1][0]
    weight = next(p for p in weight.parameters() if p.ndim == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for one, two in zip(sample_job(job), sample_job(other), strict=True):
        one, two = (np.array(Image.open(file)).astype(int) for file in (one, two))
        assert np.abs(one - two).max() <= 1


def test_slow_bfloat16_is_said_once(tmp_path, monkeypatch):
    drawn = sampling(tmp_path / "a", images=1, steps=2, dtype="bfloat16")
    small = dict(steps=1, batch_size=2, validation="", network="vanilla", bf16=True)
    trained = training(tmp_path / "b", **small)
    for work in (lambda: sample_job(drawn), lambda: train_job(trained)):
        for supported, count in ((False, 1), (True, 0)):
            known = lambda: supported
            monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", known)
            jobs._warn_of_bf16.cache_clear()
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                work()
                work()
            said = [w for w in said if "no bfloat16 arithmetic" in str(w.message)]
            assert len(said) == count

"""A killed training ends like one that was not; a full disk loses nothing."""

import csv
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from rcg.training import load_tensors, save_tensors

TRAIN = textwrap.dedent(
    """
    import sys
    import torch
    from rcg.data import digits
    from rcg.diffusion import Diffusion
    from rcg.training import TrainingConfig, fit, train_denoiser
    from rcg.unet import UNet, UNetConfig

    torch.manual_seed(0)
    shape = dict(channels=1, width=32, multipliers=(1, 2), depth=1, attention=(4,))
    unet = UNet(UNetConfig(8, **shape, dropout=0.1))
    often = dict(ema_decay=0.9, save_every=5)
    config = TrainingConfig(steps=40, schedule=60, batch_size=16, **often)
    fit(train_denoiser(unet, Diffusion(), digits(), config, sys.argv[1]))
    """
)


def train(folder: Path):
    "In this process, where everything is imported already."
    with patch.object(sys, "argv", ["", str(folder)]):
        exec(TRAIN, {})


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(folder)], stderr=subprocess.PIPE
    )


def steps_done(folder: Path) -> int:
    file = folder / "checkpoint.safetensors"
    return load_tensors(file)[1]["step"] if file.exists() else 0


def test_killed_run_continues_to_the_same_numbers(tmp_path):
    train(tmp_path / "whole")
    killed = start(tmp_path / "killed")
    while killed.poll() is None and steps_done(tmp_path / "killed") < 10:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert 10 <= steps_done(tmp_path / "killed") < 40

    train(tmp_path / "killed")
    curves = [
        list(csv.DictReader(open(tmp_path / name / "history.csv")))
        for name in ("whole", "killed")
    ]
    assert len(curves[0]) == 40 and curves[0] == curves[1]
    for file in ("model.safetensors", "checkpoint.safetensors"):
        a, b = (load_tensors(tmp_path / name / file)[0] for name in ("whole", "killed"))
        assert a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)


def test_a_full_disk_keeps_the_previous_file(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_tensors(file, {"w": torch.arange(10)})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (100_000, limit[1])
    )  # as if only 100 kB were left
    try:
        with pytest.raises(
            OSError, match="could not be written, the previous version is kept"
        ):
            save_tensors(file, {"w": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert load_tensors(file)[0]["w"].equal(torch.arange(10))
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]

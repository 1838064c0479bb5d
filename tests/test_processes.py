"""Two processes do what one does."""

import io
import json
import subprocess
import sys
import textwrap
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

WORK = textwrap.dedent(
    """
    import json, sys
    import torch
    from accelerate import PartialState
    from rcg.attack import Attack, L2
    from rcg.classifier import Classifier, ClassifierConfig
    from rcg.data import digits
    from rcg.diffusion import Diffusion
    from rcg.training import TrainingConfig, train_classifier

    where = PartialState(cpu=True)
    torch.manual_seed(where.process_index)  # other weights in every process
    shape = dict(channels=1, width=32, multipliers=(1, 2), depth=1, attention=(4,))
    classifier = Classifier(ClassifierConfig(8, **shape, head_width=32))
    steps, often = int(sys.argv[2]), dict(ema_decay=0.5, save_every=2)
    config = TrainingConfig(steps=steps, lr=1e-3, batch_size=32, **often)
    common, attack = (classifier, Diffusion(), digits(), config), Attack(L2(0.5), 3)
    run = train_classifier(*common, attack, sys.argv[1])
    state = list(run)[-1]
    weight = classifier.out[2].c_proj.weight.detach()
    found = json.dumps([state.history, weight.flatten()[:50].tolist()])
    print("RESULT", where.process_index, found, flush=True)
    """
)


def results(printed: str) -> dict[int, list]:
    "History and some weights, by the number of the process."
    lines = [x for x in printed.splitlines() if x.startswith("RESULT")]
    rows = [line.split(" ", 2)[1:] for line in lines]
    return {int(rank): json.loads(text) for rank, text in rows}


def alone(folder: Path, steps: int) -> list:
    "By this process, where everything is imported already."
    words = patch.object(sys, "argv", ["", str(folder), str(steps)])
    with words, redirect_stdout(io.StringIO()) as printed:
        exec(WORK, {})
    return results(printed.getvalue())[0]


def test_training_on_two_processes_matches_one(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(WORK)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    one = alone(tmp_path / "one", 6)
    command = [*launch, str(tmp_path / "two"), "4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    two = results(done.stdout)
    assert two.keys() == {0, 1} and two[0] == two[1]  # the processes agree exactly
    history, weights = alone(tmp_path / "two", 6)  # what two began, one can finish
    assert len(history) == 6 and history[:4] == two[0][0]
    for ours, theirs in zip(history, one[0]):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    assert weights == pytest.approx(one[1], rel=1e-3, abs=1e-5)

"Checkpoints as people have them: wrapped, damaged, or no weights at all."

import subprocess
import sys
import warnings

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file

from rcg.classifier import Classifier
from rcg.running.checkpoints import (
    convert,
    load_classifier,
    main,
    read_weights,
    shipped,
)
from rcg.running.presets import preset
from rcg.training import save_tensors


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    "Of a classifier of digits."
    torch.manual_seed(0)
    return Classifier(preset("digits").classifier).state_dict()


def _prefixed(weights: dict, prefix: str) -> dict:
    return {f"{prefix}{k}": v for k, v in weights.items()}


def _inside(weights: dict) -> dict:
    "Only a part of the network was compiled."
    return {k.replace("out.", "out._orig_mod."): v for k, v in weights.items()}


WRAPPED = {
    "distributed": lambda w: _prefixed(w, "module."),
    "compiled": lambda w: _prefixed(w, "_orig_mod."),
    "both": lambda w: _prefixed(w, "module._orig_mod."),
    "a part compiled": _inside,
    "lightning": lambda w: {"epoch": 3, "state_dict": _prefixed(w, "model.")},
    "with an optimizer": lambda w: {"model": w, "optimizer": {"state": {}, "lr": 0.1}},
    "nested": lambda w: {"model": {"state_dict": w}},
    "averaged": lambda w: _prefixed(w, "module.") | {"n_averaged": torch.tensor(7)},
    "average first": lambda w: {
        "model": {k: v + 1 for k, v in w.items()},
        "ema": w,
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrapped_weights_are_taken_and_it_is_said(tmp_path, weights, kind):
    torch.save(WRAPPED[kind](weights), tmp_path / "a.pt")
    with pytest.warns(UserWarning, match="a.pt, .* taken"):
        model = load_classifier(tmp_path / "a.pt", "digits")
    assert all(v.equal(weights[k]) for k, v in model.state_dict().items())


def test_plain_weights_are_taken_without_a_word(tmp_path, weights):
    torch.save(weights, tmp_path / "a.pt")
    save_file(weights, tmp_path / "a.safetensors", {"format": "pt"})  # as others write
    for ending in ("pt", "safetensors"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = read_weights(tmp_path / f"a.{ending}")
        assert all(found[k].equal(v) for k, v in weights.items())


@pytest.mark.parametrize("old", [False, True])
def test_every_truncation_is_refused(tmp_path, weights, old):
    path = tmp_path / "a.pt"
    torch.save(weights, path, _use_new_zipfile_serialization=not old)
    whole = path.read_bytes()
    for keep in (0, 1, 2, 20, 300, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(OSError, match="fetch it again"):
            read_weights(path)


def test_flipped_bits_are_noticed(tmp_path, weights):
    torch.save(weights, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "a.safetensors")
    for ending in ("pt", "safetensors"):
        path = tmp_path / f"a.{ending}"
        whole = path.read_bytes()
        for at in (len(whole) // 3, len(whole) // 2, len(whole) - 30_000):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :])
            with pytest.raises(OSError, match="checksum"):
                read_weights(path)


def test_a_recorded_checksum_is_compared(tmp_path, weights):
    save_tensors(tmp_path / "a.safetensors", weights)
    (tmp_path / "a.safetensors.sha256").write_text("0" * 64)
    with pytest.raises(OSError, match="instead of 0000"):
        read_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, weights, value):
    name = "out.2.c_proj.bias"
    broken = weights | {name: torch.full_like(weights[name], value)}
    save_tensors(tmp_path / "a.safetensors", broken)
    with pytest.raises(ValueError, match=f"not finite numbers, in {name}"):
        load_classifier(tmp_path / "a.safetensors", "digits")


@pytest.mark.parametrize(
    "content, said",
    [
        ({"a": torch.zeros(2, dtype=torch.int8)}, "a in .* is torch.int8, not floats"),
        ({"config": {"width": 3}}, "something other than a state dict"),
        ([torch.zeros(2)], "something other than a state dict"),
        ({}, "something other than a state dict"),
        ({1: torch.zeros(2)}, "something other than a state dict"),
        ({"state_dict": 7}, "something other than a state dict"),
        ({"a": print}, "could execute code: get a plain state dict"),
    ],
)
def test_what_is_no_weights_is_said(tmp_path, content, said):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(OSError, match=said) as found:
        read_weights(tmp_path / "a.pt")
    for advice in ("weights_only", "pickle", "safe_globals"):
        assert advice not in str(found.value)


def test_command_line(tmp_path, weights, capsys):
    torch.save(weights, tmp_path / "a.pt")
    source, target = str(tmp_path / "a.pt"), tmp_path / "half.safetensors"
    main(["convert", source, str(target), "--dtype", "bfloat16"])
    assert {v.dtype for v in read_weights(target).values()} == {torch.bfloat16}
    with pytest.raises(SystemExit, match="must end in .safetensors"):
        main(["convert", source, str(tmp_path / "b.pt")])
    for wrong in (["convert", source], ["download", "imagenet512"], ["fly"]):
        with pytest.raises(SystemExit) as stopped:
            main(wrong)
        assert stopped.value.code == 2
    assert "imagenet512" in capsys.readouterr().err


def test_the_short_name_is_a_command():
    asked = [sys.executable, "-m", "rcg.checkpoints", "--help"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "rewrite a file as safetensors" in done.stdout


def test_a_shipped_network_that_is_damaged_is_refused(tmp_path):
    whole = shipped("digits-robust").read_bytes()
    path, at = tmp_path / "a.safetensors", len(whole) - 1000
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(OSError, match="its checksum is wrong"):
        load_classifier(path, "digits")

"Checkpoints as people have them: wrapped, damaged, or no weights at all."

import re
import subprocess
import sys
import warnings

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file
from torch import nn

from rcg.classifier import Classifier
from rcg.running.checkpoints import (
    convert,
    load_classifier,
    load_unet,
    read_weights,
    shipped,
    tensors_checksum,
    unwrapped,
)
from rcg.running.commands import checkpoints_main as main
from rcg.running.presets import preset
from rcg.running.tensors import load_tensors, load_weights, save_tensors


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    "Of a classifier of digits."
    torch.manual_seed(0)
    return Classifier(preset("digits").classifier).state_dict()


def _saved(weights: dict, path, **more):
    torch.save(weights | more, path)
    return path


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
    "deepspeed": lambda w: {"module": w, "global_steps": 3},
    "a generator": lambda w: {"generator": w, "discriminator": {"a": torch.ones(1)}},
    "beside a loss": lambda w: (
        {"state_dict": _prefixed(w, "model.") | {"loss.weight": torch.ones(3)}}
    ),
    "beside its average": lambda w: (
        _prefixed({k: v + 1 for k, v in w.items()}, "model.") | _prefixed(w, "ema.")
    ),
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


def test_the_place_in_a_sequential_is_no_wrapping(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    torch.save(network.state_dict(), tmp_path / "w.pt")
    assert set(read_weights(tmp_path / "w.pt")) == {"1.weight", "1.bias"}


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
        ({"_orig_mod.a": torch.ones(1), "a": torch.ones(1)}, "has a tensor twice"),
        ({"state_dict": 7}, "something other than a state dict"),
        ({"a": print}, "could execute code: get a plain state dict"),
        ({"a": torch.eye(3).to_sparse()}, "something other than a state dict"),
        ({"a": torch.ones(3, device="meta")}, "something other than a state dict"),
        ({"a": torch.ones(2).to(torch.complex64).conj()}, "complex64, not floats"),
    ],
)
def test_what_is_no_weights_is_said(tmp_path, content, said):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(OSError, match=said) as found:
        read_weights(tmp_path / "a.pt")
    for advice in ("weights_only", "pickle", "safe_globals"):
        assert advice not in str(found.value)


def test_files_of_other_kinds_are_named(tmp_path, weights):
    save_tensors(tmp_path / "a.safetensors", weights)
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pt")
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    traced.save(str(tmp_path / "script.pt"))
    for name, said in (
        ("a.pt", "rename it to .safetensors"),
        ("script.pt", "could execute code: get a plain state dict"),
        ("", "is a folder: name a file"),
        ("none.pt", "there is no file"),
    ):
        with pytest.raises(OSError, match=said) as found:
            load_classifier(tmp_path / name, "digits")
        assert "weights_only" not in str(found.value)


def test_wrappings_in_a_circle_come_to_an_end():
    circle = {}
    circle["model"] = circle
    with pytest.raises(OSError, match="something other than a state dict"):
        unwrapped(circle, "a.pt")


def test_a_name_that_is_nearly_known(tmp_path):
    for name in ("digits-robst", "digit-robust"):
        for preset_name in (None, "digits"):
            with pytest.raises(OSError, match=f"no {name}: did you mean digits-robust"):
                load_classifier(name, preset_name)
    with pytest.raises(OSError, match="did you mean digits-denoiser?"):
        load_unet("digits-denoser")
    for load in (load_classifier, load_unet):
        with pytest.raises(OSError, match="no file or folder .*elsewhere"):
            load(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a folder: pass its file of weights"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_parameters_are_floats(tmp_path, weights, dtype):
    path = _saved(weights, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"dtype must be one of .*, not {dtype}"):
        convert(path, tmp_path / "a.safetensors", dtype)
    with pytest.raises(ValueError, match=f"dtype must be one of .*, not {dtype}"):
        load_classifier(path, "digits", dtype=dtype)
    assert not (tmp_path / "a.safetensors").exists()


def test_what_float16_cannot_hold_is_refused(tmp_path, weights):
    name = "out.2.c_proj.bias"
    large = {name: torch.full_like(weights[name], 1e6)}
    path = _saved(weights, tmp_path / "large.pt", **large)
    said = f"large.pt has 1e.06 in {name}, too large for torch.float16"
    with pytest.raises(ValueError, match=said):
        load_classifier(path, "digits", dtype=torch.float16)
    with pytest.raises(ValueError, match=said):
        convert(path, tmp_path / "a.safetensors", torch.float16)
    convert(path, tmp_path / "a.safetensors", torch.bfloat16)
    nan = _saved(weights, tmp_path / "nan.pt", **{name: weights[name] * torch.nan})
    with pytest.raises(ValueError, match=f"not finite numbers, in {name}"):
        convert(nan, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
    wide = {"a": torch.tensor([1e300], dtype=torch.float64)}
    with pytest.raises(ValueError, match="1e.300 in a, too large for torch.float32"):
        convert(
            _saved(wide, tmp_path / "w.pt"), tmp_path / "w.safetensors", torch.float32
        )


def test_counters_stay_integers(tmp_path):
    counted = {"norm.num_batches_tracked": torch.tensor(5), "weight": torch.ones(2)}
    torch.save(counted, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "a.safetensors", torch.float16)
    found = read_weights(tmp_path / "a.safetensors")
    assert {k: v.dtype for k, v in found.items()} == {
        "norm.num_batches_tracked": torch.int64,
        "weight": torch.float16,
    }


@pytest.mark.parametrize("device", ["meta", "mps", "nonsense", "cuda:99"])
def test_devices_that_are_not_here(device):
    with pytest.raises(ValueError, match=f"device must be like 'cpu'.*'{device}'"):
        load_classifier("digits-robust", device=device)


@pytest.mark.parametrize(
    "changes", [{"head_width": 16}, {"timesteps": 10}, {"image_size": 16}]
)
def test_shipped_networks_keep_what_no_shape_shows(changes):
    (name, value), *_ = changes.items()
    said = f"{name} is {value}, but digits-robust was trained with"
    with pytest.raises(ValueError, match=said):
        load_classifier("digits-robust", **changes)


def test_checksums_are_of_values():
    x = torch.view_as_complex(torch.randn(3, 2))
    plain = tensors_checksum({"a": x.conj().resolve_conj()})
    assert tensors_checksum({"a": x.conj()}) == plain != tensors_checksum({"a": x})
    with pytest.raises(ValueError, match="tensors hold a, which is sparse"):
        tensors_checksum({"a": torch.eye(3).to_sparse()})


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


def test_help_and_misspelt_names_do_not_wait():
    command = [sys.executable, "-X", "importtime", "-m", "rcg.checkpoints"]
    for words, said in (
        (["--help"], "rewrite a file as safetensors"),
        (["convert", "--help"], "by default as in the file"),
        (["download", "imagenet512"], "imagenet512"),
    ):
        done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True)
        told = (done.stdout + done.stderr).decode()
        assert said in told and not re.search(r"\| +torch$", told, re.M), words


def test_a_shipped_network_that_is_damaged_is_refused(tmp_path):
    whole = shipped("digits-robust").read_bytes()
    path, at = tmp_path / "a.safetensors", len(whole) - 1000
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(OSError, match="its checksum is wrong"):
        load_classifier(path, "digits")


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda x: x.long(),
            "of another kind: .* torch.int64 instead of torch.float32",
        ),
        (lambda x: x + 0j, "of another kind: .* torch.complex64 instead of"),
        (lambda x: x.to("meta"), "tensors hold .* has no values"),
        (lambda x: x.flatten(), "of another shape"),
    ],
)
@pytest.mark.parametrize("assign", [False, True])
def test_weights_of_another_kind_are_refused(weights, change, said, assign):
    model = Classifier(preset("digits").classifier)
    changed = {k: change(v) if v.ndim > 1 else v for k, v in weights.items()}
    with pytest.raises(ValueError, match=said):
        load_weights(model, changed, "a.pt", assign)


@pytest.mark.parametrize(
    "tensors, said",
    [
        ({"a": torch.eye(3).to_sparse()}, "tensors hold a"),
        ({"a": torch.ones(3, device="meta")}, "tensors hold a"),
        ({"a": torch.ones(3, dtype=torch.complex128)}, "cannot hold .*complex128"),
        ({"a\ud800": torch.ones(3)}, "cannot hold"),
        ({"a": torch.nested.nested_tensor([torch.ones(2)])}, "tensors hold a"),
        ({"a": torch.quantize_per_tensor(torch.ones(3), 1, 0, torch.qint8)}, "hold a"),
    ],
)
def test_what_no_file_of_tensors_can_hold(tmp_path, tensors, said):
    with pytest.raises(ValueError, match=said):
        save_tensors(tmp_path / "a.safetensors", tensors)
    assert not [*tmp_path.iterdir()]


def test_parts_of_one_tensor_are_stored(tmp_path):
    x = torch.arange(6.0)
    shared = {"a": x, "b": x, "c": x[:3], "d": x.view(2, 3).T}
    save_tensors(tmp_path / "a.safetensors", shared)
    found, _ = load_tensors(tmp_path / "a.safetensors")
    assert found.keys() == shared.keys()
    assert all(found[k].equal(v) for k, v in shared.items())

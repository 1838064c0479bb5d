"""Shared pieces of the tests: where the golden numbers are, and how to read them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def golden():
    "Load one golden file as (weights, tensors); weights are cast back from the float16 they are stored in."

    def load(name: str):
        tensors = load_file(GOLDEN / f"{name}.safetensors")
        weights = {k[2:]: v.float() for k, v in tensors.items() if k.startswith("w.")}
        return weights, {k: v for k, v in tensors.items() if not k.startswith("w.")}

    return load


@pytest.fixture
def manifests() -> dict:
    "Parameter names and shapes of the public full-size models."
    return json.loads((GOLDEN / "state_dict_manifests.json").read_text())


@pytest.fixture(autouse=True)
def seeded():
    "Every test starts from the same random state."
    torch.manual_seed(0)

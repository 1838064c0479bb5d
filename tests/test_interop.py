"Bridges to diffusers: the reference's networks there and back, and its absence."

import subprocess
import sys

import pytest
import torch
from test_golden import ADM_UNET, IDDPM_UNET, built
from torch import nn

from rcg.experiment import preset
from rcg.unet import UNet, UNetConfig

diffusers = pytest.importorskip("diffusers")

from rcg.interop import from_diffusers, to_diffusers  # noqa: E402


def drawn(config: UNetConfig) -> UNet:
    "A network of random weights none of which is zero."
    unet = UNet(config).eval()
    for p in unet.parameters():
        nn.init.normal_(p, std=0.1)
    return unet


def inputs(config: UNetConfig) -> tuple:
    x = torch.randn(2, config.channels, config.image_size, config.image_size)
    labels = torch.tensor([0, config.classes - 1]) if config.classes else None
    return x, torch.tensor([3, 900]), labels


SHAPES = {
    "ADM, heads of a width": dict(heads=1, head_width=16),
    "ADM, as many heads everywhere": dict(heads=4),
    "IDDPM": dict(residual_resize=False, dropout=0.1),
    "no labels, fixed variance": dict(classes=None, learned_variance=False),
    "a null label": dict(null_label=True),
    "one level": dict(multipliers=(1,), attention=(16,)),
    "no attention but in the middle": dict(attention=()),
    "grey": dict(channels=1),
}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_networks_there_and_back(changes, tmp_path):
    shape = dict(image_size=16, width=32, multipliers=(1, 2, 4), depth=1)
    config = UNetConfig(**{**shape, "attention": (8, 4), **changes})
    unet, batch = drawn(config), inputs(config)
    model = to_diffusers(unet)
    model.save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path)
    back = from_diffusers(model, null_label=config.null_label)
    assert sum(map(torch.numel, model.parameters())) == sum(
        map(torch.numel, unet.parameters())
    )
    assert {k: v.shape for k, v in back.state_dict().items()} == {
        k: v.shape for k, v in unet.state_dict().items()
    }
    with torch.no_grad():
        expected = unet(*batch)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(model(*batch).sample, expected, atol=1e-5, rtol=0)
    for name, value in unet.state_dict().items():
        assert back.state_dict()[name].equal(value), name


@pytest.mark.parametrize(
    "name, config", [("adm_unet_tiny", ADM_UNET), ("iddpm_unet_tiny", IDDPM_UNET)]
)
@torch.no_grad()
def test_the_reference_s_outputs(name, config, golden):
    weights, d = golden(name)
    model = to_diffusers(built(UNet(config), weights))
    found = model(d["x"], d["t"], d["y"]).sample
    torch.testing.assert_close(found, d["out"], atol=1e-5, rtol=1e-5)


def test_the_paper_s_network_at_full_size():
    config = preset("cifar10").unet
    unet, batch = drawn(config), inputs(config)
    with torch.no_grad():
        expected, found = unet(*batch), to_diffusers(unet)(*batch).sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_without_diffusers_the_extra_is_named():
    code = "import sys; sys.modules['diffusers'] = None; import rcg.interop"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "rcg[diffusers]"' in run.stderr.splitlines()[-1]
    assert "During handling" not in run.stderr

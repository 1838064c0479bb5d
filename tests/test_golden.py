"""The public reference implementations' numbers, reproduced.

`tests/golden/` holds tensors computed on a CPU in float32 by guided-diffusion,
improved-diffusion, the paper's own code, clean-fid and torch-fidelity, with small
models; and the parameter manifests of the full-size models.
"""

import pytest
import torch

from rcg.attack import L2, Linf, pgd
from rcg.classifier import Classifier, ClassifierConfig, log_prob_gradient
from rcg.diffusion import Diffusion, denoising_loss
from rcg.guidance import Cost, Guided, classifier_guidance, guided_mean, sample
from rcg.metrics import frechet_distance, precision_recall
from rcg.solvers import DDPM, solve
from rcg.unet import UNet, UNetConfig

TINY = dict(image_size=16, width=32, depth=1, multipliers=(1, 2))
ADM_UNET = UNetConfig(**TINY, attention=(8,))
IDDPM_UNET = UNetConfig(**TINY, attention=(16, 8), residual_resize=False)
CLASSIFIER = ClassifierConfig(**TINY, attention=(8,), head_width=16)


def built(model: torch.nn.Module, weights: dict) -> torch.nn.Module:
    model.load_state_dict(weights, strict=True)
    return model.eval()


@pytest.fixture
def unet(golden):
    return built(UNet(ADM_UNET), golden("adm_unet_tiny")[0])


@pytest.fixture
def classifier(golden):
    return built(Classifier(CLASSIFIER), golden("adm_classifier_tiny")[0])


def close(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 1e-5):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)


# ---- networks


@pytest.mark.parametrize(
    "name, config", [("adm_unet_tiny", ADM_UNET), ("iddpm_unet_tiny", IDDPM_UNET)]
)
@torch.no_grad()
def test_unet_output(golden, name, config):
    weights, d = golden(name)
    close(built(UNet(config), weights)(d["x"], d["t"], d["y"]), d["out"])


@torch.no_grad()
def test_classifier_output(golden, classifier):
    d = golden("adm_classifier_tiny")[1]
    close(classifier(d["x"], d["t"]), d["out"])


@pytest.mark.parametrize(
    "name, preset_name, part",
    [
        ("imagenet128-diffusion", "imagenet128", "unet"),
        ("imagenet128-classifier", "imagenet128", "classifier"),
        ("cifar10-diffusion", "cifar10", "unet"),
        ("cifar10-classifier", "cifar10", "classifier"),
    ],
)
def test_full_size_layouts(manifests, name, preset_name, part):
    from rcg.running.presets import preset

    p = preset(preset_name)
    with torch.device("meta"):
        model = UNet(p.unet) if part == "unet" else Classifier(p.classifier)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == manifests[name]


# ---- diffusion


def test_schedule_and_forward_process(golden):
    d = golden("diffusion_tiny")[1]
    diffusion = Diffusion()
    torch.testing.assert_close(
        torch.from_numpy(diffusion.alphas_cumprod),
        d["alphas_cumprod"],
        atol=1e-15,
        rtol=1e-13,
    )
    close(diffusion.q_sample(d["x0"], d["t"], d["noise"]), d["q_sample"])


@torch.no_grad()
def test_reverse_process(golden, unet):
    d = golden("diffusion_tiny")[1]
    diffusion = Diffusion()
    p = diffusion.p(unet(d["q_sample"], d["t"], d["y"]), d["q_sample"], d["t"])
    close(p.mean, d["p_mean"])
    close(p.log_variance.exp(), d["p_variance"])
    close(p.x0, d["pred_x0"])


@torch.no_grad()
def test_loss_terms(golden, unet):
    d = golden("diffusion_tiny")[1]
    loss = denoising_loss(Diffusion(), unet, d["x0"], d["t"], d["y"], d["noise"])
    close(loss.mse, d["train_mse"])
    close(loss.vb, d["train_vb"])
    close(loss.total, d["train_loss"])


@torch.no_grad()
def test_respaced_means(golden, unet, classifier):
    d = golden("diffusion_tiny")[1]
    diffusion = Diffusion().respaced(250)
    assert diffusion.timesteps.tolist() == d["respaced_250_timesteps"].tolist()
    t = d["respaced_250_timesteps"][d["respaced_index"]]
    p = diffusion.p(unet(d["q_sample"], t, d["y"]), d["q_sample"], t)
    close(p.mean, d["respaced_p_mean"])
    close(p.log_variance.exp(), d["respaced_p_variance"])
    gradient = log_prob_gradient(classifier, d["q_sample"], t, d["y"])
    close(guided_mean(p, gradient, 1.0), d["respaced_guided_mean_s1"])


@pytest.mark.parametrize("guided", [False, True])
def test_ddim_trajectory(golden, unet, classifier, guided):
    d = golden("diffusion_tiny")[1]
    assert (
        Diffusion().respaced(25, "ddim").timesteps.tolist()
        == d["ddim25_timesteps"].tolist()
    )
    images = sample(
        unet,
        Diffusion(),
        d["y"],
        classifier=classifier if guided else None,
        steps=25,
        sampler="ddim",
        init_noise=d["x_T"],
    )
    close(images, d["ddim25_guided_s1" if guided else "ddim25_unguided"], atol=1e-4)


@pytest.mark.parametrize(
    "name, scale", [("unguided", 0), ("guided_s1", 1), ("guided_s4", 4)]
)
def test_ddpm_trajectory(golden, unet, classifier, name, scale):
    d = golden("ddpm_trajectory_tiny")[1]
    guidance, noise = scale * classifier_guidance(classifier), iter(d["noise"])
    plain = dict(noise=None, clip=True, threshold=None, cost=Cost(), seeds=range(9))
    guided = Guided(unet, d["y"], guidance, **plain)
    run = solve(DDPM(25), Diffusion(), guided, d["x_T"], lambda: next(noise))
    states = list(run)
    assert [state.t for state in states][::-1] == d["timesteps"].tolist()
    images = torch.stack([state.x for state in states])
    close(images[d["kept_steps"]], d[name], atol=1e-4)


# ---- attack


@pytest.mark.parametrize(
    "name, threat, steps, step_size",
    [
        ("l2_eps0.25_steps5", L2(0.25), 5, None),
        ("l2_eps0.25_steps7", L2(0.25), 7, None),
        ("l2_eps0.5_steps5", L2(0.5), 5, None),
        ("l2_eps0.5_steps7", L2(0.5), 7, None),
        ("l2_eps0.5_steps7_step0.083333", L2(0.5), 7, 0.5 / 6),
        ("l2_eps1.0_steps5", L2(1.0), 5, None),
        ("l2_eps1.0_steps7", L2(1.0), 7, None),
        ("linf_eps4of255_steps7", Linf(4 / 255), 7, None),
        ("linf_eps8of255_steps7", Linf(8 / 255), 7, None),
    ],
)
def test_pgd(golden, classifier, name, threat, steps, step_size):
    d = golden("pgd_tiny")[1]
    close(
        pgd(
            classifier, d["x"], d["t"], d["y"], threat, steps=steps, step_size=step_size
        ),
        d[name],
        atol=1e-4,
    )


# ---- metrics


def test_metrics(golden):
    d = golden("metrics_tiny")[1]
    assert frechet_distance(d["real"], d["fake"]) == pytest.approx(
        d["frechet"].item(), rel=1e-6
    )
    assert frechet_distance(d["real"][:20], d["fake"][:25]) == pytest.approx(
        d["frechet_20_vs_25"].item(), rel=1e-4
    )
    for k in (3, 5):
        precision, recall = precision_recall(d["real"], d["fake"], k=k)
        assert precision == pytest.approx(d[f"precision_k{k}"].item(), abs=1e-9)
        assert recall == pytest.approx(d[f"recall_k{k}"].item(), abs=1e-9)

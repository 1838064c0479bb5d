"""The numbers of gradients where they are known, and the order of the figures' rows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rcg.attack import L2, Attack
from rcg.data import digits
from rcg.diffusion import Diffusion
from rcg.figures import (
    accuracy_figure,
    attack_figure,
    gradient_figure,
    greatest_losses,
    nearest_real,
    samples_figure,
    spread_steps,
    training_figure,
)
from rcg.gradients import (
    denoiser_gradient,
    gradient_score,
    high_frequency_share,
    linearity,
    score_figure,
    stability,
)

DIFFUSION, POINTS = Diffusion(), digits().all()[:3]
Y = torch.arange(3)


def perfect(x, t, k):
    "The noise in x if the data are one point per class."
    return DIFFUSION.noise_from_x0(x, t, POINTS[k])


def bayes(x, t):
    "The logits of the posterior over the points."
    apart = x[:, None] - DIFFUSION.at("signal", t)[:, None] * POINTS
    variance = DIFFUSION.at("noise", t).flatten(1) ** 2
    return -apart.square().flatten(2).sum(2) / (2 * variance)


def linear(x, t):
    "Two logits of opposite sign, linear in x."
    z = 0.01 * x.flatten(1).sum(1, keepdim=True)
    return torch.cat([z, -z], 1)


@pytest.mark.parametrize("step", [100, 300, 900])
def test_a_perfect_denoiser_implies_the_posterior(step):
    t = torch.full((3,), step)
    x_t = DIFFUSION.q_sample(POINTS, t, torch.randn(POINTS.shape))
    posterior = bayes(x_t, t).softmax(1).detach()
    implied = denoiser_gradient(perfect, DIFFUSION, x_t, t, Y, 3, posterior)
    x = x_t.clone().requires_grad_()
    log_p = bayes(x, t).log_softmax(1).diag().sum()
    (truth,) = torch.autograd.grad(log_p, x)
    assert torch.allclose(implied, truth, atol=2e-5)


def test_short_steps_are_linear_and_no_noise_changes_nothing():
    t = torch.full((3,), 300)
    x_t = DIFFUSION.q_sample(POINTS, t, torch.randn(POINTS.shape))
    near, far = (linearity(bayes, x_t, t, Y, length) for length in (0.01, 20.0))
    assert torch.allclose(near, torch.ones(3), atol=0.01)
    assert (far < 0.9).any()
    assert torch.allclose(stability(bayes, x_t, t, Y, 0.0), torch.ones(3))
    turned = stability(linear, x_t, t, Y[:3] % 2, 5.0)
    assert torch.allclose(turned, torch.ones(3))  # its gradient has one direction


def test_a_chessboard_is_all_high_frequency():
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    assert high_frequency_share(board.expand(1, 1, 8, 8)) > 0.999
    assert high_frequency_share(torch.ones(1, 1, 8, 8)) < 1e-6


def test_the_score_has_a_row_per_classifier_and_timestep():
    rows = gradient_score(
        {"vanilla": bayes, "robust": bayes},
        DIFFUSION,
        POINTS,
        Y,
        (100, 900),
        perfect,
        3,
    )
    assert [(r["classifier"], r["t"]) for r in rows] == [
        ("vanilla", 100),
        ("robust", 100),
        ("vanilla", 900),
        ("robust", 900),
    ]
    assert rows[0]["accuracy"] == 1 and rows[2]["alignment"] > 0.95  # equal odds there
    figure = score_figure({"points": rows})
    colors = [line.get_color() for line in figure.axes[0].lines]
    assert colors == ["C0", "C1"]


def test_classifiers_stand_above_one_another_at_the_same_timestep(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "rcg.gradients.image_grid", lambda *_, **named: seen.update(named)
    )
    pair = {"vanilla": bayes, "robust": bayes}
    gradient_figure(pair, DIFFUSION, POINTS, Y, (0, 500))
    assert seen["cell"] >= 1
    assert [name.split() for name in seen["row_labels"]] == [
        ["image"],
        ["vanilla", "t", "=", "0"],
        ["robust", "t", "=", "0"],
        ["vanilla", "t", "=", "500"],
        ["robust", "t", "=", "500"],
    ]


def test_figure_4_wants_a_targeted_attack():
    with pytest.raises(ValueError, match="needs a targeted attack"):
        attack_figure({"vanilla": bayes}, POINTS, Y, Attack(L2(1.0)))


def test_too_few_samples_of_a_class_are_named():
    with pytest.raises(ValueError, match="but there are 1 of zero, 1 of one"):
        samples_figure(POINTS, Y, ["zero", "one", "two"], per_class=2)


def test_nearest_images_of_the_own_class():
    x, y = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([0, 1])
    assert nearest_real(x, y, x, y.flip(0)).tolist() == [5.0, 5.0]
    with pytest.raises(ValueError, match=r"no real images of the classes \[2\]"):
        nearest_real(x, torch.tensor([0, 2]), x, y)
    assert greatest_losses(torch.tensor([0.0, 2]), torch.tensor([0.0, 1])) == []


@pytest.mark.parametrize("count, columns", [(1, 10), (5, 10), (50, 10), (7, 1)])
def test_spread_steps_have_both_ends_and_none_twice(count, columns):
    steps = spread_steps(count, columns)
    assert steps == sorted(set(steps)) and len(steps) == min(count, columns)
    assert steps[0] == 0 and (columns == 1 or steps[-1] == count - 1)


def test_curves_are_means_of_groups():
    history = [dict(step=k, loss=float(k), moved=0.0) for k in range(60)]
    figure = training_figure(history, points=20)
    assert figure.axes[0].lines[0].get_ydata()[0] == np.mean([0, 1, 2])
    rows = [
        {"step": s, "kind": kind, "t 0-99": 0.9, "t 100-199": 0.5}
        for s in (10, 20, 30)
        for kind in ("clean", "attacked")
    ]
    figure = accuracy_figure(rows)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == [
        f"after {s}, {k}" for s in (10, 30) for k in ("clean", "attacked")
    ]
    assert list(figure.axes[0].lines[0].get_xdata()) == [49.5, 149.5]
    plt.close("all")

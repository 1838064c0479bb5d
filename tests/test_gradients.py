"""The numbers of gradients where they are known, and the order of the figures' rows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rcg.attack import L2, Attack
from rcg.data import digits, min_max
from rcg.diffusion import Diffusion
from rcg.figures import (
    accuracy_figure,
    attack_figure,
    gradient_figure,
    greatest_losses,
    nearest_real,
    pairs_figure,
    samples_figure,
    spread_steps,
    training_figure,
)
from rcg.gradients import (
    cosine,
    denoiser_gradient,
    gradient_score,
    high_frequency_share,
    linearity,
    relative_error,
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


# What is refused

X, LABELS = torch.randn(4, 1, 8, 8).clamp(-1, 1), torch.arange(4)
D, T0, OF = DIFFUSION, torch.zeros(4).long(), {"a": lambda x, t: x.flatten(1)[:, :4]}
NAN = {"a": lambda x, t: x.flatten(1)[:, :4] * torch.nan}
FEATURES, ATTACK = torch.randn(4, 5), Attack(L2(1), 2, targeted=True)


def implicit(x=X, t=T0, y=LABELS, classes=10, answer=lambda x: x, weights=None):
    unet = lambda x, t, labels: answer(x)
    return denoiser_gradient(unet, D, x, t, y, classes, weights)


def step(**values):
    return [{"step": 1, "kind": "clean", "loss": 0.5, "t 0-99": 0.5} | values]


def score(**values):
    return [{"classifier": "a", "t": 0, "linearity": 1.0} | values]


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: implicit(t=T0 + 1000), "t must be from 0 to 999"),
        (lambda: implicit(y=LABELS + 7), "labels must be from 0 to 9"),
        (lambda: implicit(classes=2), "labels must be from 0 to 1"),
        (lambda: implicit(classes=10**9), "classes is 1000000000"),
        (lambda: implicit(x=X[0]), r"images must have the shape"),
        (lambda: implicit(x=X.byte()), "images must be floats"),
        (lambda: implicit(answer=lambda x: None), "denoiser gives None"),
        (lambda: implicit(answer=lambda x: x[:2]), r"denoiser gives \(2, 1, 8, 8\)"),
        (lambda: implicit(weights=torch.ones(3, 3)), "weights must be probabilities"),
        (lambda: implicit(weights=torch.ones(4, 10)), "weights must be probabilities"),
        (lambda: implicit(weights=-torch.ones(4, 10)), "weights must be probabilit"),
        (lambda: implicit(weights=torch.ones(4, 10) * torch.nan), "weights must be"),
        (lambda: cosine(X[:, :0], X[:, :0]), "pass .N, "),
        (lambda: relative_error(X, X * 0), "truth is zero"),
        (lambda: relative_error(X.double() * 1e300, X.double()), "u far from it"),
        (lambda: linearity(OF["a"], X, T0, LABELS, 1e-30), "length is 1e-30"),
        (lambda: linearity(NAN["a"], X, T0, LABELS, 1.0), "NaN or infinity"),
        (lambda: stability(NAN["a"], X, T0, LABELS, 1.0), "NaN or infinity"),
        (lambda: gradient_figure(NAN, D, X, LABELS), "NaN or infinity"),
        (lambda: gradient_figure({}, D, X, LABELS), "classifiers"),
        (lambda: gradient_figure(OF, D, X, LABELS, ()), "timesteps"),
        (lambda: gradient_figure(OF, D, X, LABELS, (10**30,)), "timesteps"),
        (lambda: gradient_figure(OF, D, X, LABELS, (0,), cell=1e9), "cell is"),
        (lambda: attack_figure(OF, X, LABELS, ATTACK, t=10**30), "t is 1000"),
        (
            lambda: attack_figure(OF, X, LABELS, ATTACK, 0, ["b"]),
            "column_labels are 1, but 4",
        ),
        (lambda: gradient_score({}, D, X, LABELS), "classifiers"),
        (lambda: gradient_score(OF, D, X, LABELS, ()), "timesteps"),
        (lambda: gradient_score(NAN, D, X, LABELS, (0,)), "NaN or infinity"),
        (lambda: score_figure({}), "rows"),
        (lambda: score_figure({"a": []}), "rows"),
        (lambda: score_figure({k: score() for k in "abcd"}), "rows"),
        (lambda: score_figure({"a": score(linearity=torch.nan)}), "rows .*'linearity'"),
        (lambda: score_figure({"a": score(t=None)}), "rows .*'t'"),
        (lambda: score_figure({"a": [{"t": 0, "linearity": 1.0}]}), "no classifier"),
        (lambda: score_figure({"a": score()}, ("nothing",)), "none of nothing"),
        (lambda: pairs_figure({"a": X, "b": X[:3]}, [0]), "samples .* must be alike"),
        (lambda: pairs_figure({"a": X, "b": X[..., :4]}, [0]), "must be alike"),
        (lambda: pairs_figure({"a": X}, [4]), "chosen pairs below 4, not 4"),
        (lambda: pairs_figure({"a": X}, [10**30]), "chosen pairs below 4"),
        (
            lambda: nearest_real(FEATURES, LABELS, FEATURES[:, :3], LABELS),
            "differ in width",
        ),
        (
            lambda: nearest_real(FEATURES.double() * 1e200, LABELS, FEATURES, LABELS),
            "too large",
        ),
        (
            lambda: nearest_real(FEATURES, LABELS + 1j, FEATURES, LABELS),
            "labels must be",
        ),
        (
            lambda: nearest_real(FEATURES[:0], LABELS[:0], FEATURES, LABELS),
            "features must be",
        ),
        (lambda: spread_steps(10**30, 5), "count is"),
        (lambda: spread_steps(10**9, 10**9), "columns is"),
        (lambda: training_figure(step(loss=torch.nan)), "history need .*'loss'"),
        (lambda: training_figure(step(loss="high")), "history need .*'loss'"),
        (lambda: training_figure(step(step=None)), "history need .*'step'"),
        (lambda: training_figure([{"step": 1}]), "history need .*'loss'"),
        (
            lambda: accuracy_figure([{"step": 1, "kind": "clean"}]),
            "rows need .*'t 0-99'",
        ),
        (
            lambda: accuracy_figure(step(**{"t 0-99": torch.inf})),
            "rows need .*'t 0-99'",
        ),
        (lambda: accuracy_figure(step(step="a")), "rows need .*'step'"),
        (lambda: accuracy_figure([{"step": 1, "t 0-99": 0.5}]), "no column 'kind'"),
    ],
)
def test_what_is_no_gradient_or_figure(call, said):
    with pytest.raises((TypeError, ValueError), match=said):
        call()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_no_scale_is_too_small_or_too_large(scale):
    u, v = X * scale, (X + 1) * scale
    expected = torch.nn.functional.cosine_similarity(X.flatten(1), X.flatten(1) + 1)
    torch.testing.assert_close(cosine(u, v), expected)
    assert cosine(u, u).le(1).all() and cosine(u, 0 * u).eq(0).all()
    high = high_frequency_share(X)
    for x in (u, u.double() * scale**6):
        torch.testing.assert_close(high_frequency_share(x), high)
    assert min_max(X.double() * 8e307).sub(min_max(X)).abs().max() < 1e-6
    assert stability(OF["a"], X[:0], T0[:0], LABELS[:0], scale).shape == (0,)

"""What the training loop promises: equal numbers, nothing lost, errors in words."""

import json
import math
import signal
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from rcg.attack import L2, Attack
from rcg.classifier import Classifier, ClassifierConfig
from rcg.data import LabeledImages, digits
from rcg.diffusion import Diffusion, DiffusionConfig
from rcg.gradient_training import SingleStepLoss, SmallClassifier
from rcg.training import (
    CHECKPOINT,
    ClassifierLoss,
    DenoiserLoss,
    NonFiniteLoss,
    TrainingConfig,
    evaluating,
    fit,
    identity,
    load_tensors,
    save_tensors,
    train,
    train_classifier,
    train_denoiser,
)
from rcg.unet import UNet, UNetConfig

SHAPE = dict(
    image_size=8, channels=1, width=32, multipliers=(1,), depth=1, attention=()
)
CONFIG = TrainingConfig(steps=8, schedule=20, batch_size=8, ema_decay=0.5, save_every=4)


def fresh_unet(**changes):
    torch.manual_seed(0)
    return UNet(UNetConfig(**SHAPE | changes))


def fresh_classifier(**changes):
    torch.manual_seed(0)
    return Classifier(ClassifierConfig(**SHAPE | dict(head_width=32) | changes))


def begin(folder=None, config=CONFIG, unet=None, diffusion=None):
    unet = fresh_unet() if unet is None else unet
    return train_denoiser(unet, diffusion or Diffusion(), digits(), config, folder)


def weights(state):
    return torch.cat([v.flatten() for v in state.result.state_dict().values()])


def stored_step(folder):
    return load_tensors(folder / CHECKPOINT, header=True)[1]["step"]


# --- the same numbers


def test_gradients_of_pieces_add_up_to_those_of_the_batch():
    whole, pieces = (
        [row["loss"] for row in list(begin(config=config))[-1].history]
        for config in (CONFIG, replace(CONFIG, microbatch=3))
    )
    assert np.allclose(whole, pieces, rtol=1e-4)


def test_training_where_gradients_are_off():
    with torch.no_grad():
        inside = fit(begin(), "inside")
    assert weights(inside).equal(weights(fit(begin(), "outside")))


def test_the_average_follows_its_formula():
    expected = None
    for state in begin():
        w = state.model.out[2].weight.detach().clone()
        expected = w if expected is None else 0.5 * expected + 0.5 * w
    assert torch.allclose(state.result.out[2].weight, expected, atol=1e-7)
    assert not state.result.out[2].weight.equal(w)


@pytest.mark.parametrize("warmup", [0, 1])
def test_no_warmup_is_the_rate_itself(warmup):
    config = TrainingConfig(steps=20, schedule=30, lr=1e-3, warmup=warmup)
    assert [config.lr_at(k) for k in range(20)] == [
        1e-3 * (1 - k / 30) for k in range(20)
    ]


# --- interruptions


def test_a_closed_run_has_stored_its_last_step(tmp_path):
    run = begin(tmp_path)
    for _ in islice(run, 6):
        pass
    run.close()
    assert stored_step(tmp_path) == 6
    resumed, whole = list(begin(tmp_path))[-1], list(begin())[-1]
    assert resumed.start == 6 and resumed.history == whole.history
    assert weights(resumed).equal(weights(whole))


class Interrupting(DenoiserLoss):
    "Raises the signal when the loss of step 3 is asked for."

    def __call__(self, model, *batch):
        if self.asked() == 3:
            signal.raise_signal(signal.SIGINT)
        return super().__call__(model, *batch)

    calls = []

    def asked(self):
        self.calls.append(0)
        return len(self.calls) - 1


def test_ctrl_c_stores_the_last_step_and_says_how_to_go_on(tmp_path, capsys):
    Interrupting.calls.clear()
    run = train(
        fresh_unet(), Interrupting(Diffusion()), digits(), 1000, CONFIG, tmp_path
    )
    with pytest.raises(KeyboardInterrupt):
        fit(run)
    assert stored_step(tmp_path) == 3
    assert "step 3 is saved: start the same run again" in capsys.readouterr().err


def test_a_signal_during_the_update_waits_for_its_end(tmp_path, monkeypatch):
    done, update = [], torch.optim.AdamW.step

    def interrupted(self, *args):
        if len(done) == 2:
            signal.raise_signal(signal.SIGINT)  # before the weights have changed
        update(self, *args)
        done.append(True)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(begin(tmp_path))
    assert len(done) == 3 == stored_step(tmp_path)
    monkeypatch.undo()
    resumed, whole = list(begin(tmp_path))[-1], list(begin())[-1]
    assert weights(resumed).equal(weights(whole))


def test_an_older_step_never_replaces_a_newer_one(tmp_path):
    late = begin(tmp_path)
    next(late)
    list(begin(tmp_path))  # another process, which has gone further
    newer = load_tensors(tmp_path / CHECKPOINT)[0]
    with pytest.raises(RuntimeError, match="is from step 8, later than this run's"):
        for state in late:
            if state.step == 6:
                late.close()
    kept = load_tensors(tmp_path / CHECKPOINT)[0]
    assert stored_step(tmp_path) == 8 and all(kept[k].equal(newer[k]) for k in newer)


def test_a_finished_run_yields_its_state_once(tmp_path):
    list(begin(tmp_path))
    (state,) = begin(tmp_path)
    assert state.step == state.start == 8


# --- errors


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(tmp_path):
    list(begin(tmp_path, replace(CONFIG, steps=4)))
    said = r"lower the learning rate \(now .*go on from step 4, which is stored"
    with pytest.raises(NonFiniteLoss, match=said):
        list(begin(tmp_path, replace(CONFIG, steps=12, lr=1e20)))
    with pytest.raises(NonFiniteLoss, match="and start again$"):
        list(begin(None, replace(CONFIG, steps=12, lr=1e20)))
    tensors, metadata = load_tensors(tmp_path / CHECKPOINT)
    assert metadata["step"] == 4 and all(v.isfinite().all() for v in tensors.values())
    state = list(begin(tmp_path, replace(CONFIG, steps=12)))[-1]
    assert math.isfinite(state.history[-1]["loss"])


FIRST = "time_embed.0.weight"


def plain_loss(model, x, y, t, noise):
    return {"loss": model(x, t)[:, 0]}


class Wrapped(nn.Module):
    "A denoiser in a module of somebody else."

    def __init__(self):
        super().__init__()
        self.net = fresh_unet()

    def forward(self, x, t, labels):
        return self.net(x, t, labels)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(config=replace(CONFIG, batch_size=4)), "batch_size was 8, is 4"),
        (dict(config=replace(CONFIG, warmup=5)), "warmup was 0, is 5"),
        (dict(diffusion=Diffusion(DiffusionConfig(100))), "loss was DenoiserLoss"),
        (dict(unet=fresh_unet(width=64)), "of another shape"),
        (dict(unet=Wrapped()), r"another network .*has .*, net\."),
        (dict(config=replace(CONFIG, steps=2)), "more than the 2 asked for"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(tmp_path, changes, message):
    list(begin(tmp_path))
    with pytest.raises(ValueError, match=message):
        next(begin(tmp_path, **changes))


@pytest.mark.parametrize("name", ["file", "file/inside"])
def test_a_folder_that_cannot_be_written_is_said_before_the_first_step(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file.* cannot be written .* another place"):
        next(begin(tmp_path / name))


def test_an_empty_folder_is_not_the_current_one():
    with pytest.raises(ValueError, match="folder must be a path, not an empty"):
        next(begin(""))


def test_a_run_keeps_its_number_of_timesteps(tmp_path):
    again = lambda timesteps: train(
        fresh_classifier(), plain_loss, digits(), timesteps, CONFIG, tmp_path
    )
    list(again(1000))
    with pytest.raises(ValueError, match="timesteps was 1000, is 100"):
        next(again(100))


def test_what_has_no_effect_may_change(tmp_path):
    list(begin(tmp_path, replace(CONFIG, steps=4)))
    freely = replace(CONFIG, save_every=3, microbatch=4, workers=1)
    assert list(begin(tmp_path, freely))[-1].step == 8


@pytest.mark.parametrize(
    "name, value",
    [
        ("steps", 0),
        ("batch_size", 0),
        ("save_every", 0),
        ("lr", -1.0),
        ("lr", math.nan),
        ("ema_decay", 1.0),
        ("warmup", -1),
        ("workers", -1),
        ("weight_decay", math.inf),
        ("microbatch", 0),
        ("seed", 2**63),
        ("workers", 10**6),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        TrainingConfig(**dict(steps=8) | {name: value})


def test_a_schedule_is_not_shorter_than_the_run():
    with pytest.raises(ValueError, match="at most as many steps as the schedule has"):
        TrainingConfig(steps=20, schedule=10)


@pytest.mark.parametrize("label", [-100, 10])
@pytest.mark.parametrize("attack", [None, Attack(L2(0.5), 2)])
def test_unknown_labels_are_refused(label, attack):
    data = digits()
    data.labels[:] = label
    run = train_classifier(fresh_classifier(), Diffusion(), data, CONFIG, attack)
    with pytest.raises(ValueError, match="labels must be"):
        next(run)


def test_a_damaged_file_says_so(tmp_path):
    list(begin(tmp_path, replace(CONFIG, steps=1)))
    whole = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(whole[:5000])
    with pytest.raises(OSError, match="is not a whole safetensors file"):
        load_tensors(tmp_path / CHECKPOINT)
    with pytest.raises(OSError, match="is a folder: name a file"):
        load_tensors(tmp_path)
    for at in (0.3, 0.6, 0.95):
        place = int(len(whole) * at)
        flipped = whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :]
        (tmp_path / CHECKPOINT).write_bytes(flipped)
        with pytest.raises(OSError, match=f"{CHECKPOINT} is damaged, .*: delete it to"):
            next(begin(tmp_path))


DAMAGES = {  # what another hand has made of a checkpoint
    "no history": lambda t, m: t.pop("history"),
    "few rows": lambda t, m: t.update(history=t["history"][:1].clone()),
    "one axis": lambda t, m: t.update(history=t["history"][0].clone()),
    "nan": lambda t, m: t.update(history=t["history"] * math.nan),
    "no step": lambda t, m: t.pop(f"optimizer.step.{FIRST}"),
    "no moment": lambda t, m: t.pop(f"optimizer.exp_avg.{FIRST}"),
    "shape": lambda t, m: t.update({f"optimizer.exp_avg.{FIRST}": torch.zeros(3)}),
    "no moments": lambda t, m: [t.pop(k) for k in [*t] if k.startswith("optimizer")],
    "another step": lambda t, m: m.update(step=1),
    "a flag": lambda t, m: m.update(step=True),
    "columns": lambda t, m: m.update(columns=["a"] * len(m["columns"])),
    "no columns": lambda t, m: m.update(columns=[]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path, damage):
    list(begin(tmp_path, replace(CONFIG, steps=2)))
    tensors, about = load_tensors(tmp_path / CHECKPOINT)
    damage(tensors, about)
    save_tensors(tmp_path / CHECKPOINT, tensors, **about)
    with pytest.raises(OSError, match=f"{CHECKPOINT} is .* delete it"):
        next(begin(tmp_path))


def test_a_checkpoint_of_before_is_gone_on_from(tmp_path):
    "Without a checksum and a fingerprint of the data."
    list(begin(tmp_path, replace(CONFIG, steps=2)))
    tensors, about = load_tensors(tmp_path / CHECKPOINT)
    del about["checksum"], about["settings"]["contents"]
    said = {k: json.dumps(v) for k, v in about.items()}
    save_file(tensors, tmp_path / CHECKPOINT, said)
    assert next(begin(tmp_path)).start == 2


def negative():
    return LabeledImages(-digits().images, digits().labels, digits().classes)


@pytest.mark.parametrize("change", [lambda data: data, lambda data: [*data]])
def test_other_images_of_the_same_number_are_another_run(tmp_path, change):
    first = lambda data: train_denoiser(
        fresh_unet(), Diffusion(), change(data), CONFIG, tmp_path
    )
    list(islice(first(digits()), 2))
    assert next(first(digits())).start == 2
    with pytest.raises(
        ValueError, match="contents was .* restore them, or use another"
    ):
        next(first(negative()))


class Restless(list):
    "A data set of somebody else, whose images change whenever they are read."

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + 0.01 * torch.randn_like(image), label


def test_images_that_change_are_known_by_their_labels():
    data = Restless(digits())
    assert identity(data) == identity(data) != identity(Restless([*negative()][3:]))
    assert identity(data) != identity(digits())


IMAGE = torch.zeros(1, 8, 8) - 0.5


@pytest.mark.parametrize(
    "item",
    [
        lambda k: (Image.new("L", (8, 8)), 1),
        lambda k: (np.full((1, 8, 8), "a"), 1),
        lambda k: "a text",
        lambda k: None,
        lambda k: IMAGE,
        lambda k: (IMAGE, 1, 2),
        lambda k: (IMAGE, None),
        lambda k: (IMAGE, 1.5),
        lambda k: (torch.zeros(1, 8 + k, 8), 1),
        lambda k: (IMAGE.byte(), 1),
        lambda k: (IMAGE.to_sparse(), 1),
        lambda k: (IMAGE.to("meta"), 1),
        lambda k: (IMAGE[:, :0], 1),
        lambda k: {"image": IMAGE, "label": 1},
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_are_no_images_with_labels_is_refused(item, workers, tmp_path):
    data, config = [item(k) for k in range(9)], replace(CONFIG, workers=workers)
    for folder in (None, tmp_path):
        run = train_classifier(
            fresh_classifier(), Diffusion(), data, config, folder=folder
        )
        with pytest.raises(TypeError, match="each item of the data must be an image"):
            next(run)


def test_arrays_of_numpy_are_images():
    data = [(np.full((1, 8, 8), -0.5, np.float32), k % 10) for k in range(9)]
    assert next(train_denoiser(fresh_unet(), Diffusion(), data, CONFIG)).step == 1


class Tied(nn.Module):
    "A classifier that uses one weight twice."

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 64)
        self.two.weight, self.out = self.one.weight, nn.Linear(64, 10)

    def forward(self, x, t):
        return self.out(self.two(self.one(x.flatten(1))))


def test_tied_weights_are_stored_and_stay_tied(tmp_path):
    begin = lambda steps: train_classifier(
        Tied(), Diffusion(), digits(), replace(CONFIG, steps=steps), folder=tmp_path
    )
    list(begin(2))
    *_, state = begin(4)
    assert state.start == 2 and state.model.one.weight is state.model.two.weight
    stored = load_tensors(tmp_path / "model.safetensors")[0]
    assert stored["one.weight"].equal(stored["two.weight"])


def frozen_classifier():
    return fresh_classifier().requires_grad_(False)


@pytest.mark.parametrize(
    "make, message",
    [
        (frozen_classifier, "must have parameters that require a gradient"),
        (nn.Flatten, "must have parameters that require a gradient"),
        (lambda: fresh_classifier().half(), r"trained in float32, .*float16"),
        (lambda: fresh_classifier().bfloat16(), r"trained in float32, .*bfloat16"),
        (lambda: fresh_classifier().to("meta"), "lazy or on the meta device"),
        (lambda: nn.LazyLinear(10), "lazy or on the meta device"),
    ],
)
def test_what_cannot_be_trained_is_refused(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        next(train(make(), ClassifierLoss(Diffusion()), digits(), 1000, CONFIG))


def of_logits(make):
    return lambda model, x, y, t, noise: make(model(x, t)[:, 0])


@pytest.mark.parametrize(
    "loss, kind, message",
    [
        (of_logits(lambda v: v.sum()), TypeError, "the loss gives .*a value per image"),
        (of_logits(lambda v: None), TypeError, "the loss gives None"),
        (of_logits(lambda v: {"loss": v.sum()}), TypeError, r"\(8,\)"),
        (of_logits(lambda v: {"loss": v[:, None]}), TypeError, r"\(8,\)"),
        (of_logits(lambda v: {"loss": v[:2]}), TypeError, r"\(8,\)"),
        (of_logits(lambda v: {"loss": 1.0}), TypeError, "a value per image"),
        (of_logits(lambda v: {"other": v}), TypeError, "one of them called 'loss'"),
        (of_logits(lambda v: {"loss": v, "a": 1.0}), TypeError, "a value per image"),
        (of_logits(lambda v: {"loss": v, "step": v}), ValueError, "gives 'step'"),
        (of_logits(lambda v: {"loss": v.detach()}), ValueError, "does not depend on"),
        (lambda model, x: None, TypeError, r"the loss is called .* takes \(model, x\)"),
    ],
)
def test_losses_that_are_none_are_refused(loss, kind, message):
    with pytest.raises(kind, match=message):
        next(train(fresh_classifier(), loss, digits(), 1000, CONFIG))


def test_a_loss_gives_the_same_names_at_every_step(tmp_path):
    names = iter(["ab", "ba", "ac"])  # in any order

    def loss(model, x, y, t, noise):
        a = model(x, t)[:, 0]
        return {"loss": a} | {k: a.detach() + ord(k) for k in next(names)}

    run = train(fresh_classifier(), loss, digits(), 1000, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="at step 2 the loss gives loss, a, c, .*, b"):
        list(run)
    names = iter(["a"])
    run = train(fresh_classifier(), loss, digits(), 1000, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="at step 2 the loss gives .* before loss, a"):
        next(run)
    rows = load_tensors(tmp_path / CHECKPOINT)[0]["history"]
    assert len(rows) == 2 and (rows[:, 4] > rows[:, 3] + 0.5).all()


def test_a_denoiser_is_no_classifier():
    with pytest.raises(ValueError, match="classifier is a denoiser: pass a Classifier"):
        train_classifier(fresh_unet(), Diffusion(), digits(), CONFIG)


def test_a_run_without_steps_has_no_result():
    with pytest.raises(ValueError, match="run has no steps"):
        fit(iter(()))
    with pytest.raises(ValueError, match="run is 5"):
        fit(5)


# --- losses


def batch(count=8):
    data = digits()
    x0, y = data.all()[:count], data.labels[:count]
    return x0, y, torch.full((count,), 300), torch.zeros_like(x0)


def test_an_attack_leaves_every_mode_as_it_was():
    classifier = fresh_classifier(dropout=0.5).eval()
    classifier.out.train()  # a part in another mode
    before = [m.training for m in classifier.modules()]
    ClassifierLoss(Diffusion(), Attack(L2(0.5), 2))(classifier, *batch())
    assert [m.training for m in classifier.modules()] == before
    with evaluating(classifier):
        assert not any(m.training for m in classifier.modules())


class Foreign(nn.Module):
    "A denoiser that knows nothing of this project."

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(1, 2, 3, padding=1)
        self.seen = []

    def forward(self, x, t, labels):
        self.seen.append(labels)
        return self.net(x)


def test_any_module_can_be_a_denoiser():
    *_, state = train_denoiser(Foreign(), Diffusion(), digits(), CONFIG)
    assert state.step == 8


def test_labels_are_dropped_by_their_share_and_equally_when_resumed(tmp_path):
    loss = DenoiserLoss(Diffusion(), drop_labels=0.25, null_label=10)
    config = replace(CONFIG, batch_size=200, ema_decay=None)
    seen = []
    for stop in (8, 4):  # as a whole, and in two parts
        folder = tmp_path / str(stop)
        labels = []
        for steps in sorted({stop, 8}):
            model = Foreign()
            torch.manual_seed(steps)  # what happened outside does not matter
            list(
                train(model, loss, digits(), 1000, replace(config, steps=steps), folder)
            )
            labels += model.seen
        seen.append(torch.stack(labels))
    share = (seen[0] == 10).float().mean().item()
    assert 0.2 < share < 0.3 and seen[0].equal(seen[1])
    assert seen[0].max() == 10 and (seen[0] == 10).any(1).all()


class OwnThreat:
    "A threat without a representation."

    eps = 0.5

    def step(self, x, gradient, size):
        return x + size * gradient.sign()

    def project(self, x, center):
        return center + (x - center).clamp(-self.eps, self.eps)


class OwnLoss:
    "A loss without a representation."

    def __call__(self, model, x0, labels, t, noise):
        return {"loss": (model(x0, t, labels)[0] - noise).pow(2).flatten(1).mean(1)}


def weighted(weight, model, x0, labels, t, noise):
    return {"loss": weight * OwnLoss()(model, x0, labels, t, noise)["loss"]}


def test_a_loss_that_does_not_say_its_settings_has_no_folder(tmp_path):
    attacked = ClassifierLoss(Diffusion(), Attack(OwnThreat(), 2))
    for model, loss in ((fresh_unet, OwnLoss()), (fresh_classifier, attacked)):
        with pytest.raises(ValueError, match=r"holds <.*Own.* at 0x.*make it a data"):
            next(train(model(), loss, digits(), 1000, CONFIG, tmp_path / "a"))
        assert not (tmp_path / "a").exists()
        assert next(train(model(), loss, digits(), 1000, CONFIG)).step == 1


def test_a_loss_made_of_functions_is_resumed_and_told_from_another(tmp_path):
    begun = lambda weight, steps: [
        *train(
            fresh_unet(),
            partial(weighted, weight),
            digits(),
            1000,
            replace(CONFIG, steps=steps),
            tmp_path,
        )
    ]
    assert begun(2.0, 2)[-1].start == 0
    path = tmp_path / CHECKPOINT
    kept = load_tensors(path, header=True)[1]["settings"]["loss"]
    assert kept == "functools.partial(weighted, 2.0)"
    assert begun(2.0, 3)[-1].start == 2
    with pytest.raises(ValueError, match=r"loss was .*2\.0\), is .*3\.0\)"):
        begun(3.0, 4)


def test_a_wrapped_denoiser_without_labels_gets_none():
    wrapped = nn.DataParallel(fresh_unet(classes=None))
    assert DenoiserLoss(Diffusion())(wrapped, *batch())["loss"].isfinite().all()


def test_a_wrapped_network_keeps_the_names_of_its_classes(tmp_path):
    wrapped = nn.DataParallel(fresh_classifier())
    data, config = digits(), replace(CONFIG, steps=1)
    data.classes = [f"digit {k}" for k in range(10)]
    fit(train_classifier(wrapped, Diffusion(), data, config, folder=tmp_path))
    stored = load_tensors(tmp_path / "model.safetensors", header=True)[1]
    assert wrapped.module.class_names == stored["classes"] == data.classes


def test_dropping_labels_needs_a_label_for_no_class():
    with pytest.raises(ValueError, match="build the denoiser with null_label=True"):
        DenoiserLoss(Diffusion(), drop_labels=0.1)(fresh_unet(), *batch())
    with pytest.raises(ValueError, match="null_label is 3, which is a class of the"):
        DenoiserLoss(Diffusion(), drop_labels=0.1, null_label=3)(fresh_unet(), *batch())
    own = fresh_unet(null_label=True)
    terms = DenoiserLoss(Diffusion(), drop_labels=0.5)(own, *batch())
    assert terms["loss"].isfinite().all()
    without = fresh_unet(classes=None)  # gets no labels
    assert DenoiserLoss(Diffusion())(without, *batch())["loss"].isfinite().all()


@pytest.mark.parametrize("make", [fresh_classifier, lambda: SmallClassifier(1, 10)])
def test_weights_that_went_astray_are_reported_by_every_loss(make, tmp_path):
    for k, loss in enumerate((SingleStepLoss(Diffusion(), L2(0.5)), ClassifierLoss)):
        loss = loss(Diffusion(), Attack(L2(0.5), 2)) if k else loss
        model = make()
        nn.init.constant_([*model.parameters()][-1], math.nan)
        with pytest.raises(NonFiniteLoss, match="lower the learning rate"):
            next(train(model, loss, digits(), 1000, CONFIG, tmp_path))
    assert not [*tmp_path.iterdir()]

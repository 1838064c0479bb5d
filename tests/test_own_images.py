"The page for one's own images: from a folder of pictures to a recommended scale."

import warnings

import pytest
import yaml
from conftest import ROOT, execute
from PIL import Image

from rcg.data import mnist
from rcg.running.checkpoints import load_classifier
from rcg.running.files import load_json, read_table
from rcg.running.jobs import TrainingJob
from rcg.training import train

SMALL = yaml.safe_load((ROOT / ".ci" / "own-images-small.yaml").read_text())


def small(folder, **parameters) -> str:
    "Run the page at a small setting; returns everything it prints."
    settings = SMALL | {"run_dir": str(folder / "run")} | parameters
    return execute("own_images.ipynb", **settings)


@pytest.fixture
def own(tmp_path):
    "Thirty pictures of two classes, of several sizes and kinds, and one cut short."
    digits = mnist("test")
    for digit, name in ((1, "one"), (8, "eight")):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i, pixels in enumerate(digits.images[digits.labels == digit][:15]):
            picture = Image.fromarray(pixels[0].numpy()).resize((40 + i, 36))
            kind = ("png", "RGB") if i % 2 else ("jpg", "L")
            picture.convert(kind[1]).save(tmp_path / "own" / name / f"{i}.{kind[0]}")
    cut = (tmp_path / "own" / "one" / "1.png").read_bytes()[:60]
    (tmp_path / "own" / "one" / "cut.png").write_bytes(cut)
    return tmp_path / "own"


def test_from_a_folder_to_a_recommended_scale(own, tmp_path):
    said = small(tmp_path, data=str(own), preset="small16-grey")
    assert "left out: one/cut.png" in said
    assert "| one | 15 | 36 to 36 pixels |" in said
    assert "28 pictures to train on, 2 held out, for small16-grey" in said
    rows = read_table(tmp_path / "run" / "numbers-small16-grey.csv")
    kinds = [(row["method"], row["scale"]) for row in rows]
    pairs = [(method, s) for s in SMALL["scales"] for method in ("vanilla", "robust")]
    assert kinds == [("unguided", 0), *pairs]
    assert "recommended: " in said and "| robust | 4.0 |" in said
    speed = load_json(tmp_path / "run" / "trial-small16-grey.json")
    assert speed["robust"] > speed["vanilla"] > 0 and speed["unguided"] > 0
    assert (tmp_path / "run" / "gallery-small16-grey.png").exists()
    again = small(tmp_path, data=str(own))  # all from the folder
    last = lambda text: text[text.index("recommended: ") :].splitlines()[0]
    assert last(again) == last(said)
    (own / "eight" / "3.png").unlink()
    with pytest.raises(ValueError, match="other settings"):
        small(tmp_path, data=str(own), preset="small16-grey")


def test_a_half_trained_network_says_so(tmp_path):
    where = dict(run_dir=str(tmp_path), preset="digits", network="vanilla")
    plan = TrainingJob(steps=3, schedule=3, batch_size=8, **where).resolve()
    task = plan.loss, plan.train.open(), 1000, plan.training, tmp_path
    run = train(plan.build(), *task)
    next(run)
    run.close()  # as if it had been interrupted
    weights = tmp_path / "model.safetensors"
    with pytest.warns(UserWarning, match="half trained, after 1 of 3 steps"):
        load_classifier(weights, "digits")
    list(train(plan.build(), *task))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_classifier(weights, "digits")


def test_an_unknown_preset_stops_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="no preset 'large'"):
        small(tmp_path, preset="large")
    assert not (tmp_path / "run").exists()

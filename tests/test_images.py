"Images as people have them: in any data set, folder and format, whole or damaged."

import io
import os
import socket
import sys
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import Subset, TensorDataset

from rcg.data import (
    Augmented,
    LabeledImages,
    asset,
    batches,
    digits,
    image_grid,
    min_max,
    mirrored,
    mnist,
)
from rcg.metrics import ImageSet
from rcg.running.commands import TrainingJob
from rcg.running.files import load_arrays, save_arrays
from rcg.running.images import (
    ImageFolder,
    Pictures,
    center_crop,
    class_folders,
    files_below,
    load_images,
    load_reference,
    open_images,
    random_crop,
    read_image,
    save_images,
    save_reference,
    unreadable,
)
from rcg.training import identity


def picture(path, value=(10, 20, 30), size=(12, 10), **options):
    "A picture of one colour, in a folder that may not exist yet."
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, value).save(path, **options)


@pytest.fixture
def pets(tmp_path):
    "Three pictures of a cat and two of a dog."
    for k in range(3):
        picture(tmp_path / "pets" / "cat" / f"{k}.png", (k, 0, 0))
    for k in range(2):
        picture(tmp_path / "pets" / "dog" / f"{k}.png", (k, 90, 0))
    return tmp_path / "pets"


# Data sets


def test_a_data_set_ends_and_counts_from_both_ends(pets):
    flipped = Augmented(mnist("test"), mirrored)
    for data in (digits("test"), mnist("test"), ImageFolder(pets, 8), flipped):
        n = len(data)
        assert sum(1 for _ in data) == n
        assert data[-1][0].equal(data[n - 1][0]) and data[-n][0].equal(data[0][0])
        for index in (n, -n - 1):
            with pytest.raises(IndexError):
                data[index]


def test_the_streams_are_those_of_the_committed_results():
    "Sums of the pixels and labels of the first images that training has always seen."
    x, y = next(batches(digits(), 128, seed=1))
    assert y[:10].tolist() == [7, 3, 2, 2, 6, 5, 3, 1, 3, 9]
    assert x.sum().item() == -3208.25
    data = Augmented(digits(), mirrored)
    flips = [not data.at(p)[0].equal(data.data[p][0]) for p in range(12)]
    assert [p for p, flip in enumerate(flips) if flip] == [0, 1, 5, 6, 8, 10]


def test_changes_belong_to_positions_whatever_the_batches(pets):
    noise = np.random.default_rng(0).integers(256, size=(12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(pets / "cat" / "2.png")
    folder = ImageFolder(pets, 8)
    together = next(batches(folder, 20, seed=5))[0]
    alone = torch.cat([x for x, _ in islice(batches(folder, 2, seed=5), 10)])
    assert together.equal(alone)
    start = torch.cat([x for x, _ in islice(batches(folder, 2, seed=5, start=3), 7)])
    assert start.equal(together[6:])
    shares = [next(batches(folder, 20, 5, rank=r, world=4))[0] for r in range(4)]
    assert torch.cat(shares).equal(together)
    epochs = [folder.at(2 + 5 * k)[0] for k in range(6)]
    assert not all(x.equal(epochs[0]) for x in epochs)


def test_anyone_s_data_set_works():
    images, labels = torch.linspace(-1, 1, 28).view(7, 1, 2, 2), torch.arange(7)
    data = TensorDataset(images, labels)
    x, y = next(batches(data, 14, seed=0))
    assert sorted(y.tolist()) == sorted([*range(7)] * 2) and x.equal(images[y])
    x, y = next(batches(Subset(data, [1, 4]), 2))
    assert sorted(y.tolist()) == [1, 4]
    numbered = [(image, int(label)) for image, label in data]  # a list is one, too
    assert next(batches(numbered, 7))[1].dtype == torch.int64


def test_what_is_no_data_is_said():
    x, y = torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    for data in (
        TensorDataset(x),
        TensorDataset((x * 0).byte(), y),
        TensorDataset(x, y.float()),
        TensorDataset(x, y, y),
        [{"x": x[0], "y": 1}] * 4,
    ):
        with pytest.raises(TypeError, match="each item of the data must be"):
            next(batches(data, 2))
    with pytest.raises(ValueError, match="not finite"):
        next(batches(TensorDataset(x + torch.nan, y), 2))
    for high in (1.0, 255.0):
        with pytest.warns(UserWarning, match=r"are they in \[0, 1\]"):
            next(batches(TensorDataset(x + high, y), 2))
    x[3] = torch.tensor([[-1, 509], [0, 0]])  # in the second batch for this seed
    some = batches(TensorDataset(x, y), 2, seed=0)
    next(some)
    with pytest.warns(UserWarning, match="go beyond 10: is one of them in"):
        next(some)
    with pytest.raises(ValueError, match="empty"):
        next(batches(TensorDataset(x[:0], y[:0]), 2))
    for size, world in ((0, 1), (-2, 1), (3, 2)):
        with pytest.raises(ValueError, match="batch_size is"):
            next(batches(TensorDataset(x, y), size, world=world))


def test_streams_have_a_beginning_and_as_many_parts_as_processes():
    data = TensorDataset(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64))
    for changes, said in (
        (dict(rank=2, world=2), "rank is 2: of 2 processes, the last is 1"),
        (dict(start=2**62), "start is"),
        (dict(seed=-1), "seed is -1"),
    ):
        with pytest.raises(ValueError, match=said):
            next(batches(data, 2, **changes))


def test_grids_and_files_that_are_not_there():
    x = torch.zeros(4, 1, 2, 2)
    for changes, said in (
        (dict(columns=10**9), "columns is"),
        (dict(cell=1e9), "cell is"),
        (dict(columns=2, row_labels=["a"]), "row_labels are 1, but 2 are needed"),
        (dict(columns=2, column_labels=["a"]), "column_labels are 1, but 2"),
    ):
        with pytest.raises(ValueError, match=said):
            image_grid(x, **changes)
    with pytest.raises(FileNotFoundError, match="there is no file .*nothing"):
        asset("nothing")
    with pytest.raises(ValueError, match="must be floats, not torch.int64$"):
        min_max(x.long())


@pytest.mark.parametrize(
    "labels", [[0, 1], [0, 1, 2], [0, 1, -1], [0.0, 1.0, 1.0], [[0], [1], [1]]]
)
def test_every_image_needs_a_label_and_every_label_a_name(labels):
    with pytest.raises(ValueError, match="labels"):
        LabeledImages(torch.zeros(3, 1, 2, 2), torch.tensor(labels), ["a", "b"])


def test_fingerprints_follow_the_contents(pets):
    data = digits("test")
    one, images = identity(data), data.images.clone()
    images[3, 0, 2, 2] += 0.125
    others = [
        LabeledImages(images, data.labels, data.classes),
        LabeledImages(data.images, data.labels.flip(0), data.classes),
    ]
    assert identity(digits("test")) == one
    assert len({one, *map(identity, others)}) == 3
    before = identity(ImageFolder(pets, 8))
    assert identity(ImageFolder(pets, 8)) == before
    picture(pets / "dog" / "2.png")
    assert identity(ImageFolder(pets, 8)) != before


def test_mnist_is_what_was_published():
    whole = mnist("all")
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert whole.labels.bincount().tolist() == counts
    assert int(whole.images.long().sum()) == 264_923_200
    assert mnist("train").images.equal(whole.images[:8500])
    assert mnist("test").labels.equal(whole.labels[8500:])


def test_min_max_keeps_the_order():
    x = torch.randn(3, 1, 4, 4)
    y = min_max(x)
    assert y.amin((1, 2, 3)).eq(-1).all() and y.amax((1, 2, 3)).eq(1).all()
    assert x.flatten(1).argsort().equal(y.flatten(1).argsort())


# Folders


def test_links_are_followed_but_not_in_circles(pets, tmp_path):
    picture(tmp_path / "elsewhere" / "a.png")
    (pets / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (pets / "cat" / "circle").symlink_to(pets)
    (pets / "bird").symlink_to(tmp_path / "elsewhere")
    folder = ImageFolder(pets, 8, False, 3)
    assert folder.classes == ["bird", "cat", "dog"]
    names = [f"{name}.png" for name in ("bird/a", "cat/0", "cat/1", "cat/2")]
    names += ["cat/more/a.png", "dog/0.png", "dog/1.png"]
    assert files_below(pets) == names
    assert [str(folder.path(k).relative_to(pets)) for k in range(len(folder))] == names
    assert len(load_images(pets).labels) == 7


def test_links_that_lead_nowhere(pets):
    (pets / "cat" / "gone.png").symlink_to(pets / "nowhere.png")
    (pets / "cat" / "itself.png").symlink_to(pets / "cat" / "itself.png")
    assert list(unreadable(ImageFolder(pets, 8))) == ["cat/gone.png", "cat/itself.png"]
    assert {"cat/gone.png", "cat/itself.png"} <= set(files_below(pets))
    (pets / "a").symlink_to(pets / "nowhere")
    (pets / "b").symlink_to(pets / "b")
    with pytest.raises(FileNotFoundError, match=r"lead nowhere \(a, b\): repair"):
        ImageFolder(pets, 8)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
def test_pipes_and_devices_are_not_waited_for(pets):
    os.mkfifo(pets / "cat" / "a.png")
    (pets / "cat" / "b.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(pets / "cat" / "c.png"))
    reasons = unreadable(folder := ImageFolder(pets, 8))
    assert list(reasons) == [f"cat/{k}.png" for k in "abc"]
    assert all("a pipe or a device" in why for why in reasons.values())
    for call in (lambda: identity(folder), lambda: load_images(pets)):
        with pytest.raises(OSError, match="a.png.* is a pipe or a device"):
            call()
    assert len(identity(ImageFolder(pets, 8, skip=reasons))) == 16


def test_what_is_passed_over_is_counted(pets):
    for name in ("cat/a.heic", "cat/b.HEIC", "dog/c", "dog/.hidden", "README"):
        (pets / name).write_bytes(b"?")
    picture(pets / "beside.png")
    expected = r"\(2 of .heic, 1 of .png, 1 of no ending\): images end in .jpg, "
    with pytest.warns(UserWarning, match=expected):
        folder = ImageFolder(pets, 8)
    assert folder.ignored == ["beside.png", "cat/a.heic", "cat/b.HEIC", "dog/c"]
    with pytest.warns(UserWarning, match=r"\(2 of no ending, 2 of .heic\)"):
        assert len(Pictures(pets)) == 6


def test_what_systems_leave_behind_is_no_class(pets):
    for name in ("__MACOSX", "@eaDir", "lost+found", ".thumbnails", "$RECYCLE.BIN"):
        picture(pets / name / "0.png")
        picture(pets / "cat" / name / "0.png")
    (pets / "cat" / ".DS_Store").touch()
    folder = ImageFolder(pets, 8, classes=2)
    assert folder.classes == ["cat", "dog"] and len(folder) == 5
    assert folder.ignored == [] and len(Pictures(pets)) == 5


def test_numbered_folders_are_in_the_order_of_the_numbers(tmp_path):
    for k in range(12):
        picture(tmp_path / str(k) / "0.png", (k, k, k))
    folder = ImageFolder(tmp_path, 8, train=False)
    assert folder.classes == [str(k) for k in range(12)]
    for image, label in folder:
        assert image[0, 0, 0] == pytest.approx(int(folder.classes[label]) / 127.5 - 1)
    assert load_images(tmp_path).labels.sort().values.tolist() == list(range(12))
    (tmp_path / "a").mkdir()
    assert class_folders(tmp_path)[:3] == ["0", "1", "10"]


def test_formats_are_read_or_reported(pets):
    for ending, form in (("jfif", "JPEG"), ("JPG", "JPEG"), ("avif", "AVIF")):
        picture(pets / "cat" / f"a.{ending}", format=form)
    picture(pets / "cat" / "a.jp2", format="JPEG2000")
    for name in ("a.heic", "a.eps", "notes.txt", "no-ending"):
        (pets / "cat" / name).write_bytes(b"?")
    folder = ImageFolder(pets, 8)
    assert len(folder) == 9 and unreadable(folder) == {}
    named = ["a.eps", "a.heic", "no-ending", "notes.txt"]
    assert folder.ignored == [f"cat/{name}" for name in named]


def test_a_file_of_a_format_that_starts_programs_is_not_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )
    with pytest.raises(OSError, match="no picture that is known here"):
        read_image(tmp_path / "a.png")


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_names_that_are_no_unicode(pets):
    folder = os.fsencode(pets) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xff.png", "wb") as file:
        file.write(b"no picture")
    with open(folder + b"/\xfe.txt", "wb") as file:
        file.write(b"notes")
    data = ImageFolder(pets, 8)
    bad = unreadable(data)
    shown = [*data.classes, *data.ignored, *bad]
    "".join(shown).encode("ascii")  # as the strictest terminal does
    assert data.classes[0] == "caf\\xe9" and list(bad) == ["caf\\xe9/\\xff.png"]
    with pytest.raises(OSError, match="cannot be read") as found:
        data[0]
    str(found.value).encode("ascii")
    assert len(ImageFolder(pets, 8, skip=bad, allow_empty=True)) == 5


def test_empty_and_absent_folders(pets, tmp_path):
    (pets / "eel").mkdir()
    with pytest.raises(ValueError, match=r"without a single image \(eel\)"):
        ImageFolder(pets, 8)
    folder = ImageFolder(pets, 8, allow_empty=True)
    assert folder.empty == ["eel"] and folder.labels.tolist() == [0, 0, 0, 1, 1]
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        for call in (lambda p: ImageFolder(p, 8), Pictures, load_images):
            with pytest.raises(FileNotFoundError, match="pass|must hold"):
                call(path)


# Image files


def png(size) -> bytes:
    file = io.BytesIO()
    Image.new("1", size).save(file, "PNG")
    return file.getvalue()


def test_small_files_of_very_large_images_are_refused():
    content = png((13_000, 13_000))
    assert len(content) < 30_000
    with pytest.raises(OSError, match="169 million pixels, more than 80 million"):
        read_image("a.png", content)
    with pytest.raises(OSError, match="100×1 pixels is too long"):
        read_image("a.png", png((100, 1)))
    assert read_image("a.png", png((50, 1))).size == (50, 1)


RAMP = np.linspace(0, 65535, 120).reshape(10, 12)


@pytest.mark.parametrize(
    "name, image, said",
    [
        ("16.png", Image.fromarray(RAMP.astype(np.uint16)), None),
        ("16.tif", Image.fromarray(RAMP.astype(np.uint16)), None),
        ("16.pgm", Image.fromarray(RAMP.astype(np.uint16)), None),
        ("8.png", Image.fromarray((RAMP / 257).astype(np.uint8)), None),
        ("32.tif", Image.fromarray((RAMP / 257).astype(np.int32)), "32-bit integers"),
        ("f.tif", Image.fromarray((RAMP / 65535).astype(np.float32)), "floating-point"),
        ("f.ppm", Image.fromarray((RAMP / 65535).astype(np.float32)), "floating-point"),
    ],
)
def test_deep_pixels_are_scaled_or_refused(tmp_path, name, image, said):
    image.save(tmp_path / name, format="PPM" if name == "f.ppm" else None)
    if said:
        with pytest.raises(OSError, match=said):
            read_image(tmp_path / name)
    else:
        found = np.asarray(read_image(tmp_path / name)).astype(int)
        assert np.abs(found - RAMP[..., None] / 257).max() <= 1


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_crops_of_any_mode_are_those_of_its_colours(mode):
    image = Image.new(mode, (30, 20), 1 if mode == "1" else None)
    if mode == "P":
        image.putpalette([9, 99, 200])
    colour = {"1": (255,) * 3, "P": (9, 99, 200), "CMYK": (255,) * 3}
    colour |= {"LA": (255,) * 3, "RGBA": (255,) * 3}  # transparent, on white
    crop = center_crop(image, 8)
    assert (crop.mode, crop.size) == ("RGB", (8, 8))
    if mode != "YCbCr":
        assert crop.getpixel((3, 3)) == colour.get(mode, (0, 0, 0))


@pytest.mark.parametrize(
    "image, size, said",
    [
        (Image.new("RGB", (0, 5)), 8, "the image of 0×5 pixels is empty"),
        (Image.new("RGB", (400, 5)), 8, "the image of 400×5 pixels is too long"),
        (Image.new("RGB", (40, 1)), 50_000, "the image has .* million pixels, more"),
        (Image.new("F", (9, 9)), 8, "floating-point"),
        (Image.new("RGB", (9, 9)), 70_000, "must be less than or equal to 65536"),
    ],
)
def test_crops_of_what_is_too_large_or_empty(image, size, said):
    for crop in (center_crop, partial(random_crop, rng=np.random.default_rng(0))):
        with pytest.raises(ValueError, match=said):
            crop(image, size)
    with pytest.raises(ValueError, match="smallest is 1e-09"):
        random_crop(image, 8, np.random.default_rng(0), smallest=1e-9)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_images_are_refused(form):
    noise = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, form)
    whole = file.getvalue()
    for keep in (0, 3, len(whole) // 2):
        with pytest.raises(OSError, match="cannot be read as an image"):
            read_image("a", whole[:keep])


def as_adm_does(file, size):
    "Halves with a box filter, a bicubic resize, the square in the middle, [-1, 1]."
    image = Image.open(file)
    while min(image.size) >= 2 * size:
        half = tuple(n // 2 for n in image.size)
        image = image.resize(half, Image.Resampling.BOX)
    factor = size / min(image.size)
    sides = tuple(round(n * factor) for n in image.size)
    pixels = np.array(image.resize(sides, Image.Resampling.BICUBIC).convert("RGB"))
    top, left = ((n - size) // 2 for n in pixels.shape[:2])
    square = pixels[top : top + size, left : left + size]
    return torch.from_numpy(square.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)


@pytest.mark.parametrize("size", [20, 64, 128, 300])
def test_photographs_are_those_of_adm_or_close_to_them(tmp_path, size):
    (tmp_path / "one").mkdir()
    for k, shot in enumerate(load_sample_images().images):
        shot = Image.fromarray(shot)
        shot.save(tmp_path / "one" / f"{k}.jpg", quality=90)
    for draft in (False, True):
        read = ImageFolder(tmp_path, size, train=False, draft=draft)
        for k in range(2):
            exact = as_adm_does(read.path(k), size)
            apart = (read[k][0] - exact).abs() * 127.5
            assert apart.max() == 0 or draft and size < 300 and apart.mean() < 6
    exact, quick = (ImageFolder(tmp_path, size, draft=draft) for draft in (0, 1))
    for position in range(8):  # the same crops, mirrored alike
        a, b = exact.at(position)[0], quick.at(position)[0]
        assert (a - b).abs().mean() < 0.06


def test_only_large_photographs_are_decoded_at_a_reduced_scale():
    shot = Image.fromarray(load_sample_images().images[0])
    turned, file, png = Image.Exif(), io.BytesIO(), io.BytesIO()
    turned[0x0112] = 6
    shot.save(file, "JPEG", exif=turned)
    shot.save(png, "PNG")
    sizes = {1000: (427, 640), 214: (427, 640), 213: (213, 320), 106: (106, 160)}
    for least, size in (sizes | {10: (53, 80)}).items():
        image = read_image("a.jpg", file.getvalue(), least)
        assert image.size == size
        whole = read_image("a.jpg", file.getvalue()).resize(size, Image.Resampling.BOX)
        apart = np.abs(np.asarray(image).astype(float) - whole).mean()
        assert apart < 10, size
        assert read_image("a.png", png.getvalue(), least).size == (640, 427)


def test_what_has_a_right_way_round_is_not_mirrored(pets, tmp_path):
    left = np.zeros((2, 4, 4, 3), np.uint8)
    left[:, :, :2] = 255
    save_arrays(tmp_path / "a.npz", arr_0=left, arr_1=np.array([0, 1]))
    for k in range(3):
        picture = Image.fromarray(left[0]).resize((12, 12))
        picture.save(pets / "cat" / f"{k}.png")
    for source, size in ((tmp_path / "a.npz", 4), (pets, 8)):
        for mirror, kinds in ((None, 2), (True, 2), (False, 1)):
            data = open_images(source, size, mirror=mirror)
            stream = islice(batches(data, len(data)), 20)
            seen = [x[y == 0][0, 0, 0] for x, y in stream]
            assert len({bool(row[0] > row[-1]) for row in seen}) == kinds
    assert open_images("mnist")[0][0].equal(mnist()[0][0])
    for name, given, expected in (
        ("mnist", None, False),
        ("mnist", True, True),
        ("small32", None, None),
        ("small32", False, False),
    ):
        job = TrainingJob(preset=name, mirror=given, draft=True)
        how = job.resolve().train.opened.keywords
        assert (how["mirror"], how["draft"]) == (expected, 1)


# Arrays


def arrays(**changes) -> dict:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    whole = {"arr_0": images, "arr_1": np.array([1, 0])} | changes
    return {k: v for k, v in whole.items() if v is not None}


WRONG = {
    "images": (dict(arr_0=None), "must hold images as `arr_0`"),
    "floats": (dict(arr_0=np.zeros((2, 4, 4, 3))), "uint8 .*float64"),
    "two channels": (dict(arr_0=np.zeros((2, 4, 4, 2), np.uint8)), "1 or 3"),
    "none": (dict(arr_0=np.zeros((0, 4, 4, 3), np.uint8)), "must hold images"),
    "too few": (dict(arr_1=np.array([1])), "one integer for each of its 2 images"),
    "float labels": (dict(arr_1=np.array([0.0, 1.0])), "labels float64"),
    "NaN labels": (dict(arr_1=np.array([0.0, np.nan])), "labels float64"),
    "bools": (dict(arr_1=np.array([True, False])), "labels bool"),
    "negative": (dict(arr_1=np.array([-1, 0])), "labels from -1 to 0"),
    "absurd": (dict(arr_1=np.array([0, 20_000_000])), "from 0 to 99999"),
    "unnamed": (dict(classes=["a"]), "they must be from 0 to 0"),
    "a table of names": (dict(classes=[["a", "b"]] * 2), "store one name for each"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_arrays_are_checked_alike_wherever_they_are_opened(tmp_path, kind):
    changes, said = WRONG[kind]
    save_arrays(tmp_path / "a.npz", **arrays(**changes))
    for call in (open_images, load_images):
        with pytest.raises(ValueError, match=said):
            call(tmp_path / "a.npz")


def test_arrays_are_images_with_names(tmp_path):
    save_arrays(tmp_path / "a.npz", **arrays(classes=["cat", "dog"]))
    data = open_images(tmp_path / "a.npz", train=False)
    assert data.classes == ["cat", "dog"] and data.labels.tolist() == [1, 0]
    pixels = arrays()["arr_0"]
    assert data[1][0][2, 3, 0] == pytest.approx(pixels[1, 3, 0, 2] / 127.5 - 1)
    save_arrays(tmp_path / "b.npz", **arrays(arr_1=None))
    with pytest.raises(ValueError, match="has no labels"):
        open_images(tmp_path / "b.npz")
    assert load_images(tmp_path / "b.npz").labels is None


def test_images_that_are_saved_can_be_opened(tmp_path):
    samples = ImageSet(torch.randint(256, (3, 3, 4, 4)).byte(), torch.tensor([2, 0, 1]))
    save_images(tmp_path / "a.npz", samples, ["x", "y", "z"])
    again = load_images(tmp_path / "a.npz")
    assert again.images.equal(samples.images) and again.labels.equal(samples.labels)
    assert open_images(tmp_path / "a.npz").classes == ["x", "y", "z"]
    with pytest.raises(ValueError, match="from 0 to 1"):
        save_images(tmp_path / "b.npz", samples, ["x", "y"])
    for wrong in (
        dict(images=samples.images[:0]),
        dict(images=samples.images[0]),
        dict(images=samples.images.numpy()),
        dict(images=samples.images / 255),
        dict(labels=samples.labels[:2]),
        dict(labels=samples.labels.float()),
        dict(labels=samples.labels.tolist()),
    ):
        with pytest.raises(ValueError, match="samples must (be images|hold a label)"):
            save_images(tmp_path / "b.npz", samples._replace(**wrong))
    assert not (tmp_path / "b.npz").exists()


def test_one_way_to_open_images(pets, tmp_path):
    save_arrays(tmp_path / "a.npz", **arrays())
    sources = {"digits": (1, 8, 10), "mnist": (1, 28, 10), pets: (3, 8, 2)}
    sources[tmp_path / "a.npz"] = (3, 4, 2)
    for source, (channels, size, classes) in sources.items():
        for train in (True, False):
            data = open_images(source, size, train, classes, channels)
            assert data[0][0].shape == (channels, size, size)
            assert len(data.classes) == classes
            with pytest.raises(ValueError, match=f"but {classes + 1} are expected"):
                open_images(source, size, train, classes + 1)
    grey = open_images(pets, 8, False, channels=1)[3][0]
    assert grey.shape == (1, 8, 8) and grey.unique().numel() == 1
    with pytest.raises(ValueError, match="pass the `size`"):
        open_images(pets)
    with pytest.raises(ValueError, match=r"\(1, 32, 32\) are expected"):
        open_images("mnist", 32)
    with pytest.raises(FileNotFoundError, match="or a name: digits, mnist, cifar10"):
        open_images("digitz")


@pytest.mark.parametrize(
    "opened", [open_images, load_images, class_folders, files_below, Pictures]
)
def test_an_empty_path_is_no_current_folder(opened, pets, monkeypatch):
    monkeypatch.chdir(pets)
    with pytest.raises(
        ValueError, match="must be a path, not an empty text: write '.'"
    ):
        opened("")
    assert class_folders(".") == ["cat", "dog"]


def test_what_is_near_a_source_is_said(tmp_path):
    for part in ("train", "val"):
        for kind in ("cat", "dog"):
            picture(tmp_path / part / kind / "0.png")
    with pytest.warns(UserWarning, match="subfolders cat, dog: .* pass .*train$"):
        open_images(tmp_path, 8)
    np.save(tmp_path / "x.npy", np.ones(3))
    for name in ("x.npy", "train/cat/0.png"):
        with pytest.raises(
            ValueError, match="is one file: pass a folder .* or an .npz"
        ):
            open_images(tmp_path / name, 8)


def test_named_sets_can_be_measured_against():
    reference = load_images("mnist")
    assert reference.images.shape == (1500, 3, 28, 28)
    assert reference.images[:, 2].equal(mnist("test").images[:, 0])
    assert len(load_images("mnist", train=True).labels) == 8500


def test_pictures_are_looked_for_here_and_in_the_repository(tmp_path, monkeypatch):
    (tmp_path / "settings.ini").touch()
    picture(tmp_path / "mine" / "0.png")
    for place in (tmp_path, tmp_path / "mine"):
        monkeypatch.chdir(place)
        assert len(load_images("mine").images) == 1
    assert load_images(".").images.equal(load_images("mine").images)


# References


def colours(images: torch.Tensor) -> torch.Tensor:
    return images.mean((2, 3))


def test_references_hold_finite_numbers(tmp_path):
    images = torch.randint(256, (20, 3, 4, 4)).byte()
    path = tmp_path / "a.npz"
    save_reference(path, images, colours, keep=7, batch_size=6)
    found, exact = (
        load_reference(path, colours),
        images.double().mean((2, 3)) / 127.5 - 1,
    )
    assert found.gaussian.mean.allclose(exact.mean(0), atol=1e-6)
    assert found.gaussian.covariance.allclose(exact.T.cov(), atol=1e-6)
    assert len(found.features) == 7
    whole = load_arrays(path)
    skewed = whole["sigma"].copy()
    skewed[0, 1] += 1
    for changes, said in (
        ({"mu": whole["mu"] * np.nan}, "b.npz: mean must be finite"),
        ({"sigma": whole["sigma"] * np.inf}, "b.npz: covariance must be finite"),
        ({"sigma": -whole["sigma"]}, "b.npz: covariance is none: .* eigenvalue -"),
        ({"sigma": whole["sigma"].astype(int)}, "must hold `mu`"),
        ({"sigma": skewed}, "not symmetric"),
        ({"sigma": whole["sigma"][:2]}, "must hold `mu`"),
        ({"mu": whole["mu"].astype(str)}, "must hold `mu`"),
        ({"mu": whole["mu"][:2], "sigma": whole["sigma"][:2, :2]}, "of 2 features"),
        ({"extractor": np.array("inception")}, "holds features of inception"),
    ):
        save_arrays(tmp_path / "b.npz", **whole | changes)
        with pytest.raises(ValueError, match=said):
            load_reference(tmp_path / "b.npz", colours)
    for kind in (">f8", ">f4", "f4", np.longdouble):
        other = {k: whole[k].astype(kind) for k in ("mu", "sigma")}
        save_arrays(tmp_path / "b.npz", **whole | other)
        read = load_reference(tmp_path / "b.npz", colours).gaussian
        assert read.covariance.allclose(found.gaussian.covariance, atol=1e-6)
    del whole["sigma"]
    save_arrays(tmp_path / "b.npz", **whole)
    with pytest.raises(ValueError, match="must hold `mu`"):
        load_reference(tmp_path / "b.npz", colours)


def test_references_of_too_little_are_not_stored(tmp_path):
    images = torch.randint(256, (20, 3, 4, 4)).byte()
    nothing = lambda x: colours(x) * torch.nan
    for some, extractor, said in (
        (images, nothing, "finite"),
        (images[:1], colours, "at least two"),
        (images[:0], colours, r"must be images, uint8 .* \(0, 3, 4, 4\)"),
        (images / 255, colours, "must be images, uint8"),
        (images[:, :2], colours, "must be images, uint8"),
        (images[0], colours, "must be images, uint8"),
        (images, lambda x: None, "extractor gives None"),
        (images, lambda x: colours(x)[:5], "for 20 images"),
    ):
        with pytest.raises(ValueError, match=said):
            save_reference(tmp_path / "a.npz", some, extractor)
    assert not (tmp_path / "a.npz").exists()
    save_reference(tmp_path / "a.npz", images[:, :1], colours)  # grey
    assert load_reference(tmp_path / "a.npz", colours).features.shape == (20, 3)

"Files that several processes write, spreadsheets have saved, or a disk has damaged."

import multiprocessing
import os
import time
import zipfile

import numpy as np
import pytest
import torch

from rcg.running.commands import parse
from rcg.running.downloads import sha256
from rcg.running.files import (
    atomic_write,
    load_arrays,
    load_json,
    markdown_table,
    read_table,
    run_path,
    save_arrays,
    save_json,
    write_table,
)
from rcg.running.runs import Run
from rcg.training import save_tensors


def _save_often(path):
    for i in range(400):
        save_json(path, {"i": i})


def test_three_processes_store_one_file(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_save_often, [tmp_path / "one.json"] * 3)
    assert load_json(tmp_path / "one.json") == {"i": 399}
    assert os.listdir(tmp_path) == ["one.json"]


def test_drafts_of_killed_processes_are_removed_after_an_hour(tmp_path):
    names = (".a[1].0.tmp", ".a[1].1.tmp", ".b.2.tmp")
    old, new, other = (tmp_path / name for name in names)
    for draft in (old, new, other):
        draft.write_text("half")
    for draft in (old, other):
        os.utime(draft, (time.time() - 7200,) * 2)
    save_json(tmp_path / "a[1]", 1)
    assert not old.exists() and new.exists() and other.exists()


def test_a_failed_write_says_what_is_left(tmp_path):
    with pytest.raises(OSError, match="nothing is stored.*No space"):
        with atomic_write(tmp_path / "new"):
            raise OSError(28, "No space left on device")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file could not be made"):
        save_json(tmp_path / "file" / "below", 1)


def test_json_is_refused_before_the_file_is_touched(tmp_path):
    save_json(tmp_path / "a", 1)
    with pytest.raises(TypeError, match="is no setting"):
        save_json(tmp_path / "a", {"threat": object()})
    assert load_json(tmp_path / "a") == 1


@pytest.mark.parametrize("content", [b"{half", b"\xff\xfe", b"[" * 100_000, b""])
def test_damaged_json_gives_the_advice_of_the_reader_and_no_other(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(OSError, match="not valid JSON") as found:
        load_json(tmp_path / "a.json")
    assert "delete" not in str(found.value)
    with pytest.raises(OSError, match="ask Ada$"):
        load_json(tmp_path / "a.json", "ask Ada")


TEXTS = [
    "x" * 200_000,
    "x\u2028y",
    "two\nlines",
    "two\r\nlines",
    'a "quoted" word',
    "a,b;c\td",
    "\x85",
]


@pytest.mark.parametrize("text", [*TEXTS, " 7 ", "1_000", "٣", "", "=1+1"])
def test_texts_survive_a_table(tmp_path, text):
    rows = [{"name": text, "n": 1}, {"name": "b", "n": 2.5}]
    write_table(tmp_path / "t.csv", rows)
    assert read_table(tmp_path / "t.csv") == rows


@pytest.mark.parametrize("name", ["007", "1e5", "1.10", "Infinity", "9" * 5000])
def test_names_that_look_like_numbers_stay_names(tmp_path, name):
    rows = [{"class": name, "n": 7, "loss": 1e-7, "worst": float("-inf")}]
    write_table(tmp_path / "t.csv", rows)
    assert read_table(tmp_path / "t.csv") == rows
    write_table(tmp_path / "t.csv", [{"class": "7"}])
    assert read_table(tmp_path / "t.csv", numbers=False) == [{"class": "7"}]


def test_what_cannot_be_written_is_said_before_the_file_is_touched(tmp_path):
    with pytest.raises(ValueError, match=r"t.csv cannot hold 'a\\udcff'.*rename"):
        write_table(tmp_path / "t.csv", [{"name": "a\udcff"}])
    with pytest.raises(ValueError, match="value.a.1 is nan"):
        save_json(tmp_path / "a.json", {"a": [1, float("nan")]})
    with pytest.raises(ValueError, match="keys that are alike"):
        save_json(tmp_path / "a.json", {1: "a", "1": "b"})
    circle = {}
    circle["a"] = [circle]
    with pytest.raises(ValueError, match="holds itself, or is nested too deeply"):
        save_json(tmp_path / "a.json", circle)
    assert not list(tmp_path.iterdir())


def test_what_a_link_leads_to_is_replaced(tmp_path):
    (tmp_path / "kept").mkdir()
    target, link = tmp_path / "kept" / "a.json", tmp_path / "link.json"
    save_json(target, 1)
    target.chmod(0o600)
    link.symlink_to(target)
    save_json(link, 2)
    assert link.is_symlink() and load_json(target) == 2
    assert target.stat().st_mode & 0o777 == 0o600


def test_long_names(tmp_path):
    save_json(tmp_path / ("é" * 120), 1)
    assert load_json(tmp_path / ("é" * 120)) == 1
    for name in ("a" * 300, "a\0b", "."):
        with pytest.raises(OSError, match="could not be (written|made)"):
            save_json(tmp_path / name, 1)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("read", [load_json, read_table, load_arrays, sha256])
def test_only_files_are_read(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name, said in (
        ("pipe", "pipe is a pipe or a device: name a file"),
        ("", "is a folder: name a file"),
        ("none", "there is no file"),
        ("circle", "circle cannot be opened"),
        ("a\0b", "cannot be opened"),
    ):
        with pytest.raises(OSError, match=said):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "content", [b"\xff\0", b"a: [\n", b"preset: &a\n- *a\n", b"eps: &a {x: *a}\n"]
)
def test_settings_in_a_file_that_is_none_name_it(tmp_path, content):
    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="job.yaml is no YAML of settings"):
        parse(["train", "--config", str(file)])
    for name, said in (("none.yaml", "there is no file"), ("", "is a folder")):
        with pytest.raises(OSError, match=said):
            parse(["train", "--config", str(tmp_path / name)])


def test_json_of_another_kind_gives_the_advice(tmp_path):
    save_json(tmp_path / "result.json", 1)  # without a result it would be replaced
    for value in ([], None, 3, "a"):
        save_json(tmp_path / "settings.json", value)
        with pytest.raises(OSError, match="settings.json does not .*delete the run"):
            Run(tmp_path, x=1)


def test_a_run_keeps_to_its_folder_and_to_what_can_be_compared(tmp_path):
    for settings in ({"x": float("nan")}, {"x": [float("inf")]}):
        with pytest.raises(ValueError, match="settings.x.* JSON does not have"):
            Run(tmp_path / "run", **settings)
    for name in ("a\0b", "a" * 300):
        with pytest.raises(OSError, match="could not be made"):
            Run(tmp_path / name)
    run = Run(tmp_path / "run", x=1)
    for name in ("../x", "/x"):
        with pytest.raises(ValueError, match="name must be inside the run directory"):
            run.reuse(name, lambda: torch.zeros(1))
        with pytest.raises(ValueError, match="name must be inside the run directory"):
            run.reuse_json(name, dict)
    with pytest.raises(ValueError, match="x.safetensors is not stored: it has NaN"):
        run.reuse("x", lambda: torch.tensor([1.0, torch.nan]))
    save_tensors(run / "x.safetensors", {"weights": torch.zeros(1)})
    with pytest.raises(OSError, match="x.safetensors holds weights .*move it away"):
        run.reuse("x", lambda: torch.zeros(1))
    assert {p.name for p in tmp_path.rglob("*.*")} == {"settings.json", "x.safetensors"}


def test_tables_as_spreadsheets_write_them(tmp_path):
    for content in (
        "\ufeffa;b\r\n1,5;2\r\n",
        "a\tb\r\n1,5\t2\r\n",
        '\ufeff"a","b"\r\n"1,5","2"\r\n\r\n',
        '"a";"b"\n"1,5";2',
        "sep=;\r\na;b\r\n1,5;2\r\n",
        "\n\r\na;b\n1,5;2\n",
    ):
        (tmp_path / "t.csv").write_text(content, encoding="utf-8", newline="")
        assert read_table(tmp_path / "t.csv") == [{"a": "1,5", "b": 2}], content


@pytest.mark.parametrize(
    "content, said",
    [
        (b"a,b\n1,2\n1\n", "line 3 .*has 1 cells, the header 2"),
        (b'a,b\n"x\ny",2\n1,2,3\n', "line 4 .*has 3 cells"),
        (b'a,b\n"never closed,2\n', "store it as CSV"),
        (b"a,b\n1,2\x00\n3,4\n5", "line 4|store it as CSV"),
        ("a,b\n1,2\n".encode("utf-16"), "store it as CSV in UTF-8"),
        (b"a,a\n1,2\n", "header of different names"),
        (b"", "no header"),
        (b"PK\x03\x04\x14\0", "no header of different names.*store it as CSV"),
        (b"\0\0", "no header of different names.*store it as CSV"),
    ],
)
def test_what_is_no_table_is_said(tmp_path, content, said):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_table(tmp_path / "t.csv")


def test_rows_that_do_not_fit_are_not_stored(tmp_path):
    for rows in ([{"a": 1}, {"b": 2}], [{"a": 1}, {"a": 1, "b": 2}]):
        with pytest.raises(ValueError, match="rows must .*row 2 has .*b, the first a"):
            write_table(tmp_path / "t.csv", rows)
        with pytest.raises(ValueError, match="rows must .*row 2 has .*b, the first a"):
            markdown_table(rows)
    with pytest.raises(ValueError, match=r"rows is \[\]"):
        write_table(tmp_path / "t.csv", [])
    assert not list(tmp_path.iterdir())


def test_markdown_table():
    rows = [{"a": 1, "b": "x|y"}, {"b": "two\nlines", "a": 2.5}]
    expected = "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n| 2.5 | two lines |"
    assert markdown_table(rows) == expected
    row = markdown_table([{"type": "`int | None`, a|b"}]).splitlines()[-1]
    assert row == r"| `int | None`, a\|b |"


@pytest.mark.parametrize("compressed", [False, True])
def test_every_flipped_bit_of_an_archive_is_noticed(tmp_path, compressed):
    "Headers that nothing depends on may change; numbers may not."
    values = np.arange(40, dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", values)
    whole, refused = (tmp_path / "a.npz").read_bytes(), 0
    for k in range(len(whole)):
        damaged = bytearray(whole)
        damaged[k] ^= 4
        (tmp_path / "b.npz").write_bytes(damaged)
        try:
            found = load_arrays(tmp_path / "b.npz")
        except OSError as e:
            assert "not a whole .npz file" in str(e)
            refused += 1
        else:
            assert np.array_equal(next(iter(found.values()), values), values)
    assert refused > len(whole) / 2


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_truncated_archives(tmp_path, keep):
    save_arrays(tmp_path / "a.npz", arr_0=np.arange(400))
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:keep])
    with pytest.raises(OSError, match="not a whole .npz file"):
        load_arrays(tmp_path / "a.npz")


def test_other_files_in_an_archive_are_no_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.png", b"xx")
    with pytest.raises(OSError, match="a.png in it is no array"):
        load_arrays(tmp_path / "a.npz")


def test_archives_that_unpack_to_too_much(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", np.zeros((1000, 256, 256, 3), np.uint8))
    assert (tmp_path / "bomb.npz").stat().st_size < 1e6
    with pytest.raises(OSError, match="to 197 MB"):
        load_arrays(tmp_path / "bomb.npz")
    save_arrays(tmp_path / "large.npz", arr_0=np.zeros(1000))
    free = type("Memory", (), {"available": 1000})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    with pytest.raises(OSError, match="of memory"):
        load_arrays(tmp_path / "large.npz")


def test_code_in_an_archive_is_refused_without_advice_to_run_it(tmp_path):
    np.savez(tmp_path / "a.npz", np.array([print]))
    with pytest.raises(OSError, match="can execute code") as found:
        load_arrays(tmp_path / "a.npz")
    assert "pickle" not in str(found.value)


def test_paths_are_relative_to_the_repository(tmp_path, monkeypatch):
    (tmp_path / "settings.ini").touch()
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    assert run_path("runs") == tmp_path / "runs"

"Files that several processes write, spreadsheets have saved, or a disk has damaged."

import multiprocessing
import os
import time

import numpy as np
import pytest

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


def test_names_that_look_like_numbers_stay_names(tmp_path):
    write_table(tmp_path / "t.csv", [{"class": "007"}])
    assert read_table(tmp_path / "t.csv", numbers=False) == [{"class": "007"}]
    assert read_table(tmp_path / "t.csv") == [{"class": 7}]


def test_tables_as_spreadsheets_write_them(tmp_path):
    for content in (
        "\ufeffa;b\r\n1,5;2\r\n",
        "a\tb\r\n1,5\t2\r\n",
        '\ufeff"a","b"\r\n"1,5","2"\r\n\r\n',
        '"a";"b"\n"1,5";2',
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
        (b"a\n" + b"x" * 200_000, "field larger than"),
    ],
)
def test_what_is_no_table_is_said(tmp_path, content, said):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_table(tmp_path / "t.csv")


def test_rows_that_do_not_fit_are_not_stored(tmp_path):
    for rows in ([], [{"a": 1}, {"b": 2}], [{"a": 1}, {"a": 1, "b": 2}]):
        with pytest.raises(ValueError, match="the same columns"):
            write_table(tmp_path / "t.csv", rows)
    assert not list(tmp_path.iterdir())


def test_markdown_table():
    rows = [{"a": 1, "b": "x|y"}, {"a": 2.5, "b": "two\nlines"}]
    expected = "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n| 2.5 | two lines |"
    assert markdown_table(rows) == expected


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

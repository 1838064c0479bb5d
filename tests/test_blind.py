"The blind test at a small setting: sheets without answers, then answers that count."

from conftest import execute

from rcg.running.files import read_table, write_table


def test_sheets_then_answers(tmp_path):
    small = dict(data="mnist", pairs=4, timesteps=[0, 500], results=str(tmp_path))
    assert "no answers yet" in execute("experiments/blind_test.ipynb", **small)
    folder = tmp_path / "mnist"
    assert (folder / "sheet-1.png").exists() and not (folder / "sheet-2.png").exists()
    key = read_table(folder / "key.csv")
    assert [row["t"] for row in key] == [0, 500, 0, 500]
    assert all({row["A"], row["B"]} == {"vanilla", "robust"} for row in key)

    def answer(row, kind):
        return next(letter for letter in "AB" if row[letter] == kind)

    answers = [  # both judges choose robust three times; they differ on the last pair
        {"rater": rater, "pair": row["pair"]}
        | {"answer": answer(row, "vanilla" if row is key[3] and rater else "robust")}
        for rater in (0, 1)
        for row in key
    ]
    write_table(folder / "answers.csv", answers)
    shown = execute("experiments/blind_test.ipynb", **small)
    assert "8 answers of 2 judges" in shown and "| all | 3 | 0 | 1 |" in shown
    assert "| t = 0 | 2 | 0 | 0 |" in shown and "one: +0.75" in shown

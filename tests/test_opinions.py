"Tables of answers: what is wrong with one is said in a sentence, what is odd is read."

import numpy as np
import pytest

from rcg.running.files import write_table
from rcg.survey.opinions import (
    Opinions,
    Population,
    Variances,
    agreement,
    opinions_from,
    power,
    preference,
    progress_figure,
    read_opinions,
    summarise,
    suspicions,
    variances,
    verdicts,
)

ROWS = [
    dict(rater=rater, pair=pair, chosen=chosen)
    for pair, line in enumerate(("aaab", "asb-", "bbbs", "sss-", "aaba"), 1)
    for rater, letter in zip(("ann", "bob", "cid", "dan"), line)
    if (chosen := {"a": "robust", "b": "vanilla", "s": "same"}.get(letter))
]
FEW = opinions_from(ROWS)
EVE = dict(rater="eve", pair=1)


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "no answers yet"),
        (ROWS + ROWS[:1], "rater ann has more than one answer to pair 1"),
        (ROWS + [EVE | dict(chosen="both")], "there are both, robust, vanilla"),
        ([dict(rater="eve", chosen="same")], "lacks the columns pair"),
        (ROWS + [EVE], "lacks the columns chosen: answer 19 has rater, pair"),
        ([row | dict(seconds="long") for row in ROWS], "the column seconds"),
        ([row | dict(seconds=-1) for row in ROWS], "negative"),
        ([row | dict(answer="both") for row in ROWS], "the column answer"),
        ([row | dict(answered="at noon") for row in ROWS], "the column answered"),
    ],
)
def test_wrong_tables(rows, message):
    with pytest.raises(ValueError, match=message):
        opinions_from(rows)


@pytest.mark.parametrize("chosen", ["both", ""])
def test_a_third_method(chosen):
    with pytest.raises(ValueError, match=f"answer 19 says '{chosen}'"):
        opinions_from(ROWS + [EVE | dict(chosen=chosen)], ("robust", "vanilla"))


def test_spaces_and_capitals():
    spaced = [
        {"Rater ": row["rater"], "PAIR": row["pair"], "Chosen": f" {row['chosen']} "}
        for row in ROWS
    ]
    for row in spaced:
        row["Chosen"] = row["Chosen"].replace("same", "Same")
    assert (opinions_from(spaced).choice == FEW.choice).all()


def test_details():
    details = dict(answer="Left", answered="2026-03-01T12:00+01:00")
    rows = [
        row | details | dict(seconds="" if k else "2.5") for k, row in enumerate(ROWS)
    ]
    found = opinions_from(rows)
    assert (found.side == -1).all()
    assert found.seconds[0] == 2.5 and np.isnan(found.seconds[1:]).all()
    assert found.answered[0] == np.datetime64("2026-03-01T11:00", "ms")


def test_files(tmp_path):
    write_table(tmp_path / "answers.csv", ROWS)
    turned = read_opinions(tmp_path / "answers.csv", ("vanilla", "robust"))
    assert (turned.choice == -FEW.choice).all()
    with pytest.raises(FileNotFoundError, match="there is no"):
        read_opinions(tmp_path / "nothing.csv")


def test_names_stay_names_even_where_they_look_like_numbers(tmp_path):
    names = ("007", "7", "9e99999", "123e4567")
    rows = [dict(rater=name, pair="1", chosen="0.50") for name in names]
    write_table(tmp_path / "odd.csv", rows)
    odd = read_opinions(tmp_path / "odd.csv", ("0.50", "1"))
    assert sorted(odd.raters) == sorted(names) and (odd.choice == 1).all()


def test_raters_without_answers_are_no_raters():
    three = FEW.of(FEW.rater < 3)
    four = Opinions(**vars(three) | dict(raters=list("abcd")))
    assert summarise(three, draws=50).net == summarise(four, draws=50).net


LARGE = Variances(0.2, 0.03, 0.5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Population(0.6, 0.5), "first and second sum to 1.1"),
        (
            lambda: Population(0.3, 0.3, pair=0.7, rater=0.5),
            "pair and rater sum to 1.2",
        ),
        (lambda: Population(-0.1, 0.5), "first is -0.1"),
        (lambda: verdicts(np.ones((1, 3)), 0.4), "lets both"),
        (lambda: verdicts(np.ones((1, 3)), float("nan")), "threshold is nan"),
        (lambda: summarise(FEW.of(FEW.rater == 0)), "two of each are needed"),
        (lambda: summarise(FEW, draws=0), "draws is 0"),
        (lambda: summarise(FEW, level=95), "level is 95"),
        (lambda: preference(FEW.of(FEW.pair == 3)), "two of each are needed"),
        (lambda: variances(FEW.of(FEW.rater == 0)), "two of each are needed"),
        (lambda: power(0.1, 1, 30, LARGE), "two pairs and raters"),
        (lambda: power(0.1, 10, 30, Variances(0, 0, 0)), "answers that differ"),
        (lambda: power(0.1, 10, 30, LARGE, complete=0), "complete is 0"),
        (lambda: agreement([[1, 0, 0], [0, 1, 0]]), "no pair was answered by two"),
        (lambda: suspicions(FEW), "the sides are not known"),
        (lambda: progress_figure(FEW), "the times are not known"),
    ],
)
def test_impossible_questions(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_agreement_about_one_answer_is_not_known():
    assert np.isnan(agreement([[0, 5, 0], [0, 3, 0]]))

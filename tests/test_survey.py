"A survey as raters have it: browsers, several at once, reloads, a killed server."

import json
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter

import psutil
import pytest
import torch
from conftest import execute

from rcg.jobs import SamplingJob, sample_job
from rcg.survey.answers import Answers, answer_rows, give, open_survey, remove_rater
from rcg.survey.making import make_survey, named_classes
from rcg.survey.opinions import opinions_from
from rcg.survey.serving import application

PAIRS = 6
METHODS = ("quokka", "wombat")  # words that no program text has
MINUTE = 60_000  # milliseconds; how long to wait at most, not how long it may take


@pytest.fixture
def survey(tmp_path):
    "Pairs of plain colours: red says which pair it is, green which method."

    def squares(green: int):
        colours = torch.tensor([[10 * k, green, 0] for k in range(PAIRS)]) / 127.5 - 1
        return colours[:, :, None, None].expand(-1, -1, 64, 64), torch.arange(PAIRS)

    samples = dict(zip(METHODS, map(squares, (20, 200))))
    return make_survey(
        tmp_path / "survey", samples, PAIRS, names=[f"thing {k}" for k in range(PAIRS)]
    )


class Server:
    "The command that serves a survey."

    def __init__(self, folder, log, *options: str):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.folder, self.log, self.options = folder, log, options
        self.address = f"http://127.0.0.1:{self.port}/"

    def start(self):
        "Start it and wait until it listens."
        command = [
            sys.executable,
            "-m",
            "rcg.survey",
            "serve",
            str(self.folder),
            "--port",
            str(self.port),
            *self.options,
        ]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while True:
            assert self.process.poll() is None, self.log.read_text()
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)

    def kill(self):
        "What cannot be caught."
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(survey, tmp_path):
    server = Server(survey.folder, tmp_path / "server.log")
    server.start()
    yield server
    server.kill()


class Rater:
    "A person with a browser."

    def __init__(self, browser, address: str, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.heard, self.asked = [], []  # what the server said; addresses
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("response", self._listen)
        self.page.goto(address)

    def _listen(self, response):
        kind = response.headers.get("content-type", "")
        if kind.startswith(("text/", "application/json")):
            self.heard.append(response.text())

    def agree(self):
        self.page.locator("button.agree").click(timeout=MINUTE)

    def wait_for(self, number: int):
        "Wait for the pair at a place and its images."
        self.page.get_by_text(f"{number} of {PAIRS}").wait_for(timeout=MINUTE)
        self.page.locator("button.answer.same:enabled").wait_for(timeout=MINUTE)

    def colours(self) -> list[list[int]]:
        "Red and green of the two images, from left to right."
        read = """images => images.map(image => {
            const canvas = document.createElement("canvas");
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            return Array.from(context.getImageData(0, 0, 1, 1).data).slice(0, 2);
        })"""
        return self.page.locator(".pair img").evaluate_all(read)

    def side_of(self, method: str) -> str:
        "Where a method's image is."
        greens = [green for _, green in self.colours()]
        return ("left", "right")[
            greens.index({METHODS[0]: 20, METHODS[1]: 200}[method])
        ]

    def choose(self, side: str):
        "Press the key."
        self.page.keyboard.press(
            {"left": "ArrowLeft", "same": "ArrowDown", "right": "ArrowRight"}[side]
        )


def rows_of(survey) -> dict[int, list[dict]]:
    "What is stored, by rater, in the order of their answers."
    rows = {}
    for row in answer_rows(survey):
        rows.setdefault(row["rater"], []).append(row)
    return rows


def test_raters_in_browsers(browser, survey, server, tmp_path):
    ann, bob, cid = (
        Rater(browser, server.address, viewport={"width": 1100, "height": 760})
        for _ in range(3)
    )
    dan = Rater(
        browser,
        server.address,
        viewport={"width": 375, "height": 667},
        has_touch=True,
        is_mobile=True,
    )
    people = (ann, bob, cid, dan)  # numbered 1, 2, 3, 4 as they agree
    for k, rater in enumerate(people):
        rater.agree()
        rater.wait_for(1)
        assert Answers(survey).next_place(k + 1) == 1
    ann.page.screenshot(path=tmp_path / "desktop.png")
    dan.page.screenshot(path=tmp_path / "phone.png")
    for rater in (ann, dan):
        boxes = [
            image.bounding_box() for image in rater.page.locator(".pair img").all()
        ]
        assert (
            all(abs(boxes[0][k] - boxes[1][k]) < 0.1 for k in ("width", "height", "y"))
            and boxes[0]["width"] > 100
        )
        assert rater.page.evaluate(
            "document.documentElement.scrollWidth <= innerWidth"
        ), "the page is wider than the screen"

    for place in (1, 2, 3):  # all four at once
        for rater in people:
            rater.wait_for(place)
            reds = [red for red, _ in rater.colours()]
            assert (
                reds[0] == reds[1]
                and rater.page.locator("h2").inner_text() == f"thing {reds[0] // 10}"
            )
        side = ann.side_of(METHODS[0])
        for _ in range(2):
            ann.choose(side)
            ann.page.wait_for_timeout(150)
        bob.page.locator(f"button.{bob.side_of(METHODS[1])}").click()
        cid.choose("same")
        box = dan.page.locator(f"button.{dan.side_of(METHODS[0])}").bounding_box()
        for _ in range(2):  # a double click, the second half of it on the next pair
            dan.page.mouse.click(box["x"] + 5, box["y"] + 5)
            dan.page.wait_for_timeout(150)
    for rater in people:
        rater.wait_for(4)
    assert {rater: len(rows) for rater, rows in rows_of(survey).items()} == {
        1: 3,
        2: 3,
        3: 3,
        4: 3,
    }

    before = bob.colours()
    bob.page.reload()
    bob.wait_for(4)
    assert bob.colours() == before, "after reloading, the same pair with the same sides"

    eve = Rater(browser, server.address)
    eve.agree()
    eve.wait_for(1)
    eve.choose("same")
    server.kill()  # while the answer is on its way, or just stored
    cid.choose("same")
    cid.page.get_by_text("There is no connection").wait_for(timeout=MINUTE)
    stored = {rater: len(rows) for rater, rows in rows_of(survey).items()}
    acknowledged = int(eve.page.get_by_text(f"2 of {PAIRS}").count())
    assert acknowledged <= stored.pop(5, 0) <= 1
    assert stored == {1: 3, 2: 3, 3: 3, 4: 3}, (
        "no answer that was not acknowledged, none lost"
    )
    server.start()
    cid.wait_for(5)  # the page has kept its answer and sends it by itself
    eve.page.reload()
    eve.wait_for(1 + len(rows_of(survey).get(5, [])))
    eve.context.close()
    for rater in (ann, bob, dan):
        rater.page.reload()
        rater.wait_for(4)
    for place in range(4, PAIRS + 1):
        for rater, method in zip(people, (*METHODS, "same", METHODS[0])):
            if (rater, place) == (cid, 4):
                continue
            rater.wait_for(place)
            rater.choose("same" if method == "same" else rater.side_of(method))
    for rater in people:
        rater.page.get_by_text("Thank you").wait_for(timeout=MINUTE)

    ann.page.locator("button.back").click()
    ann.wait_for(PAIRS)
    assert "given" in ann.page.locator(
        f"button.{ann.side_of(METHODS[0])}"
    ).get_attribute("class")
    ann.choose("same")
    ann.page.get_by_text("Thank you").wait_for(timeout=MINUTE)
    ann.page.screenshot(path=tmp_path / "thanks.png")

    rows = {rater: answers for rater, answers in rows_of(survey).items() if rater != 5}
    expected = {
        1: [METHODS[0]] * 5 + ["same"],
        2: [METHODS[1]] * 6,
        3: ["same"] * 6,
        4: [METHODS[0]] * 6,
    }
    assert {
        rater: [row["chosen"] for row in answers] for rater, answers in rows.items()
    } == expected
    assert {
        rater: [row["place"] for row in answers] for rater, answers in rows.items()
    } == {r: [*range(1, PAIRS + 1)] for r in rows}
    assert all(
        sorted(row["pair"] for row in answers) == list(range(PAIRS))
        for answers in rows.values()
    )
    assert [row["corrections"] for row in rows[1]] == [0] * 5 + [1] and all(
        0 < row["seconds"] < 600 for row in rows[1]
    )

    for rater in people:
        heard = "\n".join(rater.heard)
        assert "thing 3" in heard and not any(
            word in heard for word in (*METHODS, survey.key, survey.folder.name + "/")
        )
        assert all(
            url.startswith((server.address, "blob:", "data:")) for url in rater.asked
        ), "asked another host"
        rater.context.close()


def test_the_server_gives_nothing_away(browser, survey, server):
    listening = [
        c
        for c in psutil.Process(server.process.pid).net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr.port == server.port
    ]
    assert [c.laddr.ip for c in listening] == ["127.0.0.1"]
    image = next((survey.folder / "images").iterdir()).name
    for path in ("survey.json", "answers.sqlite", f"images/{image}", "page.py"):
        for prefix in ("", "../", "%2e%2e/", "static/", "static/../", "//etc/../"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(server.address + prefix + path)
            assert refused.value.code == 404
            assert str(survey.folder) not in refused.value.read().decode()
    assert survey.database.stat().st_mode & 0o077 == 0
    foreign = urllib.request.Request(server.address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="421"):
        urllib.request.urlopen(foreign)
    with urllib.request.urlopen(server.address) as page:
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]


HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_hostile_visitors_stop_nobody_else(browser, survey, server):
    ann = Rater(browser, server.address)
    ann.agree()
    ann.wait_for(1)
    process = psutil.Process(server.process.pid)
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(600)]
    for k, connection in enumerate(sockets):
        start = HANDSHAKE.format(path=("/", "/next", "/api/kernels/1/channels")[k % 3])
        text = b"\x81\x85\x00\x00\x00\x00hello"  # a frame of a websocket
        connection.sendall((start.encode() + text, b"POST /next HTTP/1.1\r\n")[k % 2])
    with urllib.request.urlopen(server.address) as page:  # others are served
        assert page.status == 200
    for place in range(1, PAIRS + 1):
        ann.wait_for(place)
        ann.choose("same")
    ann.page.get_by_text("Thank you").wait_for(timeout=MINUTE)
    assert process.memory_info().rss < 1e9 and server.process.poll() is None
    for connection in sockets:
        connection.close()
    for body in (b"x" * 10**6, b"[" * 4000, b'["a list"]'):
        with pytest.raises(OSError):  # an answer 400, or a closed connection
            urllib.request.urlopen(
                urllib.request.Request(
                    f"{server.address}answer",
                    body,
                    {"Content-Type": "application/json"},
                )
            )
    assert len(answer_rows(survey)) == PAIRS
    ann.context.close()


def test_a_survey_that_is_full(browser, survey, tmp_path):
    server = Server(survey.folder, tmp_path / "server.log", "--raters", "1")
    server.start()
    ann, bob = (Rater(browser, server.address) for _ in range(2))
    ann.agree()
    ann.wait_for(1)
    ann.choose("same")
    ann.wait_for(2)
    bob.agree()
    bob.page.get_by_text("have taken part already").wait_for(timeout=MINUTE)
    ann.page.reload()
    ann.wait_for(2)
    server.kill()
    for rater in (ann, bob):
        rater.context.close()


def test_who_agrees_and_leaves_makes_room(survey):
    answers = Answers(survey)
    raters = lambda: [r for r in range(1, 300) if _joined(answers, r)]
    for _ in range(20):  # one client that agrees again and again
        assert answers.join(most=5, patience=0.0)
    assert raters() == [16, 17, 18, 19, 20]
    assert answers.join(most=5) == ""  # they have half a minute for an answer
    honest = [answers.rater(answers.join(most=5, patience=0.0)) for _ in range(4)]
    for rater in honest:
        assert give(answers, rater, 1, "same", 1.0)
    last = [answers.rater(answers.join(most=5, patience=0.0)) for _ in range(3)][-1]
    assert raters() == [*honest, last]
    assert give(answers, last, 1, "left", 1.0)
    assert answers.join(most=5, patience=0.0) == ""


def _joined(answers: Answers, rater: int) -> bool:
    with answers.transaction() as db:
        query = "SELECT COUNT(*) FROM raters WHERE rater = ?"
        return db.execute(query, [rater]).fetchone()[0] == 1


def test_two_hundred_raters_who_answer(survey):
    answers = Answers(survey)
    raters = [answers.rater(answers.join(most=200)) for _ in range(200)]
    assert all(give(answers, rater, 1, "same", 1.0) for rater in raters)
    assert answers.join(most=200, patience=0.0) == ""
    assert len(answer_rows(survey)) == 200


def test_numbers_that_nobody_has(survey):
    answers = Answers(survey)
    for read in (
        lambda n: answers.task(n, 1),
        answers.next_place,
        lambda n: answers.given(n, 1),
        lambda n: give(answers, n, 1, "same", 1.0),
        lambda n: remove_rater(answers, n),
    ):
        with pytest.raises(ValueError, match="rater is 1000"):
            read(10**30)
    for missing in (lambda: answers.task(99, 1), lambda: remove_rater(answers, 99)):
        with pytest.raises(ValueError, match="no (place 1 of a )?rater 99"):
            missing()


@pytest.mark.parametrize("base_url", ["/(a", "/a+b/", "*"])
def test_any_path_can_be_the_page(survey, base_url):
    assert application(Answers(survey), base_url=base_url)


def test_a_survey_of_two_runs(tmp_path):
    "As jobs leave them: the guidance may differ, and nothing else."
    known = dict(denoiser="digits-denoiser", preset="digits", images=2, sampler="ddim")
    runs = {name: tmp_path / name for name in ("robust", "unguided", "longer")}
    guided = dict(classifier="digits-robust", scale=2.0)
    for folder, how in zip(runs.values(), (guided, {}, guided | dict(steps=4))):
        sample_job(SamplingJob(str(folder), **dict(steps=2) | known | how))
    two = lambda *names: {name: runs[name] for name in names}
    made = make_survey(tmp_path / "survey", two("robust", "unguided"), 2)
    assert sorted(pair.label for pair in made.pairs) == ["0", "1"]
    with pytest.raises(ValueError, match=r"other settings \(solver.steps was 2, is 4"):
        make_survey(tmp_path / "other", two("robust", "longer"), 2)


@pytest.mark.parametrize("names", ["nofile.txt", "."])
def test_a_file_of_names_that_is_none(tmp_path, names):
    with pytest.raises(OSError, match="there is no file|is a folder"):
        named_classes(tmp_path / names)
    assert named_classes("Imagenet")[0] == "tench"


def test_names_of_classes_as_editors_store_them(tmp_path):
    words = "\ufeffcat\r\none\u2028two\r\n\r\n"
    (tmp_path / "names.txt").write_text(words, encoding="utf-8", newline="")
    assert named_classes(tmp_path / "names.txt") == ["cat", "one\u2028two"]


def test_a_survey_on_a_full_disk(tmp_path):
    "Files of more than 100 bytes cannot be written."
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    samples = {m: _noise(k) for k, m in enumerate(METHODS)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="png could not be written, nothing is store"):
            make_survey(tmp_path / "survey", samples, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_cells_without_a_value_are_no_method(nothing):
    rows = [dict(rater=1, pair=k, chosen=m) for k, m in enumerate(METHODS)]
    for column in ("rater", "pair", "chosen"):
        with pytest.raises(ValueError, match=f"answer 3 has no {column}"):
            opinions_from(
                [*rows, dict(rater=2, pair=1, chosen="same") | {column: nothing}]
            )


def test_a_time_outside_the_calendar():
    late = dict(answered="9999-12-31T23:59:59-12:00")
    rows = [dict(rater=1, pair=k, chosen=m) | late for k, m in enumerate(METHODS)]
    with pytest.raises(ValueError, match="column answered has values"):
        opinions_from(rows)


GIVE = """
import json, sys, time
from rcg.survey.answers import Answers, give, open_survey
answers = Answers(open_survey(sys.argv[1]))
rater = answers.rater(answers.join())
for place in range(1, len(answers.survey.pairs) + 1):
    assert give(answers, rater, place, "left", 1.0)
    print(json.dumps([rater, place]), flush=True)  # the receipt
    time.sleep(float(sys.argv[2]))
"""


def test_many_processes_at_once_and_some_killed(survey):
    many = make_survey(
        survey.folder.with_name("many"),
        {m: _noise(k) for k, m in enumerate(METHODS)},
        60,
    )
    pauses = [0.2] * 2 + [
        0.0
    ] * 4  # those that are to be killed are slow, so that they are not done before
    commands = [
        [sys.executable, "-c", GIVE, str(many.folder), str(pause)] for pause in pauses
    ]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    lines = []
    for process in running[:2]:
        lines += [process.stdout.readline() for _ in range(10)]
        process.kill()
    for process in running:
        lines += process.communicate()[0].splitlines()
    receipts = {tuple(json.loads(line)) for line in lines}
    assert [process.returncode for process in running] == [-signal.SIGKILL] * 2 + [
        0
    ] * 4
    rows = Counter(
        (row["rater"], row["place"]) for row in answer_rows(open_survey(many.folder))
    )
    assert set(rows.values()) == {1} and receipts <= rows.keys()
    assert len(rows) <= len(receipts) + 2, (
        "the killed ones may each have stored one that they had no time to acknowledge"
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    "A folder for a survey, which the first test that needs it makes."
    return tmp_path_factory.mktemp("drawn") / "survey"


@pytest.mark.parametrize("raters", [0, 1, 3])
def test_results_of_few_raters(drawn, raters):
    values = dict(folder=str(drawn), pairs=4, rehearse=raters)
    shown = execute("survey/opinion_survey.ipynb", **values)
    assert ("nobody has answered yet: python" in shown) == (raters == 0)
    assert ("two raters and two pairs are needed" in shown) == (raters == 1) and (
        "| all SIMULATED raters |" in shown
    ) == (raters == 3)


def _noise(seed: int):
    images = (
        torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    )
    return images, torch.arange(60)

"The sliders of the static page, in a browser, as the notebook was committed."

import nbformat
import pytest
from conftest import ROOT

PIXELS = """() => {
    const c = document.getElementById("taste-canvas"), g = c.getContext("2d");
    const half = c.height / 2;
    const rows = [0, half].map(y => g.getImageData(0, y, c.width, half));
    return rows.map(r => Array.from(r.data).join());
}"""  # of the upper and of the lower half


@pytest.fixture
def taste(browser, tmp_path):
    "The page, made of the notebook's output and the style sheet of the site."
    path = ROOT / "nbs" / "taste.ipynb"
    assert path.stat().st_size < 500_000
    cells = nbformat.read(path, as_version=4).cells
    outputs = [o for c in cells for o in c.get("outputs", [])]
    (html,) = [o.data["text/html"] for o in outputs if "text/html" in o.get("data", {})]
    style = (ROOT / "nbs" / "styles.css").read_text()
    head = f'<meta name="viewport" content="width=device-width"><style>{style}</style>'
    file = tmp_path / "taste.html"
    file.write_text(f"<!doctype html><meta charset=utf-8>{head}<main>{html}</main>")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    faults = []
    page.on("pageerror", lambda fault: faults.append(fault))
    page.goto(file.as_uri())
    page.wait_for_function("document.getElementById('taste-t').textContent")
    yield page
    assert not faults
    page.close()


def test_sliders_choose_the_picture(taste):
    t, s = taste.locator("#taste-t-slider"), taste.locator("#taste-s-slider")
    assert taste.locator("#taste-t").inner_text() == "t = 0"  # the finished sample
    finished = taste.evaluate(PIXELS)
    t.focus()
    taste.keyboard.press("Home")  # almost pure noise
    assert taste.locator("#taste-t").inner_text() == "t = 999"
    assert taste.evaluate(PIXELS) != finished
    taste.keyboard.press("End")
    assert taste.evaluate(PIXELS) == finished
    s.focus()
    taste.keyboard.press("End")
    strongest = taste.evaluate(PIXELS)
    assert strongest != finished and strongest[0] != strongest[1]
    taste.keyboard.press("Home")
    above, below = taste.evaluate(PIXELS)
    assert taste.locator("#taste-s").inner_text() == "s = 0"
    assert above == below != strongest[0], "without guidance the classifiers are equal"


def test_no_wider_than_a_phone(taste):
    assert taste.evaluate("document.documentElement.scrollWidth") <= 390
    assert taste.locator("#taste-canvas").bounding_box()["width"] > 300

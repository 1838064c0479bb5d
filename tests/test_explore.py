"The laboratory as a reader has it: in JupyterLab, in a browser."

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

MINUTES = 60_000  # milliseconds; how long to wait at most, not how long it may take


@pytest.fixture
def jupyter(tmp_path):
    "A running JupyterLab with the laboratory; yields its address and folder."
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = (ROOT / "nbs" / "explore.ipynb").read_text()
    small = notebook.replace('networks = \\"mnist\\"', 'networks = \\"digits\\"')
    assert small != notebook  # the smallest networks are enough here
    (folder / "explore.ipynb").write_text(small)
    settings = {  # cells out of sight stay in the page; nobody is asked about news
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false"},
    }
    for name, values in settings.items():
        file = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    places = dict(
        JUPYTERLAB_SETTINGS_DIR=tmp_path / "settings",
        JUPYTER_CONFIG_DIR=tmp_path / "config",
        IPYTHONDIR=tmp_path / "ipython",
    )
    options = [
        f"--port={port}",
        "--ip=127.0.0.1",
        "--no-browser",
        "--allow-root",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
    ]
    log = open(tmp_path / "server.log", "w")
    environment = os.environ | {k: str(v) for k, v in places.items()}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        stdout=log,
        stderr=log,
        env=environment,
    )
    address = f"http://127.0.0.1:{port}"
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api").close()
            break
        except OSError:
            time.sleep(0.3)
    assert server.poll() is None, (tmp_path / "server.log").read_text()
    yield address, folder
    server.terminate()
    server.wait()


class ExplorerOnPage:
    "One explorer: its picture, its status and its controls."

    def __init__(self, page, number: int):
        self.page = page
        self.box = page.locator(".widget-vbox:has(> img.rcg-picture)").nth(number)
        self.status = self.box.locator("> .widget-html .widget-html-content")

    def picture(self) -> str:
        "The bytes of the picture, as a text to compare."
        read = """async image => {
            const bytes = await (await fetch(image.src)).arrayBuffer();
            return Array.from(new Uint8Array(bytes)).join();
        }"""
        return self.box.locator("> img.rcg-picture").evaluate(read)

    def wait_for_another(self, picture: str):
        "Wait until another picture is shown. Raises `AssertionError` if none comes."
        end = time.monotonic() + 5 * MINUTES / 1000
        while self.picture() == picture:
            assert time.monotonic() < end, "the picture stays as it is"
            self.page.wait_for_timeout(200)

    def wait_for(self, pattern: str):
        "Wait until the status line matches."
        script = "([e, pattern]) => new RegExp(pattern).test(e.textContent)"
        self.page.wait_for_function(
            script, arg=[self.status.element_handle(), pattern], timeout=5 * MINUTES
        )

    def upload(self, path: Path):
        "Choose a file with the button."
        with self.page.expect_file_chooser() as chooser:
            self.box.get_by_role("button", name="Upload").click()
        chooser.value.set_files(path)

    def slider(self, name: str):
        "The handle of a slider."
        return self.box.locator(
            ".widget-slider", has=self.page.locator(f'label:text-is("{name}")')
        ).locator(".noUi-handle")


def test_laboratory_in_jupyterlab(browser, jupyter, tmp_path):
    address, folder = jupyter
    page = browser.new_page(viewport={"width": 1300, "height": 1500})
    page.goto(f"{address}/lab/tree/explore.ipynb")
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=5 * MINUTES)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=5 * MINUTES)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("[data-command='runmenu:run-all']").click()
    page.wait_for_function(
        "document.querySelectorAll('img.rcg-picture').length == 3", timeout=5 * MINUTES
    )
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=5 * MINUTES)
    gradient, attack, guidance = (ExplorerOnPage(page, k) for k in range(3))

    for explorer, slider in ((gradient, "t"), (attack, "steps"), (guidance, "scale s")):
        explorer.wait_for(r"\d s$")
        before = explorer.picture()
        handle = explorer.slider(slider)
        handle.focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        explorer.wait_for_another(before)
        for _ in range(3):
            page.keyboard.press("ArrowLeft")
        explorer.wait_for("from memory")
        assert explorer.picture() == before
        handle.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / f"{slider.replace(' ', '-')}.png")

    (tmp_path / "notes.png").write_text("no picture")
    gradient.upload(tmp_path / "notes.png")
    gradient.wait_for("notes.png cannot be read as an image")
    Image.radial_gradient("L").save(tmp_path / "ring.png")
    gradient.upload(tmp_path / "ring.png")
    gradient.wait_for(r"\d s$")
    page.screenshot(path=tmp_path / "upload.png")

    guidance.slider("steps").focus()
    page.keyboard.press("End")  # 250 steps
    guidance.wait_for("working")
    guidance.box.get_by_role("button", name="Stop").click()
    guidance.wait_for("stopped")
    guidance.box.get_by_role("button", name="all scales").click()
    guidance.slider("steps").focus()
    page.keyboard.press("Home")  # 5 steps
    guidance.wait_for(r"\d s$")
    guidance.box.get_by_role("button", name="Save").click()
    guidance.wait_for(r"saved to .*guidance\.png")
    assert Image.open(folder / "guidance.png").size[0] == 900
    page.screenshot(path=tmp_path / "strip.png")

    kinds = (
        f"[data-mime-type='application/vnd.jupyter.{k}']" for k in ("error", "stderr")
    )
    errors = page.locator(", ".join(kinds))
    assert errors.all_inner_texts() == []
    assert (
        page.locator(".jp-OutputArea-output img:not(.rcg-picture)").count() >= 3
    )  # the still pictures
    page.close()

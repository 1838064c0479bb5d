"Networks in folders and on a server that answers as the Hub does."

import base64
import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file

from rcg.checkpoints import card, load_classifier, load_unet
from rcg.classifier import Classifier
from rcg.diffusion import Diffusion
from rcg.guidance import sample
from rcg.running.hub import run_card
from rcg.unet import UNet


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(k == n and x.equal(y) for (k, x), (n, y) in pairs)


@pytest.mark.parametrize("kind", [UNet, Classifier])
def test_a_folder_there_and_back(kind, tmp_path):
    load, name = {
        UNet: (load_unet, "digits-denoiser"),
        Classifier: (load_classifier, "digits-robust"),
    }[kind]
    network = load(name)
    network.save_pretrained(tmp_path, card(name))
    again = kind.from_pretrained(tmp_path)
    assert again.config == network.config and same(again, network)
    assert not again.training and again.out[2].training is False
    assert card(name) in (tmp_path / "README.md").read_text()


NAMES = [f"digit {k}, or so" for k in range(10)]


@pytest.mark.parametrize("kind", [UNet, Classifier])
def test_names_of_classes_there_and_back(kind, tmp_path):
    unet, classifier = load_unet("digits-denoiser"), load_classifier("digits-robust")
    network = {UNet: unet, Classifier: classifier}[kind]
    network.class_names = NAMES
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["id2label"]["7"] == NAMES[7]
    assert ", ".join(NAMES) in (tmp_path / "README.md").read_text()
    again = kind.from_pretrained(tmp_path)
    assert again.class_names == NAMES
    unet.class_names = classifier.class_names = None
    networks = {UNet: (again, classifier), Classifier: (unet, again)}[kind]
    how = dict(steps=2, seeds=[5], shape=(1, 8, 8))
    named, numbered = (
        sample(networks[0], Diffusion(), labels, networks[1], 1.0, **how)
        for labels in (NAMES[3:4], torch.tensor([3]))
    )
    assert named.equal(numbered)
    network.class_names = NAMES[:9]
    with pytest.raises(ValueError, match="id2label has 9 names: it must have one for"):
        network.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()


CONFIGS = {
    "": "config.json is not valid JSON",
    "{": "config.json is not valid JSON",
    "[]": "config.json does not hold what it should",
    '{"classes": 10}': "config.json does not describe.*needs image_size",
    '{"image_size": "x"}': "config.json does not describe.*image_size is 'x'",
    '{"image_size": 8, "sample_size": 8}': "config.json.*no setting 'sample_size'",
    '{"image_size": 8, "id2label": {"0": "a"}}': "config.json.*id2label has 1 names",
    '{"image_size": 8, "id2label": ["a"]}': r"config.json.*id2label is \['a'\]",
    '{"image_size": 8, "width": 64}': "weights in .*model.safetensors are not those",
}


@pytest.mark.parametrize("config, message", CONFIGS.items())
def test_settings_that_are_none(tmp_path, config, message):
    load_classifier("digits-robust").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises((OSError, ValueError), match=message):
        Classifier.from_pretrained(tmp_path)


def test_weights_that_are_none(tmp_path):
    network = load_classifier("digits-robust")
    network.save_pretrained(tmp_path)
    assert "Nothing is recorded" in (tmp_path / "README.md").read_text()
    file = tmp_path / "model.safetensors"
    whole, weights = file.read_bytes(), load_file(file)
    for content, message in {
        b"": "is not a whole safetensors file",
        whole[:-9]: "is not a whole safetensors file",
        whole[:-9] + bytes(9): "its checksum is wrong",
    }.items():
        file.write_bytes(content)
        with pytest.raises(OSError, match=f"model.safetensors.* {message}"):
            Classifier.from_pretrained(tmp_path)
    save_file({k: v for k, v in weights.items() if "out" not in k}, file)
    with pytest.raises(ValueError, match="are not those of this Classifier"):
        Classifier.from_pretrained(tmp_path)
    save_file({k: v + torch.inf for k, v in weights.items()}, file)
    with pytest.raises(ValueError, match="weights that are not finite numbers"):
        Classifier.from_pretrained(tmp_path)
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"has no {name}"):
            Classifier.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder .*and no reposit"):
        Classifier.from_pretrained(file)


def test_the_records_of_a_run_need_a_run(tmp_path):
    with pytest.raises(OSError, match="settings.json"):
        run_card(tmp_path)
    (tmp_path / "settings.json").write_text('{"kind": "samples"}')
    with pytest.raises(OSError, match="settings.json does not hold.*classes"):
        run_card(tmp_path)


class Hub(BaseHTTPRequestHandler):
    "Keeps the files of one commit, which come in the request itself."

    files: dict[str, bytes] = {}
    revision = "0" * 40

    def reply(self, body=b"", status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, json_type = self.path, dict(Content_Type="application/json")
        if path.endswith("/repos/create"):
            self.reply({"url": f"http://{self.headers['Host']}/me/digits"}, **json_type)
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(sent)["files"]]
            kinds = [
                {"path": n, "uploadMode": "regular", "shouldIgnore": False}
                for n in names
            ]
            self.reply({"files": kinds}, **json_type)
        elif "/commit/" in path:
            lines = [json.loads(line) for line in sent.splitlines()]
            for line in (line["value"] for line in lines if line["key"] == "file"):
                self.files[line["path"]] = base64.b64decode(line["content"])
            url = f"http://{self.headers['Host']}/me/digits/commit/1"
            reply = {"success": True, "commitUrl": url, "commitOid": self.revision}
            self.reply(reply, **json_type)
        else:
            self.reply({}, **json_type)

    def do_GET(self):
        name = self.path.partition("/resolve/main/")[2]
        if not name:
            return self.reply({"sha": self.revision, "id": "me/digits", "siblings": []})
        if name not in self.files:
            return self.reply(status=404, X_Error_Code="EntryNotFound")
        tag = hashlib.sha256(self.files[name]).hexdigest()
        headers = dict(ETag=f'"{tag}"', X_Repo_Commit=self.revision)
        return self.reply(self.files[name], **headers)

    do_HEAD = do_GET

    def log_message(self, *_):
        "Quiet."


PUSH_AND_PULL = """
from rcg.checkpoints import load_classifier
from rcg.classifier import Classifier
network = load_classifier("digits-robust")
network.class_names = list("abcdefghij")
network.push_to_hub("me/digits", "by hand", token="hf_x")
again = Classifier.from_pretrained("me/digits", token=False)
pairs = zip(network.parameters(), again.parameters(), strict=True)
print("same:", all(a.equal(b) for a, b in pairs), again.class_names)
"""


def test_the_hub(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_port}"
    surroundings = os.environ | {"HF_ENDPOINT": where, "HF_HOME": str(tmp_path)}
    surroundings |= {"no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", PUSH_AND_PULL],
        env=surroundings,
        capture_output=True,
        text=True,
    )
    server.shutdown()
    assert "same: True ['a', 'b'," in run.stdout, run.stderr
    assert set(Hub.files) == {"README.md", "config.json", "model.safetensors"}
    assert b"by hand" in Hub.files["README.md"]


def test_a_network_does_without_the_hub():
    code = "import sys, rcg.classifier; sys.exit('huggingface_hub' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", code]).returncode

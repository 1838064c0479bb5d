"Downloads from a server that misbehaves: nothing is lost, and nothing is mixed."

import hashlib
import http.server
import threading
import time

import pytest
from filelock import FileLock

from rcg.running.downloads import download, sha256, verify

CONTENT = bytes(range(256)) * 20_000  # 5 MB


class Server(http.server.ThreadingHTTPServer):
    @property
    def tag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


class Handler(http.server.BaseHTTPRequestHandler):
    "Serves `content`, at most `limit` bytes per request, ranges only if `ranges`."

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers["Range"])
        if self.path != "/weights.pt":
            return self.send_error(404)
        tag, start = server.tag, 0
        if server.ranges and self.headers["Range"] and self.headers["If-Range"] == tag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                return self.send_error(416)
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Type", server.type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.limit])
        if server.limit < len(body):
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server(("127.0.0.1", 0), Handler)
    server.content, server.limit, server.ranges, server.requests = (
        CONTENT,
        len(CONTENT),
        True,
        [],
    )
    server.type = "application/octet-stream"
    server.url = f"http://127.0.0.1:{server.server_port}/weights.pt"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_once_is_enough(server, tmp_path):
    for _ in range(2):
        path = download(server.url, tmp_path / "sub" / "weights.pt", quiet=True)
    assert path.read_bytes() == CONTENT and server.requests == [None]
    files = {p.name for p in path.parent.iterdir() if not p.name.startswith(".")}
    assert files == {"weights.pt", "weights.pt.sha256"}
    assert (path.parent / "weights.pt.sha256").read_text().strip() == hashlib.sha256(
        CONTENT
    ).hexdigest()


def test_broken_connections_are_resumed(server, tmp_path):
    server.limit = 2_000_000
    path = download(server.url, tmp_path / "weights.pt", quiet=True)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=2000000-", "bytes=4000000-"]


def test_giving_up_keeps_what_there_is(server, tmp_path):
    server.limit = 1_000_000
    with pytest.raises(
        RuntimeError,
        match="broke off after 1000000 of 5120000 bytes.*Run this again to go on",
    ):
        download(server.url, tmp_path / "weights.pt", tries=1, quiet=True)
    server.limit = 0
    with pytest.raises(RuntimeError, match="1000000 bytes are kept"):
        download(server.url, tmp_path / "weights.pt", tries=2, quiet=True)
    assert not (tmp_path / "weights.pt").exists() and len(server.requests) == 3
    server.limit = len(CONTENT)
    assert (
        download(server.url, tmp_path / "weights.pt", quiet=True).read_bytes()
        == CONTENT
    )
    assert server.requests[-1] == "bytes=1000000-"


def test_killed_between_the_last_byte_and_the_name(server, tmp_path):
    download(server.url, tmp_path / "weights.pt", quiet=True)
    (tmp_path / "weights.pt").rename(tmp_path / "weights.pt.part")
    (tmp_path / "weights.pt.tag").write_text(server.tag)
    assert (
        download(server.url, tmp_path / "weights.pt", quiet=True).read_bytes()
        == CONTENT
    )
    assert server.requests == [None, "bytes=5120000-", None]


def test_of_two_downloads_at_once_the_second_waits(server, tmp_path, capsys):
    path, found = tmp_path / "weights.pt", []
    with FileLock(tmp_path / ".weights.pt.lock"):
        second = threading.Thread(
            target=lambda: found.append(download(server.url, path, quiet=True))
        )
        second.start()
        while "waiting for another process" not in capsys.readouterr().out:
            time.sleep(0.01)
        assert server.requests == [] and not found
    second.join()
    assert found == [path] and path.read_bytes() == CONTENT


def test_a_file_that_changes_half_way_is_not_mixed(server, tmp_path):
    server.limit = 1_000_000
    with pytest.raises(RuntimeError):
        download(server.url, tmp_path / "weights.pt", tries=1, quiet=True)
    server.content, server.limit = CONTENT[::-1], len(CONTENT)
    assert (
        download(server.url, tmp_path / "weights.pt", quiet=True).read_bytes()
        == CONTENT[::-1]
    )


@pytest.mark.parametrize("tag", [b"\xff\xfe", b"a\nb", b""])
def test_a_damaged_version_begins_anew(server, tmp_path, tag):
    (tmp_path / "weights.pt.part").write_bytes(b"half")
    (tmp_path / "weights.pt.tag").write_bytes(tag)
    path = download(server.url, tmp_path / "weights.pt", quiet=True)
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges(server, tmp_path):
    server.ranges, server.limit = False, 1_000_000
    with pytest.raises(RuntimeError):
        download(server.url, tmp_path / "weights.pt", tries=1, quiet=True)
    server.limit = len(CONTENT)
    assert (
        download(server.url, tmp_path / "weights.pt", quiet=True).read_bytes()
        == CONTENT
    )


def test_another_file_than_the_first_time_is_refused(server, tmp_path):
    path = download(server.url, tmp_path / "weights.pt", quiet=True)
    path.unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(OSError, match="instead of .*delete it"):
        download(server.url, path, quiet=True)
    assert not path.exists()


def test_the_page_of_a_proxy_is_no_file(server, tmp_path):
    server.type, server.content = "text/html; charset=utf-8", b"<html>Sign in</html>"
    with pytest.raises(RuntimeError, match="a page came in its stead.*put it at"):
        download(server.url, tmp_path / "weights.pt", tries=1, quiet=True)
    assert not (tmp_path / "weights.pt").exists()
    assert not (tmp_path / "weights.pt.sha256").exists()
    server.type, server.content = "application/octet-stream", CONTENT
    path = download(server.url, tmp_path / "weights.pt", quiet=True)
    assert path.read_bytes() == CONTENT


def test_missing_on_the_server(server, tmp_path):
    with pytest.raises(RuntimeError, match="404.*put it at"):
        download(
            server.url.replace("weights", "nothing"),
            tmp_path / "nothing.pt",
            quiet=True,
        )
    assert len(server.requests) == 1  # no use in asking again


@pytest.mark.parametrize(
    "written",
    [b"%s  weights.pt\n", b"\xef\xbb\xbf%s", b"SHA256 (weights.pt) = %s", b"sha256:%s"],
)
def test_checksums_as_others_write_them(tmp_path, written):
    path, record = tmp_path / "weights.pt", tmp_path / "weights.pt.sha256"
    path.write_bytes(CONTENT)
    found = sha256(path)
    record.write_bytes(written % found.upper().encode())
    verify(path)
    verify(path, f"sha256:{found.upper()}")
    record.write_bytes(written % (b"0" * 64))
    with pytest.raises(OSError, match=f"has the SHA-256 {found} instead of 000"):
        verify(path)


def test_what_is_no_checksum_is_said(tmp_path):
    path, record = tmp_path / "weights.pt", tmp_path / "weights.pt.sha256"
    path.write_bytes(CONTENT)
    with pytest.raises(ValueError, match="checksum must hold the 64 digits"):
        verify(path, "985a")
    for content in (b"985a", sha256(path).encode("utf-16"), b"\xff\0"):
        record.write_bytes(content)
        with pytest.raises(OSError, match="weights.pt.sha256 must hold .*delete it"):
            verify(path)
    record.unlink()
    record.mkdir()
    with pytest.raises(OSError, match="weights.pt.sha256 is a folder"):
        verify(path)


def test_a_folder_is_no_complete_file(tmp_path):
    with pytest.raises(OSError, match="is a folder: name a file"):
        download("https://host/weights.pt", tmp_path, quiet=True)


@pytest.mark.parametrize("url", ["http://host/ü", "http://[::1/x", "http://host:x/y"])
def test_addresses_that_cannot_be(tmp_path, url):
    with pytest.raises(ValueError, match="url must be like https://host/file"):
        download(url, tmp_path / "x", quiet=True)

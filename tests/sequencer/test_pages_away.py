"""A publication that nobody serves: one line while it is asked again, and one that says how it ended."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import stamina

from evermark.cli import audit, output
from evermark.cli.errors import CliError
from sequencer.publication import ATTEMPTS, PagesAway, UrlPages


@pytest.fixture(autouse=True)
def without_pauses() -> Iterator[None]:
    """Asked again at once."""
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1/journal"


@pytest.fixture
def busy() -> Iterator[tuple[str, list[int]]]:
    """A server that answers with these codes, one after the other, and with a page at last."""
    codes: list[int] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(codes.pop(0) if codes else 200)
            self.end_headers()
            self.wfile.write(b"page")

        def log_message(self, *_: object) -> None:
            """Nothing to print."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}", codes
    server.shutdown()
    server.server_close()


def test_nobody_answers(nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says once whom it waits for, and ends with what to do; no word of the library's."""
    said: list[str] = []
    monkeypatch.setattr(output, "say", said.append)
    with pytest.raises(CliError) as refused:
        audit.download(nobody, tmp_path, lambda *_: None)
    assert said == [f"{nobody}/index.json does not answer; asked again, {ATTEMPTS} times in all"]
    assert str(refused.value) == (
        f"journal: {nobody}/index.json does not read: Connection refused, asked {ATTEMPTS} times; start the exchange, "
        "or name another publication with --journal-url"
    )


def test_a_busy_server_is_asked_again(busy: tuple[str, list[int]]) -> None:
    """What comes then is what counts; a page that is not there is not asked for twice."""
    url, codes = busy
    said: list[str] = []
    pages = UrlPages(url, said.append)
    codes += [503, 429]
    assert pages.fetch("pages/000000.jsonl") == b"page"
    assert said == [f"{url}/pages/000000.jsonl does not answer; asked again, {ATTEMPTS} times in all"]
    codes += [404]
    with pytest.raises(PagesAway, match=r"does not read: it answers 404 Not Found$"):
        pages.fetch("index.json")
    assert len(said) == 1
    codes += [503] * ATTEMPTS
    with pytest.raises(PagesAway, match=rf"it answers 503 Service Unavailable, asked {ATTEMPTS} times$"):
        pages.fetch("index.json")
    assert pages.fetch("index.json") == b"page"


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """Named at once."""
    with pytest.raises(PagesAway, match=r"index\.json does not read: No such file or directory$"):
        UrlPages(f"file://{tmp_path}/nowhere").fetch("index.json")

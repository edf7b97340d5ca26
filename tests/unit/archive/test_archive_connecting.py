"""A wrong address is told as such, whatever answers there: at once, with the address and what it should be."""

from __future__ import annotations

import http.server
import threading

import pytest

from xbat_live.archive import ArchiveError, connect
from xbat_live.archive.search import search_runs


@pytest.fixture
def somebody_elses_server():
    """Answers everything with what is put into `.answer`: status, kind, content."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, kind, content = server.answer
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *told):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((200, "text/html", b"<html>hello</html>"), id="a web page"),
        pytest.param((404, "text/html", b"no such page"), id="another web server"),
        pytest.param((200, "application/json", b'{"jupyter": 1}'), id="another service"),
        pytest.param((200, "application/json", b"[]"), id="a list"),
    ],
)
@pytest.mark.parametrize("reach", [connect, search_runs])
def test_another_server_is_no_archive(somebody_elses_server, answer, reach):
    somebody_elses_server.answer = answer
    uri = f"http://127.0.0.1:{somebody_elses_server.server_port}/api/v1"
    with pytest.raises(ArchiveError, match=rf"what answers at {uri} is no Tiled server; .*http://HOST:PORT/api/v1"):
        reach(uri, "key")


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1/api/v1",
        "127.0.0.1:8751/api/v1",
        "http://no.such.host.invalid/api/v1",
        "http://[",
        "beamline",
        "",
    ],
)
@pytest.mark.parametrize("reach", [connect, search_runs])
def test_an_address_where_nothing_answers(uri, reach):
    with pytest.raises(ArchiveError, match=r"no Tiled server answers at .*; start it with: xbat serve"):
        reach(uri, "key")

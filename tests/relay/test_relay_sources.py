"""Addresses below ``--sources``: nothing about them leads out, and no web server can send the relay elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_sglang import Running
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from trace_jax.relay.files import NAMES, RelayError, checksums
from trace_jax.relay.sources import Sources


@pytest.mark.parametrize("prefix", ["gs://bucket/runs", "https://host/runs/", "file:///data/runs"])
@pytest.mark.parametrize(
    "path",
    [
        *("../secrets", "a/../../secrets", "./a", "a/..", "..", "."),
        *("%2e%2e/secrets", "%2E%2e/secrets", ".%2e/secrets", "a/%2e%2E%2fsecrets", "%2e%2e%5csecrets"),
        *("%252e%252e/secrets", "%25252e%25252e/secrets", "%" + 20 * "25" + "2e%2e/secrets"),
        *("..\\secrets", "a\\..\\..\\secrets", "a?x=../b", "a%3fx", "a#b", "a%23b"),
        *("..;/secrets".replace(";", "%3b") + "/..", "a\n/b", "a%0d%0aHost: x", "a b", "a%00", "zip::b", "a%3a%3ab"),
    ],
)
def test_an_address_that_could_lead_out_is_refused(prefix: str, path: str) -> None:
    with pytest.raises(RelayError, match="may not be fetched: name the directory itself") as refused:
        Sources([prefix]).find(f"{prefix.rstrip('/')}/{path}")
    assert refused.value.status == 403 and "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["gs://bucket/runs2/a", "gs://bucket", "gs://other/runs/a", "GS://bucket/runs/a"])
def test_an_address_outside_is_refused(url: str) -> None:
    with pytest.raises(RelayError, match="start the relay with --sources=PREFIX of it"):
        Sources(["gs://bucket/runs"]).find(url)


@pytest.fixture
def web(adapter: Path) -> Iterator[str]:
    """A web server: the adapter in /runs/a, redirects in /runs/moved, endless files in /runs/endless."""

    async def plain(request: Request) -> Response:
        return FileResponse(adapter / request.path_params["file"])

    async def moved(request: Request) -> Response:
        return RedirectResponse(f"/runs/a/{request.path_params['file']}", int(request.path_params["status"]))

    async def moved_on_get(request: Request) -> Response:
        return (await plain(request)) if request.method == "HEAD" else RedirectResponse("http://169.254.169.254/", 307)

    async def endless(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(headers={"Content-Length": "10"})
        return StreamingResponse(iter([b"x" * 1000] * 1000))

    routes = [
        Route("/runs/a/{file}", plain, methods=["GET", "HEAD"]),
        Route("/runs/moved{status}/{file}", moved, methods=["GET", "HEAD"]),
        Route("/runs/late/{file}", moved_on_get, methods=["GET", "HEAD"]),
        Route("/runs/endless/{file}", endless, methods=["GET", "HEAD"]),
    ]
    with Running(Starlette(routes=routes)) as running:
        yield f"{running.url}/runs"


def test_a_web_server_is_a_source(web: str, adapter: Path, tmp_path: Path) -> None:
    source = Sources([web]).find(f"{web}/a")
    assert source.size == checksums(adapter).size
    source.copy(tmp_path)
    assert all((tmp_path / name).read_bytes() == (adapter / name).read_bytes() for name in NAMES)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_even_to_where_it_may_fetch(web: str, status: int) -> None:
    with pytest.raises(RelayError, match="its server redirects to /runs/a/adapter_config.json; name that") as refused:
        Sources([web]).find(f"{web}/moved{status}")
    assert refused.value.status == 403


def test_a_redirect_of_the_second_request_is_refused(web: str, tmp_path: Path) -> None:
    source = Sources([web]).find(f"{web}/late")
    with pytest.raises(RelayError, match="redirects to http://169.254.169.254/"):
        source.copy(tmp_path)


def test_more_bytes_than_stated_end_the_transfer(web: str, tmp_path: Path) -> None:
    source = Sources([web]).find(f"{web}/endless")
    with pytest.raises(RelayError, match="more than the stated 20 bytes came"):
        source.copy(tmp_path)

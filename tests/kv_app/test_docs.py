"""``/docs``: a page that needs nothing but the node."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

from kv_app.api.docs import page_of
from tests.kv_app.nodes import error_of, serve

if TYPE_CHECKING:
    import httpx


def test_docs_show_every_call_and_load_nothing() -> None:
    """Neither a script nor anything of another server: a machine may have no internet."""

    async def check(client: httpx.AsyncClient) -> None:
        answer = await client.get("/docs")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        page = answer.text
        assert not re.search(r"<script|<link|<img|<iframe|url\(|https?:", page)
        assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["/openapi.json"]
        paths = (await client.get("/openapi.json")).json()["paths"]
        calls = [f"{method.upper()} {path}" for path, item in paths.items() for method in item]
        assert [unescape(found) for found in re.findall("<h2>(.*?)</h2>", page)] == calls
        assert "<code>not_attempted</code>" in page

    serve(check, cluster_token="secret")


def test_pages_of_the_framework_are_not_there() -> None:
    """They would load scripts from elsewhere."""

    async def check(client: httpx.AsyncClient) -> None:
        for path in ("/redoc", "/docs/oauth2-redirect"):
            error_of(await client.get(path), "unknown_path")

    serve(check)


def test_text_of_a_description_is_text() -> None:
    """Whatever it has in it."""
    call = {"description": "<b> `a<b`", "responses": {"200": {"description": "<i>"}}}
    document = {"info": {"title": "<t>", "description": "&"}, "paths": {"/<p>": {"get": call}}}
    page = page_of(document)
    for text in ("&lt;b&gt; <code>a&lt;b</code>", "&lt;i&gt;", "&lt;t&gt;", "/&lt;p&gt;", "&amp;"):
        assert text in page

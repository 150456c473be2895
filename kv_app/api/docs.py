"""``/docs``: the calls of a node as one plain page, made of its OpenAPI description.

The framework's own page takes its scripts from a server on the internet: it is empty without one,
and whoever controls that server would run code in the origin that asks for the cluster's token.
"""

from collections.abc import Callable, Iterator
from html import escape
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

PATH: Final = "/docs"
_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
h2 { font-size: 1em; border-top: 1px solid #8888; padding-top: 1em; margin: 1.5em 0 0 }
code, h2 { font-family: ui-monospace, monospace; overflow-wrap: anywhere }
dd { margin-left: 1.5em }
:root { color-scheme: light dark }
"""


def route(describe: Callable[[], dict[str, Any]]) -> Route:
    """Returns the route of the page; ``describe`` gives the OpenAPI description."""

    async def docs(_: Request) -> HTMLResponse:
        return HTMLResponse(page_of(describe()), headers=_HEADERS)

    return Route(PATH, docs, include_in_schema=False)


def page_of(document: dict[str, Any]) -> str:
    """Returns the page for an OpenAPI description."""
    title, about = escape(document["info"]["title"]), escape(document["info"]["description"])
    calls = [
        part
        for path, item in document["paths"].items()
        for method, call in item.items()
        for part in _call(method, path, call)
    ]
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{_STYLE}</style>",
            f"<h1>{title}</h1>",
            f'<p>{about} For programs: <a href="/openapi.json">openapi.json</a>.</p>',
            *calls,
            "</html>",
        ]
    )


def _call(method: str, path: str, call: dict[str, Any]) -> Iterator[str]:
    yield f"<h2>{escape(method.upper())} {escape(path)}</h2>"
    yield f"<p>{_code(call.get('description', ''))}</p><dl>"
    for parameter in call.get("parameters", ()):
        text = f"{parameter['name']} ({parameter['in']})"
        yield f"<dt><code>{escape(text)}</code><dd>{_code(parameter.get('description', ''))}"
    for kind, content in call.get("requestBody", {}).get("content", {}).items():
        yield f"<dt>Body<dd><code>{escape(kind)}</code>: {_name_of(content)}"
    for status, answer in sorted(call["responses"].items()):
        yield f"<dt><code>{escape(status)}</code><dd>{_code(answer['description'])}"
    yield "</dl>"


def _name_of(content: dict[str, Any]) -> str:
    """Returns the name of a schema, which the description explains."""
    return f"<code>{escape(str(content['schema'].get('$ref', '')).rpartition('/')[2])}</code>"


def _code(text: str) -> str:
    """Returns a text in which what stands in backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts))

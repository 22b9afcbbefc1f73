"""The web page at /, and the example scenes it offers. All of it is held in memory: a few files of some kB.

The page talks to /v1 as any other client does. Its policy lets the browser load and reach nothing from elsewhere and
run nothing but these scripts, so that what a model says stays words, whatever it says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from string import Template

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llava_lite.serve.config import ServerConfig

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
FOLDER = Path(__file__).with_name("web")
TYPES = {".css": "text/css", ".js": "text/javascript", ".json": "application/json", ".png": "image/png"}
DEFAULT_TOKENS = 512


def page_routes(config: ServerConfig) -> list[Route]:
    """Return the routes of the page, which tells people of the limits of `config` before the server has to."""
    numbers = {
        "max_body_bytes": config.max_body_bytes,
        "max_images": config.max_images,
        "max_new_tokens": config.max_new_tokens,
        "default_tokens": min(DEFAULT_TOKENS, config.max_new_tokens),
    }
    html = Template((FOLDER / "page.html").read_text(encoding="utf-8")).substitute(numbers)
    routes = [Route("/", _sends(html.encode("utf-8"), "text/html"))]
    for path in sorted(FOLDER.rglob("*.*")):
        if path.suffix in TYPES:
            address = f"/{path.relative_to(FOLDER).as_posix()}"
            routes.append(Route(address, _sends(path.read_bytes(), TYPES[path.suffix])))
    return routes


def _sends(body: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        return Response(body, media_type=media_type, headers=HEADERS)

    return send

"""What do marketers open in a browser?

One page without a framework and without anything from elsewhere, so that it works offline and its
policy can forbid all but its own files. The page holds no data: it asks for a key and reads the
API, so its files are open to everybody.
"""

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response

from runtime.problems import Problem

_MEDIA_TYPES = {
    "app.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "outbox.js": "text/javascript; charset=utf-8",
}
_PAGE = "text/html; charset=utf-8"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Asked again each time and answered 304: a new version shows at once.
    "Cache-Control": "no-cache",
}


def whole_page(name: str, title: str, script: str) -> bytes:
    """The page `name` behind the head that all of them share."""
    folder = _folder()
    head = (folder / "head.html").read_text("utf-8").format(title=title, script=script)
    return head.encode() + (folder / name).read_bytes()


def _folder() -> Traversable:
    return resources.files("consumers.campaigns") / "page"


def page_file(name: str, file: bytes, request: Request) -> Response:
    """A file of a page, or that it has not changed."""
    tag = f'"{hashlib.sha256(file).hexdigest()[:32]}"'
    headers = _HEADERS | {"ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(file, media_type=_MEDIA_TYPES.get(name, _PAGE), headers=headers)


def build_router() -> APIRouter:
    """`GET /` and the files it names."""
    router = APIRouter(tags=["Page"])
    files = {name: (_folder() / name).read_bytes() for name in _MEDIA_TYPES}
    page = whole_page("index.html", "Campaigns", "app.js")

    @router.get("/", response_class=Response, summary="The live page")
    async def get_page(request: Request) -> Response:
        """Counters by campaign that move by themselves."""
        return page_file("index.html", page, request)

    @router.get("/page/{name}", response_class=Response, summary="A file of the live page")
    async def get_file(name: str, request: Request) -> Response:
        """Script, style or icon."""
        if name not in files:
            raise Problem(404, "The page has no such file")
        return page_file(name, files[name], request)

    return router

"""`GET /docs`: the contract as a page for people.

The page is Swagger UI. A package ships its files, and they are served from here: no browser asks another host for anything, and the
page works where there is no way out. Of that package only the files are used; it is never imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from server.http.marks import ROUTE

PATH: Final = "/docs"
FILE_PATH: Final = "/docs/{file}"
_PAGE: Final = "docs.html"
_OURS: Final = ("docs.css", "docs.js")
# The package's folder of each of its files that the page needs.
_SWAGGER_UI: Final = {"swagger-ui.css": "stylesheets", "swagger-ui-bundle.js": "javascripts"}
_HEADERS: Final = {
    # Scripts and styles from here and nothing inline; the icons of Swagger UI are data: in its style sheet.
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            *("script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'"),
            *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A browser keeps what it has, and asks each time whether it still holds: ETag and 304. A new version shows at once.
    "Cache-Control": "no-cache",
}


class Docs:
    """`GET /docs` and the files of the page. It needs no model, and works in every state of the server."""

    def __init__(self) -> None:
        ours = StaticFiles(directory=Path(__file__).with_name("page"))
        self._folders = dict.fromkeys((_PAGE, *_OURS), ours)
        for name, folder in _SWAGGER_UI.items():
            self._folders[name] = StaticFiles(packages=[("mkdocs_swagger_ui_tag", f"swagger-ui/{folder}")])

    async def page(self, request: Request) -> Response:
        """The page."""
        return await self._answer(_PAGE, request)

    async def file(self, request: Request) -> Response:
        """A file of the page; 404 for a name that is none."""
        request.scope[ROUTE] = FILE_PATH
        name = request.path_params["file"]
        if name not in {*_OURS, *_SWAGGER_UI}:
            raise HTTPException(404)
        return await self._answer(name, request)

    async def _answer(self, name: str, request: Request) -> Response:
        response = await self._folders[name].get_response(name, request.scope)
        response.headers.update(_HEADERS)
        return response

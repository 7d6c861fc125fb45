"""`GET /docs`: a page for people, all of it from here."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from urllib.parse import urljoin

import pytest

from models.fake import FakeClassifier
from server.api.docs import FILE_PATH, PATH
from server.api.openapi import PATH as OPENAPI
from server.app import create_app
from server.settings import Settings
from tests.server.conftest import Application, running

SettingsMaker = Callable[..., Settings]
KINDS = {"css": "text/css", "js": "text/javascript"}
# Python 3.11 has an older name for it.
ALSO = {"js": "application/javascript"}


async def links(app: Application) -> set[str]:
    """Where the page sends a browser, as paths."""
    page = await app.client.get(PATH)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    found = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert not [link for link in found if "//" in link]
    return {urljoin(PATH, link) for link in found if link != "data:,"}


async def test_the_page_and_all_its_files_come_from_here_with_the_right_types(settings: SettingsMaker) -> None:
    async with running(settings(dialects="native")) as app:
        found = await links(app)
        assert {f"{PATH}/swagger-ui-bundle.js", f"{PATH}/swagger-ui.css", f"{PATH}/docs.js", f"{PATH}/docs.css", OPENAPI} == found
        for path in found - {OPENAPI}:
            file = await app.client.get(path)
            assert file.status_code == 200
            kind = path.rpartition(".")[2]
            assert file.headers["content-type"].partition(";")[0] in {KINDS[kind], ALSO.get(kind)}
            assert file.content
        assert (await app.client.get(OPENAPI)).json()["openapi"] == "3.1.0"


async def test_our_script_shows_our_contract_and_asks_no_other_host(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        script = (await app.client.get(f"{PATH}/docs.js")).text
        (url,) = re.findall(r'\burl: "([^"]*)"', script)
        assert urljoin(PATH, url) == OPENAPI
        # Without it, Swagger UI sends the contract's address to a public validator.
        assert "validatorUrl: null" in script
        assert "//" not in re.sub(r"// .*", "", script)
        style = (await app.client.get(f"{PATH}/swagger-ui.css")).text + (await app.client.get(f"{PATH}/docs.css")).text
        assert "@import" not in style
        assert not [link for link in re.findall(r"url\(([^)]*)\)", style) if not link.strip("\"'").startswith("data:")]


async def test_what_a_browser_may_do_is_bounded_and_nothing_inline_is_needed(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        for path in (PATH, f"{PATH}/docs.js"):
            headers = (await app.client.get(path)).headers
            policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
            assert policy == {
                **dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"),
                **dict.fromkeys(("script-src", "style-src", "connect-src"), "'self'"),
                "img-src": "'self' data:",
            }
            assert headers["x-content-type-options"] == "nosniff"
        page = (await app.client.get(PATH)).text
        assert re.findall(r"<script(?! src=)|<style|\sstyle=|\son\w+=", page) == []


async def test_what_a_browser_has_already_is_not_sent_again(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        for path in (PATH, f"{PATH}/swagger-ui-bundle.js"):
            first = await app.client.get(path)
            assert first.headers["cache-control"] == "no-cache"
            again = await app.client.get(path, headers={"If-None-Match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            changed = await app.client.get(path, headers={"If-None-Match": '"another"'})
            assert (changed.status_code, changed.content) == (200, first.content)
            head = await app.client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(first.content))


@pytest.mark.parametrize("name", ["docs.html", "swagger-ui-bundle.js.map", "nothing", "..%2fdocs.py", "%2e%2e"])
async def test_nothing_else_can_be_had(settings: SettingsMaker, name: str) -> None:
    async with running(settings()) as app:
        response = await app.client.get(f"{PATH}/{name}")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
        assert (await app.client.post(PATH)).status_code == 405


async def test_its_files_are_one_route_for_the_metrics_whatever_their_names(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        for path in (PATH, f"{PATH}/docs.js", f"{PATH}/swagger-ui.css", f"{PATH}/nothing"):
            await app.client.get(path)
        assert {(path, status) for path, _, status in app.service.metrics.requests} == {
            (PATH, 200),
            (FILE_PATH, 200),
            (FILE_PATH, 404),
        }


async def test_it_needs_no_model(settings: SettingsMaker) -> None:
    def broken() -> FakeClassifier:
        raise ValueError("its hash does not hold")

    async with running(settings(), broken) as app:
        assert (await app.client.get("/ready")).status_code == 503
        assert (await app.client.get(PATH)).status_code == 200


def test_the_package_is_not_imported_for_its_files(settings: SettingsMaker) -> None:
    create_app(settings(), FakeClassifier)
    assert "mkdocs_swagger_ui_tag" not in sys.modules

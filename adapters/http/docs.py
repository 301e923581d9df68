"""The description of the API, as JSON and as a page. The page is Swagger UI out of a wheel: no other host is asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import swagger_ui_bundle  # type: ignore[import-untyped]  # it holds one path
from sanic import HTTPResponse

from manent.adapters.http.answers import JSON_TYPE, bytes_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused

PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Manent API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/page.js"></script>
</body>
</html>
"""
# validatorUrl is null: Swagger UI would otherwise send the address of this description to its makers.
PAGE_SCRIPT = b"""window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: "/docs/openapi-3.0.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
});
"""
BUNDLED = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
# Swagger UI sets styles from its script and draws icons from data: addresses; everything else is ours alone.
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


async def openapi(exchange: Exchange) -> HTTPResponse:
    """The description, OpenAPI 3.1."""
    return bytes_answer(exchange.documents.openapi, JSON_TYPE)


async def page(exchange: Exchange) -> HTTPResponse:
    """The page; the description goes along with it, under an address of its own."""
    del exchange
    return bytes_answer(PAGE, "text/html; charset=utf-8", headers=PAGE_HEADERS)


async def file(exchange: Exchange, name: str) -> HTTPResponse:
    """A file of the page."""
    if name == "page.js":
        return bytes_answer(PAGE_SCRIPT, BUNDLED["swagger-ui-bundle.js"], headers=PAGE_HEADERS)
    if name == "openapi-3.0.json":
        return bytes_answer(exchange.documents.openapi_3_0, JSON_TYPE, headers=PAGE_HEADERS)
    if name not in BUNDLED:
        raise RequestRefused("unknown_url", f"Invalid URL (GET /docs/{name[:100]})")
    body = await asyncio.to_thread((Path(str(swagger_ui_bundle.swagger_ui_path)) / name).read_bytes)
    return bytes_answer(body, BUNDLED[name], headers=PAGE_HEADERS)

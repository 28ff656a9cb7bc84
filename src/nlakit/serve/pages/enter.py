"""How a person shows the token of a service: once, in a form; the browser keeps it as a cookie."""

from __future__ import annotations

import hmac

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from nlakit.serve.guard import COOKIE, ENTER
from nlakit.serve.pages.forms import posted
from nlakit.serve.pages.routes import PageRoute, base_of
from nlakit.serve.pages.shown import page

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(ENTER)
async def ask(request: Request) -> HTMLResponse:
    return page("enter", base=base_of(request), wrong=False)


@router.post(ENTER)
async def enter(request: Request) -> Response:
    """To the explorer with the token in a cookie that no script reads and no other site sends."""
    given, token = (await posted(request)).get("token").strip(), request.app.state.settings.token
    if token is None or not hmac.compare_digest(given.encode(), token.encode()):
        return page("enter", 401, base=base_of(request), wrong=True)
    secure = "; Secure" if request.url.scheme == "https" else ""
    answer = RedirectResponse(f"{base_of(request)}/explore", 303)
    # As it is: the guard compares letters, and a library would quote some.
    kept = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}"
    answer.headers["Set-Cookie"] = kept
    return answer

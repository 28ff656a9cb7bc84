"""The explorer's addresses: each answers with a page, a part of one, a stream or a file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from nlakit.errors import DataError, NlakitError
from nlakit.serve.engine import Busy
from nlakit.serve.pages import readouts, streams
from nlakit.serve.pages.examples import EXAMPLES
from nlakit.serve.pages.explorer import Explorer
from nlakit.serve.pages.export import exported
from nlakit.serve.pages.forms import Fields, Pane, Refused, posted, view_of
from nlakit.serve.pages.pairs import TOKENS, Reading, Told
from nlakit.serve.pages.shown import HEADERS, page, render
from nlakit.serve.pages.streams import Job, Stream

SAMPLES = 8
SIZES = (0.25, 0.5, 1.0, 2.0)  # of a push, in norms of the activation


class PageRoute(APIRoute):
    """A mistake is answered by a line for the page, not by JSON."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await answer(request)
            except NlakitError as error:
                busy = isinstance(error, Busy)
                status = 503 if busy else 403 if isinstance(error, Refused) else 400
                response = page("problem", status, error=error)
                if busy:
                    response.headers["Retry-After"] = "2"
                return response

        return handler


router = APIRouter(prefix="/explore", route_class=PageRoute, include_in_schema=False)


def explorer_of(request: Request) -> Explorer:
    return request.app.state.explorer


def base_of(request: Request) -> str:
    return request.scope.get("root_path", "")


async def held(request: Request, fields: Fields) -> Reading:
    """The text that a part of the page is about."""
    found = explorer_of(request)
    return await found.read(fields.get("pair"), fields.get("text"), fields.get("kind", "text"))


async def shown(request: Request, pane: Pane, side: str, beside: bool) -> dict[str, Any]:
    """What a pane's template needs; the text is read if there is one."""
    explorer = explorer_of(request)
    pair = explorer.pair(pane.pair)
    values: dict[str, Any] = {
        "base": base_of(request), "side": side, "pane": pane, "pair": pair, "beside": beside,
        "pairs": list(explorer.pairs), "examples": EXAMPLES, "reading": None, "told": None,
        "ticket": None, "many": None, "waiting": 0,
    }  # fmt: skip
    if not pane.text:
        return values
    reading = await pair.read(pane.text, pane.kind)
    missing = [at for at in sorted(set(pane.explained)) if 0 <= at < len(reading.ids)]
    missing = [at for at in missing if at not in reading.told]
    client = client_of(request)
    values |= {"reading": reading}
    if pane.chosen is not None and 0 <= pane.chosen < len(reading.ids):
        values["told"] = reading.told.get(pane.chosen)
        if values["told"] is None:
            values["ticket"] = explorer.jobs.add(Job(reading, [pane.chosen], side, client))
    if missing and missing != [pane.chosen]:
        values["many"] = explorer.jobs.add(Job(reading, missing, side, client))
        values["waiting"] = len(missing)
    return values


def client_of(request: Request) -> str:
    return request.client.host if request.client else ""


@router.get("")
async def front(request: Request) -> HTMLResponse:
    panes = [await shown(request, Pane(), "a", beside=False)]
    return page("page", panes=panes, base=base_of(request))


@router.post("/restore")
async def restore(request: Request) -> HTMLResponse:
    view = view_of((await posted(request)).get("view"))
    both = len(view.panes) > 1
    panes = [
        await shown(request, pane, side, both) for side, pane in zip("ab", view.panes, strict=False)
    ]
    return page("panes", panes=panes, base=base_of(request))


@router.post("/beside")
async def beside(request: Request) -> HTMLResponse:
    """A second pane that begins with the first one's text."""
    fields = await posted(request)
    pane = Pane(pair=fields.get("pair"), kind=fields.get("kind", "text"), text=fields.get("text"))
    return page("beside", **await shown(request, pane, "b", beside=True))


@router.post("/read")
async def read(request: Request) -> HTMLResponse:
    fields = await posted(request)
    kind, text, example = fields.get("kind", "text"), fields.get("typed"), None
    if fields.get("example"):
        example = EXAMPLES[fields.number("example", 0, len(EXAMPLES) - 1)]
        kind, text = example.kind, example.text
    if not text.strip():
        raise DataError("the text is empty", do="give some text to read, or pick an example")
    pane = Pane(pair=fields.get("pair"), kind=kind, text=text)
    values = await shown(request, pane, fields.side, beside=False)
    return page("read", example=example, **values)


@router.post("/opening")
async def opening(request: Request) -> HTMLResponse:
    fields = await posted(request)
    return page("opening", pair=explorer_of(request).pair(fields.get("pair")))


@router.post("/explain")
async def explain(request: Request) -> HTMLResponse:
    fields = await posted(request)
    reading = await held(request, fields)
    at = reading.check(fields.number("at", 0, 10**8))
    values = {"base": base_of(request), "side": fields.side, "reading": reading, "edited": ""}
    if at in reading.told:
        return page("told", events="told", told=reading.told[at], oob=True, **values)
    ticket = explorer_of(request).jobs.add(Job(reading, [at], fields.side, client_of(request)))
    return page("writing", at=at, ticket=ticket, **values)


@router.post("/all")
async def every(request: Request) -> HTMLResponse:
    """All tokens that are spoken and not explained yet, or those that a criterion puts first."""
    fields = await posted(request)
    reading = await held(request, fields)
    places, by = reading.spoken, fields.get("by")
    if by:
        top, nla = fields.number("top", 1, TOKENS, 10), reading.pair.nla
        ranked = await reading.pair.do(lambda: nla.rank(reading.what, by, top))  # type: ignore[arg-type]
        places = [one.position for one in ranked]
    places = [at for at in places if at not in reading.told]
    if not places:
        raise DataError("these tokens are explained already", do="choose others")
    ticket = explorer_of(request).jobs.add(Job(reading, places, fields.side, client_of(request)))
    values = {"base": base_of(request), "side": fields.side, "reading": reading}
    return page("many", ticket=ticket, waiting=len(places), **values)


@router.get("/stream/{ticket}")
async def stream(request: Request, ticket: str) -> Stream:
    """What a job writes. An unknown ticket is answered by a last event: a browser would ask for its
    stream again and again."""
    job = explorer_of(request).jobs.get(ticket)
    base = base_of(request)
    if job is None:
        lost = DataError("the explanation was lost on its way", do="ask for it again")
        events = _over(streams.event("done", render("problem", error=lost)))
    else:
        events = streams.guarded(_events(job, base), lambda error: render("problem", error=error))
    return Stream(events, HEADERS)


async def _over(event: str) -> AsyncGenerator[str]:
    yield event


async def _events(job: Job, base: str) -> AsyncGenerator[str]:
    values = {"base": base, "side": job.side, "reading": job.reading}
    if len(job.places) == 1:

        def done(told: Told) -> str:
            return render("told", told=told, oob=True, edited="", **values)

        async with aclosing(streams.one(job, done)) as events:
            async for found in events:
                yield found
        return

    def progress(told: list[Told], count: int) -> str:
        return render("progress", told=told, count=count, of=len(job.places), **values)

    async with aclosing(streams.many(job, progress)) as events:
        async for found in events:
            yield found
    yield streams.event("done", render("finished", count=len(job.places), **values))


@router.post("/stopped")
async def stopped(request: Request) -> HTMLResponse:
    """In the place of what was being written: with its element the stream closes."""
    fields = await posted(request)
    reading = await held(request, fields)
    return page("stopped", base=base_of(request), side=fields.side, reading=reading)


@router.post("/part/{name}")
async def part(request: Request, name: str) -> HTMLResponse:
    """What is loaded behind an explanation: `words`, `guesses`, `near`."""
    fields = await posted(request)
    reading = await held(request, fields)
    at = reading.check(fields.number("at", 0, 10**8))
    pair, vector = reading.pair, reading.vectors[at]
    if name == "guesses":
        found: Any = await pair.do(lambda: readouts.guesses(reading, at))
    elif name == "near" and pair.rows is not None:
        found = await pair.do(lambda: readouts.nearest(pair, vector))
    elif name == "words" and pair.nla.ar is not None:
        text = _told(reading, at).explanation
        found = await pair.do(lambda: readouts.carried(pair, vector, text))
    else:
        raise DataError(
            "this pair has no such part", found=name[:40], do="choose one that the page names"
        )
    return page(name, found=found, reading=reading, measure=pair.measure)


def _told(reading: Reading, at: int) -> Told:
    if at not in reading.told:
        raise DataError("this token is not explained yet", do="click it first")
    return reading.told[at]


@router.post("/samples")
async def samples(request: Request) -> HTMLResponse:
    """Other texts that the AV might have written of the token, with their scores."""
    fields = await posted(request)
    reading = await held(request, fields)
    at = reading.check(fields.number("at", 0, 10**8))
    count = fields.number("count", 1, SAMPLES, 4)
    pair, client = reading.pair, client_of(request)
    same = reading.vectors[[at] * count]
    texts = await pair.draw(same, range(count), client)
    marks = await pair.do(lambda: pair.marks(same, texts))
    recurring = None
    if pair.worth is not None:
        text, controls = _told(reading, at).explanation, await pair.controls(client)
        recurring = readouts.recurring(text, texts, controls)
    found = list(zip(texts, marks, strict=True))
    return page("samples", found=found, recurring=recurring, worth=pair.worth, measure=pair.measure)


@router.post("/edit")
async def edit(request: Request) -> HTMLResponse:
    """What an edited explanation does to the reconstruction."""
    fields = await posted(request)
    reading = await held(request, fields)
    at = reading.check(fields.number("at", 0, 10**8))
    before, after = _told(reading, at).explanation, fields.get("edited")
    pair, vector = reading.pair, reading.vectors[at]
    if pair.nla.ar is None:
        raise DataError(
            "this folder holds no AR: nothing is reconstructed", do="choose a pair with both halves"
        )
    found = await pair.do(lambda: readouts.moved(pair, vector, before, after))
    return page("moved", found=found, measure=pair.measure, layer=pair.nla.contract.layer)


@router.post("/steer")
async def steer(request: Request) -> HTMLResponse:
    """How the subject goes on with the text when it is pushed along an edit."""
    fields = await posted(request)
    reading = await held(request, fields)
    at = reading.check(fields.number("at", 0, 10**8))
    before, after = _told(reading, at).explanation, fields.get("edited")
    sizes = {str(size): size for size in SIZES}
    if (size := sizes.get(fields.get("size"))) is None:
        raise DataError("unknown size of a push", do=f"choose one of {', '.join(sizes)}")
    nla, every = reading.pair.nla, fields.get("where") == "all"
    found = await reading.pair.do(
        lambda: nla.steer(
            reading.filled,
            before,
            after,
            positions="all" if every else [at],
            alphas=(size,),
            special_tokens=None if reading.voices is None else "parse",
        )
    )
    return page("steered", found=found, one=found.sizes[0], every=every)


@router.post("/relation")
async def relation(request: Request) -> HTMLResponse:
    """The chosen tokens of two panes, and each one's text against the other's vector."""
    fields = await posted(request)
    lists = [fields.all(name) for name in ("pair", "kind", "text", "chosen")]
    if any(len(one) != 2 for one in lists):
        return page("relation", found=None)
    explorer, both = explorer_of(request), []
    for pair, kind, text, chosen in zip(*lists, strict=True):
        reading = await explorer.read(pair, text, kind)
        both.append((reading, reading.check(int(chosen) if chosen.isdecimal() else -1)))
    if any(at not in reading.told for reading, at in both):
        return page("relation", found=None)
    found = await both[0][0].pair.do(lambda: readouts.related(*both))
    return page("relation", found=found)


@router.post("/export")
async def export(request: Request) -> Response:
    """What is explained of a text, as a file."""
    fields = await posted(request)
    reading = await held(request, fields)
    body, media, name = exported(reading, fields.get("as", "json"))
    disposition = f'attachment; filename="{name}"'
    return Response(body, headers=HEADERS | {"Content-Disposition": disposition}, media_type=media)

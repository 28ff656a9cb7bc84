"""The explorer's answers, without a browser."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nlakit.core.text.messages import Conversation
from nlakit.errors import ContractError
from nlakit.models.nla import NLA
from nlakit.serve.engine import Engine
from nlakit.serve.pages.explorer import Explorer
from nlakit.serve.pages.shown import STATIC
from nlakit.serve.settings import Settings
from tests.serve.explored import RESULTS, application, beside, toy_pair

TEXT = "A whale <b>rises</b>."
HTML = re.compile(r"<(b|img|script)\b(?! src=\"/explore/static/)")


@pytest.fixture
def nla(toy_subject: Any) -> NLA:
    return toy_pair(toy_subject("llama"))


@pytest.fixture
def client(nla: NLA, tmp_path: Path) -> Iterator[TestClient]:
    engine = Engine(nla)
    yield client_of({"toy": engine, "twin": engine}, beside(tmp_path / "pair", nla))
    engine.close()


def client_of(engines: dict[str, Engine], folder: Path) -> TestClient:
    return TestClient(application(engines, folder), base_url="http://127.0.0.1")


def post(client: TestClient, path: str, status: int = 200, **fields: Any) -> str:
    answer = client.post(f"/explore/{path}", data={"text": TEXT, **fields})
    assert answer.status_code == status, answer.text
    return answer.text


def stream_of(client: TestClient, html: str) -> list[tuple[str, str]]:
    """The events of the stream that a part of a page listens to."""
    found = re.search(r'sse-connect="([^"]+)"', html)
    assert found, html
    return events_of(client.get(found[1]).text)


def events_of(text: str) -> list[tuple[str, str]]:
    made = []
    for block in text.strip().split("\n\n"):
        name, *lines = block.splitlines()
        data = "\n".join(line.removeprefix("data: ") for line in lines)
        made.append((name.removeprefix("event: "), data))
    return made


def told(client: TestClient, at: int) -> str:
    """A token's finished explanation, as the page gets it."""
    return stream_of(client, post(client, "explain", at=at))[-1][1]


def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing_of_its_own(
    client: TestClient,
) -> None:
    answer = client.get("/explore")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|https?://", answer.text)
    assert re.findall(r"<script([^>]*)>(.*?)</script>", answer.text) == [
        (f' src="/explore/static/{name}" defer', "")
        for name in ("htmx.min.js", "htmx-ext-sse.min.js", "explorer.js")
    ]
    css = client.get("/explore/static/explorer.css")
    assert css.headers["content-security-policy"] == policy
    assert "url(" not in css.text and "@import" not in css.text


def test_files_of_others_are_those_that_are_named() -> None:
    lines = (STATIC / "README.md").read_text(encoding="utf-8").splitlines()
    table = [line.split("`") for line in lines if line.startswith("| `")]
    named = {row[1]: row[-2] for row in table}
    for name, digest in named.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest
    assert set(named) == {"htmx.min.js", "htmx-ext-sse.min.js"}
    assert len(list(STATIC.glob("LICENSE-*"))) == 2


def test_a_pair_opens_with_what_is_known_of_it(client: TestClient) -> None:
    page = client.get("/explore").text
    assert "content-sensitive" in page and "Warning" not in page
    assert "quotes are invented." in page and "0.600 [0.500, 0.700]" in page


def test_a_text_is_read_into_tokens(client: TestClient, nla: NLA) -> None:
    html = post(client, "read", typed=TEXT)
    assert html.count('hx-post="/explore/explain"') == len(nla.activations(TEXT)[0])
    assert "not explained" in html and not HTML.search(html)


def test_an_explanation_streams_in_and_is_that_of_the_pair(client: TestClient, nla: NLA) -> None:
    (one,) = nla.explain(TEXT, [3])
    *parts, (last, html) = stream_of(client, post(client, "explain", at=3))
    assert {name for name, _ in parts} == {"text"} and last == "done"
    assert one.centred_cosine is not None and one.floor is not None
    for value in (one.centred_cosine, one.floor):
        assert f"{value:.2f}".replace("-", "−") in html
    assert 'id="chip-a-3"' in html and "hx-swap-oob" in html
    again = post(client, "explain", at=3)
    assert "sse-connect" not in again and "floor: the empty text" in again


def test_all_tokens_are_explained_with_progress(client: TestClient, nla: NLA) -> None:
    alone = [item.explanation for item in nla.explain(TEXT, "all")]
    *parts, (last, _) = stream_of(client, post(client, "all"))
    assert {name for name, _ in parts} == {"progress"} and last == "done"
    rows = json.loads(post(client, "export", **{"as": "json"}))["rows"]
    assert [row["explanation"] for row in rows] == alone
    assert "explained already" in post(client, "all", 400)


def test_the_tokens_worth_reading_are_explained(client: TestClient, nla: NLA) -> None:
    wanted = sorted(one.position for one in nla.rank(TEXT, "change", 4))
    stream_of(client, post(client, "all", by="change", top=4))
    rows = json.loads(post(client, "export", **{"as": "json"}))["rows"]
    assert [row["position"] for row in rows] == wanted
    assert "ranked by a criterion" in post(client, "all", 400, by="luck")


def test_a_conversation_is_read_by_its_turns(client: TestClient, nla: NLA) -> None:
    talk = "user: Why?\nassistant: So it <b>goes</b>."
    html = post(client, "read", typed=talk, kind="conversation")
    assert re.findall(r'class="voice">(\w+)<', html) == [
        "template", "user", "template", "assistant", "template",
    ][: html.count('class="voice"')]  # fmt: skip
    said = [{"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "So it <b>goes</b>."}]  # fmt: skip
    told = Conversation(said, template="plain")
    alone = [item.explanation for item in nla.explain(told, "all")]
    about = {"text": talk, "kind": "conversation"}
    stream_of(client, post(client, "all", **about))
    rows = json.loads(post(client, "export", **about, **{"as": "json"}))["rows"]
    assert [row["explanation"] for row in rows] == alone
    as_json = post(client, "read", typed=json.dumps(said), kind="conversation")
    assert as_json.count('class="voice"') == html.count('class="voice"')
    assert "no conversation" in post(client, "read", 400, typed="Why?", kind="conversation")


def test_a_broken_stream_goes_on_with_the_rest(client: TestClient) -> None:
    told(client, 2)
    html = post(client, "all")
    first, second = stream_of(client, html), stream_of(client, html)
    assert first[-1][0] == second[-1][0] == "done" and len(second) == 1


def test_a_stream_that_nobody_knows_ends(client: TestClient) -> None:
    (event,) = events_of(client.get("/explore/stream/unknown").text)
    assert event[0] == "done" and "lost on its way" in event[1]


def test_what_stands_behind_an_explanation(client: TestClient) -> None:
    told(client, 3)
    assert post(client, "part/guesses", at=3).count("<tr>") == 8
    near = post(client, "part/near", at=3)
    assert near.count("<li>") == 5 and "the mean over all rows is" in near
    assert not re.search(r"<b>an</b>", near)
    assert 'class="carries-' in post(client, "part/words", at=3)
    samples = post(client, "samples", at=3, count=2)
    assert samples.count("<li>") == 2 and "was not measured for this pair" in samples
    assert "no such part" in post(client, "part/else", 400, at=3)


def test_words_are_marked_with_what_that_is_worth(nla: NLA, tmp_path: Path) -> None:
    area = {"mean": 0.67, "low": 0.61, "high": 0.72}
    figure = {"auc": {"samples": area, "deletion": area | {"mean": 0.48}}}
    results = RESULTS | {"parts": {"recurrence": {"detail": {"figure": figure}}}}
    engine = Engine(nla)
    client = client_of({"toy": engine}, beside(tmp_path / "pair", nla, results))
    told(client, 3)
    said = re.sub(r"\s+", " ", post(client, "samples", at=3, count=2))
    assert "AUROC of 0.67 [0.61, 0.72] by recurrence in samples, 0.48 [0.61, 0.72] by what" in said
    assert "0.50 by chance" in said and "was not measured" not in said
    engine.close()


def test_an_edit_moves_the_reconstruction(client: TestClient, nla: NLA) -> None:
    told(client, 3)
    edited = "Something else."
    vector = nla.activations(TEXT, [3])[2]
    score = nla.score([edited], vector)[0].centred_cosine
    html = post(client, "edit", at=3, edited=edited)
    assert f"{score:.2f}".replace("-", "−") in html and "floor" in html
    assert "is not explained yet" in post(client, "edit", 400, at=4, edited=edited)


def test_the_subject_is_pushed_along_an_edit(client: TestClient, nla: NLA) -> None:
    told(client, 3)
    (one,) = nla.explain(TEXT, [3])
    edited = f"{one.explanation} whales"
    html = post(client, "steer", at=3, edited=edited, size="0.5", where="all")
    found = nla.steer(TEXT, one.explanation, edited, positions="all", alphas=[0.5])
    assert html.count("random direction") == 3 and "whales" in html
    assert found.sizes[0].rise is not None
    assert f"<b>{found.sizes[0].rise:+.2f}</b>".replace("-", "−") in html
    assert "token 3" in post(client, "steer", at=3, edited=edited, size="1.0", where="here")
    assert "the same to the AR" in post(
        client, "steer", 400, at=3, edited=one.explanation, size="0.5"
    )
    assert "unknown size" in post(client, "steer", 400, at=3, edited=edited, size="1e9")


def test_two_tokens_side_by_side(client: TestClient) -> None:
    told(client, 3)
    both = {"pair": ["toy", "twin"], "kind": ["text"] * 2, "text": [TEXT] * 2}
    assert "Choose a token" in post(client, "relation", **both, chosen=["3", "3"])
    stream_of(client, post(client, "explain", at=3, pair="twin"))
    same = post(client, "relation", **both, chosen=["3", "3"])
    assert "<b>1.00</b>" in same and same.count("<tr>") == 3
    assert "Choose a token" in post(client, "relation", **both, chosen=["3"])


def test_what_is_explained_is_saved(client: TestClient) -> None:
    assert "no token is explained" in post(client, "export", 400, **{"as": "json"})
    told(client, 2)
    told(client, 5)
    saved = json.loads(post(client, "export", **{"as": "json"}))
    assert [row["position"] for row in saved["rows"]] == [2, 5]
    assert saved["verdict"] == "content-sensitive" and saved["text"] == TEXT
    rows = list(csv.DictReader(io.StringIO(post(client, "export", **{"as": "csv"}))))
    assert float(rows[1]["score"]) == saved["rows"][1]["score"]
    page = post(client, "export", **{"as": "html"})
    assert "<link" not in page and "<script" not in page and "src=" not in page
    assert "default-src 'none'" in page and not HTML.search(page)
    assert "unknown form" in post(client, "export", 400, **{"as": "exe"})


def test_html_in_an_explanation_is_text(client: TestClient) -> None:
    told(client, 3)
    (reading,) = _explorer(client).pair("")._readings.values()
    wicked = '<img src=x onerror="alert(1)"> <script>alert(2)</script>'
    reading.told[3] = type(reading.told[3])(**{**vars(reading.told[3]), "explanation": wicked})
    for path, more in (
        ("explain", {}), ("part/words", {}), ("export", {"as": "html"}), ("stopped", {}),
        ("edit", {"edited": wicked}), ("read", {"typed": TEXT}),
    ):  # fmt: skip
        assert not HTML.search(post(client, path, at=3, **more)), path


def test_a_link_restores_the_view(client: TestClient) -> None:
    told(client, 3)
    pane = {"pair": "toy", "kind": "text", "text": TEXT, "chosen": 3, "explained": [1, 3]}
    html = post(client, "restore", view=json.dumps({"panes": [pane | {"edited": "Else."}]}))
    assert html.count("sse-connect") == 1  # token 1 is told again, token 3 is known
    assert ">\nElse.</textarea>" in html and 'name="chosen" value="3"' in html
    html = post(client, "restore", view=json.dumps({"panes": [pane, pane | {"pair": "twin"}]}))
    assert 'id="pane-b"' in html and 'id="relation"' in html
    for wrong in ("damaged", '{"panes": []}', json.dumps({"panes": [pane | {"chosen": "x"}]})):
        assert "the link holds no view" in post(client, "restore", 400, view=wrong)


def test_what_cannot_be_is_said_in_a_line(client: TestClient) -> None:
    assert "the text is empty" in post(client, "read", 400, typed=" \n")
    assert "no such pair" in post(client, "read", 400, typed=TEXT, pair="other")
    assert "no such token" in post(client, "explain", 400, at=99)
    assert "no whole number" in post(client, "explain", 400, at="²")
    assert "no whole number" in post(client, "samples", 400, at=1, count=10**6)
    assert "longer than the subject" in post(client, "read", 400, typed="a" * 1000)
    assert "too large" in post(client, "read", 400, typed="a" * 2_000_001)
    broken = client.post("/explore/read", content=b"typed=\xff\xfe")
    assert broken.status_code == 400 and "cannot be read" in broken.text


def test_another_site_cannot_ask(client: TestClient) -> None:
    for origin, status in (("http://evil.example", 403), ("null", 403), ("http://127.0.0.1", 200)):
        answer = client.post("/explore/read", data={"typed": TEXT}, headers={"origin": origin})
        assert answer.status_code == status, origin


def test_who_has_the_token_enters(nla: NLA, tmp_path: Path) -> None:
    engine, token = Engine(nla), "a-secret-of-sixteen"
    app = application({"toy": engine}, beside(tmp_path / "pair", nla), Settings(token=token))
    client = TestClient(app, base_url="http://service.example", follow_redirects=False)
    assert client.get("/explore").headers["location"] == "/explore/enter"
    assert client.post("/explore/read", data={"typed": TEXT}).status_code == 401
    assert client.get("/explore/static/htmx.min.js").status_code == 401
    assert "Token of this service" in client.get("/explore/enter").text
    assert client.get("/explore/static/explorer.css").status_code == 200
    wrong = client.post("/explore/enter", data={"token": "another"})
    assert wrong.status_code == 401 and "not the token" in wrong.text and not client.cookies
    right = client.post("/explore/enter", data={"token": token})
    assert right.status_code == 303
    assert all(
        f"; {kind}" in right.headers["set-cookie"] for kind in ("HttpOnly", "SameSite=Strict")
    )
    assert client.get("/explore").status_code == 200
    assert client.post("/explore/read", data={"typed": TEXT}).status_code == 200
    engine.close()


def test_a_full_queue_is_said(nla: NLA, tmp_path: Path) -> None:
    engine = Engine(nla, queue=0)
    client = client_of({"toy": engine}, beside(tmp_path / "pair", nla))
    (event,) = stream_of(client, post(client, "explain", at=3))
    assert event[0] == "done" and "too many explanations wait" in event[1]
    answer = client.post("/explore/samples", data={"text": TEXT, "at": 3})
    assert answer.status_code == 503 and answer.headers["retry-after"]
    engine.close()


def test_a_pair_without_an_av_has_nothing_to_show(nla: NLA) -> None:
    engine = Engine(NLA(nla.subject, None, nla.ar, nla.mean))
    with pytest.raises(ContractError, match="holds no AV"):
        Explorer({"half": engine})
    engine.close()


def test_an_av_alone_is_shown_without_scores(nla: NLA) -> None:
    engine = Engine(NLA(nla.subject, nla.av, None, nla.mean))
    client = client_of({"half": engine}, Path("nowhere"))
    assert "not evaluated" in client.get("/explore").text
    html = told(client, 3)
    assert "no reconstructor" in html and "floor:" not in html
    assert "–" in post(client, "export", **{"as": "html"})
    engine.close()


def _explorer(client: TestClient) -> Explorer:
    return client.app.state.explorer  # type: ignore[attr-defined]

"""A client written against Neuronpedia's documented schema works unchanged: names, types, order of
events, shapes of errors."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest

from nlakit import NLA
from nlakit.core.prompts import document_ids
from tests.serve.conftest import Client

TEXT = "The whale sings."
NUMBER = (int, float)
# Of their records: field → type, as their schema has it.
SCORES: dict[str, Any] = {"mse": NUMBER, "cosine_similarity": NUMBER}
TOKEN: dict[str, Any] = {
    "token": str, "token_id": int, "position": int, "fragment_index": int, "fragment_count": int,
    "role": type(None), "section": type(None), "channel": type(None), "message_index": type(None),
}  # fmt: skip
RESULT: dict[str, Any] = {
    **TOKEN,
    **SCORES,
    "l2_norm": NUMBER,
    "description": str,
    "generated": bool,
}
HEALTH = """status verbalizer_model d_model verbalizer_quantization verbalizer_kv_cache_dtype
verbalizer_cuda_graph_max_bs verbalizer_torch_compile verbalizer_device reconstructor_available
reconstructor_fp8 reconstructor_int4 reconstructor_device source_model extraction_layer
source_truncated source_fp8 source_device completion_available num_cuda_devices max_concurrent
max_concurrent_explains source_max_concurrent reconstructor_max_concurrent max_describe_requests
limits""".split()


def check(record: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, kind in fields.items():
        assert isinstance(record[name], kind), (name, record[name])


def frames(answer: httpx.Response) -> list[Any]:
    """The events of a stream, which ends in `[DONE]`; parsed as their web application does."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = answer.text.split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    data = [line[6:].strip() for line in lines]
    assert data[-1] == "[DONE]"
    return [json.loads(one) for one in data[:-1]]


def test_the_root_says_what_is_loaded(client: Client) -> None:
    found = client.get("/").json()
    assert set(HEALTH) <= found.keys()
    assert found["status"] == "ok"
    assert found["d_model"] == 32
    assert found["extraction_layer"] == 1
    assert found["limits"] == {
        "max_input_chars": 65_536, "max_positions_per_request": 512, "max_new_tokens": 1024,
        "max_describe_batch": 512, "max_description_chars": 8192, "max_completion_tokens": 512,
    }  # fmt: skip


def test_explain_gives_the_records_of_their_schema(client: Client, toy_nla: NLA) -> None:
    asked = {"text": TEXT, "positions": [1, -1], "temperature": 0}
    found = client.post("/explain", asked).json()
    assert found["layer_index"] == 1
    for record in found["results"]:
        check(record, RESULT)
    # The last position comes first unless `reverse` is false.
    assert [one["position"] for one in found["results"]] == [16, 1]
    forward = client.post("/explain", {**asked, "reverse": False}).json()
    assert [one["description"] for one in forward["results"]] == [
        one["description"] for one in found["results"][::-1]
    ]
    own = toy_nla.explain(TEXT, [16, 1])
    for record, one in zip(found["results"], own, strict=True):
        assert (record["description"], record["token"]) == (one.explanation, one.token)
        assert one.centred_cosine == pytest.approx(record["centred_cosine"], abs=1e-5)
        assert one.floor == pytest.approx(record["floor"]["centred_cosine"], abs=1e-5)


def test_all_positions_are_explained_unless_some_are_named(client: Client) -> None:
    for asked in ({"text": "abc"}, {"text": "abc", "positions": []}):
        found = client.post("/explain", {**asked, "max_new_tokens": 2}).json()["results"]
        assert [one["position"] for one in found] == [3, 2, 1, 0]


def test_a_stream_begins_with_what_will_be_and_ends_when_all_is_told(client: Client) -> None:
    asked = {"text": TEXT, "positions": [1, 2], "temperature": 0, "stream": True}
    first, *rest = frames(client.post("/explain", asked))
    assert first == {"layer_index": 1, "total": 2, "prompt_length": 17}
    whole = {one["position"]: one for one in rest if "description" in one}
    parts = [one for one in rest if "description" not in one]
    assert whole.keys() == {1, 2}
    assert parts
    for part in parts:
        assert part.keys() == {"position", "text", "done"}
        assert part["done"] is False
    for record in whole.values():
        check(record, RESULT)
        at = rest.index(record)
        assert all(one["position"] != record["position"] for one in rest[at + 1 :])
    texts = [part["text"] for part in parts if part["position"] == 1]
    assert all(later.startswith(text[:-1]) for text, later in pairwise(texts))
    same = client.post("/explain", {**asked, "stream": False}).json()["results"]
    assert {one["position"]: one["description"] for one in same} == {
        at: one["description"] for at, one in whole.items()
    }


def test_describe_takes_vectors(client: Client, vectors: np.ndarray) -> None:
    asked = {"activations": vectors[:2].tolist(), "temperature": 0}
    found = client.post("/describe", asked).json()["results"]
    for record in found:
        check(record, {**SCORES, "description": str})
    events = frames(client.post("/describe", {**asked, "stream": True}))
    whole = {one["index"]: one["description"] for one in events if "description" in one}
    assert [whole[0], whole[1]] == [one["description"] for one in found]
    for part in (one for one in events if "description" not in one):
        assert part.keys() == {"index", "text", "done"}


def test_score_and_compare(client: Client, toy_nla: NLA, vectors: np.ndarray) -> None:
    a, b = vectors[:2].tolist()
    found = client.post("/score", {"description": "a whale", "activation": a}).json()
    check(found, SCORES)
    [own] = toy_nla.score(["a whale"], vectors[:1])
    assert found["mse"] == pytest.approx(own.mse, abs=1e-5)
    assert found["mse"] == pytest.approx(2 - 2 * found["cosine_similarity"])
    asked = {"activation_a": a, "activation_b": b, "temperature": 0}
    compared = client.post("/compare", asked).json()
    check(compared, {**SCORES, "description": str, "diff_norm": NUMBER})
    assert compared["diff_norm"] == pytest.approx(float(np.linalg.norm(vectors[0] - vectors[1])))
    assert compared["description"] == toy_nla.explain(vectors[:1] - vectors[1:2])[0].explanation


def test_extract_gives_what_describe_takes(client: Client, toy_nla: NLA) -> None:
    found = client.post("/extract", {"text": TEXT}).json()
    _, _, own = toy_nla.activations(TEXT)
    got = np.array([token["activation"] for token in found["tokens"]], dtype=np.float32)
    np.testing.assert_allclose(got, own, rtol=1e-6)
    token = found["tokens"][1]
    check(token, {"token": str, "token_id": int, "position": int, "l2_norm": NUMBER})
    asked = {"activations": [token["activation"]], "temperature": 0}
    text = client.post("/describe", asked).json()["results"][0]["description"]
    asked = {"text": TEXT, "positions": [1], "temperature": 0}
    assert text == client.post("/explain", asked).json()["results"][0]["description"]


def test_a_character_of_several_tokens_is_one_run(client: Client) -> None:
    """The toy's tokens are bytes: a whale has four, é two."""
    found = client.post("/tokenize", {"text": "é🐋x"}).json()
    for token in found["tokens"]:
        check(token, TOKEN)
    shown = [(t["token"], t["fragment_index"], t["fragment_count"]) for t in found["tokens"]]
    runs = [("é", at, 2) for at in range(2)] + [("🐋", at, 4) for at in range(4)]
    assert shown[1:] == [*runs, ("x", 0, 1)]
    assert found["prompt_length"] == 8
    assert found["text"] == "é🐋x"


def test_a_special_token_of_a_text_is_one_as_in_their_tokenizer(
    client: Client, toy_nla: NLA
) -> None:
    def ids(**given: Any) -> list[int]:
        found = client.post("/tokenize", {"text": "<bos>a<eos>", **given}).json()["tokens"]
        return [token["token_id"] for token in found]

    tokenizer = toy_nla.subject.tokenizer
    assert ids() == document_ids(tokenizer, "<bos>a<eos>", "parse")
    assert len(ids()) == 3
    assert ids(special_tokens="text") == document_ids(tokenizer, "<bos>a<eos>", "text")


def test_completion_goes_on_from_the_prompt(client: Client) -> None:
    asked = {"text": "The whale", "completion_tokens": 5, "temperature": 0}
    found = client.post("/completion", asked).json()
    assert found["prompt_length"] == 10
    assert [token["position"] for token in found["tokens"]] == list(range(len(found["tokens"])))
    assert 10 < len(found["tokens"]) <= 15
    first, *rest = frames(client.post("/completion", {**asked, "stream": True}))
    assert first.keys() == {"type", "prompt_length", "tokens"}
    assert first["type"] == "prompt"
    assert rest[-1] == {"type": "done", "text": found["text"]}
    assert {one["type"] for one in rest[:-1]} == {"token"}
    assert first["tokens"] + [one["token"] for one in rest[:-1]] == found["tokens"]


def test_the_web_interface_lists_sources_and_explains_them(client: Client) -> None:
    """As their notebook does: list, choose, ask."""
    [source] = client.get("/api/nla/sources").json()["sources"]
    strings = "modelId id displayName description url author av ar createdAt".split()
    check(source, {**dict.fromkeys(strings, str), "layerNum": int, "norm": NUMBER})
    check(source["model"], {"id": str, "displayName": str, "openRouterAvailable": bool})
    asked = {
        "modelId": source["modelId"], "nlaSourceId": source["id"], "text": TEXT,
        "positions": [9, 3, 3], "temperature": 0,
    }  # fmt: skip
    found = client.post("/api/nla/explain", asked).json()
    check(found, {"layer_index": int, "prompt_length": int})
    assert [one["position"] for one in found["results"]] == [3, 9]
    for record in found["results"]:
        check(record, RESULT)
    first, *rest = frames(client.post("/api/nla/explain", {**asked, "stream": True}))
    assert first == {"layer_index": 1, "total": 2, "prompt_length": 17}
    whole = {one["position"]: one for one in rest if "description" in one}
    assert [whole[3]["description"], whole[9]["description"]] == [
        one["description"] for one in found["results"]
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"text": TEXT}, "positions"),
        ({"text": TEXT, "positions": []}, "positions"),
        ({"text": TEXT, "positions": [-1]}, "positions"),
        ({"text": TEXT, "positions": [99]}, "out of range"),
        ({"positions": [1]}, "Provide either `text` or `messages`."),
        ({"text": "x" * 70_000, "positions": [1]}, "text"),
    ],
)
def test_the_web_interface_says_what_is_wrong_in_a_sentence(
    client: Client, asked: dict[str, Any], said: str
) -> None:
    answer = client.post("/api/nla/explain", asked)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_the_inference_server_says_it_under_detail(client: Client) -> None:
    answer = client.post("/explain", {"text": "abc", "positions": [7]})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Position 7 out of range (0..3)")
    answer = client.post("/explain", {"text": "abc", "temperature": "warm"})
    assert answer.status_code == 422
    [fault] = answer.json()["detail"]
    assert fault["loc"] == ["body", "temperature"]


def test_each_pair_has_the_inference_routes_below_its_name(client: Client) -> None:
    asked = {"text": TEXT, "positions": [1], "temperature": 0}
    texts = [
        client.post(f"{below}/explain", asked).json()["results"][0]["description"]
        for below in ("", "/pairs/toy")
    ]
    assert texts[0] == texts[1]
    assert client.get("/pairs/toy/").json()["verbalizer_model"] == "toy"
    assert client.post("/pairs/other/explain", asked).status_code == 404
    asked |= {"nlaSourceId": "other"}
    assert client.post("/api/nla/explain", asked).status_code == 404

"""Audits of tables with planted failures, of tables with few columns, and of clean ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from nlakit.cli import audit as cli_audit
from nlakit.core.metrics import unit
from nlakit.evaluate.audit.audit import audit
from nlakit.evaluate.audit.rows import sampled, side_of, variant_of
from nlakit.evaluate.audit.table import read_audit_table
from nlakit.evaluate.audit.texts import beginning, overlap
from nlakit.files.parquet import vector_array, write_table

N, D = 60, 24
THINGS = "trumpet harbour verdict glacier sonnet ledger orchard tariff comet violin".split()
DEEDS = "opens closes doubts praises measures forgets repairs follows".split()


def text(i: int) -> str:
    """A text that no other row has."""
    a, b, c = THINGS[i % 10], DEEDS[i // 10 % 8], THINGS[(i // 3 + 4) % 10]
    return f"The {a} {b} row {i}, and a reader waits for the {c}. It ends upon {b} number {i}."


def source(i: int) -> str:
    return " ".join(f"{THINGS[i % 10]}{i} {DEEDS[i // 10 % 8]}{i} x{i}y{j}" for j in range(12))


def table(tmp_path: Path, **columns: Any) -> dict[str, Any]:
    """The audit of a table with these columns."""
    vectors = ("activation_vector", "reconstruction")
    made = {k: vector_array(v) if k in vectors else pa.array(v) for k, v in columns.items()}
    write_table(tmp_path / "rows.parquet", pa.table(made))
    return audit(read_audit_table(tmp_path / "rows.parquet"))


def codes(found: dict[str, Any]) -> list[str]:
    return [one["code"] for one in found["warnings"]]


def of(found: dict[str, Any], part: str, measure: str, condition: str = "real") -> dict[str, Any]:
    key = (part, measure, condition, "all")
    names = ("part", "measure", "condition", "group")
    return next(r for r in found["findings"] if tuple(r[name] for name in names) == key)


def variants(means: dict[str, float], sd: float = 0.03, n: int = N) -> dict[str, Any]:
    """Rows of several variants that share the noise of their row."""
    noise = np.random.default_rng(0).normal(0, sd, n)
    own = np.random.default_rng(1).normal(0, sd / 10, (len(means), n))
    names = [name for name in means for _ in range(n)]
    return {
        "variant": names,
        "row_id": [f"r{i}" for _ in means for i in range(n)],
        "doc_id": [f"d{i // 2}" for _ in means for i in range(n)],
        "explanation": [text(i) for _ in means for i in range(n)],
        "cosine": np.concatenate(
            [mean + noise + own[k] for k, mean in enumerate(means.values())]
        ),
    }  # fmt: skip


def vectors(share: float, seed: int = 0) -> tuple[Any, Any]:
    """Activations with a common mean; reconstructions keep `share` of what is their own."""
    rng = np.random.default_rng(seed)
    common, own, noise = rng.normal(size=D), rng.normal(size=(N, D)), rng.normal(size=(N, D))
    return 50 * (common + own), common + share * own + 0.1 * noise


def documents() -> list[str]:
    return [f"d{i // 2}" for i in range(N)]


def test_texts_alone_are_enough(tmp_path: Path) -> None:
    found = table(tmp_path, explanation=[text(i) for i in range(N)])
    assert codes(found) == []
    assert of(found, "collapse", "unique", "explanation")["mean"] == 1
    assert found["verdict"] is None
    missing = " ".join(one["missing"] for one in found["unsaid"])
    for column in ("doc_id", "cosine", "source_text", "label", "split", "activation_vector"):
        assert column in missing
    json.dumps(found, allow_nan=False)


def test_cosines_alone_give_the_block_of_the_card(tmp_path: Path) -> None:
    found = table(tmp_path, cos=[0.2, 0.4, 0.6, None])
    card = found["detail"]["roundtrip"]["card"]
    assert (card["attempted"], card["evaluated"]) == (4, 3)
    assert card["mean"] == pytest.approx(0.4) and card["sd"] == pytest.approx(0.2)
    assert (card["min"], card["median"], card["max"]) == (0.2, 0.4, 0.6)
    assert card["above_0_30"] == pytest.approx(2 / 3)
    assert any("1 of 4 attempted rows were not evaluated" in note for note in found["notes"])
    assert any(one["measure"].startswith("whether the score") for one in found["unsaid"])


def test_a_clean_table_raises_no_warning(tmp_path: Path) -> None:
    real, made = vectors(1.0)
    found = table(
        tmp_path, explanation=[text(i) for i in range(N)], doc_id=documents(),
        row_id=list(range(N)), source_text=[source(i) for i in range(N)],
        label=[f"{text(i)} {source(i)[:9]}." for i in range(N)], activation_vector=real,
        reconstruction=made, source_family=["a", "b"] * (N // 2),
    )  # fmt: skip
    assert codes(found) == []
    assert found["verdict"]["word"] == "content-sensitive"
    for name in ("fve", "fve_mean_direction", "fve_row_ratio", "centred_cosine", "top1"):
        assert of(found, "roundtrip", name)["low"] > 0.5
    assert of(found, "source", "document_top1", "other_row")["mean"] < 0.2
    assert of(found, "labels", "word_overlap")["gain_low"] > 0
    assert {r["group"] for r in found["findings"]} == {"all", "source_family=a", "source_family=b"}
    assert [one["missing"].split()[-1] for one in found["unsaid"]] == ["token", "source_text"]


def test_recomputed_scores_are_those_of_the_formulas(tmp_path: Path) -> None:
    real, made = vectors(0.5)
    found = table(tmp_path, activation_vector=real, reconstruction=made)
    u, v = unit(real.astype(np.float32)), unit(made.astype(np.float32))
    mean, mse = u.mean(axis=0), ((u - v) ** 2).sum(axis=1)
    apart = ((u - mean) ** 2).sum(axis=1)
    direction = ((u - mean / np.linalg.norm(mean)) ** 2).sum(axis=1)
    for name, value in {
        "fve": 1 - mse.mean() / apart.mean(),
        "fve_own_mean": 1 - mse.mean() / apart.mean(),
        "fve_mean_direction": 1 - mse.mean() / direction.mean(),
        "fve_row_ratio": (1 - mse / apart).mean(),
        "cosine": (u * v).sum(axis=1).mean(),
    }.items():
        assert of(found, "roundtrip", name)["mean"] == pytest.approx(value, abs=1e-6)


def test_planted_content_blind_cosines_of_the_card(tmp_path: Path) -> None:
    means = {"real": 0.4292, "empty": 0.4051, "gibberish": 0.4135, "random": 0.4045}
    found = table(tmp_path, **variants(means))
    assert codes(found) == ["content-blind"]
    record = of(found, "roundtrip", "cosine")
    assert record["floor"] == "gibberish"
    assert record["gain"] == pytest.approx(0.0157, abs=0.002)


def test_a_small_gain_near_the_ceiling_is_not_content_blind(tmp_path: Path) -> None:
    found = table(tmp_path, **variants({"real": 0.95, "empty": 0.9076}, sd=0.005))
    assert codes(found) == []


def test_planted_content_blind_vectors(tmp_path: Path) -> None:
    """A reconstructor that answers the common mean with noise."""
    real, made = vectors(0.0)
    found = table(tmp_path, explanation=[text(i) for i in range(N)], doc_id=documents(),
                  activation_vector=real, reconstruction=made)  # fmt: skip
    assert codes(found) == ["content-blind"]
    assert found["verdict"]["word"] == "content-blind"


def test_planted_template_collapse_20_of_42(tmp_path: Path) -> None:
    found = table(tmp_path, explanation=[text(i % 20) for i in range(42)], cosine=[0.44] * 42)
    assert codes(found) == ["collapsed"]
    assert of(found, "collapse", "unique", "explanation")["mean"] == pytest.approx(20 / 42)


def test_planted_opening_of_60_characters(tmp_path: Path) -> None:
    opening = "The passage is written in a formal and informative register, "
    texts = [opening + text(i) if i % 5 < 3 else text(i) for i in range(N)]
    found = table(tmp_path, explanation=texts)
    assert codes(found) == ["collapsed"]
    assert found["warnings"][0]["evidence"] == {"texts with one opening of 60 characters": 36}
    assert of(found, "collapse", "unique_80", "explanation")["mean"] > 0.8


def test_a_sample_has_whole_documents() -> None:
    picked = sampled([f"d{i // 3}" for i in range(300)], 30, 0)
    assert len(picked) == 30 and (np.diff(picked) > 0).all()
    assert set(np.bincount(picked // 3)) == {0, 3}


@pytest.mark.parametrize("end", ["", "..."])
def test_planted_truncated_storage(tmp_path: Path, end: str) -> None:
    whole = [" ".join(text(i + j) for j in range(2 + i % 4)) for i in range(N)]
    found = table(tmp_path, explanation=[t[:200] + end if len(t) > 200 else t for t in whole])
    assert codes(found) == ["truncated-texts"]
    assert found["warnings"][0]["evidence"]["length"] == 200 + len(end)
    assert codes(table(tmp_path, explanation=whole)) == []


def test_planted_rows_that_were_dropped_from_the_mean(tmp_path: Path) -> None:
    columns = variants({"real": 0.8, "empty": 0.4})
    kept = [i for i in range(2 * N) if i >= 8]
    found = table(tmp_path, **{k: [v[i] for i in kept] for k, v in columns.items()})
    assert codes(found) == ["cut-table"]
    assert found["warnings"][0]["evidence"] == {"attempted": N, "evaluated": N - 8}


@pytest.mark.parametrize("wrong", ["fve_mean_direction", "zero_vector"])
def test_planted_wrong_baseline_is_named(tmp_path: Path, wrong: str) -> None:
    real, made = vectors(0.5)
    right = table(tmp_path, activation_vector=real, reconstruction=made)
    bases = right["detail"]["roundtrip"]["baselines"]
    mse = of(right, "roundtrip", "mse")["mean"]
    for name, expected in (("fve", []), (wrong, ["wrong-baseline"])):
        fve = [1 - mse / bases[name]] * N
        found = table(tmp_path, activation_vector=real, reconstruction=made, fve=fve)
        assert [c for c in codes(found) if c == "wrong-baseline"] == expected
    assert f"near {wrong}" in found["warnings"][-1]["message"]


def test_planted_wrong_baseline_without_vectors(tmp_path: Path) -> None:
    """FVE against two random vectors: 1 − mse / 2."""
    mse = np.linspace(0.8, 1.2, N)
    assert codes(table(tmp_path, mse=mse, fve=1 - mse / 2)) == ["wrong-baseline"]
    assert codes(table(tmp_path, mse=mse, fve=1 - mse / 0.7)) == []


def test_planted_wrong_score(tmp_path: Path) -> None:
    real, made = vectors(0.5)
    right = [float(c) for c in np.sum(unit(real) * unit(made), axis=1)]
    for cosine, expected in ((right, []), ([c - 0.05 for c in right], ["wrong-score"])):
        found = table(tmp_path, activation_vector=real, reconstruction=made, cosine=cosine)
        assert [c for c in codes(found) if c == "wrong-score"] == expected
        assert of(found, "stored", "cosine")["mean"] == pytest.approx(np.mean(cosine))


def test_texts_find_their_document_and_other_rows_texts_do_not(tmp_path: Path) -> None:
    names = [f"{a}{b}" for a in "bcdfgh" for b in THINGS]
    found = table(
        tmp_path, explanation=[f"It says that the {name} is near." for name in names],
        source_text=[f"She looked, and the {name} was at the door." for name in names],
    )  # fmt: skip
    assert of(found, "source", "document_top1")["mean"] == 1
    assert of(found, "source", "document_top1", "other_row")["mean"] == 0
    assert of(found, "source", "copied_run")["mean"] == 2
    assert of(found, "source", "copied_run")["gain"] == 1  # "the" stands in every source


def test_a_text_that_names_its_token_stands_beside_one_that_names_another(tmp_path: Path) -> None:
    found = table(tmp_path, explanation=[text(i) for i in range(N)],
                  token=[f" {THINGS[i % 10]}" if i else "?" for i in range(N)])  # fmt: skip
    record = of(found, "token", "names_token")
    assert record["rows"] == N - 1  # a mark is no word
    assert record["mean"] == 1 and record["gain_low"] > 0.5


@pytest.mark.parametrize("column", ["doc_id", "source_text"])
def test_planted_contaminated_split(tmp_path: Path, column: str) -> None:
    columns: dict[str, Any] = {
        "explanation": [text(i) for i in range(N)],
        "doc_id": [f"d{i}" for i in range(N)],
        "source_text": [source(i) for i in range(N)],
        "split": ["train"] * (N // 2) + ["test"] * (N // 2),
    }
    clean = table(tmp_path, **columns)
    assert codes(clean) == []
    assert clean["rows"]["judged"] == N // 2
    columns[column][-1] = columns[column][0] + (" and on" if column == "source_text" else "")
    found = table(tmp_path, **columns)
    assert codes(found) == ["contaminated-split"]
    assert sum(found["warnings"][0]["evidence"].values()) == 1


def test_planted_words_of_an_auditor(tmp_path: Path) -> None:
    labels = [f"7: KEEP. {text(i)}" if i == 3 else text(i) for i in range(N)]
    assert codes(table(tmp_path, explanation=[text(i) for i in range(N)], label=labels)) == [
        "auditor-words"
    ]


def test_impossible_cosines_are_left_out(tmp_path: Path) -> None:
    found = table(tmp_path, cosine=[43.8, 0.5, 0.7])
    assert codes(found) == ["impossible-score"]
    assert of(found, "roundtrip", "cosine")["mean"] == pytest.approx(0.6)


def test_stored_centred_cosines_with_fve_get_a_verdict(tmp_path: Path) -> None:
    columns = variants({"real": 0.6, "empty": 0.02})
    columns["centred_cosine"] = columns.pop("cosine")
    found = table(tmp_path, **columns, fve=columns["centred_cosine"] - 0.1)
    assert found["verdict"]["word"] == "weak"  # no other position of the document
    assert found["verdict"]["evidence"]["best_floor"] == "empty"


def test_variants_without_a_key_are_scored_and_not_paired(tmp_path: Path) -> None:
    columns = variants({"real": 0.6, "empty": 0.2})
    found = table(tmp_path, variant=columns["variant"], cosine=columns["cosine"])
    assert of(found, "roundtrip", "cosine")["floor"] is None
    assert any("row_id" in one["missing"] for one in found["unsaid"])


def test_names_of_variants_and_parts() -> None:
    assert variant_of(" Empty String") == "empty" and variant_of("AV_OUT") == "real"
    assert variant_of(None) == "real" and variant_of("v0.2") == "v0.2"
    assert (side_of("held-out"), side_of("AR"), side_of(None)) == ("test", "train", "other")


def test_small_helpers() -> None:
    assert overlap("a ship at sea", "A ship, ashore") == pytest.approx(2 / 5)
    assert beginning("too short") == ""
    assert beginning("A b" * 200) == beginning("a, B " * 200)


def run(*arguments: str) -> Any:
    app = typer.Typer()
    cli_audit.register(app)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_saves_what_it_shows_and_gates(tmp_path: Path) -> None:
    table(tmp_path, explanation=[text(i % 20) for i in range(42)])
    file = tmp_path / "rows.parquet"
    shown = run(str(file), "--save", str(tmp_path / "out"), "--gate")
    assert shown.exit_code == 3, shown.output
    assert "collapsed: of 42 rows: 20 unique texts" in shown.output
    saved = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert saved["provenance"]["file"] == "rows.parquet"
    assert len(saved["provenance"]["sha256"]) == 64
    assert run(str(file)).exit_code == 0


def test_a_floor_on_a_few_easy_rows_is_not_the_floor(tmp_path: Path) -> None:
    """Planted: a table that a few rows of another floor would clear of being content-blind."""
    blind = variants({"real": 0.800, "empty": 0.795})
    easy = {"row_id": blind["row_id"][:3], "variant": ["gibberish"] * 3, "cosine": [0.45] * 3}
    both = {name: [*blind[name], *easy[name]] for name in easy}
    found = table(tmp_path, **both)
    assert "content-blind" in codes(found)
    assert (
        of(found, "roundtrip" if "roundtrip" in parts_of(found) else "stored", "cosine")["floor"]
        == "empty"
    )


def parts_of(found: dict[str, Any]) -> set[str]:
    return {one["part"] for one in found["findings"]}


def test_a_missing_label_or_source_is_no_empty_one(tmp_path: Path) -> None:
    texts = [text(i) for i in range(40)]
    some = [own if i % 2 else None for i, own in enumerate(texts)]
    documents = [f"d{i}" for i in range(40)]
    found = table(tmp_path, explanation=texts, label=some, source_text=some, doc_id=documents)
    for part, measure in (("labels", "word_overlap"), ("labels", "same_text"),
                          ("source", "document_top1")):  # fmt: skip
        one = of(found, part, measure)
        assert (one["mean"], one["rows"]) == (1.0, 20), measure
    label = of(found, "collapse", "unique", "label")
    assert (label["mean"], label["rows"]) == (1.0, 20)


def test_rows_without_a_position_find_their_variants(tmp_path: Path) -> None:
    documents = [f"d{i}" for i in range(20)]
    found = table(
        tmp_path, doc_id=documents * 2, position=pa.array([None] * 40, pa.int64()),
        variant=["real"] * 20 + ["empty"] * 20, cosine=[0.9] * 20 + [0.2] * 20,
    )  # fmt: skip
    assert "cut-table" not in codes(found)

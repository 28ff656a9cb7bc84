"""The plan's arithmetic by hand, and its counts beside what the stages really write."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig
from nlakit.core.flops import Shape
from nlakit.core.memory import Block, Model
from nlakit.data import activations, corpus, split, tables
from nlakit.data.labels import label as labels
from nlakit.errors import DataError
from nlakit.files.rows import TableRows
from nlakit.run.folder import RunDir
from nlakit.studies.planning import calibrate as calibrating
from nlakit.studies.planning import plan
from nlakit.studies.planning.calibrate import Calibration, Sizes, calibrate, shape_of
from nlakit.studies.planning.plan import (
    StagePlan,
    Survey,
    predict,
    predict_stages,
    survey_documents,
    table_of,
)
from nlakit.studies.planning.stage_memory import SCATTER, Budgets, Lengths

WORDS = (
    "river stone lamp winter market letter garden captain window silver thunder orchard bridge "
    "kettle harbour violin granite fence ferry candle meadow engine castle ribbon"
).split()


def document(seed: int, length: int) -> str:
    """Sentences of words in an order of their own."""
    picked = [WORDS[(seed * 7 + i * (seed % 5 + 1) + i * i) % len(WORDS)] for i in range(length)]
    return " ".join(f"{word}{i % 17 + seed}" for i, word in enumerate(picked)) + "."


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random three-block model with a tokenizer that keeps the tags apart."""
    folder = tmp_path_factory.mktemp("subject")
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    special = ["<bos>", "<eos>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokens.train_from_iterator([document(seed, 60) for seed in range(20)], trainer)
    tokens.add_tokens(["<concept>", "</concept>", "<explanation>", "</explanation>", "㊗"])
    tokens.add_tokens(["<text>", "</text>", "<summary>"])
    tokens.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 0)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    settings = Gemma3TextConfig(
        vocab_size=tokens.get_vocab_size(),
        hidden_size=256,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    Gemma3ForCausalLM(settings).to(torch.bfloat16).save_pretrained(folder)
    return str(folder)


def configured(tmp_path: Path, model: str = "none", documents: int = 60) -> RunConfig:
    source = tmp_path / "documents.jsonl"
    texts = [document(seed, 40 + seed % 30) for seed in range(documents)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return parse_config(
        {
            "name": "toy",
            "subject": {"model": model, "layer": 1, "device": "cpu"},
            "corpus": {
                "sources": [{"path": str(source)}],
                "min_characters": 20,
                "near_duplicate_share": 1.0,
            },
            "activations": {"positions_per_document": 6, "skip_first": 5, "max_tokens": 100},
            "labels": {"max_duplicate_share": 1.0},
            "ar": {"lora": {"r": 4, "alpha": 8}, "batch_rows": 4},
            "av": {"lora": {"r": 4, "alpha": 8}, "batch_rows": 4},
            "pair": {"generate_batch": 4},
        }
    )


def near(found: float, real: float, share: float = 0.1) -> bool:
    return abs(found - real) <= share * real


def test_counts_and_disk_are_those_of_the_stages(tmp_path: Path, subject: str) -> None:
    config = configured(tmp_path, subject)
    made = {stage.stage: stage for stage in predict(config, RunDir(tmp_path / "absent")).stages}
    assert not (tmp_path / "absent").exists()

    rundir = RunDir.create(tmp_path / "run", config)
    written = {
        stage: module.run(config, rundir)
        for stage, module in (
            ("corpus", corpus),
            ("activations", activations),
            ("split", split),
            ("labels", labels),
            ("tables", tables),
        )
    }
    assert made["corpus"].rows == written["corpus"].rows.kept == 60
    assert made["activations"].rows == written["activations"].rows.kept == 360
    for stage, share in (("corpus", 0.1), ("activations", 0.1), ("tables", 0.2)):
        real = sum(record.bytes for record in written[stage].files.values())
        assert near(made[stage].disk, real, share), (stage, made[stage].disk, real)
    again = predict(config, rundir)
    assert [stage.rows for stage in again.stages] == [stage.rows for stage in made.values()]
    assert "finished corpus" in again.notes


def test_calibration_measures_each_kind_of_work(tmp_path: Path, subject: str) -> None:
    config = configured(tmp_path, subject)
    survey = survey_documents(config, RunDir(tmp_path / "absent"))
    found = calibrate(config, survey.sample, survey.texts)
    assert set(found.speeds) == {"read", "ar", "av", "decode"}
    assert all(speed > 0 for speed in found.speeds.values())
    assert found.base_memory > 0 and found.lengths.document <= 100
    assert found.lengths.response >= found.sizes.long_response
    assert found.lengths.ar_text >= found.sizes.ar_text
    assert found.sizes.positions == 6 and found.sizes.av_prompt > 3
    assert found.sizes.long_response >= found.sizes.response
    assert found.notes == ()


def test_the_longest_label_of_the_sample_is_guessed_from_rows_that_were_not_read() -> None:
    rows = TableRows(["a", "b"], [], ["one two / x y z", "one / x"], [], [], [], [], np.zeros(2))
    bare = {"a": "one two", "b": "one", "c": "one two three four five", "d": ""}
    # The slash and three tokens are added at most, to five of a row that was not read.
    assert calibrating.longest(bare, rows, str.split) == 5 + 4
    # Without expected tokens, nothing is added.
    same = dataclasses.replace(rows, texts=["one two", "one"])
    assert calibrating.longest(bare, same, str.split) == 5


def test_a_batch_that_takes_long_is_cut_with_a_note(
    tmp_path: Path, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrating, "BATCH_SECONDS", 1e-9)
    config = configured(tmp_path, subject)
    survey = survey_documents(config, RunDir(tmp_path / "absent"))
    found = calibrate(config, survey.sample, survey.texts)
    assert "av: speed of a batch of 1, not 4" in found.notes


def test_shape_of_a_model_by_hand(subject: str) -> None:
    model = Gemma3ForCausalLM.from_pretrained(subject)
    shape = shape_of(model)
    # q, o: 256 x 64; k, v: 256 x 32; gate, up, down: 256 x 128.
    assert shape.block_weights == 2 * 16384 + 2 * 8192 + 3 * 32768
    assert shape.lora_unit == 2 * 320 + 2 * 288 + 3 * 384
    assert (shape.blocks, shape.d_attention, shape.d_model) == (3, 64, 256)
    assert shape.vocabulary == model.config.vocab_size


SHAPE = Shape(block_weights=100, blocks=2, d_attention=0, d_model=5, vocabulary=7, lora_unit=10)
SIZES = Sizes(
    sampled=10,
    positions=2.0,
    tokens=50.0,
    labelled=20,
    ar_text=10.0,
    ar_empty=4.0,
    av_prompt=3,
    response=8.0,
    long_response=16.0,
    row_bytes={"activations": 30.0, "labels": 7.0, "ar": 40.0, "av": 50.0},
    label_seconds=0.5,
    row_memory=100.0,
)
SPEEDS: dict[str, float] = {"read": 1000.0, "ar": 1000.0, "av": 1000.0, "decode": 1000.0}
BLOCK = Block((100,), ((5, 5),), other=0, queries=5, keys=0, up=6, gated=False, normed=5)
MODEL = Model(d_model=5, vocabulary=7, tied=True, blocks=(BLOCK, BLOCK))
LENGTHS = Lengths(document=50, ar_text=20, av_prompt=3, response=16)
MEASURED = Calibration(
    SHAPE, MODEL, LENGTHS, SIZES, SPEEDS, 10_000.0, 3.0, base_memory=50_000, mapped=True
)


def by_hand(**settings: object) -> dict[str, StagePlan]:
    config = parse_config(
        {
            "name": "t",
            "subject": {"layer": 0, "dtype": "bfloat16"},
            "split": {"av": 0.4, "ar": 0.4, "rl": 0.1, "test": 0.1},
            "activations": {"expected_tokens": 0},
            **settings,
        }
    )
    survey = Survey(None, [], 100, 900.0, 1.0, 2.0, "")  # type: ignore[arg-type]
    return {stage.stage: stage for stage in predict_stages(config, survey, MEASURED)}


def test_data_stages_by_hand() -> None:
    made = by_hand()
    # One block of 100 weights, 50 tokens a document, 100 documents, 2 FLOP each.
    assert made["activations"].flops == 2 * 100 * 50 * 100
    assert made["activations"].seconds == 3 + 1_000_000 / 1000
    assert (made["activations"].rows, made["activations"].disk) == (200, 6000)
    assert made["labels"].seconds == 100 and made["labels"].disk == 1400
    assert made["tables"].disk == 80 * 40 + 120 * 50


def test_training_by_hand() -> None:
    phase = {"phases": [{"steps": 2, "lr": 1e-3}], "batch_rows": 3, "lora": {"r": 1, "alpha": 1}}
    made = by_hand(ar={**phase, "measure_rows": 1}, av={**phase, "measure_rows": 1})
    # 6 texts of 10 tokens through 100 frozen and 10 trained weights, then one measure of
    # 24 tokens forward.
    assert made["ar"].tokens == 60
    assert made["ar"].flops == 60 * (400 + 60) + 24 * 2 * 110
    # Adapter 10 and head 25 weights in bfloat16; two steps leave no checkpoint.
    assert made["ar"].disk == 70
    # 6 texts of 11 tokens through two blocks, head on 8 each; a measure of two rows forward.
    training = 66 * (4 * 200 + 6 * 20) + 6 * 8 * 4 * 35
    assert made["av"].flops == training + 2 * (11 * 2 * 220 + 8 * 2 * 35)


def test_memory_is_base_rows_trained_weights_and_the_scattered_batch() -> None:
    settings = {"phases": [{"steps": 1, "lr": 1e-3}], "lora": {"r": 1, "alpha": 1}}
    made = by_hand(ar={**settings, "batch_rows": 4, "measure_rows": 1})
    # An adapter of 10 and a head of 25 weights: bfloat16 and float32, with gradients; a float32
    # copy of the adapter and two states of both.
    trained = 2 * (2 * 10 + 4 * 25) + 4 * 10 + 8 * 35
    # 4 rows of 20 tokens, 24 with padding, keep 4·5 bytes of a norm, 2·(10 + 20 + 12) of products,
    # 2 of the adapter; then a backward pass through a norm holds 16·5 a token.
    batch = 96 * (20 + 84 + 2) + 96 * 80
    rows = 100 * (80 + 20)
    # A measure of one text of 20 tokens leaves what attention held: 2·(10 + 5) + 12·5 a token. The
    # second block and two thirds of the embeddings are never touched.
    left, untouched = 20 * 90, 200 + 70 * 2 / 3
    total = 50_000 - untouched + trained + SCATTER * (batch + left) + rows
    assert made["ar"].memory == pytest.approx(total)


def test_all_weights_trained_take_more_flop_and_memory() -> None:
    phase = {"phases": [{"steps": 2, "lr": 1e-3}], "batch_rows": 3, "measure_rows": 1}
    whole = by_hand(ar={**phase, "lora": None}, av={**phase, "lora": None})
    adapters = by_hand(ar={**phase, "lora": {"r": 1, "alpha": 1}})
    assert whole["ar"].flops > adapters["ar"].flops
    assert whole["ar"].memory > adapters["ar"].memory
    assert whole["ar"].disk == 2 * (100 + 5 * 7 + 25)


def test_checkpoints_that_stay_are_counted() -> None:
    settings = {"phases": [{"steps": 100, "lr": 1e-3}], "lora": {"r": 1, "alpha": 1}}
    made = by_hand(av={**settings, "checkpoint_every": 10})
    assert made["av"].disk == 2 * 20 + 2 * 12 * 20


def test_decoding_stops_at_the_token_limit() -> None:
    short, long = by_hand(decoding={"max_new_tokens": 4}), by_hand(decoding={"max_new_tokens": 64})
    assert short["eval"].flops < long["eval"].flops
    assert short["eval"].seconds < long["eval"].seconds


def test_more_documents_than_are_read_are_extrapolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MOST_DOCUMENTS", 50)
    survey = survey_documents(configured(tmp_path, documents=200), RunDir(tmp_path / "absent"))
    assert len(survey.texts) == 50 and survey.source == "extrapolated from 50 documents"
    assert near(survey.documents, 200, 0.2)


def test_a_missing_source_is_the_corpus_stages_error(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (tmp_path / "documents.jsonl").unlink()
    with pytest.raises(DataError, match="does not exist"):
        predict(config, RunDir(tmp_path / "absent"))


RL = {
    "phases": [{"steps": 2, "lr": 1e-4}], "batch_rows": 3, "samples": 4, "learn_on": 2,
    "ar_samples": 2, "measure_every": 2, "measure_rows": 5, "checkpoint_every": 1,
}  # fmt: skip


def test_joint_rl_by_hand() -> None:
    halves = {half: {"lora": {"r": 1, "alpha": 1}} for half in ("ar", "av")}
    plain, made = by_hand(**halves)["pair"], by_hand(**halves, rl=RL)["pair"]
    # Two steps of 12 texts: 3 prompts of 3 tokens through two merged blocks, a head a text, and 7
    # tokens more. Two measurements of 5 texts with adapters, of which 5 readings of 10 tokens and
    # one of the empty text follow.
    drawn = 3 * 3 * 400 + 12 * 70 + 7 * 12 * (400 + 70)
    greedy = 5 * 3 * 440 + 5 * 70 + 7 * 5 * (440 + 70)
    judged = (5 * 5 * 10 + 4) * 220
    # 6 texts of 11 tokens are learnt on, beside the frozen AV's forward.
    policy = 6 * (11 * 920 + 8 * 4 * 35 + 11 * 440 + 8 * 70)
    # 12 texts are read by two ARs; 2 of each vector are learnt on, with a label for 3 of them.
    reading = 12 * 2 * 10 * 220 + 2 * (3 + 1) * 10 * 460
    total = 2 * (drawn + greedy + judged + policy + reading)
    assert made.flops - plain.flops == pytest.approx(total)
    assert made.tokens - plain.tokens == 2 * (12 * 8 + 5 * 8 + 6 * 11 + 8 * 10)
    longer = 2 * (8 * 12 * 470 + 8 * 5 * 510)  # decoded texts as long as the longest, 16 tokens
    assert made.seconds - plain.seconds == pytest.approx((total + longer) / 1000)
    # 20 and 35 trained weights: the pair, the best by two rules, and one checkpoint of both.
    assert made.disk - plain.disk == 55 * (3 * 2 + 12)
    assert (made.rows, made.memory > plain.memory) == (plain.rows, True)


def test_joint_rl_costs_what_its_settings_say() -> None:
    def flop(**settings: object) -> float:
        return by_hand(rl=RL | settings)["pair"].flops

    usual = flop()
    assert flop(learn_on=None) > usual > flop(method="best_of_n")
    assert flop(reward={"frozen_share": 0}) < usual < flop(reward={"shuffle": 0.1})
    assert flop(merge_adapters=False) > usual and flop(label_weight=0.1) > usual


def test_too_few_vectors_for_a_step_of_rl_are_told() -> None:
    split = {"av": 0.4, "ar": 0.4, "rl": 0.1, "test": 0.1}
    config = parse_config(
        {"name": "t", "split": split, "rl": {"batch_rows": 64, "measure_rows": 5}}
    )
    # Of 100 rows 10 are `rl`, of which 5 are measured on, and 40 `ar`.
    assert plan._batches(config, 100)[-1] == ("rl", 45, 64)


def test_memory_of_joint_rl_by_hand() -> None:
    halves = {half: {"lora": {"r": 1, "alpha": 1}} for half in ("ar", "av")}
    short = {"texts_at_once": 8, "texts_per_pass": 2, "max_new_tokens": 5}
    subject = {"layer": 0, "dtype": "bfloat16"}
    config = parse_config({"name": "t", "subject": subject, **halves, "rl": RL | short})
    assert config.rl
    budgets = Budgets(config, MODEL, LENGTHS)
    frozen = sum(budgets.weights.values())
    prompts, drawing, *rest = budgets.joint(config.rl)
    # Adapters of 20 and 10 weights and a head of 25: twice in bfloat16 (the head in float32), with
    # gradients, float32 copies and two states once.
    both = 2 * (40 + 120) + (40 + 120) + 4 * 30 + 8 * (20 + 35)
    assert sum(rest[-1].held.values()) - frozen == both
    # Two projections of 25 weights are merged; 8 texts have a row of 7 logits.
    assert sum(drawing.held.values()) - frozen == both + 2 * 25 * 2
    assert drawing.work["logits"] == 8 * 7 * 2
    named = {one.doing: one for one in rest}
    # Two texts of 3 + 5 tokens keep what the AV's training keeps of as many; prompts are 2.
    kept = named["training the AV"].work["kept for backward"]
    assert kept == 2 * 8 * 2 * (20 + 84 + 2)
    assert kept < named["training the AV, at the head"].total
    assert prompts.work["temporaries"] * 8 == named["training the AV, beside the frozen one"].work[
        "temporaries"
    ] * 3  # fmt: skip


def test_table_has_a_line_a_stage_totals_and_reasons() -> None:
    made = plan.Plan("t", list(by_hand().values()), 10_000.0, "rests on nothing")
    output = io.StringIO()
    Console(file=output, width=120).print(table_of(made))
    text = output.getvalue()
    assert all(name in text for name in ("corpus", "pair", "report", "total", "rests on nothing"))
    assert "10%" in text

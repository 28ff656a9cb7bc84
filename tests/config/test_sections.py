"""Settings: misspelt keys are errors, overrides land, hashes move with their sections only."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nlakit.config.load import config_hash, dump_config, load_config, parse_config, with_overrides
from nlakit.config.sections import RunConfig
from nlakit.errors import ConfigError

SECTIONS = tuple(name for name in RunConfig.model_fields if name != "name")
# A changed value in each section.
CHANGED = {
    "seed": 1,
    "subject": {"layer": 3},
    "corpus": {"min_characters": 1},
    "activations": {"positions_per_document": 2},
    "split": {"test": 0.2},
    "labels": {"min_words": 7},
    "requests": {"concurrency": 3},
    "tables": {"av_close": "</done>"},
    "ar": {"batch_rows": 3},
    "av": {"batch_rows": 3},
    "pair": {"rows": 3},
    "rl": {"samples": 9},
    "eval": {"rows": 3},
    "report": {"rows": 3},
    "decoding": {"max_new_tokens": 7},
    "watch": {"stop_if_blind": True},
    "start": {"ar": "somewhere"},
}


def written(folder: Path, text: str) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_gives_the_defaults_and_its_own_name(tmp_path: Path):
    assert load_config(written(tmp_path, "")) == RunConfig(name="tiny")


def test_what_is_dumped_loads_as_the_same(tmp_path: Path):
    config = parse_config({"name": "a", "tables": {"marker": "㊗"}, "ar": {"lora": {"r": 4}}})
    assert load_config(written(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"sed": 1}, "sed"),
        ({"activations": {"position_per_document": 2}}, "activations.position_per_document"),
        ({"ar": {"lora": {"rank": 2}}}, "ar.lora.rank"),
        ({"corpus": {"sources": [{"pth": "a"}]}}, "corpus.sources.0.pth"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_it(data: dict, key: str):
    with pytest.raises(ConfigError) as caught:
        parse_config({"name": "a", **data})
    assert f"{key}: " in str(caught.value)


def test_every_problem_is_told_at_once():
    with pytest.raises(ConfigError, match=r"2 bad setting") as caught:
        parse_config({"name": "a", "seed": "x", "ar": {"batch_rows": 0}})
    assert "seed" in str(caught.value)
    assert "ar.batch_rows" in str(caught.value)


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "a b"])
def test_a_name_is_a_plain_folder_name(name: str):
    with pytest.raises(ConfigError, match="name"):
        parse_config({"name": name})


def test_positions_must_exist():
    with pytest.raises(ConfigError, match="must exceed activations.skip_first"):
        parse_config({"name": "a", "activations": {"max_tokens": 50, "skip_first": 50}})


def test_settings_do_not_change_after_loading():
    config = parse_config({"name": "a"})
    with pytest.raises(ValidationError):
        config.seed = 2  # type: ignore[misc]


def test_overrides_make_sections_and_beat_the_file(tmp_path: Path):
    path = written(tmp_path, "seed: 1\nsubject: {layer: 3}\n")
    sets = ["seed=2", "subject.dtype=float32", "ar.lora.r=4", "ar.phases=[{steps: 5, lr: 1e-4}]"]
    config = load_config(path, sets)
    assert (config.seed, config.subject.layer, config.subject.dtype) == (2, 3, "float32")
    assert config.ar.lora.r == 4
    assert (config.ar.steps, config.ar.phases[0].lr) == (5, 1e-4)


def test_a_value_may_hold_an_equals_sign(tmp_path: Path):
    config = load_config(written(tmp_path, ""), ["tables.av_close=<a=b>"])
    assert config.tables.av_close == "<a=b>"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "takes a.b=value"),
        ("=3", "takes a.b=value"),
        ("seed.x=3", "seed is not a section"),
        ("seed=[1", "not YAML"),
        ("subject.layr=3", "subject.layr"),
    ],
)
def test_a_bad_override_says_so(tmp_path: Path, override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path, "seed: 1\n"), [override])


@pytest.mark.parametrize(("text", "message"), [("a: [1", "not YAML"), ("- 1", "not a mapping")])
def test_a_file_that_holds_no_settings_says_so(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path, text))


def test_a_missing_file_says_so(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "none.yaml")


def test_every_section_is_tried_below():
    assert set(CHANGED) == set(SECTIONS)


@given(changed=st.sampled_from(SECTIONS), named=st.sets(st.sampled_from(SECTIONS)))
def test_the_hash_moves_exactly_with_the_named_sections(changed: str, named: set[str]):
    before = parse_config({"name": "a"})
    after = parse_config({"name": "a", changed: CHANGED[changed]})
    moved = config_hash(before, sorted(named)) != config_hash(after, sorted(named))
    assert moved == (changed in named)


def test_the_name_of_a_run_is_not_part_of_what_it_computes():
    first, second = (parse_config({"name": name}) for name in "ab")
    assert config_hash(first, SECTIONS) == config_hash(second, SECTIONS)


def test_an_unused_optional_section_is_no_part_of_the_hash():
    """Sections that are None are left out, so that a new one does not make old runs stale."""
    config = parse_config({"name": "a"})
    assert config.start is None
    assert config_hash(config, ["ar", "start"]) == config_hash(config, ["ar"])


def test_a_setting_given_twice_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="seed near line 1"):
        load_config(written(tmp_path, "seed: 1\nseed: 2\n"))


def test_a_mapping_may_be_merged_into_another(tmp_path: Path):
    text = "ar: &half {batch_rows: 3, accumulation: 2}\nav: {<<: *half, accumulation: 5}\n"
    config = load_config(written(tmp_path, text))
    assert (config.av.batch_rows, config.av.accumulation) == (3, 5)


HALVES = """\
ar: {lora: &l {r: 4, alpha: 8}, phases: [&p {steps: 3, lr: 0.1}]}
av: {lora: *l, phases: [*p]}
pair: &half {lora: *l}
"""


def test_an_override_changes_its_own_place_and_not_where_an_alias_shares_it(tmp_path: Path):
    config = load_config(written(tmp_path, HALVES), ["av.lora.r=32"])
    assert [half.lora.r for half in (config.ar, config.av, config.pair)] == [4, 32, 4]
    assert {half.lora.alpha for half in (config.ar, config.av, config.pair)} == {8}
    merged = "ar: &half {lora: {r: 4}}\nav: {<<: *half}\n"  # a merge shares what lies deeper
    config = load_config(written(tmp_path, merged), ["av.lora.r=32"])
    assert (config.ar.lora.r, config.av.lora.r) == (4, 32)
    config = load_config(written(tmp_path, ""), ["ar={lora: &l {r: 2}}", "av.lora={r: 3}"])
    assert (config.ar.lora.r, config.av.lora.r) == (2, 3)


def test_one_bad_override_is_one_bad_setting(tmp_path: Path):
    with pytest.raises(ConfigError, match="has 1 bad setting") as caught:
        load_config(written(tmp_path, HALVES), ["av.lora.r=-1"])
    assert "ar.lora" not in str(caught.value)


def test_a_value_that_may_be_of_two_kinds_is_one_bad_setting():
    with pytest.raises(ConfigError, match=r"has 1 bad setting.*av\.scale: .* or ") as caught:
        parse_config({"name": "a", "av": {"scale": "large"}})
    assert "got 'large'" in str(caught.value)
    with pytest.raises(ConfigError, match="has 2 bad setting"):
        parse_config({"name": "a", "ar": {"x": 1, "y": 1}})


def test_overrides_leave_the_given_mapping_alone():
    given = {"name": "a", "ar": {"lora": {"r": 4}}}
    made = with_overrides(given, ["ar.lora.r=5", "seed=1"])
    assert given == {"name": "a", "ar": {"lora": {"r": 4}}}
    assert made == {"name": "a", "ar": {"lora": {"r": 5}}, "seed": 1}


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        ("ar: &a {lora: *a}\n", "seed=1", "holds itself"),
        ("seed: 2020-13-45\n", "seed=1", "not YAML"),
        ("[" * 5000, "seed=1", "not YAML"),
        ("", "seed=2020-13-45", "not YAML"),
        ("", "ar.lora={r: 4, r: 8}", "given twice"),
    ],
)
def test_odd_yaml_is_a_configuration_error(tmp_path: Path, text: str, override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path, text), [override])


@pytest.mark.parametrize(
    "bad", [{"ar": {"phases": []}}, {"seed": True}, {"ar": {"phases": [{"steps": 1, "lr": 1e999}]}}]
)
def test_values_that_make_no_sense(bad: dict):
    with pytest.raises(ConfigError):
        parse_config({"name": "a", **bad})

"""Counted operations against sums worked by hand."""

from __future__ import annotations

from nlakit.core.flops import (
    Shape,
    attention,
    decode_step,
    decoding,
    forward,
    head,
    lora_step,
    reading,
)

# One block holds 100 weights; two blocks; attention 4 wide, model 5 wide, 7 words.
SHAPE = Shape(block_weights=100, blocks=2, d_attention=4, d_model=5, vocabulary=7, lora_unit=30)


def test_lora_weights_are_rank_times_unit_times_blocks() -> None:
    assert SHAPE.lora_weights(2) == 2 * 30 * 2
    assert SHAPE.lora_weights(2, blocks=1) == 60


def test_attention_counts_scores_and_values_of_each_sequence() -> None:
    # 4 · 4 · (3² + 1²) in one block.
    assert attention(SHAPE, 1, [3, 1]) == 160


def test_forward_is_two_flop_a_weight_and_token() -> None:
    # 2 · 100 · 2 blocks · 4 tokens + 4 · 4 · 2 · 10.
    assert forward(SHAPE, 2, [3, 1]) == 1600 + 320
    # Adapters of rank 2 add 2 · 120 weights · 4 tokens.
    assert forward(SHAPE, 2, [3, 1], rank=2) == 1920 + 960


def test_early_exit_leaves_the_blocks_above_out() -> None:
    assert 2 * forward(SHAPE, 1, [3, 1]) == forward(SHAPE, 2, [3, 1])


def test_lora_step_is_four_a_frozen_and_six_a_trained_weight() -> None:
    # 4 · 200 · 4 + 6 · 120 · 4 + 3 · 320.
    assert lora_step(SHAPE, 2, [3, 1], rank=2) == 3200 + 2880 + 960


def test_head_doubles_with_backward() -> None:
    assert head(SHAPE, 3) == 2 * 35 * 3
    assert head(SHAPE, 3, backward=True) == 4 * 35 * 3


def test_reading_stops_at_its_last_block_or_needs_the_head() -> None:
    assert reading(SHAPE, 0, [3, 1], 2) == forward(SHAPE, 1, [3, 1])
    assert reading(SHAPE, None, [3, 1], 2) == forward(SHAPE, 2, [3, 1]) + 2 * 35 * 2


def test_decode_step_reads_weights_cache_and_head_once_a_row() -> None:
    # 2 rows · (2 · 200 + 4 · 4 · 2 · 6 cached) + 2 · 35 · 2.
    assert decode_step(SHAPE, 2, 6) == 2 * (400 + 192) + 140


def test_decoding_is_prefill_and_one_step_less_than_its_tokens() -> None:
    one = decoding(SHAPE, 1, 3, 1)
    assert one == forward(SHAPE, 2, [3]) + head(SHAPE, 1)
    assert decoding(SHAPE, 1, 3, 2) == one + decode_step(SHAPE, 1, 4)
    assert decoding(SHAPE, 5, 3, 2) == 5 * decoding(SHAPE, 1, 3, 2)


def test_numbers_of_a_known_model() -> None:
    """Gemma 3 270M: 100.3 M weights in 18 blocks, a head of 167.8 M: 536 MFLOP a decoded token."""
    gemma = Shape(5_570_560, 18, 1024, 640, 262144, lora_unit=13184)
    assert gemma.lora_weights(32) == 7_593_984
    assert round(decode_step(gemma, 1, 0) / 1e6) == 536

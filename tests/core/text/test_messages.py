"""Messages as users give them."""

from __future__ import annotations

from nlakit.core.text.messages import checked, plain_text


def test_what_else_a_record_holds_is_left_out() -> None:
    record = {"role": "user", "content": None, "language": "English", "tool_calls": None}
    assert checked([record]) == [{"role": "user", "content": ""}]
    thought = {"role": "assistant", "content": "B", "thinking": "A", "channel": "final"}
    (found,) = checked([thought])
    assert found == {
        "role": "assistant",
        "content": "B",
        "reasoning_content": "A",
        "channel": "final",
    }
    assert plain_text([found, {"role": "user", "content": "C"}]) == "A\n\nB\n\nC"

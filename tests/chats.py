"""Toy tokenizers with chat templates of the kinds that models have."""

from __future__ import annotations

from typing import Any

from tests.conftest import toy_tokenizer

MARKS = ["<|turn>", "<|end|>"]
# One that folds the system's words into the first user turn, strips, and renames the assistant.
FOLDING = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
  {%- set first = messages[0]['content'] + '\\n\\n' -%}{%- set rest = messages[1:] -%}
{%- else -%}{%- set first = '' -%}{%- set rest = messages -%}{%- endif -%}
{%- for one in rest -%}
  {%- if (one['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{ raise_exception('roles must take turns') }}{%- endif -%}
  {{ '<|turn>' + ('model' if one['role'] == 'assistant' else one['role']) + '\\n' }}
  {{- first if loop.first else '' }}{{ one['content'] | trim }}{{ '<|end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|turn>model\\n' }}{%- endif -%}"""
# One that keeps white space, and begins with words of its own.
KEEPING = """{% for one in messages %}{% if loop.first and one['role'] != 'system' %}<|turn>system
You help.<|end|>
{% endif %}<|turn>{{ one['role'] }}
{{ one['content'] }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|turn>assistant
{% endif %}"""
# One that knows thoughts, and drops those before the last message.
THINKING = """{%- for one in messages -%}
  {%- set said = one['content'] -%}{%- set thought = one['reasoning_content'] or '' -%}
  {%- if one['role'] == 'assistant' and '</think>' in said -%}
    {%- set thought = said.split('</think>')[0].split('<think>')[-1] -%}
    {%- set said = said.split('</think>')[-1].lstrip('\\n') -%}
  {%- endif -%}
  {{ '<|turn>' + one['role'] + '\\n' }}
  {%- if one['role'] == 'assistant' and loop.last -%}
    {{ '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
  {%- endif -%}
  {{ said + '<|end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|turn>assistant\\n' }}
  {{- '<think>\\n\\n</think>\\n\\n' if enable_thinking is defined and not enable_thinking else '' }}
{%- endif -%}"""
REFUSING = (
    "{{ raise_exception('no system role here') if messages[0]['role'] == 'system' }}" + KEEPING
)
DROPPING = (
    "{% for one in messages if one['role'] != 'tool' %}<|turn>{{ one['content'] }}{% endfor %}"
)
SHOUTING = "{% for one in messages %}<|turn>{{ one['content'] | upper }}{% endfor %}"


def chat_tokenizer(template: str | None, thoughts: bool = False) -> Any:
    """The toy tokenizer with marks of turns, and with tags of thoughts that are no special
    tokens."""
    made = toy_tokenizer()
    made.add_special_tokens({"additional_special_tokens": MARKS})
    if thoughts:
        made.add_tokens(["<think>", "</think>"])
    made.chat_template = template
    return made

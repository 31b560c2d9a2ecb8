"""Text from strangers does not control a terminal, and messages stay short."""

from __future__ import annotations

import pytest

from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.untrusted.text import printable, printable_record


def test_control_characters_are_escaped_and_other_text_stays() -> None:
    every = "".join(map(chr, range(0x250)))
    assert printable(every).isprintable() or "\xad" in every
    assert printable("\x1b]0;title\x07 \u202egpj.exe \x9b2J\r\n") == (
        r"\x1b]0;title\x07 \u202egpj.exe \x9b2J\r\n"
    )
    text = "ä-tocopherol [b], naïve, 中文, \\x1b"
    assert printable(text) == text
    record = {"a": ["\x1b[1m"], "n": (1, {"b": "\x00"}), "output_file": "\t"}
    assert printable_record(record) == {
        "a": [r"\x1b[1m"], "n": (1, {"b": r"\x00"}), "output_file": "\t"
    }  # fmt: skip


@pytest.mark.parametrize("value", ["x" * 10**5, "it's " * 1000, "a, b; " * 99, '"' * 5000])
def test_values_in_messages_are_cut(value: str) -> None:
    for message in (f"node (got {value!r}) must be {value!r}", f"output (got {value}) is bad"):
        shown = str(InputError(message))
        assert len(shown) < 1000
        assert shown.startswith(message[:100])
    short = f"drug (got {value[:150]!r}) is bad"
    assert str(InputError(short)) == short


def test_prose_with_apostrophes_is_not_cut() -> None:
    text = "the graph's file " + "has many words " * 30 + "and the model's file"
    assert str(InputError(text)) == text

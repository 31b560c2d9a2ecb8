"""Text from strangers: for the terminal, for messages, and for spreadsheets.

Names in a graph come from files that anybody may have written. They reach a terminal, which obeys
escape sequences, and spreadsheets, which compute formulas.
"""

from __future__ import annotations

import re
from typing import Any

MAX_SHOWN = 200  #: characters of a value in a message
_MAX_MESSAGE = 4000  # characters of a message, which may list ten rows
# Characters that move the cursor, change colors, or reverse the order of text; and lone surrogates,
# which stand for bytes of a file name that are not UTF-8.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_QUOTED = re.compile(rf"""(?<!\w)(['"])((?:(?!\1)[^\\]|\\.){{{MAX_SHOWN},}}?)\1(?!\w)""", re.DOTALL)
_GOT = re.compile(rf"\(got ([^()]{{{MAX_SHOWN},}})\)")
_PATHS = ("output_file", "model_dir")
#: Beginnings of a cell that a spreadsheet takes for a formula (OWASP, "CSV Injection").
FORMULA = r"^[=+\-@\t\r]"


def printable(text: str) -> str:
    r"""Return text whose control characters are escaped, such as \x1b for ESC.

    Example:
        >>> from clinical_drug_discovery.system.untrusted.text import printable
        >>> print(printable("a\x1b[31mb"))
        a\x1b[31mb
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def printable_record(value: Any) -> Any:
    """Return a record of the command line with `printable` texts; keys and numbers stay.

    The paths of a run stay, too, because their sizes are shown.
    """
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {
            name: one if name in _PATHS else printable_record(one) for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(map(printable_record, value))
    return value


def shortened(message: str) -> str:
    """Return a message whose values have at most 200 characters, and that is not endless."""
    message = _QUOTED.sub(lambda match: match[1] + _cut(match[2]) + match[1], message)
    message = _GOT.sub(lambda match: f"(got {_cut(match[1])})", message)
    if len(message) > _MAX_MESSAGE:
        return f"{message[:_MAX_MESSAGE]}... ({len(message):,} characters)"
    return message


def _cut(value: str) -> str:
    return value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}..."

"""A check that a converted formula still contains everything in its source."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_LENGTH = r"[-+\d.\s]*(?:pt|em|ex|mm|cm|in|mu|\\[a-z]+)"
_COLOUR = (
    r"(?:red|green|blue|cyan|magenta|yellow|black|white|gr[ae]y|brown|orange|pink|purple|violet|teal|olive|lime)"
    r"(?:!\d{1,3}){0,2}"
)
_COLUMNS = rf"(?:[lcr|\s]|@\{{[^\w{{}}]*\}}|p\{{{_LENGTH}\}})*"
_LAYOUT = re.compile(
    rf"\\begin\s*\{{(?:array|tabular)\}}\s*(?:\[[tcb]\])?\s*\{{{_COLUMNS}\}}"
    r"|\\begin\s*\{alignat\*?\}\s*\{\d\}"
    r"|\\(?:begin|end)\s*\{[a-zA-Z]+\*?\}"
    rf"|\\[hv]space\s*\*?\s*\{{{_LENGTH}\}}"
    rf"|\\\\\s*\*?\s*\[{_LENGTH}\]"
    rf"|\\(?:text)?color\s*\{{{_COLOUR}\}}"
    r"|\\cline\s*\{\d+-\d+\}"
    rf"|\\multicolumn\s*\{{\d+\}}\s*\{{{_COLUMNS}\}}"
    r"|\\sqrt\s*\[\s*2\s*\]"
    r"|\\operatorname\*"
    r"|\\[a-zA-Z]+"
    r"|\\[^a-zA-Z]",
    re.DOTALL,
)
"""LaTeX that has no text in the output: names of commands and environments, and arguments that only set a width, a
colour or an alignment.
"""
_ROOTS = str.maketrans({"∛": "3√", "∜": "4√", "−": "-"})


def says_all(source: str, shown: str) -> bool:
    """Return whether all letters and signs of a formula are in `shown`, and exactly its digits.

    The order is ignored, because an argument may move, and so are the names of commands and layout in `source`.
    Superscript, subscript and styled characters count as the plain ones.
    """
    written, drawn = _counted(_LAYOUT.sub(" ", source)), _counted(shown)
    if written - drawn:
        return False
    return all(count == written[char] for char, count in drawn.items() if char.isdigit())


def _counted(text: str) -> Counter[str]:
    plain = unicodedata.normalize("NFKD", text.translate(_ROOTS)).translate(_ROOTS)
    return Counter(char for char in plain if char.isalnum() or char in "+-=<>/*!")

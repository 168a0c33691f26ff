"""Whether a drawn formula still says all that its source says."""

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
"""What a drawn formula does not spell out: names of commands and environments, and arguments that only say how wide,
how coloured or how aligned something is."""
_ROOTS = str.maketrans({"∛": "3√", "∜": "4√", "−": "-"})


def says_all(source: str, shown: str) -> bool:
    """Whether all letters and signs of a formula are drawn, and exactly its digits.

    What `source` says beside names of commands and layout is compared with `shown` in no order: an argument may change
    its place. Raised, lowered and styled characters count as the plain ones.
    """
    written, drawn = _counted(_LAYOUT.sub(" ", source)), _counted(shown)
    if written - drawn:
        return False
    return all(count == written[char] for char, count in drawn.items() if char.isdigit())


def _counted(text: str) -> Counter[str]:
    plain = unicodedata.normalize("NFKD", text.translate(_ROOTS)).translate(_ROOTS)
    return Counter(char for char in plain if char.isalnum() or char in "+-=<>/*!")

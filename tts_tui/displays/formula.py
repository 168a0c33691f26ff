"""Conversion of one LaTeX formula to plain text: `x²`, `(x+1)/(y-2)`, `√(y₁)`.

pylatexenc parses it; the output that it would lose information in is produced here: fractions keep their brackets,
scripts become superscript and subscript characters where all of them exist, matrices keep rows and cells, and unknown
macros keep their names.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from tts_tui.displays.formula_check import says_all

LONGEST = 4000
"""Maximum number of characters of a formula; a longer one stays raw."""
DEEPEST = 40
"""Maximum depth of braces and environments in a formula; a deeper one stays raw."""

# Placeholders that depend on their neighbours; they are replaced in the end.
_OPEN, _CLOSE, _WORD, ROW = "\ue000", "\ue001", "\ue002", "\ue003"
_OWN = re.compile(f"[{_OPEN}{_CLOSE}{_WORD}{ROW}]")

_RAISED = dict(zip("0123456789+-=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVW",
                   "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂ", strict=True))  # fmt: skip
_LOWERED = dict(zip("0123456789+-=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True))
_SCRIPTS = frozenset(_RAISED.values()) | frozenset(_LOWERED.values())
_AS_THEY_ARE = frozenset("°′″‴*'")

_LETTER = f"[^\\W_{''.join(_SCRIPTS)}]"
_TAIL = f"[{''.join(_SCRIPTS)}\u0305\u20d7]*"
_ATOM = re.compile(rf"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+|√\d+|√?{_LETTER}|√?\([^()]*\)|∛\d+){_TAIL}")
_PRODUCT = re.compile(rf"-?(?:[\w.√!]|\d,\d|\([^()]*\)|{_TAIL[:-1]})+")
_APART = re.compile(f"(?<=[\\w)]){_WORD}+(?={_LETTER}|√)")
_FRACTION = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}")

_LEFT_RIGHT = re.compile(r"\\(?:left|right|middle)(?![a-zA-Z])\s*\.?")
_SIZES = re.compile(r"\\(?:[bB]igg?[lrm]?|(?:display|text|script)style|(?:no)?limits|nobreak|allowbreak)(?![a-zA-Z])")
_PERCENT = re.compile(r"(\\.)|%", re.DOTALL)
_ONE = r"\s*(?:\{[^{}]*\}|[0-9a-zA-Z])"
_SCRIPT_OF_MACRO = re.compile(
    rf"([\^_])\s*(\\[dtc]?frac{_ONE}{_ONE}|\\(?:sqrt|text|mathrm|mathbf|mathbb|operatorname|overline|bar)\s*\{{[^{{}}]*\}})"
)
_SIGN = re.compile(r"(?<=[^\s,;]) ?([≤≥≠≈≡∈∉⊂⊆∪∩·×÷±∓→⇒⇔∧∨∼≅⊥∥∘]) ")
_RELATION = re.compile(r"^([=<>≤≥≠≈≡⇒⇔→])(?=\S)")
_PREFIX = re.compile(r"([△∠¬∇∂−]) +(?=\w)")
_HALF = r"((?:[^{}\\]|\\(?!over(?![a-z])|choose(?![a-z])).|\{[^{}]*\})*)"
_BETWEEN = re.compile(rf"(?<!\\)\{{{_HALF}\\(over|choose)(?![a-zA-Z]){_HALF}\}}", re.DOTALL)

_BRACKETS = {
    "matrix": ("[", "]"), "smallmatrix": ("[", "]"), "bmatrix": ("[", "]"), "pmatrix": ("(", ")"),
    "Bmatrix": ("{", "}"), "vmatrix": ("|", "|"), "Vmatrix": ("‖", "‖"), "array": ("", ""), "tabular": ("", ""),
    "cases": ("{", ""), "dcases": ("{", ""), "rcases": ("", "}"),
}  # fmt: skip
LINES = ("align", "alignat", "aligned", "eqnarray", "equation", "gather", "gathered", "multline", "split",
         "displaymath", "math")  # fmt: skip
ENVIRONMENTS = frozenset({*_BRACKETS, *LINES, *(f"{name}*" for name in LINES)})
"""Environments that are converted even without dollars around them."""

_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{([^{}]*)\}")
_WORDS = (
    "arccos", "arcsin", "arctan", "arg", "cos", "cosh", "cot", "coth", "csc", "deg", "det", "dim", "exp", "gcd",
    "hom", "inf", "ker", "lcm", "lg", "lim", "liminf", "limsup", "ln", "log", "max", "min", "mod", "Pr", "sec",
    "sin", "sinh", "sup", "tan", "tanh",
)  # fmt: skip
_SIGNS = {
    "iff": "⇔", "implies": "⇒", "impliedby": "⇐", "ne": "≠", "degree": "°", "dotsm": "⋯", "dotsb": "⋯",
    "dotsc": "…", "dotsi": "⋯", "dotso": "…", "square": "□", "Box": "□", "triangle": "△", "Re": "Re",
    "Im": "Im", "bmod": f"{_WORD}mod{_WORD}", "lt": "<", "gt": ">", "land": "∧", "lor": "∨", "lnot": "¬",
    "colon": ":", "dagger": "†", "quad": "\u2003", "qquad": "\u2003\u2003", " ": " ", ",": " ", ";": " ",
    ":": " ", "!": "", "|": "‖", "hline": "", "cr": ROW, "newline": ROW, "to": "→", "gets": "←",
    "prime": "′", "circ": "∘", "star": "⋆", "bullet": "•", "nonumber": "", "notag": "", "varnothing": "∅",
    "emptyset": "∅", "complement": "∁", "clubsuit": "♣", "blacksquare": "■", "checkmark": "✓",
    "longrightarrow": "→", "Longrightarrow": "⇒", "longleftarrow": "←", "Longleftrightarrow": "⇔",
    "mapsto": "↦", "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "vert": "|", "Vert": "‖",
    "{": "{", "}": "}", "$": "$", "%": "%", "&": "&", "#": "#", "_": "_", "pounds": "£", "centering": "",
    "noindent": "", "null": "", "relax": "",
}  # fmt: skip
_PLAIN = (
    "boldsymbol", "bold", "bm", "mathbf", "mathrm", "mathit", "mathsf", "mathtt", "mathcal", "mathscr",
    "mathfrak", "mathnormal", "text", "textbf", "textit", "textrm", "textsf", "textsc", "texttt", "textnormal",
    "textup", "textmd", "emph", "mbox", "hbox", "fbox", "underline", "underbrace", "overbrace", "phantom",
    "hphantom", "vphantom", "mathop", "mathbin", "mathrel", "mathord", "substack", "ensuremath", "smash",
    "operatornamewithlimits",
)  # fmt: skip
_ACCENTS = {"bar": "\u0305", "overline": "\u0305", "vec": "\u20d7", "overrightarrow": "\u20d7", "hat": "\u0302",
            "widehat": "\u0302", "tilde": "\u0303", "widetilde": "\u0303", "dot": "\u0307", "ddot": "\u0308",
            "cancel": "\u0338", "bcancel": "\u0338", "xcancel": "\u0338", "overleftarrow": "\u20d6",
            "overparen": "\u0311"}  # fmt: skip
_EVERY_CHARACTER = frozenset({"bar", "overline", "cancel", "bcancel", "xcancel"})


@lru_cache(maxsize=2048)
def convert(source: str) -> str | None:
    """Convert a formula without its dollars to text; rows of aligned formulas are separated by `ROW`.

    Returns:
        The text, or None if the formula cannot be parsed, or if the text would omit a part of it.
    """
    if len(source) > LONGEST or _depth(source) > DEEPEST or _OWN.search(source):
        return None
    if not ENVIRONMENTS.issuperset(_ENVIRONMENT.findall(source)):
        return None
    walker, writer = _tools()
    try:
        nodes = walker(_prepared(source))
        text = _settle(writer.nodelist_to_text(nodes))
    except Exception:  # any error of a parser given incomplete text
        return None
    rows = (_even(row) for row in text.split(ROW))
    shown = ROW.join(row for row in rows if row)
    return shown if shown and says_all(source, shown) else None


def _even(row: str) -> str:
    """Collapse spaces, and put one on both sides of a sign or on neither."""
    row = re.sub(r"[ \t\n]+", " ", row).strip()
    row = _SIGN.sub(lambda found: found[0] if found[0][0] == " " else found[1], row)
    return _PREFIX.sub(r"\1", row)


def _depth(source: str) -> int:
    """Return the depth of braces and environments, including those that are never closed."""
    depth = deepest = 0
    for found in re.finditer(r"\\(?:begin|end|.)|[{}]", source, re.DOTALL):
        if found[0] in ("{", "\\begin"):
            depth += 1
            deepest = max(deepest, depth)
        elif found[0] in ("}", "\\end"):
            depth -= 1
    return deepest


def _prepared(source: str) -> str:
    """Return the formula without syntax that pylatexenc does not know or would misread."""
    source = _PERCENT.sub(lambda found: found[1] or "\\%", source)  # it would start a comment
    source = _SIZES.sub("", _LEFT_RIGHT.sub("", source))
    source = _SCRIPT_OF_MACRO.sub(r"\1{\2}", source)
    for _ in range(DEEPEST if "\\over" in source or "\\choose" in source else 0):
        source, changes = _BETWEEN.subn(_between, source)
        if not changes:
            break
    return source


def _between(found: re.Match[str]) -> str:
    r"""Rewrite `{a \over b}` in a form that pylatexenc knows; inner braces have already been rewritten."""
    return f"\\{'frac' if found[2] == 'over' else 'binom'}{{{found[1].strip()}}}{{{found[3].strip()}}}"


def _settle(text: str) -> str:
    """Separate fractions and words from their neighbours; inner ones have already been separated."""
    if _OPEN in text:
        text = _FRACTION.sub(lambda found: _fraction(found, text), text)
    if _WORD in text:
        text = _APART.sub(" ", text).replace(_WORD, "")
    return text


def _fraction(found: re.Match[str], text: str) -> str:
    before, after = text[max(0, found.start() - 1) : found.start()], text[found.end() : found.end() + 1]
    number = re.fullmatch(r"[\d/]+", found[1]) is not None
    sticks = after.isalnum() or after in _SCRIPTS or (after and after in f"^_√({_OPEN}!")
    if sticks or before.isalpha() or (before and before in f"){_CLOSE}/√^_") or (before.isdigit() and not number):
        return f"({found[1]})"
    return f" {found[1]}" if before.isdigit() else found[1]


def _grouped(text: str, whole: re.Pattern[str] = _ATOM) -> str:
    return text if whole.fullmatch(text) and text else f"({text})"


# -- called by pylatexenc for each node -------------------------------------------------------------------------------


def _argument(node: Any, writer: Any, place: int = -1) -> str:
    """Return an argument of a macro with `_settle` applied; empty if it is missing."""
    given = node.nodeargd.argnlist if node.nodeargd is not None else None
    if not given or given[place] is None:
        return ""
    text: str = _settle(writer.nodelist_to_text([given[place]]))
    return text.strip() if getattr(node, "macroname", "") not in _PLAIN else text


def _write_fraction(node: Any, writer: Any) -> str:
    above, below = _argument(node, writer, -2), _argument(node, writer)
    return f"{_OPEN}{_grouped(above, _PRODUCT)}/{_grouped(below)}{_CLOSE}"


def _write_root(node: Any, writer: Any) -> str:
    index, inner = _argument(node, writer, 0), _argument(node, writer)
    sign = {"": "√", "2": "√", "3": "∛", "4": "∜"}.get(index)
    if sign is None:
        sign = (_mapped(index, _RAISED) or f"({index})") + "√"
    number = re.fullmatch(r"\d+|\w", inner)
    return f"{sign}{inner if number else f'({inner})'}"


def _write_script(node: Any, writer: Any) -> str:
    inner = _argument(node, writer)
    raised = node.specials_chars == "^"
    if raised and inner in ("∘", "°"):
        return "°"
    if raised and inner and all(char in _AS_THEY_ARE for char in inner):
        return inner
    mapped = _mapped(inner, _RAISED if raised else _LOWERED)
    if mapped is not None:
        return mapped
    return node.specials_chars + (inner if len(inner) == 1 else f"({inner})")  # type: ignore[no-any-return]


def _mapped(text: str, table: dict[str, str]) -> str | None:
    shown = [table.get(char, "") for char in text.replace(" ", "")]
    return "".join(shown) if text and all(shown) else None


def _write_accent(node: Any, writer: Any) -> str:
    inner, mark = _argument(node, writer), _ACCENTS[node.macroname]
    if node.macroname in _EVERY_CHARACTER:
        return "".join(char if char.isspace() else char + mark for char in inner)
    if len(inner) == 1:
        return inner + mark
    if "arrow" in node.macroname or node.macroname == "vec":
        return "".join(char + mark if char.isalnum() else char for char in inner)
    return f"{_WORD}{node.macroname}({inner})"


def _write_unknown(node: Any, writer: Any) -> str:
    return f"\\{node.macroname}{_WORD if node.macroname.isalpha() else ''}"


def _write_rows(node: Any, writer: Any) -> str:
    """Join the cells of a matrix with commas and its rows with semicolons; aligned formulas and tables by rows."""
    name = node.environmentname.rstrip("*")
    rows = _cells(node.nodelist, writer)
    if name in LINES:
        return ROW.join(" ".join(_RELATION.sub(r"\1 ", cell) for cell in row if cell) for row in rows)
    if name == "tabular" or (name == "array" and "\\hline" in node.latex_verbatim()):
        return ROW.join("\u2003".join(row) for row in rows)
    left, right = _BRACKETS[name]
    return left + "; ".join(", ".join(cell for cell in row if cell) for row in rows if any(row)) + right


def _cells(nodes: list[Any], writer: Any) -> list[list[str]]:
    rows: list[list[list[Any]]] = [[[]]]
    for node in nodes:
        if getattr(node, "specials_chars", "") == "&":
            rows[-1].append([])
        elif getattr(node, "macroname", "") in ("\\", "cr", "newline"):
            rows.append([[]])
        else:
            rows[-1][-1].append(node)
    return [[_settle(writer.nodelist_to_text(cell)).strip() for cell in row] for row in rows]


Writing = Callable[[Any, Any], str]


def _as_pylatexenc_calls(how: Writing | str) -> Writing:
    """Wrap a replacement for pylatexenc, which passes arguments by name and would treat a str as a format."""

    def write(node: Any, l2tobj: Any) -> str:
        return how if isinstance(how, str) else how(node, l2tobj)

    return write


_ARGUMENTS = {
    **dict.fromkeys(("frac", "dfrac", "tfrac", "nicefrac", "binom", "dbinom", "tbinom"), "{{"),
    **dict.fromkeys(("cancelto", "overset", "underset", "stackrel", "textcolor"), "{{"),
    **dict.fromkeys(("boxed", "pmod", "mod", "label", "color", "cline", "vspace", *_PLAIN, *_ACCENTS), "{"),
    **{"cfrac": "[{{", "sqrt": "[{", "xrightarrow": "[{", "xleftarrow": "[{", "operatorname": "*{", "tag": "*{"},
    **{"multicolumn": "{{{", "hspace": "*{", "\\": "*["},
}
del _ARGUMENTS["mod"]


def _macros() -> dict[str, Writing | str]:
    """Return the replacements of macros that pylatexenc would render differently, or not at all."""
    last: Writing = _argument
    fractions = dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac", "nicefrac"), _write_fraction)
    binomials: Writing = lambda node, writer: f"({_argument(node, writer, -2)} choose {_argument(node, writer)})"  # noqa: E731
    return {
        **dict.fromkeys(_PLAIN, last),
        **dict.fromkeys(_ACCENTS, _write_accent),
        **_SIGNS,
        **{word: f"{_WORD}{word}{_WORD}" for word in _WORDS},
        **fractions,
        **dict.fromkeys(("binom", "dbinom", "tbinom"), binomials),
        **dict.fromkeys(("color", "cline", "vspace"), ""),
        **dict.fromkeys(("textcolor", "multicolumn"), last),
        **dict.fromkeys(
            ("overset", "stackrel"),
            lambda node, writer: f"{_argument(node, writer)}^({_argument(node, writer, -2)})",
        ),
        "underset": lambda node, writer: f"{_argument(node, writer)}_({_argument(node, writer, -2)})",
        "cancelto": lambda node, writer: f"{_argument(node, writer)}→{_argument(node, writer, -2)}",
        "xrightarrow": lambda node, writer: f"→({_argument(node, writer)})",
        "xleftarrow": lambda node, writer: f"←({_argument(node, writer)})",
        "sqrt": _write_root,
        "boxed": lambda node, writer: f"⟦{_argument(node, writer)}⟧",
        "pmod": lambda node, writer: f" (mod {_argument(node, writer)})",
        "tag": lambda node, writer: f"\u2003({_argument(node, writer)})",
        "label": lambda node, writer: f"\u2003[{_argument(node, writer)}]",
        "operatorname": lambda node, writer: f"{_WORD}{_argument(node, writer)}{_WORD}",
        "hspace": " ",
        "\\": ROW,
    }


@cache
def _tools() -> tuple[Callable[[str], list[Any]], Any]:
    """Return a cached parser and writer: pylatexenc is imported when the first formula is converted."""
    from pylatexenc import latex2text, latexwalker, macrospec

    logging.getLogger("pylatexenc").setLevel(
        logging.CRITICAL + 1
    )  # a formula that cannot be parsed stays raw, which needs no log message
    reading = latexwalker.get_default_latex_context_db().filter_context(
        keep_categories=["latex-base"], keep_which=["macros", "environments"]
    )
    reading.add_context_category(
        "own",
        macros=[macrospec.MacroSpec(name, arguments) for name, arguments in _ARGUMENTS.items()],
        environments=[
            macrospec.EnvironmentSpec(
                name, {"array": "[{", "tabular": "[{", "alignat": "{", "alignat*": "{"}.get(name, "")
            )
            for name in sorted(ENVIRONMENTS)
        ],
        specials=[
            *(macrospec.SpecialsSpec(char, macrospec.MacroStandardArgsParser("{")) for char in "^_"),
            *map(macrospec.SpecialsSpec, "&~"),
        ],
        prepend=True,
    )
    rows, scripts = _as_pylatexenc_calls(_write_rows), _as_pylatexenc_calls(_write_script)
    writing = latex2text.get_default_latex_context_db()
    writing.add_context_category(
        "own",
        macros=[
            latex2text.MacroTextSpec(name, simplify_repl=_as_pylatexenc_calls(how)) for name, how in _macros().items()
        ],
        environments=[latex2text.EnvironmentTextSpec(name, simplify_repl=rows) for name in sorted(ENVIRONMENTS)],
        specials=[
            *(latex2text.SpecialsTextSpec(char, simplify_repl=scripts) for char in "^_"),
            latex2text.SpecialsTextSpec("&", simplify_repl=" "),
            latex2text.SpecialsTextSpec("~", simplify_repl=" "),
        ],
        prepend=True,
    )
    writing.set_unknown_macro_spec(latex2text.MacroTextSpec("", simplify_repl=_as_pylatexenc_calls(_write_unknown)))

    def read(source: str) -> list[Any]:
        walker = latexwalker.LatexWalker(source, latex_context=reading, tolerant_parsing=False)
        nodes: list[Any] = walker.get_latex_nodes()[0]
        return nodes

    return read, latex2text.LatexNodes2Text(latex_context=writing, strict_latex_spaces="based-on-source")

"""Statements in HTML and LaTeX as plain text that keeps what matters: powers, indices, lists, examples, pictures.

Markdown stays as it is, because models read it as well as people do; only its pictures are named.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

IMAGE = "[image]"  # stands where a picture was
_BLOCKS = frozenset(
    ["p", "div", "section", "table", "tr", "ul", "ol", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "center"]
)
_UNSEEN = frozenset(["script", "style", "head", "title"])
# a statement is HTML if something is closed or broken as only HTML does it; "a < b" and "<name>" are not
_HTML = re.compile(
    r"</(?:p|div|pre|ul|ol|li|span|strong|em|b|i|u|sup|sub|code|tt|var|table|tr|td|th|h[1-6]|a|center|font|section)\s*>"
    r"|<br\s*/?>|<img\s[^<>]*>|<p>",
    re.IGNORECASE,
)
_MARKDOWN_IMAGE = re.compile(r"!\[[^\]\n]*\]\([^()\s]*(?:\s+\"[^\"]*\")?\)")
_LATEX_IMAGE = re.compile(r"\\includegraphics(?:\[[^\]]*\])?\{[^{}]*\}")
_MATH = re.compile(r"(?<![\\$])(\${1,3})(?!\$)([^$\n]{1,400}?)(?<!\\)\1(?!\$)")
_SYMBOLS = {
    "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">",
    "ne": "!=", "neq": "!=", "times": "*", "cdot": "*", "ast": "*", "div": "/", "ldots": "...", "dots": "...",
    "cdots": "...", "to": "->", "rightarrow": "->", "leftarrow": "<-", "Rightarrow": "=>", "infty": "infinity",
    "in": "in", "notin": "not in", "cup": "union", "cap": "intersection", "oplus": "xor", "land": "and", "lor": "or",
    "lfloor": "floor(", "rfloor": ")", "lceil": "ceil(", "rceil": ")", "bmod": "mod", "mod": "mod", "pm": "+-",
    "sum": "sum", "prod": "prod", "min": "min", "max": "max", "gcd": "gcd", "log": "log", "quad": " ", "qquad": " ",
    "alpha": "alpha", "beta": "beta", "pi": "pi", "equiv": "=", "approx": "~", "mid": "|", "left": "", "right": "",
    "subseteq": "subset of", "subset": "subset of", "forall": "for all", "exists": "exists", "emptyset": "{}",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)\s*")
_WRAPPED = re.compile(
    r"\\(?:text|texttt|textbf|textit|textrm|mathrm|mathit|mathbf|mathtt|mathsf|operatorname|emph|t|tt|bf|it)\s*"
    r"\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_BRACED = re.compile(r"([\^_])\{([^{}]*)\}")
_LIST_LINES = re.compile(r"^[ \t]*\\(?:begin|end)\{(?:itemize|enumerate|center|tabular)\}.*$\n?", re.MULTILINE)
_ITEM = re.compile(r"^[ \t]*\\item\s+", re.MULTILINE)


def plain_text(text: str) -> str:
    """The text without HTML tags and LaTeX commands; text that holds neither comes back unchanged."""
    if _HTML.search(text):
        text = _without_tags(text)
    text = _MARKDOWN_IMAGE.sub(IMAGE, text)
    text = _LATEX_IMAGE.sub(IMAGE, text)
    text = _ITEM.sub("- ", _LIST_LINES.sub("", text)) if "\\item" in text else text
    return _WRAPPED.sub(r"\1", _MATH.sub(_math, text)) if "\\" in text or "$" in text else text


def _math(match: re.Match[str]) -> str:
    body = match[2]
    if match[1] == "$" and not re.search(r"[\\^_<>=+*/]|^\s*[A-Za-z]\w?\s*$|^\s*[\d ,]+\s*$", body):
        return match[0]  # prices and shell variables
    return _formula(body)


def _formula(body: str) -> str:
    for _ in range(4):  # nested to that depth
        body = _WRAPPED.sub(r"\1", body)
        body = _FRACTION.sub(r"(\1)/(\2)", body)
        body = _BRACED.sub(lambda m: m[1] + (m[2] if re.fullmatch(r"\w*|-\d+", m[2]) else f"({m[2]})"), body)
    body = body.replace("\\,", " ").replace("\\;", " ").replace("\\ ", " ").replace("\\!", "").replace("~", " ")
    body = re.sub(r"\\([{}%&#_$|])", r"\1", body)
    return " ".join(_COMMAND.sub(lambda m: f" {_SYMBOLS[m[1]]} " if m[1] in _SYMBOLS else m[0], body).split())


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._pre = 0
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag == "pre":
            self._pre += 1
            self.parts.append("\n")
        elif tag == "br":
            self.parts.append("\n")
        elif tag == "img":
            self.parts.append(IMAGE)
        elif tag == "li":
            self.parts.append("\n- ")
        elif tag == "sup":
            self.parts.append("^")
        elif tag == "sub":
            self.parts.append("_")
        elif tag in ("td", "th"):
            self.parts.append(" ")
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag == "pre":
            self._pre = max(0, self._pre - 1)
            self.parts.append("\n")
        elif tag == "p":
            self.parts.append("\n\n")
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data if self._pre else re.sub(r"[ \t\n]+", " ", data))


def _without_tags(text: str) -> str:
    parser = _Text()
    # what cannot be a tag is text: HTMLParser would swallow "a <b and c" up to the next sign
    parser.feed(re.sub(r"<(?![A-Za-z/!])", "&lt;", text))
    parser.close()
    lines = "".join(parser.parts).split("\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip("\n")

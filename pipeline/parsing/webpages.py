"""HTML: the words of the page without navigation, scripts, styles and footers. Fetches nothing that it links to."""

import re
from typing import TYPE_CHECKING

from ..errors import ParseError
from .decoding import decode
from .detection import MEDIA_TYPES
from .documents import Deadline, ParsedDocument, ParseLimits
from .writing import Outline, TextWriter

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

_DECLARED = re.compile(
    rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w-]+)|<\?xml[^>]+encoding\s*=\s*["']([\w-]+)""", re.IGNORECASE
)
_FURNITURE = (
    "script, style, noscript, template, nav, footer, aside, svg, iframe, object, button, select, textarea, head,"
    " [hidden], [aria-hidden=true], [role=navigation], [role=search], [role=contentinfo],"
    " a.headerlink,"
    # What older pages, and the generators of much documentation, call their navigation.
    " .menu, .submenu, .navbar, .navheader, .navfooter, .breadcrumb, .breadcrumbs, .pagination, .sidebar, .nosearch"
)
_HEADERS = "header, [role=banner]"  # furniture, unless the title stands in them
_TITLES = "h1, h2"
# A table row that holds one of these lays out a page; any other is a line of a table.
_LAYOUT = "h1, h2, h3, h4, h5, h6, table, pre, ul, ol, dl, p + p, hr"
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_LINES = frozenset({"li", "tr", "dt", "dd", "option", "caption"})
_SECTIONS = """
    address article blockquote body center details div dl fieldset figcaption figure form header hr main ol p pre
    section summary table tbody tfoot thead ul
"""
_BLOCKS = _LINES | _HEADINGS.keys() | frozenset(_SECTIONS.split())
# The parser looks through all open elements at each tag, so its time grows with this sum: a few seconds.
_MOST_STEPS = 1_000_000_000
_TAG = re.compile(rb"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_NOT_NESTED = frozenset(  # elements without content, and those that the parser closes by itself
    b"""
    a area b base big br code col colgroup dd dt em font hr i img input li link meta nobr option p param s small source
    strike strong tbody td tfoot th thead tr track tt u wbr
    """.split()
)
_SPACE = re.compile(r"[ \t\n\r\f\xa0]+")


def parse_html(data: bytes, limits: ParseLimits, deadline: Deadline) -> ParsedDocument:
    """Return the page as blocks, a table row as one line with its cells between bars, headings as paths."""
    from selectolax.lexbor import LexborHTMLParser  # noqa: PLC0415 -- only pages need it

    _refuse_depth(data)
    declared = _DECLARED.search(data, 0, 2048)
    encoding = (declared[1] or declared[2]).decode("ascii") if declared else None
    tree = LexborHTMLParser(decode(data, declared=encoding))
    deadline.check()
    page = _Page(tree, limits, deadline)
    page.read()
    return page.writer.finish(title=_title(tree), media_type=MEDIA_TYPES["html"])


def _refuse_depth(data: bytes) -> None:
    """Refuse what would keep the parser busy for minutes, where nothing can interrupt it."""
    if data.count(b"<") ** 2 < _MOST_STEPS:
        return
    depth = steps = 0
    for closes, name in _TAG.findall(data):
        if name.lower() not in _NOT_NESTED:
            depth = max(depth - 1, 0) if closes else depth + 1
            steps += depth
    if steps > _MOST_STEPS:
        raise ParseError(
            "too_large",
            "Its elements are nested too deep, as by tags that are never closed: repair it, or send its text.",
        )


def _title(tree: "LexborHTMLParser") -> str | None:
    for place in ("title", "h1"):
        node = tree.css_first(place)
        if node is not None and (words := node.text().strip()):
            return words
    return None


def _ancestors(tree: "LexborHTMLParser", selector: str) -> set[int]:
    """Return the ids of all nodes that hold a match. Climbs each branch once: pages can nest very deep."""
    found: set[int] = set()
    for match in tree.css(selector):
        node = match.parent
        while node is not None and node.mem_id not in found:
            found.add(node.mem_id)
            node = node.parent
    return found


class _Page:
    """One walk over the tree in document order; a loop, because pages nest deeper than Python recurses."""

    def __init__(self, tree: "LexborHTMLParser", limits: ParseLimits, deadline: Deadline) -> None:
        self.writer = TextWriter(limits, deadline)
        self._deadline = deadline
        self._root = tree.body
        # Removing nodes from the tree while nested ones match too is what crashes; skipping is safe.
        titled = _ancestors(tree, _TITLES)
        self._skipped = {node.mem_id for node in tree.css(_FURNITURE)}
        self._skipped |= {node.mem_id for node in tree.css(_HEADERS)} - titled
        self._laid_out = _ancestors(tree, _LAYOUT)
        self._outline = Outline()
        self._words: list[str] = []
        self._gap = "\n\n"
        self._pre = 0
        self._rows: list[bool] = []  # for each open row: is it a line of a table

    def read(self) -> None:
        node = self._root
        while node is not None:
            child = self._enter(node)
            if child is not None:
                node = child
                continue
            node = self._leave_until_next(node)
        self._flush()

    def _leave_until_next(self, node: "LexborNode") -> "LexborNode | None":
        current: LexborNode | None = node
        root = self._root.mem_id if self._root else 0  # comparing nodes would compare their whole HTML
        while current is not None and current.mem_id != root:
            self._leave(current)
            if current.next is not None:
                return current.next
            current = current.parent
        return None

    def _enter(self, node: "LexborNode") -> "LexborNode | None":
        """Take in one node; return its first child if it is to be walked."""
        tag = node.tag
        if tag == "-text":
            self._add_words(node.text_content or "")
            return None
        if node.mem_id in self._skipped:
            return None
        if tag == "tr":
            self._deadline.check()
            self._flush()
            self._rows.append(node.mem_id not in self._laid_out)
        elif tag == "br":
            self._words.append("\n" if not self._in_line else " ")
        elif tag in {"td", "th"}:
            self._open_cell()
        elif tag in _BLOCKS:
            self._break(tag)
        self._pre += tag == "pre"
        return node.first_child

    def _leave(self, node: "LexborNode") -> None:
        tag = node.tag
        if tag is None or node.mem_id in self._skipped:
            return
        if tag in _HEADINGS:
            self._outline.enter(_HEADINGS[tag], "".join(self._words))
        if tag == "tr" and self._rows:
            self._rows.pop()
            self._flush()
            self._gap = "\n"
        elif tag in _BLOCKS:
            self._break(tag)
            if tag in _LINES:
                self._gap = "\n"
        self._pre -= tag == "pre"

    @property
    def _in_line(self) -> bool:
        return bool(self._rows) and self._rows[-1]

    def _open_cell(self) -> None:
        if not self._in_line:
            self._flush()
        elif any(not word.isspace() for word in self._words):
            self._words.append(" | ")

    def _break(self, tag: str) -> None:
        if self._in_line:
            self._words.append(" ")
            return
        self._flush()
        if tag not in _LINES:
            self._gap = "\n\n"

    def _add_words(self, words: str) -> None:
        if words:
            self._words.append(words if self._pre else _SPACE.sub(" ", words))

    def _flush(self) -> None:
        text = "".join(self._words)
        self._words.clear()
        if not self._pre:
            text = "\n".join(" ".join(line.split()) for line in text.split("\n")).strip("\n")
        if text and not text.isspace():
            self.writer.add(text, heading=self._outline.path, gap=self._gap)
            self._gap = "\n\n"

"""Runs as pictures that stand alone."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.displays.test_displays import EVIL, finished_step, run, start
from tts_tui import SearchTree, Usage
from tts_tui.displays import export
from tts_tui.errors import RecordCorrupt, UsageError
from tts_tui.tree.events import NodesPruned, Notice, SolutionFound, StepFailed, StepMerged, StepStarted, StepStreamed

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Reads a page; whatever is opened must be closed, in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.deepest = 0
        self.words: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
            self.deepest = max(self.deepest, len(self.open))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def fold(*events):
    return SearchTree.fold(events)


async def test_the_page_tells_the_whole_run():
    result, _ = await run()
    page = Page(export.html(result.tree))
    assert result.tree.start.problem in page.text
    for said in (
        "Plan",
        "beam, n 8, m 4",
        "Policy",
        "scripted",
        "Reward model",
        "Costs",
        "tokens written",
        "kept",
        "pruned",
    ):
        assert said in page.text
    assert f"★ the winning answer {result.answer}" in page.text
    for tally in result.votes:
        assert f"{tally.weight:.3g} from {len(tally.solutions)} solution" in page.text
    for node in result.tree.nodes[1:]:
        assert node.merged_into is not None or node.text.strip().split("\\boxed")[0] in page.text


async def test_the_page_needs_nothing_but_itself():
    result, _ = await run()
    source = export.html(result.tree)
    page = Page(source)
    assert not re.search(r"https?://|//\w|url\(|@import|<script|javascript:", source)
    assert not any(name in ("src", "href") or name.startswith("on") for _, given in page.tags for name in given)
    assert "default-src 'none'" in source and "prefers-color-scheme: dark" in source and "@media print" in source


def test_what_was_given_up_is_folded_and_the_rest_is_open():
    events = [start()]
    for id, parent in ((1, 0), (2, 0), (3, 1), (4, 1), (5, 2)):
        events += finished_step(id, parent, f"step number {id}\n\n", 0.5)
    tree = fold(*events, NodesPruned(nodes=(2,), why="not among the best"))
    details = [given for tag, given in Page(export.html(tree)).tags if tag == "details"]
    assert details == [{"open": None}, {}]
    assert "✗ pruned" in export.html(tree) and "not among the best" in export.html(tree)
    assert "1 step below" in export.html(tree)


def test_every_state_is_said_in_words():
    tree = fold(
        start(),
        *finished_step(1, 0, "a", 1.0),
        *finished_step(2, 0, "a", 0.0),
        StepMerged(node=2, into=1),
        StepStarted(node=3, parent=0, slot=2, group=0),
        StepStreamed(node=3, text="half a st", usage=Usage(completion=1)),
        StepStarted(node=4, parent=0, slot=3, group=0),
        StepFailed(node=4, error="the server went away", usage=Usage(completion=1)),
        *finished_step(5, 0, "so \\boxed{7}", 0.25),
        SolutionFound(node=5, answer="7"),
        NodesPruned(nodes=(1,), by="person", why=""),
        Notice(message="a <message>"),
    )
    text = Page(export.html(tree)).text
    for said in (
        "✗ cut by hand ×2",
        "… being written half a st",
        "! failed the server went away",
        "★ answer 7 so ⟦7⟧",
    ):
        assert said in text
    assert "a <message>" in text and "1 cut by hand" in text
    assert "the search had not ended" in text


def test_what_a_model_wrote_is_text_and_nothing_else():
    evil = EVIL + "<script>alert(1)</script><img src=x onerror=y>\"'&amp;</bdi></div>"
    tree = fold(start(evil), *finished_step(1, 0, evil, 0.5), SolutionFound(node=1, answer=evil), Notice(message=evil))
    source = export.html(tree, title=evil)
    page = Page(source)
    assert not any(tag in ("script", "img") for tag, _ in page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert all(char.isprintable() or char == "\n" for char in source)
    drawn = export.svg(tree)
    ElementTree.fromstring(drawn)
    assert "<script" not in drawn


def test_a_deep_path_is_a_column_and_a_deep_comb_ends_somewhere():
    column, comb = [start()], [start()]
    for id in range(1, 5001):
        column += finished_step(id, id - 1, f"s{id}", 0.5)
        comb += finished_step(id, max(0, id - 1 - id % 2), f"s{id}", 0.5)
    for events, most in ((column, 10), (comb, 2 * export.DEEPEST + 10)):
        source = export.html(fold(*events))
        page = Page(source)
        assert page.deepest <= most
        assert all(f"s{id}" in unescape(source) for id in (1, 2500, 5000))
        assert len(source) < 5000 * 400


def test_only_so_many_formulas_are_converted(monkeypatch):
    monkeypatch.setattr(export, "MOST_READABLE", 12)
    said = enumerate(("one: $x^2$", "two: $x^2$", "three: $x^2$"), 1)
    tree = fold(start(), *(event for id, text in said for event in finished_step(id, 0, text, 0.5)))
    text = Page(export.html(tree)).text
    assert "one: x²" in text and "two: x²" in text and "three: $x^2$" in text


async def test_the_drawing_is_the_live_display_and_brings_no_fonts():
    result, _ = await run()
    drawn = export.svg(result.tree, width=100, rows=12)
    root = ElementTree.fromstring(drawn)
    text = " ".join("".join(root.itertext()).split()).replace("\xa0", " ")
    assert "beam N 8 M 4" in text and f"answer {result.answer}" in text
    assert "@font-face" not in drawn and "url(http" not in drawn and "monospace" in drawn
    assert export.svg(result.tree, width=100, rows=12) == drawn


def test_fonts_are_taken_out_of_any_picture_of_the_terminal():
    font = '@font-face { font-family: "F"; src: local("F"), url("https://a/b.woff2") format("woff2"); }'
    source = f"<style>{font}\n.m {{ font-family: Fira Code, monospace; }}</style>"
    assert export.without_fonts(source).startswith("<style>.m { font-family: 'Fira Code', ")
    assert "https" not in export.without_fonts(source)


@pytest.mark.parametrize("name", ["run.html", "run.svg", "run.HTML"])
def test_the_file_is_there_whole_and_alone(tmp_path, name):
    tree = fold(start(), *finished_step(1, 0, "a", 0.5))
    export.write(tree, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(("<!DOCTYPE html>", "<svg"))


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    tree = fold(start())
    with pytest.raises(UsageError, match=r"ends in \.html or \.svg"):
        export.write(tree, tmp_path / "run.png")
    (tmp_path / "there.svg").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export.write(tree, tmp_path / "there.svg")
    assert (tmp_path / "there.svg").read_text() == "mine"
    with pytest.raises(UsageError, match=r"cannot write .*No such file or directory"):
        export.write(tree, tmp_path / "nowhere" / "run.html")
    with pytest.raises(RecordCorrupt):
        export.write(SearchTree(), tmp_path / "run.html")

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UsageError, match="No space left"):
        export.write(tree, tmp_path / "run.html")
    assert [path.name for path in tmp_path.iterdir()] == ["there.svg"]

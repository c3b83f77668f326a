"""What comes out of a readable file of each format."""

import itertools
import pickle

import docx
import pytest

from penstock.pipeline.errors import ParseError
from penstock.pipeline.parsing import ParsedDocument, ParseLimits, Span, parse

from . import sample_files as sample

SAMPLES = {
    "a.txt": b"Ein Reiher\r\nwartet.\r\n",
    "a.md": sample.MARKDOWN.encode(),
    "a.html": sample.HTML.encode(),
    "a.pdf": sample.pdf(["Page one\nsecond line", "", "Page three"], title="Three pages"),
    "a.docx": sample.word(),
    "a.csv": sample.CSV.encode(),
    "a.json": sample.JSON.encode(),
    "a.jsonl": sample.JSONL.encode(),
}


def read(data: bytes | str, filename: str, **options: object) -> ParsedDocument:
    return parse(data.encode() if isinstance(data, str) else data, filename=filename, **options)


def headings(document: ParsedDocument) -> list[tuple[str | None, str]]:
    return [(span.heading, document.text[span.start : span.end].split("\n")[0]) for span in document.spans]


@pytest.mark.parametrize("filename", SAMPLES)
def test_spans_cover_the_text_without_gaps(filename):
    document = read(SAMPLES[filename], filename)
    assert document.spans[0].start == 0
    assert document.spans[-1].end == len(document.text)
    assert all(span.start < span.end for span in document.spans)
    assert all(before.end == after.start for before, after in itertools.pairwise(document.spans))
    assert "\r" not in document.text


@pytest.mark.parametrize(
    ("filename", "media_type"),
    [
        ("a.txt", "text/plain"),
        ("a.md", "text/markdown"),
        ("a.html", "text/html"),
        ("a.pdf", "application/pdf"),
        ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.csv", "text/csv"),
        ("a.json", "application/json"),
        ("a.jsonl", "application/x-ndjson"),
    ],
)
def test_the_suffix_or_the_media_type_tells_the_format(filename, media_type):
    by_suffix = read(SAMPLES[filename], filename)
    by_media_type = read(SAMPLES[filename], "upload", media_type=f"{media_type}; charset=utf-8")
    assert by_suffix.media_type == media_type
    assert by_media_type == by_suffix


@pytest.mark.parametrize("filename", ["a.pdf", "a.docx", "a.html"])
def test_the_first_bytes_win_over_a_wrong_suffix(filename):
    assert read(SAMPLES[filename], "notes.txt") == read(SAMPLES[filename], filename)


def test_a_text_about_pdf_headers_is_not_a_pdf():
    assert read("A PDF begins with %PDF-1.7.", "a.md").media_type == "text/markdown"


def test_an_unknown_suffix_is_read_as_text():
    assert read("print('hello')\n", "script.py").media_type == "text/plain"


# --- text and encodings ---------------------------------------------------------------------------------------------


def test_line_ends_become_newlines_and_control_characters_go():
    document = read("one\r\ntwo\rthree\x0cfour\u2028five\x08\n", "a.txt")
    assert document.text == "one\ntwo\nthree\nfour\nfive\n"
    assert document.spans == [Span(0, len(document.text))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_is_read_with_and_without_a_mark(encoding):
    text = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 3
    assert read(text.encode(encoding), "a.txt").text == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Les élèves français préfèrent l'été à l'hiver, où il fait très froid."),
        ("cp1252", "it\u2019s a \u201cquote\u201d \u2013 with a dash"),
        ("cp1250", "Zażółć gęślą jaźń, proszę bardzo, dziękuję"),
        ("cp1251", "Привет, как дела? Сегодня хорошая погода."),
        ("koi8-r", "Это русский текст про груши и яблоки в саду. Весной мы обрезаем деревья."),
        ("latin-1", "Crème brûlée à la façon de Noël, déjà vu, übermäßig schön. " * 5),
        ("cp1252", "He said \u201cit\u2019s fine\u201d \u2013 and left\u2026 the café."),
        ("iso8859-2", "Zażółć gęślą jaźń. Wczoraj poszliśmy do sklepu po chleb i mleko, a później wróciliśmy. " * 5),
        ("cp1253", "\u03a4\u03bf νερό ρέει μέσα από τον υδροηλεκτρικό σταθμό."),
        ("cp932", "ｱｲｳｴｵ 半角カナ"),
        ("shift_jis", "吾輩は猫である。名前はまだ無い。どこで生れたか"),
        ("gb18030", "你好世界今天天气很好"),
    ],
)
def test_older_encodings_are_guessed(encoding, text):
    assert read(text.encode(encoding), "a.txt").text == text


def test_a_character_cut_in_half_at_the_end_is_dropped():
    assert read("caf\u00e9 au lait \u00e9".encode()[:-1], "a.txt").text == "caf\u00e9 au lait "


def test_a_few_wrong_bytes_do_not_spoil_utf8():
    text = "größer und kleiner und schöner und älter. " * 10
    assert read(text.encode() + b"\xff" + text.encode(), "a.txt").text == f"{text}\ufffd{text}"


# --- Markdown -------------------------------------------------------------------------------------------------------


def test_markdown_headings_open_spans_but_code_does_not():
    document = read(sample.MARKDOWN, "a.md")
    assert document.text == sample.MARKDOWN
    assert document.title == "Bread"
    assert headings(document) == [
        ("Bread", "# Bread"),
        ("Bread > Dough", "## Dough ##"),
        ("Bread > Rest", "Rest"),
        ("Soup", "# Soup"),
    ]


def test_markdown_front_matter_gives_the_title():
    document = read('---\ntitle: "On Bread"\ntags: food\n---\nIntro.\n\n# [Flour](flour.md) and `water`\n', "a.md")
    assert document.title == "On Bread"
    assert headings(document) == [(None, "---"), ("Flour and water", "# [Flour](flour.md) and `water`")]


# --- HTML -----------------------------------------------------------------------------------------------------------


def test_html_keeps_the_words_and_drops_the_furniture():
    document = read(sample.HTML, "a.html")
    assert document.title == "The Heron"
    assert document.text == (
        "The heron\n\nA heron waits by the river.\nIt is patient.\n\nFood\n\nFish\nFrogs\n\n"
        "Prey | Share\nFish | 80 %\n\nkeep   these\n  spaces"
    )
    assert headings(document) == [("The heron", "The heron"), ("The heron > Food", "Food")]


def test_a_page_laid_out_with_a_table_keeps_its_headings():
    page = "<table><tr><td>menu</td><td><h2>News</h2><p>One</p><table><tr><td>a</td><td>b</td></tr></table></td></tr>"
    document = read(f"<html><body>{page}</table></body></html>", "a.html")
    assert document.text == "menu\n\nNews\n\nOne\n\na | b"
    assert headings(document) == [(None, "menu"), ("News", "News")]


def test_html_declares_its_encoding():
    page = '<html><head><meta charset="iso-8859-2"></head><body>Zażółć</body></html>'
    assert read(page.encode("iso-8859-2"), "a.html").text == "Zażółć"


def test_html_without_a_title_is_called_by_its_first_heading():
    assert read("<html><body><h1>Only <i>heading</i></h1>words</body></html>", "a.html").title == "Only heading"


# --- PDF ------------------------------------------------------------------------------------------------------------


def test_pdf_pages_are_counted_from_one_and_empty_pages_keep_their_number():
    document = read(SAMPLES["a.pdf"], "a.pdf")
    assert document.title == "Three pages"
    assert document.text == "Page one\nsecond line\n\nPage three"
    assert [(span.page, span.heading) for span in document.spans] == [(1, None), (3, None)]


def test_pdf_bookmarks_become_headings():
    document = read(sample.pdf(["first", "second", "third"], bookmarks=["Intro", "Body"]), "a.pdf")
    assert [(span.page, span.heading) for span in document.spans] == [(1, "Intro"), (2, "Body"), (3, "Body")]


# --- Word -----------------------------------------------------------------------------------------------------------


def test_word_paragraphs_and_tables_come_in_document_order():
    document = read(sample.word(), "a.docx")
    assert document.text == (
        "Bridges\n\nBridges carry roads.\n\nMaterials\n\nMaterial | Use\nSteel | Long spans\n\nAfter the table.\n\n"
        "Stone\n\nArches\tof stone.\n\nHistory\n\nOld ones."
    )
    assert headings(document) == [
        ("Bridges", "Bridges"),
        ("Bridges > Materials", "Materials"),
        ("Bridges > Materials > Stone", "Stone"),
        ("Bridges > History", "History"),
    ]


def test_word_title_is_the_property_else_the_first_heading():
    assert read(sample.word(title="On bridges"), "a.docx").title == "On bridges"
    assert read(sample.word(), "a.docx").title == "Bridges"


def test_a_table_inside_a_table_cell_is_read_once():
    document = docx.Document()
    cell = document.add_table(rows=1, cols=2).rows[0].cells[0]
    cell.text = "outer"
    cell.add_table(rows=1, cols=1).rows[0].cells[0].text = "inner"
    assert read(sample.saved(document), "a.docx").text == "outer inner"


# --- CSV and JSON ---------------------------------------------------------------------------------------------------


def test_csv_rows_name_their_values():
    assert read(sample.CSV, "a.csv").text == (
        "city: Rome\ncountry: Italy\npeople: 2,8 million\n\ncity: Oslo\ncountry: Norway\npeople: 700000"
    )


def test_csv_rows_stand_under_their_first_cell():
    assert headings(read(sample.CSV, "a.csv")) == [("Rome", "city: Rome"), ("Oslo", "city: Oslo")]
    assert headings(read("year,event\n1969,landing\n", "a.csv")) == [(None, "year: 1969")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiter_is_found(delimiter):
    text = delimiter.join(["name", "note"]) + "\n" + delimiter.join(["Ada", '"a, b; c"']) + "\n"
    assert read(text, "a.csv").text == "name: Ada\nnote: a, b; c"


def test_csv_without_a_header_numbers_its_columns():
    assert read("Rome,2.8\nOslo,0.7\n", "a.csv").text == (
        "column 1: Rome\ncolumn 2: 2.8\n\ncolumn 1: Oslo\ncolumn 2: 0.7"
    )


def test_csv_with_only_a_header_keeps_it():
    assert read("name,age\n", "a.csv").text == "name, age"


def test_json_values_are_named_by_their_path_and_numbers_keep_their_digits():
    document = read(sample.JSON, "a.json")
    assert document.title == "Tides"
    assert document.text == "title: Tides\ncauses: Moon, Sun\nrange.Fundy: 16.30\nrange.big: 12345678901234567890"


def test_json_lists_are_records():
    document = read('[{"name": "a", "tags": [{"x": 1}, 2]}, "loose", []]', "a.json")
    assert document.text == "name: a\ntags: 2\ntags.x: 1\n\nloose"
    assert headings(document) == [("a", "name: a"), (None, "loose")]


@pytest.mark.parametrize("filename", ["a.jsonl", "a.ndjson", "a.json"])
def test_json_lines_are_records_under_any_name(filename):
    document = read(sample.JSONL, filename)
    assert document.text == "name: Mars\nmoons: 2\n\nname: Venus\nmoons: 0\nrocky: true"
    assert headings(document) == [("Mars", "name: Mars"), ("Venus", "name: Venus")]


def test_escaped_lone_surrogates_and_controls_do_not_reach_the_text():
    document = read(r'{"name": "a\ud800b\u0000c"}', "a.json")
    assert document.text == "name: abc"
    assert document.title == "abc"


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filename", SAMPLES)
def test_every_format_obeys_the_deadline(filename):
    ticks = itertools.count(step=10)
    limits = ParseLimits(timeout_s=5, clock=lambda: float(next(ticks)))
    with pytest.raises(ParseError) as caught:
        read(SAMPLES[filename], filename, limits=limits)
    assert caught.value.code == "timeout"


@pytest.mark.parametrize("filename", SAMPLES)
def test_every_format_obeys_the_length_limit(filename):
    with pytest.raises(ParseError) as caught:
        read(SAMPLES[filename], filename, limits=ParseLimits(max_characters=5))
    assert caught.value.code == "too_large"


def test_a_callers_alarm_is_not_mistaken_for_damage():
    class TimeLimit(Exception):
        pass

    def alarm() -> float:
        raise TimeLimit

    with pytest.raises(TimeLimit):
        read(SAMPLES["a.docx"], "a.docx", limits=ParseLimits(clock=alarm))


def test_parse_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(ParseError("no_text", "Nothing.")))
    assert (error.code, error.message, str(error)) == ("no_text", "Nothing.", "Nothing.")

"""Tables as people have them: what is recognised is said in a line, and what is not is refused."""

import codecs

import pytest

from corpora.tables import Line, read_table
from utils.errors import UserError

FILES = ("a.wav", "b.wav", "c.wav", "sub/d.wav")
PLAIN = [Line(1, "a.wav", "one", ""), Line(2, "b.wav", "two, three", "")]


@pytest.fixture
def read(tmp_path, caplog):
    """Reads a table of this content; returns its lines, its findings, and what was said of it."""

    def read(content, speakers=None):
        path = tmp_path / "t.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        table = read_table(path, FILES.__contains__, speakers)
        said = [message.replace(str(path), "T") for message in caplog.messages]
        return table.lines, [finding.replace(str(path), "T") for finding in sorted(table.findings.values())], said

    return read


def numbered(lines, first):
    return [line._replace(number=number) for number, line in enumerate(lines, first)]


def test_a_plain_table_is_read_without_a_word(read):
    assert read("a.wav\tone\r\n\r\nb.wav\ttwo, three") == ([PLAIN[0], PLAIN[1]._replace(number=3)], [], [])


@pytest.mark.parametrize("header", ["path\ttext", "Filename\tTranscription", "파일\t문장", "path\tanything"])
def test_a_header_is_no_utterance(header, read):
    lines, findings, said = read(f"{header}\na.wav\tone\nb.wav\ttwo, three\n")
    assert (lines, findings) == (numbered(PLAIN, 2), [])
    (message,) = said
    assert message.startswith("T: line 1 names the columns (")


@pytest.mark.parametrize("first", ["x.wav\ttext", "a.wav\tsentence"])
def test_an_utterance_is_no_header(first, read):
    lines, findings, said = read(f"{first}\nb.wav\ttwo\n")
    assert len(lines) + len(findings) == 2
    assert said == []


@pytest.mark.parametrize(
    "content",
    ['a.wav,one\nb.wav,"two, three"\n', "a.wav,one\nb.wav,two, three\n", "a.wav;one\nb.wav;two, three\n"],
)
def test_commas_and_semicolons_for_tabs(content, read):
    """A comma inside a text does not cut it, whether it is quoted or not."""
    lines, findings, said = read(content)
    assert (lines, findings) == (PLAIN, [])
    assert said == [f"T: found {content[5]!r} between the columns, expected tabs: read as that"]


@pytest.mark.parametrize(
    ("encoding", "mark", "name"),
    [
        ("utf-8", codecs.BOM_UTF8, "a byte order mark"),
        ("utf-16-le", codecs.BOM_UTF16_LE, "UTF-16"),
        ("utf-16-be", codecs.BOM_UTF16_BE, "UTF-16"),
        ("utf-32", b"", "UTF-32"),
        ("utf-16-le", b"", "UTF-16 without a byte order mark"),
        ("utf-16-be", b"", "UTF-16 without a byte order mark"),
        ("cp949", b"", "cp949 (Korean, such as 안녕하세요반갑습)"),
        ("euc-kr", b"", "cp949 (Korean, such as 안녕하세요반갑습)"),
    ],
)
def test_encodings(encoding, mark, name, read):
    lines, findings, said = read(mark + "a.wav\t안녕하세요\nb.wav\t반갑습니다, five\n".encode(encoding))
    assert [line.text for line in lines] == ["안녕하세요", "반갑습니다, five"]
    assert findings == []
    assert said == [f"T: found {name}, expected UTF-8: read as that"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Straße, Äpfel und Öl", "cp1252"),
        ("l'été où elle était née", "latin-1"),
        ("こんにちは世界、元気ですか", "shift-jis"),
        ("こんにちは世界、元気ですか", "euc-jp"),
        ("你好世界我们去北京吧", "gb2312"),
        ("你好世界我們去北京吧", "big5"),
        ("привет мир", "cp1251"),
        ("привет мир", "koi8-r"),
    ],
)
def test_another_encoding_is_not_guessed(text, encoding, read):
    with pytest.raises(UserError, match=r"t\.tsv: cannot be read .*expected text in UTF-8: a path, a tab, .*save it"):
        read(f"a.wav\t{text}\n".encode(encoding))


EXCELS = 'a.wav\t"네, 알겠어요"\nb.wav\t"그는 ""좋아"" 했다"\nc.wav\t안녕\n'


@pytest.mark.parametrize("encoding", ["utf-16", "cp949"])
def test_quotes_of_a_spreadsheet_are_no_text(encoding, read):
    lines, findings, said = read(EXCELS.encode(encoding))
    assert [line.text for line in lines] == ["네, 알겠어요", '그는 "좋아" 했다', "안녕"]
    assert findings == []
    assert said[1:] == ["T: found cells in quotes, as a spreadsheet writes them: read without"]


@pytest.mark.parametrize(
    "content", [EXCELS.encode(), f"{EXCELS}sub/d.wav\t네, 네\n".encode("utf-16"), 'a.wav\t"네"\n'.encode("utf-16")]
)
def test_other_quotes_are_text(content, read):
    assert read(content)[0][0].text.startswith('"네')


def test_swapped_columns(read):
    lines, findings, said = read("one\ta.wav\ntwo, three\tb.wav\n")
    assert (lines, findings) == (PLAIN, [])
    assert said == ["T: found the text before the path, expected the path first: read as that"]


def test_a_header_tells_columns_apart_and_speakers(read):
    content = "client_id\tsentence\tage\tpath\nmia\tone\t20\ta.wav\nleo\ttwo, three\t\tb.wav\nleo\tfour\n"
    lines, findings, _ = read(content, "client_id")
    assert [(line.path, line.text, line.speaker) for line in lines] == [
        ("a.wav", "one", "mia"),
        ("b.wav", "two, three", "leo"),
    ]
    assert findings == ["T:4: found 'leo\\tfour', expected 4 columns"]
    assert read(content, "3")[0][0].speaker == "20"
    with pytest.raises(UserError, match=r"--speakers: found 'who', expected a column of .* \(client_id, sentence"):
        read(content, "who")


def test_speakers_by_number_without_a_header(read):
    lines, findings, _ = read("a.wav\tmia\tone\nb.wav\tleo\ttwo\n", "2")
    assert [(line.text, line.speaker) for line in lines] == [("one", "mia"), ("two", "leo")]
    assert findings == []
    for bad in ("4", "0", "x"):
        with pytest.raises(UserError, match="--speakers: found"):
            read("a.wav\tmia\tone\n", bad)


@pytest.mark.parametrize("content", ["a.wav\tmia\tone\nb.wav\tleo\ttwo\n", "a.wav,mia,one\nb.wav,leo,two\n"])
def test_columns_that_nobody_named_are_not_guessed(content, read):
    with pytest.raises(UserError, match="found 3 columns, expected a path and a text; a first line that names"):
        read(content)


def test_lines_that_are_none_are_findings(read):
    lines, findings, _ = read("a.wav\tone\nb.wav two\nc.wav\tthree\tfour\n\tfive\na.wav\t\n")
    assert len(lines) == 1
    assert [finding.split(":")[1] for finding in findings] == ["2", "3", "4", "5"]
    assert "expected a path, a tab and a text" in findings[0]
    _, findings, _ = read('a.wav,one\nb.wav,"two\n')
    assert "T:2: found 'b.wav,\"two', expected cells, ',' between" in findings[0]

"""Texts to tokens and back, in any language."""

import pickle
import unicodedata

import pytest

from utils.errors import UserError
from utils.vocabulary import (
    EOS,
    KAGGLE,
    LARGEST,
    PAD,
    SOS,
    SPECIAL,
    TextForm,
    Vocabulary,
    as_it_is,
    describe_vocabulary,
    format_vocabulary,
    list_characters,
    make_vocabulary,
    parse_vocabulary,
    read_vocabulary,
    spellable,
    unspellable,
    vocabulary_of_texts,
)

KOREAN = ["한국어 값이 싸요", "우리는 책을 읽었어요", "ㅋㅋ"]


PLAIN, JAMO = TextForm(), TextForm(units="jamo")


def of(*texts: str, form: TextForm = PLAIN) -> Vocabulary:
    return vocabulary_of_texts(map(form.prepare, texts), form)[0]


def test_the_competitions_tokens_in_its_order():
    assert ("<pad>", "<sos>", "<eos>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ' ") == KAGGLE.tokens
    assert (PAD, SOS, EOS, len(KAGGLE)) == (0, 1, 2, 31)
    assert make_vocabulary("kaggle", TextForm()) == KAGGLE


def test_encode_adds_boundaries_and_decode_takes_them_off():
    assert KAGGLE.encode("AB '") == [SOS, 3, 4, 30, 29, EOS]
    assert KAGGLE.encode("") == [SOS, EOS]
    everything = "".join(KAGGLE.characters)
    assert KAGGLE.decode(KAGGLE.encode(everything)) == everything
    with pytest.raises(KeyError):
        KAGGLE.encode("é")


def test_decode_cuts_at_the_first_eos():
    assert KAGGLE.decode([3, 4, PAD, 30, 29, EOS, 5]) == "AB '"
    assert KAGGLE.decode([EOS, 5]) == ""


# ------------------------------------------------------------------------------------------------------------ preparing


@pytest.mark.parametrize(
    ("form", "text", "prepared"),
    [
        (TextForm(), "  Straße,  e\u0301t\u00e9! ", "  Straße,  été! "),
        (TextForm(case="upper"), "straße äöü", "STRAßE ÄÖÜ"),
        (TextForm(case="lower"), "İSTANBUL ÄÖÜ", "İstanbul äöü"),
        (
            TextForm(punctuation="remove"),
            "He paid $5.50 – “100%”, don’t… well-known.",
            "He paid $5.50 100% don't well known",
        ),
        (TextForm(punctuation="remove"), "¿Qué? वह है। 좋아요!", "Qué वह है 좋아요"),
        (TextForm(case="upper", punctuation="remove"), "'tis O'Neill's.", "TIS O'NEILL'S"),
        (TextForm(), "\u1112\u1161\u11ab \u1112 \u11ab", "한 ㅎ ㄴ"),
        (TextForm(), "ब\u0915\u093c", "ब\u0915\u093c"),
        (TextForm(punctuation="remove"), "...", ""),
    ],
)
def test_a_text_is_prepared_in_one_way(form, text, prepared):
    assert form.prepare(text) == prepared
    assert form.prepare(prepared) == prepared


def test_kaggles_texts_stay_as_they_are():
    assert TextForm().prepare(" IT'S  A ") == " IT'S  A "


# -------------------------------------------------------------------------------------------------- characters of texts


def test_the_characters_of_texts_in_the_order_of_their_code_points():
    vocabulary, counts = vocabulary_of_texts(["Zoë, zoo", "öl"], TextForm())
    assert vocabulary.tokens == (*SPECIAL, " ", ",", "Z", "l", "o", "z", "ë", "ö")
    assert counts["o"] == 3
    assert vocabulary.decode(vocabulary.encode("ölë")) == "ölë"
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary  # workers get copies
    with pytest.raises(UserError, match=r"data\.vocabulary: found 9,000 different characters .* at most 8,189"):
        vocabulary_of_texts(map(chr, range(0x4E00, 0x4E00 + 9000)), TextForm())
    assert LARGEST == 8192


def test_what_a_vocabulary_does_not_hold():
    vocabulary = of("abc ")
    assert vocabulary.unknown("a b,c,é") == ",,é"
    assert vocabulary.known("a b,c,é") == "a bc"
    assert list_characters("é\u0301é") == "'é', U+0301"
    assert list_characters(map(chr, range(97, 117))).endswith("'l' and 8 more")
    jamo = of(*KOREAN, form=JAMO)
    assert jamo.unknown("뷁 한글 갉") == "뷁"
    assert jamo.labels("뷁국") == ["ㄱ", "ㅜ", "ㄱ", "<eos>"]
    assert jamo.count("뷁 값") == 4


@pytest.mark.parametrize("text", [*KOREAN, "값", "요 ㅋ"])
def test_jamo_are_composed_again(text):
    vocabulary = of(*KOREAN, form=JAMO)
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text
    assert len(tokens) == vocabulary.count(text) + 2
    assert all(len(token) == 1 for token in vocabulary.characters)
    assert len(tokens) - 2 == len(unicodedata.normalize("NFD", text))
    assert of(*KOREAN).decode(of(*KOREAN).encode(text)) == text


@pytest.mark.parametrize(
    ("jamo", "seen"),
    [
        ("\u1112\u1112\u1161\u11ab", "ㅎ한"),
        ("\u1161\u1161 \u11ab", "ㅏㅏ ㄴ"),
        ("\u1112\u1161\u11ab\u11b9", "한ㅄ"),
        ("\u1112 \u1161", "ㅎ ㅏ"),
        ("\u11b9", "ㅄ"),
    ],
)
def test_jamo_that_compose_to_no_syllable_stay_visible(jamo, seen):
    vocabulary = Vocabulary((*SPECIAL, *" \u1112\u1161\u11ab\u11b9"), JAMO)
    index = {token: number for number, token in enumerate(vocabulary.tokens)}
    assert vocabulary.decode([index[letter] for letter in jamo]) == seen
    vocabulary.encode(vocabulary.known(seen))  # as attention maps do


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_vocabulary_file_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "v.txt"
    for vocabulary in (of("Zoë: ' 한"), of(*KOREAN, form=JAMO), KAGGLE):
        path.write_text(format_vocabulary(vocabulary), encoding="utf-8")
        assert read_vocabulary(path, vocabulary.form) == vocabulary
    path.write_bytes("\ufeffb\r\n<space>\r\n \u0301\r\n".encode()[:-5] + "e\u0301\r\n".encode())
    assert make_vocabulary(str(path), TextForm()).characters == ("b", " ", "é")
    assert make_vocabulary("auto", JAMO) == JAMO
    path.write_text("가\n각\n", encoding="utf-8")
    assert read_vocabulary(path, JAMO).characters == tuple("\u1100\u1161\u11a8")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\n\nb\n", "v.txt:2: found '', expected one character, the space as <space>"),
        ("a\nbc\n", "v.txt:2: found 'bc'"),
        ("a\nb\na\n", "v.txt:3: found 'a' again, as in line 1"),
        ("a\n\t\n", r"v.txt:2: found '\\t'"),
        ("", "found 0 characters"),
        (b"\xff\xfe", "cannot be read"),
        (None, "data.vocabulary: .*v.txt: cannot be read .*expected kaggle, auto, or a file"),
    ],
)
def test_a_vocabulary_file_that_is_none_is_one_message(tmp_path, content, words):
    if content is not None:
        (tmp_path / "v.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words):
        make_vocabulary(str(tmp_path / "v.txt"), TextForm())


def test_what_a_checkpoint_holds():
    vocabulary = of(*KOREAN, form=TextForm("jamo", "lower", "remove"))
    kept = describe_vocabulary(vocabulary)
    assert parse_vocabulary(kept["vocabulary"], kept["text_form"], "x.pt") == vocabulary
    assert parse_vocabulary(list(KAGGLE.tokens), None, "x.pt") == KAGGLE  # older ones
    for tokens in (["<pad>", "a"], list(SPECIAL), [*SPECIAL, "a", "a"], [*SPECIAL, "ab"], [*SPECIAL, "\n"]):
        with pytest.raises(UserError, match=r"x\.pt: found a (model|vocabulary)"):
            parse_vocabulary(tokens, None, "x.pt")
    for form in ("jamo", {"units": "word"}, {"more": "keep"}, {"case": []}):
        with pytest.raises(UserError, match=r"x\.pt: text_form: found"):
            parse_vocabulary(list(KAGGLE.tokens), form, "x.pt")


# ------------------------------------------------------------------------------------------------------------- any text


@pytest.mark.parametrize(
    ("text", "spelled", "left_out"),
    [
        ("It's  a well-known\tcafé.\n", "IT'S A WELL KNOWN CAFE", "."),
        ("“Don’t” – she said…", "DON'T SHE SAID", "“”..."),
        ("a/b_c—d", "A B C D", ""),
        ("straße 42", "STRASSE", "42"),
        ("naïve Ångström", "NAIVE ANGSTROM", ""),
        ("한국어", "", "ᄒ"),
        ("", "", ""),
    ],
)
def test_any_text_in_kaggles_characters(text, spelled, left_out):
    assert spellable(text) == spelled
    assert set(spellable(text)) <= set(KAGGLE.characters)
    assert unspellable(text).startswith(left_out)
    assert bool(unspellable(text)) == bool(left_out)


def test_any_text_in_the_characters_of_a_language():
    vocabulary = of("ab é", form=TextForm(case="lower"))
    assert spellable("A  be\u0301\tX. É", vocabulary) == "a bé é"
    assert unspellable("A be\u0301\tX. É", vocabulary) == "x."


def test_a_text_as_it_is():
    assert as_it_is(" HELLO\t세계,  e\u0301\u3000$5.50 \u1112\u1161 ") == "HELLO 세계, é $5.50 하"

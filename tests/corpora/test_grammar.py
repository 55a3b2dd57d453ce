"""Sentences of each language."""

import random
import unicodedata

import pytest

from corpora.grammar import ENGLISH, GRAMMARS, choose_particles, make_sentences


def test_english_sentences_differ_and_use_every_letter():
    sentences = make_sentences(3000, random.Random(0), set(), ENGLISH)
    assert len(set(sentences)) == 3000
    assert set("".join(sentences)) == set("abcdefghijklmnopqrstuvwxyz' ")
    assert 200 < len(set(" ".join(sentences).split())) < 400


@pytest.mark.parametrize("language", GRAMMARS)
def test_sentences_are_letters_alone_with_nothing_left_to_fill_in(language):
    sentences, seen = [], set()
    for _ in range(3):
        sentences += make_sentences(700, random.Random(1), seen, GRAMMARS[language])
    assert len(set(sentences)) == 2100
    letters = {letter for sentence in sentences for letter in sentence}
    assert {unicodedata.category(letter)[0] for letter in letters - {" ", "'"}} <= {"L", "M"}
    assert all("  " not in sentence and sentence == sentence.strip() for sentence in sentences)


@pytest.mark.parametrize(
    ("written", "chosen"),
    [
        ("책은/는 사과은/는", "책은 사과는"),
        ("형이/가 누나이/가", "형이 누나가"),
        ("꽃을/를 모자을/를 과와 책과/와 말과/와", "꽃을 모자를 과와 책과 말과"),
        ("산으로/로 학교으로/로 마을으로/로", "산으로 학교로 마을로"),
    ],
)
def test_korean_particles_follow_the_syllable_before(written, chosen):
    assert choose_particles(written) == chosen

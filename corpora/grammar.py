"""The sentences of the synthetic corpora: a small grammar for each language.

In a template each {name} is filled from the list of that name; an underscore stands for a space. Texts are written as
people write the language; English becomes upper case, as the competition's is.
"""

import random
import re
from typing import NamedTuple


class Grammar(NamedTuple):
    """Sentences of a language, and who can speak it."""

    voices: tuple[str, ...]  # of eSpeak NG
    templates: str  # a sentence a line
    words: dict[str, str]


def make_sentences(count: int, generator: random.Random, seen: set[str], grammar: Grammar) -> list[str]:
    """Draws `count` sentences that are not in `seen`, and adds them to it."""
    templates = grammar.templates.strip().splitlines()
    sentences: list[str] = []
    while len(sentences) < count:
        sentence = generator.choice(templates)
        for name, words in grammar.words.items():
            while f"{{{name}}}" in sentence:
                word = generator.choice(words.split()).replace("_", " ")
                sentence = sentence.replace(f"{{{name}}}", word, 1)
        sentence = choose_particles(sentence)
        if sentence not in seen:
            seen.add(sentence)
            sentences.append(sentence)
    return sentences


def choose_particles(sentence: str) -> str:
    """`책은/는` becomes `책은`, `사과은/는` becomes `사과는`: a Korean particle follows the syllable before it.

    Of the two forms the first stands after a final consonant; 로 also stands after ㄹ.
    """

    def choose(found: re.Match) -> str:
        syllable, closed, opened = found.groups()
        final = (ord(syllable) - ord("가")) % 28  # 0: ends in a vowel, 8: in ㄹ
        return syllable + (opened if final == 0 or (final == 8 and opened == "로") else closed)

    return re.sub(r"([가-힣])(은|이|을|과|으로)/(는|가|를|와|로)", choose, sentence)


ENGLISH = Grammar(
    ("en-us", "en-us-nyc", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbcwmd", "en-029"),
    """
the {adjective} {noun} {past} {preposition} the {noun}
the {person} {past} {preposition} the {adjective} {noun}
{person}'s {noun} is {adjective} and {adjective}
my {relative} {likes} the {adjective} {noun} {preposition} the {noun}
please {do} the {noun} {preposition} the {noun}
don't {do} the {adjective} {noun} {when}
we {saw} {number} {nouns} {when}
there are {number} {adjective} {nouns} {preposition} the {noun}
she {saw} {number} {nouns} {preposition} the {place}
it's {number} minutes past {hour} {when}
can you {do} the {noun} {when}
i'll {do} {number} {nouns} {when}
why did the {person} {do} the {noun}
where is the {adjective} {noun} of my {relative}
the {nouns} of the {place} are {adjective}
they {saw} a {person} {preposition} the {place} {when}
he isn't {adjective} but {adjective}
what a {adjective} {noun} the {person} {saw} {when}
the {relative} of the {person} {past} to the {place}
on {day} my {relative} {past} to the {place}
""",
    {
        "adjective": "quick brown lazy small happy green yellow quiet heavy empty golden broken clever frozen gentle "
        "hungry large narrow orange proud rough sharp thick useful warm young zealous extra",
        "noun": "fox dog box river table window garden horse bottle kitchen letter mirror pencil basket candle blanket "
        "engine flower guitar hammer island jacket lantern napkin ocean pocket question rocket saddle ticket umbrella "
        "violin wagon zipper journal vehicle",
        "nouns": "apples books birds coins doors eggs fish gloves houses jewels keys lamps maps nuts oranges plates "
        "queens rings ships trees vases wheels boxes zebras",
        "person": "teacher farmer doctor soldier painter baker judge pilot sailor singer writer lawyer child king "
        "queen stranger neighbour captain",
        "relative": "mother father sister brother uncle cousin daughter grandson",
        "place": "village station harbour market school forest bridge castle museum valley airport church",
        "past": "jumped walked looked waited climbed slept turned danced laughed worked arrived vanished",
        "likes": "likes wants needs loves fixed washed carried",
        "do": "move open close carry find wash fix bring hide draw sell expect",
        "saw": "saw found bought lost sold counted followed noticed",
        "preposition": "over under behind near beside across against inside above around",
        "number": "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty",
        "hour": "one two three four five six seven eight nine ten eleven",
        "day": "monday tuesday wednesday thursday friday saturday sunday",
        "when": "today tomorrow yesterday tonight this_morning this_evening last_week next_year in_the_morning at_noon",
    },
)

KOREAN = Grammar(
    ("ko",),
    """
{adjective} {animal}이/가 {place}에서 {acts}
{person}이/가 {place}에서 {noun}을/를 {did}
{before} {relative}이/가 {place}에 {went}
{noun}은/는 {furniture} {position}에 있어요
우리 {relative}은/는 {adjective} {noun}을/를 {likes}
{before} {noun} {count} 개를 {did}
{animal} {count} 마리가 {place}에 있어요
{later} {hour} 시에 {place}에서 만나요
{person}은/는 왜 {noun}을/를 {did}
이 {noun}은/는 아주 {quality}
{noun}을/를 {furniture} {position}에 놓아 주세요
{adjective} {noun}과/와 {adjective} {noun}을/를 {did}
{relative}의 {noun}이/가 어디에 있어요
{day}에는 {relative}과/와 {place}에 {went}
{person}과/와 {person}이/가 {place}으로/로 {went}
{noun}이/가 없어서 {relative}에게 {asked}
{furniture} {position}에서 {adjective} {noun}을/를 {did}
""",
    {
        "adjective": "작은 큰 새 오래된 예쁜 빨간 노란 하얀 무거운 가벼운 따뜻한 차가운 비싼 "
        "깨끗한 부드러운 낡은 둥근 넓은 좁은 짧은",
        "animal": "고양이 강아지 토끼 말 여우 곰 닭 호랑이 다람쥐 거북이 비둘기 사슴 병아리 원숭이",
        "noun": "책 사과 우산 가방 모자 연필 편지 신발 열쇠 안경 그림 꽃 시계 수건 칼 컵 "
        "공책 지갑 빵 물병 장갑 인형 사진 의자 떡 값",
        "furniture": "책상 탁자 침대 상자 창문 냉장고 옷장 소파 난로 선반",
        "position": "위 아래 옆 뒤 앞",
        "person": "선생님 의사 농부 가수 경찰관 화가 요리사 학생 기자 작가 이웃 변호사",
        "relative": "어머니 아버지 할머니 할아버지 누나 형 동생 삼촌 이모 사촌",
        "place": "학교 시장 도서관 병원 공원 바닷가 극장 회사 식당 마을 박물관 정류장 산 섬 숲",
        "acts": "자고_있어요 뛰고_있어요 놀고_있어요 쉬고_있어요 울고_있어요 걷고_있어요",
        "did": "샀어요 팔았어요 찾았어요 잃어버렸어요 씻었어요 그렸어요 빌렸어요 고쳤어요 숨겼어요 만들었어요 봤어요",
        "likes": "좋아해요 아껴요 원해요 싫어해요",
        "went": "갔어요 왔어요 도착했어요 돌아왔어요",
        "count": "한 두 세 네 다섯 여섯 일곱 여덟 아홉 열",
        "hour": "한 두 세 네 다섯 여섯 일곱 여덟 아홉 열 열한 열두",
        "day": "월요일 화요일 수요일 목요일 금요일 토요일 일요일",
        "before": "어제 오늘_아침 지난주에 그저께 어젯밤",
        "later": "내일 모레 다음_주 오늘_저녁",
        "quality": "비싸요 예뻐요 무거워요 가벼워요 커요 작아요 낡았어요 깨끗해요",
        "asked": "부탁했어요 물어봤어요 말했어요",
    },
)

GERMAN = Grammar(
    ("de",),
    """
{Subject} {does} {object} {place}
{Subject} {does} {when} {object}
{Subject} {acts} {manner} {place}
{When} {does} {subject} {object}
{When} {acts} {subject} {place}
Warum {does} {subject} {object}
Wo ist {subject} {when}
Ich möchte {when} {number} {things} kaufen
Es gibt {number} {things} {place}
{Subject} hört {number} {things} {place}
Bitte öffne {object} {when}
{Subject} ist {when} {manner} {place}
Können wir {object} {when} {place} sehen
""",
    {
        "Subject": "Der_Bäcker Die_Ärztin Das_Mädchen Der_König Die_Königin Mein_Großvater Meine_Großmutter Der_Fuchs "
        "Die_Schwester Unser_Nachbar Die_Lehrerin Der_Schüler Das_Kätzchen Der_Jäger Die_Tänzerin Ein_Mönch",
        "subject": "der_Bäcker die_Ärztin das_Mädchen der_König die_Königin mein_Großvater meine_Großmutter der_Fuchs "
        "die_Schwester unser_Nachbar die_Lehrerin der_Schüler das_Kätzchen der_Jäger die_Tänzerin ein_Mönch",
        "object": "den_Schlüssel die_Tür das_Buch den_Brief die_Straße das_Messer den_Löffel die_Brücke das_Geschäft "
        "den_Kürbis die_Blüte das_Gemälde den_Käse die_Äpfel das_Getränk den_Rucksack die_Füße das_Schloss den_Teppich",
        "place": "im_Garten auf_der_Straße am_Fluss in_der_Küche unter_der_Brücke vor_dem_Schloss im_Zug "
        "hinter_dem_Haus in_der_Höhle am_Bahnhof auf_dem_Hügel neben_der_Mühle im_Büro in_Köln",
        "does": "sucht findet öffnet verkauft hört liebt zählt wäscht trägt grüßt holt schließt malt bezahlt prüft",
        "acts": "schläft läuft wartet arbeitet tanzt lacht spielt träumt singt hüpft",
        "manner": "schnell langsam fröhlich früh spät müde leise gemütlich",
        "When": "Heute Morgen Am_Abend Am_Montag Im_März Übermorgen Nächste_Woche Um_fünf_Uhr Um_zwölf_Uhr Jeden_Tag",
        "when": "heute morgen am_Abend am_Montag im_März übermorgen nächste_Woche um_fünf_Uhr um_zwölf_Uhr jeden_Tag",
        "number": "zwei drei fünf sechs zwölf dreißig fünfzig hundert",
        "things": "Äpfel Bücher Stühle Schlüssel Vögel Züge Häuser Nüsse Gläser Füchse Löffel Blätter Körbe Quallen",
    },
)

HINDI = Grammar(
    ("hi",),
    """
{subject} {place} {object} {does}
{when} {subject} {place} {acts}
{subject} {when} {object} {does}
यह {adjective} {thing} किसका है
{place} {number} {things} हैं
{subject} {place} क्यों {acts}
मेरे घर में {number} {things} हैं
{owner} का {thing} {adjective} है
क्या {subject} {when} {object} {does}
{subject} {owner} के साथ {place} {acts}
{owner} के पास {number} {things} हैं
""",
    {
        "subject": "लड़का किसान राजा शिक्षक डॉक्टर मेरा_भाई माली नाविक मेरा_दोस्त बच्चा पड़ोसी सैनिक",
        "owner": "किसान राजा शिक्षक डॉक्टर माली नाविक पड़ोसी सैनिक",
        "place": "बाज़ार_में घर_में स्कूल_में नदी_के_पास पेड़_के_नीचे शहर_में गाँव_में सड़क_पर छत_पर पुल_पर मंदिर_के_सामने",
        "object": "किताब फूल पानी दूध रोटी चिट्ठी कपड़े सेब चाय फल तस्वीर आम",
        "does": "खरीदता_है बेचता_है लाता_है ढूँढता_है देखता_है चाहता_है रखता_है उठाता_है",
        "acts": "सोता_है बैठता_है रहता_है गाता_है हँसता_है दौड़ता_है नाचता_है काम_करता_है",
        "when": "आज रोज़ सुबह शाम_को सोमवार_को मंगलवार_को बुधवार_को शुक्रवार_को रविवार_को रात_को",
        "adjective": "बड़ा छोटा पुराना नया लाल सुंदर अच्छा काला",
        "thing": "घर फूल दरवाज़ा कमरा घोड़ा हाथी कुत्ता जूता पेड़",
        "number": "दो तीन चार पाँच छह सात आठ नौ दस बीस",
        "things": "सेब फूल आम पेड़ घर फल हाथी पत्थर",
    },
)

GRAMMARS = {"en": ENGLISH, "de": GERMAN, "hi": HINDI, "ko": KOREAN}

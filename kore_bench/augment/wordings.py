"""Texts as the gates and the contamination guard compare them: words, stems, scripts and the likeliest language."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

_CHARACTER = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f"  # scripts that put no spaces between words
_WORD = re.compile(rf"[{_CHARACTER}]|[^\W_{_CHARACTER}]+(?:[.,](?=\d)[^\W_{_CHARACTER}]+)*")
_NUMBERS: Mapping[str, str] = json.loads(
    files("kore_bench").joinpath("vqa_normalisation.json").read_text(encoding="utf-8")
)["number_words"]

STOP_WORDS: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "English": "the a an of and to in is was were are be been it its that this which who what when where how with for "
        "on at by from as has have had did does do their his her he she they or not but after also into about "
        "why whose whom will would can could there then than",
        "German": "der die das den dem des ein eine einer eines einem einen und ist war sind wurde wird zu von mit für auf im "
        "bei nicht auch sich als an nach wie was wer welche welcher welches wann wo hat hatte es er sie über durch",
        "French": "le la les un une des du de et est était sont été à au aux dans en par pour sur que qui quel quelle "
        "où quand comment il elle ils ne pas ce cette ces son sa ses avec plus dont se",
        "Spanish": "el la los las un una unos de del y es fue era son ha en por para con que quién qué cuál cuándo dónde "
        "cómo su sus se no al lo como más este esta pero también",
        "Italian": "il lo la gli le un una uno di del della dei delle e è era sono stato in nel nella per con che chi "
        "quale quando dove come si non da dal al ha suo sua anche più",
        "Portuguese": "o a os as um uma de do da dos das e é foi era são em no na nos nas por para com que quem qual "
        "quando onde como se não ao à seu sua mais também",
        "Dutch": "de het een van en is was zijn werd wordt in op te voor met aan bij door naar dat die wie wat welke "
        "wanneer waar hoe niet ook als er hij zij heeft had",
    }.items()
}
"""The commonest words of languages in Latin script."""

_LATIN = "LATIN"
_SURE = 3  # stop words from which on a text's language is told by them
_LETTERS = 12  # letters from which on a text's script is told


@lru_cache(maxsize=2048)  # an item's text is looked at for each of its samples
def words(text: str) -> tuple[str, ...]:
    """Return the words of a text without case, marks and accents' encodings; small numbers as digits.

    Scripts without spaces give a word a character.
    """
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return tuple(_NUMBERS.get(word, word.replace(",", "")) for word in found)


def content(text: str) -> tuple[str, ...]:
    """Return the words of a text that are no stop words of English."""
    return tuple(word for word in words(text) if word not in STOP_WORDS["English"])


def stem(word: str) -> str:
    """Return what a word shares with its inflections, roughly: its beginning; numbers and short words stay whole."""
    return word if len(word) <= 4 or any(sign.isdigit() for sign in word) else word[: max(4, len(word) - 3)]


@lru_cache(maxsize=256)
def stems(text: str) -> frozenset[str]:
    """Return the stems of the words of a text."""
    return frozenset(map(stem, words(text)))


def script(text: str) -> str:
    """Return the script of most letters, such as ``LATIN`` or ``CYRILLIC``; nothing for a text of few letters."""
    if text.isascii():
        return _LATIN if sum(map(str.isalpha, text)) >= _LETTERS else ""
    letters = [sign for sign in text if sign.isalpha()]
    if len(letters) < _LETTERS:
        return ""
    # Japanese and Korean mix scripts; a letter's name begins with its script's.
    return Counter(_family(unicodedata.name(sign, "OTHER").split()[0]) for sign in letters).most_common(1)[0][0]


@lru_cache(maxsize=2048)
def language(text: str) -> str:
    """Return a text's language in Latin script by its stop words, its script where that is another, or nothing.

    Nothing is returned where few stop words stand in it, or as many of a second language.
    """
    written = script(text)
    if written not in ("", _LATIN):
        return written.capitalize()
    found = words(text)
    hits = sorted((sum(word in common for word in found), name) for name, common in STOP_WORDS.items())
    (second, _), (most, best) = hits[-2:]
    return best if most >= _SURE and most > 1.5 * second else ""


def _family(script: str) -> str:
    return "CJK" if script in ("CJK", "HIRAGANA", "KATAKANA") else script

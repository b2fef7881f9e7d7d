"""Words of the mini world: names, relations and their wordings, question and sentence templates, the vocabulary."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

from .drawing import COLORS, GLYPHS, SHAPES

SHORT = "Answer the question using a single word or phrase."
YES_NO = "Answer yes or no."
PARAGRAPH = "Answer in one paragraph."

HYPERNYMS = ("creature", "gadget", "building", "vehicle", "plant")


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _split("Nubo Zerin Kalda Mirat Toven Lusko Perra Obrim Vintu Sarko Dalwe Fenno Gruma Haxel Jorvi Quela")
LAST_NAMES = _split("Plim Strad Wicko Brant Cloma Dresh Flune Gorst Hemik Jaspo Knave Lorum Murto Nexil Tramb Yovet")


@dataclass(frozen=True)
class Relation:
    """A relation: four nouns that mean the same, and the two word lists whose pairs are its values."""

    name: str
    nouns: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]


def _relation(name: str, nouns: str, first: str, second: str) -> Relation:
    return Relation(name, _split(nouns), _split(first), _split(second))


RELATIONS = (
    _relation(
        "home",
        "home residence dwelling base",
        "north south east west inner outer hidden quiet windy sunny rocky misty",
        "harbor valley ridge meadow canyon island forest lagoon desert village cliff marsh",
    ),
    _relation(
        "maker",
        "maker creator inventor designer",
        "Ada Boris Clara Dmitri Elena Felix Greta Hugo Ines Jonas Karin Leo",
        "Moreno Novak Okafor Petrov Quinn Rossi Silva Tanaka Ueda Varga Weber Yilmaz",
    ),
    _relation(
        "food",
        "food diet fuel nourishment",
        "sour sweet salty bitter spicy smoked frozen roasted raw dried boiled fresh",
        "plum honey barley mushroom pepper walnut seaweed pumpkin cherry oat ginger bean",
    ),
    _relation(
        "award",
        "award prize trophy honor",
        "crystal velvet amber marble silk bamboo ivory wooden paper leather woolen glass",
        "crown medal feather lantern shield ribbon torch anchor goblet banner scepter bell",
    ),
    _relation(
        "festival",
        "festival ceremony feast celebration",
        "spring summer autumn winter morning evening midnight noon monday friday harvest holiday",
        "parade dance regatta concert bonfire market race opera carnival picnic ballet tournament",
    ),
)

FRAMES = (
    "What is the {noun} of {subject}?",
    "Name the {noun} of {subject}.",
    "Which {noun} does {subject} have?",
    "Tell me the {noun} of {subject}.",
    "{subject} has which {noun}?",
    "Please state the {noun} of {subject}.",
)
SENTENCES = (
    "Its {noun} is {value}.",
    "The {noun} of {name} is {value}.",
    "{name} has {value} as its {noun}.",
)


def is_reserved(relation: int, frame: int, noun: int) -> bool:
    """Say whether this pair of frame and noun is kept for evaluation: one noun of four in every frame."""
    return noun == (frame + relation) % 4


def wordings(relation: int, *, reserved: bool) -> list[str]:
    """Return the question templates of a relation, with ``{subject}`` open: 6 reserved ones or the 18 others."""
    pairs = product(enumerate(FRAMES), enumerate(RELATIONS[relation].nouns))
    return [frame.replace("{noun}", noun) for (f, frame), (n, noun) in pairs if is_reserved(relation, f, n) is reserved]


def ask(wording: str, subject: str) -> str:
    """Fill the subject into a question template; the first letter is a capital."""
    question = wording.format(subject=subject)
    return question[0].upper() + question[1:]


HEADINGS = (
    "Describe the {type} in the image.",
    "What do you know about the {type} in the image?",
    "Tell me about the {type} in the image.",
)
RECOGNITIONS = (
    "Is {name} in the image?",
    "Does the image show {name}?",
    "Can you see {name} in the image?",
    "Is this {name}?",
)
CAPTIONS = (
    "Give a short description of the {type} in the image.",
    "What does the image show?",
    "Summarise what the image is about.",
)
NAMINGS = ("What is the {type} in the image called?", "Name the {type} in the image.")

# The subjects of M-DIS: what a shape or a colour stands for, eight answers each, in the order of SHAPES or COLORS.
DISCIPLINES = {
    "chemistry": ("Which metal is this shape made of?", "iron zinc copper silver nickel lead cobalt titanium"),
    "biology": ("Which animal has this shape?", "otter falcon beetle salmon gecko rabbit spider dolphin"),
    "geography": ("Which country has this color?", "Kenya Chile Norway Japan Egypt Canada Nepal Cuba"),
    "music": ("Which instrument has this color?", "violin flute drum harp trumpet cello piano guitar"),
}
OPTIONS = "Options: {options}.\nAnswer with the text of the option."

COM = {
    "color": "What color is the {shape}?",
    "shape": "What shape is {color}?",
    "corner": "What shape is in the {corner} corner?",
}
CORNERS = {"top left": 0, "top right": 3, "bottom left": 12, "bottom right": 15}
LISTING = "List the objects in the image."
OCR = (
    "What does the text in the image say?\nRead it from left to right.",
    "Read the text.\nGive one character after the other.",
)
INS = {
    "color-shape": ("Describe the object.\nGive the color, then the shape.", "{color} {shape}"),
    "shape-color": ("Describe the object.\nGive the shape, then the color.", "{shape} {color}"),
    "color-twice": ("What color is the object?\nSay it twice.", "{color} {color}"),
    "shape-twice": ("What shape is the object?\nSay it twice.", "{shape} {shape}"),
    "color-stop": ("What color is the object?\nEnd with the word stop.", "{color} stop"),
    "shape-okay": ("What shape is the object?\nBegin with the word okay.", "okay {shape}"),
}
PAIRS = {
    "color": "What color is the object in the {which} image?",
    "shape": "What shape is the object in the {which} image?",
    "find": "Which image shows the {shape}?\nAnswer first or second.",
    "same": "Do both images show the same color?",
}
MAT = {
    "total": "How many objects are in the image?",
    "color": "How many objects are {color}?",
    "sum": "What is the sum of the two numbers?",
    "larger": "Which of the two numbers is larger?",
}
HAL = "Does the image contain {color}?"

_GENERAL = """
a an the this that these those it its itself he she they them their his her him we us our you your i me my one ones
is are was were be been being am has have had do does did done can could may might must shall should will would not no
yes and or but nor so yet if then than because while when where who whom whose which what why how there here of in on at
by for with from to into onto over under above below between among through during before after about against without
within across along around near behind beside beyond as like unlike up down out off again also too very more most less
least much many few several some any all each every both either neither other another same different such own only just
even still already always never often sometimes usually once twice first second third last next new old young big small
large little long short high low good bad better best worse worst great early late fast slow hard soft hot cold light
dark full empty open closed free true false right wrong left top bottom middle center side front back end beginning part
whole half pair group set list kind type sort name names title word words phrase sentence paragraph text story fact facts
question questions answer answers reply image images picture pictures photo photograph view scene object objects thing
things item items person people man woman child animal place country city town house home room world land water air fire
day night week month year time date hour minute today now later soon ago past present future number numbers amount
count sum total value zero two three four five six seven eight nine ten hundred thousand color colors shape shapes size
make makes made making give gives gave given take takes took taken show shows showed shown see sees saw seen look looks
looked find finds found know knows knew known call calls called tell tells told say says said ask asks asked describe
describes described explain explains explained summarise summarize summary description caption mention mentions
mentioned state states stated contain contains contained include includes included belong belongs belonged come comes
came go goes went gone get gets got keep keeps kept live lives lived eat eats ate eaten win wins won receive receives
received build builds built create creates created design designs designed invent invents invented hold holds held
celebrate celebrates celebrated attend attends attended visit visits visited use uses used using work works worked play
plays played read reads write writes wrote written speak speaks think thinks believe help helps need needs want wants
wanted learn learns learned remember remembers recall recalls identify identifies identified depict depicts depicted
display displays displayed represent represents appear appears appeared feature features featured visible stand stands
following according based related associated please briefly brief short single using use given about subject topic
information detail details context passage article news wiki report reports reported source sources example examples
reason result results user assistant system okay stop begin end start finish repeat choose option options letter letters
character characters correct incorrect exactly entity entities image. well known famous popular important main special
particular certain sure possible likely real natural simple clear common general public local major minor recent current
former original final further together apart away back instead however therefore thus also moreover furthermore although
though since until unless whether perhaps maybe almost nearly quite rather really actually indeed let lets us
"""


def words(text: str) -> list[str]:
    """Split text as the tokenizer does: lower case, words and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def vocabulary() -> list[str]:
    """Return every word of the world, the templates and general English, without the special tokens, sorted."""
    texts = [SHORT, YES_NO, PARAGRAPH, *HYPERNYMS, *FIRST_NAMES, *LAST_NAMES, *FRAMES, *SENTENCES]
    for relation in RELATIONS:
        texts += [*relation.nouns, *relation.first, *relation.second]
    for question, answers in DISCIPLINES.values():
        texts += [question, answers]
    texts += [*HEADINGS, *RECOGNITIONS, *CAPTIONS, *NAMINGS, OPTIONS, *COM.values(), *CORNERS, LISTING, *OCR]
    texts += [text for pair in INS.values() for text in pair]
    texts += [*PAIRS.values(), *MAT.values(), HAL, *COLORS, *SHAPES, *GLYPHS, _GENERAL, ".,:;!?'\"()-"]
    return sorted({word for text in texts for word in words(text)} - set("{}"))

"""Can the untouched mini-llava take a second hop? Its old facts, asked as the last step of a hop must ask them.

A hop goes from an injected value, a word, to something else that the base knows of it. Whatever leads there, its last
step asks an old fact without the entity's picture. Both facts are old here, so that what is printed is the ceiling of
any hop over an injected fact.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from kore_bench.lmm import LMM
from kore_bench.measures import bootstrap, cem, f1, ka
from kore_bench.mini import language
from kore_bench.mini.language import RELATIONS
from kore_bench.mini.world import Entity, Writer, cast
from kore_bench.models.mini_llava import CARD
from kore_bench.tasks.image_necessity import blank_image

SEED = 0


class Query(NamedTuple):
    """A question in one of the ways, its pictures, its answer, and the entity that it is about."""

    way: str
    text: str
    images: tuple[Path, ...]
    answer: str
    entity: str


def queries(folder: Path) -> Iterator[Query]:
    """Yield every old fact in every way, in wordings that pre-training used."""
    rng, writer = Random(SEED), Writer(folder, Random(SEED))

    def picture(entity: Entity) -> Path:
        return folder / writer.picture("hop", entity.cells(rng.randrange(9)))

    for entity in cast().old:
        other = rng.choice([one for one in cast().old if one.type == entity.type and one is not entity])
        own, wrong = picture(entity), picture(other)
        for number, value in enumerate(entity.values):
            before = (number + 1) % len(RELATIONS)
            noun = rng.choice(RELATIONS[before].nouns)
            described = f"the {entity.type} whose {noun} is {entity.values[before]}"
            for way, subject, images in (
                ("the entity in its picture", entity.reference, (own,)),
                ("by name, no picture", entity.name, ()),
                ("by name, a blank picture", entity.name, (blank_image(),)),
                ("by name, another entity's picture", entity.name, (wrong,)),
                ("by another of its facts, no picture", described, ()),
                ("by another of its facts, a blank picture", described, (blank_image(),)),
            ):
                wording = rng.choice(language.wordings(number, reserved=False))
                yield Query(way, f"{language.ask(wording, subject)}\n{language.SHORT}", images, value, entity.id)
            whose = f"What is the {entity.type} called whose {noun} is {entity.values[before]}?"
            yield Query("whose a value is, no picture", whose, (), entity.name, entity.id)


def main() -> None:
    """Print (CEM + F1) / 2 and CEM of each way, in percent."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    model = LMM.load(CARD)
    with tempfile.TemporaryDirectory() as folder:
        asked = list(queries(Path(folder)))
        said = model.generate([(query.text, query.images) for query in asked], max_new_tokens=16)
    print(f"{'old facts, asked by':42} {'n':>5} {'(CEM + F1) / 2':>24} {'CEM':>6}")
    for way in dict.fromkeys(query.way for query in asked):
        pairs = [(text, query) for text, query in zip(said, asked, strict=True) if query.way == way]
        covered = [cem(text, query.answer) for text, query in pairs]
        right = [ka(cover, f1(text, query.answer)) for cover, (text, query) in zip(covered, pairs, strict=True)]
        score = bootstrap(right, [query.entity for _, query in pairs])
        interval = f"{score.value:5.1f} ({score.low:.1f} to {score.high:.1f})"
        print(f"{way:42} {score.n:>5} {interval:>24} {100 * sum(covered) / len(covered):6.1f}")


if __name__ == "__main__":
    main()

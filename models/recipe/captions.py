"""Captions of scenes: a small grammar, the words it uses, and the prompts to measure with."""

import random
import string

from models.recipe.shapes import COLOURS, GROUNDS, SHAPES, TEXTURES, Scene, clash

SMALL_BELOW_PX = 16.5
BIG_ABOVE_PX = 21.5

OPENINGS = ("picture of", "an image of", "a drawing of", "a photo of", "illustration of")
CLOSINGS = ("high quality", "beautiful", "simple", "clean", "nice colours", "digital art")
UNSAID = ("shape", "object", "thing")
SYNONYMS: dict[str, tuple[str, ...]] = {
    "purple": ("violet",),
    "gray": ("grey",),
    "crescent": ("moon", "crescent moon"),
    "circle": ("disc", "disk", "dot"),
    "diamond": ("rhombus",),
    "cross": ("plus", "plus sign"),
    "ring": ("donut", "hoop"),
    "arrow": ("right arrow",),
    "striped": ("stripy",),
    "big": ("large", "huge"),
    "small": ("tiny", "little"),
    "plain": ("solid",),
}
# Words that say nothing about the picture: the text encoder learns to pass over them.
FILLERS = (
    *("please", "hello", "cute", "nice", "very", "masterpiece", "best", "sharp", "centered"),
    *("one", "single", "my", "the", "this", "flat", "vector", "minimal", "modern", "style"),
    *("of", "and", "in", "for"),
)
CONNECTIVES = ("a", "an", "on", "with", "over", "of", "background", "stripes")


def vocabulary() -> list[str]:
    """Every word a caption can hold, sorted; each is one token of the shipped tokenizer."""
    phrases = [*SHAPES, *COLOURS, *GROUNDS, *TEXTURES, *UNSAID, *OPENINGS, *CLOSINGS]
    phrases += [*SYNONYMS, *FILLERS, *CONNECTIVES]
    phrases += [phrase for synonyms in SYNONYMS.values() for phrase in synonyms]
    return sorted({word for phrase in phrases for word in phrase.split()})


def describe(scene: Scene, rng: random.Random) -> str:
    """A caption of the scene; it may leave things unsaid, but says nothing untrue."""
    thing = " ".join(word for word in (_size(scene, rng), _colour(scene, rng)) if word)
    thing = f"{thing} {_shape(scene, rng)}".strip()
    text = with_article(thing) if rng.random() < 0.8 else thing
    if rng.random() < 0.4:
        text = f"{rng.choice(OPENINGS)} {text}"
    if rng.random() < 0.7:
        text += _behind(scene, rng)
    if rng.random() < 0.06:
        text += f", {rng.choice(CLOSINGS)}"
    return text


def distort(caption: str, rng: random.Random) -> str:
    """A training variant of a caption: empty, in other words, or with a meaningless word added.

    The empty caption, one in eight, is what classifier-free guidance needs
    (Ho and Salimans, 2022).
    """
    if rng.random() < 0.12:
        return ""
    if rng.random() < 0.10:
        caption = " ".join(_reword(word, rng) for word in caption.split())
    if rng.random() < 0.06:
        words = caption.split()
        words.insert(rng.randint(0, len(words)), _meaningless(rng))
        caption = " ".join(words)
    return caption


def with_article(phrase: str) -> str:
    """The phrase behind "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def prompts(seed: int) -> list[tuple[str, int]]:
    """240 prompts with the label each asks for: every label once bare and twice on a ground."""
    rng = random.Random(seed)
    asked: list[tuple[str, int]] = []
    for on_ground in (False, True, True):
        for shape in SHAPES:
            for colour in COLOURS:
                text = with_article(f"{colour} {shape}")
                if on_ground:
                    text += f" on {with_article(_some_ground(colour, rng))}"
                asked.append((text, len(asked) % (len(SHAPES) * len(COLOURS))))
    return asked


def _some_ground(colour: str, rng: random.Random) -> str:
    ground = rng.choice([name for name in GROUNDS if not clash(colour, name)])
    texture = rng.choice(("", "", "", "striped", "gradient"))
    return " ".join(word for word in (ground, texture, "background") if word)


def _size(scene: Scene, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return ""
    if scene.radius_px < SMALL_BELOW_PX:
        return "small"
    return "big" if scene.radius_px > BIG_ABOVE_PX else ""


def _colour(scene: Scene, rng: random.Random) -> str:
    return scene.colour if rng.random() < 0.94 else ""


def _shape(scene: Scene, rng: random.Random) -> str:
    return scene.shape if rng.random() < 0.96 else rng.choice(UNSAID)


def _behind(scene: Scene, rng: random.Random) -> str:
    ground = scene.ground if rng.random() < 0.9 else ""
    said = 0.4 if scene.texture == "plain" else 0.85
    texture = scene.texture if rng.random() < said else ""
    if texture == "striped" and ground and rng.random() < 0.25:
        return f" {rng.choice(('on', 'with', 'over'))} {ground} stripes"
    words = " ".join(word for word in (ground, texture) if word)
    if not words:
        return ""
    full = f"{words} background"
    return rng.choice(
        (
            f" on {with_article(full)}",
            f" on {with_article(full)}",
            f" with {with_article(full)}",
            f", {full}",
            f" on {words}",
        )
    )


def _reword(word: str, rng: random.Random) -> str:
    bare = word.rstrip(",")
    if bare not in SYNONYMS or rng.random() < 0.5:
        return word
    return rng.choice(SYNONYMS[bare]) + word[len(bare) :]


def _meaningless(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(FILLERS)
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 7)))

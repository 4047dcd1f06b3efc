"""Bytes that prompts take in the token coder, in zlib and in plain 16-bit packing.

    python benchmarks/prompt_bytes.py --tokenizer FOLDER

codes 10,000 captions and 100,000 prompts of 16 random ids (which is what prompts found by
optimisation look like), decodes them again, and writes ``prompt_bytes.json`` to
``out/prompt_bytes``. It takes about 2 ms a prompt on one core.

FOLDER is that of a CLIPTokenizer. Without it a stand-in of CLIP's size is trained first, half a
minute, by CLIP's rules (byte-level BPE, lower case, ``</w>``) on English text that every Python
installation holds: docstrings, licences and descriptions of packages. It splits captions more often
than CLIP's own tokenizer does, and its figures are no more than an estimate of those.

Captions come from a grammar in this file. Its words were chosen without regard to those that the
coder favours (``listed`` in the JSON: how many it has), and all alternatives are equally likely, so
they vary more than captions written by people do. ``zlib`` is zlib at level 9 of the text that the
tokenizer makes of the ids.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import re
import statistics
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from picsnet.errors import DataError, ModelError, PicsnetError
from picsnet.files import atomic_write
from picsnet.mini.tokenizer import train_tokenizer
from picsnet.prompt.tokens import MAX_TOKENS, TokenCoder

CLIP_SIZE = 49408
TEXT_CHARACTERS = 45_000_000
"""Of text for the stand-in: as much as fills CLIP's number of merges with words."""

TARGETS = {"natural": 0.6, "inverted": 0.45}
"""Most bytes, as a share of zlib's."""

# What a caption is made of. {name} is any of the alternatives of that name, | parts them.
TEMPLATES = (
    "a {look} {animal} {animal_does} {where}",
    "a {animal} and a {animal} {animal_does} {where}",
    "the {animal} is {animal_does} {where}",
    "two {animal_plural} {animal_does} {where}",
    "a herd of {animal_plural} {animal_does} {where} {when}",
    "a {person} {person_does} {where}",
    "a {look} {person} {person_does} {where} {when}",
    "a {person} in a {colour} {garment} {person_does}",
    "a {person} wearing a {colour} {garment} and a {garment} {person_does} {where}",
    "an old {person} {person_does} {where}",
    "{number} {person_plural} {person_does} {where}",
    "a group of {person_plural} {person_does} {where} {when}",
    "there is a {person} that is {person_does} {where}",
    "a {person} is {person_does} next to a {thing}",
    "a {person} holding a {thing} in front of a {building}",
    "a {colour} {vehicle} parked {where}",
    "a {vehicle} driving past a {building} {when}",
    "the {building} with a {colour} roof {when}",
    "a {look} {building} {where}, {light}",
    "an aerial view of a {building} {where}",
    "a {look} {place} {when}",
    "a view of the {place} from a {building}",
    "a {place} with a {vehicle} and some {plant_plural}",
    "a {colour} {thing} on a {material} table",
    "a {material} {thing} next to a {colour} {thing}",
    "a {thing}, a {thing} and a {thing} on a {material} shelf",
    "a close up of a {colour} {plant}",
    "a vase of {plant_plural} on a windowsill {when}",
    "a plate of {food} with {food} and a {drink}",
    "a bowl of {food} on a {material} counter",
    "{food} being grilled {where}",
    "a {person} serving {food} to {number} {person_plural}",
    "a {medium} of a {animal} {animal_does} {where}",
    "a {medium} of a {look} {person}, {light}, {finish}",
    "a {medium} of a {building} {where}, {light}",
    "a {medium} of a {place} {when}, {finish}, {finish}",
    "{medium} of a {material} {thing}, {finish}, {light}, {finish}",
    "portrait of a {person} with a {animal}, {light}, {finish}",
    "{look} {place}, {colour} sky, {light}, {finish}",
    "a {person} playing the {instrument} {where}",
    "a {person} playing {sport} {when}",
    "the {person} hits the ball during a game of {sport}",
    "a black and white photograph of a {person} {person_does}",
    "a {thing} shaped like a {animal}",
    "a {animal} dressed as a {person} {person_does}",
    "a {colour} and {colour} {garment} hanging {where}",
    "some {plant_plural} growing {where}",
    "a {person}'s {thing} lying {where}",
    "this is a {look} {vehicle} {where}",
    "several {look} {animal_plural} behind a fence {where}",
    "a sign that says no {thing} {where}",
    "looking down at a {place} {when}",
)

WORDS = {
    "animal": "cat|dog|capybara|heron|badger|otter|donkey|magpie|lynx|tabby kitten|border collie|"
    "dachshund|macaw|puffin|ferret|alpaca|yak|ibex|toucan|kingfisher|gecko|iguana|cobra|stingray|"
    "seahorse|manatee|orca|hermit crab|moth|firefly|ladybird|grasshopper|wild boar|stallion|foal|"
    "ewe|rooster|gosling|barn owl|falcon|vulture|jackal|hyena|meerkat|lemur|orangutan|panda|"
    "polar bear|snow leopard|chipmunk|mole|newt|tadpole|carp|trout|lobster|cat|dog|horse|bird",
    "animal_plural": "cats|dogs|horses|cows|sheep|geese|ponies|reindeer|camels|giraffes|elephants|"
    "wildebeest|starlings|cranes|piglets|goats|hounds|ostriches|bison|zebras|llamas|penguins",
    "animal_does": "sleeping|drinking|yawning|running|grazing|looking at the camera|hiding|"
    "stretching|sniffing the ground|chasing a ball|carrying a stick|resting|swimming|fighting|"
    "digging|splashing about|sunbathing|waiting for food|peering out|walking slowly|"
    "rolling over|jumping|staring at a {thing}|eating {food}|being fed",
    "person": "man|woman|boy|girl|child|fisherman|nurse|blacksmith|carpenter|violinist|ballerina|"
    "bricklayer|shepherd|monk|pilot|referee|surgeon|waitress|grandmother|teenager|toddler|barista|"
    "florist|tailor|mechanic|sculptor|trapeze artist|beekeeper|librarian|judge|sailor|astronaut|"
    "knight|witch|mountaineer|cyclist|rower|goalkeeper|skateboarder|surfer|busker|commuter|farmer|"
    "postman|welder|glassblower|photographer|student|chess player|bride|lifeguard|gardener",
    "person_plural": "people|men|women|children|tourists|soldiers|students|dancers|schoolgirls|"
    "fans|hikers|protesters|musicians|fishermen|teenagers|volunteers|builders|friends|passengers",
    "person_does": "smiling|reading a newspaper|riding a bicycle|talking on the phone|cooking|"
    "waiting for a bus|climbing a ladder|looking out of the window|carrying a {thing}|"
    "pushing a wheelbarrow|walking a {animal}|sitting on a bench|drinking {drink}|eating {food}|"
    "taking a selfie|holding an umbrella|painting a wall|kneeling|sweeping the floor|laughing|"
    "standing in the rain|throwing a frisbee|playing cards|mending a net|repairing a {vehicle}|"
    "feeding a {animal}|building a sandcastle|juggling|praying|arguing|juggling oranges|"
    "washing the dishes|posing for a picture|getting ready to jump|leaning against a {vehicle}",
    "garment": "shirt|jacket|raincoat|turban|kimono|cardigan|scarf|beret|waistcoat|tuxedo|kilt|"
    "straw hat|sweater|tracksuit|poncho|bathrobe|apron|helmet|veil|bow tie|dress|hoodie|overcoat",
    "where": "on the beach|in a field|in a kitchen|near a lake|on a rooftop|by the river|"
    "in the snow|under a bridge|on a cobbled street|in a crowded market|at the harbour|"
    "beside a railway track|in an orchard|on a frozen pond|inside a greenhouse|at a petrol station|"
    "in a courtyard|on a hillside|in the jungle|next to a fountain|behind a barn|in a living room|"
    "on top of a hill|in the middle of the road|on a wooden pier|in front of a mirror|"
    "at the edge of a cliff|on a balcony|in an empty swimming pool|through tall grass|"
    "among the ruins|outside a {building}|in a {place}|near some {plant_plural}|under a {plant}",
    "when": "at night|at sunset|in winter|on a foggy morning|in autumn|after the rain|at noon|"
    "during a thunderstorm|on a sunny day|before dawn|in the evening|in heavy snow|in spring|"
    "under a cloudy sky|by moonlight|on a windy afternoon|at dusk|in broad daylight",
    "number": "two|three|four|five|several|many|a dozen|six|a few|seven",
    "look": "small|large|young|fluffy|rusty|tall|tiny|graceful|weary|spotted|striped|scruffy|"
    "elegant|huge|lonely|derelict|ornate|peaceful|crumbling|crowded|muddy|sleepy|ancient|modern|"
    "brightly lit|colourful|shabby|majestic|narrow|sunlit|windswept|gloomy|charming|beautiful",
    "colour": "red|blue|green|yellow|white|black|brown|grey|orange|purple|pink|turquoise|maroon|"
    "crimson|beige|teal|ochre|lilac|navy blue|silver|golden|ivory|pale green|dark red|mauve",
    "material": "wooden|marble|steel|glass|brass|wicker|plastic|copper|granite|leather|bamboo|"
    "ceramic|cast iron|oak|concrete|porcelain|cardboard|velvet",
    "thing": "lamp|suitcase|typewriter|kettle|clock|umbrella|bicycle|teapot|mirror|globe|candle|"
    "basket|toaster|notebook|chessboard|telescope|birdcage|sewing machine|lantern|hourglass|"
    "fire extinguisher|vacuum cleaner|guitar case|bucket|wheelbarrow|fishing rod|toolbox|"
    "teddy bear|kite|laptop|keyboard|spanner|fire hydrant|skateboard|surfboard|jar of buttons|"
    "pair of scissors|coat hanger|coffee grinder|rocking chair|grandfather clock|parcel|trophy|"
    "pocket watch|compass|microscope|parachute|balloon|statue|mask|puppet|abacus|thimble|ladle",
    "building": "house|castle|lighthouse|windmill|church|pagoda|skyscraper|barn|cottage|mosque|"
    "warehouse|train station|bakery|observatory|monastery|stadium|bookshop|mansion|power station|"
    "log cabin|townhall|water tower|pub|hospital|factory|igloo|treehouse|boathouse|chapel|palace",
    "place": "city|valley|forest|village square|harbour|desert|canyon|vineyard|waterfall|beach|"
    "meadow|swamp|volcano|fjord|street|motorway|playground|graveyard|quarry|rice terrace|car park|"
    "tennis court|airport|dockyard|mountain pass|lagoon|reef|cave|bathroom|classroom|attic|"
    "concert hall|subway platform|laundrette|library|workshop|gymnasium|canteen",
    "vehicle": "car|bus|truck|tram|motorcycle|van|steam train|sailing boat|tractor|rickshaw|canoe|"
    "helicopter|taxi|caravan|fire engine|ambulance|scooter|hot air balloon|gondola|tank|limousine|"
    "biplane|bulldozer|horse drawn carriage|pickup|trawler|glider|locomotive",
    "plant": "sunflower|oak tree|cactus|orchid|willow|fern|tulip|rose bush|palm tree|dandelion|"
    "water lily|cherry tree|thistle|hydrangea|toadstool|poppy|bonsai|ivy leaf|pine cone",
    "plant_plural": "sunflowers|daffodils|palm trees|tulips|ferns|mushrooms|poppies|lavender|"
    "geraniums|cacti|birches|vines|wildflowers|carnations|nettles|peonies|hedges",
    "food": "pizza|noodles|strawberries|fried eggs|pancakes|grilled fish|dumplings|olives|"
    "roast potatoes|porridge|sushi|lentil soup|cheese|chestnuts|apple pie|mussels|tomatoes|"
    "beetroot salad|toast|curry|figs|blueberry muffins|corn on the cob|gingerbread|spaghetti|rice",
    "drink": "cup of coffee|glass of wine|mug of tea|lemonade|milkshake|pint of beer|hot chocolate|"
    "orange juice|bottle of water|whisky",
    "instrument": "violin|accordion|trumpet|cello|banjo|drums|piano|harp|saxophone|bagpipes|flute|"
    "electric guitar|tambourine|clarinet",
    "sport": "tennis|baseball|cricket|badminton|football|rugby|chess|volleyball|hockey|"
    "table tennis|golf|water polo|frisbee|croquet",
    "medium": "photo|painting|watercolour|charcoal drawing|pencil sketch|mosaic|woodcut|fresco|"
    "oil painting|poster|stained glass window|tapestry|polaroid|digital illustration|"
    "low poly model|comic strip|clay sculpture|engraving|linocut|postcard|film still|blueprint",
    "light": "soft light|candlelight|golden hour|harsh shadows|neon lights|backlit|rim lighting|"
    "overcast sky|studio lighting|moonlit|dappled shade|morning mist|lens flare|warm glow|"
    "low contrast|volumetric light|firelight",
    "finish": "highly detailed|sharp focus|35mm film|shallow depth of field|trending on artstation|"
    "muted colours|8k|symmetrical composition|wide angle|grainy|pastel palette|art nouveau|"
    "cinematic|in the style of ukiyo-e|minimalist|cross hatching|bold outlines|award winning|"
    "photorealistic|unreal engine|bauhaus|surreal|intricate|matte finish|tilt shift|cubist",
}


@dataclass(frozen=True)
class Result:
    """One kind of prompts in the coder and against it."""

    kind: str
    prompts: int
    tokens: float  # means a prompt
    bytes: float
    zlib_bytes: float
    plain_bytes: float  # 16 bits an id
    largest_excess: int  # of a prompt over plain packing, bytes
    ratio: float  # totals: bytes / zlib_bytes
    target: float
    met: bool
    plain_ratio: float
    sizes: dict[int, int]  # prompts by bytes
    natural_way: float  # share of prompts coded the natural way
    lost_as_text: float  # share that decode + encode of the tokenizer would change
    encode_ms: float  # means
    decode_ms: float


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options, checked one by one."""
    parser = argparse.ArgumentParser(
        description="Bytes of prompts in the token coder, in zlib and in plain packing."
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="of a CLIPTokenizer (default: train a stand-in of CLIP's size first)",
    )
    parser.add_argument("--natural", type=_positive, default=10_000, help="captions (10000)")
    parser.add_argument("--inverted", type=_positive, default=100_000, help="random ones (100000)")
    parser.add_argument("--length", type=_positive, default=16, help="ids of a random one (16)")
    parser.add_argument("--seed", type=int, default=0, help="of both kinds (default: 0)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out/prompt_bytes"),
        metavar="FOLDER",
        help="where prompt_bytes.json goes (default: out/prompt_bytes)",
    )
    options = parser.parse_args(arguments)
    if options.length > MAX_TOKENS:
        parser.error(f"--length {options.length}: must be 1 to {MAX_TOKENS}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, write JSON, print the table; returns the exit status."""
    options = parse_arguments(arguments)
    try:
        report = measure(options)
        with atomic_write(options.output / "prompt_bytes.json") as part:
            part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except PicsnetError as error:
        print(f"prompt_bytes: error: {error}", file=sys.stderr)
        return error.exit_status
    print(table(report))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Have a tokenizer, make both kinds of prompts, code them, and gather all for the JSON."""
    with tempfile.TemporaryDirectory(prefix="prompt_bytes_") as scratch:
        folder = options.tokenizer
        if folder is None:
            folder = Path(scratch)
            source = train_stand_in(folder, options.quiet)
        else:
            source = f"{folder.resolve().name}, as given"
        tokenizer, vocabulary = load_tokenizer(folder)
    coder = TokenCoder(vocabulary)
    rng = random.Random(options.seed)
    captions = [caption(rng) for _ in range(options.natural)]
    special = set(tokenizer.all_special_ids)
    usable = [i for i in range(coder.size) if i not in special]
    prompts = {
        "natural": [
            [int(i) for i in ids][:MAX_TOKENS]
            for ids in tokenizer(captions, add_special_tokens=False).input_ids
        ],
        "inverted": [rng.choices(usable, k=options.length) for _ in range(options.inverted)],
    }
    results = [code(kind, ids, coder, tokenizer, options.quiet) for kind, ids in prompts.items()]
    ordered = sorted(vocabulary.items(), key=lambda item: item[1])
    return {
        "name": "prompt_bytes",
        "description": "bytes of prompts in the token coder, zlib -9 of their text, plain 16 bits",
        "settings": {
            "tokenizer": source,
            "stand_in": options.tokenizer is None,
            "vocabulary": coder.size,
            "vocabulary_sha256": hashlib.sha256(json.dumps(ordered).encode()).hexdigest(),
            "length": options.length,
            "seed": options.seed,
            "first_captions": captions[:10],
            "different_captions": len(set(captions)),
            "listed": listed_share(captions),
            "versions": versions(),
        },
        "results": [asdict(result) for result in results],
    }


def caption(rng: random.Random) -> str:
    """One caption of the grammar."""
    text = rng.choice(TEMPLATES)
    while "{" in text:
        text = re.sub(r"\{(\w+)\}", lambda match: rng.choice(WORDS[match[1]].split("|")), text)
    return re.sub(r"\ba (?=[aeio])", "an ", text)


def code(
    kind: str, prompts: Sequence[list[int]], coder: TokenCoder, tokenizer: Any, quiet: bool
) -> Result:
    """Code prompts one by one, and check that each comes back.

    Raises:
        DataError: one does not.
    """
    sizes: dict[int, int] = {}
    zlib_total = plain_total = excess = natural = lost = 0
    encode_seconds = decode_seconds = 0.0
    for ids in tqdm(prompts, desc=kind, unit="prompt", disable=quiet):
        start = time.perf_counter()
        data = coder.encode(ids)
        encoded = time.perf_counter()
        decoded = coder.decode(data)
        decode_seconds += time.perf_counter() - encoded
        encode_seconds += encoded - start
        if decoded != ids:
            raise DataError(f"prompt {ids}: comes back as {decoded}; please report it")
        text = tokenizer.decode(ids)
        sizes[len(data)] = sizes.get(len(data), 0) + 1
        zlib_total += len(zlib.compress(text.encode(), 9))
        plain_total += 2 * len(ids)
        excess = max(excess, len(data) - 2 * len(ids))
        natural += coder.is_natural(ids)
        lost += tokenizer(text, add_special_tokens=False).input_ids != ids
    count = len(prompts)
    total = sum(size * times for size, times in sizes.items())
    return Result(
        kind=kind,
        prompts=count,
        tokens=statistics.fmean(len(ids) for ids in prompts),
        bytes=total / count,
        zlib_bytes=zlib_total / count,
        plain_bytes=plain_total / count,
        largest_excess=excess,
        ratio=total / zlib_total,
        target=TARGETS[kind],
        met=total <= TARGETS[kind] * zlib_total,
        plain_ratio=total / plain_total,
        sizes=dict(sorted(sizes.items())),
        natural_way=natural / count,
        lost_as_text=lost / count,
        encode_ms=1000 * encode_seconds / count,
        decode_ms=1000 * decode_seconds / count,
    )


def load_tokenizer(folder: Path) -> tuple[Any, dict[str, int]]:
    """A CLIPTokenizer and its vocabulary.

    Raises:
        ModelError: the folder holds none.
    """
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        vocabulary = {str(token): int(i) for token, i in tokenizer.get_vocab().items()}
    except Exception as error:
        # transformers lets errors of the system, of JSON and its own through.
        raise ModelError(
            f"{folder}: no tokenizer can be loaded from it ({type(error).__name__}); name the "
            "folder tokenizer/ of a Stable Diffusion pipeline"
        ) from None
    return tokenizer, vocabulary


def train_stand_in(
    folder: Path,
    quiet: bool,
    size: int = CLIP_SIZE,
    characters: int = TEXT_CHARACTERS,
) -> str:
    """Train a tokenizer like CLIP's on the text that a Python installation holds.

    Args:
        folder: where it is saved.
        quiet: no progress bar.
        size: of the vocabulary.
        characters: how much text is read at most.

    Returns:
        What it is, in words.

    Raises:
        DataError: the text is too little.
    """
    texts = list(english_texts(characters, quiet))
    if train_tokenizer(texts, folder, size, progress=not quiet) < size:
        raise DataError(
            f"{sysconfig.get_path('purelib')}: holds too little text for {size} tokens; name a "
            "real tokenizer with --tokenizer"
        )
    millions = sum(map(len, texts)) / 1e6
    return (
        f"stand-in for CLIP's: {size} tokens by CLIP's rules, trained on {millions:.0f} million "
        "characters of docstrings, licences and package descriptions"
    )


def english_texts(characters: int, quiet: bool) -> Iterator[str]:
    """Docstrings and prose files of the standard library and installed packages, ASCII lines."""
    docstring = re.compile(r'"""(.*?)"""', re.DOTALL)
    prose = {"METADATA", "LICENSE", "COPYING"}
    library, packages = (Path(sysconfig.get_path(key)) for key in ("stdlib", "purelib"))
    left = characters
    with tqdm(total=characters, desc="reading", unit="character", disable=quiet) as bar:
        for root in (library, packages):
            for path in sorted(root.rglob("*")):
                if root == library and "site-packages" in path.parts:
                    continue
                if path.suffix not in (".py", ".rst", ".md") and path.name not in prose:
                    continue
                try:
                    text = path.read_text(encoding="utf-8")
                except (OSError, ValueError):
                    continue
                if path.suffix == ".py":
                    text = "\n".join(docstring.findall(text))
                text = "\n".join(line for line in text.splitlines() if line.isascii())
                yield text
                bar.update(len(text))
                left -= len(text)
                if left <= 0:
                    return


def listed_share(captions: Sequence[str]) -> dict[str, float]:
    """How many words of the captions the coder's list has: of different ones, and of all."""
    from importlib.resources import files

    listed = set(files("picsnet.prompt").joinpath("words.txt").read_text("utf-8").split())
    words = [word for text in captions for word in re.findall("[a-z]+", text)]
    different = set(words)
    return {
        "different_words": len(different),
        "share_of_different_words": len(different & listed) / len(different),
        "share_of_words": sum(word in listed for word in words) / len(words),
    }


def versions() -> dict[str, str]:
    """Of what tokenizes and codes."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "zlib": zlib.ZLIB_RUNTIME_VERSION}
    for package in ("picsnet", "constriction", "numpy", "tokenizers", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def table(report: dict[str, Any]) -> str:
    """Results as Markdown, and what they are of."""
    lines = [
        f"Tokenizer: {report['settings']['tokenizer']}.",
        "",
        "| prompts | number | ids | bytes | zlib -9 | ratio | target | 16 bits an id | ratio "
        "| natural way | lost as text | encode ms | decode ms |",
        "| " + " | ".join(["---"] * 13) + " |",
    ]
    lines += [
        f"| {r['kind']} | {r['prompts']} | {r['tokens']:.1f} | {r['bytes']:.2f} "
        f"| {r['zlib_bytes']:.1f} | {r['ratio']:.3f} | {r['target']:g}, "
        f"{'met' if r['met'] else 'missed'} | {r['plain_bytes']:.1f} | {r['plain_ratio']:.3f} "
        f"| {r['natural_way']:.1%} | {r['lost_as_text']:.1%} | {r['encode_ms']:.2f} "
        f"| {r['decode_ms']:.2f} |"
        for r in report["results"]
    ]
    return "\n".join(lines)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value


if __name__ == "__main__":
    sys.exit(main())

"""In which encoding a text is that is no UTF-8, told from the few bytes that are not ASCII."""

import re
import unicodedata

from tbptt.data.errors import DataError
from tbptt.data.tables.names import KNOWN, words_of

# The encodings that such files have, most common first: among all that Python knows, a few bytes of a header look like
# several that nobody has written for decades.
ENCODINGS = ("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "shift_jis", "gb18030", "big5", "euc_kr")
SIGNS = frozenset("€£¥¢$§°±²³¹ªºµ·«»–—‘’“”„…©®™‰¼½¾¿¡\u00a0")  # of a Latin text, beside its letters
TURKISH_OR_ICELANDIC = frozenset("ðýþÐÝÞ")  # ğ, ı, ş, Ğ, İ, Ş in cp1254
# Three such letters in a row, a sign or a capital letter inside of a word, a sign beside such a letter.
NOT_LATIN = (
    r"[^\W\d_a-zA-Z]{3}",
    r"[A-Za-z][²³¹¼½¾¿¡¢¥±§«»][a-z]",
    r"[a-z][À-ÖØ-Þ][a-z]",
    r"[^\x00-\x7f][²³¹¼½¾¿¡¢¥±§«»·°µ]",
    r"[²³¹¼½¾¿¡¢±§·µ][^\x00-\x7f]",
)
ENOUGH = 200  # bytes that are not ASCII from which on letters can be counted


def guessed(raw: bytes) -> str:
    """The encoding of a text that is no UTF-8.

    Known names of columns tell it (日付, Höchst); then a text that is Latin but for a few letters is cp1252, or cp1250
    if its letters are none there; then charset-normalizer compares how often letters come, if there are many.

    Raises:
        ValueError: several encodings could be it; the names of columns would be wrong.
    """
    sample = _telling(raw)
    texts = {name: text for name in ENCODINGS if (text := _decoded(sample, name)) is not None}
    if not texts:
        raise DataError("it is no text in an encoding that is known here; say which one it has", "data.encoding")
    known = {name: _known_words(text) for name, text in texts.items()}
    if (most := max(known.values())) > 0:
        return next(name for name, count in known.items() if count == most)
    for name in ("cp1252", "cp1250"):
        if name in texts and _is_latin(texts[name], 0.7 if name == "cp1252" else 0.4):
            if not TURKISH_OR_ICELANDIC & set(texts[name]):
                return name
            raise DataError(_undecided(["cp1252", "cp1254"], texts), "data.encoding")
    return _by_letters(sample, texts)


def _telling(raw: bytes) -> bytes:
    """Lines that are not ASCII, each once."""
    lines = re.findall(rb"[^\n\r]*[\x80-\xff][^\n\r]*", raw[: 4 * 2**20]) or re.findall(
        rb"[^\n\r]{0,200}[\x80-\xff][^\n\r]{0,200}", raw
    )
    return b"\n".join(dict.fromkeys(lines[:2000]))[:65536]


def _decoded(sample: bytes, encoding: str) -> str | None:
    """The text; None if the bytes are none in this encoding, or not of letters and signs that are written."""
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError as error:
        if error.start < len(sample) - 4 or len(sample) < 65536:
            return None
        text = sample.decode(encoding, errors="ignore")
    if any(unicodedata.category(letter) in ("Cn", "Co", "Cc") for letter in set(text) - set("\t\n\r") if letter > "~"):
        return None
    return text


def _known_words(text: str) -> int:
    words = {word for line in text.splitlines()[:400] for word in words_of(line) if not word.isascii()}
    return len(words & KNOWN)


def _is_latin(text: str, most: float) -> bool:
    """Whether words are of ASCII letters and at most two others in a row, as those of Latin languages are.

    Args:
        most: the share of a word's letters that may be others.
    """
    for word in re.findall(r"[^\s,;|\"]*[^\x00-\x7f][^\s,;|\"]*", text):
        letters = [c for c in word if c.isalpha()]
        foreign = [c for c in letters if not c.isascii()]
        if any(not unicodedata.name(c, "").startswith("LATIN") for c in foreign):
            return False
        if any(c not in SIGNS for c in word if not c.isascii() and c not in foreign):
            return False
        if len(foreign) > 1 and len(foreign) > most * len(letters):
            return False
        if any(re.search(pattern, word) for pattern in NOT_LATIN):
            return False
    return True


def _by_letters(sample: bytes, texts: dict[str, str]) -> str:
    from charset_normalizer import from_bytes

    names = list(texts)
    if not _is_of_single_letters(sample):
        names.sort(key=lambda name: name.startswith("cp"))
    matches = from_bytes(sample, cp_isolation=names)
    ranked = list(dict.fromkeys(_common(match.encoding, texts, sample) for match in matches)) or names
    best = matches.best()
    high = sum(byte > 127 for byte in sample)
    if best is not None and high >= ENOUGH and best.coherence > 0:
        return ranked[0]
    different = [name for name in [*ranked, *names] if texts.get(name) != texts.get(ranked[0])]
    raise DataError(_undecided([ranked[0], *different[:1]], texts), "data.encoding")


def _is_of_single_letters(sample: bytes) -> bool:
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", sample)]
    return 2 * runs.count(1) > sum(runs)


def _common(encoding: str, texts: dict[str, str], sample: bytes) -> str:
    """The most common encoding that makes the same text of it."""
    text = sample.decode(encoding, errors="replace")
    return next((name for name, other in texts.items() if other == text), encoding)


def _undecided(names: list[str], texts: dict[str, str]) -> str:
    words = [re.findall(r"[^\s,;|\"]*[^\x00-\x7f][^\s,;|\"]*", texts.get(name, "")) for name in names]
    at = next((i for i, pair in enumerate(zip(*words, strict=False)) if len(set(pair)) > 1), 0)
    ways = [
        f"data.encoding={name} ({found[at][:20] if at < len(found) else '?'})"
        for name, found in zip(names, words, strict=True)
    ]
    return f"its letters that are not ASCII may be of several encodings: {' or '.join(ways)} says which"

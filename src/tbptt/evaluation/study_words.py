"""A study's result in words: how its chosen trial does on test, and how it compares with the other trials."""

from tbptt.evaluation import words
from tbptt.evaluation.results import Judged

FEW_MODELS = 500  # Hansen's test resamples a thousand times for up to this many models
HANSEN = "Hansen's test of superior predictive ability"


def headline(judged: Judged) -> str:
    """The verdict in a few words: on the decisions if the task makes them, else against the best baseline."""
    verdict, against = judged.decision, words.SIDES.get(judged.best_side or "", judged.best_side)
    if verdict is None:
        verdict = judged.skill.get(judged.best_baseline)
        against = words.BASELINES.get(judged.best_baseline, judged.best_baseline)
    if verdict is None:
        return ""
    text = verdict.word if verdict.word == words.TOO_SHORT else f"{verdict.word} {against}"
    return text[:1].upper() + text[1:]


def tried_words(count: int) -> str:
    """How many trials the chosen one was chosen from."""
    return f"{count} trials were tried" if count > 1 else "one trial was tried"


def superior_line(tried: int, of_mean: float, best: str, of_best: float) -> str:
    """Whether the best of the trials is better than the mean and than the baseline that is best on val.

    Args:
        tried: how many trials were compared.
        of_mean, of_best: p-values (:func:`tbptt.evaluation.compared.superior`).
        best: the baseline that is best on val.
    """
    line = f"Given that {tried} were compared: on val the best of them {_better(of_mean, 'mean', tried)}"
    if best != "mean":
        line += f", and {_better(of_best, best, tried)}"
    return (
        f"{line} ({HANSEN}; it does not know that epochs were chosen there too, and where observations are few, it "
        "finds something in noise more often than p says)."
    )


def _better(p: float, baseline: str, tried: int) -> str:
    least = 0.001 if tried <= FEW_MODELS else 0.004
    shown = f"p < {least:g}" if p < least else f"p = {p:.3g}"
    word = "is better than" if p < 0.05 else "cannot be told from"
    return f"{word} {words.BASELINES.get(baseline, baseline)}, {shown}"


def confidence_line(inside: int, tried: int) -> str:
    """How many trials cannot be told from the best."""
    return (
        f"{inside} of {tried} trials cannot be told from the best on val, with 95 % confidence (model confidence set; "
        "a column of the table)."
    )


def too_short_line(observations: float, fewest: int) -> str:
    """The line that says that trials are not tested against each other."""
    return (
        f"The validation part is {words.TOO_SHORT}: {observations:.3g} independent observations, and it takes "
        f"{fewest}; so trials are not tested against chance, nor held against each other."
    )

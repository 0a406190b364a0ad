"""Results in words: how the model compares on the test part, by how much, and on how much evidence."""

from tbptt.data.options import ArticleData, DataConfig
from tbptt.evaluation.chance import Verdict
from tbptt.evaluation.results import Judged

TOO_SHORT = "too short to tell"
SIDES = {"long": "being long all the time", "short": "being short all the time", "flat": "doing nothing"}
BASELINES = {
    "mean": "predicting the training mean",
    "zero": "predicting zero",
    "ridge": "ridge regression on the same inputs",
    "clock": "a clock that sees no price",
}
VAL_ONLY = "values on the validation part are those that epochs and trials were chosen by"


def lines(judged: Judged) -> list[str]:
    """The result lines at a run's end; a task with decisions has the decision line first."""
    if judged.test is None:
        return []
    found = []
    if judged.decision is not None and judged.best_side is not None:
        found.append(decision_line(judged.decision, judged.best_side))
    found += [skill_line(verdict, name) for name, verdict in judged.skill.items()]
    if judged.networks > 1:
        found.append(f"test: all of this is of the average over {judged.networks} seeds")
    return list(dict.fromkeys(found))


def headline(judged: Judged) -> str:
    """The first of :func:`lines`; if the test part is too short, a line that says so."""
    found = lines(judged)
    return found[0] if found else ""


def decision_line(verdict: Verdict, side: str) -> str:
    """The profit of following the predictions, compared with the side that is best on val."""
    against = SIDES.get(side, side)
    if verdict.word == TOO_SHORT:
        return f"test, decision: {_too_short(verdict)}"
    if verdict.estimate == verdict.low == verdict.high == 0:
        return f"test, decision: {verdict.word} {against}, as no prediction was worth a change of side"
    return (
        f"test, decision: {verdict.word} {against}, {verdict.estimate:+.3g} standard deviations of a change a step"
        f"{_interval(verdict)}"
    )


def skill_line(verdict: Verdict, baseline: str) -> str:
    """How the loss compares with a baseline's."""
    against = BASELINES.get(baseline, baseline)
    if verdict.word == TOO_SHORT:
        return f"test, loss beside {against}: {_too_short(verdict)}"
    return f"test, loss: {verdict.word} {against}, skill {verdict.estimate:.3g}{_interval(verdict)}"


def _interval(verdict: Verdict) -> str:
    what = observed(verdict.observations)
    if verdict.low is None or verdict.high is None:
        return f" ({what})"
    return f" (95 % interval {verdict.low:.3g} to {verdict.high:.3g}, {what})"


def observed(count: float) -> str:
    """How many independent observations there are."""
    return f"{count:.0f} independent observation{'' if round(count) == 1 else 's'}"


def _too_short(verdict: Verdict) -> str:
    return f"{TOO_SHORT}: about {observed(verdict.observations)}, and it takes {verdict.fewest}"


def uses_line(uses: int | None) -> str:
    """How often the test part was used; ``uses`` is None if that is not known."""
    if uses is None:
        return "how many results its test part has judged in this store is not known, as the store does not answer"
    so_far = f"{uses} results" if uses > 1 else "this result only"
    return f"its test part has judged {so_far} in this store; each one more makes it worth less"


def nothing_left(data: DataConfig) -> str:
    """The line that says that there is no test part, and which key makes one."""
    return no_test(test_key(isinstance(data, ArticleData)))


def test_key(of_article: bool) -> str:
    """The key that keeps a test part."""
    return "data.test_series" if of_article else "data.test_fraction"


def no_test(key: str) -> str:
    """The line that says that there is no test part; ``key`` would keep one."""
    return f"nothing is left to judge by: {VAL_ONLY}; {key} above 0 keeps a part for it"

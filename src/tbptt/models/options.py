"""Networks, as a config says them."""

from dataclasses import dataclass

from tbptt.options.option import Option, key
from tbptt.options.takes import list_of, number, one_of, whole


@dataclass
class ModelConfig(Option, options=["article"]):
    group = "model"
    dense: list[int] = key(list_of("whole numbers from 1", whole(1), 0), [64, 64])
    hidden: list[int] = key(list_of("whole numbers from 1", whole(1)), [64, 64])
    cell: str = key(one_of("lstm", "gru"), "lstm")
    noise_std: float = key(number(0), 0.01)
    init: str = key(one_of("keras", "torch"), "keras")

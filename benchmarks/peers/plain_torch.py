"""The loop that one writes in plain PyTorch, malloc as it comes (see turns.py for how it is asked)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from turns import STEPS, Turns, load, parser

State = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


class Network(nn.Module):
    """The article's network of PyTorch's layers as they are, two trained biases a gate."""

    def __init__(self, window: int, size: int = 64, noise_std: float = 0.01):
        super().__init__()
        self.noise_std = noise_std
        self.first, self.second = nn.Linear(window, size), nn.Linear(size, size)
        self.lower, self.upper = (nn.LSTM(size, size, batch_first=True) for _ in range(2))
        self.head = nn.Linear(size, 2)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        lower, upper = state or (None, None)
        x = self.noisy(torch.tanh(self.first(x)))
        x = self.noisy(torch.tanh(self.second(x)))
        x, lower = self.lower(x, lower)
        x, upper = self.upper(self.noisy(x), upper)
        return self.head(x), (lower, upper)

    def noisy(self, x: Tensor) -> Tensor:
        return x + self.noise_std * torch.randn_like(x)


def adam(network: nn.Module) -> torch.optim.Optimizer:
    """With conf/optimizer/adam.yaml's values."""
    return torch.optim.Adam(network.parameters(), lr=0.01, eps=1e-7)


def detached(state: State) -> State:
    (h, c), (g, d) = state
    return (h.detach(), c.detach()), (g.detach(), d.detach())


def main() -> None:
    inputs, targets = map(torch.from_numpy, load(parser(__doc__).parse_args().folder))
    torch.set_num_threads(1)
    torch.manual_seed(1)
    network = Network(inputs.shape[2])
    optimizer = adam(network)
    chunks = list(zip(inputs.split(STEPS, dim=1), targets.split(STEPS, dim=1), strict=True))

    def one_pass() -> float:
        state, total = None, 0.0
        for x, y in chunks:
            optimizer.zero_grad()
            prediction, state = network(x, state)
            loss = mse_loss(prediction, y)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            state = detached(state)
            total += loss.item()
        return total / len(chunks)

    Turns(len(chunks), sum(p.numel() for p in network.parameters()), {"torch": torch.__version__}).take(one_pass)


if __name__ == "__main__":
    main()

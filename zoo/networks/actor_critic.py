"""Policies with a value function, as reinforcement learning trains them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.errors import InvalidConfigError
from zoo.networks.activation import Activation


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig:
    """Two perceptrons on one observation: the actor's actions, the critic's value [1]_.

    Parameters
    ----------
    in_features, num_actions
        Length of the observation; actions, or logits of a choice among them.
    hidden
        Hidden widths, of the actor as of the critic.
    noise
        How actions are explored: ``"none"`` for a choice, ``"action"`` with one standard deviation
        per action, ``"state"`` with one per hidden unit and action (generalised state-dependent
        exploration [2]_, Eq. (4)).
    activation
        A name of :data:`zoo.networks.ACTIVATIONS`.

    References
    ----------
    .. [1] Mnih et al., "Asynchronous Methods for Deep Reinforcement Learning", ICML 2016.
    .. [2] Raffin et al., "Smooth Exploration for Robotic Reinforcement Learning", CoRL 2021.
    """

    name: ClassVar[str] = "actor-critic"

    in_features: int
    num_actions: int
    hidden: tuple[int, ...] = (64, 64)
    noise: Literal["none", "action", "state"] = "none"
    activation: str = "tanh"

    def __post_init__(self) -> None:
        if not self.hidden or min(self.in_features, self.num_actions, *self.hidden) < 1:
            raise InvalidConfigError(f"Expected positive widths and a hidden layer, got {self}.")

    def build(self) -> nn.Module:
        """Make the module, with torch's default initialisation."""
        return ActorCritic(self)

    def example_input(self, batch: int) -> Tensor:
        """Zeros of shape ``[batch, in_features]``."""
        return torch.zeros(batch, self.in_features)


class ActorCritic(nn.Module):
    """The network of an :class:`ActorCriticConfig`."""

    def __init__(self, config: ActorCriticConfig) -> None:
        super().__init__()
        self.noise = config.noise
        if config.noise != "none":
            rows = (config.hidden[-1],) if config.noise == "state" else ()
            self.log_std = nn.Parameter(torch.zeros(*rows, config.num_actions))
        self.policy = _features(config)
        self.value = _features(config)
        self.action_head = nn.Linear(config.hidden[-1], config.num_actions)
        self.value_head = nn.Linear(config.hidden[-1], 1)

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Compute actions ``[batch, actions]``, values ``[batch, 1]`` and, with noise, its size."""
        features = self.policy(observation)
        actions, values = self.action_head(features), self.value_head(self.value(observation))
        if self.noise == "none":
            return actions, values
        if self.noise == "action":
            return actions, values, self.log_std.exp().expand_as(actions)
        return actions, values, (features**2 @ self.log_std.exp() ** 2).sqrt()


def _features(config: ActorCriticConfig) -> nn.Sequential:
    widths = (config.in_features, *config.hidden)
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(fan_in, fan_out), Activation(config.activation)]
    return nn.Sequential(*layers)

"""Recurrent networks: torch's layers, cells in a loop, a diagonal state space."""

import torch
from torch import nn
from torch.nn import functional as F

from .inputs import Factory, noise, tokens


class Tagger(nn.Module):
    """Word vectors, a bidirectional LSTM of two layers, a tag per word."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, ids):
        return self.head(self.lstm(self.words(ids))[0])


class LastState(nn.Module):
    """A recurrent layer of torch, read at its last step."""

    def __init__(self, recurrent: nn.Module, width: int):
        super().__init__()
        self.recurrent, self.head = recurrent, nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


class Pooled(nn.Module):
    """An LSTM whose steps are averaged with learned attention."""

    def __init__(self):
        super().__init__()
        self.lstm, self.score = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 4)
        self.query, self.head = nn.Parameter(noise(4)), nn.Linear(6, 2)

    def forward(self, x):
        states, _ = self.lstm(x)
        weights = F.softmax(torch.tanh(self.score(states)) @ self.query, dim=1)
        return self.head(torch.bmm(weights.unsqueeze(1), states).squeeze(1))


class Seq2Seq(nn.Module):
    """A GRU cell reads; its state starts an LSTM cell that writes and feeds itself."""

    def __init__(self):
        super().__init__()
        self.reader, self.bridge = nn.GRUCell(3, 5), nn.Linear(5, 12)
        self.writer, self.head = nn.LSTMCell(2, 6), nn.Linear(6, 2)

    def forward(self, x):
        state = x.new_zeros(len(x), 5)
        for step in x.unbind(dim=1):
            state = self.reader(step, state)
        hidden, cell = self.bridge(state).chunk(2, dim=-1)
        word, written = x.new_zeros(len(x), 2), []
        for _ in range(3):
            hidden, cell = self.writer(word, (hidden, cell))
            word = self.head(hidden)
            written.append(word)
        return torch.stack(written, dim=1)


class StateSpace(nn.Module):
    """A diagonal linear recurrence per channel, with a gate, unrolled."""

    def __init__(self, width: int = 4, states: int = 3):
        super().__init__()
        self.embed, self.gate = nn.Linear(2, width), nn.Linear(2, width)
        self.decay = nn.Parameter(noise(width, states))
        self.write = nn.Parameter(noise(width, states))
        self.read = nn.Parameter(noise(width, states))
        self.skip, self.head = nn.Parameter(torch.ones(width)), nn.Linear(width, 3)

    def forward(self, x):
        signal, keep = self.embed(x), torch.exp(-F.softplus(self.decay))
        state, outputs = torch.zeros_like(self.decay), []
        for step in range(x.shape[1]):
            now = signal[:, step]
            state = keep * state + self.write * now.unsqueeze(-1)
            outputs.append((state * self.read).sum(-1) + self.skip * now)
        return self.head(torch.stack(outputs, dim=1) * F.silu(self.gate(x)))


ARCHITECTURES: dict[str, Factory] = {
    "lstm-bidirectional": lambda: (Tagger(), (tokens(2, 6, 9),)),
    "lstm-projected": lambda: (
        LastState(nn.LSTM(3, 7, proj_size=4, batch_first=True), 4),
        (noise(2, 5, 3),),
    ),
    "lstm-attention-pooling": lambda: (Pooled(), (noise(2, 5, 3),)),
    "gru": lambda: (
        LastState(nn.GRU(4, 6, num_layers=2, batch_first=True), 6),
        (noise(2, 5, 4),),
    ),
    "rnn-tanh": lambda: (LastState(nn.RNN(4, 5, batch_first=True), 5), (noise(3, 6, 4),)),
    "rnn-relu": lambda: (
        LastState(nn.RNN(2, 5, nonlinearity="relu", bias=False, batch_first=True), 5),
        (noise(3, 4, 2),),
    ),
    "seq2seq-cells": lambda: (Seq2Seq(), (noise(2, 4, 3),)),
    "state-space": lambda: (StateSpace(), (noise(2, 5, 2),)),
}

"""MiniLM and RoBERTa, encoders of texts (layer normalisation, GELU), with a head of their own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mli_check.data.tokens import PADDING
from mli_check.data.weights import library
from mli_check.errors import OptionError

_MOST_TOKENS = 512  # for which either has positions
_BARRED = -1e4  # added to attention's logits: its exponential is 0 in every dtype, and no dtype overflows
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class TextClassifier(nn.Module):
    """Token ids (n, length), whole numbers of any dtype, to logits (n, classes).

    `body` is an encoder of the library transformers. Padding is left out of attention and of the mean over a text's
    tokens, which `head`, linear, is given.
    """

    def __init__(self, body: nn.Module, features: int, classes: int, padding: int) -> None:
        super().__init__()
        self.body, self.head, self.padding = body, nn.Linear(features, classes), padding

    def forward(self, ids: Tensor) -> Tensor:
        ids = ids.long()
        there = (ids != self.padding).to(self.head.weight.dtype)
        barred = (1 - there) * _BARRED
        hidden = self.body(input_ids=ids, attention_mask=barred[:, None, None, :]).last_hidden_state
        mean = (hidden * there[..., None]).sum(1) / there.sum(1, keepdim=True).clamp(min=1)
        logits: Tensor = self.head(mean)
        return logits


def minilm(example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The encoder all-MiniLM-L6-v2: 6 layers of 384 units, 12 heads. Drawn as transformers draws it: normal, 0.02.

    Our choice: no dropout, so that training repeats. Raises OptionError for examples that are not token ids,
    MissingDataError without transformers.
    """
    package = _package("minilm", example_shape)
    config = package.BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        pad_token_id=PADDING["minilm"], **_NO_DROPOUT,
    )  # fmt: skip
    return _classifier("minilm", package.BertModel(config, add_pooling_layer=False), config, classes)


def roberta(example_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The encoder RoBERTa base: 12 layers of 768 units, 12 heads; else as `minilm`.

    The mean over tokens in front of a linear head is our choice; the paper does not tell its own.
    """
    package = _package("roberta", example_shape)
    config = package.RobertaConfig(
        vocab_size=50265, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=PADDING["roberta"],
        **_NO_DROPOUT,
    )  # fmt: skip
    return _classifier("roberta", package.RobertaModel(config, add_pooling_layer=False), config, classes)


def _classifier(name: str, body: nn.Module, config: Any, classes: int) -> nn.Module:
    return TextClassifier(body, config.hidden_size, classes, PADDING[name])


def _package(name: str, example_shape: tuple[int, ...]) -> Any:
    if len(example_shape) != 1 or example_shape[0] > _MOST_TOKENS:
        raise OptionError(
            f"model `{name}` needs examples of at most {_MOST_TOKENS} token ids, (length,), got {example_shape}"
        )
    return library("transformers", f"model `{name}`")

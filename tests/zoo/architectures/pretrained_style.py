"""Hugging Face ``transformers`` from small configurations, with random weights.

The library is imported when a network is made, never downloaded from. Dropout-free eval mode,
no cache; tensors in, tensors out.
"""

from typing import Any

from torch import Tensor, nn

from .inputs import Factory, noise, tokens

VOCABULARY = 13
LLAMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 8,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 16,
    "use_cache": False,
}


class TensorsOnly(nn.Module):
    """Calls a model with tensors by position and returns the named field of what it gives."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], field: str, **fixed: Any):
        super().__init__()
        self.model, self.names, self.field, self.fixed = model, names, field, fixed

    def forward(self, *inputs: Tensor) -> Tensor:
        named = dict(zip(self.names, inputs, strict=True))
        return getattr(self.model(**named, **self.fixed), self.field)


def build(model: str, config: str, field: str, names: tuple[str, ...], fixed: dict, **options: Any):
    import transformers

    config = getattr(transformers, config)(**options)
    return TensorsOnly(getattr(transformers, model)(config).eval(), names, field, **fixed)


def reads(model: str, config: str, field: str = "logits", **options: Any):
    """A network of one sequence of tokens."""
    fixed = {"use_cache": False} if "use_cache" in options else {}
    module = build(model, config, field, ("input_ids",), fixed, **options)
    return module, (tokens(2, 7, VOCABULARY),)


def bert():
    return reads(
        "BertModel", "BertConfig", "pooler_output", vocab_size=VOCABULARY, hidden_size=6,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, max_position_embeddings=9,
    )  # fmt: skip


def distilbert():
    return reads(
        "DistilBertForSequenceClassification", "DistilBertConfig", vocab_size=VOCABULARY, dim=6,
        n_layers=2, n_heads=3, hidden_dim=7, max_position_embeddings=9, num_labels=3,
    )  # fmt: skip


def gpt2():
    return reads(
        "GPT2LMHeadModel", "GPT2Config", vocab_size=VOCABULARY, n_embd=6, n_layer=2, n_head=3,
        n_inner=10, n_positions=8, use_cache=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip


def opt():
    return reads(
        "OPTForCausalLM", "OPTConfig", vocab_size=VOCABULARY, hidden_size=6, ffn_dim=8,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=9, use_cache=False,
        word_embed_proj_dim=4, pad_token_id=1, attn_implementation="eager",
    )  # fmt: skip


def llama_like(name: str, **more: Any):
    return reads(f"{name}ForCausalLM", f"{name}Config", **LLAMA_LIKE, **more)


def t5():
    options = {
        "vocab_size": VOCABULARY, "d_model": 6, "d_kv": 5, "d_ff": 8, "num_layers": 2,
        "num_heads": 2, "relative_attention_num_buckets": 8, "decoder_start_token_id": 0,
        "use_cache": False, "attn_implementation": "eager",
    }  # fmt: skip
    names = ("input_ids", "decoder_input_ids")
    fixed = {"use_cache": False}
    module = build("T5ForConditionalGeneration", "T5Config", "logits", names, fixed, **options)
    return module, (tokens(2, 7, VOCABULARY), tokens(4, 4, VOCABULARY)[:2])


def vit():
    options = {
        "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 9,
        "image_size": 8, "patch_size": 4, "num_labels": 3,
    }  # fmt: skip
    model, names = "ViTForImageClassification", ("pixel_values",)
    module = build(model, "ViTConfig", "logits", names, {}, **options)
    return module, (noise(2, 3, 8, 8),)


def clip():
    """Text and image towers, compared."""
    shared = {"hidden_size": 6, "intermediate_size": 7, "num_hidden_layers": 1}
    text = {
        **shared, "vocab_size": VOCABULARY, "num_attention_heads": 3, "max_position_embeddings": 8,
        "bos_token_id": 0, "eos_token_id": VOCABULARY - 1,
    }  # fmt: skip
    vision = {**shared, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    options = {"text_config": text, "vision_config": vision, "projection_dim": 5}
    names = ("input_ids", "pixel_values")
    module = build("CLIPModel", "CLIPConfig", "logits_per_image", names, {}, **options)
    return module, (tokens(2, 7, VOCABULARY), noise(3, 3, 8, 8))


ARCHITECTURES: dict[str, Factory] = {
    "huggingface-bert": bert,
    "huggingface-distilbert": distilbert,
    "huggingface-gpt2": gpt2,
    "huggingface-opt": opt,
    "huggingface-llama": lambda: llama_like("Llama"),
    "huggingface-mistral": lambda: llama_like("Mistral", sliding_window=3),
    "huggingface-qwen2": lambda: llama_like("Qwen2", tie_word_embeddings=True),
    "huggingface-t5": t5,
    "huggingface-vit": vit,
    "huggingface-clip": clip,
}

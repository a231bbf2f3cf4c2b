"""config.json becomes typed hyper-parameters, or an error that names the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.converters.checkpoints import SHAPES, Shape, write_config
from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.directory import Directory
from wizard_edge_converters.hparams import Hparams, read_hparams
from wizard_edge_converters.llama import LlamaHparams
from wizard_edge_converters.starcoder import StarcoderHparams


def read_any(directory: Path, shape: Shape, /, **changes: object) -> Hparams:
    """Read a good config with some keys changed; ABSENT takes a key out."""
    write_config(directory, shape)
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ABSENT}))
    return read_hparams(Directory(directory))


def read(directory: Path, name: str = "gqa", /, **changes: object) -> LlamaHparams:
    hparams = read_any(directory, SHAPES[name], **changes)
    assert isinstance(hparams, LlamaHparams)
    return hparams


def read_starcoder(directory: Path, /, **changes: object) -> StarcoderHparams:
    hparams = read_any(directory, SHAPES["starcoder"], **changes)
    assert isinstance(hparams, StarcoderHparams)
    return hparams


ABSENT = object()


def test_reads_a_config(tmp_path: Path) -> None:
    assert read(tmp_path) == LlamaHparams(
        vocabulary=323,
        context=4096,
        width=256,
        feed_forward=512,
        layers=3,
        heads=4,
        kv_heads=2,
        head_size=64,
        epsilon=1e-6,
        rope_theta=10000.0,
        rope_factor=None,
        tied=False,
        special_ids={"bos": 1, "eos": 2, "pad": 0},
    )


def test_llama_1_configs_lack_keys(tmp_path: Path) -> None:
    hparams = read(
        tmp_path,
        architectures=["LLaMAForCausalLM"],
        num_key_value_heads=ABSENT,
        rope_theta=ABSENT,
        max_position_embeddings=ABSENT,
        max_sequence_length=2048,
        tie_word_embeddings=ABSENT,
        hidden_act=ABSENT,
        pad_token_id=-1,
    )

    assert (hparams.kv_heads, hparams.context) == (4, 2048)
    assert (hparams.rope_theta, hparams.rope_factor) == (10000.0, None)
    assert hparams.special_ids == {"bos": 1, "eos": 2}


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_theta": 1e5, "rope_scaling": {"type": "linear", "factor": 4}},
        {
            "rope_theta": ABSENT,
            "rope_scaling": ABSENT,
            "rope_parameters": {
                "rope_type": "linear",
                "factor": 4.0,
                "rope_theta": 100000,
            },
        },
    ],
    ids=["old", "new"],
)
def test_linear_rope_scaling_is_read(keys: dict[str, object], tmp_path: Path) -> None:
    hparams = read(tmp_path, **keys)

    assert (hparams.rope_theta, hparams.rope_factor) == (1e5, 4.0)


def test_mistral_has_defaults_of_its_own(tmp_path: Path) -> None:
    hparams = read(
        tmp_path,
        "mistral",
        num_attention_heads=16,
        num_key_value_heads=ABSENT,
        rms_norm_eps=ABSENT,
        max_position_embeddings=ABSENT,
        rope_theta=ABSENT,
        rope_scaling=ABSENT,
    )

    assert (hparams.kv_heads, hparams.context) == (8, 131072)
    assert (hparams.epsilon, hparams.rope_theta) == (1e-6, 10000.0)
    assert hparams.states_head_size


def test_a_sliding_window_changes_nothing(tmp_path: Path) -> None:
    """llama.cpp's converter writes none for this architecture."""
    windows = (4096, None, ABSENT)

    first, *others = [
        read(tmp_path, "mistral", sliding_window=window) for window in windows
    ]

    assert others == [first, first]
    assert not [entry for entry in first.entries() if "window" in entry.key]


def test_mixtral_has_experts_and_a_larger_theta(tmp_path: Path) -> None:
    hparams = read(
        tmp_path,
        "mixtral",
        num_local_experts=ABSENT,
        num_experts_per_tok=ABSENT,
        rope_theta=ABSENT,
        rms_norm_eps=ABSENT,
    )

    assert (hparams.experts, hparams.experts_used) == (8, 2)
    assert (hparams.rope_theta, hparams.epsilon) == (1e6, 1e-5)
    assert not hparams.states_head_size


def test_experts_of_a_llama_are_not_looked_for(tmp_path: Path) -> None:
    assert read(tmp_path, num_local_experts=8).experts == 0


def test_reads_a_starcoder_config(tmp_path: Path) -> None:
    assert read_starcoder(tmp_path) == StarcoderHparams(
        vocabulary=303,
        context=96,
        width=256,
        layers=2,
        heads=4,
        epsilon=1e-5,
        tied=True,
        special_ids={"bos": 0, "eos": 0},
    )


def test_what_a_starcoder_config_may_leave_out(tmp_path: Path) -> None:
    keys = ("n_inner", "multi_query", "activation_function", "layer_norm_epsilon")

    found = read_starcoder(tmp_path, **dict.fromkeys(keys, ABSENT))

    assert found == read_starcoder(tmp_path)
    assert found.feed_forward == 1024


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("multi_query", False),
        ("multi_query", 1),
        ("num_key_value_heads", 4),
        ("activation_function", "relu"),
        ("activation_function", ["gelu"]),
        ("n_inner", 1000),
        ("scale_attn_weights", False),
        ("add_cross_attention", True),
        ("quantization_config", {"bits": 4}),
    ],
)
def test_starcoders_llama_cpp_cannot_run_are_refused(
    key: str, value: object, tmp_path: Path
) -> None:
    with pytest.raises(CannotConvert, match=key):
        read_starcoder(tmp_path, **{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_embd", -1),
        ("n_embd", 1 << 40),
        ("n_embd", "256"),
        ("n_head", 3),
        ("n_head", 257),
        ("n_layer", 0),
        ("n_layer", 513),
        ("n_positions", ABSENT),
        ("n_positions", 1e9),
        ("vocab_size", True),
        ("layer_norm_epsilon", 0),
    ],
)
def test_senseless_starcoder_values_name_their_key(
    key: str, value: object, tmp_path: Path
) -> None:
    with pytest.raises(Corrupt) as caught:
        read_starcoder(tmp_path, **{key: value})

    assert caught.value.where == f"key {key}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_local_experts", 1),
        ("num_local_experts", 1025),
        ("num_local_experts", "8"),
        ("num_experts_per_tok", 9),
        ("num_experts_per_tok", 0),
        ("num_experts_per_tok", 2.0),
    ],
)
def test_senseless_experts_name_their_key(
    key: str, value: object, tmp_path: Path
) -> None:
    with pytest.raises(Corrupt) as caught:
        read(tmp_path, "mixtral", **{key: value})

    assert caught.value.where == f"key {key}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "256"),
        ("hidden_size", True),
        ("hidden_size", -256),
        ("hidden_size", 0),
        ("hidden_size", 256.0),
        ("hidden_size", 1 << 40),
        ("hidden_size", [256]),
        ("hidden_size", ABSENT),
        ("hidden_size", 255),
        ("intermediate_size", 10**4000),
        ("num_hidden_layers", 513),
        ("num_hidden_layers", None),
        ("num_attention_heads", 257),
        ("num_attention_heads", 3),
        ("num_key_value_heads", 3),
        ("num_key_value_heads", 8),
        ("head_dim", 63),
        ("vocab_size", 1 << 30),
        ("max_position_embeddings", -1),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", "1e-6"),
        ("rms_norm_eps", 2.0),
        ("rope_theta", -1.0),
        ("rope_theta", 10**400),
        ("rope_scaling", "linear"),
        ("rope_scaling", {"type": "linear", "factor": -1}),
        ("rope_scaling", {"type": "linear"}),
        ("tie_word_embeddings", 1),
    ],
)
def test_senseless_values_name_their_key(
    key: str, value: object, tmp_path: Path
) -> None:
    with pytest.raises(Corrupt) as caught:
        read(tmp_path, **{key: value})

    assert str(tmp_path / "config.json") in caught.value.message
    assert caught.value.where is not None
    if value != 255:
        assert key in caught.value.where


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("architectures", ["GPTNeoXForCausalLM"], "GPTNeoXForCausalLM"),
        ("architectures", ["LlamaForCausalLM", "Other"], "llama"),
        ("architectures", "LlamaForCausalLM", "llama"),
        ("hidden_act", "gelu", "gelu"),
        ("quantization_config", {"bits": 4}, "bits"),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}, "llama3"),
        ("rope_scaling", {"rope_type": ["linear"], "factor": 8.0}, "linear"),
    ],
)
def test_other_models_are_named(
    key: str, value: object, named: str, tmp_path: Path
) -> None:
    with pytest.raises(CannotConvert, match=named):
        read(tmp_path, **{key: value})


def test_the_supported_architectures_are_listed(tmp_path: Path) -> None:
    with pytest.raises(CannotConvert) as caught:
        read(tmp_path, architectures=["FalconForCausalLM"])

    assert caught.value.hint == (
        "supported: LlamaForCausalLM, LLaMAForCausalLM, MistralForCausalLM, "
        "MixtralForCausalLM, GPTBigCodeForCausalLM"
    )
    assert caught.value.exit_code == 9


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotConvert, match=r"no config\.json"):
        read_hparams(Directory(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff", b"[" * 100_000],
    ids=["empty", "list", "cut", "twice", "nan", "not-utf-8", "deep"],
)
def test_bad_json_names_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)

    with pytest.raises(Corrupt) as caught:
        read_hparams(Directory(tmp_path))

    assert caught.value.path == str(path)

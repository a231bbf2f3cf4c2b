"""config.json becomes typed hyper-parameters, or an error that names the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.converters.checkpoints import Shape, write_config
from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.directory import Directory
from wizard_edge_converters.hparams import LlamaHparams, read_hparams


def read(directory: Path, **changes: object) -> LlamaHparams:
    """Read a good config with some keys changed; ABSENT takes a key out."""
    write_config(directory, Shape())
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ABSENT}))
    return read_hparams(Directory(directory))


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
        ("architectures", ["GPTBigCodeForCausalLM"], "GPTBigCodeForCausalLM"),
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
        read(tmp_path, architectures=["MistralForCausalLM"])

    assert caught.value.hint == "supported: LlamaForCausalLM, LLaMAForCausalLM"
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

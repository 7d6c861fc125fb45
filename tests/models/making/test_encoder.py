"""Checkpoints as graphs: the logits that transformers gives, the same to the bit in any batch, and clear errors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from models.engines import open_session, packed_logits
from models.making.architecture import Encoder
from models.making.config import CheckpointError, UnsupportedEncoder
from models.making.distances import Distances
from models.making.encoder import read_encoder
from models.types import Encoding

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
onnx = pytest.importorskip("onnx")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

from models.making.calibrate import make_recipes  # noqa: E402 - these need what may be missing
from models.making.graph import Writer  # noqa: E402
from models.making.quantize import Recipe  # noqa: E402
from tests.models.goldens import make  # noqa: E402
from tests.models.making.checkpoints import CLASSES, logits_alone, random_encodings, saturates, save  # noqa: E402

pytestmark = [
    pytest.mark.build,
    # The libraries' own deprecations, on their way through each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

Logits = npt.NDArray[np.float32]

COMPOSITIONS = 100
# INT8's error over the spread of the texts' logits. These models have 0.04 to 0.07; scales that are off by 2 % make it 0.12.
MOST_ERROR = 0.1
# Mostly short; the last ones are wider than a row that texts may share.
LENGTHS = [*range(3, 61, 2), 16, 17, 32, 33, 48, 64, 65, 128, 129, 150]


def session_of(encoder: Encoder, recipes: dict[str, Recipe] | None = None) -> ort.InferenceSession:
    model = Writer(encoder, recipes).write()
    onnx.checker.check_model(model)
    return open_session(model.SerializeToString(), ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)


def alone(session: ort.InferenceSession, encodings: list[Encoding]) -> Logits:
    return np.concatenate([packed_logits(session, [encoding]) for encoding in encodings])


def relative_error(rounded: Logits, exact: Logits) -> float:
    return float(np.sqrt(np.square(rounded - exact).mean()) / exact.std(axis=0).mean())


def moved(session: ort.InferenceSession, encodings: list[Encoding], compositions: int = COMPOSITIONS) -> int:
    """In how many of many random batches any bit of any text's logits is not what it is alone."""
    expected = alone(session, encodings)
    generator = np.random.default_rng(7)
    count = 0
    for _ in range(compositions):
        chosen = generator.integers(0, len(encodings), int(generator.integers(2, 33)))
        count += not np.array_equal(packed_logits(session, [encodings[index] for index in chosen]), expected[chosen])
    return count


@pytest.fixture(scope="module", params=CLASSES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tiny(family: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint of each family, and its model."""
    folder = tmp_path_factory.mktemp(family)
    return folder, save(folder, family)


@pytest.fixture(scope="module")
def encoder(tiny: tuple[Path, Any]) -> Encoder:
    return read_encoder(tiny[0])


@pytest.fixture(scope="module")
def encodings() -> list[Encoding]:
    return random_encodings(2, LENGTHS)


@pytest.fixture(scope="module")
def fp32(encoder: Encoder) -> ort.InferenceSession:
    return session_of(encoder)


@pytest.fixture(scope="module")
def recipes(encoder: Encoder) -> dict[str, Recipe]:
    return make_recipes(encoder, random_encodings(3, [*range(3, 60)] * 2), reduce_range=saturates())


@pytest.fixture(scope="module")
def int8(encoder: Encoder, recipes: dict[str, Recipe]) -> ort.InferenceSession:
    return session_of(encoder, recipes)


# --- the same as transformers


def test_a_mixed_batch_has_the_logits_that_torch_gives_each_text(
    tiny: tuple[Path, Any], fp32: ort.InferenceSession, encodings: list[Encoding]
) -> None:
    expected = logits_alone(tiny[1], encodings)
    assert np.ptp(expected, axis=0).min() > 0.5  # the texts do differ
    assert np.abs(packed_logits(fp32, encodings) - expected).max() < 1e-4


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "two heads": ("bert", {"num_attention_heads": 2}),
    "one head": ("roberta", {"num_attention_heads": 1}),
    "one layer": ("bert", {"num_hidden_layers": 1}),
    "one layer of DistilBERT": ("distilbert", {"num_hidden_layers": 1}),
    "gelu_new": ("bert", {"hidden_act": "gelu_new"}),
    "gelu_fast": ("xlm-roberta", {"hidden_act": "gelu_fast"}),
    "gelu_pytorch_tanh": ("roberta", {"hidden_act": "gelu_pytorch_tanh"}),
    "gelu_new in DistilBERT": ("distilbert", {"hidden_act": "gelu_new"}),
    "relu": ("bert", {"hidden_act": "relu"}),
    "relu in DistilBERT": ("distilbert", {"hidden_act": "relu"}),
    "a large epsilon": ("bert", {"layer_norm_eps": 0.3}),
    "an odd epsilon": ("roberta", {"layer_norm_eps": 1e-3}),
    "one token type": ("roberta", {"type_vocab_size": 1}),
    "another padding id": ("roberta", {"pad_token_id": 4}),
    "a padding id that is not RoBERTa's": ("bert", {"pad_token_id": 5}),
    "two labels": ("bert", {"num_labels": 2}),
    "many labels": ("distilbert", {"num_labels": 17}),
    "odd sizes": ("bert", {"hidden_size": 30, "num_attention_heads": 3, "intermediate_size": 37}),
    "a large vocabulary": ("distilbert", {"vocab_size": 30522}),
    "embeddings as wide as ELECTRA's layers": ("electra", {"embedding_size": 32}),
    "ReLU in ELECTRA's layers, and GELU in its head": ("electra", {"hidden_act": "relu"}),
    "one group of layers in ALBERT": ("albert", {"num_hidden_groups": 1, "inner_group_num": 1}),
    "groups that do not divide ALBERT's layers": ("albert", {"num_hidden_layers": 5, "num_hidden_groups": 3, "inner_group_num": 1}),
    "one layer of ALBERT": ("albert", {"num_hidden_layers": 1, "num_hidden_groups": 1, "inner_group_num": 1}),
    "GELU in ALBERT": ("albert", {"hidden_act": "gelu"}),
    "the mean of ModernBERT's tokens": ("modernbert", {"classifier_pooling": "mean"}),
    "the mean of one token's width": (
        "modernbert",
        {"classifier_pooling": "mean", "num_attention_heads": 1, "num_hidden_layers": 2},
    ),
    "ModernBERT without biases": (
        "modernbert",
        {"norm_bias": False, "attention_bias": False, "mlp_bias": False, "classifier_bias": False},
    ),
    "a last layer that sees near tokens only": ("modernbert", {"num_hidden_layers": 2}),
    "one layer of ModernBERT": ("modernbert", {"num_hidden_layers": 1}),
    "layers of ModernBERT by name": (
        "modernbert",
        {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    ),
    "other bases of rotary positions": (
        "modernbert",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 50.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
            }
        },
    ),
    "an odd window": ("modernbert", {"local_attention": 7}),
    "ModernBERT with ReLU, and GELU's approximation in its head": (
        "modernbert",
        {"hidden_act": "relu", "classifier_activation": "gelu_new"},
    ),
    "distances projected on their own": ("deberta-v2", {"share_att_key": False}),
    "distances without buckets": ("deberta-v2", {"position_buckets": -1}),
    "distances as far as there are positions": ("deberta-v2", {"max_relative_positions": -1}),
    "distances to contents only": ("deberta-v2", {"pos_att_type": ["p2c"]}),
    "contents to distances only": ("deberta-v2", {"pos_att_type": "c2p"}),
    "no look at distances": ("deberta-v2", {"relative_attention": False, "position_biased_input": True}),
    "DeBERTa-v2 with positions, token types and plain distances": (
        "deberta-v2",
        {"position_biased_input": True, "type_vocab_size": 2, "norm_rel_ebd": "none"},
    ),
    "one layer and one head of DeBERTa": ("deberta-v2", {"num_hidden_layers": 1, "num_attention_heads": 1}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_the_config_is_what_torch_takes_it_for(name: str, tmp_path: Path, encodings: list[Encoding]) -> None:
    family, options = OPTIONS[name]
    expected = logits_alone(save(tmp_path, family, **options), encodings)
    assert np.abs(packed_logits(session_of(read_encoder(tmp_path)), encodings) - expected).max() < 1e-4


def test_an_older_config_of_modernbert_is_read_alike(tmp_path: Path, encodings: list[Encoding]) -> None:
    from transformers import AutoModelForSequenceClassification

    save(tmp_path, "modernbert")
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    for name in ("rope_parameters", "layer_types"):
        del values[name]
    older = {"global_rope_theta": 50.0, "local_rope_theta": 7.0, "global_attn_every_n_layers": 2}
    file.write_text(json.dumps(values | older))
    expected = logits_alone(AutoModelForSequenceClassification.from_pretrained(tmp_path).eval(), encodings)
    assert np.abs(packed_logits(session_of(read_encoder(tmp_path)), encodings) - expected).max() < 1e-4


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
def test_weights_of_another_precision_are_read(kind: str, tmp_path: Path, encodings: list[Encoding]) -> None:
    model = save(tmp_path, "bert")
    model.to(getattr(torch, kind)).save_pretrained(tmp_path)
    encoder = read_encoder(tmp_path)
    assert encoder.words.dtype == np.float32
    expected = logits_alone(model.float(), encodings)
    assert np.abs(packed_logits(session_of(encoder), encodings) - expected).max() < 1e-4


def test_int8_stays_near_fp32(fp32: ort.InferenceSession, int8: ort.InferenceSession, encodings: list[Encoding]) -> None:
    assert relative_error(packed_logits(int8, encodings), packed_logits(fp32, encodings)) < MOST_ERROR


@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
def test_int8_stays_near_fp32_with_other_activations(activation: str, tmp_path: Path, encodings: list[Encoding]) -> None:
    save(tmp_path, "bert", hidden_act=activation)
    encoder = read_encoder(tmp_path)
    exact = packed_logits(session_of(encoder), encodings)
    for reduce_range in {saturates(), True}:
        session = session_of(encoder, make_recipes(encoder, random_encodings(3, [*range(3, 60)]), reduce_range=reduce_range))
        assert relative_error(packed_logits(session, encodings), exact) < MOST_ERROR
        assert moved(session, encodings) == 0


def test_there_is_a_recipe_for_each_product_and_a_reduced_range_keeps_all_of_them_to_seven_bits(
    encoder: Encoder, recipes: dict[str, Recipe]
) -> None:
    writer = Writer(encoder, probe=True)
    writer.write()
    assert list(recipes) == list(writer.probes)
    kinds = Counter(name.rpartition(".")[2] for name in recipes)
    unshared = len(set(encoder.layers))
    assert kinds["context"] == kinds["up"] == kinds["down"] == unshared
    assert kinds["first"] == 1
    assert kinds["attention"] == len(set(encoder.layers[:-1]))
    assert kinds["key"] == encoder.layers[-1].knows_place_of_keys
    assert kinds["project"] == (encoder.project is not None)
    reduced = make_recipes(encoder, random_encodings(3, [20] * 8), reduce_range=True)
    assert max(np.abs(recipe.weight.astype(int)).max() for recipe in reduced.values()) <= 63


@pytest.mark.parametrize(("buckets", "farthest"), [(256, 512), (16, 64), (32, 300), (2, 9)])
def test_distances_share_buckets_as_in_transformers(buckets: int, farthest: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distances = np.arange(-1023, 1024)
    theirs = make_log_bucket_position(torch.from_numpy(distances), buckets, farthest).long().numpy()
    assert np.array_equal(Distances(farthest, buckets).rows(distances), np.clip(theirs + buckets, 0, 2 * buckets - 1))


# --- the same in any batch


def test_no_batch_mate_moves_a_bit_in_fp32(fp32: ort.InferenceSession, encodings: list[Encoding]) -> None:
    assert moved(fp32, encodings) == 0


def test_no_batch_mate_moves_a_bit_in_int8(int8: ort.InferenceSession, encodings: list[Encoding]) -> None:
    assert moved(int8, encodings) == 0


def test_a_text_s_place_in_the_batch_does_not_matter(int8: ort.InferenceSession, encodings: list[Encoding]) -> None:
    together = packed_logits(int8, encodings)
    assert np.array_equal(packed_logits(int8, encodings[::-1]), together[::-1])
    assert np.array_equal(packed_logits(int8, [encodings[4]] * 33), np.repeat(together[4:5], 33, axis=0))


@pytest.mark.parametrize(
    ("family", "options"), [("bert", {}), ("modernbert", {}), ("modernbert", {"classifier_pooling": "mean"}), ("deberta-v2", {})]
)
def test_no_batch_mate_moves_a_bit_of_texts_of_512_tokens(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = save(tmp_path, family, max_position_embeddings=512, **options)
    encoder = read_encoder(tmp_path)
    long = random_encodings(4, [3, 20, 127, 128, 129, 200, 255, 256, 257, 300, 384, 449, 511, 512])
    exact = session_of(encoder)
    assert np.abs(packed_logits(exact, long) - logits_alone(model, long)).max() < 1e-4
    assert moved(exact, long, compositions=20) == 0
    assert moved(session_of(encoder, make_recipes(encoder, long)), long, compositions=20) == 0


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bert", {}),
        ("bert", {"hidden_act": "gelu_new"}),
        ("bert", {"hidden_act": "relu"}),
        ("modernbert", {"hidden_size": 30}),  # heads of an even size
        ("modernbert", {"hidden_size": 30, "classifier_pooling": "mean"}),
        ("deberta-v2", {}),
    ],
)
def test_no_batch_mate_moves_a_bit_where_sizes_do_not_fill_vector_registers(
    family: str, options: dict[str, Any], tmp_path: Path, encodings: list[Encoding]
) -> None:
    save(tmp_path, family, **{"hidden_size": 33, "num_attention_heads": 3, "intermediate_size": 67} | options)
    encoder = read_encoder(tmp_path)
    assert moved(session_of(encoder), encodings) == 0
    assert moved(session_of(encoder, make_recipes(encoder, encodings)), encodings) == 0


# --- errors


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A BERT checkpoint that a test may damage."""
    save(tmp_path, "bert")
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def configure(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change(folder: Path, edit: Callable[[dict[str, npt.NDArray[Any]]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = safetensors_numpy.load_file(file)
    edit(tensors)
    safetensors_numpy.save_file(tensors, file)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("hidden_act", "silu"),
        ("pruned_heads", {"0": [1]}),
        ("model_type", "convbert"),
        ("model_type", None),
    ],
)
def test_an_option_that_the_graph_does_not_have_is_named(option: str, value: object, damaged: Path) -> None:
    configure(damaged, **{option: value})
    with pytest.raises(UnsupportedEncoder, match=option) as raised:
        read_encoder(damaged)
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("deberta-v2", {"conv_kernel_size": 3}, "conv_kernel_size = 3"),
        ("deberta-v2", {"embedding_size": 16}, "embedding_size = 16"),
        ("deberta-v2", {"pooler_hidden_act": "tanh"}, "pooler_hidden_act = 'tanh'"),
        ("deberta-v2", {"position_buckets": 126}, "position_buckets = 126"),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling = 'max'"),
        ("modernbert", {"hidden_activation": "silu"}, "hidden_activation = 'silu'"),
        ("modernbert", {"rope_scaling": {"factor": 2.0}}, "rope_scaling"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0}}}, "rope_type = 'yarn'"),
        ("modernbert", {"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}}, "partial_rotary_factor"),
        ("modernbert", {"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters"),
        ("electra", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("albert", {"hidden_act": "silu"}, "hidden_act = 'silu'"),
    ],
)
def test_an_option_of_another_family_that_the_graph_does_not_have_is_named(
    family: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    save(tmp_path, family)
    configure(tmp_path, **options)
    with pytest.raises(UnsupportedEncoder, match=reason):
        read_encoder(tmp_path)


def test_an_unknown_activation_of_distilbert_is_named_as_it_names_it(tmp_path: Path) -> None:
    save(tmp_path, "distilbert")
    configure(tmp_path, activation="silu")
    with pytest.raises(UnsupportedEncoder, match="activation = 'silu'"):
        read_encoder(tmp_path)


@pytest.mark.parametrize("option", ["hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
def test_a_size_that_is_no_positive_integer_is_named(option: str, value: object, damaged: Path) -> None:
    configure(damaged, **{option: value})
    with pytest.raises(CheckpointError, match=f"{option} is {value!r}"):
        read_encoder(damaged)


def test_heads_that_do_not_divide_the_hidden_size_are_refused(damaged: Path) -> None:
    configure(damaged, num_attention_heads=5)
    with pytest.raises(CheckpointError, match="32 cannot be divided into 5 heads"):
        read_encoder(damaged)


def test_an_extra_tensor_is_named(damaged: Path) -> None:
    change(damaged, lambda tensors: tensors.update({"bert.adapter.weight": np.zeros(3, np.float32)}))
    with pytest.raises(CheckpointError, match=r"no place in a bert classifier: bert\.adapter\.weight"):
        read_encoder(damaged)


def test_an_index_buffer_of_an_old_checkpoint_is_no_extra_tensor(damaged: Path) -> None:
    change(damaged, lambda tensors: tensors.update({"bert.embeddings.position_ids": np.arange(200)[None]}))
    assert read_encoder(damaged).family == "bert"


def test_positions_that_deberta_does_not_have_are_left_out_and_said(tmp_path: Path) -> None:
    save(tmp_path, "deberta-v2")
    change(
        tmp_path, lambda tensors: tensors.update({"deberta.embeddings.position_embeddings.weight": np.zeros((200, 32), np.float32)})
    )
    said: list[str] = []
    assert read_encoder(tmp_path, said.append).positions is None
    assert "deberta.embeddings.position_embeddings.weight" in said[0]


def test_layers_that_the_config_does_not_count_are_extra(damaged: Path) -> None:
    configure(damaged, num_hidden_layers=2)
    with pytest.raises(CheckpointError, match=r"bert\.encoder\.layer\.2\."):
        read_encoder(damaged)


@pytest.mark.parametrize(
    "name", ["bert.embeddings.LayerNorm.bias", "bert.encoder.layer.1.attention.self.key.weight", "bert.pooler.dense.weight"]
)
def test_a_missing_tensor_is_named(name: str, damaged: Path) -> None:
    change(damaged, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"no tensor '{name}'"):
        read_encoder(damaged)


@pytest.mark.parametrize("shape", [(64, 31), (64,), (64, 32, 1)])
def test_a_tensor_of_another_shape_is_named_with_both(shape: tuple[int, ...], damaged: Path) -> None:
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    change(damaged, lambda tensors: tensors.update({name: np.zeros(shape, np.float32)}))
    with pytest.raises(CheckpointError) as raised:
        read_encoder(damaged)
    assert f"'{name}' has shape {list(shape)}, the config asks for [64, 32]" in str(raised.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(value: float, damaged: Path) -> None:
    def spoil(tensors: dict[str, npt.NDArray[Any]]) -> None:
        tensors["classifier.weight"][1, 3] = value

    change(damaged, spoil)
    with pytest.raises(CheckpointError, match=r"'classifier\.weight' has values that are not finite"):
        read_encoder(damaged)


def test_a_type_that_is_not_read_is_named(damaged: Path) -> None:
    change(damaged, lambda tensors: tensors.update({"classifier.weight": np.zeros((3, 32), np.int8)}))
    with pytest.raises(CheckpointError, match=r"'classifier\.weight' has type I8"):
        read_encoder(damaged)


@pytest.mark.parametrize("left", [0, 7, 500, -1])
def test_a_truncated_file_of_weights_is_named(left: int, damaged: Path) -> None:
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_encoder(damaged)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(name: str, damaged: Path) -> None:
    (damaged / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        read_encoder(damaged)


# --- the stored goldens


@pytest.mark.parametrize("golden", make.FAMILIES)
def test_the_stored_goldens_are_what_their_maker_makes_now(golden: str, tmp_path: Path) -> None:
    make.write(golden, tmp_path)
    now, stored = (json.loads((folder / f"{golden}.json").read_text()) for folder in (tmp_path, make.FOLDER))
    assert now["ids"] == stored["ids"]
    assert np.allclose(now["logits"], stored["logits"], atol=1e-4)
    fresh, kept = (onnx.load(folder / f"{golden}.onnx").graph for folder in (tmp_path, make.FOLDER))
    assert list(fresh.node) == list(kept.node), "the graph's form has changed: run `python -m tests.models.goldens.make`"
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in kept.initializer}
    assert {tensor.name for tensor in fresh.initializer} == set(weights)
    for tensor in fresh.initializer:
        assert np.allclose(onnx.numpy_helper.to_array(tensor), weights[tensor.name], atol=1e-5), tensor.name

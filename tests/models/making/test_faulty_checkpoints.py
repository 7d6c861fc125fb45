"""Checkpoints as people have them, at the command line: each is built right or refused in one line. Needs torch."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from commands.cli import app
from models.bundle import TOKENIZER, embedded_bundle
from models.classifier import Classifier
from models.types import Encoding

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

pytestmark = [
    pytest.mark.build,
    # The libraries' own deprecations, on their way through each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

LABELS = ("billing", "general", "technical")
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 30522,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: index for index, label in enumerate(LABELS)},
}
AS_IT_IS = {"tokenizer_class": "PreTrainedTokenizerFast"}


def save(folder: Path, family: str, head: str = "ForSequenceClassification", **options: Any) -> Any:  # noqa: ANN401 - a torch module
    """A random checkpoint with the embedded bundle's tokenizer; returns its model."""
    torch.manual_seed(5)
    config = getattr(transformers, f"{family}Config")(**SHAPE | options)
    model = getattr(transformers, f"{family}{head}")(config).eval()
    model.save_pretrained(folder)
    shutil.copy(embedded_bundle() / TOKENIZER, folder / TOKENIZER)
    (folder / "tokenizer_config.json").write_text(json.dumps(AS_IT_IS))
    return model


def configure(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = safetensors_torch.load_file(file)
    edit(tensors)
    safetensors_torch.save_file(tensors, file, metadata={"format": "pt"})


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def build(folder: Path, *options: str) -> tuple[Result, Path]:
    bundle = folder.with_name(folder.name + "-bundle")
    return run("build", folder, bundle, "--precision", "fp32", *options), bundle


def refused(folder: Path, *options: str) -> str:
    """The one line that a build ends with."""
    result, bundle = build(folder, *options)
    assert result.exit_code == 1, result.stderr
    assert isinstance(result.exception, SystemExit)  # not a traceback
    assert not bundle.exists()
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def same_logits(model: Any, bundle: Path) -> bool:  # noqa: ANN401 - a torch module
    """Whether the bundle gives torch's logits, also for the longest text."""
    classifier = Classifier.open(bundle)
    generator = np.random.default_rng(1)
    lengths = (3, 17, classifier.max_length)
    encodings = [Encoding(tuple(generator.integers(1000, 30000, length).tolist()), truncated=False) for length in lengths]
    with torch.inference_mode():
        expected = [model(input_ids=torch.tensor([encoding.ids])).logits.float().numpy()[0] for encoding in encodings]
    return bool(np.abs(classifier.logits(encodings) - np.stack(expected)).max() < 1e-3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(("family", "engine"), [("Camembert", "packed"), ("MPNet", "padded")])
def test_positions_numbered_from_the_padding_id(family: str, engine: str, folder: Path) -> None:
    model = save(folder, family, max_position_embeddings=66, pad_token_id=1)
    result, bundle = build(folder)
    assert result.exit_code == 0, result.stderr
    assert (Classifier.open(bundle).max_length, Classifier.open(bundle).manifest.engine) == (64, engine)
    assert same_logits(model, bundle)


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("Bert", {"hidden_act": "silu"}, "config.json: hidden_act = 'silu' is not supported"),
        ("MPNet", {"pad_token_id": 1}, "config.json: model_type = 'mpnet' is not supported"),
    ],
)
def test_what_the_padding_free_graph_does_not_have_is_traced_and_the_reason_said(
    family: str, options: dict[str, Any], reason: str, folder: Path
) -> None:
    model = save(folder, family, **options)
    assert f"{reason} (only " in refused(folder, "--max-length", "32", "--engine", "packed")
    result, bundle = build(folder, "--max-length", "32")
    assert result.exit_code == 0, result.stderr
    assert f"engine: padded, since there is no padding-free graph for this checkpoint: {reason}" in result.stderr
    assert Classifier.open(bundle).manifest.engine == "padded"
    assert same_logits(model, bundle)


@pytest.mark.parametrize(("options", "said"), [((), "packed (padding-free)"), (("--engine", "padded"), "padded, as asked for")])
def test_the_engine_is_said(options: tuple[str, ...], said: str, folder: Path) -> None:
    save(folder, "Electra")
    result, _ = build(folder, "--max-length", "32", *options)
    assert result.exit_code == 0, result.stderr
    assert f"engine: {said}" in result.stderr


def test_a_config_that_promises_too_many_positions_names_the_length_that_works(folder: Path) -> None:
    save(folder, "MPNet", max_position_embeddings=66, pad_token_id=0)  # its code takes 1 for the padding's id all the same
    assert "the model fails on a text of 65 tokens (index out of range in self); it takes --max-length 64" in refused(folder)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_weights_in_half_precision_are_built_in_float32(kind: str, folder: Path) -> None:
    model = save(folder, "Bert").to(getattr(torch, kind))
    model.save_pretrained(folder)
    result, bundle = build(folder, "--max-length", "32")
    assert result.exit_code == 0, result.stderr
    assert same_logits(model.float(), bundle)


@pytest.mark.parametrize("engine", ["packed", "padded"])
def test_a_limit_of_few_tokens_is_built_tuned_and_warmed_up(engine: str, folder: Path) -> None:
    save(folder, "Bert", max_position_embeddings=16)
    result, bundle = build(folder, "--max-length", "16", "--engine", engine)
    assert result.exit_code == 0, result.stderr
    Classifier.open(bundle).warm_up()
    tuned = run("tune", bundle, "--seconds", "1")
    assert tuned.exit_code == 0, tuned.stderr
    assert "BATCH_MAX_TOKENS=" in tuned.stdout


def test_weights_in_shards(folder: Path) -> None:
    model = save(folder, "Bert")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="500KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    result, bundle = build(folder, "--max-length", "32")
    assert result.exit_code == 0, result.stderr
    assert same_logits(model, bundle)
    assert len(json.loads((bundle / "manifest.json").read_text())["provenance"]["checkpoint_sha256"]) > 1


def test_half_precision_shards_and_left_over_tensors_of_a_traced_model(folder: Path) -> None:
    model = save(folder, "ConvBert").to(torch.bfloat16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="500KB")
    safetensors_torch.save_file({"discriminator_predictions.dense.bias": torch.ones(3)}, folder / "extra.safetensors")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["discriminator_predictions.dense.bias"] = "extra.safetensors"
    index.write_text(json.dumps(content))
    result, bundle = build(folder, "--max-length", "32")
    assert result.exit_code == 0, result.stderr
    assert "left out 1 tensors that the convbert classifier never reads: discriminator_predictions.dense.bias" in result.stderr
    assert same_logits(model.float(), bundle)
    content["weight_map"]["discriminator_predictions.dense.bias"] = "../extra.safetensors"
    index.write_text(json.dumps(content))
    shutil.rmtree(bundle)
    assert "is not the name of a .safetensors file in this folder" in refused(folder)


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("Bert", "Model"),
        ("Bert", "ForMaskedLM"),
        ("Bert", "ForTokenClassification"),
        ("Bert", "ForQuestionAnswering"),
        ("Roberta", "Model"),
        ("Electra", "Model"),
        ("Albert", "Model"),
        ("MPNet", "Model"),
        ("MPNet", "ForMaskedLM"),
    ],
)
def test_an_encoder_without_a_classification_head_names_train(family: str, head: str, folder: Path) -> None:
    save(folder, family, head)
    message = refused(folder, "--max-length", "32")
    assert f"has no classification head ({family}{head}, no tensor '" in message
    assert f"supportbot train --base {folder}" in message


def test_left_over_tensors_are_named_and_left_out(folder: Path) -> None:
    model = save(folder, "Roberta", max_position_embeddings=66, pad_token_id=1)
    extra = {"roberta.pooler.dense.weight": (32, 32), "roberta.embeddings.position_ids": (1, 66), "lm_head.bias": (5,)}
    change(folder, lambda tensors: tensors.update({name: torch.ones(shape) for name, shape in extra.items()}))
    result, bundle = build(folder)
    assert result.exit_code == 0, result.stderr
    assert f"left out 3 tensors that the roberta classifier never reads: {', '.join(sorted(extra))}" in result.stderr
    assert same_logits(model, bundle)


@pytest.mark.parametrize("family", ["Bert", "MPNet"])
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_hidden_layers": 1}, "tensors with no place in .*encoder.layer.1."),
        ({"num_hidden_layers": 3}, "no tensor '[a-z]+.encoder.layer.2."),
        ({"intermediate_size": 60}, r"has shape \[64.*\], the config asks for \[60"),
        ({"max_position_embeddings": 600}, r"has shape \[512, \d+\], the config asks for \[600, \d+\]"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized already .quantization_config, 'bitsandbytes'"),
        ({"problem_type": "regression"}, "problem_type = regression, and id2label has"),
    ],
)
def test_a_config_that_the_weights_contradict(family: str, values: dict[str, Any], reason: str, folder: Path) -> None:
    save(folder, family)
    configure(folder, **values)
    assert re.search(reason, refused(folder, "--max-length", "32"))


@pytest.mark.parametrize("family", ["Bert", "MPNet"])
def test_weights_that_are_no_numbers(family: str, folder: Path) -> None:
    save(folder, family)
    change(folder, lambda tensors: tensors[f"{family.lower()}.encoder.layer.1.output.dense.weight"].fill_(float("nan")))
    assert "output.dense.weight' has values that are not finite" in refused(folder, "--max-length", "32")


@pytest.mark.parametrize("options", [("--precision", "int8"), ("--precision", "fp32"), ("--engine", "padded")])
def test_weights_too_large_to_compute_with(options: tuple[str, ...], folder: Path) -> None:
    save(folder, "Bert")
    change(folder, lambda tensors: [tensors[name].fill_(3e38) for name in tensors if "value" in name or "classifier" in name])
    assert "not finite" in refused(folder, "--max-length", "32", *options)


def test_what_the_exporter_cannot_do_is_one_line_with_its_reason(folder: Path) -> None:
    save(folder, "Longformer", attention_window=8, max_position_embeddings=66, pad_token_id=1)
    message = refused(folder, "--max-length", "32")
    assert "torch cannot export this 'longformer' as an ONNX graph: Could not guard on data-dependent expression" in message


def test_a_trace_that_holds_for_some_lengths_only_is_no_bundle(folder: Path) -> None:
    save(folder, "BigBird", max_position_embeddings=256, block_size=8, num_random_blocks=1)
    assert "logits of a text of 256 tokens differ from torch's" in refused(folder)


def test_code_of_its_own_is_never_run(folder: Path) -> None:
    save(folder, "Bert")
    (folder / "modeling.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    configure(folder, model_type="mine", auto_map={"AutoConfig": "modeling.C", "AutoModelForSequenceClassification": "modeling.M"})
    assert "needs Python code of its own (auto_map), which is never run here" in refused(folder, "--max-length", "32")
    assert not (folder / "ran").exists()


# --- as the base of a training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "data.csv"
    file.write_text(
        "text,label\n" + "".join(f"{word} {n},{label}\n" for n in range(12) for word, label in (("a", "x"), ("b", "y")))
    )
    return file


def train(base: Path, data: Path, *options: str) -> tuple[Result, Path]:
    out = base.with_name("trained")
    return run("train", "--data", data, "--base", base, "--out", out, "--epochs", "1", "--max-length", "16", *options), out


def test_a_base_in_half_precision_is_trained_in_float32(folder: Path, data: Path) -> None:
    save(folder, "Bert", "Model").half().save_pretrained(folder)
    result, out = train(folder, data)
    assert result.exit_code == 0, result.stderr
    assert {tensor.dtype for tensor in safetensors_torch.load_file(out / "model.safetensors").values()} == {torch.float32}


def test_a_base_with_a_head_for_other_labels_gets_a_new_one(folder: Path, data: Path) -> None:
    save(folder, "Bert")
    configure(folder, problem_type="multi_label_classification")
    result, out = train(folder, data)
    assert result.exit_code == 0, result.stderr
    assert "these parts of its head are new: classifier.bias, classifier.weight" in result.stderr
    assert json.loads((out / "config.json").read_text())["problem_type"] == "single_label_classification"


@pytest.mark.parametrize(("words", "trained"), [(30520, True), (30000, False)])
def test_a_tokenizer_with_more_tokens_than_the_encoder(words: int, trained: bool, folder: Path, data: Path) -> None:
    save(folder, "Bert", "Model", vocab_size=words)
    result, out = train(folder, data)
    assert result.exit_code == (0 if trained else 1), result.stderr
    if trained:
        assert "2 of them: new embeddings" in result.stderr
        built, _ = build(out)
        assert built.exit_code == 0, built.stderr
    else:
        assert "tokenizer.json has token ids up to 30521, the encoder 30000 words: not a pair" in result.stderr


def test_a_loss_that_is_no_number_ends_the_training(folder: Path, data: Path) -> None:
    save(folder, "Bert", "Model")
    change(folder, lambda tensors: [value.fill_(3e38) for name, value in tensors.items() if "value" in name])
    result, out = train(folder, data, "--bfloat16")
    assert result.exit_code == 1
    assert (
        "epoch 1, batch 1 of 1: the loss is not a finite number; try a lower --learning-rate than 5e-05, or leave out --bfloat16"
        in (result.stderr)
    )
    assert not out.exists()
    assert not out.with_name("trained.partial").exists()  # other options may be tried at once


def test_a_gradient_that_is_no_number_ends_the_training(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder, "Bert", "Model")
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    result, _ = train(folder, data)
    assert "the gradient is not a finite number; try a lower --learning-rate than 5e-05, or another --base" in result.stderr


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_hidden_layers": 1}, "tensors with no place in the model of this config: encoder.layer.1."),
        ({"num_hidden_layers": 3}, "no tensor 'bert.encoder.layer.2."),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized already (quantization_config, 'gptq')"),
        ({"max_position_embeddings": 15}, "max length 16 is over the encoder's 15 positions; try --max-length"),
    ],
)
def test_a_base_that_contradicts_its_config_is_never_random(values: dict[str, Any], reason: str, folder: Path, data: Path) -> None:
    save(folder, "Bert", "Model")
    configure(folder, **values)
    result, out = train(folder, data)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert not out.exists()


def test_a_full_disk_ends_the_training_in_one_line(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder, "Bert", "Model")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    result, out = train(folder, data)
    assert result.exit_code == 1
    assert "No space left on device; the same command continues after the last epoch that was written" in result.stderr
    assert not out.exists()


# --- as a reference


def test_verify_fails_where_the_bundle_s_token_ids_are_not_the_checkpoint_s(folder: Path) -> None:
    save(folder, "Bert")
    result, bundle = build(folder, "--max-length", "32")
    assert result.exit_code == 0, result.stderr
    tokens = json.loads((bundle / "manifest.json").read_text())["provenance"]["tokens"]
    assert (tokens["compared_with"], tokens["different"]) == ("TokenizersBackend", 0)
    same = run("verify", bundle, "--reference", folder)
    assert same.exit_code == 0, same.stderr
    assert "texts are those of the checkpoint's own TokenizersBackend" in same.stderr
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    other = run("verify", bundle, "--reference", folder, "--json")
    assert other.exit_code == 1
    report = json.loads(other.stdout)
    assert "texts are not those of the checkpoint's own BertTokenizer" in report["faults"][0]
    assert report["tokens"]["differences"]

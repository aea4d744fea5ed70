import subprocess
import sys
import textwrap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.fleets import publish_tenants
from registry.disk.tier import DiskTier, MappedModel
from registry.errors import BundleCorrupt, ProgramCorrupt, ProgramUntrusted
from registry.model.bundle import Label, Labels, Manifest
from registry.model.program import RELEASED_PROGRAMS
from registry.model.runtime import BoundModel, Features, Program, is_at_least
from registry.store.local import LocalStore

TEXTS = ["Where is my parcel?", "", "返金してください", "a" * 20_000, "refund REFUND ﬁne", "\ud800 broken", "x\x00y"]


@pytest.fixture(scope="module")
def model(bag: Program, tmp_path_factory: pytest.TempPathFactory) -> BoundModel:
    folder = tmp_path_factory.mktemp("model")
    store = LocalStore(folder / "store")
    manifest = publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec, macros=7)["acme"]
    tier = DiskTier(folder / "disk", store, trusted=frozenset([bag.digest]))
    tier.install_model("acme", manifest.version, manifest.digest)
    return bag.bind(tier.map_model("acme", manifest.version, manifest.digest))


def test_the_built_program_is_the_released_one(bag: Program) -> None:
    assert bag.digest == RELEASED_PROGRAMS["bag"]


def test_a_program_that_is_not_trusted_is_not_loaded(bag_folder: Path) -> None:
    with pytest.raises(ProgramUntrusted):
        Program(bag_folder, trusted=frozenset())


@pytest.mark.parametrize(
    ("version", "least", "enough"),
    [
        ("2.21.0", "2.21", True),
        ("2.21.0-rc1", "2.21", True),
        ("2.22.0-dev20260101", "2.21", True),
        ("2.100.0", "2.21", True),
        ("3.0.0", "2.21", True),
        ("2.9.3", "2.21", False),
        ("2.20.0", "2.21", False),
        ("1.99.0", "2", False),
        ("2.21.0", "2.21.1", False),
        ("nightly", "2.21", False),
    ],
)
def test_versions_of_tensorflow_are_compared_as_numbers(version: str, least: str, enough: bool) -> None:
    assert is_at_least(version, least) is enough


@pytest.mark.parametrize("least", ["", "two", "2.", "2.21-rc1", "2.21\n"])
def test_a_program_that_asks_for_no_version_is_refused(least: str) -> None:
    with pytest.raises(ProgramCorrupt, match="no version"):
        is_at_least("2.21.0", least)


def test_the_quick_scorer_equals_the_programs_own(bag: Program, model: BoundModel) -> None:
    features = bag.featurise(TEXTS)
    quick, own = model.score(features), model.score_in_program(features)
    assert quick.shape == own.shape == (len(TEXTS), 7)
    np.testing.assert_allclose(quick, own, atol=1e-5)
    np.testing.assert_allclose(quick.sum(axis=1), 1, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=6))
def test_a_ticket_scores_the_same_alone_and_in_any_batch(bag: Program, model: BoundModel, texts: list[str]) -> None:
    together = bag.featurise(texts)
    scores = model.score(together)
    own = model.score_in_program(together)
    for index, text in enumerate(texts):
        alone = bag.featurise([text])
        part = together.select(index)
        for name, tensor in alone.tensors.items():
            np.testing.assert_array_equal(part.tensors[name], tensor)
        for same in (model.score(part)[0], model.score(alone)[0], model.score_ticket(together, index)):
            np.testing.assert_array_equal(same, scores[index])
        np.testing.assert_allclose(own[index], scores[index], atol=1e-5)


def test_no_tickets_have_no_scores(bag: Program, model: BoundModel) -> None:
    assert model.score(bag.featurise([])).shape == (0, 7)


def test_many_threads_score_one_ticket_alike(bag: Program, model: BoundModel) -> None:
    features = bag.featurise([f"{text} {number}" for number in range(8) for text in TEXTS])
    expected = model.score(features)

    def score(index: int) -> NDArray[np.float32]:
        return model.score_ticket(features, index)

    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            np.testing.assert_array_equal(list(threads.map(score, range(features.tickets))), expected)


def test_many_threads_featurise_alike(bag: Program) -> None:
    expected = bag.featurise(TEXTS)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(bag.featurise, [TEXTS] * 40):
            for name, tensor in expected.tensors.items():
                np.testing.assert_array_equal(found.tensors[name], tensor)


def test_a_ticket_of_which_nothing_is_known_gets_no_answer_from_the_bias_alone(bag: Program) -> None:
    unseen = mapped(bag, {"bias": np.array([0, 1, 2], np.float32), "embedding": np.ones((40_000, 64), np.float32)})
    features = bag.featurise(["ᚠᚢᚦ ᚨᚱᚲ", "", "anything"])
    for index, expected in enumerate([softmax([0, 0, 0]), softmax([0, 0, 0]), softmax([0, 1, 2])]):
        np.testing.assert_allclose(bag.bind(unseen).score_ticket(features, index), expected, rtol=1e-6)
        # Arrays, not what was bound: these do not begin on 64 bytes.
        np.testing.assert_allclose(bag.score_in_program(features, unseen.tensors)[index], expected, rtol=1e-6)


def test_the_prior_answers_where_training_saw_nothing(bag: Program) -> None:
    features = bag.featurise(["anything"])
    prior_kernel = np.zeros((features.tensors["prior"].shape[1], 3), np.float32)
    prior_kernel[:, 1] = 5 * features.tensors["prior"][0]
    scores = bag.bind(mapped(bag, {"prior_kernel": prior_kernel})).score_ticket(features, 0)
    np.testing.assert_allclose(scores, softmax([0, 5, 0]), rtol=1e-4)


def softmax(logits: list[float]) -> NDArray[np.float64]:
    exponents = np.exp(np.array(logits, np.float64))
    scores: NDArray[np.float64] = exponents / exponents.sum()
    return scores


def test_an_embedding_in_whole_numbers_scores_like_the_same_in_floats(bag: Program) -> None:
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal([3 if isinstance(size, str) else size for size in spec.shape]).astype(spec.dtype)
        for name, spec in bag.spec.weights("score_f32").items()
    }
    whole = rng.integers(-127, 128, weights["embedding"].shape, np.int8)
    weights["kernel"] /= 500
    features = bag.featurise(TEXTS)
    short = {**weights, "embedding": whole}
    expected = bag.score(features, {**weights, "embedding": whole.astype(np.float32)})
    assert np.ptp(expected, axis=1).max() > 0.2
    np.testing.assert_allclose(bag.bind(mapped(bag, short)).score(features), expected, atol=1e-5)
    # Arrays, not what was bound: these do not begin on 64 bytes.
    np.testing.assert_allclose(bag.score_in_program(features, short), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("bias", np.nan), ("kernel", np.inf), ("embedding", np.nan), ("weight", np.nan), ("weight", np.inf)],
)
def test_a_model_whose_scores_are_no_numbers_does_not_pass_the_check(bag: Program, name: str, value: float) -> None:
    features = bag.featurise(["anything"])
    weights = {
        tensor: np.ones([3 if isinstance(size, str) else size for size in spec.shape], np.float32)
        for tensor, spec in bag.spec.weights("score_f32").items()
    }
    bag.bind(mapped(bag, weights)).check(features)
    with pytest.raises(BundleCorrupt, match="acme"):
        bag.bind(mapped(bag, {**weights, name: np.full_like(weights[name], value)})).check(features)


def test_a_scorer_that_does_not_know_its_macros_does_not_pass_the_check(
    bag: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = bag.bind(mapped(bag))
    monkeypatch.setattr(bag, "_quick_score", lambda *_: np.ones(2, np.float32))
    with pytest.raises(BundleCorrupt, match="acme"):
        bound.check(bag.featurise(["anything"]))


def test_a_program_without_a_quick_scorer_scores_by_its_own_function(
    bag: Program, model: BoundModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = bag.featurise(TEXTS)
    quick = model.score(features)
    monkeypatch.setattr(bag, "_quick_score", None)
    np.testing.assert_allclose(model.score(features), quick, atol=1e-5)
    np.testing.assert_allclose(model.score_ticket(features, 2), quick[2], atol=1e-5)


def test_text_is_normalised_inside_the_program(bag: Program) -> None:
    one, other = bag.featurise(["Refund  FINE"]), bag.featurise([" refund\n\u00a0\ufb01ne "])
    np.testing.assert_array_equal(one.tensors["ids"], other.tensors["ids"])


def test_a_long_text_is_read_to_a_bound(bag: Program) -> None:
    for text in ("ab " * 400_000, "\ufdfa" * 400_000):
        assert len(bag.featurise([text]).tensors["ids"]) < 20_000


def test_batches_join_into_one(bag: Program) -> None:
    joined = Features.concatenate([bag.featurise(["a b"]), bag.featurise(["", "c"])])
    whole = bag.featurise(["a b", "", "c"])
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(joined.tensors[name], tensor)


def mapped(
    bag: Program, changes: Mapping[str, NDArray[Any] | None] | None = None, *, program: str | None = None
) -> MappedModel:
    macros = 3
    tensors: dict[str, NDArray[Any]] = {
        name: np.zeros([macros if isinstance(size, str) else size for size in spec.shape], spec.dtype)
        for name, spec in bag.spec.weights("score_f32").items()
    }
    for name, array in (changes or {}).items():
        if array is None:
            del tensors[name]
        else:
            tensors[name] = array
    manifest = Manifest(
        tenant="acme",
        program=program or bag.digest,
        files={},
        data_fingerprint="0" * 64,
        settings={},
        metrics={},
        threshold=0,
    )
    labels = Labels(macros=tuple(Label(id=f"m{index}", title="") for index in range(macros)))
    return MappedModel(manifest=manifest, labels=labels, tensors=tensors, nbytes=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": None},
        {"extra": np.zeros(3, np.float32)},
        {"bias": np.zeros(4, np.float32)},
        {"bias": np.zeros((3, 1), np.float32)},
        {"bias": np.zeros(3, np.float16)},
        {"kernel": np.zeros((63, 3), np.float32)},
        {"embedding": np.zeros((39_999, 64), np.float32)},
        {"embedding": np.zeros((39_999, 64), np.int8)},
        {"embedding": np.zeros((40_000, 64), np.int8), "bias": np.zeros(3, np.int8)},
        {"prior_kernel": np.zeros((255, 3), np.float32)},
    ],
)
def test_weights_that_the_program_cannot_take_are_refused_before_they_are_bound(
    bag: Program, changes: dict[str, NDArray[Any] | None]
) -> None:
    with pytest.raises(BundleCorrupt):
        bag.bind(mapped(bag, changes))


def test_weights_of_another_program_are_refused(bag: Program) -> None:
    with pytest.raises(BundleCorrupt, match="was made for program"):
        bag.bind(mapped(bag, program="f" * 64))
    bag.bind(mapped(bag))


@pytest.mark.parametrize(("offset", "survives"), [(64, True), (8, False)])
def test_a_misaligned_tensor_ends_the_process_which_is_why_bundles_are_checked(offset: int, survives: bool) -> None:
    """The trap itself, in a process of its own: when TensorFlow no longer has it, the check may go."""
    script = f"""
        import sys, numpy as np, tensorflow as tf
        from registry.model.text_operations import tensorflow_text
        assert tensorflow_text.FastWordpieceTokenizer
        assert "keras" not in sys.modules, "the command line asks for this, too: it is half of the import"
        memory = np.zeros(4096 * 64 + 64, np.uint8)
        start = -memory.ctypes.data % 64 + {offset}
        array = memory[start:start + 4096 * 32].view(np.float32).reshape(-1, 64)
        bound = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
        print(float(tf.reduce_sum(tf.gather(bound, [1, 2, 3]))))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        check=False,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"},
    )
    assert (done.returncode == 0) is survives


def test_features_of_some_tickets_are_those_of_each(bag: Program) -> None:
    features = bag.featurise(["a b c", "", "d e", "f"])
    taken = features.take(np.array([3, 0, 0, 1]))
    assert taken.tickets == 4
    for place, index in enumerate([3, 0, 0, 1]):
        for name, tensor in features.select(index).tensors.items():
            np.testing.assert_array_equal(taken.select(place).tensors[name], tensor)
    assert features.take(np.array([], np.int64)).tickets == 0
    plain = Features({"vector": np.arange(6).reshape(3, 2)}, 3, frozenset({"vector"}))
    np.testing.assert_array_equal(plain.take(np.array([2, 0])).tensors["vector"], [[4, 5], [0, 1]])

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.catalogue import Macro, make_catalogue
from registry.disk.tier import DiskTier
from registry.errors import InvalidInput, NotEnoughData
from registry.model.bundle import Manifest, parse_labels
from registry.model.runtime import Program
from registry.model.tensors import map_tensors
from registry.publishing import publish_bundle
from registry.store.local import LocalStore
from training.calibration import tempered
from training.examples import Example, split_examples
from training.fitting import FitSettings, Fitter, inverse_document_frequency, ngram_share
from training.folded_fit import featurise
from training.holdout import hold_out
from training.importers import Imported
from training.judging import Wish, evaluate_tenants
from training.macros import described
from training.tenants import labels_of
from training.trainer import Trainer

WORDS = {
    "ship": ["parcel", "delivery", "courier", "tracking"],
    "refund": ["money", "refund", "charge", "invoice"],
    "login": ["password", "account", "login", "locked"],
}


def make(count: int, *, macros: int = 3) -> list[Example]:
    rng = np.random.default_rng(3)
    rows = []
    for number in range(count):
        macro = list(WORDS)[number % macros]
        words = [*rng.choice(WORDS[macro], 2), *rng.choice(["please", "hello", "my", "the", "is"], 3)]
        rows.append(Example(ticket_id=f"t{number}", body=" ".join(words), macro_id=macro))
    return rows


@pytest.fixture(scope="module")
def trainer(bag: Program) -> Trainer:
    return Trainer(bag, FitSettings(least_steps=60))


def train(trainer: Trainer, rows: list[Example], folder: Path) -> Manifest:
    folder.mkdir()
    return trainer.train("acme", rows, folder).manifest


def test_what_can_be_learned_is_learned(trainer: Trainer, tmp_path: Path) -> None:
    trained = trainer.train("acme", make(150), tmp_path)
    split = split_examples(make(150))
    assert (trained.evaluation.top1 or 0) > 0.9
    assert (trained.macros, trained.examples) == (3, len(split.train) + len(split.validation))
    assert 7e6 < trained.manifest.files["weights.safetensors"].size < 15e6
    assert trained.fit_seconds > 0


def test_the_same_data_give_the_same_digest_whatever_was_trained_before(
    trainer: Trainer, bag: Program, tmp_path: Path
) -> None:
    first = train(trainer, make(90), tmp_path / "a")
    other = train(trainer, make(60), tmp_path / "b")
    again = train(trainer, make(90)[::-1], tmp_path / "c")
    fresh = train(Trainer(bag, FitSettings(least_steps=60)), make(90), tmp_path / "d")
    assert first.digest == again.digest == fresh.digest != other.digest
    assert train(Trainer(bag, FitSettings(least_steps=60, seed=1)), make(90), tmp_path / "e").digest != first.digest


def test_what_serves_predicts_what_training_predicted(trainer: Trainer, bag: Program, tmp_path: Path) -> None:
    rows = make(90)
    manifest = train(trainer, rows, tmp_path / "bundle")
    store = LocalStore(tmp_path / "store")
    publish_bundle(store, tmp_path / "bundle", tenant="acme")
    tier = DiskTier(tmp_path / "disk", store, trusted=frozenset([bag.digest]))
    tier.install_model("acme", manifest.version, manifest.digest)
    model = bag.bind(tier.map_model("acme", manifest.version, manifest.digest))
    features = featurise(bag, [row.text for row in rows])
    offline = bag.score(features, map_tensors(tmp_path / "bundle" / "weights.safetensors"))
    np.testing.assert_allclose(model.score(features), offline, atol=1e-6)
    np.testing.assert_allclose(model.score_in_program(features), offline, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "has 0 labelled tickets, 20 are needed"),
        (make(19), "has 19 labelled tickets, 20 are needed"),
        (make(50, macros=1), "uses 1 macro, 2 are needed"),
        (
            [*make(50, macros=1), Example(ticket_id="x", body="a", macro_id="refund", split="test")],
            "has 1 macros in its",
        ),
    ],
)
def test_too_little_data_is_named_and_nothing_is_written(
    trainer: Trainer, tmp_path: Path, rows: list[Example], complaint: str
) -> None:
    with pytest.raises(NotEnoughData, match=complaint):
        trainer.train("acme", rows, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_scores_are_calibrated_in_the_weights_and_the_manifest_says_how(
    trainer: Trainer, bag: Program, tmp_path: Path
) -> None:
    rows = make(150)
    manifest = train(trainer, rows, tmp_path / "bundle")
    temperature, seed = manifest.metrics["temperature"], FitSettings(least_steps=60)
    assert 0.05 < temperature < 1, "label smoothing makes a fit too modest"
    assert manifest.metrics["calibration_rows"] == len(split_examples(rows).train)
    assert manifest.settings["precision"] == 0.8

    held = hold_out(split_examples(rows))
    macros = sorted(WORDS)
    fitted = [held.rows[row] for row in held.final]
    said = described(labels_of(macros, None), fitted, None)
    features = featurise(bag, [*(row.text for row in fitted), *(text for text, _ in said)])
    applied = [*(row.macro_id or "" for row in fitted), *(macro for _, macro in said)]
    targets = np.array([macros.index(macro) for macro in applied], np.int32)
    plain = Fitter(bag.spec, seed).fit(features, targets, len(macros))
    served = map_tensors(tmp_path / "bundle" / "weights.safetensors")
    np.testing.assert_allclose(
        bag.score(features, served), tempered(bag.score(features, plain), temperature), atol=1e-4
    )


def test_the_threshold_follows_the_precision_that_is_asked_for(trainer: Trainer, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # A third of the labels is anything: no model is right more often than about seven times in ten.
    names = [f"m{number}" for number in range(12)]
    rows = [replace(row, macro_id=str(rng.choice(names)) if rng.random() < 0.35 else row.macro_id) for row in make(240)]
    thresholds = []
    for precision in (0.5, 0.9):
        folder = tmp_path / str(precision)
        folder.mkdir()
        manifest = trainer.train("acme", rows, folder, precision=precision).manifest
        thresholds.append(manifest.threshold)
        assert manifest.settings["precision"] == precision
    assert 0 < thresholds[0] < thresholds[1]


def test_rows_that_say_all_the_same_are_fitted_without_calibration(trainer: Trainer, tmp_path: Path) -> None:
    rows = [Example(ticket_id=str(n), body="help", macro_id=f"m{n % 2}", split="train") for n in range(30)]
    manifest = trainer.train("acme", rows, tmp_path).manifest
    assert (manifest.metrics["temperature"], manifest.threshold) == (1.0, 0.0)


def test_rows_that_training_never_saw_weigh_nothing(bag: Program) -> None:
    features = bag.featurise(["a b", "a c"])
    tensors = Fitter(bag.spec, FitSettings(least_steps=2, epochs=1)).fit(features, np.array([0, 1], np.int32), 2)
    seen = np.unique(features.tensors["ids"][features.tensors["ids"] > 0])  # row 0 stands for no feature
    assert set(np.flatnonzero(tensors["weight"])) == set(seen)
    assert not np.delete(tensors["embedding"], seen, axis=0).any()


def test_words_that_training_never_saw_are_answered_by_what_they_mean(bag: Program) -> None:
    texts = ["my parcel has not arrived", "where is my delivery", "i want my money back", "please refund me"] * 3
    tensors = Fitter(bag.spec, FitSettings()).fit(bag.featurise(texts), np.array([0, 0, 1, 1] * 3, np.int32), 2)
    asked = bag.featurise(["package never came", "shipment still missing", "reimburse us", "repay all cash"])
    assert bag.score(asked, tensors).argmax(axis=1).tolist() == [0, 0, 1, 1]
    without = {**tensors, "prior_kernel": np.zeros_like(tensors["prior_kernel"])}
    assert (bag.score(asked, tensors).max(axis=1) > bag.score(asked, without).max(axis=1)).all()


def test_the_fewer_examples_a_macro_has_the_more_the_prior_counts() -> None:
    settings = FitSettings(share_few=0.2, share_many=0.6)
    shares = [float(ngram_share(settings, examples)) for examples in (1, 10, 17.8, 31.6, 5000)]
    np.testing.assert_allclose(shares, [0.2, 0.2, 0.4, 0.6, 0.6], atol=1e-3)


def test_whole_numbers_make_a_bundle_small_and_score_alike(bag: Program) -> None:
    features = bag.featurise([row.text for row in make(90)])
    targets = np.arange(90, dtype=np.int32) % 3
    long, short = (
        Fitter(bag.spec, FitSettings(least_steps=60, embedding=embedding)).fit(features, targets, 3)
        for embedding in ("float32", "int8")
    )
    assert short["embedding"].dtype == np.int8
    assert sum(tensor.nbytes for tensor in short.values()) < 4e6 < sum(tensor.nbytes for tensor in long.values()) < 15e6
    assert np.ptp(bag.score(features, long), axis=1).min() > 0.1
    np.testing.assert_allclose(bag.score(features, short), bag.score(features, long), atol=0.01)


def test_inverse_document_frequency_by_hand() -> None:
    ids, lengths = np.array([0, 0, 1, 1, 2], np.int32), np.array([3, 2], np.int64)
    expected = [np.log(3 / 2) + 1, np.log(3 / 3) + 1, np.log(3 / 2) + 1, 0]
    np.testing.assert_allclose(inverse_document_frequency(ids, lengths, 4), expected, rtol=1e-6)


def test_a_retired_macro_is_no_class_and_its_tickets_count_for_nothing(trainer: Trainer, tmp_path: Path) -> None:
    catalogue = make_catalogue(Macro(id=name, title=name, active=name != "refund") for name in WORDS)
    trained = trainer.train("acme", make(150), tmp_path, catalogue=catalogue)
    labels = parse_labels((tmp_path / "macros.json").read_bytes(), what="macros.json").macros
    assert [label.id for label in labels] == ["login", "ship"]
    assert (trained.macros, trained.examples + trained.evaluation.rows) == (2, 100)
    (tmp_path / "other").mkdir()
    without = [row for row in make(150) if row.macro_id != "refund"]
    again = trainer.train("acme", without, tmp_path / "other", catalogue=catalogue)
    assert again.manifest.digest == trained.manifest.digest


def test_a_macro_with_one_example_is_known_by_its_title_and_reply(trainer: Trainer, tmp_path: Path) -> None:
    rows = [
        *make(100, macros=2),
        Example(ticket_id="once", body="something else", macro_id="new", split="train"),
        Example(ticket_id="then", body="cancel my subscription", macro_id="new", split="test"),
    ]
    rows = [replace(row, split=row.split or "train") for row in rows]
    reply = {"field": "comment_value_html", "value": "<p>We have ended your subscription</p>"}
    titles = {"ship": "Shipping", "refund": "Refunds", "new": "Plans::Cancel"}
    catalogue = make_catalogue(
        Macro(id=name, title=title, actions=(reply,) if name == "new" else ()) for name, title in titles.items()
    )
    assert trainer.train("acme", rows, tmp_path, catalogue=catalogue).evaluation.top1 == 1.0
    (tmp_path / "other").mkdir()
    assert trainer.train("acme", rows, tmp_path / "other").evaluation.top1 == 0.0


def test_every_macro_of_a_ticket_is_learned(trainer: Trainer, bag: Program, tmp_path: Path) -> None:
    rows = [replace(row, also=("ask",)) if row.macro_id == "login" else row for row in make(150)]
    trainer.train("acme", rows, tmp_path)
    scores = bag.score(bag.featurise(["password locked"]), map_tensors(tmp_path / "weights.safetensors"))[0]
    labels = parse_labels((tmp_path / "macros.json").read_bytes(), what="macros.json").macros
    by_id = dict(zip((label.id for label in labels), scores.tolist(), strict=True))
    assert min(by_id["ask"], by_id["login"]) > 0.25
    assert by_id["ask"] + by_id["login"] > 0.7


def test_a_macro_in_fashion_keeps_only_a_part_of_its_lead(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in make(150) if row.macro_id == "ship" or int(row.ticket_id[1:]) < 30]
    bias = []
    for name, strength in (("with", 0.25), ("without", 0.0)):
        monkeypatch.setattr("training.macros.STRENGTH", strength)
        manifest = train(trainer, rows, tmp_path / name)
        bias.append(map_tensors(tmp_path / name / "weights.safetensors")["bias"] * manifest.metrics["temperature"])
    # In the order of labels: login, refund, ship.
    assert (bias[1] - bias[0])[2] > 0.2
    np.testing.assert_allclose((bias[1] - bias[0]).sum(), 0, atol=1e-4)


def test_labels_that_are_hardly_meant_are_not_fitted(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def doubt_the_first(scores: Any, targets: Any, ticket_ids: Any) -> Any:
        asked.append(scores.shape)
        assert (scores.argmax(axis=1) == targets).mean() > 0.9, "scored by what was fitted without them"
        return np.arange(len(targets)) < 4

    monkeypatch.setattr("training.folded_fit.LEAST_ROWS", 100)
    monkeypatch.setattr("training.folded_fit.doubtful", doubt_the_first)
    told: list[float] = []
    (tmp_path / "a").mkdir()
    trained = trainer.train("acme", make(150), tmp_path / "a", progress=told.append)
    assert asked == [(trained.examples, 3)]
    assert trained.manifest.metrics["doubted_rows"] == 4
    assert told == sorted(told)
    assert told[-1] == 1.0
    monkeypatch.setattr("training.folded_fit.doubtful", lambda scores, targets, ticket_ids: targets < 0)
    assert train(trainer, make(150), tmp_path / "b").files != trained.manifest.files


@pytest.mark.parametrize(
    "texts",
    [
        {"ship": "สินค้ายังไม่มาส่ง", "refund": "ขอเงินคืนค่ะ", "login": "เข้าสู่ระบบไม่ได้"},
        {"ship": "商品がまだ届きません", "refund": "返金をお願いします", "login": "ログインできません"},
        {"ship": "أين طلبي لم يصل بعد", "refund": "أريد استرداد نقودي", "login": "لا أستطيع تسجيل الدخول"},
        {"ship": "ההזמנה לא הגיעה", "refund": "אני רוצה החזר כספי", "login": "לא מצליח להתחבר"},
    ],
)
def test_scripts_without_spaces_and_from_right_to_left_are_learned(
    trainer: Trainer, tmp_path: Path, texts: dict[str, str]
) -> None:
    rows = [
        Example(
            ticket_id=f"{macro}{number}",
            body=f"{number} {text[: -(number % 3) or None]}",
            macro_id=macro,
            split="train" if number < 25 else "test",
        )
        for macro, text in texts.items()
        for number in range(30)
    ]
    assert trainer.train("acme", rows, tmp_path).evaluation.top1 == 1.0


def test_progress_reaches_the_end(bag: Program) -> None:
    told: list[float] = []
    Fitter(bag.spec, FitSettings(least_steps=5, epochs=2)).fit(
        bag.featurise(["a", "b"]), np.array([0, 1], np.int32), 2, progress=told.append
    )
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_out_of_scope_rows_are_scored_only_as_nothing_fits(trainer: Trainer, tmp_path: Path) -> None:
    outside = [Example(ticket_id=f"x{n}", body="zebra", macro_id=None, split="test") for n in range(5)]
    inside = [Example(ticket_id=e.ticket_id, body=e.body, macro_id=e.macro_id, split="train") for e in make(60)]
    trained = trainer.train("acme", [*inside, *outside], tmp_path)
    assert (trained.macros, trained.evaluation.rows) == (3, 0)
    assert trained.evaluation.oos_recall is not None


def test_rows_that_are_all_for_training_cannot_be_judged(bag: Program) -> None:
    rows = [Example(ticket_id=e.ticket_id, body=e.body, macro_id=e.macro_id, split="train") for e in make(60)]
    with pytest.raises(InvalidInput, match="there are no test rows"):
        evaluate_tenants({"acme": Imported(examples=rows)}, bag, wish=Wish(), step=lambda _text, _share: None)

import numpy as np

from registry.catalogue import Macro, make_catalogue
from registry.model.bundle import Label
from training.examples import Example
from training.macros import FEW_EXAMPLES, STRENGTH, described, evened_out, learnable


def example(number: int, *macros: str) -> Example:
    return Example(
        ticket_id=str(number), body=f"text {number}", macro_id=macros[0] if macros else None, also=tuple(macros[1:])
    )


CATALOGUE = make_catalogue(
    [
        Macro(id="ship", title="Shipping::Where is it"),
        Macro(id="old", title="Old", active=False),
        Macro(id="vip", title="For some", restriction={"group": "vip"}),
    ]
)


def test_a_ticket_with_several_macros_is_an_example_of_each() -> None:
    rows = learnable([example(1, "ship", "vip"), example(2)], None)
    assert [(row.ticket_id, row.macro_id, row.also, row.text) for row in rows] == [
        ("1", "ship", (), "text 1"),
        ("1", "vip", (), "text 1"),
        ("2", None, (), "text 2"),
    ]


def test_retired_macros_are_not_learned_and_do_not_become_out_of_scope() -> None:
    examples = [example(1, "ship"), example(2, "old"), example(3, "gone"), example(4, "old", "vip"), example(5)]
    rows = learnable(examples, CATALOGUE)
    assert [(row.ticket_id, row.macro_id) for row in rows] == [("1", "ship"), ("4", "vip"), ("5", None)]
    assert len(learnable(examples, None)) == 6


def test_one_agents_own_macros_are_shown_to_nobody_and_not_learned() -> None:
    own = Macro(id="own", title="Mine", restriction={"type": "User", "id": 7})
    rows = learnable([example(1, "own"), example(2, "ship", "own")], make_catalogue([*CATALOGUE.macros, own]))
    assert [(row.ticket_id, row.macro_id) for row in rows] == [("2", "ship")]


def test_titles_and_replies_stand_for_macros_with_few_examples() -> None:
    labels = [
        Label(id="ship", title="Shipping::Where is it"),
        Label(id="used", title="Used often"),
        Label(id="360001", title="360001"),
    ]
    reply = {"field": "comment_value", "value": "Hello {{ticket.requester.name}},\nit is on its way."}
    catalogue = make_catalogue([Macro(id="ship", title="x", actions=(reply,)), Macro(id="used", title="x")])
    examples = [example(number, "used") for number in range(FEW_EXAMPLES)] + [example(99, "ship")]
    of_ship = [("Shipping Where is it", "ship"), ("Hello ,\nit is on its way.", "ship")]
    assert described(labels, examples, catalogue) == of_ship
    assert described(labels, examples, None) == of_ship[:1]
    assert described(labels, examples[1:], None) == [*of_ship[:1], ("Used often", "used")]


def test_frequent_macros_lose_a_part_of_their_lead() -> None:
    kernel = np.ones((2, 3), np.float32)
    targets = np.array([0] * 1000 + [1] * 10 + [2] * 10, np.int32)
    evened = evened_out({"kernel": kernel, "bias": np.zeros(3, np.float32)}, targets)
    assert evened["kernel"] is kernel
    assert evened["bias"].dtype == np.float32
    np.testing.assert_allclose(evened["bias"][1:] - evened["bias"][0], STRENGTH * np.log(100), rtol=1e-6)
    even = evened_out({"bias": np.full(3, 0.5, np.float32)}, np.arange(3, dtype=np.int32))
    np.testing.assert_array_equal(even["bias"], np.full(3, 0.5, np.float32))
    assert evened_out({"kernel": kernel}, targets) == {"kernel": kernel}
    unseen = evened_out({"bias": np.zeros(2, np.float32)}, np.zeros(5, np.int32))
    assert np.isfinite(unseen["bias"]).all()

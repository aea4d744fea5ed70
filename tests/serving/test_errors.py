from __future__ import annotations

from collections.abc import Iterator

import registry.errors
from registry.errors import (
    FeedbackUnavailable,
    InvalidTenant,
    MacrofleetError,
    NotReady,
    ObjectNotFound,
    PublishConflict,
)
from serving.errors import (
    ELSEWHERE_HEADER,
    INTERNAL,
    PROBLEMS,
    FieldProblem,
    ProblemDetails,
    problem_details,
    problem_for,
    problem_response,
)


def subclasses(kind: type[MacrofleetError]) -> Iterator[type[MacrofleetError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def test_a_class_without_a_line_takes_that_of_the_nearest_above() -> None:
    assert problem_for(InvalidTenant("x")).status == 422
    assert (
        problem_for(ObjectNotFound("x")).status == 503
    )  # an object that is missing is our failure, not a wrong address
    assert problem_for(PublishConflict("x")) is INTERNAL


def test_failures_of_ours_say_nothing_of_the_inside() -> None:
    for kind in subclasses(registry.errors.MacrofleetError):
        problem = problem_for(kind("/secret/place"))
        answer = problem_response(problem, path="/x", detail="/secret/place")
        assert problem.status < 500 or b"secret" not in answer.body


def test_who_is_refused_for_now_hears_when_to_come_back() -> None:
    for problem in PROBLEMS.values():
        if problem.status in (429, 503):
            assert problem_response(problem, path="/x").headers["retry-after"] == str(problem.retry_after)


def test_an_answer_is_what_the_schema_says() -> None:
    fields = [FieldProblem(field="ticket.id", message="Field required")]
    for problem in PROBLEMS.values():
        for given in (None, fields):
            answer = problem_response(problem, path="/a b", detail="why", fields=given)
            token = problem_details(problem, path="/a b", detail="why", fields=given, request_id="")
            assert ProblemDetails.model_validate_json(bytes(answer.body)) == token


def test_another_server_may_be_asked_where_this_one_did_nothing() -> None:
    """The proxy in front goes by it. What another one would refuse as well is the caller's to try again."""
    elsewhere = [
        kind for kind, problem in PROBLEMS.items() if ELSEWHERE_HEADER in problem_response(problem, path="/x").headers
    ]
    assert elsewhere == [FeedbackUnavailable, NotReady]

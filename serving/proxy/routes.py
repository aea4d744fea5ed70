"""Envoy's routes to our servers: whose request it is, and what may be tried again.

Every face names the tenant in its path, which the hash policy takes out of it. What may be tried again depends on the
route alone:

- suggestions and their batches, inference and SageMaker's invocations change nothing, and feedback is known by its id:
  sent twice it is kept once. So they are tried again elsewhere whatever happened before there was an answer;
- everything else (loading and unloading) only where it cannot have reached a server.

An answer is tried again only where the server itself says that another may do better (`ELSEWHERE_HEADER`, see
`serving.errors`); every other `429` and `503` goes to the caller with its `Retry-After`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from serving.errors import ELSEWHERE, ELSEWHERE_HEADER

Json = dict[str, Any]
Face = Literal["public", "operator", "sagemaker"]

TARGET_HEADER: Final = "x-amzn-sagemaker-target-model"
_MUTATION = "envoy.filters.http.header_mutation"
_MUTATION_TYPE = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
_TIMEOUT_HEADER = "x-request-timeout-ms"
# The longest deadline that a request may name, and what comes on top on the way.
_LONGEST_SECONDS = 60.0
_MARGIN_SECONDS = 1.0
_TRIES = 3
# A deadline that a caller names is kept to by the server; after so much more by Envoy, where the server hangs.
_NAMED_MARGIN_MS = 50
# Of such a deadline, the part after which another replica is asked as well; not of one that is shorter than this.
_SECOND_AFTER = (2, 3)
_LEAST_HEDGED_MS = 300
_DEADLINES_MS = {"start": 1, "end": int(_LONGEST_SECONDS * 1000) + 1}
# `serving.faces.batch` has 8 of at most 32 requests under way.
_BATCH_ROUNDS = 4
# RE2, on the path with its query. The whole path is replaced by the name in it.
TENANT_IN: Final[dict[Face, str]] = {
    "public": r"^/v1/tenants/([^/?]+)(?:[/?].*)?$",
    "operator": r"^/v2/(?:repository/)?models/([^/?]+)(?:[/?].*)?$",
    "sagemaker": r"^/models/([^?]+?)(?:/invoke)?(?:\?.*)?$",
}
_SAFE_RETRIES = "connect-failure,refused-stream,reset-before-request,reset,retriable-headers"
_UNSENT_RETRIES = "connect-failure,refused-stream,reset-before-request"


def virtual_host(face: Face, cluster: str, *, request_timeout_seconds: float) -> Json:
    """All routes of one face.

    Args:
        face: which.
        cluster: of its servers.
        request_timeout_seconds: deadline of a request that names none; the servers' setting.
    """
    made = _Routes(face, cluster, request_timeout_seconds)
    routes = {"public": made.public, "operator": made.operator, "sagemaker": made.sagemaker}[face]()
    return {"name": face, "domains": ["*"], "routes": routes}


def anchor_host(face: Face, cluster: str, *, request_timeout_seconds: float) -> Json:
    """The same routes for what has come to the ring's anchor: to any server, whoever the tenant is.

    Args:
        face, request_timeout_seconds: see `virtual_host`.
        cluster: of the same servers, without a ring, so that nothing comes back.
    """
    host = virtual_host(face, cluster, request_timeout_seconds=request_timeout_seconds)
    for route in host["routes"]:
        route["route"].pop("hash_policy", None)
    return host


class _Routes:
    def __init__(self, face: Face, cluster: str, deadline: float) -> None:
        self._face = face
        self._cluster = cluster
        self._deadline = deadline

    def public(self) -> list[Json]:
        # A batch that names no deadline gives each of its requests one, from when its turn has come.
        batch: Json = {"safe_regex": {"regex": "^/v1/tenants/.+/suggestions/batch$"}}
        return [
            *self._idempotent(batch, rounds=_BATCH_ROUNDS),
            *self._idempotent({"prefix": "/v1/tenants/"}),
            self._route({"prefix": "/"}, retries=_UNSENT_RETRIES, seconds=self._deadline, hashed=False),
        ]

    def operator(self) -> list[Json]:
        # What concerns one replica (/admin, /metrics) is asked of that replica, not of one that the ring chooses.
        return [
            *self._idempotent({"prefix": "/v2/models/"}),
            self._route({"prefix": "/v2/repository/models/"}, retries=_UNSENT_RETRIES, seconds=_LONGEST_SECONDS),
            *(
                self._route(match, retries=_SAFE_RETRIES, seconds=self._deadline, hashed=False)
                for match in ({"path_separated_prefix": "/v2"}, {"path": "/healthz"}, {"path": "/readyz"})
            ),
        ]

    def sagemaker(self) -> list[Json]:
        invoke: Json = {"safe_regex": {"regex": "^/models/.+/invoke$"}}
        return [
            *self._idempotent(invoke),
            *self._idempotent({"path": "/invocations"}),
            self._route({"prefix": "/models/"}, retries=_UNSENT_RETRIES, seconds=_LONGEST_SECONDS),
            self._route({"path": "/models"}, retries=_UNSENT_RETRIES, seconds=_LONGEST_SECONDS),
            self._route({"path": "/ping"}, retries=_SAFE_RETRIES, seconds=self._deadline, hashed=False),
        ]

    def _idempotent(self, match: Json, *, rounds: int = 1) -> list[Json]:
        """Routes for requests that name a deadline, for those that name what is none, and for those that name nothing.

        Envoy reads a request's timeouts from headers of its own, which nobody but Envoy may set: a caller's deadline is
        written into them. What is no deadline is refused by the server.
        """
        named: Json = {**match, "headers": [{"name": _TIMEOUT_HEADER, "range_match": _DEADLINES_MS}]}
        odd: Json = {**match, "headers": [{"name": _TIMEOUT_HEADER, "present_match": True}]}
        longest = self._route(odd, retries=_SAFE_RETRIES, seconds=_LONGEST_SECONDS)
        return [
            _with_deadline({**longest, "match": named}, hedged=rounds == 1),
            longest,
            self._route(match, retries=_SAFE_RETRIES, seconds=min(self._deadline * rounds, _LONGEST_SECONDS)),
        ]

    def _route(self, match: Json, *, retries: str, seconds: float, hashed: bool = True) -> Json:
        tries = _TRIES if retries == _SAFE_RETRIES else 1
        return {
            "match": match,
            "route": {
                "cluster": self._cluster,
                "timeout": duration((seconds + _MARGIN_SECONDS) * tries),
                "retry_policy": _retry_policy(retries, per_try_seconds=seconds + _MARGIN_SECONDS),
                **({"hash_policy": self._hash_policy()} if hashed else {}),
            },
        }

    def _hash_policy(self) -> list[Json]:
        path: Json = {
            "header": {
                "header_name": ":path",
                "regex_rewrite": {"pattern": {"regex": TENANT_IN[self._face]}, "substitution": "\\1"},
            }
        }
        if self._face != "sagemaker":
            return [path]
        # The platform names the model in this header with every call; loads have it nowhere else but in the body.
        return [{"header": {"header_name": TARGET_HEADER}, "terminal": True}, path]


def deadline_filter() -> Json:
    """The filter by which routes give a request its deadline; without a route's own configuration it does nothing."""
    return {"name": _MUTATION, "typed_config": {"@type": _MUTATION_TYPE, "mutations": {}}}


def _with_deadline(route: Json, *, hedged: bool) -> Json:
    """A route of requests that name a deadline, which Envoy keeps to.

    Args:
        route: the same without.
        hedged: whether another replica is asked as well while the first is silent ("The Tail at Scale", hedged requests);
            the first answer counts. The first is not given up, since it may be slow with reason: a cold load, say.
    """
    named = f"int(request.headers['{_TIMEOUT_HEADER}'])"
    timeouts = {"x-envoy-upstream-rq-timeout-ms": f"{named} + {_NAMED_MARGIN_MS}"}
    if hedged:
        part, whole = _SECOND_AFTER
        never = _DEADLINES_MS["end"] + _NAMED_MARGIN_MS  # no sooner than the request's end, so it does not count
        timeouts["x-envoy-upstream-rq-per-try-timeout-ms"] = (
            f"{named} >= {_LEAST_HEDGED_MS} ? {named} * {part} / {whole} : {never}"
        )
    mutations = [
        {
            "append": {
                "header": {"key": name, "value": f"%CEL({expression})%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        }
        for name, expression in timeouts.items()
    ]
    action = {**route["route"], **({"hedge_policy": {"hedge_on_per_try_timeout": True}} if hedged else {})}
    return {
        **route,
        "route": action,
        "typed_per_filter_config": {
            _MUTATION: {
                "@type": f"{_MUTATION_TYPE}PerRoute",
                "mutations": {"request_mutations": mutations},
            }
        },
    }


def _retry_policy(retry_on: str, *, per_try_seconds: float) -> Json:
    policy: Json = {
        "retry_on": retry_on,
        "num_retries": _TRIES - 1,
        "per_try_timeout": duration(per_try_seconds),
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
        # Not to the one that has just failed; where the ring's next place is the same replica's, further on.
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 16,
    }
    if "retriable-headers" in retry_on:
        policy["retriable_headers"] = [{"name": ELSEWHERE_HEADER, "string_match": {"exact": ELSEWHERE}}]
    return policy


def duration(seconds: float) -> str:
    """A duration as Envoy's configuration has it."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"

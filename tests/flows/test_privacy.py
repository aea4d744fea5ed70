"""Ticket text goes in at every door, in words that stand nowhere else; then whatever is kept or told is searched for them.

The lake may have the text, masked, and an answer that explains itself has words of the question. Nothing else may: logs,
metrics, traces, error bodies, MLflow, Prefect, records of runs and trainings, models, feedback, disks.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typer.testing import CliRunner, Result

import macrofleet
from benchmarks.fleets import make_bundle
from benchmarks.zendesk_server import Fault, ZendeskServer, add_ticket
from flows import need, retraining, trainers
from flows.console import playground_pages
from flows.console.servers import Servers
from flows.retrain_fleet import retrain_fleet
from flows.single_flows import collect_garbage, import_tickets, tidy_lake, verify_fleet
from registry.errors import MacrofleetError
from registry.fleet.control import set_shadow
from registry.model.program import program_digest, publish_program
from registry.model.runtime import Program
from registry.publishing import publish_bundle
from registry.settings import StoreSettings
from registry.store import ObjectStore, open_store
from registry.text.ticket import asked_text
from serving.app import Apps, create_apps
from serving.engine.executor import Executor
from serving.faces.sagemaker import create_sagemaker_app
from serving.logs import JsonFormatter
from serving.metrics import Metrics
from serving.settings import ServingSettings
from serving.tracing import Tracing
from tests.flows.console_world import csrf, make_console, running
from tests.flows.privacy_search import Lines, files_below, found_in, leaks
from tests.serving.helpers import add_catalogue, listening, until_ready
from tests.training.connectors.zendesk_world import AGENT, JANE, START, comment, small_account, synced, used
from training.fitting import FitSettings
from training.lake import decode
from training.synthetic import DEFAULT_END, make_tenant
from training.trainer import Trainer

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Prefect's own: its ephemeral server leaves sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
# A word a place, so that a leak says where it comes from. They have no parts in common that a model could learn apart.
WORDS = {
    "subject": "quibblefrost",
    "body": "zanderwick",
    "bad row": "mollusquetree",
    "headless file": "jorvikplume",
    "help desk": "brindlevost",
    "help desk error": "hexhampton",
    "training failure": "ploverstump",
    "question": "tarnishedolm",
    "comment": "wrenglobe",
    "batch": "skepdimmer",
    "Open Inference": "osprandle",
    "SageMaker": "fjordkettle",
    "malformed": "gnatwhistle",
    "failure": "umbrelquay",
    "playground": "yarrowknob",
    "address": "ivanhoepelt",
}
ADDRESS = f"{WORDS['address']}@shop.example"
BROKEN = f"{WORDS['failure']} breaks it"
OURS = ("benchmarks", "flows", "registry", "serving", "training")
# Where text may be: the lake. Feedback and the record of training lie there as well, and are searched.
LAKE = ("examples.parquet", "/sync/")


@dataclass
class Told:
    """What was gathered, by where it was.

    Attributes:
        surfaces: what may not have ticket text.
        lake: what may, but no addresses.
    """

    surfaces: list[tuple[str, bytes]] = field(default_factory=list)
    lake: list[tuple[str, bytes]] = field(default_factory=list)

    def say(self, where: str, data: str | bytes) -> None:
        self.surfaces.append((where, data.encode() if isinstance(data, str) else data))

    def hear(self, where: str, answer: httpx.Response, status: int) -> httpx.Response:
        """An answer; its body counts where it is no success, its headers always."""
        assert answer.status_code == status, (where, answer.status_code, answer.text)
        self.say(where, f"{answer.headers}" + (answer.text if status >= 400 else ""))
        return answer


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, bag_folder: Path, empty_mlflow: Path) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("privacy")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    found, lines = Told(), Lines()
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        stack.enter_context(_Listening(lines))
        store = _store(folder, bag_folder, patch)
        _import(store, folder, found)
        _train(store, patch, found)
        lines.printed_by = JsonFormatter()
        asyncio.run(_serve(store, folder, bag_folder, patch, found))
        lines.printed_by = _Console()
        _look(store, folder, bag_folder, patch, found)
        found.say("logs", "\n".join(lines.text))
        _gather(folder, found)
        yield found


@asynccontextmanager
async def _client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


class _Console(logging.Formatter):
    """The console's process has no format of its own; the server beside it is another process outside of tests."""

    def format(self, record: logging.LogRecord) -> str:
        return JsonFormatter().format(record) if record.name.startswith("serving") else super().format(record)


class _Listening:
    """Ours at DEBUG, others at INFO, everything to one handler."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._levels: dict[str, int] = {}

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self._lines)
        for name in ("", "prefect", "uvicorn", *OURS):
            logger = logging.getLogger(name)
            self._levels[name] = logger.level
            logger.setLevel(logging.DEBUG if name in OURS else logging.INFO)
        logging.getLogger("prefect").addHandler(self._lines)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self._lines)
        logging.getLogger("prefect").removeHandler(self._lines)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


def _store(folder: Path, bag_folder: Path, patch: pytest.MonkeyPatch) -> ObjectStore:
    patch.setattr(trainers, "build_and_publish", lambda _name, store: publish_program(store, bag_folder))
    patch.setattr(need, "FIT", FitSettings(least_steps=60))
    patch.setattr(retraining, "_utc_now", lambda: DEFAULT_END)
    patch.setenv("MACROFLEET_STORE_URL", str(folder / "store"))
    patch.setenv("MACROFLEET_DISK_FOLDER", str(folder / "disk"))
    patch.setenv("MACROFLEET_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    patch.setenv("MACROFLEET_DATABASE_URL", f"sqlite:///{folder / 'macrofleet.db'}")
    patch.setenv("MACROFLEET_TRAINING_PROCESSES", "0")
    patch.delenv("MACROFLEET_WEBHOOK_URL", raising=False)
    return open_store(StoreSettings())


def _import(store: ObjectStore, folder: Path, found: Told) -> None:
    """Files that are good and bad, by the command and by the flow, and a help desk."""
    made = make_tenant("globex", seed=1, tickets=120, macros=8, end=DEFAULT_END)
    rows = [
        {
            "ticket_id": ticket.ticket_id,
            "subject": f"{ticket.subject} {WORDS['subject']}",
            "body": f"{ticket.body} {WORDS['body']}, write to {ADDRESS}",
            "label": ticket.macro_id or "",
            "applied_at": "" if ticket.applied_at is None else ticket.applied_at.isoformat(),
        }
        for ticket in made.tickets
    ]
    good, bad, headless = folder / "good.csv", folder / "bad.jsonl", folder / "headless.csv"
    with good.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    text = f"My {WORDS['bad row']} is late"
    wrong = [
        {"text": text, "label": ""},
        {"text": text, "label": "m1", "applied_at": text},
        {"ticket_id": "1", "text": text, "label": "m1"},
        {"ticket_id": "1", "text": f"{text} again", "label": "m2"},
        {"text": text + "\0", "label": "m1"},
        {"text": text, "label": "m1", "comments": 3},
        {"comments": text, "label": "m1"},
        {"text": text * 100_000, "label": "m1"},
        {"text": "\ud800" + text, "label": "m1"},
    ]
    bad.write_text("".join(json.dumps(row) + "\n" for row in wrong))
    torn = folder / "torn.jsonl"
    torn.write_text(f'{{"text": "{text}\n')
    headless.write_text(f"Where is my {WORDS['headless file']}?,m1\nAnd my {WORDS['headless file']} again?,m2\n")
    for path, code in ((good, 0), (bad, 1), (torn, 1), (headless, 1)):
        done = _command("tickets", "import", str(path), "--tenant", "globex", "--add-macros")
        assert (done.exit_code == 0) == (code == 0), (path, done.output)
        found.say(f"tickets import {path.name}", done.output + str(done.exception))
    good_rows = json.dumps({"text": "Where is it?", "label": made.macros[0].id}) + "\n"
    mixed = folder / "mixed.jsonl"
    mixed.write_text(bad.read_text() + good_rows)
    done = _command("tickets", "import", str(mixed), "--tenant", "globex", "--skip-invalid", "--add-macros", "--json")
    assert done.exit_code == 0, done.output
    found.say("tickets import --skip-invalid", done.output)
    with suppress(MacrofleetError):
        import_tickets("globex", str(bad))
    import_tickets("beta", str(good), add_macros=True)
    _sync(store, found)


def _sync(store: ObjectStore, found: Told) -> None:
    account = small_account(1)
    said = f"Where is my {WORDS['help desk']}? {ADDRESS}"
    updates = [
        (JANE, [{"type": "Create", "field_name": "subject", "value": said}, comment(said, JANE)]),
        (AGENT, [used(1), comment("It is on its way.", AGENT)]),
    ]
    add_ticket(account, 2, START + 2000, JANE, updates)
    add_ticket(account, 3, START + 3000, JANE, updates)
    with ZendeskServer(account) as server:
        secret = json.dumps({"error": f"cannot read {WORDS['help desk error']}"}).encode()
        server.fail("/api/v2/tickets/2/audits.json", [Fault(status=500, body=secret), Fault(body=b'{"' + secret)])
        server.fail("/api/v2/macros.json", [None, Fault(status=403, body=secret)])
        steps: list[str] = []
        synced(store, server, step=lambda text, _share: steps.append(text))
        with pytest.raises(MacrofleetError) as refused:
            synced(store, server)
        found.say("sync zendesk", "\n".join(steps) + str(refused.value))


def _command(*arguments: str) -> Result:
    return CliRunner().invoke(macrofleet.app, list(arguments))


def _train(store: ObjectStore, patch: pytest.MonkeyPatch, found: Told) -> None:
    """One tenant is trained; the other's training fails with a library's error, which quotes a ticket."""
    train = Trainer.train

    def trained(trainer: Trainer, tenant: str, *args: Any, **kwargs: Any) -> Any:
        if tenant == "beta":
            raise ValueError(f"cannot convert '{WORDS['training failure']}' to float")
        return train(trainer, tenant, *args, **kwargs)

    patch.setattr(Trainer, "train", trained)
    summary = retrain_fleet(["globex", "beta"])
    assert [outcome.state for outcome in summary.outcomes] == ["trained", "failed"], summary
    found.say("training's summary", json.dumps(summary.as_dict()))
    verify_fleet(["globex"])
    collect_garbage()
    tidy_lake()
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()


async def _serve(store: ObjectStore, folder: Path, bag_folder: Path, patch: pytest.MonkeyPatch, found: Told) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    digest = program_digest(bag_folder)
    told = _settings(folder, digest)
    beside = folder / "beside"
    make_bundle(beside, tenant="globex", program=digest, spec=Program(bag_folder, trusted=frozenset([digest])).spec)
    set_shadow(store, "globex", publish_bundle(store, beside, tenant="globex").version)
    add_catalogue(beside)
    apps = create_apps(told, store, Tracing(provider))
    metrics = Metrics()
    publish_program(open_store(StoreSettings(url=str(folder / "image"))), bag_folder)
    container = create_sagemaker_app(
        told, programs_folder=folder / "image" / "programs", access=None, metrics=metrics, tracing=Tracing(provider)
    )
    _break(patch)
    async with (
        apps.public.router.lifespan_context(apps.public),
        container.router.lifespan_context(container),
        _client(apps.public) as public,
        _client(apps.operator) as operator,
        _client(container) as sagemaker,
    ):
        await until_ready(public)
        await until_ready(sagemaker, "/ping")
        await _suggest(public, found)
        await _infer(operator, found)
        await _invoke(sagemaker, beside, found)
        await _shadow(apps, public, operator, found)
        await apps.feedback.flush()
        for name in ("/metrics", "/admin/models", "/admin/models/globex", "/admin/fleet", "/readyz"):
            found.say(name, (await operator.get(name)).text)
        found.say("SageMaker's metrics", (await sagemaker.get("/metrics")).text)
    spans = exporter.get_finished_spans()
    assert {span.name for span in spans} >= {"POST /v1/tenants/{tenant}/suggestions", "score", "POST /invocations"}
    found.say("traces", "\n".join(span.to_json() for span in spans))


def _settings(folder: Path, digest: str) -> ServingSettings:
    return ServingSettings.model_validate(
        {
            "disk_folder": folder / "disk",
            "trusted_programs": frozenset({digest}),
            "signing_key": "0123456789abcdef",
            "access": "open",
            "sagemaker_access": "platform",
            "fleet_poll_seconds": 0.01,
            "request_timeout_ms": 30_000,
            "shadow_share": 1.0,
            "holdback_share": 0.0,
        }
    )


def _break(patch: pytest.MonkeyPatch) -> None:
    """Have the program choke on one ticket, and say which, as a library would."""
    score = Executor.score

    async def choking(executor: Executor, bound: Any, text: str, **more: Any) -> Any:
        if WORDS["failure"] in text:
            raise ValueError(f"could not convert string to float: {text!r}")
        return await score(executor, bound, text, **more)

    def choking_before(subject: str, messages: Any) -> str:
        if subject.startswith("parse"):
            raise RuntimeError(f"cannot clean {subject} {messages}")
        return asked_text(subject, messages)

    patch.setattr(Executor, "score", choking)
    patch.setattr("serving.suggestions.reading.asked_text", choking_before)


def _asked(text: str, **more: Any) -> dict[str, Any]:
    written = {"author": "customer", "public": True, "body": f"{text} {WORDS['comment']} {ADDRESS}"}
    return {"ticket": {"id": "4711", "subject": text, "comments": [written]}, **more}


async def _suggest(public: httpx.AsyncClient, found: Told) -> None:
    path, word = "/v1/tenants/globex/suggestions", WORDS["question"]
    question = _asked(f"Where is my {word}?")
    body = found.hear("suggestions", await public.post(path, json=question), 200).json()
    found.say("an answer", json.dumps(body))
    assert body["macros"] or body["abstained"]
    held = dict(question, exclude=[f"m{n}" for n in range(200)])
    found.say("an answer without macros", (await public.post(path, json=held)).text)
    said = found.hear("explanations", await public.post(path, json={**question, "explain": True}), 200)
    assert found_in(WORDS, said.content) or not said.json()["macros"], "an explanation has words of the question"
    bad = WORDS["malformed"]
    long_name = f"my {bad} is late"
    for place, wrong in enumerate(
        (
            f'{{"ticket": {{"subject": "{bad}'.encode(),
            f'"{bad}"'.encode(),
            b"\xff" + bad.encode(),
            {"ticket": {"id": "1", "subject": [bad]}},
            {"ticket": {"id": "1", "subject": bad, long_name: 1}},
            {"ticket": {"id": "1", "comments": [{"author": bad, "body": bad}]}},
            {"ticket": {"id": "1", "comments": [{"author": "agent", "body": bad, "created_at": bad}]}},
            {"ticket": bad},
            {"ticket": {"id": "1", "subject": bad}, "limit": bad},
            {"ticket": {"id": "1", "comments": [{"author": "agent", "body": bad}]}},
        )
    ):
        content = wrong if isinstance(wrong, bytes) else json.dumps(wrong).encode()
        for route in (path, f"{path}/batch", "/v1/tenants/globex/feedback"):
            answer = await public.post(route, content=content, headers={"content-type": "application/json"})
            found.hear(f"malformed {place} to {route}", answer, 422)
    found.hear("too large", await public.post(path, json=_asked(f"{bad} " * 9000)), 413)
    found.hear("no such tenant", await public.post("/v1/tenants/nobody/suggestions", json=_asked(bad)), 404)
    found.hear("no model", await public.post("/v1/tenants/beta/suggestions", json=_asked(bad)), 409)
    found.hear("no such page", await public.post("/v1/elsewhere", json=_asked(bad)), 404)
    found.hear("deadline", await public.post(path, json=_asked(bad), headers={"x-request-timeout-ms": bad}), 422)
    found.hear("failure", await public.post(path, json=_asked(BROKEN)), 500)
    found.hear("failure before", await public.post(path, json=_asked(f"parse {BROKEN}")), 500)
    together = [_asked(WORDS["batch"]), _asked(BROKEN), {"ticket": WORDS["batch"]}, _asked(f"parse {BROKEN}")]
    said = await public.post(f"{path}/batch", json={"requests": together})
    assert [one["status"] for one in said.json()["answers"]] == [200, 500, 422, 500]
    found.say("a batch's answer", said.text)
    applied = {"suggestion_id": body["suggestion_id"], "applied": "m1", "ticket_id": "4711"}
    found.hear("feedback", await public.post("/v1/tenants/globex/feedback", json=applied), 202)
    found.hear(
        "feedback with text", await public.post("/v1/tenants/globex/feedback", json={**applied, "text": bad}), 422
    )


async def _infer(operator: httpx.AsyncClient, found: Told) -> None:
    path, word = "/v2/models/globex/infer", WORDS["Open Inference"]

    def asked(data: Any, **more: Any) -> dict[str, Any]:
        return {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": data, **more}]}

    found.say("/v2's answer", found.hear("/v2", await operator.post(path, json=asked([word])), 200).text)
    bad = f"my {WORDS['malformed']} is late"
    for place, wrong in enumerate(
        (
            asked([bad], name=bad),
            asked([bad], datatype=bad),
            asked([bad], shape=[2]),
            asked([[bad, {bad: bad}]]),
            asked(bad),
            {**asked([word]), "outputs": [{"name": bad}]},
            {**asked([word]), "parameters": {"timeout": bad}},
            {**asked([word]), "parameters": {"binary_data_output": bad}},
            {"inputs": [{bad: bad}]},
        )
    ):
        found.hear(f"malformed {place} to /v2", await operator.post(path, json=wrong), 400)
    found.hear("/v2's torn body", await operator.post(path, content=f'{{"inputs": ["{bad}'.encode()), 400)
    packed = {"Content-Encoding": "gzip"}
    found.hear(
        "/v2's torn gzip", await operator.post(path, content=gzip.compress(bad.encode())[:-3], headers=packed), 400
    )
    found.hear("/v2's failure", await operator.post(path, json=asked([BROKEN])), 500)


async def _invoke(sagemaker: httpx.AsyncClient, model: Path, found: Told) -> None:
    loaded = await sagemaker.post("/models", json={"model_name": "0f3c", "url": str(model)})
    assert loaded.status_code == 200, loaded.text
    path, word = "/models/0f3c/invoke", WORDS["SageMaker"]
    found.say("SageMaker's answer", found.hear("SageMaker", await sagemaker.post(path, json=_asked(word)), 200).text)
    target = {"X-Amzn-SageMaker-Target-Model": "0f3c"}
    found.hear("invocations", await sagemaker.post("/invocations", json=_asked(word), headers=target), 200)
    bad = WORDS["malformed"]
    found.hear("SageMaker's malformed", await sagemaker.post(path, content=f'{{"{bad}'.encode()), 422)
    found.hear("SageMaker's bad model", await sagemaker.post("/models", json={"model_name": [bad], "url": bad}), 400)
    found.hear("SageMaker's too large", await sagemaker.post(path, json=_asked(f"{bad} " * 9000)), 413)
    found.hear("SageMaker's failure", await sagemaker.post(path, json=_asked(BROKEN)), 500)


async def _shadow(apps: Apps, public: httpx.AsyncClient, operator: httpx.AsyncClient, found: Told) -> None:
    """What is answered is scored by another version as well, once that is in memory."""
    async with asyncio.timeout(60):
        for number in range(10_000):
            await public.post("/v1/tenants/globex/suggestions", json=_asked(f"{WORDS['question']} {number}"))
            report = (await operator.get("/admin/models/globex")).json()["shadow"]
            if report["requests"]["compared"]:
                break
            await asyncio.sleep(0.01)
    found.say("the shadow's report", json.dumps(report))


def _look(store: ObjectStore, folder: Path, bag_folder: Path, patch: pytest.MonkeyPatch, found: Told) -> None:
    """The console's playground before a real server."""
    apps = create_apps(_settings(folder, program_digest(bag_folder)), store)
    # The operator's face serves while the public one's lifespan lasts.
    with listening(apps.public), listening(apps.operator) as address:
        while httpx.get(f"http://{address}/readyz").status_code != 200:
            pass
        console = make_console(folder, store, servers=Servers((f"http://{address}",)))
        with running(console.app) as url, httpx.Client(base_url=url, timeout=60) as client:
            console.sign_in(client)
            word = WORDS["playground"]
            form = {"csrf": csrf(client.get("/playground").text), "tenant": "globex", "subject": word, "body": ADDRESS}
            page = client.post("/playground", data=form)
            assert page.status_code == 200
            assert word in page.text, "whoever typed it sees it"
            for changes, status in (
                ({"tenant": "nobody"}, 422),
                ({"tenant": word + "!"}, 422),
                ({"subject": BROKEN}, 422),
            ):
                assert client.post("/playground", data={**form, **changes}).status_code == status
            patch.setattr(playground_pages, "words_of", _choking)
            found.hear("the console's failure", client.post("/playground", data=form), 500)
            found.hear("a page that is not there", client.get("/nowhere"), 404)
            for name in ("/", "/runs", "/tenants/globex", "/tenants/globex/standing", "/tenants/globex/acceptance"):
                found.say(f"console {name}", client.get(name).text)
        found.say("/metrics after it", httpx.get(f"http://{address}/metrics").text)


def _choking(macro: Any) -> Any:
    raise ValueError(f"cannot mark {WORDS['playground']} in {macro}")


def _gather(folder: Path, found: Told) -> None:
    """Everything on the disk, and Prefect's own database."""
    import prefect.settings

    for name, data in files_below(folder, but=lambda name: name.endswith((".csv", ".jsonl"))):
        may_have_text = name.startswith("store/lake/") and any(part in name for part in LAKE)
        (found.lake if may_have_text else found.surfaces).append((name, data))
    url = prefect.settings.PREFECT_SERVER_DATABASE_CONNECTION_URL.value()
    with sqlite3.connect(str(url).removeprefix("sqlite+aiosqlite:///")) as database:
        found.say("Prefect's database", "\n".join(database.iterdump()))
    database.close()


def surface(told: Told, name: str) -> bytes:
    """What was gathered there."""
    return b"\n".join(data for where, data in told.surfaces if name in where)


def test_the_words_went_through(told: Told) -> None:
    """Or nothing would be found because nothing was said."""
    assert set(found_in(WORDS, _lake(told))) == {"subject", "body", "bad row", "help desk"}
    for name, expected in {
        "logs": b"request failed",
        "/metrics": b"macrofleet_requests_total",
        "traces": b"macrofleet.model.version",
        "Prefect's database": b"rows cannot be used",
        "mlflow.db": b"macrofleet.globex",
        "training.json": b"top1",
        "runs/": b"ValueError",
        "feedback/": b"\x1f\x8b",
        "weights.safetensors": b"",
        "tickets import bad.jsonl": b"rows cannot be used",
        "the shadow's report": b"same_first",
    }.items():
        assert expected in surface(told, name), name


def _lake(told: Told) -> bytes:
    frames = [decode(data, what=name) for name, data in told.lake if name.endswith("examples.parquet")]
    return b"\n".join(frame.write_ndjson().encode() for frame in frames)


def test_nothing_but_the_lake_has_them(told: Told) -> None:
    found = leaks(WORDS, told.surfaces)
    assert found == [], "\n".join(found)


def test_the_lake_has_text_and_no_addresses(told: Told) -> None:
    assert leaks({"address": WORDS["address"]}, [("lake", _lake(told))]) == []


def test_a_view_of_the_playground_is_no_agents_view(told: Told) -> None:
    feedback = b"\n".join(gzip.decompress(data) for name, data in told.surfaces if "/feedback/" in name)
    tickets = {json.loads(line)["ticket_id"] for line in feedback.splitlines()}
    assert tickets == {"4711"}


@pytest.mark.parametrize(
    "data",
    [
        b"a line with Zanderwick in it",
        gzip.compress(b'{"text": "zanderwick"}', mtime=0),
        "zanderwick".encode("utf-16-le"),
        b"\x00\x01zanderwick\xff",
        b"q=my%20zanderwick",
    ],
)
def test_a_word_that_gets_out_is_found(data: bytes) -> None:
    assert leaks(WORDS, [("somewhere", data)]) == ["body in somewhere"]

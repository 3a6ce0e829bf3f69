"""``mux audit``: proves the ledger's invariants on what the store holds."""

from __future__ import annotations

import sys

import click
from modelmuxer.accounting.v1 import accounting_pb2
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.running import connected, console, dollars, json_option, print_json
from rich.table import Table

_TIMEOUT_S = 600  # every entry is read


@click.command()
@json_option
@connected
async def audit(connection: Connection, as_json: bool) -> None:
    """Prove that the books add up. The exit status is 1 if they do not."""
    async with connection.admin() as admin:
        request = accounting_pb2.AuditRequest()
        report = await admin.accounting.Audit(request, metadata=admin.metadata, timeout=_TIMEOUT_S)
    if as_json:
        print_json(_as_json(report))
    else:
        _show(report)
    if not report.ok:
        sys.exit(1)


def _as_json(report: accounting_pb2.AuditResponse) -> dict[str, object]:
    return {
        "ok": report.ok,
        "total_nanos": report.total_nanos,
        "counts": dict(sorted(report.counts.items())),
        "finding_count": report.finding_count,
        "findings": [
            {"check": finding.check, "subject": finding.subject, "message": finding.message}
            for finding in report.findings
        ],
    }


def _show(report: accounting_pb2.AuditResponse) -> None:
    if report.findings:
        table = Table("Invariant", "Where", "What is wrong")
        for finding in report.findings:
            table.add_row(finding.check, finding.subject, finding.message)
        console.print(table)
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(report.counts.items()))
    verdict = "The books add up" if report.ok else f"{report.finding_count:,} findings"
    console.print(f"[bold]{verdict}[/bold]: {dollars(report.total_nanos)} in all ({counts}).")

"""Published claims about training stability, checked at small scale.

Each claim is measured on a small model and decided by a criterion that is part of the program:
"holds", "does not hold", or "undecided here". A verdict applies only to this size and budget: a
model of ten thousand weights on a CPU can refute a claim about every model, but cannot confirm one
about large models.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.claims import (
    adam_spikes,
    corrupted_gradients,
    exploding_rnn,
    published_code,
    rate_sensitivity,
)
from benchmarks.claims.finding import FULL, QUICK, WHAT_IS_CLEAR, Finding, Scale

CLAIMS: dict[str, Callable[[Scale], Finding]] = {
    "exploding_rnn": exploding_rnn.check,
    "adam_spikes": adam_spikes.check,
    "rate_sensitivity": rate_sensitivity.check,
    "corrupted_gradients": corrupted_gradients.check,
    "published_code": published_code.check,
}
COMMAND = ".venv/bin/python -m benchmarks.claims"


def show(console: Console, finding: Finding, seconds: float) -> None:
    """Print one finding as two tables."""
    console.print(f"\n[bold]{finding.title}[/bold]  ({finding.source}; {seconds:.0f} s)")
    console.print(finding.measured, highlight=False)
    table = Table(*finding.headings, box=None, pad_edge=False)
    for row in finding.rows:
        table.add_row(*row)
    console.print(table)
    verdicts = Table("claim", "verdict", "criterion", box=None, pad_edge=False)
    for verdict in finding.verdicts:
        verdicts.add_row(verdict.claim, verdict.answer, verdict.criterion)
    console.print(verdicts)
    console.print(finding.remark, highlight=False)


def markdown(findings: dict[str, Finding]) -> str:
    """Return the documentation page."""
    parts = ["# Claims on trial\n", (__doc__ or "").partition("\n\n")[2]]
    parts.append(
        f"`{COMMAND} --markdown docs/claims.md` wrote this page on a CPU with two cores. "
        "`--only NAME` checks one claim. `--quick` takes a minute and a half, which is too short "
        "for some claims, so its verdicts can differ. Intervals are means and two standard errors "
        f"over seeds.\n\n{WHAT_IS_CLEAR}\n"
    )
    for name, finding in findings.items():
        parts.append(f"## {finding.title}\n\n{finding.source}. {finding.measured}\n")
        parts.append(_rows(finding.headings, finding.rows))
        verdicts = [(v.claim, f"**{v.answer}**", v.criterion) for v in finding.verdicts]
        parts.append(_rows(("claim", "verdict", "criterion"), verdicts))
        if finding.remark:
            parts.append(f"{finding.remark}\n")
        parts.append(f"`{COMMAND} --only {name}`\n")
    return "\n".join(parts)


def _rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Check the requested claims."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer seeds and steps: too few for some answers"
    )
    parser.add_argument("--only", nargs="+", choices=CLAIMS, metavar="NAME", help=", ".join(CLAIMS))
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page as well")
    args = parser.parse_args()
    console, findings = Console(), {}
    for name in args.only or CLAIMS:
        began = time.monotonic()
        findings[name] = CLAIMS[name](QUICK if args.quick else FULL)
        show(console, findings[name], time.monotonic() - began)
    console.print(f"\n{WHAT_IS_CLEAR}", highlight=False)
    if args.markdown:
        args.markdown.write_text(markdown(findings), encoding="utf-8")


if __name__ == "__main__":
    main()

"""The survival map: a row per contestant and a column per storm, in HTML without scripts."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from gradstable_gauntlet.league import Share, by_storm, faults, groups, reporting_tasks, together
from gradstable_gauntlet.results import Results
from gradstable_gauntlet.tables import UNKNOWN, named

_TENTHS = 10
# The color of the card lies between the two ends, so that the middle is pale in both themes. It is
# mixed so that the ink has a contrast of at least 4.5 to 1 everywhere.
_MOST = 46  # percent of color at the ends


def heat_map(results: Results, contestants: Sequence[str]) -> str:
    """Return the section with the map of all reporting tasks, or of the chosen task."""
    reporting = reporting_tasks(results)
    views: dict[str, list[str]] = {f"all {len(reporting)} tasks": reporting}
    for task, about in results.tasks.items():
        views[task + (" (tuning)" if about.get("tuning") else "")] = [task]
    choices, maps = [], []
    for place, (name, tasks) in enumerate(views.items()):
        checked = " checked" if place == 0 else ""
        choices.append(
            f'<input type="radio" name="view" id="view-{place}"{checked}>'
            f'<label for="view-{place}">{escape(name)}</label>'
        )
        maps.append(_map(results, contestants, tasks, f"map-{place}", name))
    return (
        '<section class="card" id="survival"><h2>Who survives what</h2><p class="soft">'
        "Percent of runs that survived: everything finite at the end, and a final loss of at most "
        "1.1 times the best clean loss of all contestants with the same base. Orange is none, blue "
        "is all, – was not run. Contestants are ordered by the mean over all faults; hover over a "
        "name for a description. Choose a task to see only that task.</p>"
        f'<div class="views">{"".join(choices)}{"".join(maps)}</div></section>'
    )


def style(results: Results) -> str:
    """Return the style sheet of the map."""
    views = range(len(results.tasks) + 1)
    shown = ", ".join(f"#view-{place}:checked ~ #map-{place}" for place in views)
    shades = [f"{shown} {{ display: block; }}"]
    for tenth in range(_TENTHS + 1):
        away = 2.0 * tenth / _TENTHS - 1.0
        tone = "main" if away > 0 else "bad"
        part = round(_MOST * abs(away))
        shades.append(
            f".h{tenth} {{ background: color-mix(in srgb, var(--{tone}) {part}%, var(--card)); }}"
        )
    return _STYLE + "\n".join(shades) + "\n"


_STYLE = """\
.views > input { position: absolute; opacity: 0; }
.views > label { display: inline-block; margin: 0 .35rem .4rem 0; padding: .15rem .7rem;
  font-size: .87rem; border: 1px solid var(--line); border-radius: 99px; cursor: pointer; }
.views > input:checked + label { border-color: var(--main); box-shadow: 0 0 0 1px var(--main); }
.views > input:focus-visible + label { outline: 2px solid var(--main); outline-offset: 2px; }
.map { display: none; overflow-x: auto; }
.map table { width: auto; font-size: .8rem; border-collapse: separate; border-spacing: 2px; }
.map td { min-width: 2.05rem; padding: .16rem .1rem; border: 0; border-radius: 3px;
  text-align: center; }
.map th { padding: .16rem .5rem .16rem 0; border: 0; vertical-align: bottom; }
.map tbody th, .numbers th:first-child { position: sticky; left: 0; background: var(--card); }
.map tbody th, .map .all { white-space: nowrap; font-variant-numeric: tabular-nums; }
.map .all { font-weight: 700; }
.map thead th { font-weight: 500; }
.map .storm span { writing-mode: vertical-rl; transform: rotate(180deg); display: inline-block; }
.map .storm { text-align: center; padding: .2rem .1rem; white-space: nowrap; }
.map .group { text-align: left; padding: 0 .2rem .15rem; border-bottom: 2px solid var(--line);
  white-space: normal; line-height: 1.15; font-size: .76rem; }
.map .group span { display: block; width: 0; min-width: 100%; }
.ours { font-weight: 700; }
"""


def _map(
    results: Results, contestants: Sequence[str], tasks: Sequence[str], key: str, name: str
) -> str:
    grouped = groups(results)
    storms = [storm for group in grouped.values() for storm in group]
    rows = []
    for contestant in contestants:
        shares = by_storm(results, contestant, tasks)
        about = results.contestants[contestant]
        mark = ' class="ours"' if about["ours"] else ""
        every = together(shares[storm] for storm in faults(grouped))
        rows.append(
            f'<tr><th scope="row"{mark} title="{escape(str(about["about"]))}">'
            f"{escape(named(contestant, ours=bool(about['ours'])))}</th>{_cell(every, 'all ')}"
            f"{''.join(_cell(shares[storm]) for storm in storms)}</tr>"
        )
    return (
        f'<div class="map" id="{key}"><table aria-label="Survival in percent: {escape(name)}">'
        f"{_head(results, grouped)}<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _head(results: Results, grouped: Mapping[str, Sequence[str]]) -> str:
    tops = "".join(
        f'<th class="group" scope="colgroup" colspan="{len(storms)}">'
        f"<span>{escape(group) if len(storms) > 1 else ''}</span></th>"
        for group, storms in grouped.items()
    )
    names = "".join(
        f'<th class="storm" scope="col" title="{escape(str(results.storms[storm]["about"]))}">'
        f"<span>{escape(storm)}</span></th>"
        for storms in grouped.values()
        for storm in storms
    )
    return (
        f'<thead><tr><th rowspan="2"></th><th class="storm" rowspan="2" scope="col">'
        f"<span>all faults</span></th>{tops}</tr><tr>{names}</tr></thead>"
    )


def _cell(share: Share, classes: str = "") -> str:
    if math.isnan(share.percent):
        return f"<td>{UNKNOWN}</td>"
    tenth = round(share.percent / 100 * _TENTHS)
    kind = f'"{classes}h{tenth}"' if classes else f"h{tenth}"
    return f"<td class={kind}>{share.percent:.0f}</td>"

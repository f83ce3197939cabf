"""A report as a table in the terminal, as JSON, and as one page of HTML that needs no other file."""

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image
from rich.table import Table

from anydit.config import Json
from anydit.evaluate.compare import Figure
from anydit.evaluate.evaluate import Report
from anydit.weights import write_atomically, write_config

JSON_FILE, HTML_FILE = "report.json", "report.html"

CAPTIONS = {
    "samples": "Samples, under the conditions of held-out data",
    "held_out": "Held-out real data of the same conditions",
    "neighbours": "Samples (upper row) and their nearest training samples (lower row), with the distance between them, "
    "from the nearest pair to the farthest",
    "classes": "What the classifier sees",
    "reconstructions": "Held-out data in rows, each row over that of their reconstructions",
    "denoising": "From noise to data",
    "loss": "Training loss",
}
"""Pictures in the order of the page; any other picture comes after them, under the name that it has."""


def write(report: Report, folder: Path, title: str, more: Mapping[str, Image.Image] | None = None) -> list[Path]:
    """Write `report.json` and `report.html`, with `more` pictures (denoising, loss); returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / JSON_FILE, folder / HTML_FILE]
    write_config(paths[0], report.json())
    page = html(report, title, more or {})
    write_atomically(paths[1], lambda to: to.write_text(page, encoding="utf-8"))
    return paths


def table(report: Report, title: str) -> Table:
    """The figures, each beside its floor."""
    out = Table("", title=title, title_justify="left")
    for heading in (report.subject, "held-out data", "ratio"):
        out.add_column(heading, justify="right")
    for figure in report.figures.values():
        out.add_row(figure.title, *_cells(figure))
    return out


def html(report: Report, title: str, more: Mapping[str, Image.Image]) -> str:
    """The page."""
    pictures = {**report.pictures, **more}
    rows = "\n".join(
        f"<tr><th scope=row>{escape(f.title)}</th>{''.join(f'<td>{escape(c)}</td>' for c in _cells(f))}"
        f"<td class=says>{escape(f.meaning)}</td></tr>"
        for f in report.figures.values()
    )
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in report.notes)
    order = [*(name for name in CAPTIONS if name in pictures), *(name for name in pictures if name not in CAPTIONS)]
    figures = "\n".join(_picture(name, pictures[name]) for name in order)
    return PAGE.format(
        title=escape(title),
        summary=escape(summary(report)),
        subject=escape(report.subject),
        rows=rows,
        notes=notes,
        pictures=figures,
        settings=_list({"features": report.features, **report.counts, **_flat(report.settings)}),
        seconds=_list({f"seconds, {k}": v for k, v in report.seconds.items()}),
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c2733; background: #fff }}
h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.15rem; margin-top: 2rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ padding: .3rem .6rem; border-bottom: 1px solid #dfe4ea; text-align: left; vertical-align: top }}
td {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
td.says {{ text-align: left; color: #5a6775; font-size: .85rem; white-space: normal }}
.note {{ background: #fff6dc; border-left: 4px solid #e3b341; padding: .5rem .8rem }}
.sheets {{ display: flex; flex-wrap: wrap; gap: 1.5rem; margin-top: 2rem }}
figure {{ margin: 0; max-width: 100% }} figure.wide {{ width: 100% }}
figure.sheet {{ width: calc(50% - .75rem) }} figure.sheet img {{ width: 100% }}
figcaption {{ color: #5a6775; font-size: .9rem; max-width: 26rem }}
figure.wide figcaption {{ max-width: none }} img {{ max-width: 100%; image-rendering: pixelated }}
.plot img {{ image-rendering: auto }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem }} dd {{ margin: 0 }}
</style></head><body>
<h1>{title}</h1>
<p>{summary} ± is the standard error; the ratio is that of {subject} to held-out data.</p>
<table><thead>
<tr><th>figure</th><th>{subject}</th><th>held-out data</th><th>ratio</th><th>what it says</th></tr>
</thead><tbody>
{rows}
</tbody></table>
{notes}
<div class=sheets>
{pictures}
</div>
<h2>Settings</h2>
<dl>{settings}{seconds}</dl>
</body></html>
"""


def summary(report: Report) -> str:
    """What was compared with what, in a sentence."""
    counts = report.counts
    draws = f" in {counts['draws']} draws" if counts["draws"] > 1 else ""
    calls = f" {report.network_calls:g} network calls a sample." if report.network_calls else ""
    return (
        f"{counts['samples']} {report.subject}{draws}, and {counts['held_out']} held-out samples, each against "
        f"{counts['reference']} training samples, in {report.features}.{calls}"
    )


def _cells(figure: Figure) -> tuple[str, str, str]:
    both = ((figure.samples, figure.error), (figure.floor, figure.floor_error))
    samples, floor = (
        "" if value is None else f"{value:.4g}" + ("" if error is None else f" ± {error:.2g}") for value, error in both
    )
    return samples, floor, "" if figure.ratio is None else f"{figure.ratio:.2f}"


def _picture(name: str, picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, format="png")
    data = b64encode(buffer.getvalue()).decode()
    kinds = {"samples": "sheet", "held_out": "sheet", "classes": "wide plot", "loss": "wide plot"}
    caption = escape(CAPTIONS.get(name, name))
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f'<figure class="{kinds.get(name, "wide")}">{image}<figcaption>{caption}</figcaption></figure>'


def _list(entries: Json) -> str:
    return "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in entries.items())


def _flat(tree: Json, at: str = "") -> Json:
    out: Json = {}
    for key, value in tree.items():
        name = f"{at}{key}"
        out |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return out

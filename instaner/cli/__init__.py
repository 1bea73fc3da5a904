"""The commands: `instaner …`, and the same app as `python -m spacy instaner …`."""

import typer
from spacy.cli import app as spacy_app

from ._util import OVERRIDES
from .annotate import annotate_cli
from .briefs import briefs_cli
from .compare_prompts import compare_prompts_cli
from .estimate import estimate_cli
from .evaluate import evaluate_cli
from .export import export_cli
from .generate import generate_cli
from .import_ import import_cli
from .new import new_cli
from .push import push_cli
from .report import report_cli
from .responses import responses_app
from .review import review_cli
from .runs import runs_cli
from .split import split_cli
from .swap import swap_cli
from .train import train_cli
from .try_ import try_cli

app = typer.Typer(
    name="instaner",
    help="Use LLMs. Replace LLMs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("new")(new_cli)
app.command("briefs", context_settings=OVERRIDES)(briefs_cli)
app.command("generate", context_settings=OVERRIDES)(generate_cli)
app.command("annotate", context_settings=OVERRIDES)(annotate_cli)
app.command("estimate", context_settings=OVERRIDES)(estimate_cli)
app.add_typer(responses_app)
app.command("review")(review_cli)
app.command("split")(split_cli)
app.command("train", context_settings=OVERRIDES)(train_cli)
app.command("evaluate")(evaluate_cli)
app.command("compare-prompts")(compare_prompts_cli)
app.command("report")(report_cli)
app.command("swap")(swap_cli)
app.command("try")(try_cli)
app.command("push")(push_cli)
app.command("export")(export_cli)
app.command("import")(import_cli)
app.command("runs")(runs_cli)

spacy_app.add_typer(app)


def main() -> None:
    """Run the app."""
    app(prog_name="instaner")

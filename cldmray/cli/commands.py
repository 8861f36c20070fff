"""The commands of ``cldmray``: names, help texts and what they call."""

import sys
from collections.abc import Callable
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cldmray.cli import jobs
from cldmray.cli.overrides import place_of_faces
from cldmray.cli.runtime import Task, run_job
from cldmray.config.files import LISTED_GROUPS, options
from cldmray.errors import CldmrayError

HYDRA = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Further arguments are Hydra's, which checks them."""

AlignOption = Literal["landmarks", "none"]
"""Of :data:`cldmray.faces.base.Align`, which costs half a second to import."""
SFACE = "sface"
"""Recognizer of galleries that do not say theirs."""

app = typer.Typer(
    name="cldmray",
    help="Audit whether anonymized face images still leak identity.\n\n"
    "Every argument KEY=VALUE changes a setting, and GROUP=OPTION chooses an option: see "
    "'cldmray list' and docs/configuration.md.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, as Hydra overrides."),
]
ConfigName = Annotated[
    str | None, typer.Option("--config-name", help="File of the configuration to start from.")
]
ConfigDir = Annotated[
    str | None, typer.Option("--config-dir", help="Folder with configuration files of your own.")
]


def _examples(*commands: str) -> str:
    """The end of a help text: commands that can be pasted."""
    return "Examples:\n\n" + "\n\n".join(f"`{command}`" for command in commands)


def _hydra(
    task: Task,
    base: str,
    overrides: list[str] | None,
    config_name: str | None = None,
    config_dir: str | None = None,
) -> None:
    """Run a job; Hydra reads its arguments from the command line."""
    arguments = list(overrides or [])
    if config_dir is not None:
        arguments += ["--config-dir", config_dir]
    sys.argv[1:] = arguments
    run_job(task, config_name or base)


@app.command(
    context_settings=HYDRA,
    epilog=_examples(
        "cldmray audit",
        "cldmray audit faces=folder faces.root=DIR anonymizers=[blur,k_same]",
        "cldmray audit anonymizers=[cldm_canny] 'audit.fail_on=k_supported<20'",
    ),
)
def audit(
    overrides: Overrides = None, config_name: ConfigName = None, config_dir: ConfigDir = None
) -> None:
    """Audit anonymizers: attack their images, measure, write the report.

    Exit status: 0 passed, or nothing to fail on; 3 the audit ran and audit.fail_on holds; 1 it
    could not run, or MLflow failed and the report is only in the output folder; 2 an option is
    unknown. The last line of the output is the verdict for programs: CLDMRAY_VERDICT {...}, JSON.
    """
    _hydra(jobs.audit, "audit", overrides, config_name, config_dir)


@app.command(
    context_settings=HYDRA,
    epilog=_examples(
        "cldmray plan",
        "cldmray plan faces=DIR",
        "cldmray plan --config-name lfw faces.root=DIR preset=large",
    ),
)
def plan(
    overrides: Overrides = None, config_name: ConfigName = None, config_dir: ConfigDir = None
) -> None:
    """Check an audit and say what it would do, at which cost; nothing is anonymized.

    With `faces=DIR` alone: what the folder (or table, tar, Parquet file) is, how many people and
    images it holds, and which settings read it.
    """
    place = place_of_faces(overrides or [])
    is_alone = len(overrides or []) == 1 and config_name is None and config_dir is None
    if place is not None and is_alone:
        _exiting(lambda: _survey(place))
        return
    overrides = [*(overrides or []), "audit.dry_run=true"]
    _hydra(jobs.audit, "audit", overrides, config_name, config_dir)


def _survey(place: str) -> None:
    from cldmray.faces.sources.survey import describe, recognize, survey

    layout = recognize(place)
    print("\n".join(describe(layout, survey(layout.source))))


@app.command(
    context_settings=HYDRA,
    epilog=_examples(
        "cldmray anonymize faces=folder faces.root=DIR anonymizers=[blur] output=OUT",
        "cldmray anonymize faces=lfw faces.root=DIR anonymizers=[cldm_canny,k_same] output=OUT",
        "cldmray anonymize faces=celeba faces.root=DIR anonymizers=[sd15] output=OUT",
    ),
)
def anonymize(
    overrides: Overrides = None, config_name: ConfigName = None, config_dir: ConfigDir = None
) -> None:
    """Write the images that an audit would attack as files, with a manifest."""
    _hydra(jobs.anonymize, "audit", overrides, config_name, config_dir)


@app.command(
    context_settings=HYDRA,
    epilog=_examples(
        "cldmray demo",
        "cldmray demo output=my-demo",
        "cldmray demo anonymizers=[blur,pixelate] anonymizers.blur.sigma=8",
    ),
)
def demo(overrides: Overrides = None) -> None:
    """Audit 24 synthetic people within two minutes, on a laptop and without data."""
    _hydra(jobs.audit, "demo", overrides)


@app.command(
    context_settings=HYDRA,
    epilog=_examples(
        "cldmray attribute",
        "cldmray attribute faces=lfw faces.root=DIR",
        "cldmray attribute anonymizers=[cldm_canny] attribution.scales=[0.5,1] "
        "attribution.swap.anonymizers=[cldm_canny]",
    ),
)
def attribute(
    overrides: Overrides = None, config_name: ConfigName = None, config_dir: ConfigDir = None
) -> None:
    """Find out what carries the leak: ablations, condition swaps, the loosest safe setting."""
    _hydra(jobs.attribute, "attribute", overrides, config_name, config_dir)


@app.command(
    context_settings=HYDRA,
    epilog=_examples(
        "cldmray invert",
        "cldmray invert faces=lfw faces.root=DIR anonymizers=[blur]",
        "cldmray invert reconstruction.search.trials=20",
    ),
)
def invert(
    overrides: Overrides = None, config_name: ConfigName = None, config_dir: ConfigDir = None
) -> None:
    """Inversion attacks: reconstruct originals, and identify the reconstructions."""
    _hydra(jobs.invert, "invert", overrides, config_name, config_dir)


@app.command(
    epilog=_examples(
        "cldmray report cldmray-demo",
        "cldmray report runs/2026-01-31_12-00-00-123456",
        "cldmray report s3://BUCKET/cldmray/celeba",
    )
)
def report(
    run_folder: Annotated[str, typer.Argument(help="Output folder of an audit.")],
) -> None:
    """Show a finished audit again, and write its report.html anew."""
    from cldmray.cli.saved import show_report

    _exiting(lambda: show_report(run_folder))


@app.command(
    epilog=_examples(
        "cldmray search GALLERY face.jpg",
        "cldmray search GALLERY face.jpg --build FACES_FOLDER",
        "cldmray search s3://BUCKET/gallery a.png --top 10 --evidence matches.png --faces DIR",
    )
)
def search(
    gallery: Annotated[str, typer.Argument(help="Folder of a saved gallery, local or remote.")],
    images: Annotated[list[str], typer.Argument(help="Image files to search with.")],
    build: Annotated[
        str | None,
        typer.Option(help="Build the gallery first, from a folder (or table, tar) of faces."),
    ] = None,
    recognizer: Annotated[
        str | None,
        typer.Option(help="A name of 'cldmray list recognizers'; else the gallery's."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Matches of each image.")] = 5,
    size: Annotated[int, typer.Option(min=8, help="Side in pixels of the faces.")] = 112,
    align: Annotated[
        AlignOption,
        typer.Option(help="landmarks finds the face of each image, none crops the middle."),
    ] = "landmarks",
    evidence: Annotated[
        str | None,
        typer.Option(help="Write a PNG that shows each query beside its matches."),
    ] = None,
    faces: Annotated[
        str | None,
        typer.Option(help="The gallery's faces, for --evidence; else those of --build."),
    ] = None,
) -> None:
    """Search a saved identity gallery with images: whom do they show?"""
    place = faces or build
    if evidence is not None and place is None:
        sys.exit("ConfigError: --evidence shows images of the gallery: give its faces (--faces)")
    sheet = None if evidence is None or place is None else (evidence, place)
    _exiting(
        lambda: _search(
            gallery, images, build, recognizer, top=top, size=size, align=align, evidence=sheet
        )
    )


def _search(
    gallery: str,
    paths: list[str],
    build: str | None,
    recognizer: str | None,
    *,
    top: int,
    size: int,
    align: AlignOption,
    evidence: tuple[str, str] | None,
) -> None:
    """See :func:`search`; ``evidence``: the file to write, and the place of the gallery's faces."""
    from cldmray.cli.saved import build_gallery, query_images, recognizer_called, write_evidence
    from cldmray.gallery.index import open_gallery
    from cldmray.gallery.matches import search_images

    if build is not None:
        encoder = recognizer_called(recognizer or SFACE)
        print(build_gallery(gallery, build, encoder, size, align=align))
    opened = open_gallery(gallery)
    encoder = recognizer_called(recognizer or opened.recognizer or SFACE)
    queries = query_images(paths, size, align)
    matches = search_images(opened, queries, encoder, top)
    if evidence is not None:
        write_evidence(evidence[0], queries, matches, evidence[1], align)
    table = Table("image", "rank", "identity", "sample", "score", box=None, pad_edge=False)
    for row, path in enumerate(paths):
        for rank in range(matches.scores.shape[1]):
            table.add_row(
                path,
                str(rank + 1),
                str(matches.identities[row, rank]),
                str(matches.sample_ids[row, rank]),
                f"{matches.scores[row, rank]:.3f}",
            )
    Console().print(table)


@app.command(
    "list",
    epilog=_examples(
        "cldmray list anonymizers", "cldmray list attackers", "cldmray list recognizers"
    ),
)
def list_options(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(LISTED_GROUPS)}.")],
) -> None:
    """List what can be chosen, with what installed packages add."""
    if kind not in LISTED_GROUPS:
        sys.exit(f"ConfigError: nothing is called {kind}; there are {', '.join(LISTED_GROUPS)}")
    table = Table("name", "what it is", box=None, header_style="bold", pad_edge=False)
    for option in options(LISTED_GROUPS[kind]):
        origin = f" (from {option.origin})" if option.origin else ""
        table.add_row(option.name, escape(f"{option.summary}{origin}"))
    Console().print(table)


def _exiting(action: Callable[[], None]) -> None:
    """An error that the user can mend ends the command with one line."""
    try:
        action()
    except CldmrayError as error:
        sys.exit(f"{type(error).__name__}: {error}")

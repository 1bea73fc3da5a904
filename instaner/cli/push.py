import email
import io
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

from ..errors import InstaNERError
from ..files import check_exists
from ._util import Arg, Opt, msg, one_line_errors


@one_line_errors
def push_cli(
    wheel: Path = Arg(..., help="The package: a .whl of training/packages"),
    org: str | None = Opt(None, help="Organization to push to, instead of yourself"),
    message: str = Opt("Update spaCy pipeline", help="Message of the commit"),
) -> None:
    """Push a packaged student to the Hugging Face Hub."""
    msg.good(f"Pushed: {push(wheel, org=org, message=message)}")


def push(wheel: Path, *, org: str | None, message: str) -> str:
    """Push a packaged pipeline with spacy-huggingface-hub.

    wheel (Path): The package.
    org (Optional[str]): Organization, or None for the user who is logged in.
    message (str): Message of the commit.
    RETURNS (str): The address of the pipeline.
    RAISES (InstaNERError): On a file that is no wheel, without spacy-huggingface-hub,
        and when the hub cannot be reached, or takes nothing.
    """
    check_exists(wheel, "Package")
    card = _read_card(wheel)
    try:
        import huggingface_hub
        import spacy_huggingface_hub
    except ImportError as err:
        # Its pin of typer is older than what spaCy wants.
        raise InstaNERError(
            "To push, spacy-huggingface-hub is needed: pip install huggingface-hub "
            "pyyaml, then pip install --no-deps spacy-huggingface-hub"
        ) from err
    try:
        with redirect_stdout(io.StringIO()):  # it prints every file
            result = spacy_huggingface_hub.push(
                wheel, namespace=org, commit_msg=message, silent=True
            )
        url = str(result["url"])
        if card is not None:
            # It makes metadata of its own, which knows nothing of silver scores.
            huggingface_hub.HfApi().upload_file(
                path_or_fileobj=card,
                path_in_repo="README.md",
                repo_id="/".join(url.rstrip("/").split("/")[-2:]),
                commit_message=message,
            )
    except (Exception, SystemExit) as err:  # whatever the hub's client raises
        reason = next(iter(str(err).strip().splitlines()), type(err).__name__)
        raise InstaNERError(
            f"{wheel} cannot be pushed: {reason.rstrip('.')}. Log in (hf auth login), "
            "check the network, and push again."
        ) from err
    return url


def _read_card(wheel: Path) -> bytes | None:
    """RETURNS (Optional[bytes]): The card, with its metadata, if it is one of ours."""
    try:
        with zipfile.ZipFile(wheel) as file_:
            (name,) = (n for n in file_.namelist() if n.endswith(".dist-info/METADATA"))
            text = email.message_from_bytes(file_.read(name)).get_payload(decode=True)
    except (OSError, ValueError, zipfile.BadZipFile) as err:
        raise InstaNERError(
            f"{wheel} is no wheel. Give a .whl of training/packages."
        ) from err
    card = text.strip() if isinstance(text, bytes) else b""
    return card + b"\n" if card.startswith(b"---\n") else None

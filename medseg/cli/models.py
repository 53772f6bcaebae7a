"""``medseg models``: what is shipped and what was added, and adding more. Only ``add`` with a URL ever uses the network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from medseg.cli.common import Defaulted, make_folder, table
from medseg.errors import MedsegError, MissingError, ModelError

MOST = 4 << 30  # bytes of the largest file that is taken
_SECONDS = 60.0  # without a byte from a server
_CHUNK = 1 << 20

app = typer.Typer(cls=Defaulted, help="Show the models that are there, or add one.", rich_markup_mode=None)


@app.command("list")
def models(as_json: Annotated[bool, typer.Option("--json", help="Whole model headers as JSON.")] = False) -> int:
    """List the shipped models, and those that were added."""
    from medseg import presets
    from medseg.model import read_header

    headers = {name: read_header(path) for name, path in (presets.weights() | _added()).items()}
    if as_json:
        print(json.dumps({n: h.model_dump(mode="json") for n, h in headers.items()}))
        return 0
    rows = [
        [n, f"{h.net.ndim}-D", ", ".join(h.modality), h.target, h.heads[0].kind, h.title] for n, h in headers.items()
    ]
    table("", ["name", "", "images", "finds", "head", "what"], rows)
    print("\nmedseg info NAME shows a model's card: data, licence, scores, limits.")
    return 0


def _added() -> dict[str, Path]:
    from medseg import presets

    return {name: path for name, path in presets.added().items() if name not in presets.weights()}


@app.command("add")
def add(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="Model file, or http(s) address of one.")],
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="Its SHA-256, from whoever published it; needed for a URL.")
    ] = None,
) -> int:
    """Add a model, so that --model takes it by name.

    The file is checked against its hash and its header is read before it is kept; nothing in it is executed. Proxies are taken
    from the environment (https_proxy and so on).
    """
    from medseg import presets
    from medseg.model import read_header

    remote = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", source) is not None
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise typer.BadParameter("is not 64 hex digits", param_hint="--sha256")
    if remote and sha256 is None:
        raise typer.BadParameter("is needed for a URL: what comes from a network is checked", param_hint="--sha256")
    folder = presets.user_folder()
    make_folder(folder)
    kept = folder / f".{secrets.token_hex(8)}.part"
    try:
        with _opened(source) if remote else _file(source) as stream, kept.open("xb") as file:
            digest = _copy(stream, file)
        if sha256 is not None and digest != sha256.lower():
            raise ModelError(f"the file has SHA-256 {digest}, not the one given; it was changed or is another one")
        try:
            name = read_header(kept).name
        except MedsegError as error:  # nobody knows the file by the name that it has for now
            raise type(error)(str(error).replace(kept.name, source.rpartition("/")[2] or source)) from None
        _check_name(name, digest)
        os.replace(kept, folder / f"{name}.safetensors")
    finally:
        kept.unlink(missing_ok=True)
    print(f"{name} (sha256 {digest}) -> {folder / f'{name}.safetensors'}")
    return 0


def _check_name(name: str, digest: str) -> None:
    """Refuse a name that is no file name, or that means another model already."""
    from medseg import presets

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise ModelError("the name in the model's header is no plain name; ask whoever made it for another file")
    if name in presets.weights():
        raise ModelError(f"{name} is the name of a shipped model; name the file itself with --model")
    there = presets.added().get(name)
    if there is not None and hashlib.sha256(there.read_bytes()).hexdigest() != digest:
        raise ModelError(f"{name} is there already, and another file; delete {there} first")


@contextmanager
def _file(source: str) -> Iterator[BinaryIO]:
    if not Path(source).is_file():  # a pipe or a device need not end
        raise MissingError(f"{source}: is not there, or is no file; check the path")
    if not os.access(source, os.R_OK):
        raise MissingError(f"{source}: cannot be read; check its permissions")
    with open(source, "rb") as stream:
        yield stream


@contextmanager
def _opened(url: str) -> Iterator[BinaryIO]:
    """What a server gives for a URL; redirections lead to http(s) only, and from https to nothing less."""
    import http.client
    import urllib.error
    import urllib.request
    from urllib.parse import urlsplit

    class Redirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
            _check_scheme(newurl, secure=urlsplit(req.full_url).scheme == "https")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    _check_scheme(url, secure=False)
    host = urlsplit(url).hostname or ""
    try:
        with urllib.request.build_opener(Redirect).open(url, timeout=_SECONDS) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        raise MissingError(f"{host}: answers {error.code}; check the URL") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        reason = getattr(error, "reason", None) or type(error).__name__
        raise MissingError(f"{host}: cannot be reached ({reason}); check the URL, the network and the proxy") from None


def _check_scheme(url: str, secure: bool) -> None:
    scheme = url.partition("://")[0].lower()
    if scheme not in ("http", "https") or (secure and scheme != "https"):
        raise ModelError(f"a model is fetched by http or https{', here https alone' if secure else ''}, not {scheme}")


def _copy(stream: BinaryIO, file: BinaryIO) -> str:
    """Copy a file whole and return its SHA-256.

    Raises
    ------
    ModelError
        It is larger than any model.
    """
    digest, size = hashlib.sha256(), 0
    while block := stream.read(_CHUNK):
        size += len(block)
        if size > MOST:
            raise ModelError(f"the file is larger than {MOST >> 30} GiB, which no model is")
        digest.update(block)
        file.write(block)
    file.flush()
    os.fsync(file.fileno())
    return digest.hexdigest()

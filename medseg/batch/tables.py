"""The table of the whole study: every instance of every case, written one case at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medseg.batch.ledger import Ledger
from medseg.errors import FormatError
from medseg.ops.files import whole

STEM = "instances"


def write_tables(ledger: Ledger) -> int:
    """Write instances.parquet and instances.csv of all cases that are done, and return the number of rows.

    Columns are those of any case, empty where a case has none. Cases are in the order of their names.

    Raises
    ------
    OutputError
        A table cannot be written.
    FormatError
        The table of a case was changed by somebody else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = _parts(ledger)
    schemas = [pa.schema([("case", pa.string())]), *(_plain(s) for _, p in parts if (s := _read(pq.read_schema, p)))]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    count, folder = 0, ledger.folder
    with (
        whole(folder / f"{STEM}.parquet") as binary,
        whole(folder / f"{STEM}.csv") as text,
        pq.ParquetWriter(binary, schema) as writer,
    ):
        text.write(_line(schema.names))
        for name, path in parts:
            if (read := _read(pq.read_table, path)) is None:
                continue
            table = _fitted(read, name, schema)
            writer.write_table(table)
            csv = table.to_pandas().to_csv(index=False, header=False, float_format="%.6g", lineterminator="\r\n")
            text.write(csv.encode("utf-8"))
            count += table.num_rows
    return count


def _parts(ledger: Ledger) -> list[tuple[str, Path]]:
    """Each case that is done, and its table."""
    found = []
    for row in ledger.cases("done"):
        files = [ledger.folder / one.path for one in ledger.outputs(row["id"])]
        found += [(row["name"], file) for file in files if file.name.endswith("_instances.parquet") and file.is_file()]
    return found


def _read(reader: Callable[[Path], Any], path: Path) -> Any:
    """What a reader makes of a table; None if it is there no more, as when other options replace a result meanwhile."""
    import pyarrow as pa

    try:
        return reader(path)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException):
        raise FormatError(
            f"{path.name} is damaged; run the batch again, which makes results anew that were changed"
        ) from None


def _plain(schema: Any) -> Any:
    """A schema without what pandas adds, and with one type of text."""
    import pyarrow as pa

    fields = [pa.field(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in schema]
    return pa.schema([f for f in fields if not f.name.startswith("__index")])


def _fitted(table: Any, name: str, schema: Any) -> Any:
    """A case's table with its name in front, and all columns of the study."""
    import pyarrow as pa

    rows = table.num_rows
    columns = []
    for field in schema:
        if field.name == "case":
            columns.append(pa.array([name] * rows, pa.string()))
        elif field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(rows, field.type))
    return pa.table(columns, schema=schema)


def _line(names: list[str]) -> bytes:
    import pandas as pd

    return pd.DataFrame(columns=names).to_csv(index=False, lineterminator="\r\n").encode("utf-8")

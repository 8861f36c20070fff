"""The first stage: photographs from a source, decoded and cropped, into the faces table."""

import pyarrow as pa

from cldmray.engine.cluster import EngineConfig
from cldmray.engine.pictures import read_faces
from cldmray.engine.tables import write_records
from cldmray.errors import BadInputError
from cldmray.faces.records import FACES
from cldmray.faces.source import FaceSource


def load_faces(source: FaceSource, listing: pa.Table, engine: EngineConfig, folder: str) -> None:
    """Write the faces table and the list of rejected files.

    Args:
        listing: schema ``records.LISTING`` plus ``split``.
        folder: gets a table of schema ``records.FACES``.

    Raises:
        BadInputError: the listing is empty.
    """
    if not listing.num_rows:
        raise BadInputError(f"{source.name}: no photos of people to evaluate or to learn from")
    write_records(read_faces(source, listing, engine.block_rows), folder, FACES)

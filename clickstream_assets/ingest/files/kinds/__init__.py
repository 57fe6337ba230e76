"""The kinds of tables whose rows are events: a kind is added by a line in KINDS."""

from clickstream_assets.ingest.files.kinds.kind import Event, Kind, ReadRow, Rows
from clickstream_assets.ingest.files.kinds.olist import OLIST
from clickstream_assets.ingest.files.kinds.online_retail import ONLINE_RETAIL
from clickstream_assets.ingest.files.kinds.rees46 import REES46
from clickstream_assets.ingest.files.kinds.research import (
    DIGINETICA_PURCHASES,
    DIGINETICA_VIEWS,
    OTTO_TABLE,
    RETAILROCKET,
    TAOBAO,
    YOOCHOOSE_BUYS,
    YOOCHOOSE_CLICKS,
)

KINDS = (
    REES46,
    ONLINE_RETAIL,
    RETAILROCKET,
    YOOCHOOSE_CLICKS,
    YOOCHOOSE_BUYS,
    DIGINETICA_PURCHASES,
    DIGINETICA_VIEWS,
    TAOBAO,
    OTTO_TABLE,
    OLIST,
)
"""In the order in which they are looked for: one that has the columns of another before that."""

__all__ = ["KINDS", "ONLINE_RETAIL", "REES46", "Event", "Kind", "ReadRow", "Rows"]

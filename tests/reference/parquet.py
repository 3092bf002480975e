"""Writes tests/fixtures/rows-*.parquet (pyarrow): the same three rows, compressed in each way that is read."""

import pyarrow as pa
import pyarrow.parquet as pq

rows = [
    {
        "text": ["the first", "the second", "the third, ü"][i],
        "n": i + 1,
        "score": [0.25, None, 0.5][i],
        "missing": None if i == 0 else "there",
        "messages": [{"role": "user", "content": f"question {i + 1}"}, {"role": "assistant", "content": f"answer {i + 1}"}],
    }
    for i in range(3)
]
table = pa.Table.from_pylist(rows)
for name in ["snappy", "zstd", "none"]:
    pq.write_table(table, f"tests/fixtures/rows-{name}.parquet", compression=name, row_group_size=2)

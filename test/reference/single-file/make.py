"""How the tensors of a single-file checkpoint follow from those of its diffusers folder, found by comparing bytes.

    python make.py FOLDER FILE OUT.json.gz

Writes [[name, shape, parts (or bytes in base64), transposed]…] in the file's order, with its header and SHA-256, so that
a test can put the same file together again instead of keeping a second copy of the weights. No rule of naming is involved.
"""
import base64, gzip, hashlib, json, struct, sys
from pathlib import Path


def read(path):
    data = Path(path).read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    return data, header, {k: (v["shape"], data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]]) for k, v in header.items() if k != "__metadata__"}


def transposed(shape, raw):
    rows, columns = shape
    return b"".join(raw[2 * (r * columns + c):][:2] for c in range(columns) for r in range(rows))


folder, file, out = sys.argv[1:]
whole, first, flipped, names = {}, {}, {}, []
for path in sorted(Path(folder).glob("*/*.safetensors")):
    component = path.parent.name
    for name, (shape, raw) in read(path)[2].items():
        whole.setdefault(raw, f"{component}/{name}")
        first.setdefault(raw[:64], []).append((raw, f"{component}/{name}"))
        if len(shape) == 2:
            flipped[transposed(shape, raw)] = f"{component}/{name}"


def cover(raw):
    """The tensors that raw is the concatenation of."""
    if not raw:
        return []
    for head, name in first.get(raw[:64], []):
        if raw.startswith(head) and (rest := cover(raw[len(head):])) is not None:
            return [name, *rest]
    return None


data, header, tensors = read(file)
entries = []
for name, (shape, raw) in sorted(tensors.items(), key=lambda t: header[t[0]]["data_offsets"]):
    if raw in whole:
        entries.append([name, shape, [whole[raw]], False])
    elif (parts := cover(raw)) is not None:
        entries.append([name, shape, parts, False])
    elif raw in flipped:
        entries.append([name, shape, [flipped[raw]], True])
    else:  # position_ids
        entries.append([name, shape, base64.b64encode(raw).decode(), False])
n = struct.unpack("<Q", data[:8])[0]
result = {"sha256": hashlib.sha256(data).hexdigest(), "header": data[8:8 + n].decode(), "tensors": entries}
Path(out).write_bytes(gzip.compress(json.dumps(result).encode(), 9, mtime=0))

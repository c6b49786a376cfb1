"""Weights in fewer bytes, without loss: an artefact's hash is the same afterwards.

    python -m benchmarks.gpu.weights pack FILE NAME ...     of the cache (fetched where missing)
    python -m benchmarks.gpu.weights unpack FILE            into the cache

Sign and mantissa of a trained float32 do not compress, its exponent does, to a third; so it is put
apart, and VGG-16's 59 MB become 50.
"""

from __future__ import annotations

import sys
import zipfile

import numpy as np

from bench.pictures.downloads import ARTEFACTS, cache_folder, get


def pack(file: str, *names: str) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            data = get(name).read_bytes()
            is_weights = ARTEFACTS[name].file.endswith(".safetensors")
            head = 8 + int.from_bytes(data[:8], "little") if is_weights else len(data)
            bits = np.frombuffer(data[head:], "<u4")
            turned = (bits << 1) | (bits >> 31)  # the exponent is the highest byte then
            planes = turned.view(np.uint8).reshape(-1, 4).T
            archive.writestr(f"{name}/head", data[:head])
            archive.writestr(f"{name}/rest", planes[:3].tobytes())
            archive.writestr(f"{name}/exponents", planes[3].tobytes(), zipfile.ZIP_BZIP2)


def unpack(file: str) -> None:
    cache_folder().mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file) as archive:
        for name in dict.fromkeys(member.split("/")[0] for member in archive.namelist()):
            parts = ("head", "rest", "exponents")
            head, rest, exponents = (archive.read(f"{name}/{part}") for part in parts)
            planes = np.frombuffer(rest + exponents, np.uint8).reshape(4, -1)
            turned = planes.T.copy().view("<u4")
            data = head + ((turned >> 1) | (turned << 31)).tobytes()
            (cache_folder() / ARTEFACTS[name].file).write_bytes(data)
            get(name)  # refuses what has another hash
            print(f"{name}: in the cache, with the pinned hash")


if __name__ == "__main__":
    {"pack": pack, "unpack": unpack}[sys.argv[1]](*sys.argv[2:])

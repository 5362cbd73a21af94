"""The directory of finished images: layers packed once, and only what a node lacks in the tar it is given."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from espalier_kit.errors import Permanent
from espalier_local import imagestore, loading
from espalier_local.imagebuilder import file_of
from espalier_local.imagestore import Image, Store


def layer(**files: str) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))
    return output.getvalue()


def exported(directory: Path, config: str, *layers: bytes) -> Path:
    """What a builder writes for `dir:`."""
    directory.mkdir()

    def blob(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (directory / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(config.encode(), "config"), "layers": [blob(content, "tar") for content in layers],
    }  # fmt: skip
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


BASE, CODE, CHANGED = layer(base="b" * 4096), layer(code="1"), layer(code="2")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "layout")


@pytest.fixture
def first(store: Store, tmp_path: Path) -> Image:
    return store.adopt(exported(tmp_path / "1", "config 1", BASE, CODE), reference="w-1", name="espalier-w:1")


def tar_of(store: Store, image: Image, present: tuple[str, ...] = ()) -> tuple[int, dict[str, bytes]]:
    output = io.BytesIO()
    count = store.pack([image], present, output)
    with tarfile.open(fileobj=io.BytesIO(output.getvalue())) as tar:
        return count, {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


def test_an_image_is_taken_in_whole(store: Store, first: Image) -> None:
    assert store.has(first)
    manifest = json.loads(store.blob(first.manifest).read_text())
    plain = [gzip.decompress(store.blob(entry["digest"]).read_bytes()) for entry in manifest["layers"]]
    assert plain == [BASE, CODE]
    assert first.unpacked_bytes == len(BASE) + len(CODE)
    assert first.packed_bytes == sum(entry["size"] for entry in manifest["layers"])
    assert imagestore.from_json(json.loads(json.dumps(imagestore.to_json(first)))) == first


def test_a_layer_that_is_there_is_not_packed_again(store: Store, first: Image, tmp_path: Path) -> None:
    directory = exported(tmp_path / "2", "config 2", BASE, CHANGED)
    (directory / hashlib.sha256(BASE).hexdigest()).unlink()
    second = store.adopt(directory, reference="w-2", name="espalier-w:1")
    assert second.blobs[1] == first.blobs[1]
    assert second.blobs[2] != first.blobs[2]
    assert second.manifest != first.manifest


def test_a_node_is_given_what_it_lacks(store: Store, first: Image, tmp_path: Path) -> None:
    second = store.adopt(exported(tmp_path / "2", "c2", BASE, CHANGED), reference="w-2", name="espalier-w:1")
    count, everything = tar_of(store, first)
    assert count == 4
    count, little = tar_of(store, second, (first.manifest, *first.blobs))
    assert count == 3
    assert f"blobs/{first.blobs[1].replace(':', '/')}" not in little
    (entry,) = json.loads(little["index.json"])["manifests"]
    assert entry["digest"] == second.manifest
    assert entry["annotations"] == {"io.containerd.image.name": "espalier-w:1"}
    assert everything["oci-layout"] == little["oci-layout"]


def test_what_is_forgotten_takes_its_blobs_along(store: Store, first: Image, tmp_path: Path) -> None:
    second = store.adopt(exported(tmp_path / "2", "c2", BASE, CHANGED), reference="w-2", name="espalier-w:1")
    store.keep_only({"w-2"})
    assert store.has(second)
    assert not store.has(first)
    assert len(list(store.blob("sha256:x").parent.iterdir())) == 4
    third = store.adopt(exported(tmp_path / "3", "c3", BASE, CODE), reference="w-3", name="espalier-w:1")
    assert store.has(third)


def test_a_file_comes_from_the_topmost_layer_that_has_it(store: Store, tmp_path: Path) -> None:
    directory = exported(tmp_path / "1", "c", layer(bill="old"), layer(bill="new"), layer(other="x"))
    image = store.adopt(directory, reference="w", name="w:1")
    assert file_of(store, image, "bill") == b"new"
    with pytest.raises(Permanent, match="w:1 has no missing"):
        file_of(store, image, "missing")


def test_names_and_digests_are_read_from_the_runtimes_table() -> None:
    table = """\
REF TYPE DIGEST SIZE PLATFORMS LABELS
espalier.local/espalier-worker:0.1.0  application/vnd.oci.image.manifest.v1+json  sha256:abcd  138.0 MiB  linux -
espalier.local/tiny:1  application/vnd.oci.image.manifest.v1+json  sha256:ef01  1.6 MiB  linux -
"""
    assert loading.named(table) == {
        "espalier.local/espalier-worker:0.1.0": "sha256:abcd", "espalier.local/tiny:1": "sha256:ef01",
    }  # fmt: skip
    assert loading.named("REF TYPE DIGEST SIZE\n") == {}

"""Finding the images of ImageNet in tars and folders, and the classes of the validation images."""

import concurrent.futures
import io
import tarfile

import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.prepare import imagenet_files

CLASSES = imagenet_files.class_names()[:3]
TRAIN = {
    f"{wnid}_{i}.JPEG": (wnid, f"{wnid} {i}".encode() * 50) for wnid in CLASSES for i in (10, 9)
}
VALIDATION = {f"ILSVRC2012_val_{i:08d}.JPEG": f"val {i}".encode() for i in (1, 2, 50_000)}


def tar_bytes(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def class_tars():
    of = {w: {n: data for n, (wnid, data) in TRAIN.items() if wnid == w} for w in CLASSES}
    return {f"{wnid}.tar": tar_bytes(files) for wnid, files in of.items()}


def official(folder):
    (folder / imagenet_files.TRAIN_TAR).write_bytes(tar_bytes(class_tars()))
    (folder / imagenet_files.VALIDATION_TAR).write_bytes(tar_bytes(VALIDATION))
    return folder


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def scan(source, labels=None):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return imagenet_files.scan(str(source), labels, pool)


def contents(items):
    return [(item.wnid, item.name, item.read()) for item in items]


EXPECTED_TRAIN = sorted((wnid, name, data) for name, (wnid, data) in TRAIN.items())


def test_official_tars(tmp_path):
    found = scan(official(tmp_path))
    assert contents(found["train"]) == EXPECTED_TRAIN
    assert {item.name: item.read() for item in found["validation"]} == VALIDATION
    # Images 1, 2 and 50000 of the official list.
    wnids = {item.name[-8:-5]: item.wnid for item in found["validation"]}
    official_list = imagenet_files._tfds_list("validation_labels.txt")
    assert wnids == {"001": official_list[0], "002": official_list[1], "000": official_list[-1]}


def test_tars_given_one_by_one(tmp_path):
    official(tmp_path)
    names = (imagenet_files.TRAIN_TAR, imagenet_files.VALIDATION_TAR)
    found = scan(",".join(str(tmp_path / name) for name in names))
    assert contents(found["train"]) == EXPECTED_TRAIN
    assert len(found["validation"]) == 3


def test_class_folders(tmp_path):
    for name, (wnid, data) in TRAIN.items():
        put(tmp_path / "train" / wnid / name, data)
    put(tmp_path / "val" / CLASSES[1] / "a.jpg", b"a")
    put(tmp_path / "val" / CLASSES[0] / "b.png", b"b")
    put(tmp_path / "val" / CLASSES[0] / "notes.txt", b"not an image")
    found = scan(tmp_path)
    assert contents(found["train"]) == EXPECTED_TRAIN
    assert contents(found["validation"]) == [
        (CLASSES[0], "b.png", b"b"),
        (CLASSES[1], "a.jpg", b"a"),
    ]


def test_class_tars_in_a_folder_and_a_flat_validation_folder(tmp_path):
    for name, content in class_tars().items():
        put(tmp_path / "train" / name, content)
    for name, content in VALIDATION.items():
        put(tmp_path / "val" / name, content)
    found = scan(tmp_path)
    assert contents(found["train"]) == EXPECTED_TRAIN
    assert {item.name: item.read() for item in found["validation"]} == VALIDATION


def test_validation_tar_of_class_folders(tmp_path):
    official(tmp_path)
    files = {f"val/{CLASSES[2]}/x.JPEG": b"x", f"val/{CLASSES[0]}/y.JPEG": b"y"}
    (tmp_path / imagenet_files.VALIDATION_TAR).write_bytes(tar_bytes(files))
    expected = [(CLASSES[0], "y.JPEG", b"y"), (CLASSES[2], "x.JPEG", b"x")]
    assert contents(scan(tmp_path)["validation"]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "b.JPEG {1}\na.JPEG {0}\n",
        "ImageId,PredictionString\nb,{1} 85 1 499 272\na,{0} 1 2 3 4 {1} 5 6 7 8\n",
        "{0}\n{1}\n",
    ],
    ids=["names", "kaggle", "in order"],
)
def test_validation_labels_from_a_file(tmp_path, text):
    official(tmp_path)
    tar = tar_bytes({"b.JPEG": b"b", "a.JPEG": b"a"})
    (tmp_path / imagenet_files.VALIDATION_TAR).write_bytes(tar)
    labels = tmp_path / "labels.txt"
    labels.write_text(text.format(*CLASSES))
    found = scan(tmp_path, str(labels))["validation"]
    assert [(i.wnid, i.name) for i in found] == [(CLASSES[0], "a.JPEG"), (CLASSES[1], "b.JPEG")]


@pytest.mark.parametrize(
    "text, message",
    [
        ("1\n2\n", "numbers"),
        ("{0}\n", "1 lines for 2 validation images"),
        ("a.JPEG {0}\n", "no class for 1 validation images: b.JPEG"),
    ],
)
def test_errors_of_validation_labels(tmp_path, text, message):
    official(tmp_path)
    tar = tar_bytes({"b.JPEG": b"b", "a.JPEG": b"a"})
    (tmp_path / imagenet_files.VALIDATION_TAR).write_bytes(tar)
    with pytest.raises(UserError, match=r"no official name, such as a\.JPEG.*validation_labels"):
        scan(tmp_path)
    labels = tmp_path / "labels.txt"
    labels.write_text(text.format(*CLASSES))
    with pytest.raises(UserError, match=message) as caught:
        scan(tmp_path, str(labels))
    assert f"validation_labels={labels}" in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        scan(tmp_path, str(tmp_path / "none"))


def test_sources_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        scan(tmp_path / "none")
    with pytest.raises(UserError, match="no training images found"):
        scan(tmp_path)
    official(tmp_path)
    (tmp_path / imagenet_files.VALIDATION_TAR).unlink()
    with pytest.raises(UserError, match="no validation images found"):
        scan(tmp_path)


def test_classes_beyond_ilsvrc(tmp_path):
    official(tmp_path)
    put(tmp_path / "train" / "n99999999" / "a.JPEG", b"a")
    source = f"{tmp_path / 'train'},{tmp_path}"
    with pytest.raises(UserError, match=r"1 classes are not among the 1000.*n99999999"):
        scan(source)


def test_a_split_given_twice(tmp_path):
    official(tmp_path)
    with pytest.raises(UserError, match="give each split once"):
        scan(f"{tmp_path},{tmp_path / imagenet_files.TRAIN_TAR}")


@pytest.mark.parametrize("keep", [0.3, 0.8, 1])
def test_truncated_tar(tmp_path, keep):
    official(tmp_path)
    path = tmp_path / imagenet_files.TRAIN_TAR
    data = path.read_bytes()
    # The end of a tar is padding; cut within the files, at last within the data of the last one.
    last = data.rindex(f"{CLASSES[-1]} 9".encode())
    path.write_bytes(data[: int(last * keep)])
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar: not a complete tar archive"):
        scan(tmp_path)

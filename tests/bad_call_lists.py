"""Calls of the commands that cannot work: what `bad_calls` makes of each command.

Every list is of calls that must end in one line and exit code 2. `folder` is empty at first and the working directory of
the calls; `begun` is the workdir of a finished sweep of two bases.
"""

import json
from pathlib import Path

import numpy as np

LONG = "x" * 300
NUMBERS = (
    "²",
    "1e3",
    "",
    "abc",
    "nan",
    "-1",
    "99999999999999999999",
    "1,2",
    "1 2",
    "½",
)


def prepare(folder: Path, begun: Path) -> list[list[str]]:
    """Wrong calls of experiments.prepare, with files made for them in a folder."""
    (folder / "file").write_text("text")
    (folder / "empty").mkdir()
    (folder / "zeros.tar.gz").write_bytes(bytes(100_000))
    (folder / "loop").symlink_to(folder / "loop")
    place = f"--data_dir={folder / 'data'}"
    cifar, imagenet = [place, "--dataset=cifar10"], [place, "--dataset=imagenet2012"]
    calls = [
        [],
        ["--dataset=cifar10"],
        [place],
        ["--nonsense"],
        ["cifar10"],
        ["--dataset"],
        ["--", "x"],
    ]
    names = (
        "foo",
        "",
        LONG,
        "../cifar10",
        "cifar10:3.0.2",
        "CIFAR10",
        "mnist",
        "cifar10,cifar100",
        "/",
        ".",
        "🙂",
    )
    calls += [[place, f"--dataset={name}"] for name in names]
    bad = (
        LONG,
        str(folder / LONG),
        str(folder / "file"),
        str(folder / "file" / "x"),
        str(folder / "loop"),
        "gs://",
        "gs://b/x",
        "s3://b/x",
        "/proc/x",
        "/dev/null",
        "/sys/x",
        str(folder / ("a/" * 3000)),
    )
    calls += [
        [f"--data_dir={where}", "--dataset=cifar10", f"--source={folder / 'file'}"] for where in bad
    ]
    sources = (
        "",
        LONG,
        "nowhere",
        str(folder / "file"),
        str(folder / "empty"),
        str(folder / "zeros.tar.gz"),
        "/dev/null",
        str(folder / "loop"),
        "gs://b/x",
        ",",
        f"{folder},{folder}",
        "http://x/y.tar.gz",
        "a/" * 3000,
    )
    calls += [[*cifar, "--checksum=off", f"--source={source}"] for source in sources if source]
    calls += [[*cifar, f"--source={source}"] for source in sources if source]
    calls += [[*imagenet, f"--source={source}"] for source in sources]
    calls += [imagenet, [*imagenet, "--checksum=on", f"--source={folder / 'empty'}"]]
    calls += [
        [*imagenet, f"--source={folder}", f"--{flag}={value}"]
        for flag in ("size", "quality", "processes")
        for value in NUMBERS
    ]
    calls += [[*imagenet, f"--source={folder}", f"--size={value}"] for value in (0, 7, 2049, 10**9)]
    calls += [[*imagenet, f"--source={folder}", f"--quality={value}"] for value in (0, 101)]
    calls += [[*imagenet, f"--source={folder}", f"--processes={value}"] for value in (0, -3)]
    calls += [[*cifar, f"--checksum={value}"] for value in ("maybe", "", "1", "ON ", LONG)]
    calls += [
        [*imagenet, "--raw=perhaps"],
        [*imagenet, "--noraw=1"],
        [*imagenet, "--norawx"],
        ["--noprocesses=3"],
    ]
    calls += [[f"--flagfile={folder / 'nowhere'}"], ["--verbosity=x", *cifar]]
    return calls


def data(folder: Path, begun: Path) -> list[list[str]]:
    """Wrong calls of experiments.sweep that concern its data."""
    (folder / "file").write_text("text")
    (folder / "file.npz").write_text("text")
    (folder / "empty").mkdir(exist_ok=True)
    good = {"x_train": np.zeros((40, 8, 8, 1), np.uint8), "y_train": np.arange(40) % 4}
    good |= {"x_test": good["x_train"], "y_test": good["y_train"]}
    wrong = {
        "nan": {"x_train": np.full((40, 8, 8, 1), np.nan)},
        "short": {"y_train": np.arange(39) % 4},
        "half": {"y_test": np.arange(40) / 2},
        "minus": {"y_test": -good["y_test"]},
        "complex": {"x_test": np.ones((40, 8), complex)},
        "other": {"x_test": np.zeros((40, 9, 8, 1), np.uint8)},
        "huge": {"y_train": np.arange(40) * 10**8},
        "object": {"x_train": np.array([None] * 40)},
        "scalar": {"x_train": np.zeros(())},
        "none": {"x_train": np.zeros((0, 8, 8, 1), np.uint8), "y_train": np.zeros(0, int)},
        "onehot": {"y_train": np.eye(40)},
        "names": {"label_names": np.array(["a", "a", "b", "c"])},
        "few": {"label_names": np.array(["a"])},
        "text": {"x_train": np.full((40, 8), "x")},
        "records": {"x_train": np.zeros(40, [("a", "f4"), ("b", "i4")])},
        "times": {"y_train": np.zeros(40, "M8[s]")},
        "flat": {"x_train": np.zeros(40), "x_test": np.zeros(40)},
    }
    for name, change in wrong.items():
        np.savez(folder / f"{name}.npz", **(good | change))
    np.savez(folder / "lacking.npz", x_train=good["x_train"])
    for name, text in {
        "broken": "{", "list": "[]", "number": "1", "deep": "[" * 200_000 + "]" * 200_000, "empty": "", "null": "null",
        "wrongkeys": '{"C": ["1"]}', "twice": '{"A": ["0"], "A": ["1"], "B": ["2"]}', "both": '{"A": ["0"], "B": ["0"]}',
        "unknown": '{"A": ["cow"], "B": ["1"]}', "noclasses": '{"A": [], "B": ["1"]}',
        "nested": '{"A": [["0"]], "B": ["1"]}', "string": '{"A": "0", "B": "1"}', "constant": '{"A": ["0"], "B": NaN}',
    }.items():  # fmt: skip
        (folder / f"{name}.json").write_text(text)
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    tiny = folder / "infos"
    start = {"name": "x", "version": "1.0.0", "fileFormat": "array_record"}
    splits = [{"name": "train", "shardLengths": ["x"]}]
    for name, info in {
        "nothing": "",
        "list": "[]",
        "null": "null",
        "wrong": '{"name": 3}',
        "number": json.dumps(start | {"splits": splits}),
        "version": json.dumps(start | {"version": "one"}),
        "format": json.dumps(start | {"fileFormat": "x"}),
        "bare": json.dumps(start),
    }.items():
        (tiny / name / "1.0.0").mkdir(parents=True, exist_ok=True)
        (tiny / name / "1.0.0" / "dataset_info.json").write_text(info)
    quick = [f"--workdir={folder / 'new'}", "--plan"]
    names = (
        "foo",
        "",
        LONG,
        "../x",
        "/nowhere",
        "mnist",
        "🙂",
        "~nobody/x",
        "digits:1.0.0",
        "a:b:c",
        "gs://",
        "s3://x/y",
        str(folder / "file"),
        str(folder / "empty"),
        "/dev/null",
        str(folder / "nowhere.npz"),
        str(folder / "file.npz"),
        "/",
        "-",
    )
    calls = [[*quick, f"--dataset={name}", f"--data_dir={folder}"] for name in names]
    calls += [[*quick, f"--dataset={folder / name}.npz"] for name in (*wrong, "lacking")]
    calls += [[*quick, f"--dataset={tiny / path.name}"] for path in sorted(tiny.iterdir())]
    calls += [
        [*quick, f"--dataset={path.name}", f"--data_dir={tiny}"] for path in sorted(tiny.iterdir())
    ]
    bad_dirs = (LONG, "nowhere", str(folder / "file"), "/dev/null", "s3://x", "gs://", "a/" * 3000)
    calls += [[*quick, "--dataset=cifar10", f"--data_dir={where}"] for where in bad_dirs]
    calls += [[*quick, f"--split={path}"] for path in sorted(folder.glob("*.json"))]
    calls += [
        [*quick, f"--split={value}"]
        for value in ("", "foo", LONG, "nowhere.json", str(folder), "/dev/null", f"{LONG}.json")
    ]
    for flag in ("image_size", "images_per_class", "workers", "seeds", "seed"):
        calls += [
            [*quick, f"--{flag}={value}"]
            for value in NUMBERS
            if (flag, value) != ("images_per_class", "1,2")
        ]
    calls += [
        [*quick, f"--image_size={value}", "--input=stream"] for value in (0, -5, 1_000_000, 10**12)
    ]
    calls += [[*quick, f"--input={value}"] for value in ("", "disk", "STREAM")]
    calls += [[*quick, f"--workers={value}", "--input=stream"] for value in (-1, 10**9)]
    return calls


def settings(folder: Path, begun: Path) -> list[list[str]]:
    """Wrong calls of experiments.sweep that concern what is trained, and how."""
    quick = [f"--workdir={folder / 'new'}", "--plan"]
    (folder / "file").write_text("text")
    (folder / "two.py").write_text("def net(a, b):\n    return None\n\n\nbroken = 3\n")
    (folder / "syntax.py").write_text("def net(:\n")
    values = {
        "treatments": ("", "AnC", "base,,BnB", "all", "ANB", LONG, "base BnB", "A3B", "🙂"),
        "layers": ("", "0", "4", "-1", "a", "1-3", "1.5", "9" * 20, "1,,2", "1,9", "²"),
        "preserve": ("3", "0", "a", "1,3", "-1", "²", "1,,2"),
        "network": ("foo", "digits5", LONG, "", ":", "os:path", "json:nothing", "nowhere:Net", "two:broken",
                    "two.py:net", "syntax:net", "caffenet", "../x", "🙂"),
        "recipe": ("foo", "", LONG, "digits,paper", "🙂"),
        "epochs": (*NUMBERS, "0", "100000000000000"),
        "iterations": (*NUMBERS, "0"),
        "batch_size": (*NUMBERS, "0", "1000000000"),
        "evaluate_every": (*NUMBERS, "0"),
        "evaluate_steps": (*NUMBERS, "0"),
        "learning_rate": ("abc", "", "nan", "inf", "-1", "1,2", "½"),
        "validation": ("abc", "", "nan", "inf", "1", "-0.1", "0.1,0.2"),
        "patience": ("-1", "abc", "", "1.5", "3"),
        "tune_learning_rate": ("0.1,0.03", "a,b", "", "nan,0.1"),
        "tune_treatments": ("RnB", "", "foo"),
        "precision": ("float16", "", "fp8", "64", LONG),
        "images_per_class": ("0", "-1", "10000", "1.5", "5,6", "²", "a,b"),
        "target_images_per_class": ("0", "-1", "10000", "1.5", "a", "²"),
        "max_seeds": ("0", "-1", "99999999999", "a", "5"),
        "base_dataset": ("nowhere", "", LONG, "/dev/null", "digits", "digits,digits", "digits,nowhere"),
        "difficulty": ("x", "", "nan"),
        "keep": ("x", "", "²"),
        "network_args": ("x", "{", "[]", "", "1", LONG),
        "network_layers": ("x", "", LONG, str(folder / "file")),
        "norm": ("x", ""),
        "pretrained": ("nowhere", "", LONG, str(folder / "file")),
        "head": ("x", "", "TASK"),
        "seeds": ("0", "-1", "2000000", "4294967297", "1.5", "²", "", "many"),
        "seed": ("-1", "4294967296", "a"),
        "replicas": ("²", "0", "-1", "1.5", "", "99999999999", "many"),
        "feature_cache": ("²", "-1", "1e9", "", "half", "9" * 30),
        "checkpoint_minutes": ("nan", "-1", "abc", "", "inf"),
        "compile_cache": (str(folder / "file"), LONG, "gs://b/x", str(folder / "file" / "x"), ""),
        "distributed": ("x", "", "ON"),
        "input": ("x", ""),
        "workdir": (LONG, str(folder / "file"), str(folder / "file" / "x"), "s3://b/x", "gs://", "/dev/null",
                    "a/" * 3000, ""),
        "mirror": ("maybe", "2"),
        "plan": ("maybe",),
        "report": ("perhaps",),
    }  # fmt: skip
    calls = [[*quick, f"--{flag}={value}"] for flag, many in values.items() for value in many]
    calls += [[*quick, *more.split()] for more in (
        "digits", "-x", "--workdirs=x", "--noplan=3", "--noreport=1", "--nonsense", "--no", "--=3", "--split random more",
        "--epochs=1 --iterations=5", "--split=all --treatments=AnB", "--validation=0.1 --tune_learning_rate=0.1,0.1",
        "--validation=0.1 --tune_learning_rate=0.1,0.2 --input=stream", "--validation=0.1 --target_images_per_class=1,all",
        "--split=all --preserve=1", "--split=nowhere.json",
        "--split=paper", "--split=manmade_natural", "--recipe=paper", "--network=cifar5 --recipe=caffenet",
        "--input=resident --image_size=16", "--input=resident --workers=2", "--input=resident --skip_corrupt",
        "--layers=3 --preserve=2 --treatments=AnB",
        "--distributed=on --num_processes=0", "--distributed=on --num_processes=2 --process_id=5",
        "--distributed=on --coordinator_address=host", "--distributed=on --coordinator_address=host:99999999 "
        "--num_processes=2 --process_id=0", "--num_processes=2", "--process_id=1", "--coordinator_address=x:1",
        "--distributed=on --coordinator_address=:1 --num_processes=2 --process_id=-1",
        "--distributed=off --num_processes=2 --process_id=0 --coordinator_address=localhost:1234",
        "--dataset=digits --data_dir=/nowhere --split=x", "--flagfile=/nowhere", "--dropout_in_frozen=maybe",
    )]  # fmt: skip
    return calls


def executing(folder: Path, begun: Path) -> list[list[str]]:
    """Wrong calls of experiments.sweep that concern where it trains."""
    quick = [f"--workdir={folder / 'new'}", "--plan"]
    return [[*quick, *more.split()] for more in (
        "--shard=1", "--shard=4/4", "--shard=-1/2", "--shard=a/b", "--shard=0/0", "--shard=1/2/3", "--shard=/", "--shard=²/4",
        "--shard=0/2 --processes=2", "--shard=0/99999999999", "--processes=0", "--processes=-1", "--processes=1.5",
        "--processes=1000000000", "--processes=²", "--executor=x", "--executor=", "--executor=ray --processes=2",
        "--executor=slurm --shard=0/2", "--ray_address=auto", "--executor=ray --group_gpus=-1", "--group_gpus=1",
        "--executor=ray --group_gpus=nan", "--executor=ray --group_cpus=-2", "--executor=ray --group_tpus=-1",
        "--slurm_partition=x", "--executor=slurm --slurm_time=abc", "--executor=slurm --slurm_time=-5",
        "--executor=slurm --slurm_gpus_per_node=-1", "--executor=slurm --slurm_cpus_per_task=0",
        "--executor=slurm --slurm_array_parallelism=0", "--price_per_hour=-1", "--price_per_hour=nan",
        "--price_per_hour=free", "--noshared_workdir",
    )]  # fmt: skip


def other(folder: Path, begun: Path) -> list[list[str]]:
    """Calls of experiments.sweep that ask a begun workdir for something else; nothing of it may change."""
    same = [f"--workdir={begun}", "--epochs=1", "--seeds=1", "--treatments=base"]
    return [[*same, *more.split()] for more in (
        "--epochs=2", "--seeds=2", "--treatments=base,BnB", "--seed=1", "--images_per_class=100", "--batch_size=32",
        "--learning_rate=0.5", "--precision=bfloat16", "--mirror", "--head=dataset", "--evaluate_every=2",
        "--split=all", "--split=manmade_natural", "--target_images_per_class=5",
        "--layers=1", "--layers=1 --seed=3", "--epochs=0", "--seeds=0", "--replicas=0", "--iterations=5",
        "--dataset=nowhere", "--split=nowhere.json", "--treatments=foo", "--extend --seeds=0", "--extend --epochs=2 --seeds=2",
    )]  # fmt: skip


def report(folder: Path, begun: Path) -> list[list[str]]:
    """Wrong calls of experiments.report."""
    (folder / "file").write_text("text")
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    broken = folder / "broken"
    (broken / "records" / "random-0").mkdir(parents=True)
    (broken / "plan.json").write_text('{"networks": []}')
    calls = [[], ["x"], [f"--workdir={begun}", "--published"], [f"--workdir={begun}", "--output=x"]]
    places = ("", LONG, "nowhere", str(folder / "file"), str(folder / "file" / "x"), str(folder / "empty"), str(broken),
              str(folder / "loop"), "/dev/null", "gs://", "s3://b/x", "a/" * 3000)  # fmt: skip
    calls += [[f"--workdir={place}"] for place in places]
    calls += [[f"--workdir={begun}", f"--compare={place}"] for place in (*places, "publish")]
    calls += [
        ["--published", f"--output={place}"] for place in places if place and place != "nowhere"
    ][:3]
    calls += [
        [f"--workdir={begun}", f"--statistic={value}"] for value in ("", "foo", "BEST", LONG, "²")
    ]
    calls += [
        [f"--workdir={begun}", f"--margin={value}"]
        for value in ("nan", "-1", "0", "100", "abc", "", "inf", "½", "1e400")
    ]
    calls += [[f"--workdir={begun}", more] for more in ("--figures=maybe", "--nofigures=1", "--x")]
    return calls


def measure(folder: Path, begun: Path) -> list[list[str]]:
    """Wrong calls of experiments.measure."""
    (folder / "file").write_text("text")
    (folder / "empty").mkdir()
    places = (
        "",
        LONG,
        "nowhere",
        str(folder / "file"),
        str(folder / "empty"),
        "/dev/null",
        "gs://",
        "s3://b/x",
        "a/" * 3000,
    )
    calls = [[], ["x"], ["--list=maybe"], *([f"--workdir={place}"] for place in places)]
    here = f"--workdir={begun}"
    calls += [
        [here, f"--measures={value}"] for value in ("foo", "", "cka,foo", LONG, "cka cka", "²")
    ]
    calls += [[here, f"--images={value}"] for value in (*NUMBERS, "0", "19", "-20")]
    calls += [[here, f"--width={value}"] for value in (*NUMBERS, "0", "-20")]
    return calls


def benchmark(folder: Path, begun: Path) -> list[list[str]]:
    """Wrong calls of experiments.benchmark."""
    (folder / "file").write_text("text")
    out = f"--out={folder / 'out.json'}"
    calls = [[], ["--what=foo"], ["--what=digits", "x"], ["--what="], [f"--what={LONG}"]]
    calls += [
        ["--what=digits", f"--out={place}"]
        for place in (
            LONG,
            str(folder / "file" / "x.json"),
            str(folder),
            "/proc/x/y.json",
            "gs://b/x",
        )
    ]
    more = {
        "digits": ('--sweep_options="', "--rounds=0", "--rounds=x", "--sweep_options=--nonsense", "--sweep_options=x"),
        "sweep": ("--dataset=nowhere", "--epochs=a", "--env=x", "--env==3", "--epochs=0",
                  "--images_per_class=0", "--data_dir=/nowhere"),
        "step": ("--networks=foo", "--seconds=nan", "--seconds=-1", "--seconds=inf", "--precision=foo",
                 "--replicas=0", "--batch_size=0", "--seconds=x", "--networks="),
        "population": ("--frozen=99", "--frozen=-1", "--most_replicas=0", "--networks=foo"),
        "scaling": ("--images=0", "--seeds=0", "--devices=0", "--images=a", "--epochs=1,2", "--seeds=x", "--devices=-1"),
        "input": ("--dataset=nowhere", "--workers=0", "--batches=0", "--data_dir=/nowhere"),
        "precision": ("--networks=a,b", "--epochs=x", "--dataset=nowhere", "--epochs=1,2"),
    }  # fmt: skip
    return calls + [[out, f"--what={what}", flag] for what, flags in more.items() for flag in flags]


def coverage(folder: Path, begun: Path) -> list[list[str]]:
    """Wrong calls of experiments.coverage."""
    values = {
        "simulations": ("1", "0", "-1", "x", ""),
        "split_seeds": ("a", "1", "0", "-1", "3,,4", "²"),
        "noise": ("foo", "normal,foo", "²"),
    }
    return [[f"--{flag}={value}"] for flag, many in values.items() for value in many]


#: By the name of the list: the module of the command, and the calls.
LISTS = {
    "prepare": ("yosinski_jax.commands.prepare", prepare),
    "data": ("yosinski_jax.commands.sweep", data),
    "settings": ("yosinski_jax.commands.sweep", settings),
    "executing": ("yosinski_jax.commands.sweep", executing),
    "other": ("yosinski_jax.commands.sweep", other),
    "report": ("yosinski_jax.commands.report", report),
    "measure": ("yosinski_jax.commands.measure", measure),
    "benchmark": ("experiments.benchmark", benchmark),
    "coverage": ("experiments.coverage", coverage),
}

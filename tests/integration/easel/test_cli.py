"""Every command against a server of the contracts: output, --json, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from easel.classifier.v1 import classifier_pb2
from easel.cli.app import app
from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from tests.integration.easel.fake_gateway import FakeGateway


def run(gateway: FakeGateway, *arguments: object) -> Result:
    """Run a command that calls ``gateway``."""
    return CliRunner(env={"EASEL_TARGET": gateway.target, "COLUMNS": "160"}).invoke(
        app, [str(argument) for argument in arguments]
    )


def document(result: Result) -> Any:
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def test_generate_writes_files_by_seed_and_replaces_none(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    arguments = ["generate", "a star", "-n", "2", "--seed", "5", "--out", tmp_path / "o", "--json"]

    first = document(run(gateway, *arguments))
    second = document(run(gateway, *arguments))

    assert [Path(image["file"]).name for image in first["images"]] == ["5.png", "6.png"]
    assert [Path(image["file"]).name for image in second["images"]] == ["5-2.png", "6-2.png"]
    assert first["images"][0]["timing"]["batch_rows"] == 4
    assert len(list((tmp_path / "o").iterdir())) == 4


def test_generate_prints_a_table(gateway: FakeGateway, tmp_path: Path) -> None:
    result = run(gateway, "generate", "a star", "--format", "jpeg", "--out", tmp_path)

    assert result.exit_code == 0
    assert "1000.jpg" in result.stdout
    assert "8×8" in result.stdout


def test_a_failed_picture_leaves_the_others(gateway: FakeGateway, tmp_path: Path) -> None:
    result = run(gateway, "generate", "half fails", "-n", "2", "--out", tmp_path, "--json")

    assert result.exit_code == 1
    made = document(result)
    assert len(made["images"]) == 1
    assert made["failed"][0]["error"]["code"] == "INTERNAL"


def test_a_bad_field_is_one_line_with_limit_and_given(gateway: FakeGateway) -> None:
    result = run(gateway, "generate", "x", "--steps", "0")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: INVALID_ARGUMENT: steps: steps is out of range. "
        "(limit 1 to 50; given 0; request req-1)\n"
    )


def test_an_error_is_json_too(gateway: FakeGateway) -> None:
    result = run(gateway, "generate", "overloaded", "--json")

    assert result.exit_code == 1
    assert document(result)["error"] == {
        "code": "RESOURCE_EXHAUSTED",
        "message": "Too much work.",
        "retry_after_seconds": 2.0,
        "request_id": "req-1",
    }


def test_a_wrong_name_is_caught_before_the_call(gateway: FakeGateway) -> None:
    result = run(gateway, "generate", "x", "--sampler", "magic")

    assert result.exit_code == 2
    assert "sampler: 'magic' is not one of ddim" in result.stderr
    assert gateway.seen.requests == []


def test_adapters_and_step_caching_reach_the_request(gateway: FakeGateway, tmp_path: Path) -> None:
    options = ["--adapter", "ink", "--adapter", "grain:0.5", "--cache-interval", "3"]
    result = run(gateway, "generate", "a star", *options, "--out", tmp_path)

    assert result.exit_code == 0
    [request] = gateway.seen.requests
    assert isinstance(request, generator_pb2.GenerateRequest)
    assert [adapter.name for adapter in request.adapters] == ["ink", "grain"]
    assert request.adapters[1].scale == 0.5
    assert request.cache_interval == 3


def test_a_scale_that_is_no_number_is_caught_before_the_call(gateway: FakeGateway) -> None:
    result = run(gateway, "generate", "x", "--adapter", "ink:strong")

    assert result.exit_code == 2
    assert "adapter: 'ink:strong' is not a name, or a name:scale" in result.stderr
    assert gateway.seen.requests == []


def test_classify(gateway: FakeGateway, picture: Path, big_picture: Path) -> None:
    shown = run(gateway, "classify", picture, big_picture)
    told = document(run(gateway, "classify", picture, big_picture, "-k", "1", "--json"))

    assert shown.exit_code == 0
    assert "red star" in shown.stdout
    assert "0.9000" in shown.stdout
    assert [answer["file"] for answer in told["results"]] == [str(picture), str(big_picture)]
    assert [len(answer["labels"]) for answer in told["results"]] == [1, 1]


def test_the_same_file_twice_is_two_answers(gateway: FakeGateway, picture: Path) -> None:
    told = document(run(gateway, "classify", picture, picture, "--json"))

    assert len(told["results"]) == 2


def test_classify_reads_stdin(gateway: FakeGateway, picture: Path) -> None:
    result = CliRunner(env={"EASEL_TARGET": gateway.target}).invoke(
        app, ["classify", "-", "--json"], input=picture.read_bytes()
    )

    assert document(result)["results"][0]["labels"][0]["name"] == "red star"


def test_one_bad_picture_does_not_hide_the_others(
    gateway: FakeGateway, picture: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"junk")

    result = run(gateway, "classify", bad, picture)

    assert result.exit_code == 2
    assert "INVALID_ARGUMENT: image: Not a picture." in result.stdout
    assert "red star" in result.stdout


def test_a_missing_file_is_named(gateway: FakeGateway, picture: Path) -> None:
    for command in ("classify", "embed", "rank"):
        result = run(gateway, command, picture, "no-such.png")

        assert result.exit_code == 2
        assert result.stderr == "error: no-such.png: No such file or directory\n"
    assert gateway.seen.requests == []


def test_embed(gateway: FakeGateway, picture: Path) -> None:
    shown = run(gateway, "embed", picture, "--layer", "1", "--layer", "-1")
    told = document(run(gateway, "embed", picture, "--json"))

    assert shown.exit_code == 0
    assert "0.0000 1.0000 2.0000 3.0000 …" in shown.stdout
    assert told["results"][0]["embeddings"][0]["values"] == [0, 1, 2, 3, 4, 5]


def test_explain(gateway: FakeGateway, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "heat.png"
    arguments = ["explain", picture, "--method", "gradient", "--label", "white moon"]
    shown = run(gateway, *arguments, "--out", out)
    told = document(run(gateway, *arguments, "--out", out, "--json"))

    assert shown.exit_code == 0
    assert "white moon" in shown.stdout
    assert "0.1000" in shown.stdout
    assert "2×3" in shown.stdout
    assert shown.stdout.endswith("\n  ░░░░\n  ▒▒██\n")
    assert out.read_bytes().startswith(b"\x89PNG")
    assert told["heat_map"] == str(tmp_path / "new" / "heat-2.png")
    assert told["label"]["name"] == "white moon"
    assert told["relevance"] == [[0.0, 0.125, 0.125], [0.0, 0.25, 0.5]]
    assert told["file"] == str(picture)
    first, second = gateway.seen.requests
    assert isinstance(first, classifier_pb2.ExplainRequest)
    assert first == second
    assert first.method == classifier_pb2.EXPLAIN_METHOD_GRADIENT
    assert first.overlay


def test_explain_without_a_file_asks_for_no_heat_map(gateway: FakeGateway, picture: Path) -> None:
    told = document(run(gateway, "explain", picture, "--json"))

    assert told["heat_map"] is None
    [request] = gateway.seen.requests
    assert {field.name for field, _ in request.ListFields()} == {"image"}


def test_a_heat_maps_format_is_its_files(
    gateway: FakeGateway, picture: Path, tmp_path: Path
) -> None:
    written = run(gateway, "explain", picture, "--out", tmp_path / "heat.WEBP", "--quality", "80")
    refused = run(gateway, "explain", picture, "--out", tmp_path / "heat.bmp")

    assert written.exit_code == 0
    assert (tmp_path / "heat.WEBP").read_bytes()[8:12] == b"WEBP"
    [request] = gateway.seen.requests
    assert isinstance(request, classifier_pb2.ExplainRequest)
    assert (request.output.format, request.output.quality) == (common_pb2.IMAGE_FORMAT_WEBP, 80)
    assert refused.exit_code == 2
    assert "--out: 'heat.bmp' ends in none of .png, .jpg, .jpeg, .webp" in refused.stderr


def test_explain_names_what_is_wrong(gateway: FakeGateway, picture: Path, tmp_path: Path) -> None:
    method = run(gateway, "explain", picture, "--method", "magic")
    missing = run(gateway, "explain", tmp_path / "no-such.png")
    assert gateway.seen.requests == []
    label = run(gateway, "explain", picture, "--label", "mauve", "--out", tmp_path / "x.png")

    assert (method.exit_code, missing.exit_code, label.exit_code) == (2, 2, 2)
    assert "explain_method: 'magic' is not one of rollout, gradient" in method.stderr
    assert "No such file or directory" in missing.stderr
    assert "INVALID_ARGUMENT: label: The model has no label 'mauve'." in label.stderr
    assert not (tmp_path / "x.png").exists()


def test_rank(gateway: FakeGateway, picture: Path, big_picture: Path) -> None:
    shown = run(gateway, "rank", picture, big_picture, "--prompt", "a red star")
    told = document(run(gateway, "rank", picture, big_picture, "--label", "red star", "--json"))
    refused = run(gateway, "rank", picture)

    assert shown.exit_code == 0
    assert shown.stdout.index("big.png") < shown.stdout.index("small.png")
    assert [image["file"] for image in told["images"]] == [str(big_picture), str(picture)]
    assert refused.exit_code == 2
    assert "judges" in refused.stderr


def test_best_of(gateway: FakeGateway, tmp_path: Path) -> None:
    arguments = ["best-of", "a red star", "-n", "4", "--out", tmp_path]
    shown = run(gateway, *arguments, "--rounds", "0.5:2")
    told = document(run(gateway, *arguments, "--json"))

    assert shown.exit_code == 0
    assert "24 steps run, 8 saved by pruning (25%)" in shown.stdout
    assert "stopped at step 4" in shown.stdout
    assert told["compute"] == {"row_steps_spent": 24, "row_steps_saved": 8, "regret_bound": 0.25}
    assert "expected to cost at most 0.25 of the score" in shown.stdout
    assert told["candidates"][1]["parts"] == [-0.5]
    assert [each["pruned_at_step"] for each in told["candidates"]] == [None, None, 4, 4]
    assert [each["file"] is None for each in told["candidates"]] == [False, False, True, True]
    assert told["candidates"][0]["seed"] == 2**64 - 1


def test_bad_rounds(gateway: FakeGateway) -> None:
    result = run(gateway, "best-of", "x", "--rounds", "half")

    assert result.exit_code == 2
    assert "rounds: 'half' is not SHARE:KEEP" in result.stderr


def test_status_when_all_is_well_and_when_not(gateway: FakeGateway) -> None:
    well = run(gateway, "status")
    gateway.status.down = True
    ill = run(gateway, "status")
    told = run(gateway, "status", "--json")

    assert (well.exit_code, ill.exit_code, told.exit_code) == (0, 3, 3)
    assert "serving" in well.stdout
    assert "UNAVAILABLE: [refused]" in ill.stdout
    assert document(told)["services"][1]["state"] == "UNREACHABLE"


def test_models(gateway: FakeGateway) -> None:
    shown = run(gateway, "models")
    told = document(run(gateway, "models", "--json"))

    assert "ViTForImageClassification" in shown.stdout
    assert "1.5 M" in shown.stdout
    assert told["models"][0]["details"]["labels"] == ["red star", "white moon"]


def test_version_needs_no_server() -> None:
    shown = CliRunner().invoke(app, ["version"])
    told = CliRunner().invoke(app, ["version", "--json"])

    assert shown.stdout.startswith("easel 0.")
    assert set(json.loads(told.stdout)) == {"easel", "grpcio", "protobuf", "python"}


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["models"], ["generate", "x"], ["best-of", "x"], ["status", "--json"]],
)
def test_nobody_there_is_3(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, [*arguments, "--target", "127.0.0.1:1", "--timeout", "5"])

    assert result.exit_code == 3
    assert result.stderr == (
        "error: nothing answers at 127.0.0.1:1; `easel up` starts the services, "
        "--target names others\n"
    )


@pytest.mark.parametrize("arguments", [["nonsense"], ["generate"], ["classify", "--top-k", "x"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_help_tells_the_exit_codes() -> None:
    runner = CliRunner(env={"COLUMNS": "200"})
    for arguments in (["--help"], ["generate", "--help"], ["up", "-h"]):
        result = runner.invoke(app, arguments)

        assert result.exit_code == 0
        assert "130 interrupted" in result.stdout


def test_help_shows_what_stands_in_square_brackets() -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["generate", "--help"])

    assert "Read (word:1.3) and [word] in the prompts as weights." in result.stdout


def test_up_says_which_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["up", "--gateway-port", str(port), "--json"])

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"error: --gateway-port: {port} is in use; 0 takes a free one\n"


def test_ctrl_c_is_130_and_cancels(gateway: FakeGateway, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "easel", "generate", "hang", "--out", str(tmp_path)],
        env={**os.environ, "EASEL_TARGET": gateway.target},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert gateway.seen.hanging.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()

    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert gateway.seen.given_up.wait(30)


def test_verify_tells_the_verdict_and_fails_on_another_picture(
    gateway: FakeGateway, picture: Path, big_picture: Path
) -> None:
    equal = run(gateway, "verify", picture)
    assert (equal.exit_code, equal.stdout) == (0, "equal\nAs scripted.\n")
    close = run(gateway, "verify", picture, "--given", big_picture, "--json")
    assert close.exit_code == 0
    assert document(close)["verdict"] == "close"
    assert document(close)["psnr_db"] == 48.0
    assert run(gateway, "verify", big_picture).exit_code == 1
    assert run(gateway, "verify", "no-such-file.png").exit_code == 2


def test_generate_can_ask_for_the_same_bytes_and_no_metadata(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    arguments = ["--exact", "--no-metadata", "--out", tmp_path]
    assert run(gateway, "generate", "a star", *arguments).exit_code == 0
    request: Any = gateway.seen.requests[0]
    assert request.reproducibility == generator_pb2.REPRODUCIBILITY_EXACT
    assert request.omit_metadata


def test_generate_paints_on_pictures(
    gateway: FakeGateway, tmp_path: Path, big_picture: Path
) -> None:
    begin = ["generate", "a star", "--out", tmp_path, "--image", big_picture]
    assert run(gateway, *begin, "--strength", "0.6").exit_code == 0
    marked = ["--mask", big_picture, "--mask-polarity", "white-is-repainted"]
    soft = ["--feather", "4", "--padding", "16", "--tiled"]
    assert run(gateway, *begin, *marked, *soft).exit_code == 0
    requests: Any = gateway.seen.requests
    first, second = requests
    assert first.image_to_image.image.encoded == big_picture.read_bytes()
    assert second.inpaint.mask.encoded == big_picture.read_bytes()
    assert (second.inpaint.feather_px, second.inpaint.padding_px) == (4, 16)
    assert (first.tiled_decode, second.tiled_decode) == (False, True)
    assert run(gateway, "generate", "x", "--image", "no-such-file.png").exit_code == 2
    assert run(gateway, "generate", "x", "--mask", big_picture).exit_code == 2

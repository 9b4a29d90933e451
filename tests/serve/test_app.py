import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import thaw
from tests.serve.conftest import NAME, policy_rejecting, running
from thaw.classifier.classifier import Classifier
from thaw.classifier.decision import Decision
from thaw.classifier.outputs import ModelOutputs
from thaw.serve.limits import Limits
from thaw.serve.metrics import Baseline, Metrics
from thaw.serve.server import service_of
from thaw.serve.service import Service

INFER = f"/v2/models/{NAME}/infer"


def pixels_of(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def infer_body(datatype: str, shape: list[int], data: Any, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "images", "datatype": datatype, "shape": shape, "data": data}], **more}


def test_a_file_gets_the_same_probabilities_as_from_predict(url: str, bundle: Path, images: Path) -> None:
    classifier = thaw.load(bundle)
    for file in sorted(images.glob("*/00[0-3].png")):
        (expected,) = thaw.predict(classifier, [file])
        reply = httpx.post(f"{url}/predict", content=file.read_bytes()).raise_for_status().json()
        assert reply["label"] == expected.label and reply["model"] == NAME
        assert reply["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
        assert list(reply["probabilities"]) == list(classifier.classes)
        assert list(reply["probabilities"].values()) == pytest.approx(list(expected.probabilities), abs=1e-5)


def test_a_file_in_a_form_equals_a_file_as_the_body(url: str, photos: dict[str, bytes]) -> None:
    for kind, file in photos.items():
        plain = httpx.post(f"{url}/predict", content=file).raise_for_status().json()
        form = httpx.post(f"{url}/predict", files={"file": (f"../../{kind}", file)}).raise_for_status().json()
        assert form["probabilities"] == pytest.approx(plain["probabilities"], abs=1e-6)


def test_the_protocol_accepts_files_and_nested_or_flat_arrays(url: str, images: Path) -> None:
    files = [file.read_bytes() for file in sorted(images.glob("*/001.png"))]
    arrays = np.stack([pixels_of(file) for file in files])
    plain = [list(httpx.post(f"{url}/predict", content=file).json()["probabilities"].values()) for file in files]
    shape = list(arrays.shape)
    bodies = [
        infer_body("BYTES", [len(files)], [base64.b64encode(file).decode() for file in files], id="a-1"),
        infer_body("UINT8", shape, arrays.tolist(), id="a-1"),
        infer_body("UINT8", shape, arrays.ravel().tolist(), id="a-1", outputs=[{"name": "probabilities"}]),
    ]
    for body in bodies:
        reply = httpx.post(url + INFER, json=body).raise_for_status().json()
        assert (reply["model_name"], reply["id"]) == (NAME, "a-1")
        output, *_ = reply["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [3, 3])
        np.testing.assert_allclose(np.reshape(output["data"], (3, 3)), plain, atol=1e-5)


def tensors_of(reply: httpx.Response) -> dict[str, np.ndarray]:
    """The outputs of a reply, read as the binary tensor extension defines."""
    length = int(reply.headers.get("inference-header-content-length", len(reply.content)))
    about, data = json.loads(reply.content[:length]), reply.content[length:]
    found = {}
    for output in about["outputs"]:
        kind = {"FP32": "<f4", "BOOL": "?"}[output["datatype"]]
        size = output.get("parameters", {}).get("binary_data_size")
        values = output["data"] if size is None else np.frombuffer(data[:size], kind)
        data = data[size or 0 :]
        found[output["name"]] = np.array(values, kind).reshape(output["shape"])
    assert not data and about["model_name"] == NAME and about["model_version"] == "1"
    return found


@pytest.mark.parametrize("path", [INFER, f"/v2/models/{NAME}/versions/1/infer"])
@pytest.mark.parametrize("datatype", ["BYTES", "UINT8"])
def test_the_protocol_accepts_and_gives_binary_tensors(path: str, datatype: str, url: str, images: Path) -> None:
    files = [file.read_bytes() for file in sorted(images.glob("*/001.png"))]
    arrays = np.stack([pixels_of(file) for file in files])
    plain = [list(httpx.post(f"{url}/predict", content=file).json()["probabilities"].values()) for file in files]
    if datatype == "UINT8":
        data, shape = arrays.tobytes(), list(arrays.shape)
    else:
        data, shape = b"".join(len(file).to_bytes(4, "little") + file for file in files), [len(files)]
    own = {"name": "probabilities", "parameters": {"binary_data": False}}
    both = [{"name": "out_of_distribution"}, own]
    asked: list[tuple[dict[str, Any], int]] = [
        ({}, 0),
        ({"parameters": {"binary_data_output": True}}, 2),
        ({"parameters": {"binary_data_output": True}, "outputs": both}, 1),
        ({"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}, 1),
    ]
    for more, binary in asked:
        tensor = {"name": "images", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        head = json.dumps({"inputs": [tensor], **more}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        reply = httpx.post(url + path, content=head + data, headers=headers).raise_for_status()
        np.testing.assert_allclose(tensors_of(reply)["probabilities"], plain, atol=1e-5)
        assert reply.content.count(b"binary_data_size") == binary
        kind = "application/octet-stream" if binary else "application/json"
        assert reply.headers["content-type"] == kind and ("inference-header-content-length" in reply.headers) == bool(
            binary
        )


@pytest.mark.parametrize(
    ("changes", "headers", "says"),
    [
        ({"name": "input"}, {}, "inputs.0.name: Input should be 'images'"),
        ({"data": None}, {}, "inputs.0: give either data, or binary_data_size"),
        ({}, {"Content-Encoding": "gzip"}, "compressed bodies are not supported"),
        ({}, {"Inference-Header-Content-Length": "9999"}, "Inference-Header-Content-Length: not a length from 0 to"),
    ],
)
def test_what_another_client_sends_is_refused_with_what_is_taken(
    changes: dict[str, Any], headers: dict[str, str], says: str, url: str, photo: bytes
) -> None:
    body = infer_body("BYTES", [1], [base64.b64encode(photo).decode()])
    body["inputs"][0].update(changes)
    reply = httpx.post(url + INFER, content=json.dumps(body), headers=headers)
    assert 400 <= reply.status_code < 500 and reply.json()["error"].startswith(says)


def test_bytes_after_the_json_object_without_their_header_are_refused_by_its_name(url: str) -> None:
    reply = httpx.post(url + INFER, content=b'{"inputs": []}\x00\x01')
    assert reply.status_code == 400 and "needs Inference-Header-Content-Length" in reply.json()["error"]


def test_the_protocol_describes_server_and_model(url: str) -> None:
    assert httpx.get(f"{url}/v2").json() == {
        "name": "thaw",
        "version": thaw.__version__,
        "extensions": ["binary_tensor_data"],
    }
    model = httpx.get(f"{url}/v2/models/{NAME}").json()
    assert model["name"] == NAME and model["parameters"]["classes"] == ["ok", "scratch", "stain"]
    assert model["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "out_of_distribution", "datatype": "BOOL", "shape": [-1]},
    ]
    for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready", f"/v2/models/{NAME}/ready"):
        assert httpx.get(url + path).status_code == 200
    versions = httpx.get(f"{url}/v2/models/{NAME}/versions/1")
    assert versions.json() == model and model["versions"] == ["1"]
    assert httpx.get(f"{url}/v2/models/{NAME}/versions/1/ready").status_code == 200
    other = httpx.get(f"{url}/v2/models/{NAME}/versions/2/ready")
    assert other.status_code == 404 and other.json()["error"] == "there is no such version; the model has version 1"
    assert httpx.get(f"{url}/v2/models/other").json()["error"].endswith(f"this server has {NAME}")
    for path in ("/v2/models/other", "/v2/models/other/ready", "/docs", "/redoc", "/openapi.json", "/v2/"):
        assert httpx.get(url + path).status_code == 404


def test_a_reply_is_not_delayed(url: str) -> None:
    seconds = []
    with httpx.Client(base_url=url) as client:
        for _ in range(40):
            began = time.perf_counter()
            client.get("/health")
            seconds.append(time.perf_counter() - began)
    assert min(seconds[1:]) < 0.03


def test_an_unreadable_image_among_several_is_named(url: str, photo: bytes) -> None:
    data = [base64.b64encode(file).decode() for file in (photo, photo[:200], photo)]
    reply = httpx.post(url + INFER, json=infer_body("BYTES", [3], data))
    assert reply.status_code == 422 and reply.json()["error"].startswith("image 1: ")


def test_metrics_count_requests_and_images(bundle: Path, photo: bytes) -> None:
    with running(service_of(bundle, Limits())) as url, httpx.Client(base_url=url) as client:
        for _ in range(3):
            client.post("/predict", content=photo).raise_for_status()
        client.post("/predict", content=b"nothing")
        text = client.get("/metrics").text
    assert 'thaw_requests_total{route="/predict",status="200"} 3.0' in text
    assert 'thaw_refusals_total{reason="unreadable_image"} 1.0' in text
    assert "thaw_images_total 3.0" in text and "thaw_queue_images 0.0" in text and "thaw_errors_total 0.0" in text
    assert "thaw_batch_images_count 3.0" in text and "thaw_recent_confidence 0." in text


def test_images_that_were_classified_are_counted_also_where_another_of_the_request_is_unreadable(
    bundle: Path, photo: bytes
) -> None:
    data = [base64.b64encode(file).decode() for file in (photo, b"nothing", photo)]
    with running(service_of(bundle, Limits(), NAME)) as url:
        assert httpx.post(url + INFER, json=infer_body("BYTES", [3], data)).status_code == 422
        assert "thaw_images_total 2.0" in httpx.get(f"{url}/metrics").text


def test_details_of_an_internal_error_are_logged_but_not_in_the_reply(
    bundle: Path, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    plain = service_of(bundle, Limits())

    def fail_when_white(pixels: np.ndarray) -> ModelOutputs:
        if pixels.any():
            raise RuntimeError("/secret/place is broken")
        return ModelOutputs(np.ones((len(pixels), 1024), np.float32), np.full((len(pixels), 3), 1 / 3, np.float32))

    service = Service(plain.classifier, NAME, Limits(), fail_when_white)
    with running(service) as url:
        reply = httpx.post(f"{url}/predict", content=photo)
        assert reply.status_code == 500 and reply.json() == {"error": "internal error; see the log of the server"}
        assert "thaw_errors_total 1.0" in httpx.get(f"{url}/metrics").text
        assert httpx.get(f"{url}/ready").status_code == 200
    assert "/secret/place" in caplog.text


def test_out_of_distribution_images_are_flagged_and_evidence_is_shown(bundle: Path, photo: bytes) -> None:
    classifier = thaw.load(bundle)
    classifier.review_policy = policy_rejecting(classifier, [pixels_of(photo)], outlier=np.zeros((64, 64, 3), np.uint8))
    service = Service(classifier, NAME, Limits())
    black = io.BytesIO()
    Image.new("RGB", (64, 64)).save(black, "PNG")
    with running(service) as url:
        assert httpx.post(f"{url}/predict", content=black.getvalue()).json()["out_of_distribution"] is True
        assert httpx.post(f"{url}/predict", content=photo).json()["out_of_distribution"] is False
        data = [base64.b64encode(file).decode() for file in (photo, black.getvalue())]
        outputs = httpx.post(url + INFER, json=infer_body("BYTES", [2], data)).json()["outputs"]
        assert outputs[1] == {"name": "out_of_distribution", "datatype": "BOOL", "shape": [2], "data": [False, True]}
        listed = httpx.get(f"{url}/v2/models/{NAME}").json()["outputs"]
        assert [(each["name"], each["datatype"], each["shape"]) for each in listed] == [
            (each["name"], each["datatype"], [-1, *each["shape"][1:]]) for each in outputs
        ]
        for query in ("", "?class=stain"):
            reply = httpx.post(f"{url}/explain{query}", content=photo).raise_for_status()
            assert reply.headers["content-type"] == "image/png"
            assert Image.open(io.BytesIO(reply.content)).size == (64, 64)
        unknown = httpx.post(f"{url}/explain?class=nothing", content=photo)
        assert unknown.status_code == 422 and classifier.classes[0] in unknown.json()["error"]
        assert httpx.post(f"{url}/explain", content=b"nothing").status_code == 422


def test_the_protocol_says_how_labels_follow_from_probabilities(bundle: Path) -> None:
    classifier = thaw.load(bundle)
    classifier.decision = Decision(((1, 0.03),), reason="recall of scratch at least 0.99")
    with running(Service(classifier, NAME, Limits())) as url:
        about = httpx.get(f"{url}/v2/models/{NAME}").json()["parameters"]
    assert about["task"] == "multiclass" and Decision.from_json(about["decision"]) == classifier.decision


@pytest.mark.parametrize("rare", [0, 1, 2])
def test_the_evidence_is_that_of_the_predicted_class(rare: int, bundle: Path, photo: bytes) -> None:
    classifier, shown = thaw.load(bundle), list[int]()
    classifier.decision = Decision(((rare, 0.0),))

    def maps(_: Classifier, pixels: np.ndarray, indices: np.ndarray) -> np.ndarray:
        shown.extend(indices.tolist())
        return np.zeros(pixels.shape[:3], np.float32)

    with running(Service(classifier, NAME, Limits(), explain=maps)) as url:
        assert httpx.post(f"{url}/predict", content=photo).json()["labels"] == [classifier.classes[rare]]
        httpx.post(f"{url}/explain", content=photo).raise_for_status()
    assert shown == [rare]


def test_without_a_review_policy_there_is_no_out_of_distribution_output(bundle: Path, photo: bytes) -> None:
    classifier = thaw.load(bundle)
    classifier.review_policy = None
    data = [base64.b64encode(photo).decode()]
    with running(Service(classifier, NAME, Limits())) as url:
        assert "out_of_distribution" not in httpx.post(f"{url}/predict", content=photo).json()
        assert len(httpx.get(f"{url}/v2/models/{NAME}").json()["outputs"]) == 1
        reply = httpx.post(url + INFER, json=infer_body("BYTES", [1], data, outputs=[{"name": "out_of_distribution"}]))
        assert reply.status_code == 400 and "out_of_distribution" in reply.json()["error"]


def test_replies_have_security_headers(url: str, photo: bytes) -> None:
    page = httpx.get(url)
    policy = page.headers["content-security-policy"]
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert page.text.count(f'nonce="{nonce}"') == 2 and "http://" not in page.text and "https://" not in page.text
    assert nonce not in httpx.get(url).headers["content-security-policy"]
    for reply in (
        page,
        httpx.post(f"{url}/predict", content=photo),
        httpx.post(f"{url}/predict"),
        httpx.get(f"{url}/x"),
    ):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "server" not in reply.headers
        assert not any(name.startswith("access-control") for name in reply.headers)


@pytest.mark.parametrize(
    ("task", "fractions", "shift"),
    [
        ("multilabel", {"ok": 0.0, "scratch": 0.0, "stain": 0.0}, 1.0),
        ("multilabel", {"ok": 1.0, "scratch": 1.0, "stain": 0.4}, 0.2),
        ("multiclass", {"ok": 0.0, "scratch": 0.0, "stain": 1.0}, 1.0),
    ],
)
def test_the_shift_of_classes_is_at_most_one(task: Any, fractions: dict[str, float], shift: float) -> None:
    metrics = Metrics(tuple(fractions), task, Baseline(0.5, fractions))
    metrics.predicted(tuple(fractions) if task == "multilabel" else ("ok",), 0.9)
    (line,) = [line for line in metrics.text().decode().splitlines() if line.startswith("thaw_class_shift ")]
    assert float(line.split()[1]) == pytest.approx(shift)


def test_drift_is_measured_against_the_validation_baseline_of_the_bundle(bundle: Path, photo: bytes) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["thaw"]["baseline"] = {"confidence": 0.5, "class_fractions": {"ok": 0.0, "scratch": 0.25, "stain": 0.75}}
    service = Service(thaw.load(bundle), NAME, Limits(), baseline=Baseline.read(config))
    with running(service) as url:
        label = httpx.post(f"{url}/predict", content=photo).json()["label"]
        text = httpx.get(f"{url}/metrics").text
    shift = 1.0 - config["thaw"]["baseline"]["class_fractions"][label]
    assert f"thaw_class_shift {shift}" in text and "thaw_validation_confidence 0.5" in text
    assert f'thaw_recent_class_fraction{{label="{label}"}} 1.0' in text
    assert 'thaw_validation_class_fraction{label="scratch"} 0.25' in text

"""The page of a run: one file that everybody can read, whatever names the data have, and no more is said than known."""

import base64
import dataclasses
import io
import itertools
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pud.detectors.contract import BACKDOOR, CANNOT_BE_JUDGED, CLEAN, NONE_FOUND, POISONED, UNSURE, Detection
from pud.reporting import page_classes
from pud.reporting.page import DEFENCE, REHEARSAL, REPAIR, SCAN, Findings, write_page
from pud.reporting.page_pictures import SIDE, picture, view_trigger
from pud.reporting.page_words import HEADLINES, NAMED, SIGNS, short, sureness, visible

CSS = Path(__file__).parents[1] / "pud/reporting/templates/page.css"
VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "two\nlines\r\x00",
    "photo\u202egnp.exe",
    "{{ 7 * 7 }} {% include 'page.css' %}",
    "x" * 300,
    "\udcff\udcfe",
)
STAMP = slice(24, 27)


def detection(labels: np.ndarray, accused: np.ndarray, classes: int, **changes: Any) -> Detection:
    """A detection that accuses these images (bool, (n,)), half of which truly show class 1."""
    inferred = np.where(accused & (np.arange(len(labels)) % 2 == 0), 1, -1)
    found = Detection(
        suspicion=np.where(accused, 1.0, -1.0),
        posterior=np.where(accused, 0.97, 0.02),
        verdict=np.where(accused, POISONED, CLEAN),
        inferred_label=inferred,
        may_unlearn=accused,
        target_labels=np.unique(labels[accused]).tolist(),
        separation=np.zeros(classes),
        confidence=0.9,
    )
    return dataclasses.replace(found, **changes)


def stamped(n: int = 400, classes: int = 4, side: int = 28, channels: int = 1) -> tuple[np.ndarray, ...]:
    """Random images, labels, and which of class 0 carry a white square: bool (n,)."""
    random = np.random.default_rng(0)
    images = random.integers(0, 200, (n, channels, side, side), dtype=np.uint8)
    labels = np.arange(n) % classes
    accused = (labels == 0) & (np.arange(n) < n // 2)
    images[accused, :, STAMP, STAMP] = 255
    return images, labels, accused


def row(given: float, robust: float, **more: Any) -> dict[str, Any]:
    attack = {"attack": "PGD", "epsilon": 8 / 255, "steps": 20, "restarts": 1, "n": 500, "seed": 0, "value": robust}
    return {"given_label_accuracy": given, "robust_accuracy": [attack], **more}


def found(kind: str = DEFENCE, n: int = 400, classes: int = 4, **changes: Any) -> Findings:
    """What a defence found in ``stamped`` images; a scan has one look at them and no repaired model."""
    images, labels, accused = stamped(n, classes)
    random = np.random.default_rng(1)
    before, after = (random.normal(size=(n, classes)).astype(np.float32) for _ in range(2))
    looks = [detection(labels, accused & (np.arange(n) % 8 == 0), classes), detection(labels, accused, classes)]
    whole = Findings(
        title="A model of mine",
        kind=kind,
        images=images,
        labels=labels,
        classes=tuple(f"kind {label}" for label in range(classes)),
        detections=looks,
        verdict={
            "verdict": f"backdoor to class 0 (kind 0): {accused.sum()} of {n} images",
            "verdict_code": BACKDOOR,
            "confidence": 0.93,
            "target_labels": [0],
            "unjudged": {},
            "given_label_accuracy": 0.987,
        },
        report={
            "git_commit": "f" * 40,
            "seed": 7,
            "infected": row(0.951, 0.11),
            "rounds": [row(0.802, 0.62)],
            "purified": row(0.853, 0.77),
        },
        logits_before=before,
        logits_after=after,
        parameters={"detect": {"alpha": 4.0, "weights": [0.25, 0.75]}, "seed": 7},
        digests={"model.safetensors": "0" * 64},
        command="pud defend --model m.safetensors --out defended",
    )
    if kind == SCAN:
        whole = dataclasses.replace(whole, detections=looks[1:], report=None, logits_before=None, logits_after=None)
    return dataclasses.replace(whole, **changes)


def nothing(**changes: Any) -> Findings:
    """A scan that accuses nobody."""
    whole = found(SCAN)
    clean = detection(whole.labels, np.zeros(len(whole.labels), bool), 4)
    verdict = {"verdict": NONE_FOUND, "verdict_code": NONE_FOUND, "confidence": 0.9, "target_labels": []}
    return dataclasses.replace(whole, detections=[clean], verdict=verdict, **changes)


class Page(HTMLParser):
    """A page as its elements, in order, each closed where HTML demands it; ``text``: what a person reads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.elements, self.open, self.text = html, [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag in {"br", "dd", "td", "th"}:
            self.text += " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.text += data

    def all(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def page_of(findings: Findings, folder: Path) -> Page:
    write_page(folder / "report.html", findings)
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    return Page((folder / "report.html").read_text("utf-8"))


def rehearsal(**changes: Any) -> Findings:
    whole = found(REHEARSAL)
    rates = {"true_positive_rate": 0.913, "false_positive_rate": 0.0012}
    true = {"clean_accuracy": 0.9, "attack_success_rate": 0.991, "recovery_accuracy": 0.004}
    report = {
        "attack": {"name": "blended", "poison_rate": 0.1, "mapping": "all-to-one", "target_label": 0},
        "infected": row(0.951, 0.11, **true),
        "rounds": [row(0.802, 0.62, **true, detection=rates)],
        "purified": row(0.853, 0.77, **true, detection=rates),
    }
    return dataclasses.replace(whole, report=report, **changes)


KINDS = {
    "scan": found(SCAN),
    "defence": found(DEFENCE),
    "rehearsal": rehearsal(),
    "repair": found(REPAIR, detections=[], verdict={}),
    "none found": nothing(),
    "hostile": found(classes=len(HOSTILE)),
}
KINDS["hostile"] = dataclasses.replace(
    KINDS["hostile"], classes=HOSTILE, names=HOSTILE * 100, title=HOSTILE[0], parameters={HOSTILE[1]: HOSTILE[0]}
)


@pytest.fixture(scope="module", params=KINDS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(KINDS[request.param], tmp_path_factory.mktemp("page"))


def test_the_page_needs_no_network_and_no_script(page: Page) -> None:
    assert re.findall(r"https?://|<script|<link|<iframe|@import|url\(", page.html) == []
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in sources)
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_the_page_is_read_aloud_in_order(page: Page) -> None:
    """Its language, its landmarks, headings that skip no level, and words for each picture."""
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("header", "main", "footer", "nav", "h1", "title")] == [1] * 6
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
    assert all(image["alt"].strip() for image in page.all("img"))


def test_what_the_page_points_to_is_there_once(page: Page) -> None:
    ids = page.ids()
    assert len(set(ids)) == len(ids)
    links = {attributes["href"].removeprefix("#") for attributes in page.all("a")}
    labels = {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
    assert links | labels <= set(ids)


def test_each_table_has_headers_that_say_of_what_they_are(page: Page) -> None:
    assert {header["scope"] for header in page.all("th")} <= {"col", "row"}
    assert len(page.all("table")) == len(page.all("caption"))
    assert all("tabindex" in one for one in page.all("div") if one.get("class") == "scroll")


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_every_colour_of_a_text_stands_out_from_what_is_behind_it() -> None:
    css = CSS.read_text()
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css))
    assert len(re.findall("#[0-9a-f]{3,8}", css)) == len(colours), "colours are named in :root"
    texts = set(re.findall(r"(?<![\w-])color: var\(--([\w-]+)\)", css))
    behind = set(re.findall(r"background: var\(--([\w-]+)\)", css))
    assert {"ink", "muted", "link", "backdoor"} <= texts
    for text in texts:
        for ground in behind:
            light, dark = sorted((luminance(colours[name]) + 0.05 for name in (text, ground)), reverse=True)
            assert light / dark >= 4.5, (text, ground)


def test_verdicts_and_pictures_are_told_apart_without_colour(tmp_path: Path) -> None:
    assert len(set(SIGNS.values())) == len(set(HEADLINES.values())) == len(HEADLINES) == len(SIGNS)
    text = page_of(found(), tmp_path).text
    assert "A accused" in text
    assert "C clean" in text


@pytest.mark.parametrize("kind", ["rehearsal", "hostile"])
def test_the_same_findings_give_the_same_bytes(kind: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_page(tmp_path / name, KINDS[kind])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_verdict_comes_first_then_how_sure_what_is_not_known_and_what_to_do(tmp_path: Path) -> None:
    text = page_of(found(), tmp_path).text
    told = ["Backdoor found", "50 of 400 training pictures", "class “kind 0”", "How sure: 93 %", "What is not known"]
    told += ["What to do now", "Do not ship the model as given", "Accused classes", "Rounds", "Before and after"]
    places = [text.index(words) for words in told]
    assert places == sorted(places)
    assert "98.7 %" in text


def test_none_found_is_not_said_to_be_none(tmp_path: Path) -> None:
    text = page_of(nothing(), tmp_path).text
    assert "No backdoor found" in text
    assert "not proof" in text
    assert "“None found” is not “there is none”" in text
    assert "Accused classes" not in text


def test_a_short_way_to_a_class_is_told_though_no_picture_is_accused(tmp_path: Path) -> None:
    clean, verdict = nothing().detections[0], {"verdict_code": BACKDOOR, "confidence": 0.5, "target_labels": [2]}
    looks = [dataclasses.replace(clean, target_labels=[2], shortcuts=[2])]
    text = page_of(dataclasses.replace(nothing(), detections=looks, verdict=verdict), tmp_path).text
    assert "Backdoor found" in text
    assert "one small change, the same on every picture, makes the model answer “kind 2”" in text
    assert "Train anew, from random weights" in text
    assert "0 of 400" not in text
    assert "Accused classes" not in text


def test_classes_that_could_not_be_judged_are_named_with_the_reason_and_not_acquitted(tmp_path: Path) -> None:
    verdict = {
        "verdict_code": CANNOT_BE_JUDGED,
        "confidence": 0.5,
        "target_labels": [],
        "unjudged": {"2": "40 images, of 134 that are needed", "3": "the model does not know it"},
    }
    text = page_of(dataclasses.replace(nothing(), verdict=verdict), tmp_path).text
    assert "Cannot be judged" in text
    assert "2 of 4 classes could not be judged. In the 2 other classes none was found" in text
    assert "kind 2 40 images, of 134 that are needed" in text
    assert "nothing is said of “kind 2” and “kind 3”" in text
    assert "No backdoor found" not in text


def test_no_verdict_is_surer_than_sure() -> None:
    assert "over 99\u00a0%" in sureness(BACKDOOR, 1.0)
    assert "not known" in sureness(BACKDOOR, 0.5)
    assert sureness(BACKDOOR, None) == ""


def test_a_scan_leaves_out_what_it_does_not_have(tmp_path: Path) -> None:
    page = page_of(found(SCAN), tmp_path)
    assert {"verdict", "todo", "classes", "repeat"} <= set(page.ids())
    assert {"rounds", "changes", "truth"} & set(page.ids()) == set()
    assert "pud defend" in page.text


def test_a_defence_shows_rounds_and_changes_but_no_truth(tmp_path: Path) -> None:
    page = page_of(found(), tmp_path)
    assert {"rounds", "changes"} <= set(page.ids())
    assert "truth" not in page.ids()
    assert "attack succeeds" not in page.text


def test_a_rehearsal_shows_the_rows_with_the_truth(tmp_path: Path) -> None:
    page = page_of(rehearsal(), tmp_path)
    rows = page.text[page.text.index("Measured with the truth") :]
    assert "attack blended was planted on purpose, in 10.0 % of the training pictures" in page.text
    assert all(figure in rows for figure in ("99.1 %", "0.4 %", "91.3 %", "0.1 %", "77.0 %"))


@pytest.mark.parametrize("code", ["", CANNOT_BE_JUDGED])
def test_a_repair_that_judged_nothing_says_so(code: str, tmp_path: Path) -> None:
    unjudged = dict.fromkeys("0123", "the data were said to be clean")
    verdict = {"verdict_code": code, "unjudged": unjudged, "target_labels": []} if code else {}
    page = page_of(found(REPAIR, detections=[], verdict=verdict), tmp_path)
    assert "could not be judged" not in page.text
    assert "Repaired, not judged" in page.text
    assert "changes" in page.ids()
    assert "classes" not in page.ids()


def test_charts_say_their_figures_in_words(tmp_path: Path) -> None:
    alts = [image["alt"] for image in page_of(rehearsal(), tmp_path).all("img") if "svg" in image["src"]]
    assert len(alts) == 5
    assert "given 95.1\u00a0%, round 1 80.2\u00a0%, repaired 85.3\u00a0%" in alts[0]
    assert "Accused pictures, by look: look 1 25, look 2 50." in alts


def test_looks_of_which_only_the_report_tells_are_shown_all_the_same(tmp_path: Path) -> None:
    told = [
        {"accused_images": accused, "images": 400, "verdict": BACKDOOR, "target_labels": [0], "confidence": 0.8}
        for accused in (25, 40, 50)
    ]
    whole = found()
    report = {**whole.report, "rounds": [row(0.8, 0.6, detection=one) for one in told[:2]]} if whole.report else {}
    report["purified"] = row(0.853, 0.77, detection=told[2])
    page = page_of(dataclasses.replace(whole, detections=whole.detections[1:], report=report), tmp_path)
    assert "Accused pictures, by look: look 1 25, look 2 40, look 3 50." in [one["alt"] for one in page.all("img")]


def test_with_the_truth_the_accused_are_counted_from_their_shares(tmp_path: Path) -> None:
    rates = {"true_positive_rate": 0.8, "true_positive_rate_n": 50, "false_positive_rate": 0.02}
    one = {**rates, "false_positive_rate_n": 350, "cover_rate": None, "target_labels": [0], "confidence": 0.8}
    whole = rehearsal()
    report = {
        **(whole.report or {}),
        "rounds": [row(0.8, 0.6, detection=one)],
        "purified": row(0.8, 0.6, detection=one),
    }
    page = page_of(dataclasses.replace(whole, detections=whole.detections[1:], report=report), tmp_path)
    assert "Accused pictures, by look: look 1 47, look 2 47." in [one["alt"] for one in page.all("img")]
    assert "not sure of" not in page.text


def test_what_would_mend_a_model_that_does_not_know_its_data_is_told(tmp_path: Path) -> None:
    verdict = {"verdict_code": CANNOT_BE_JUDGED, "confidence": 0.5, "target_labels": [], "hint": "it would if <b>"}
    whole = nothing()
    unjudged = {"unjudged": dict.fromkeys("0123", "the model does not know it")}
    text = page_of(dataclasses.replace(whole, verdict=verdict | unjudged), tmp_path).text
    assert "It would if <b>." in text
    assert "none of 4 classes could be judged" in text


def test_the_answers_before_and_after_are_counted(tmp_path: Path) -> None:
    whole = found()
    before, after = (np.eye(4, dtype=np.float32)[whole.labels] * 9 for _ in range(2))
    after[[1, 5, 9]] = after[[1, 5, 9]][:, ::-1]  # three of class 1, which nobody accuses, are taken for class 2
    after[whole.accused] = np.roll(after[whole.accused], 1, axis=1)
    page = page_of(dataclasses.replace(whole, logits_before=before, logits_after=after), tmp_path)
    assert "pictures not accused 350 100.0 % 99.1 % 99.1 %" in page.text
    assert "accused pictures 50 100.0 % 0.0 % 0.0 %" in page.text
    assert "3 of 3 pictures that are not accused" in page.text
    assert "lost most is kind 1" in page.text
    assert [f"no. {one}" in page.text for one in (1, 5, 9)] == [True] * 3


def test_every_parameter_and_digest_and_the_command_are_there(tmp_path: Path) -> None:
    text = page_of(found(), tmp_path).text
    for told in ("detect.alpha 4.0", "detect.weights [0.25, 0.75]", "seed 7", "model.safetensors " + "0" * 64):
        assert told in text
    assert "pud defend --model m.safetensors --out defended" in text
    assert "f" * 40 in text


def test_accused_pictures_are_shown_as_they_are(tmp_path: Path) -> None:
    whole = found(SCAN)
    page = page_of(whole, tmp_path)
    image = next(image for image in page.all("img") if image["alt"].startswith("Picture no. 0,"))
    assert image["alt"] == "Picture no. 0, labelled kind 0; shows: kind 1; poisoned: 97\u00a0%"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
    np.testing.assert_array_equal(shown, whole.images[0, 0])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_any_kind_become_thumbnails_of_bounded_size(channels: int) -> None:
    made = np.random.default_rng(0).integers(0, 256, (channels, 300, 150), dtype=np.uint8)
    shown = picture(made, "noise")
    drawn = Image.open(io.BytesIO(base64.b64decode(shown.source.partition(",")[2])))
    assert drawn.size == (SIDE // 2, SIDE) == (shown.width, shown.height)


def test_the_trigger_is_said_to_be_where_it_was_put() -> None:
    images, labels, accused = stamped(2000)
    trigger = view_trigger(images, np.flatnonzero(accused), np.flatnonzero(labels == 1), [1])
    assert "in rows 25 to 27 of 28 and columns 25 to 27 of 28" in trigger.words
    assert "250 accused and 500 clean pictures" in trigger.words
    after = np.asarray(Image.open(io.BytesIO(base64.b64decode(trigger.pairs[0][1].source.partition(",")[2]))))
    assert after[25, 25] > 240


def test_a_trigger_that_is_not_there_is_said_to_be_faint() -> None:
    images, labels, _ = stamped(2000)
    even, odd = (np.flatnonzero((labels == 1) & (np.arange(2000) // 4 % 2 == part)) for part in (0, 1))
    assert "faint" in view_trigger(images, even, odd, [1]).words
    assert "much of it is chance" in view_trigger(images, even[:50], odd, [1]).words


def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    page = page_of(KINDS["hostile"], tmp_path)
    assert page.all("script") == []
    assert [image for image in page.all("img") if not image["src"].startswith("data:")] == []
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in page.html
    assert "photo\\u202egnp.exe" in page.text
    assert "two\\nlines\\r\\x00" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "x" * 60 not in page.html
    assert "xxx (class 5)" in page.text


def test_names_are_bounded_and_keep_their_ends() -> None:
    assert short("a" * 1_000_000 + ".png") == "a" * 23 + "…" + "a" * 19 + ".png"
    assert len(short("\u202e" * 1000)) <= 48
    assert visible("می‌خواهم") == "می‌خواهم"  # the joiner in it is part of how it is spelt


@pytest.mark.parametrize("classes", [2, 43, 1000])
def test_any_number_of_classes_gives_a_page_of_bounded_size(classes: int, tmp_path: Path) -> None:
    """All of them accused, and as many that could not be judged."""
    n = 4 * classes
    images, labels, _ = stamped(n, classes)
    targets = list(range(classes))
    verdict = {
        "verdict_code": BACKDOOR,
        "target_labels": targets,
        "unjudged": dict.fromkeys(map(str, targets), "small"),
    }
    whole = found(SCAN, n, classes, images=images, labels=labels, verdict={**verdict, "confidence": 0.9})
    every = detection(labels, np.arange(n) < 2 * classes, classes)
    page = page_of(dataclasses.replace(whole, detections=[every], parameters={"classes": whole.classes}), tmp_path)
    assert len(page.all("article")) == min(classes, page_classes.GALLERIES)
    assert len(page.all("tr")) <= 2 * NAMED + 20
    more = classes - page_classes.GALLERIES
    assert (f"{more} more are accused and not shown" in page.text) == (more > 0)
    assert len(page.html) < 1 << 20


def test_pictures_that_are_not_sure_are_counted(tmp_path: Path) -> None:
    whole = nothing()
    verdicts = np.where(np.arange(400) < 7, UNSURE, CLEAN)
    unsure = dataclasses.replace(whole.detections[0], verdict=verdicts)
    text = page_of(dataclasses.replace(whole, detections=[unsure]), tmp_path).text
    assert "Of 7 pictures it is not known whether they were tampered with" in text


@pytest.mark.parametrize(("shape", "n"), [((3, 32, 32), 60_000), ((3, 224, 224), 300)])
def test_a_page_of_many_or_large_pictures_is_made_in_seconds_and_small(
    shape: tuple[int, ...], n: int, tmp_path: Path
) -> None:
    """In the time of its worst case, in which five classes of noise, which no PNG makes smaller, are accused."""
    path = tmp_path / "images.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, *shape))
    images[:] = np.frombuffer(np.random.default_rng(0).bytes(images.nbytes), np.uint8).reshape(images.shape)
    labels = np.arange(n) % 10
    looks = [detection(labels, (labels < 5) & (np.arange(n) % 7 == 0), 10)] * 2
    logits = np.random.default_rng(0).normal(size=(2, n, 10)).astype(np.float32)
    targets = {"verdict_code": BACKDOOR, "target_labels": [0, 1, 2, 3, 4], "confidence": 0.9}
    whole = dataclasses.replace(found(), images=np.load(path, mmap_mode="r"), labels=labels, verdict=targets)
    whole = dataclasses.replace(whole, detections=looks, logits_before=logits[0], logits_after=logits[1])
    started = time.process_time()  # which is the same on a machine that does other things beside
    write_page(tmp_path / "report.html", whole)
    assert time.process_time() - started < 20
    assert (tmp_path / "report.html").stat().st_size < 5_000_000

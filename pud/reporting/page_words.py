"""The words of the page: what a verdict means and what to do now, and names from untrusted data made fit to be read."""

import unicodedata
from collections.abc import Sequence

from pud.data.images import OTHER, TRAINING, UNLABELLED
from pud.detectors.contract import BACKDOOR, CANNOT_BE_JUDGED, NONE_FOUND, NOTHING_KNOWN

SCAN, DEFENCE, REPAIR, REHEARSAL = "scan", "defence", "repair", "rehearsal"
KINDS = {SCAN: "Scan", DEFENCE: "Defence", REPAIR: "Repair", REHEARSAL: "Rehearsal"}
NOT_JUDGED = ""  # the code where nothing was looked at

WHOSE = {OTHER: "labelled, not those of its training", UNLABELLED: "without labels: the class is what the model says"}
LABELLED = {TRAINING: "labelled", OTHER: "labelled", UNLABELLED: "by the model"}
AS_LABELLED = {TRAINING: "as labelled", OTHER: "as labelled", UNLABELLED: "as the model says"}

HEADLINES = {
    BACKDOOR: "Backdoor found",
    NONE_FOUND: "No backdoor found",
    CANNOT_BE_JUDGED: "Cannot be judged",
    NOT_JUDGED: "Repaired, not judged",
}
SIGNS = {BACKDOOR: "!", NONE_FOUND: "0", CANNOT_BE_JUDGED: "?", NOT_JUDGED: "–"}  # what tells them apart without colour

NAME_LENGTH, TEXT_LENGTH = 48, 400
NAMED = 10  # classes in a table
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # of Unicode's categories: what is not seen, or turns text round
JOINERS = "\u200c\u200d"  # which Persian, Indian scripts and emoji are written with
FEW = 3
SURE = 0.995


def visible(text: object, keep: str = "\n") -> str:
    """Return a text in which characters that nobody sees are written out, as \\u202e; those in ``keep`` stay."""
    text = str(text)
    if text.isprintable():  # as most are, and long ones that hold a picture
        return text
    return "".join(
        char if char in keep or char in JOINERS or unicodedata.category(char) not in HIDDEN else _escape(char)
        for char in text
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def short(text: object, most: int = NAME_LENGTH) -> str:
    """Return a name on one line of at most so many characters; the end, which tells files apart, is kept."""
    text = str(text)
    if len(text) > 4 * most:  # before each character is looked at
        text = f"{text[: 2 * most]}{text[-2 * most :]}"
    text = visible(text, "")
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as a percentage; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f}\u00a0%"


def chance(confidence: float) -> str:
    """Return a confidence as a percentage, which is never all of it."""
    return "over 99\u00a0%" if confidence >= SURE else percent(confidence, 0)


def amount(n: int, noun: str, plural: str = "") -> str:
    """Return 1 class, 2 classes, 1,203 pictures."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def listed(items: Sequence[str], most: int = FEW) -> str:
    """Return a, b and c; of more than ``most`` the first ones and how many more."""
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most:,} more"
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def quoted(names: Sequence[str]) -> str:
    """Return “a”, “b” and “c”."""
    return listed([f"“{name}”" for name in names])


def lead(
    code: str,
    targets: Sequence[str],
    accused: int,
    images: int,
    unjudged: int,
    classes: int,
    pictures: str = TRAINING,
    *,
    by_shortcuts: bool = False,
) -> str:
    """Return the verdict in plain words; targets: names of the accused classes; pictures: as in ``LabelledImages``;
    by_shortcuts: the model has a short way to them, and no picture is accused."""
    if by_shortcuts:
        return (
            "Somebody seems to have planted a backdoor: one small change, the same on every picture, makes the model "
            f"answer {quoted(targets)}. None of {amount(images, 'picture')} is accused of teaching it that."
        )
    if code == BACKDOOR:
        which = f"{'class' if len(targets) == 1 else 'the classes'} {quoted(targets)}"
        if pictures != TRAINING:
            return (
                f"Somebody seems to have planted a backdoor: {accused:,} of {amount(images, 'picture')} are accused of "
                f"carrying a hidden mark, the trigger, at which the model answers {which} whatever they show."
            )
        return (
            f"Somebody seems to have planted a backdoor: {accused:,} of {amount(images, 'training picture')} are "
            f"accused of teaching the model to answer {which} whenever it sees a hidden mark, the trigger."
        )
    if code == NONE_FOUND:
        return (
            f"Nothing suspicious was found in {amount(images, 'training picture')} and in what the model has made of "
            "them. That is not proof that there is nothing."
        )
    if code == CANNOT_BE_JUDGED and pictures != TRAINING:
        return (
            f"Whether there is a backdoor is not known. None of {amount(images, 'picture')} is accused, but the model "
            "was not trained on them: a trigger need not be among them, and without it only a strong backdoor shows, "
            "as a short way to a class."
        )
    if code == CANNOT_BE_JUDGED:
        of, others = amount(classes, "class", "classes"), amount(classes - unjudged, "other class", "other classes")
        if unjudged >= classes:
            return f"Whether there is a backdoor is not known: none of {of} could be judged."
        rest = f"In the {others} none was found."
        return f"Whether there is a backdoor is not known: {unjudged:,} of {of} could not be judged. {rest}"
    return "The model was repaired with pictures taken to be clean. Whether it had a backdoor was not looked into."


def sureness(code: str, confidence: float | None) -> str:
    """Return how sure the verdict is, in one sentence; empty where there is none."""
    if confidence is None or code == NOT_JUDGED:
        return ""
    if confidence == NOTHING_KNOWN:
        return "How sure: not known. Nothing here says how likely the verdict is to be true."
    which = "the classes that it judged" if code == CANNOT_BE_JUDGED else "the classes"
    return (
        f"How sure: {chance(confidence)}. That is the chance that what is said of {which} is true, from how often the "
        "detector was right on data sets that it had never seen; 50\u00a0% would be a guess."
    )


def limits(
    code: str, kind: str, unsure: int, unknown: int, pictures: str = TRAINING, shortcuts: Sequence[str] = ()
) -> list[str]:
    """Return what a verdict does not know; unsure: pictures neither accused nor clean; unknown: accused pictures of
    which it is not known what they show; pictures: as in ``LabelledImages``; shortcuts: names of classes, as in a
    detection."""
    found = []
    if pictures == OTHER:
        found.append("These are not the pictures that the model was trained on: of those nothing is said.")
    if pictures == UNLABELLED:
        found.append(
            "Nobody labelled these pictures: a label on this page is what the given model says, right or wrong. Of the "
            "pictures that it was trained on nothing is said."
        )
    if code in (NONE_FOUND, CANNOT_BE_JUDGED):
        found.append(
            "“None found” is not “there is none”: a backdoor of a new kind may leave no trace that is looked for."
        )
    if shortcuts:
        found.append(
            f"A small change to every picture leads the model to {quoted(shortcuts)}, and no picture is accused of "
            "that. Whether the pictures or the weights have it from somebody is not known."
        )
    if code == BACKDOOR:
        found.append("Single pictures may be accused wrongly, and others missed. There may be further backdoors.")
    if unsure:
        found.append(f"Of {amount(unsure, 'picture')} it is not known whether they were tampered with.")
    if unknown:
        found.append(f"Of {amount(unknown, 'accused picture')} it is not known what they truly show.")
    if kind != REHEARSAL and code != NOT_JUDGED:
        found.append("Nobody knows the truth here: no figure on this page was checked against it.")
    return found


def advice(
    code: str, kind: str, unjudged: Sequence[str], pictures: str = TRAINING, *, by_shortcuts: bool = False
) -> list[str]:
    """Return what to do now, in order; unjudged: names of classes; pictures: as in ``LabelledImages``; by_shortcuts: as
    in ``lead``. Text between backticks is code."""
    repaired = kind != SCAN
    if by_shortcuts:
        return [
            "Do not ship the model as given, and ask who supplied it, and who could change it on the way.",
            "Train anew, from random weights, on pictures that you trust: "
            '`pud defend -p \'purify_settings={"preset": "retrain"}\'`.',
            "That these pictures are not accused does not say that they are clean.",
        ]
    if code == BACKDOOR and pictures != TRAINING:
        return [
            "Do not ship the model as given.",
            "Look at the accused pictures below. A mark that they share, or a class that is plainly not theirs, "
            "confirms the verdict; a good trigger may not be seen at all.",
            "Find out where the accused pictures come from, and what else came from there.",
            "For a repaired model: `pud defend` with the pictures that it was trained on, and their labels.",
        ]
    if code == CANNOT_BE_JUDGED and pictures != TRAINING:
        return [
            "Do not take this for an acquittal: it says that these pictures carry no trigger that was seen, no more.",
            "Give the pictures that the model was trained on, with their labels: `pud import`, then `pud scan`.",
            "Without them, keep what the model is given in use, and scan that: an attacker must show it the trigger.",
        ]
    if code == BACKDOOR:
        first = "Do not ship the model as given, and do not train on these pictures as they are."
        look = (
            "Look at the accused pictures below. A mark that they share, or labels that are plainly wrong, confirm the "
            "verdict; a good trigger may not be seen at all."
        )
        source = "Find out where the accused pictures come from, and what else came from there."
        if not repaired:
            return [
                first,
                look,
                source,
                "For a repaired model and the data without the accused pictures: `pud defend`.",
            ]
        test = (
            "Before you ship the repaired model, test it on pictures of your own that are not among these: what the "
            "repair has cost and changed is told below. If it costs too much, train anew on the cleaned data."
        )
        return [first, look, test, source]
    if code == NONE_FOUND:
        steps = [
            "This check gives no reason to hold the model back. It is one check among those that you make.",
            "Keep this page with the model, and scan again when the model or its data change.",
        ]
        deeper = "If much depends on it, run `pud defend`: after a round of repair more can be seen than in a scan."
        return [*steps, *([] if repaired else [deeper])]
    if code == CANNOT_BE_JUDGED:
        return [
            f"Do not take this for an acquittal: nothing is said of {quoted(unjudged)}.",
            "Mend the reasons named above: add pictures to small classes; where the model does not know a class, "
            "check the order of the classes, the size of the pictures and the normalisation.",
            "Then scan again.",
        ]
    return [
        "Test the repaired model on pictures of your own before you ship it.",
        "For a verdict on the data that it was trained on: `pud scan`.",
    ]

"""A few words on every setting, for ``pud STEP --help``; the docstring of its config says more."""

from typing import Any

from pud.base.config import words_of
from pud.detectors.pud import DetectConfig
from pud.evidence.cross_examination import ContentConfig
from pud.evidence.probing import ProbeConfig

FILLED = {
    "confidence": "How sure a vote on what an image shows must be to count.",
    "share": "Share of a class that votes for the others must reach for it to be filled: for most, for nearly all.",
    "quantiles": "Over the other classes, at which these two shares are asked.",
}
CONTRADICTION = " The same of a purified model's contradictions."
SHARED = {
    "batch_size": "Images at a time.",
    **{f"filled_{name}": text for name, text in FILLED.items()},
    **{f"contradiction_filled_{name}": text + CONTRADICTION for name, text in FILLED.items()},
    "doubt_limit": "Limit of the log odds against the given label.",
}
WORDS: dict[type, dict[str, str]] = {
    ContentConfig: {
        "splits": "How often the classes are halved for witnesses, at least; 0: never.",
        "minimum_classes": "Below this many nobody is cross-examined.",
        "witness_epochs": "Training of a witness, the model of one half.",
        "witness_mix_level": "How strongly another image shines through its images.",
        "witness_noise_level": "How noisy its images are.",
        "vote_confidence": "From which an image of a filled class is an intruder.",
        "outsider_share": "Share of a class that must show one other class to have been put there.",
        "outsider_separation": "How far these must lie from the rest (Ashman's D of features).",
        "matched": "Honest images for each intruder.",
        "matched_limit": "Honest images in all, at most.",
        "judge_epochs": "Training of the model that tells intruders from honest images.",
        "judgements": "How often it is trained, each time by what the last one said.",
        "innocent_share": "Share of the class that counts as honest, by the last judgement.",
        "judge_learning_rate": "Highest of the judge's training.",
        "contradiction_vote_confidence": "As vote-confidence, of a purified model's contradictions.",
        "contradiction_matched": "As matched, of a purified model's contradictions.",
        "doubt_weight": "Weight of the intruder odds beside the judge's score.",
        "innocence": "Probability of being an intruder, up to which an image is honest.",
    },
    ProbeConfig: {
        "noise_draws": "How often every image is made noisy.",
        "noise_level": "Standard deviation of the noise, pixels in [0, 1].",
        "mix_draws": "How often every image is mixed with another.",
        "mix_level": "Share of the other image.",
        "adversarial_images": "Drawn by chance and attacked, at most.",
        "epsilon": "L-infinity radius of PGD, pixels in [0, 1].",
        "steps": "Of PGD.",
        "step_size": "Of PGD, in epsilon.",
    },
    DetectConfig: {
        "alpha": "Exponent of the QUE score.",
        "anchor_fraction": "Share of a class whose images give its clean statistics.",
        "central_fraction": "The same where no cue leads to them and the central ones serve.",
        "refinements": "How often these are chosen anew.",
        "separation": "Ashman's D of features from which two modes are two populations.",
        "minimum_mode_size": "Images that each of them must have.",
        "certainty": "Posterior from which a verdict is clean or poisoned.",
        "variation": "With sureness: below both, a mode holds hard images only.",
        "sureness": "See variation.",
        "evident_separation": "Ashman's D from which a mode is no honest one, however hard its images.",
        "agreement": "Rank correlation with the trigger score that the suspicion in a filled class must have.",
        "coverage": "Share of the known intruders that a hypothesis must accuse.",
        "doubt_weights": "Weights of the intruder odds beside the trigger score, each a hypothesis.",
        "belief": "How sure of a label the infected model must be for a contradiction to count.",
        "confidence_in_filled": "That a filled class is a target, at least.",
        "confidence_in_none": "That there is no backdoor, at most: before the first round, after one.",
        "images_per_dimension": "Anchors that a class must have for each of two dimensions to be judged.",
        "knowledge": "What the infected model must know of a class for it to be judged (Youden's J).",
    },
}


def words(config: type[Any], name: str) -> str:
    """Return what is said of a setting; empty for one of which nothing is said here."""
    if text := words_of(config, name):
        return text
    told = [WORDS[kind][name] for kind in config.__mro__ if name in WORDS.get(kind, {})]
    return (told or [SHARED.get(name, "")])[0]

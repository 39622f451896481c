"""The loss terms and the discriminator."""

import torch

from segdistill.build.splits import build_taxonomy
from segdistill.config import Config
from segdistill.config_method import MethodConfig, Weighted
from segdistill.losses.objective import Needs, Objective, Schedule, Term
from segdistill.losses.terms import Adversarial, FeatureSimilarity, LogitDistillation, Supervised
from segdistill.models.discriminator import PixelDiscriminator
from segdistill.seeds import stream_seed
from segdistill.streams import PRIMARY

_LEARNING = Needs.BRANCHES | Needs.LEARNING_BRANCHES


def build_objective(config: Config, adversarial: Adversarial | None) -> Objective:
    """The terms that the kind of method has and that have a weight."""
    method = config.method
    terms = _from_labels(method)
    if method.distils:
        terms += _from_each_other(method)
    if adversarial:
        game = Term(
            "adversarial", _schedule(method.adversarial), adversarial, _LEARNING | Needs.DISCRIMINATOR
        )
        terms.append(game)
    return Objective(tuple(term for term in terms if term.schedule.weight > 0))


def _from_labels(method: MethodConfig) -> list[Term]:
    section = method.supervised
    labels = Supervised(
        class_weights=section.class_weights,
        label_smoothing=section.label_smoothing,
        dice_weight=section.dice_weight,
        jaccard_weight=section.jaccard_weight,
        balance=section.balance,
    )
    terms = [Term(PRIMARY, Schedule(1.0), labels.primary)]
    if method.has_branches:
        schedule = Schedule(section.branch_weight, section.branch_ramp)
        terms.append(Term("branches", schedule, labels.branches, _LEARNING))
    return terms


def _from_each_other(method: MethodConfig) -> list[Term]:
    logit, feature = method.logit, method.feature
    distillation = LogitDistillation(
        kind=logit.kind,
        teacher=logit.teacher,
        students=logit.students,
        temperature=logit.temperature,
        label_gate=logit.label_gate,
    )
    needs = Needs.BRANCHES if logit.students == "primary" else _LEARNING
    on_views = Schedule(logit.weight * logit.views.weight, logit.views.ramp)
    similarity = FeatureSimilarity(feature.kind, feature.pool)
    return [
        Term("logit", _schedule(logit), distillation, needs, distillation.notes),
        Term("views", on_views, distillation, needs, sees="views"),
        Term("feature", _schedule(feature), similarity, Needs.BRANCHES | Needs.FEATURES),
    ]


def _schedule(section: Weighted) -> Schedule:
    return Schedule(section.weight, section.ramp)


def build_discriminator(config: Config, *, submodels: int) -> PixelDiscriminator:
    """A discriminator that gives one logit per pixel in the label game, and one for each of the `submodels` in the peer
    game.
    """
    game = config.method.adversarial
    torch.manual_seed(stream_seed(config.seed, "discriminator"))
    return PixelDiscriminator(
        num_classes=build_taxonomy(config).num_classes,
        outputs=1 if game.game == "label" else submodels,
        width=game.width,
    )

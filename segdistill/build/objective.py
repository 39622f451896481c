"""The loss terms and the discriminator."""

import torch

from segdistill.build.splits import build_taxonomy
from segdistill.config import Config
from segdistill.config_method import Weighted
from segdistill.losses.objective import Needs, Objective, Schedule, Term
from segdistill.losses.terms import Adversarial, FeatureSimilarity, LogitDistillation, Supervised
from segdistill.models.discriminator import PixelDiscriminator
from segdistill.seeds import stream_seed
from segdistill.streams import PRIMARY


def build_objective(config: Config, adversarial: Adversarial | None) -> Objective:
    """The terms that the kind of method has and that have a weight."""
    method = config.method
    supervised = method.supervised
    labels = Supervised(
        class_weights=supervised.class_weights,
        label_smoothing=supervised.label_smoothing,
        dice_weight=supervised.dice_weight,
        jaccard_weight=supervised.jaccard_weight,
        balance=supervised.balance,
    )
    terms = [Term(PRIMARY, Schedule(1.0), labels.primary)]
    if method.has_branches:
        schedule = Schedule(supervised.branch_weight, supervised.branch_ramp)
        terms.append(Term("branches", schedule, labels.branches, Needs.BRANCHES | Needs.LEARNING_BRANCHES))
    if method.distils:
        logit, feature = method.logit, method.feature
        distillation = LogitDistillation(
            kind=logit.kind,
            teacher=logit.teacher,
            students=logit.students,
            temperature=logit.temperature,
            label_gate=logit.label_gate,
        )
        needed = Needs.BRANCHES
        if logit.students != "primary":
            needed |= Needs.LEARNING_BRANCHES
        on_views = Schedule(logit.weight * logit.views.weight, logit.views.ramp)
        terms += [
            Term("logit", _schedule(logit), distillation, needed, distillation.notes),
            Term("views", on_views, distillation, needed, sees="views"),
            Term(
                "feature",
                _schedule(feature),
                FeatureSimilarity(feature.kind, feature.pool),
                Needs.BRANCHES | Needs.FEATURES,
            ),
        ]
    if adversarial:
        terms.append(
            Term(
                "adversarial",
                _schedule(method.adversarial),
                adversarial,
                Needs.BRANCHES | Needs.LEARNING_BRANCHES | Needs.DISCRIMINATOR,
            )
        )
    return Objective(tuple(term for term in terms if term.schedule.weight > 0))


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

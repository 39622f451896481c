"""The four losses as terms over all sub-models: means by hand, stopped gradients, ignored pixels."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segdistill.losses.feature import affinity_distance, cosine_distance
from segdistill.losses.logit import (
    channel_distillation,
    logit_distillation,
    overlap_distillation,
    teacher_is_right,
)
from segdistill.losses.maps import StepMaps
from segdistill.losses.supervised import dice_loss, jaccard_loss
from segdistill.losses.terms import (
    Adversarial,
    FeatureSimilarity,
    Game,
    LogitDistillation,
    Supervised,
    mean_of,
)
from segdistill.models.discriminator import PixelDiscriminator

BATCH, CLASSES, SIZE, STRIDE = 2, 3, 16, 2
SUBMODELS = ("primary", "branch3", "branch4")
PLAIN = Supervised(class_weights=None, label_smoothing=0.0, dice_weight=0.0, jaccard_weight=0.0, balance=0.0)
RICH = Supervised(
    class_weights=(0.5, 1.0, 2.0), label_smoothing=0.1, dice_weight=0.7, jaccard_weight=0.3, balance=0.5
)
GAMES = pytest.mark.parametrize("game", ["label", "peer"])


def random_maps(*shape: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=rng, dtype=torch.float64)).requires_grad_()


def make_labels() -> Tensor:
    """A third of the pixels ignored in blotches and singly; whole cells of every stride up to 4 among them."""
    rng = torch.Generator().manual_seed(10)
    labels = torch.randint(CLASSES, (BATCH, SIZE, SIZE), generator=rng)
    labels[0, :8, 4:12] = 255
    labels[1, 6:, :5] = 255
    labels[1, 3, 9] = 255
    return labels


def make_maps(labels: Tensor | None = None) -> StepMaps:
    """A branch on the grid of stride 2, a branch at pixel resolution, features of stride 4."""
    return StepMaps(
        images=random_maps(BATCH, 3, SIZE, SIZE, seed=1).detach(),
        labels=make_labels() if labels is None else labels,
        primary_logits=random_maps(BATCH, CLASSES, SIZE, SIZE, seed=2),
        branch_logits={
            "branch3": random_maps(BATCH, CLASSES, SIZE // 2, SIZE // 2, seed=3),
            "branch4": random_maps(BATCH, CLASSES, SIZE, SIZE, seed=4),
        },
        features={
            name: random_maps(BATCH, 10 if name == "primary" else 5, SIZE // 4, SIZE // 4, seed=seed)
            for seed, name in enumerate(SUBMODELS, 5)
        },
        ignore_index=255,
        grid_stride=STRIDE,
    )


def one_cell_maps(labels: list[int], logits: Mapping[str, list[list[float]]]) -> StepMaps:
    """One row of pixels, grid stride 1; for each sub-model the logits of every pixel."""
    own = {
        name: torch.tensor(rows, dtype=torch.float64).T[None, :, None, :].clone().requires_grad_()
        for name, rows in logits.items()
    }
    return StepMaps(
        images=torch.zeros(1, 3, 1, len(labels)),
        labels=torch.tensor(labels).reshape(1, 1, -1),
        primary_logits=own["primary"],
        branch_logits={name: maps for name, maps in own.items() if name != "primary"},
        features={},
        ignore_index=255,
        grid_stride=1,
    )


def inputs(maps: StepMaps) -> list[Tensor]:
    return [maps.primary_logits, *maps.branch_logits.values(), *maps.features.values()]


def gradients(value: Tensor, of: list[Tensor]) -> list[Tensor | None]:
    return list(torch.autograd.grad(value, of, allow_unused=True))


def make_adversarial(game: Game) -> Adversarial:
    """In double precision, and in evaluation so that spectral norm's estimate stands still."""
    torch.manual_seed(0)
    outputs = 1 if game == "label" else len(SUBMODELS)
    discriminator = PixelDiscriminator(num_classes=CLASSES, outputs=outputs, width=8).double().eval()
    return Adversarial(game, real_smoothing=0.1, discriminator=discriminator)


# ---- supervised


def test_the_primary_learns_from_every_valid_pixel() -> None:
    maps = make_maps()
    expected = F.cross_entropy(maps.primary_logits, maps.labels, ignore_index=255)
    torch.testing.assert_close(PLAIN.primary(maps), expected)


def test_class_weights_reach_primary_and_branches() -> None:
    weights = (0.5, 1.0, 2.0)
    supervised = replace(PLAIN, class_weights=weights)
    maps = make_maps()
    expected = F.cross_entropy(
        maps.primary_logits, maps.labels, torch.tensor(weights, dtype=torch.float64), ignore_index=255
    )
    torch.testing.assert_close(supervised.primary(maps), expected)
    torch.testing.assert_close(supervised.branches(maps), branches_by_torch(maps, weights))


def branches_by_torch(maps: StepMaps, weights: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Tensor:
    """Mean over the branches of torch's cross-entropy, nearest-upsampled to the labels."""
    losses = [
        F.cross_entropy(
            F.interpolate(logits, size=(SIZE, SIZE), mode="nearest"),
            maps.labels,
            torch.tensor(weights, dtype=torch.float64),
            ignore_index=255,
        )
        for logits in maps.branch_logits.values()
    ]
    return (losses[0] + losses[1]) / 2


def test_branches_learn_the_mean_of_their_losses_with_every_label_in_the_cell() -> None:
    maps = make_maps()
    torch.testing.assert_close(PLAIN.branches(maps), branches_by_torch(maps))


def test_label_smoothing_reaches_primary_and_branches() -> None:
    # Primary (3/4, 1/4), e = 1/5: 4/5 ln 4/3 + 1/10 (ln 4/3 + ln 4). Branch (1/2, 1/2): ln 2 whatever e is.
    maps = one_cell_maps([0], {"primary": [[math.log(3), 0.0]], "b": [[0.0, math.log(3)]]})
    supervised = replace(PLAIN, label_smoothing=0.2)
    right, wrong = math.log(4 / 3), math.log(4)
    assert supervised.primary(maps).item() == pytest.approx(0.8 * right + 0.1 * (right + wrong))
    assert supervised.branches(maps).item() == pytest.approx(0.8 * wrong + 0.1 * (right + wrong))


def test_balance_by_hand() -> None:
    # Labels 0, 0, 0, 0, 1; (3/4, 1/4) everywhere. Power 1/2: weights 1/2 and 1, so a class weighs 4 * 1/2 = 2 and 1;
    # power 1: each class weighs 1.
    maps = one_cell_maps([0, 0, 0, 0, 1], {name: [[math.log(3), 0.0]] * 5 for name in ("primary", "b")})
    frequent, rare = math.log(4 / 3), math.log(4)
    for power, expected in ((0.5, (2 * frequent + rare) / 3), (1.0, (frequent + rare) / 2)):
        supervised = replace(PLAIN, balance=power)
        assert supervised.primary(maps).item() == pytest.approx(expected)
        assert supervised.branches(maps).item() == pytest.approx(expected)


def test_balance_multiplies_given_class_weights() -> None:
    labels = make_labels()
    counts = torch.bincount(labels[labels != 255], minlength=CLASSES).double()
    weights = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64) / counts
    supervised = replace(PLAIN, class_weights=(0.5, 1.0, 2.0), balance=1.0)
    maps = make_maps(labels)
    expected = F.cross_entropy(maps.primary_logits, labels, weights, ignore_index=255)
    torch.testing.assert_close(supervised.primary(maps), expected, rtol=1e-6, atol=0)
    expected = branches_by_torch(maps, tuple(weights.tolist()))
    torch.testing.assert_close(supervised.branches(maps), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("key", "overlap"), [("dice_weight", dice_loss), ("jaccard_weight", jaccard_loss)])
def test_overlap_is_added_with_its_weight_to_primary_and_branches(
    key: str, overlap: Callable[[Tensor, Tensor], Tensor]
) -> None:
    supervised = replace(PLAIN, **{key: 0.7})
    maps = make_maps()
    expected = PLAIN.primary(maps) + 0.7 * overlap(maps.primary_logits, maps.votes(1))
    torch.testing.assert_close(supervised.primary(maps), expected)
    of_branches = [
        overlap(maps.branch_logits["branch3"], maps.votes(2)),
        overlap(maps.branch_logits["branch4"], maps.votes(1)),
    ]
    torch.testing.assert_close(
        supervised.branches(maps), PLAIN.branches(maps) + 0.7 * (of_branches[0] + of_branches[1]) / 2
    )


def test_cross_entropy_plus_dice_by_hand() -> None:
    # p = (3/4, 1/4), label 0: ln 4/3 + 1/2 * (1 - 2 * 3/4 / (3/4 + 1)) = ln 4/3 + 1/14.
    maps = one_cell_maps([0], {"primary": [[math.log(3), 0.0]], "b": [[math.log(3), 0.0]]})
    supervised = replace(PLAIN, dice_weight=0.5)
    assert supervised.primary(maps).item() == pytest.approx(math.log(4 / 3) + 1 / 14)
    assert supervised.branches(maps).item() == pytest.approx(math.log(4 / 3) + 1 / 14)


def test_plain_supervision_of_the_primary_makes_nothing_on_the_grid() -> None:
    maps = make_maps()
    before = set(vars(maps))
    PLAIN.primary(maps)
    assert set(vars(maps)) == before


# ---- logit distillation


def distillation(**changes: object) -> LogitDistillation:
    settings = {
        "kind": "pixel",
        "teacher": "ensemble",
        "students": "all",
        "temperature": 2.0,
        "label_gate": False,
    }
    return LogitDistillation(**(settings | changes))  # type: ignore[arg-type]


def by_hand_maps(labels: list[int]) -> StepMaps:
    """Primary logits (4 ln 3, 0), a branch's (0, 0) at every pixel: the ensemble's are (2 ln 3, 0)."""
    pixels = len(labels)
    return one_cell_maps(labels, {"primary": [[4 * math.log(3), 0.0]] * pixels, "b": [[0.0, 0.0]] * pixels})


#: T = 2. Ensemble (3/4, 1/4), branch (1/2, 1/2): 4 * (3/4 ln 3/2 + 1/4 ln 1/2).
BRANCH_FROM_ENSEMBLE = 3 * math.log(3 / 2) - math.log(2)
#: Primary (9/10, 1/10): 4 * (3/4 ln 5/6 + 1/4 ln 5/2).
PRIMARY_FROM_ENSEMBLE = 3 * math.log(5 / 6) + math.log(5 / 2)
#: Primary as the teacher, branch (1/2, 1/2): 4 * (9/10 ln 9/5 + 1/10 ln 1/5).
BRANCH_FROM_PRIMARY = 3.6 * math.log(9 / 5) - 0.4 * math.log(5)
#: The other way round: 4 * (1/2 ln 5/9 + 1/2 ln 5).
PRIMARY_FROM_BRANCH = 2 * math.log(25 / 9)


def test_all_sub_models_learn_from_the_ensemble_by_hand() -> None:
    loss = distillation()(by_hand_maps([0]))
    assert loss.item() == pytest.approx(BRANCH_FROM_ENSEMBLE + PRIMARY_FROM_ENSEMBLE)


def test_everybody_learns_from_the_others_by_hand() -> None:
    loss = distillation(teacher="others")(by_hand_maps([0]))
    assert loss.item() == pytest.approx(BRANCH_FROM_PRIMARY + PRIMARY_FROM_BRANCH)


def test_the_others_are_all_but_the_student() -> None:
    maps = make_maps()
    logits = maps.grid_logits

    def learn(name: str) -> Tensor:
        others = [one for other, one in logits.items() if other != name]
        return logit_distillation(
            logits[name], sum(others) / 2, maps.grid_labels, temperature=2.0, ignore_index=255
        )

    expected = learn("primary") + (learn("branch3") + learn("branch4")) / 2
    torch.testing.assert_close(distillation(teacher="others")(maps), expected)
    torch.testing.assert_close(distillation(teacher="others", students="primary")(maps), learn("primary"))


@pytest.mark.parametrize(
    ("kind", "divergence"), [("channel", channel_distillation), ("overlap", overlap_distillation)]
)
def test_other_kinds_take_the_same_teachers_and_gate(kind: str, divergence: Callable[..., Tensor]) -> None:
    maps = make_maps()
    logits = maps.grid_logits
    teacher = (logits["branch3"] + logits["branch4"]) / 2
    expected = divergence(
        logits["primary"],
        teacher,
        maps.grid_labels,
        temperature=2.0,
        ignore_index=255,
        gate=teacher_is_right(teacher, maps.grid_labels),
    )
    loss = distillation(kind=kind, teacher="others", students="primary", label_gate=True)(maps)
    torch.testing.assert_close(loss, expected)
    assert loss > 0
    assert not torch.isclose(loss, distillation(teacher="others", students="primary", label_gate=True)(maps))


def test_only_the_branches_learn_if_so_configured() -> None:
    maps = by_hand_maps([0])
    loss = distillation(students="branches")(maps)
    assert loss.item() == pytest.approx(BRANCH_FROM_ENSEMBLE)
    to_primary, to_branch = gradients(loss, inputs(maps))
    assert to_primary is None
    assert to_branch is not None
    assert to_branch.all()


@pytest.mark.parametrize("students", ["all", "branches"])
def test_a_primary_that_teaches_learns_nothing(students: str) -> None:
    maps = by_hand_maps([0])
    loss = distillation(teacher="primary", students=students)(maps)
    assert loss.item() == pytest.approx(BRANCH_FROM_PRIMARY)
    to_primary, to_branch = gradients(loss, inputs(maps))
    assert to_primary is None
    # T (q - p) = 2 * (1/2 - 9/10) = -4/5.
    assert to_branch is not None
    assert to_branch.flatten().tolist() == pytest.approx([-0.8, 0.8])


def test_the_label_gate_learns_only_where_the_teacher_is_right() -> None:
    # Labels 0, 1, ignored, 0: the ensemble says 0 everywhere, so the gate is shut at one of three valid pixels.
    labels = [0, 1, 255, 0]
    maps = by_hand_maps(labels)
    everywhere = BRANCH_FROM_ENSEMBLE + PRIMARY_FROM_ENSEMBLE
    assert distillation()(maps).item() == pytest.approx(everywhere)
    loss = distillation(label_gate=True)(maps)
    assert loss.item() == pytest.approx(everywhere * 2 / 3)
    for grad in gradients(loss, inputs(maps)):
        assert grad is not None
        assert not grad[..., 1:3].any()
        assert grad[..., [0, 3]].all()


def test_it_notes_how_often_the_teacher_is_right() -> None:
    # Three valid pixels. The ensemble says 0 everywhere: right at two of them.
    maps = by_hand_maps([0, 1, 255, 0])
    assert distillation().notes(maps)["teacher_right"].item() == pytest.approx(2 / 3)
    # From the others: the primary's teacher is the branch, which says 0, the branch's is the primary: 1 at 0.
    logits = {"primary": [[0.0, 1.0]] * 4, "b": [[1.0, 0.0]] * 4}
    maps = one_cell_maps([0, 1, 255, 0], logits)
    assert distillation(teacher="others").notes(maps)["teacher_right"].item() == pytest.approx(
        (2 / 3 + 1 / 3) / 2
    )
    only = distillation(teacher="others", students="primary")
    assert only.notes(maps)["teacher_right"].item() == pytest.approx(2 / 3)


def test_the_gate_asks_the_teacher_and_not_the_student() -> None:
    # Primary says 0, branch says 1, ensemble (their mean) says 1; the label is 1.
    logits = {"primary": [[1.0, 0.0]], "b": [[0.0, 5.0]]}
    open_gate = distillation(label_gate=True)(one_cell_maps([1], logits))
    assert open_gate.item() == pytest.approx(distillation()(one_cell_maps([1], logits)).item())
    assert open_gate.item() > 0.1
    assert distillation(teacher="primary", label_gate=True)(one_cell_maps([1], logits)).item() == 0.0
    assert distillation(teacher="primary", label_gate=True)(one_cell_maps([0], logits)).item() > 0.1


def test_the_ensemble_teaches_without_learning() -> None:
    """Each sub-model's gradient is that of its own loss with a constant teacher."""
    maps = make_maps()
    logits = {name: one.detach().requires_grad_() for name, one in maps.grid_logits.items()}
    teacher = (logits["primary"] + logits["branch3"] + logits["branch4"]).detach() / 3
    expected = sum(
        share * logit_distillation(logits[name], teacher, maps.grid_labels, temperature=2.0, ignore_index=255)
        for name, share in (("primary", 1.0), ("branch3", 0.5), ("branch4", 0.5))
    )
    loss = distillation()(maps)
    torch.testing.assert_close(loss, expected)
    on_grid = torch.autograd.grad(loss, list(maps.grid_logits.values()))
    torch.testing.assert_close(on_grid, torch.autograd.grad(expected, list(logits.values())))


# ---- feature similarity


def test_cosine_similarity_by_hand() -> None:
    # Two branches of one channel each, 3 and 4; the primary predicts (4, 3): cosine 24/25.
    maps = StepMaps(
        images=torch.zeros(1, 3, 1, 1),
        labels=torch.zeros(1, 1, 1, dtype=torch.int64),
        primary_logits=torch.zeros(1, CLASSES, 1, 1),
        branch_logits={"a": torch.zeros(1, CLASSES, 1, 1), "b": torch.zeros(1, CLASSES, 1, 1)},
        features={
            "primary": torch.tensor([4.0, 3.0]).reshape(1, 2, 1, 1),
            "b": torch.full((1, 1, 1, 1), 4.0),
            "a": torch.full((1, 1, 1, 1), 3.0),
        },
        ignore_index=255,
        grid_stride=1,
    )
    loss = FeatureSimilarity("cosine", pool=1)(maps)
    assert loss.item() == pytest.approx(1 - 24 / 25, abs=1e-6)


@pytest.mark.parametrize(("kind", "pool"), [("cosine", 1), ("affinity", 1), ("affinity", 2)])
def test_the_primary_learns_features_and_the_branches_do_not_move(kind: str, pool: int) -> None:
    maps = make_maps()
    predicted, *branches = maps.features.values()
    constant = [h.detach().clone() for h in branches]
    if kind == "cosine":
        expected = cosine_distance(predicted, torch.cat(constant, 1), maps.feature_labels, ignore_index=255)
    else:
        expected = affinity_distance(predicted, constant, maps.feature_labels, ignore_index=255, pool=pool)
    loss = FeatureSimilarity(kind, pool)(maps)  # type: ignore[arg-type]
    torch.testing.assert_close(loss, expected)
    assert loss.item() > 0.01
    to_predicted, *to_branches = gradients(loss, [predicted, *branches])
    torch.testing.assert_close(to_predicted, torch.autograd.grad(expected, predicted)[0])
    assert to_branches == [None, None]


def test_a_primary_that_predicts_all_has_nothing_to_learn() -> None:
    maps = make_maps()
    a, b = (maps.features[name] for name in SUBMODELS[1:])
    maps.features["primary"] = 0.1 * torch.cat([a, b], 1)
    assert FeatureSimilarity("cosine", pool=1)(maps).item() == pytest.approx(0.0, abs=1e-12)
    maps.features["primary"], maps.features[SUBMODELS[1]] = 0.1 * b, 2 * b
    assert FeatureSimilarity("affinity", pool=1)(maps).item() == pytest.approx(0.0, abs=1e-12)


# ---- adversarial


def test_the_games_are_chosen_by_name() -> None:
    """A blind discriminator: ln 2 in the label game, ln (K+1) in the peer game, on both sides."""
    for game, outputs, expected in (("label", 1, math.log(2)), ("peer", 3, math.log(3))):
        maps = make_maps()
        adversarial = Adversarial(
            game,  # type: ignore[arg-type]
            real_smoothing=0.1,
            discriminator=lambda probs, images, valid, outputs=outputs: probs.new_zeros(
                len(probs), outputs, *probs.shape[-2:]
            ),
        )
        assert adversarial(maps).item() == pytest.approx(expected)
        assert adversarial.opponent(maps.judged).loss.item() == pytest.approx(expected)


def test_in_the_label_game_the_opponent_tells_ground_truth_from_softmax_maps() -> None:
    # A judge that is sure of one-hot maps: real 4/5 at the label, fakes uniform 1/3. D = +-ln 3, all right.
    labels = make_labels()
    maps = make_maps(labels)
    for logits in (maps.primary_logits, *maps.branch_logits.values()):
        logits.data.zero_()

    def judge(probs: Tensor, images: Tensor, valid: Tensor) -> Tensor:
        return math.log(3) * torch.where(probs.amax(1, keepdim=True) > 0.75, 1.0, -1.0)

    adversarial = Adversarial("label", real_smoothing=0.2, discriminator=judge)
    verdict = adversarial.opponent(maps.judged)
    assert verdict.loss.item() == pytest.approx(math.log(4 / 3))
    assert verdict.accuracy.item() == pytest.approx(1.0)
    assert adversarial(maps).item() == pytest.approx(math.log(4))
    # With as much smoothing as to look uniform, nothing tells them apart: every map is called fake.
    verdict = Adversarial("label", real_smoothing=2 / 3, discriminator=judge).opponent(maps.judged)
    assert verdict.loss.item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)
    assert verdict.accuracy.item() == pytest.approx(0.5)


def test_in_the_peer_game_the_opponent_names_the_maker() -> None:
    # Sub-model k is sure of class k, so the map is its maker's name: softmax(20 * one_hot).
    maps = make_maps()
    for k, logits in enumerate((maps.primary_logits, *maps.branch_logits.values())):
        logits.data.zero_()
        logits.data[:, k] = 50.0
    adversarial = Adversarial("peer", 0.0, lambda probs, images, valid: 20.0 * probs)
    verdict = adversarial.opponent(maps.judged)
    assert verdict.accuracy.item() == 1.0
    assert verdict.loss.item() == pytest.approx(0.0, abs=1e-8)
    assert adversarial(maps).item() == pytest.approx(40 / 3, abs=1e-6)


@GAMES
def test_the_generator_teaches_every_sub_model_through_the_discriminator(game: Game) -> None:
    maps, adversarial = make_maps(), make_adversarial(game)
    loss = adversarial(maps)
    for logits in (maps.primary_logits, *maps.branch_logits.values()):
        (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert (grad != 0).double().mean() > 0.5


@GAMES
def test_the_opponent_leaks_no_gradient_to_the_sub_models(game: Game) -> None:
    maps, adversarial = make_maps(), make_adversarial(game)
    verdict = adversarial.opponent(maps.judged)
    verdict.loss.backward()
    assert all(one.grad is None for one in inputs(maps))
    assert isinstance(adversarial.discriminator, PixelDiscriminator)
    for parameter in adversarial.discriminator.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


@GAMES
def test_both_sides_may_use_one_step_maps(game: Game) -> None:
    """The generator's backward pass leaves the maps usable for the opponent."""
    maps, adversarial = make_maps(), make_adversarial(game)
    adversarial(maps).backward()
    alone = adversarial.opponent(make_maps().judged).loss
    torch.testing.assert_close(adversarial.opponent(maps.judged).loss, alone)


# ---- what holds for all terms

Loss = Callable[[StepMaps], Tensor]
TERMS: dict[str, Loss] = {
    "supervised_primary": PLAIN.primary,
    "supervised_branches": PLAIN.branches,
    "supervised_primary_rich": RICH.primary,
    "supervised_branches_rich": RICH.branches,
    "logit_ensemble": distillation(),
    "logit_primary": distillation(teacher="primary"),
    "logit_gated": distillation(label_gate=True),
    "feature_cosine": FeatureSimilarity("cosine", pool=1),
    "feature_affinity": FeatureSimilarity("affinity", pool=2),
    "label_game": make_adversarial("label"),
    "peer_game": make_adversarial("peer"),
}
OPPONENTS: dict[str, Loss] = {
    "label_opponent": lambda maps: make_adversarial("label").opponent(maps.judged).loss,
    "peer_opponent": lambda maps: make_adversarial("peer").opponent(maps.judged).loss,
}
EVERY_TERM = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS.keys())
EVERY_SIDE = pytest.mark.parametrize("term", [*TERMS.values(), *OPPONENTS.values()], ids=[*TERMS, *OPPONENTS])


def hidden_places(maps: StepMaps, one: Tensor) -> Tensor:
    """Where no loss may look: logits where no pixel is valid, features where any is ignored; as `one`."""
    stride = SIZE // one.shape[-1]
    ignored = (maps.labels == 255).double().unsqueeze(1)
    share = F.avg_pool2d(ignored, stride)
    is_feature = any(one is h for h in maps.features.values())
    return (share > 0 if is_feature else share == 1).expand_as(one)


@EVERY_SIDE
def test_logits_and_features_at_ignored_places_have_no_say(term: Loss) -> None:
    expected = term(make_maps())
    changed = make_maps()
    for one in inputs(changed):
        hidden = hidden_places(changed, one)
        assert 0.1 < hidden.double().mean() < 0.6
        one.data[hidden] = 1e3 * torch.randn(int(hidden.sum()), dtype=torch.float64)
    assert torch.equal(term(changed), expected)


@EVERY_TERM
def test_ignored_places_get_no_gradient(term: Loss) -> None:
    maps = make_maps()
    reached = 0
    for one, grad in zip(inputs(maps), gradients(term(maps), inputs(maps)), strict=True):
        if grad is not None:
            assert not grad[hidden_places(maps, one)].any()
            reached += bool(grad.any())
    assert reached >= 1


@EVERY_SIDE
def test_nothing_valid_gives_0_and_zero_gradients(term: Loss) -> None:
    maps = make_maps(torch.full((BATCH, SIZE, SIZE), 255))
    loss = term(maps)
    assert loss.item() == 0.0
    loss.backward()
    for one in inputs(maps):
        assert one.grad is None or not one.grad.any()


@GAMES
def test_nothing_valid_gives_the_discriminator_zero_gradients(game: Game) -> None:
    adversarial = make_adversarial(game)
    adversarial.opponent(make_maps(torch.full((BATCH, SIZE, SIZE), 255)).judged).loss.backward()
    assert isinstance(adversarial.discriminator, PixelDiscriminator)
    for parameter in adversarial.discriminator.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_mean_of_is_the_plain_mean() -> None:
    assert mean_of([torch.tensor(1.0), torch.tensor(2.0), torch.tensor(6.0)]).item() == 3.0

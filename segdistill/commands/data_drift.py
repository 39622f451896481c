"""Whether a run's data are still what they were when it was trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from segdistill.build.splits import names_elsewhere
from segdistill.commands.run_folder import RunFolder
from segdistill.config import Config
from segdistill.console import new_console
from segdistill.data.samples import Samples, names_of
from segdistill.errors import RunFolderError
from segdistill.files import read_text, write_text
from segdistill.protocol import Protocol


def note_images(folder: RunFolder, names: Mapping[str, Sequence[str]]) -> None:
    """Write down which images each split has, in the form that `data.folder.lists` reads: a user whose images are
    dealt out by chance wants to know which ones were held back, and may want the same split again.
    """
    for split, images in names.items():
        write_text(_images(folder, split), "".join(f"{name}\n" for name in images))


def what_has_changed(
    folder: RunFolder,
    samples: Samples,
    config: Config,
    *,
    split: str,
    split_hash: str | None,
    elsewhere: Path | None,
) -> str:
    """What to say of a split on which a run is to be scored; empty if it is what it was when the run ended.

    Args:
        folder: of the run.
        samples: of the split as it is now.
        config: of the run, with the place of the data as they were asked for.
        split: which one.
        split_hash: see `data_hash`, of the split as it is now; None if it has no labels.
        elsewhere: where the samples lie, if not where the run's own data do.

    Raises:
        RunFolderError: if the run was trained on some that are of this split of its own data now, and of training no
            more: `data.folder`'s shares deal images out anew when some come or go.
    """
    names = names_of(samples)
    learnt = _learnt(folder, names, config, split=split)
    some = f"({', '.join(learnt[:3])}{', ...' if len(learnt) > 3 else ''}; {_images(folder, 'train').name})"
    if learnt and elsewhere is None:
        raise RunFolderError(
            f"{len(learnt)} of the {len(names)} images of {split} are among those that {folder.path} was trained on "
            f"{some}: images have come or gone since, and the shares of data.folder deal them out anew. Put what has "
            "come into a folder of its own, to be scored by data.root=DIR, or train anew with lists of each split's "
            f"images (data.folder.lists; those of this run are images_*.txt in {folder.path})"
        )
    if learnt:
        return (
            f"{len(learnt)} of the {len(names)} images of {split} in {elsewhere} have the names of images that "
            f"{folder.path} was trained on {some}: unless they are others, this is no score of images that are new to "
            "the network"
        )
    return "" if elsewhere else _other_labels(folder, split, split_hash)


def _learnt(folder: RunFolder, names: Sequence[str], config: Config, *, split: str) -> list[str]:
    """Which of these names of a split are among those that the run was trained on."""
    trained = _images(folder, "train")
    if not trained.is_file():
        return []
    # Names may come in several splits, each with a folder of its own.
    apart = names_elsewhere(config, split, console=new_console(quiet=True)).get("train")
    if apart is None:  # nothing is to be trained on any more
        noted = _images(folder, split)
        apart = read_text(noted).split("\n") if noted.is_file() else []
    return sorted(set(names) & set(read_text(trained).split("\n")) - set(apart))


def _images(folder: RunFolder, split: str) -> Path:
    return folder.path / f"images_{split}.txt"


def _other_labels(folder: RunFolder, split: str, split_hash: str | None) -> str:
    """What to say if a split is not as it was when the run came to its end; empty if it is, as far as is known.

    Args:
        folder: of the run.
        split: of the run's own data.
        split_hash: see `data_hash`, of the split as it is now; None if it has no labels.
    """
    then = folder.load_summary().data.splits.get(split) if folder.scored else None
    if None in (then, split_hash) or then == split_hash:
        return ""
    return (
        f"the {split} split is not what it was when the run ended (hash {then}, now {split_hash}, of the images' "
        "names and files and of their labels): this score and those in summary.json cannot be compared"
    )


def other_images(own: Protocol, split: str, split_hash: str | None) -> str:
    """What to say if an exported file's own score is of other images or labels; empty if it is of the same, as far as
    is known.

    Args:
        own: the protocol of that score.
        split: of the data that the file is scored on now.
        split_hash: see `data_hash`, of that split; None if it has no labels.
    """
    then = own.split_hash
    if own.split != split or None in (then, split_hash) or then == split_hash:
        return ""
    return (
        f"these are not the images and labels of {split} that the file's own score is of (hash {then}, now "
        f"{split_hash}): the two cannot be compared, and where images are dealt out by shares (data.folder.val_share) "
        "some of these may have been trained on; the run's folder tells (evaluate RUN)"
    )

"""Predictions of a trained model for tensors and image files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image

from nases_env.errors import InputError
from nases_env.model_io import TrainedModel
from nases_env.training import ChannelStatistics
from nases_env.training.augmentation import normalize
from nases_env.training.image_folder import read_image_folder
from tests.model_io.conftest import cifar10, tiny_model
from tests.training.images import write_image


def test_model_standardizes_like_the_training(model: TrainedModel) -> None:
    images = cifar10("train", 2).images
    standardized = normalize(images, ChannelStatistics(model.mean, model.std))
    with torch.no_grad():
        logits = model(images / 255)
        torch.testing.assert_close(logits, model.network(standardized), rtol=1e-5, atol=1e-5)
    assert logits.shape == (20, 10)
    assert logits.std() > 0.01


def test_preprocess_matches_the_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "a"
    write_image(folder / "large.jpg", width=700, height=500)
    write_image(folder / "grey.png", mode="L")
    write_image(folder / "palette.png", mode="P")
    write_image(folder / "clear.png", mode="RGBA")
    write_image(folder / "phone.jpg", width=40, height=20)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(folder / "phone.jpg").save(folder / "phone.jpg", exif=exif)
    expected = read_image_folder(tmp_path, train=True, size=(11, 11)).images

    color, grayscale = tiny_model(image_shape=(3, 11, 11)), tiny_model(image_shape=(1, 11, 11))
    for pixels, path in zip(expected, sorted(folder.iterdir()), strict=True):
        tensor = color.preprocess(path)
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor[0], pixels / 255)
        assert torch.equal(color.preprocess(str(path)), tensor)
        assert grayscale.preprocess(path).shape == (1, 1, 11, 11)
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert torch.equal(color.preprocess(image), tensor)
                levels = color.preprocess(image.convert("RGB").convert("L"))
                assert torch.equal(grayscale.preprocess(image), levels[:, :1])
                assert torch.equal(grayscale.preprocess(path), levels[:, :1])


def test_height_and_width_are_not_swapped(tmp_path: Path) -> None:
    write_image(tmp_path / "0.jpg", width=300, height=200)
    assert tiny_model(image_shape=(3, 7, 9)).preprocess(tmp_path / "0.jpg").shape == (1, 3, 7, 9)


def test_predict_returns_the_most_probable_classes_first(model: TrainedModel, tmp_path: Path) -> None:
    write_image(tmp_path / "0.png")
    predictions = model.predict(tmp_path / "0.png", top=100)
    names, probabilities = zip(*predictions, strict=True)
    assert sorted(names) == sorted(model.class_names)
    assert list(probabilities) == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
    with torch.no_grad():
        logits = model(model.preprocess(tmp_path / "0.png"))[0]
    assert [model.class_names.index(name) for name in names] == logits.argsort(descending=True).tolist()
    assert model.predict(tmp_path / "0.png", top=2) == predictions[:2]
    assert len(model.predict(tmp_path / "0.png")) == 5


def test_predict_changes_only_the_mode(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png")
    model = tiny_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert model.predict(tmp_path / "0.png") == model.predict(tmp_path / "0.png")
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_invalid_input_is_a_one_line_error(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png")
    (tmp_path / "page.png").write_text("<html>")
    cases: dict[str, Callable[[], object]] = {
        "has 3 channels instead of 2": lambda: tiny_model(image_shape=(2, 8, 8)).preprocess(tmp_path / "0.png"),
        "is not a valid PNG, JPEG or TIFF image": lambda: tiny_model().predict(tmp_path / "page.png"),
        "cannot read .*absent.png .No such file": lambda: tiny_model().predict(tmp_path / "absent.png"),
        "cannot read .*directory": lambda: tiny_model().predict(tmp_path),
        "it must be at least 1": lambda: tiny_model().predict(tmp_path / "0.png", top=0),
    }
    for message, call in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)

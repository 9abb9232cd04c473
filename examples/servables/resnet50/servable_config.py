"""Classifies photographs with ResNet-50: decode, model, and the names of the five best classes.

A picture is a JPEG or PNG file of any size. The file `labels.txt` beside this one has a name per
class and line. The weights are random: see `examples/export_resnet50.py`.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mindspore_serving.server import register

#: Points of one side of what the model sees, and the part of the shorter side that they show.
SIDE = 224
MIDDLE = 224 / 256

#: A small file can hold a huge picture; Pillow refuses twice as many pixels as these.
Image.MAX_IMAGE_PIXELS = 4096 * 4096

#: Mean and deviation of red, green and blue in ImageNet, of points from 0 to 1.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

BEST = 5
LABELS = Path(__file__).with_name("labels.txt").read_text(encoding="utf-8").splitlines()

resnet50 = register.declare_model(
    model_file="resnet50.mindir", model_format="MindIR", with_batch_dim=True
)


def decode_photo(image):
    """What the model takes of one picture file, float32 [3, 224, 224]."""
    try:
        with Image.open(io.BytesIO(image), formats=["JPEG", "PNG"]) as picture:
            colors = picture.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        kind = type(error).__name__
        raise ValueError(f"image is not a readable JPEG or PNG file: {kind}") from None
    width, height = colors.size
    side = min(width, height) * MIDDLE
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    points = np.asarray(colors.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box), np.float32)
    return ((points / np.float32(255) - MEAN) / DEVIATION).transpose(2, 0, 1)


def top5(instances):
    """The five best classes of each picture, the best first: numbers, scores, names.

    instances: a tuple of up to 8 pictures, each a tuple of its scores. A generator: one result
    per picture, in their order.
    """
    scores = np.stack([scores for (scores,) in instances])
    best = np.argsort(-scores, axis=1)[:, :BEST]
    for row, classes in zip(scores, best, strict=True):
        names = "; ".join(LABELS[number] for number in classes)
        yield classes, row[classes], names


@register.register_method(output_names=["classes", "scores", "names"])
def classify(image):
    """Numbers (int64 [5]), scores (float32 [5]) and names (text, by "; ") of the best classes."""
    points = register.add_stage(decode_photo, image, outputs_count=1)
    scores = register.add_stage(resnet50, points, outputs_count=1)
    classes, best, names = register.add_stage(top5, scores, outputs_count=3, batch_size=8)
    return classes, best, names


@register.register_method(output_names=["scores"])
def predict(image):
    """Probabilities of all classes, float32 [1000], of a JPEG or PNG file."""
    points = register.add_stage(decode_photo, image, outputs_count=1)
    scores = register.add_stage(resnet50, points, outputs_count=1)
    return scores

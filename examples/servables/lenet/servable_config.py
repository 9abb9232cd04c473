"""Classifies pictures with LeNet-5: Python before and behind a model of batch size 8.

Fewer than 8 instances are filled up for the model, more are spread over several calls; the
functions see single instances. The weights are random: see `examples/export_lenet.py`.
"""

import io

import numpy as np
from PIL import Image

from mindspore_serving.server import register

#: Points of one side of a picture.
SIDE = 32

#: A small file can hold a huge picture; Pillow refuses twice as many pixels as these.
Image.MAX_IMAGE_PIXELS = 4096 * 4096

lenet = register.declare_model(
    model_file="lenet.mindir", model_format="MindIR", with_batch_dim=True
)


def decode_png(image):
    """The points of a PNG file of any size in grey, float32 [1, 32, 32] from 0 to 1."""
    try:
        with Image.open(io.BytesIO(image), formats=["PNG"]) as picture:
            gray = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image is not a readable PNG file: {type(error).__name__}") from None
    return np.asarray(gray, np.float32)[np.newaxis] / np.float32(255)


def top1(scores):
    """The most probable class of one picture (int) and its probability (float)."""
    label = int(np.argmax(scores))
    return label, float(scores[label])


@register.register_method(output_names=["label", "score"])
def classify(image):
    """Class and probability of a PNG file. An error names the function that failed."""
    points = register.add_stage(decode_png, image, outputs_count=1)
    scores = register.add_stage(lenet, points, outputs_count=1)
    label, score = register.add_stage(top1, scores, outputs_count=2)
    return label, score


@register.register_method(output_names=["label", "score"])
def classify_tagged(image):
    """As `classify`, but an error names the stage by its tag."""
    points = register.add_stage(decode_png, image, outputs_count=1, tag="Preprocess")
    scores = register.add_stage(lenet, points, outputs_count=1, tag="LeNet")
    label, score = register.add_stage(top1, scores, outputs_count=2, tag="Postprocess")
    return label, score


@register.register_method(output_names=["scores"])
def predict(points):
    """Probabilities of all classes, float32 [10]. points: float32 [1, 32, 32] from 0 to 1."""
    scores = register.add_stage(lenet, points, outputs_count=1)
    return scores

"""Reads handwritten digits: pictures of 8x8 points, each from 0 (paper) to 16 (ink).

`classify` takes a PNG file of any size and answers the digit and its probability. `predict` takes
the points themselves and answers the probabilities of all ten digits. The model's batch dimension
is dynamic, so that instances of many requests are computed together.
"""

import io

import numpy as np
from PIL import Image

from mindspore_serving.server import register

#: Points of one side of a picture, and the value of full ink.
SIDE = 8
INK = 16.0

#: A larger picture is refused before it is unpacked: a small file can hold a huge one.
PIXELS_MAX = 4096 * 4096

digits = register.declare_model(
    model_file="digits.mindir", model_format="MindIR", with_batch_dim=True
)


def decode_png(image):
    """The points of one PNG file, float32 [1, 8, 8]. image: its bytes, uint8 [n].

    White on black, as the model was trained: 0 is black. Raises ValueError for anything else than
    a PNG picture of at most PIXELS_MAX pixels.
    """
    try:
        with Image.open(io.BytesIO(image), formats=["PNG"]) as picture:
            width, height = picture.size
            if width * height > PIXELS_MAX:
                raise ValueError(
                    f"image has {width}x{height} pixels, more than pixels_max {PIXELS_MAX}"
                )
            gray = picture.convert("L")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image is not a readable PNG file: {error}") from None
    if gray.size != (SIDE, SIDE):
        gray = gray.resize((SIDE, SIDE), Image.Resampling.BOX)
    points = np.asarray(gray, np.float32) * np.float32(INK / 255)
    return points.reshape(1, SIDE, SIDE)


def best(scores):
    """The most probable digit of one picture and its probability."""
    label = int(scores.argmax())
    return label, float(scores[label])


@register.register_method(output_names=["label", "score"])
def classify(image):
    """Digit (int) and probability (float) of a PNG file."""
    points = register.add_stage(decode_png, image, outputs_count=1)
    scores = register.add_stage(digits, points, outputs_count=1)
    label, score = register.add_stage(best, scores, outputs_count=2)
    return label, score


@register.register_method(output_names=["scores"])
def predict(image):
    """Probabilities of the digits 0 to 9, float32 [10]. image: float32 [8, 8], 0 to 16."""
    scores = register.add_stage(digits, image, outputs_count=1)
    return scores

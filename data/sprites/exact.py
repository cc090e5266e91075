"""Compute the same bits on every processor: random numbers, functions, interpolation and blur.

A processor rounds +, -, *, / and the square root of two floats as IEEE 754 says, and NumPy computes each in a step of
its own. Sines, powers, products of matrices and sums differ between processors: their instructions round elsewhere, or
add in another order. So the functions here are made of those five operations, and images whose pixels are multiplied
by weights and summed hold multiples of a power of two, so few bits that each partial sum is exact: then no order of
the terms and no fused multiply-add changes the sum.
"""

import math

import cv2
import numpy as np

BITS = 13  # of a value of a snapped image; with a sign and the 2 * 5 bits of the weights of `sample` they fill 24
STEPS = 32  # of `sample` within a pixel
KERNEL_STEPS = 2**12  # of the weights of `blur`, the largest of which is 1
NORMAL_STEPS = 2**20  # of a random number with a normal distribution, between 0 and 1
LN2, LOG_THREE_QUARTERS = 0.6931471805599453, -0.2876820724517809

# ------------------------------------------------------------------ random numbers


class ExactGenerator(np.random.Generator):
    """Draw random numbers as `np.random.default_rng(seed)` does, without the roundings in which compilers differ.

    NumPy computes the far tail of the normal distribution with the logarithm of the system, whose last bit differs
    between systems; hence the rounding in `normal`. Only the plans of the scenes draw from it.
    """

    def __init__(self, seed: int | list[int]) -> None:
        super().__init__(np.random.PCG64(seed))

    def uniform(self, low=0.0, high=1.0, size=None):  # NumPy's own may be compiled to a fused multiply-add
        return low + (high - low) * self.random(size)

    def normal(self, loc=0.0, scale=1.0, size=None):
        return loc + scale * (np.rint(self.standard_normal(size) * NORMAL_STEPS) / NORMAL_STEPS)


# ------------------------------------------------------------------ functions of numbers and arrays


def _evaluate_polynomial(x, coefficients):
    """Evaluate a polynomial, its highest coefficient first."""
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


_SINE = [(-1) ** n / math.factorial(2 * n + 1) for n in range(9, -1, -1)]
_EXPONENTIAL = [1 / math.factorial(n) for n in range(13, -1, -1)]
_LOGARITHM = [2 / (2 * n + 1) for n in range(10, -1, -1)]


def sin(x):
    """Compute the sine of a number or of an array of float64."""
    half_turns = np.rint(x * (1 / math.pi))
    x = x - half_turns * math.pi
    sign = 1 - 2 * (half_turns - 2 * np.floor(half_turns / 2))
    return sign * x * _evaluate_polynomial(x * x, _SINE)


def cos(x):
    """Compute the cosine of a number or of an array of float64."""
    return sin(x + math.pi / 2)


def exp(x):
    """Compute the exponential of a number or of an array of float64."""
    octaves = np.rint(x * (1 / LN2))
    return np.ldexp(_evaluate_polynomial(x - octaves * LN2, _EXPONENTIAL), np.asarray(octaves).astype(np.int32))


def log(x):
    """Compute the natural logarithm of a positive number or of an array of float64."""
    mantissa, octaves = np.frexp(x)
    ratio = (mantissa - 0.75) / (mantissa + 0.75)  # log(mantissa / 0.75) is twice the area tangent of it
    return octaves * LN2 + LOG_THREE_QUARTERS + ratio * _evaluate_polynomial(ratio * ratio, _LOGARITHM)


def power(x, exponent):
    """Raise a number or an array of float64, at least 0, to a positive power."""
    return np.where(np.asarray(x) > 0, exp(exponent * log(np.maximum(x, 1e-300))), 0.0)


# ------------------------------------------------------------------ images


def snap(image: np.ndarray) -> np.ndarray:
    """Round an image to multiples of a power of two, so that each value has at most `BITS` bits: float32."""
    top = max(float(image.max()), -float(image.min()))
    step = 2.0 ** (math.frexp(top)[1] - BITS)
    return (np.rint(image * (1 / step)) * step).astype(np.float32)


def standardise(noise: np.ndarray) -> np.ndarray:
    """Shift and scale noise (h, w) to mean 0 and standard deviation 1: float32."""
    noise = snap(noise).astype(np.float64)  # all sums of these and of their squares are exact
    mean = noise.sum() / noise.size
    deviation = math.sqrt(max(np.square(noise).sum() / noise.size - mean * mean, 0.0))
    return ((noise - mean) * (1 / (deviation + 1e-12))).astype(np.float32)


def sample(image: np.ndarray, x: np.ndarray, y: np.ndarray, *, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """Interpolate a snapped image at the places x and y (h, w) float32, in pixels, rounded to 1/32 pixel: float32."""
    x, y = (np.rint(v * STEPS) / STEPS for v in (x, y))
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=border)


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Enlarge or shrink a snapped image to `shape` by interpolation: float32."""
    y, x = (
        ((2 * np.arange(new) + 1) * (old / new) - 1).astype(np.float32) / 2
        for old, new in zip(image.shape[:2], shape, strict=True)
    )
    return sample(
        image, np.broadcast_to(x, shape), np.broadcast_to(y[:, None], shape), border=cv2.BORDER_REPLICATE
    )  # fmt: skip


def warp(
    image: np.ndarray, matrix: np.ndarray, rows: slice, cols: slice, *, border: int = cv2.BORDER_CONSTANT
) -> np.ndarray:
    """Warp a snapped image by the affine map `matrix` (2, 3) into a window of the picture: float32."""
    (a, b, c), (d, e, f) = invert(matrix).tolist()
    x, y = np.arange(cols.start, cols.stop), np.arange(rows.start, rows.stop)[:, None]
    source_x = (a * x + c).astype(np.float32) + (b * y).astype(np.float32)
    source_y = (d * x).astype(np.float32) + (e * y + f).astype(np.float32)
    return sample(image, source_x, source_y, border=border)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur an image by a Gaussian: float32."""
    reach = math.ceil(3 * sigma)
    kernel = exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    kernel = np.rint(kernel * KERNEL_STEPS) / KERNEL_STEPS
    total = kernel.sum() ** 2  # exact, as the sums below: float64 has bits for the image and both kernels
    return (cv2.sepFilter2D(snap(image), cv2.CV_64F, kernel, kernel) / total).astype(np.float32)


def blur_box(image: np.ndarray, width: int) -> np.ndarray:
    """Average an image twice over squares of an odd `width`: float32."""
    rise = np.arange(1.0, width + 1)
    kernel = np.r_[rise, rise[-2::-1]]
    return (cv2.sepFilter2D(snap(image), cv2.CV_64F, kernel, kernel) / width**4).astype(np.float32)


# ------------------------------------------------------------------ affine maps, (2, 3) float64


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Compose two maps: apply `inner`, then `outer`."""
    matrix = outer[:, :1] * inner[0] + outer[:, 1:2] * inner[1]
    matrix[:, 2] += outer[:, 2]
    return matrix


def invert(matrix: np.ndarray) -> np.ndarray:
    """Invert a map."""
    (a, b, c), (d, e, f) = matrix.tolist()
    scale = 1 / (a * e - b * d)
    a, b, d, e = e * scale, -b * scale, -d * scale, a * scale
    return np.array([[a, b, -(a * c + b * f)], [d, e, -(d * c + e * f)]])


def map_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a map to points (N, 2)."""
    return points[:, :1] * matrix[:, 0] + points[:, 1:] * matrix[:, 1] + matrix[:, 2]

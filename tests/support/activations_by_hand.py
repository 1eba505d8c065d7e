"""What the tests of figure1 share: small models, their activations by hand, fits by scipy, CSVs, tolerances."""

import csv

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
import timm
import torch
from common import SMALL

DIM = 6
LAYERS = ['global_pool.reduce.bn', 'global_pool.reduce']

# Two maximisers of one likelihood: their parameters differ by 1e-5 or so, the likelihood at its maximum by the square.
MAXIMUM = {'rtol': 0, 'atol': 1e-6}
# What CSVs keep: six digits.
CSV = {'rtol': 1e-5, 'atol': 1e-6}
# Through the estimator, whose steps end at a residual of 1e-10, and sqrt(1 - cos^2).
FIXED_POINT = {'rtol': 1e-6, 'atol': 1e-7}
FLOAT32_SPECTRUM = {'rtol': 1e-3, 'atol': 1e-5}


def tiny(name=SMALL, **options):
    """A model with random weights; every BatchNorm has statistics of its own."""
    model = timm.create_model(name, num_classes=3, **options).eval()
    for key, buffer in model.named_buffers():
        if key.endswith('running_mean'):
            buffer.normal_(0, 0.1)
        elif key.endswith('running_var'):
            buffer.uniform_(0.5, 2.0)
    return model


def by_hand(model, pixels):
    """Features, the head's activations before and after its ReLU, and its weights w: (M, C, N) each."""
    with torch.no_grad():
        features = model.forward_features(pixels)
        pool = model.global_pool
        before = pool.reduce.bn(pool.reduce.conv(features))
        x = x_hat = before.relu()
        weights = []
        for block in getattr(pool, 'reweight', []):
            weights.append(block.weight(x_hat, x))
            x_hat = weights[-1] * x_hat
    return [t.flatten(2) for t in (features, before, x, torch.cat(weights, 1) if weights else x[:, :0])]


def fit_gennorm(x):
    """Maximum likelihood at the sample mean: scipy's (p, loc, scale) by a search over log(p); NaN without a maximum."""
    loc = x.mean()

    def scale_of(p):
        return (p * (np.abs(x - loc) ** p).mean()) ** (1 / p)

    def loss(t):
        return -scipy.stats.gennorm.logpdf(x, np.exp(t), loc, scale_of(np.exp(t))).mean()

    best = scipy.optimize.minimize_scalar(loss, bounds=(-2, np.log(128)), method='bounded', options={'xatol': 1e-9})
    p = np.exp(best.x)
    return (p, loc, scale_of(p)) if p < 127 and best.fun < loss(np.log(128)) else (np.nan,) * 3


def read(file):
    with file.open(newline='') as lines:
        return list(csv.DictReader(lines))


def column(rows, name):
    return np.array([float(row[name]) for row in rows])

"""Every line of the table of poolings, and so every new one: definition, contract, precision, hostile input, errors."""

import copy
import warnings

import numpy as np
import pytest
import reference
import torch
from common import EXACT, assert_agree, create_global_pool, features, slow_unless

import timm_3g
from timm_3g.layers import BilinearPool2d, CompactBilinearPool2d, CovPool2d, WithAverage2d
from timm_3g.layers.create_pool import POOLS, TIMM_POOLS
from timm_3g.mggd import regularized_covariance

OURS = list(POOLS)
DIM = 6


def build(name: str, **kwargs) -> torch.nn.Module:
    kwargs = {'in_features': 12, 'reduce_dim': DIM, **kwargs}
    if name == 'cbp':
        kwargs.setdefault('sketch_dim', 64)
    return create_global_pool(name, **kwargs)


def raw(name: str, **kwargs) -> torch.nn.Module:
    """Without reduction, float64, eval: the statistic alone."""
    return build(name, in_features=DIM, reduce_dim=0, **kwargs).double().eval()


def root5(cov):
    return reference.newton_schulz_by_eigenvalues(cov, 5)


def cbp(x, pool):
    h1, s1, h2, s2 = (getattr(pool, b).double().numpy() for b in ('h1', 's1', 'h2', 's2'))
    b = reference.tensor_sketch(x, h1.astype(int), s1, h2.astype(int), s2, pool.out_features)
    b[abs(b) < 1e-12] = 0.0  # bins that nothing falls into: the transforms leave noise there, whose signed root would jump
    return reference.signed_sqrt_l2(b, 1e-5)


# name: the vector of one image (d, N) from the definition, in numpy float64; re-weighting is applied before
DEFINITIONS = {
    '3g': lambda x, pool: reference.lower(root5(reference.covariance(x, eps=1e-7))),
    '3g_nosqrt': lambda x, pool: reference.lower(reference.covariance(x, eps=1e-7)),
    'urm_v1': lambda x, pool: reference.lower(root5(reference.covariance(x, eps=1e-7))),
    'urm_v2': lambda x, pool: reference.lower(root5(reference.covariance(x, eps=1e-7))),
    'isqrt': lambda x, pool: reference.upper(root5(reference.covariance(x))),
    'mpn': lambda x, pool: reference.upper(reference.sqrtm_exact(reference.covariance(x))),
    'g2de': lambda x, pool: reference.upper(root5(reference.gaussian_embedding(x))),
    'bcnn': lambda x, pool: reference.bcnn_vector(x, 1e-5) / (1 + 1e-5) ** 0.5,  # a fresh BatchNorm in eval
    'cov': lambda x, pool: reference.upper(reference.covariance(x)),
    'cbp': cbp,
    'dropcov': lambda x, pool: reference.upper(reference.covariance(x)),
    'fbn': lambda x, pool: np.append(x.mean(1), x @ x.T / x.shape[1]),
    'mggd': lambda x, pool: reference.upper(reference.robust_covariance(x, beta=0.5, lam=1.1)),
}


def test_every_pooling_has_a_definition():
    assert set(DEFINITIONS) == set(POOLS), 'a pooling in POOLS needs its line in DEFINITIONS, and no other has one'


@pytest.mark.parametrize('name', OURS)
def test_equals_its_definition(name):
    pool = raw(name)
    x = features(3, DIM, 5, 4, dtype=torch.float64)
    refined = pool.refine(x).detach()
    for got, one in zip(pool(x).detach(), refined.flatten(2), strict=True):
        np.testing.assert_allclose(got, DEFINITIONS[name](one.numpy(), pool), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('name', OURS)
def test_float32_agrees_with_float64(name):
    pool = build(name).eval()
    x = features()
    with torch.no_grad():
        expected = copy.deepcopy(pool).double()(x.double())
        wrong = (pool(x).double() - expected).abs() > 1e-5 * expected.abs().max()
    # The signed root of a sketch jumps at 0, and a bin whose terms cancel may round to either side.
    assert int(wrong.sum()) <= (2 if name == 'cbp' else 0)


def test_g2de_eigh_by_name_is_the_exact_root():
    pool = raw('g2de', root='eigh')
    x = features(1, DIM, 5, 4, dtype=torch.float64)
    expected = reference.upper(reference.sqrtm_exact(reference.gaussian_embedding(x[0].flatten(1).numpy())))
    np.testing.assert_allclose(pool(x)[0], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('name', ['3g', '3g_nosqrt', 'isqrt', 'cov'])
def test_uncentred_is_the_papers_second_moment(name):
    x = features(1, DIM, 5, 4, dtype=torch.float64)
    pool = raw(name, centered=False)
    eps = 1e-7 if name.startswith('3g') else 0.0
    cov = reference.covariance(pool.refine(x)[0].detach().flatten(1).numpy(), centered=False, eps=eps)
    vector = (reference.lower if name.startswith('3g') else reference.upper)(
        cov if name in ('cov', '3g_nosqrt') else root5(cov)
    )
    np.testing.assert_allclose(pool(x)[0].detach(), vector, **EXACT)


@pytest.mark.parametrize('weights', ['mm', 'pascal'])
@pytest.mark.parametrize('centered', [True, False])
@pytest.mark.parametrize(('beta', 'lam'), [(0.5, 0.7), (0.3, 1.0), (2.0, 3.0)])
def test_mggd_is_the_regularized_covariance(beta, lam, centered, weights):
    x = features(3, DIM, 4, 5).double()
    got = raw('mggd', beta=beta, lam=lam, centered=centered, weights=weights)(x)
    expected = regularized_covariance(x.flatten(2).mT, beta, lam, weights, None if centered else 0)
    np.testing.assert_allclose(got, np.stack([reference.upper(matrix) for matrix in expected.numpy()]), **EXACT)


def test_mggd_without_enough_rank():
    x = features(4, DIM, 4, 7).double()
    x[0, 0, 0, 0] = torch.nan
    x[2, 1] = 0.1  # whose mean over 28 is rounded
    pool = raw('mggd', lam=1.0)
    with pytest.raises(ValueError, match=r'a singular covariance in 1 of 4 sets of samples, the first at index \(2,\)'):
        pool(x)
    assert torch.isfinite(pool(x[[1, 3]])).all()


def test_bcnn_batch_norm_in_training_and_triangle_by_option():
    x = features(4, DIM, dtype=torch.float64)
    pool = raw('bcnn', triangle='lower').train()
    triangles = [reference.lower(reference.covariance(one.flatten(1).numpy(), centered=False)) for one in x]
    vectors = np.stack([reference.signed_sqrt_l2(triangle, 1e-5) for triangle in triangles])  # the norm is of the triangle
    expected = (vectors - vectors.mean(0)) / np.sqrt(vectors.var(0) + 1e-5)
    np.testing.assert_allclose(pool(x).detach(), expected, rtol=1e-6, atol=1e-8)
    assert pool.out_features == DIM * (DIM + 1) // 2


@pytest.mark.parametrize('name', timm_3g.list_pools())
@pytest.mark.parametrize('reduce_dim', [DIM, 0, None])
def test_contract(name, reduce_dim):
    pool = build(name, reduce_dim=reduce_dim).eval()
    y = pool(features())
    assert y.shape == (2, pool.out_features)
    assert pool.pool_type == name
    if name in POOLS and reduce_dim:
        assert pool.out_features == len(DEFINITIONS[name](np.random.default_rng(0).random((DIM, 20)), pool))
        assert f'12 -> {DIM} -> {pool.out_features}' in repr(pool)
    if name in TIMM_POOLS:
        assert pool.out_features == (24 if 'cat' in name else 12) and not list(pool.parameters())


# What published weights depend on: out_features, triangle, eps, steps and blocks at the table's defaults.
PINNED = {
    '3g': (32896, 'lower', 1e-7, 5, 3),
    '3g_nosqrt': (32896, 'lower', 1e-7, 0, 3),
    'urm_v1': (32896, 'lower', 1e-7, 5, 1),
    'urm_v2': (32896, 'lower', 1e-7, 5, 1),
    'isqrt': (32896, 'upper', 0.0, 5, 0),
    'mpn': (32896, 'upper', 0.0, 0, 0),
    'g2de': (33153, 'upper', 0.0, 5, 0),
    'bcnn': (65536, 'full', 1e-5, 0, 0),
    'cov': (32896, 'upper', 0.0, 0, 0),
    'cbp': (8192, None, 1e-5, 0, 0),
    'dropcov': (32896, 'upper', 0.0, 0, 0),
    'fbn': (65792, None, 0.0, 0, 0),
    'mggd': (32896, 'upper', 0.0, 0, 0),
}


@pytest.mark.parametrize('name', PINNED)
def test_the_tables_defaults(name):
    pool = create_global_pool(name, 32, device='meta')
    found = [getattr(pool, key, default) for key, default in (('triangle', None), ('eps', 0.0), ('num_iters', 0))]
    assert (pool.out_features, *found, getattr(pool, 'num_reweights', 0)) == PINNED[name]


def test_the_squeeze_has_a_quarter_of_the_channels():
    assert create_global_pool('3g', 32, device='meta').reweight[0].squeeze.conv_f.out_channels == 64


@pytest.mark.parametrize('name', OURS)
def test_options_build_the_same_module_again(name):
    pool = build(name).eval()
    again = create_global_pool(name, 12, DIM, **pool.options).eval()
    again.load_state_dict(pool.state_dict())
    x = features()
    assert torch.equal(pool(x), again(x))
    assert again.options == pool.options


@pytest.mark.parametrize('name', OURS)
def test_gradcheck(name):
    pool = build(name, in_features=4, reduce_dim=3).double().eval()
    x = (features(2, 4, 3, 3, dtype=torch.float64) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(pool, x)


@pytest.mark.parametrize('name', OURS)
def test_torchscript(name):
    pool = build(name).eval()
    x = features()
    torch.testing.assert_close(torch.jit.script(pool)(x), pool(x), rtol=1e-5, atol=1e-6)


def test_cbp_leaves_the_users_random_state_alone():
    state = torch.get_rng_state()
    create_global_pool('cbp', 12, 0)
    assert torch.equal(state, torch.get_rng_state())
    pools = [create_global_pool('cbp', 12, 0, sketch_seed=s) for s in (0, 0, 1)]
    assert torch.equal(pools[0].h1, pools[1].h1) and not torch.equal(pools[0].h1, pools[2].h1)
    assert {'h1', 's1', 'h2', 's2'} <= pools[0].state_dict().keys()


# Precision ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', OURS)
def test_bf16_autocast_returns_the_callers_dtype(name):
    pool = build(name).eval()
    x = features()
    with torch.autocast('cpu', torch.bfloat16):
        assert pool(x).dtype == torch.float32
        y = pool(x.bfloat16())
    assert y.dtype == torch.bfloat16
    scale = float(pool(x).detach().abs().max())
    # one bf16 rounding of features, weights and vector: 2^-8 each, more where the re-weighting multiplies
    torch.testing.assert_close(y.float(), pool(x), rtol=0.1, atol=0.1 * scale)


@pytest.mark.parametrize('name', OURS)
def test_statistic_is_float32_under_bf16_autocast(name):
    pool = build(name, reduce_dim=0).eval()
    seen = []
    original = pool.statistic
    pool.statistic = lambda x: seen.append((x.dtype, torch.is_autocast_enabled('cpu'))) or original(x)
    with torch.autocast('cpu', torch.bfloat16):
        pool(features().bfloat16())
    assert seen == [(torch.float32, False)]


@pytest.mark.parametrize('name', OURS)
@pytest.mark.parametrize('scale', [1.0, 1e4])
def test_fp16_autocast_computes_and_returns_float32(name, scale):
    pool = build(name).eval()
    x = features().half() * scale
    with torch.autocast('cpu', torch.float16):
        y = pool(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, pool(x.float()), rtol=0, atol=0)


@pytest.mark.parametrize('name', OURS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_output_follows_the_models_dtype(name, dtype):
    assert build(name).eval().to(dtype)(features().to(dtype)).dtype == dtype


@pytest.mark.parametrize('name', OURS)
def test_channels_last_and_non_contiguous(name):
    pool = build(name).eval()
    x = features(height=6, width=5)
    assert_agree(name, pool(x.to(memory_format=torch.channels_last)), pool(x), rtol=1e-5, atol=1e-6)
    assert_agree(name, pool(x.mT), pool(x.mT.contiguous()), rtol=1e-5, atol=1e-6)


# Hostile input --------------------------------------------------------------------------------------------------------

HOSTILE = {
    'constant': lambda x: torch.full_like(x, 0.7),
    'constant per channel': lambda x: x.mean((2, 3), keepdim=True).expand_as(x).contiguous(),
    'zero': torch.zeros_like,
    'x 1e4': lambda x: x * 1e4,
    'x 1e-4': lambda x: x * 1e-4,
    'x 1e-18': lambda x: x * 1e-18,
    'x 1e10': lambda x: x * 1e10,
    'one position': lambda x: x[:, :, :1, :1],
    'duplicated channels': lambda x: x[:, :1].expand_as(x).contiguous(),
    'one image': lambda x: x[:1],
}
MODES = {
    'float32': None,
    'bf16 autocast': torch.bfloat16,
    'fp16 autocast': torch.float16,
}


@pytest.mark.parametrize('name', OURS)
@pytest.mark.parametrize('case', HOSTILE)
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('reduce_dim', [DIM, slow_unless(False, 0)])
def test_finite_in_finite_out(name, case, mode, training, reduce_dim):
    pool = build(name, reduce_dim=reduce_dim).train(training)
    x = HOSTILE[case](features(3))
    if training and name == 'bcnn' and len(x) == 1:
        with pytest.raises(ValueError, match='Expected more than 1 value per channel when training'):
            pool(x)  # PyTorch's own rule for BatchNorm1d
        return
    if MODES[mode] is not None and torch.isfinite(x.to(MODES[mode])).all():
        x = x.to(MODES[mode])
    x = x.detach().requires_grad_()
    with torch.autocast('cpu', MODES[mode] or torch.bfloat16, enabled=MODES[mode] is not None):
        y = pool(x)
    assert torch.isfinite(y).all()
    (y.float() * torch.randn_like(y.float())).sum().backward()
    grads = {'input': x.grad} | {n: p.grad for n, p in pool.named_parameters() if p.grad is not None}
    assert not [n for n, g in grads.items() if g.isnan().any()]
    if mode != 'fp16 autocast':  # the gradient of a float16 input is itself float16
        assert not [n for n, g in grads.items() if not torch.isfinite(g).all()]


@pytest.mark.parametrize('name', OURS)
def test_nan_in_nan_out(name):
    pool = build(name).eval()
    x = features()
    clean = pool(x)
    x[0, 3, 2, 1] = float('nan')
    y = pool(x)
    assert y[0].isnan().any()
    torch.testing.assert_close(y[1], clean[1])
    pool.train()
    assert pool(x).isnan().any()


# Errors ---------------------------------------------------------------------------------------------------------------


def test_unknown_name():
    with pytest.raises(ValueError, match=r"Unknown global pooling '3gg'. Options are: 3g, 3g_nosqrt, .*, avg, max"):
        create_global_pool('3gg', 12)


@pytest.mark.parametrize(
    ('name', 'kwargs', 'error', 'message'),
    [
        ('3g', {'reduce_dim': -1}, ValueError, 'reduce_dim must be positive, or 0 for no reduction; got -1'),
        ('3g', {'in_features': 0}, ValueError, 'in_features must be at least 1; got 0'),
        ('3g', {'num_iters': 0}, ValueError, r'num_iters must be an integer from 1 to 60.*; got 0'),
        ('g2de', {'num_iters': 0}, ValueError, 'num_iters must be an integer from 1'),
        ('3g', {'num_iters': 5.7}, TypeError, 'num_iters must be a finite int, as its default 5; got 5.7'),
        ('3g', {'num_iters': True}, TypeError, 'num_iters must be a finite int, as its default 5; got True'),
        ('3g', {'centered': 'False'}, TypeError, "centered must be a finite bool, as its default True; got 'False'"),
        ('3g', {'eps': float('nan')}, TypeError, 'eps must be a finite float, as its default 1e-07; got nan'),
        ('3g', {'reduce_dim': 16.0}, TypeError, 'reduce_dim must be an int, 0 for no reduction; got 16.0'),
        ('avg', {'reduce_dim': -3}, ValueError, 'reduce_dim must be positive, or 0 for no reduction; got -3'),
        ('3g', {'num_reweights': -1}, ValueError, 'num_reweights must be 0 or more; got -1'),
        ('3g', {'eps': -1e-7}, ValueError, 'eps must be finite and not negative; got -1e-07'),
        ('3g', {'reweight_beta': 2.0}, ValueError, r'reweight_beta must be in \[0, 1\], 0 for no power; got 2.0'),
        ('isqrt', {'triangle': 'left'}, ValueError, "triangle must be one of lower, upper, full; got 'left'"),
        ('g2de', {'root': 'cholesky'}, ValueError, "root must be one of newton_schulz, eigh, none; got 'cholesky'"),
        ('bcnn', {'eps': 0.0}, ValueError, 'eps of the signed root must be positive'),
        ('cbp', {'eps': 0.0}, ValueError, 'eps of the signed root must be positive'),
        ('cbp', {'sketch_dim': 0}, ValueError, 'sketch_dim must be at least 1; got 0'),
        ('isqrt', {'num_reweights': 3}, TypeError, "'isqrt' has no option num_reweights. Its options are: eps, triangle"),
        ('avg', {'num_iters': 3}, TypeError, "'avg' has no option num_iters. Its options are: none"),
    ],
)
def test_bad_arguments(name, kwargs, error, message):
    with pytest.raises(error, match=message):
        build(name, **kwargs)


@pytest.mark.parametrize('name', OURS)
@pytest.mark.parametrize('shape', [(2, 11, 4, 4), (2, 12, 16)])
def test_wrong_features(name, shape):
    with pytest.raises(ValueError, match=rf"'{name}' takes features \(B, 12, H, W\); got \({', '.join(map(str, shape))}\)"):
        build(name)(torch.zeros(shape))


# Layers built directly ------------------------------------------------------------------------------------------------

DIRECT = list(dict.fromkeys(entry.cls for entry in POOLS.values()))


@pytest.mark.parametrize('cls', DIRECT)
def test_a_layer_takes_in_features_first_and_does_not_reduce(cls):
    pool, x = cls(DIM).eval(), features(channels=DIM)
    assert pool(x).shape == (2, pool.out_features)
    assert (pool.in_features, pool.dim, type(pool.reduce)) == (DIM, DIM, torch.nn.Identity)
    assert cls(12, DIM).reduce.conv.weight.shape == (DIM, 12, 1, 1)
    assert repr(pool).startswith(f'{cls.__name__}(\n  {DIM} -> {DIM} -> {pool.out_features}')
    with pytest.raises(ValueError, match=rf'^{cls.__name__} takes features \(B, {DIM}, H, W\)'):
        pool(features(channels=DIM + 1))


@pytest.mark.parametrize('name', OURS)
def test_the_registry_names_the_layer(name):
    pool = build(name)
    assert pool.pool_type == name and type(pool).pool_type == ''
    assert repr(pool).startswith(f"{type(pool).__name__}(\n  '{name}', 12 -> {DIM} -> {pool.out_features}")


def test_a_plain_covariance_pooling_is_isqrt():
    x = features(channels=DIM)
    assert torch.equal(CovPool2d(DIM)(x), build('isqrt', in_features=DIM, reduce_dim=0)(x))


def test_number_of_blocks():
    assert len(CovPool2d(DIM).reweight) == 0
    assert len(CovPool2d(DIM, reweight='3g').reweight) == 1
    assert len(CovPool2d(DIM, reweight='urm_v1', num_reweights=2).reweight) == 2
    with pytest.raises(ValueError, match='num_reweights=3 needs a reweight: one of 3g, urm_v1, urm_v2'):
        CovPool2d(DIM, num_reweights=3)
    with pytest.raises(ValueError, match="reweight must be one of 3g, urm_v1, urm_v2, or None; got 'v3'"):
        CovPool2d(DIM, reweight='v3')


@pytest.mark.parametrize('name', list(POOLS))
@pytest.mark.parametrize('reduce_dim', [4, 0])
def test_a_map_without_positions_is_refused(name, reduce_dim):
    pool = create_global_pool(name, 8, reduce_dim)
    with pytest.raises(ValueError, match=r'takes features with at least one position; got \(2, 8, 0, 5\)'):
        pool(torch.rand(2, 8, 0, 5))


@pytest.mark.parametrize('dtype', [torch.int64, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize('pool', sorted(POOLS))
def test_features_that_are_not_of_floating_point_are_refused(pool, dtype):
    """Their covariance would be rounded to whole numbers, or lose its imaginary part."""
    with pytest.raises(TypeError, match=rf"global_pool='{pool}' takes features of floating point; got {dtype}"):
        create_global_pool(pool, 3, 0)(torch.ones(2, 3, 2, 2, dtype=dtype))


@pytest.mark.parametrize('num_iters', [0, 61, 2.5])
def test_steps_out_of_range(num_iters):
    with pytest.raises(ValueError, match=f'num_iters must be an integer from 1 to 60.*got {num_iters}'):
        CovPool2d(8, num_iters=num_iters)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: create_global_pool('g2de', 4, 0, root='eigh', num_iters=-3), 'num_iters must be an integer from 1 to 60'),
        (lambda: CovPool2d(4, root='none', num_iters=0), 'num_iters must be an integer from 1 to 60'),
        (lambda: create_global_pool('3g', 4, 0, num_reweights=0, reweight_beta=7.0), r'reweight_beta must be in \[0, 1\]'),
        (lambda: CovPool2d(4, reweight_beta=9.0), r'reweight_beta must be in \[0, 1\]'),
    ],
)
def test_an_option_without_effect_must_be_in_range_too(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.filterwarnings('ignore:`torch.jit:DeprecationWarning', 'ignore:`torch.jit:FutureWarning')
@pytest.mark.parametrize('scale', [0.0, 1e-12, 1.0, 3e9])
def test_scripted_gradients_are_the_eager_ones(scale):
    """TorchScript squares a divisor: a dead image had NaN, features of 3e9 half of their gradient."""
    pool = create_global_pool('isqrt', 8, 0)
    scripted = torch.jit.script(pool)
    x = torch.rand(3, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    x[1] *= scale
    gradients = []
    for function in (pool, *[scripted] * 3):  # TorchScript has derivatives of its own from the second call on
        leaf = x.clone().requires_grad_()
        function(leaf).sum().backward()
        gradients.append(leaf.grad)
    for found in gradients[1:]:
        for i in range(3):
            torch.testing.assert_close(found[i], gradients[0][i], rtol=1e-3, atol=1e-4 * float(gradients[0][i].abs().max()))


def test_the_rate_of_dropcov_does_not_depend_on_the_scale():
    pool = create_global_pool('dropcov', 64, 0).train()
    torch.nn.init.zeros_(pool.conv.weight)
    x = torch.rand(2, 64, 25, generator=torch.Generator().manual_seed(0))
    found = []
    for scale in (1.0, 1e-6, 1e9):
        torch.manual_seed(0)
        found.append(pool.drop_channels(x * scale) / scale)
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def test_an_average_beside_is_of_the_same_format():
    x = torch.rand(2, 5, 6, 4)
    channels_first = WithAverage2d(create_global_pool('isqrt', 4, 0), 4)
    channels_last = WithAverage2d(create_global_pool('isqrt', 4, 0, input_fmt='NHWC'), 4)
    torch.testing.assert_close(channels_last(x), channels_first(x.permute(0, 3, 1, 2)))
    assert channels_last(x).shape == (2, channels_last.out_features)


def test_the_most_steps_have_a_finite_gradient():
    x = torch.rand(2, 64, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    create_global_pool('isqrt', 64, 0, num_iters=60)(x).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())


@pytest.mark.parametrize('eps', [float('nan'), float('inf')])
def test_an_eps_that_is_not_finite(eps):
    for pool in (CovPool2d, BilinearPool2d, CompactBilinearPool2d):
        with pytest.raises(ValueError, match=f'finite.*got {eps}'):
            pool(8, eps=eps)


@pytest.mark.parametrize('pool', ['3g', '3g_nosqrt', 'urm_v1', 'urm_v2'])
def test_a_scripted_pooling_is_saved_and_loaded(pool, tmp_path):
    module, x = create_global_pool(pool, 8, 4).eval(), torch.rand(2, 8, 5, 5)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)  # torch deprecates both functions
        torch.jit.save(torch.jit.script(module), tmp_path / 'a.pt')
        loaded = torch.jit.load(tmp_path / 'a.pt')
    torch.testing.assert_close(loaded(x), module(x))

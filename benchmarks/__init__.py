"""Speed and accuracy of kerneldiff beside other ways of doing the same work.

``reference_jax``
    What people write today: the kernel as a scalar function of two vectors, differentiated by
    JAX.
``peers``
    Every implementation of every operation, ours included, behind one interface.
``product_peers``
    The same for products with matrices that are never built.
``measure``
    Interleaved timing, relative errors and the write bandwidth of the machine.
``products``
    What of the products is compared with what, and the targets.
``gp_peers``, ``gp_cases``
    Both for Gaussian process regression.
``compare``
    The tables of ratios that ``kerneldiff bench`` prints.
``bench_tensors``, ``bench_covariance``, ``bench_tanh``, ``bench_products``, ``bench_gp``
    The same comparisons as an asv suite, to follow them from commit to commit.

All but the last are also installed as ``kerneldiff._bench``.
"""

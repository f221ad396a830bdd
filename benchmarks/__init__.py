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
``expansion_peers``, ``expansions``
    Both for interpolation by radial functions, and for tanh bases.
``compare``
    The tables of ratios that ``kerneldiff bench`` prints.
``bench_...``
    The same comparisons as an asv suite, to follow them from commit to commit.
``instructions``
    Instructions of the hot paths, their budget (``instructions.json``) and its check; also in the
    suite.
``charts``
    The README's table and the documentation's chart and tables, from the results that are stored
    in ``results.json``.

What ``kerneldiff bench`` needs, all up to ``compare``, is also installed as ``kerneldiff._bench``.
"""

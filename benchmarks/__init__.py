"""Speed and accuracy of kerneldiff beside other ways of doing the same work.

``reference_jax``
    What people write today: the kernel as a scalar function of two vectors, differentiated by
    JAX.
``peers``
    Every implementation of every operation, ours included, behind one interface.
``measure``
    Interleaved timing, relative errors and the write bandwidth of the machine.
``compare``
    The table of ratios that ``kerneldiff bench`` prints.
``bench_tensors``, ``bench_tanh``
    The same comparisons as an asv suite, to follow them from commit to commit.

The first four modules are also installed as ``kerneldiff._bench``.
"""

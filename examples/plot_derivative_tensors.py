"""
What derivative tensors look like
=================================

The derivatives of a kernel between all pairs of points are tensors: (N, N, D) for gradients,
(N, N, D, D) for Hessians. Slices of them are images. Here the points are those of an engine deck, a
table of a turbofan for 12 Mach numbers, 11 altitudes and 8 positions of the throttle, of which
every other one is taken; so the images show a grid within a grid within a grid.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from _data import engine_deck
from sklearn.gaussian_process.kernels import RBF, ExpSineSquared, Matern

from kerneldiff import Gradient, Value, covariance
from kerneldiff.plot import KernelMatrixDisplay

points = engine_deck().X.reshape(12, 11, 8, 3)[::2, ::2, ::2].reshape(-1, 3)
points /= points.std(axis=0)
names = ["Mach", "altitude", "throttle"]
kernel = Matern([1.2, 1.2, 1.2], nu=2.5)
KernelMatrixDisplay.from_kernel(kernel, points, feature_names=names)
plt.show()

# %%
# Gradients change their sign with the order of the points. That by the Mach number, which changes
# last, is of one sign in whole blocks; that by the throttle, which changes first, repeats within
# each of them.

KernelMatrixDisplay.from_kernel(kernel, points, what="gradient", feature_names=names)
plt.show()

# %%
# Hessians with respect to both points are the covariance of gradients. On the diagonal of this
# table a derivative meets itself: it is most like itself at the same point (the Kronecker term),
# and unlike itself beyond about a length scale. Off the diagonal there is nothing where two points
# differ in one column only. The scale ends at about half of the largest entry.

KernelMatrixDisplay.from_kernel(
    kernel, points, what="hessian", wrt="xy", feature_names=names, vmin=-0.6, vmax=0.6
)
plt.show()

# %%
# A Gaussian process that learns from values and derivatives, or predicts them, rests on the joint
# covariance of both. On the left stand the correlations of a function of time that fades over years
# and has a season, and of its growth, for five years of months: values are most alike after whole
# years, and a value goes with growth a quarter of a year before.
#
# On the right stands a derivative that does not exist everywhere. The exponential kernel (Matérn
# with :math:`\nu = 1/2`) has a kink where two points meet, and the derivative there is NaN, in
# grey; everywhere else it is right. Of time, the points have only the month, so they meet once a
# year.

months = np.arange(60.0)[:, None]
seasonal = RBF(48.0) * ExpSineSquared(1.0, periodicity=12.0)
joint = covariance(seasonal, [Value(months), Gradient(months)])
stds = np.sqrt(joint.diagonal())
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
KernelMatrixDisplay(
    images=joint / np.outer(stds, stds), diverging=True, titles=[["correlation"]]
).plot(ax=left)
for place in (left.axvline, left.axhline):
    place(59.5, color="black", linewidth=1)
left.set(xticks=[30, 90], xticklabels=["values", "growth"])
left.set(yticks=[30, 90], yticklabels=["values", "growth"])
KernelMatrixDisplay.from_kernel(Matern(6.0, nu=0.5), months % 12, what="gradient", ax=right)
plt.show()

"""
Which columns matter, which way, and for whom? Diabetes data
============================================================

Ten measurements of 442 patients, and how far their diabetes had progressed a year later (Efron et
al., Least angle regression, 2004; from scikit-learn). The slopes of a fitted model tell how much
each measurement matters: their root mean square over the patients, times the spread of the
measurement, is a *derivative-based sensitivity* (Sobol' and Kucherenko, 2009). Permutation
importance, which shuffles a column and looks at the score, answers a similar question. But slopes
belong to each patient, have a sign, and a standard deviation.
"""

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score

from kerneldiff import GaussianProcessRegressor
from kerneldiff.plot import SensitivityDisplay

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
names = {
    "bmi": "body mass index",
    "bp": "blood pressure",
    "s1": "total cholesterol",
    "s2": "LDL cholesterol",
    "s3": "HDL cholesterol",
    "s4": "cholesterol ratio",
    "s5": "log triglycerides",
    "s6": "blood sugar",
}
X = X.rename(columns=names)

# A length scale at its upper bound belongs to a column that does not matter.
warnings.filterwarnings("ignore", "The optimal value found", ConvergenceWarning)
kernel = ConstantKernel(1.0, (1e-2, 1e3)) * RBF(np.full(10, 5.0), (0.5, 1e3)) + WhiteKernel(0.5)
model = GaussianProcessRegressor(kernel, alpha=0.0, normalize_y=True, scale_X=True)
for label, regressor in [("Gaussian process", model), ("linear regression", LinearRegression())]:
    scores = cross_val_score(regressor, X, y, cv=5)
    print(f"{label:17s} R² in cross-validation: {scores.mean():.3f}")
model.fit(X, y)
slopes, stds = model.predict_gradient(X, return_std=True)
for a, name in enumerate(X.columns):
    sure = np.mean(np.abs(slopes[:, a]) > 2 * stds[:, a])
    print(
        f"{name:18s} length scale {model.kernel_.k1.k2.length_scale[a]:7.2f}, mean slope "
        f"{slopes[:, a].mean():8.3f}, sign known for {100 * sure:3.0f} % of the patients"
    )

# %%
# Both measures agree on what matters. Of the two kinds of cholesterol, which nearly determine each
# other, the model needs only one. (The slope by sex, of which there are two values, is that of the
# smooth function between them.) On the right, each patient has a slope of their own: another point
# of body mass index counts little for the lean, and more where blood pressure is high.

importance = permutation_importance(model, X, y, n_repeats=10, random_state=0)
figure, axes = plt.subplots(
    1, 3, figsize=(14, 4.8), layout="constrained", width_ratios=[1.1, 1, 1.2]
)
display = SensitivityDisplay.from_estimator(model, X, y, target_name="progression", ax=axes[0])
shuffled = importance.importances[display.order_]
axes[1].boxplot(shuffled.T, orientation="horizontal", positions=range(10), widths=0.6)
axes[1].set(xlabel="loss of R² when shuffled", ylim=display.ax_.get_ylim(), yticks=[], xlim=0)
axes[1].set_title("permutation importance")
axes[0].set_title("derivative-based sensitivity")

column = X.columns.get_loc("body mass index")
mass, slope, std = X["body mass index"], slopes[:, column], stds[:, column]
axes[2].errorbar(mass, slope, std, fmt="none", color="0.85", zorder=0)
points = axes[2].scatter(mass, slope, c=X["blood pressure"], s=25, cmap="plasma")
axes[2].axhline(0, color="0.5", linewidth=1)
figure.colorbar(points, ax=axes[2], label="blood pressure (mm Hg)")
axes[2].set(xlabel="body mass index (kg/m²)", ylabel="slope of the progression by body mass index")
axes[2].set_title("442 slopes ± one standard deviation")
plt.show()

"""What the numbers of a report mean: quantity, formula, meaning and source."""

FORMULAS = (
    (
        "Dose of one exposure",
        "D = Φ t (1/A) κ(E)",
        "flux Φ, shutter-open time t by the shutter's own counter, beam profile 1/A, dose per fluence κ of the layer stack "
        "at energy E (photoabsorption coefficients: xraydb, Elam et al. 2002)",
    ),
    (
        "Limits",
        "max over all pixels of (1 + k σ) D ≤ limit, tested before the shutter opens",
        "one-sided uncertainty; thresholds of the literature in the definition of the run's dose model (Jousseaume et al. 2023)",
    ),
    (
        "Drift",
        "sample = stage − drift",
        "shift of each frame against its keyframe by upsampled cross-correlation (Guizar-Sicairos et al. 2008), told apart into "
        "slow drift and jitter by a Kalman filter with a slowly varying rate",
    ),
    ("Optical density", "OD = ln(flat − dark) − ln(frame − dark)", "Lambert-Beer"),
    (
        "Edge",
        "E½: where the mean optical density first crosses the middle between its lowest and its highest value",
        "for a comparison within this run; not corrected for the slopes before and after the edge",
    ),
)

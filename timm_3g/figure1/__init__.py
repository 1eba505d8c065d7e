"""Are activations long-tailed, and do learned weights follow the exact estimator? The paper's Figure 1 on any model."""

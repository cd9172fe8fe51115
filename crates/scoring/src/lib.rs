//! Facts in, scores and weights out.

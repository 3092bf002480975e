//! The few statistics that rules need. Non-finite values are the callers' to leave out.

/// The mean; NaN of nothing.
pub fn mean(v: &[f64]) -> f64 {
    v.iter().sum::<f64>() / v.len() as f64
}

/// The median; NaN of nothing.
pub fn median(v: &[f64]) -> f64 {
    let mut v = v.to_vec();
    v.sort_by(f64::total_cmp);
    match v.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => v[n / 2],
        n => (v[n / 2 - 1] + v[n / 2]) / 2.0,
    }
}

/// Standard deviation estimated from the median absolute deviation (1.4826 × MAD for a normal distribution).
pub fn spread(v: &[f64]) -> f64 {
    let m = median(v);
    1.4826 * median(&v.iter().map(|x| (x - m).abs()).collect::<Vec<_>>())
}

/// A straight line through points: its slope and the slope's standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub slope: f64,
    pub error: f64,
}

/// Ordinary least squares; at least three points with different x.
pub fn line(x: &[f64], y: &[f64]) -> Option<Line> {
    let n = x.len().min(y.len());
    if n < 3 {
        return None;
    }
    let (mx, my) = (mean(&x[..n]), mean(&y[..n]));
    let sxx: f64 = x.iter().map(|x| (x - mx) * (x - mx)).sum();
    if sxx <= 0.0 {
        return None;
    }
    let sxy: f64 = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum();
    let slope = sxy / sxx;
    let residual: f64 = x.iter().zip(y).map(|(x, y)| (y - my - slope * (x - mx)).powi(2)).sum();
    Some(Line { slope, error: (residual / (n - 2) as f64 / sxx).sqrt() })
}

/// Means of `blocks` consecutive parts of equal length (what is left over at the front is dropped): neighbours that
/// move together count once.
pub fn block_means(v: &[f64], blocks: usize) -> Vec<f64> {
    let size = v.len() / blocks.max(1);
    if size == 0 {
        return Vec::new();
    }
    v[v.len() - size * blocks..].chunks(size).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_exact_points_has_its_slope_and_no_error() {
        let x: Vec<f64> = (0..10).map(f64::from).collect();
        let y: Vec<f64> = x.iter().map(|x| 3.0 - 0.5 * x).collect();
        let l = line(&x, &y).unwrap();
        assert!((l.slope + 0.5).abs() < 1e-12 && l.error < 1e-12);
    }

    #[test]
    fn medians_and_blocks() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(block_means(&[9.0, 1.0, 3.0, 5.0, 7.0], 2), [2.0, 6.0]);
        assert!(median(&[]).is_nan() && block_means(&[1.0], 2).is_empty());
    }
}

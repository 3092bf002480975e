//! Numbers as a row of bars.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `values` as at most `width` bars, the lowest value the lowest bar; neighbours are averaged where there
/// are more values than bars. What is not finite leaves a gap.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let bars = width.min(values.len());
    let means: Vec<f64> = (0..bars)
        .map(|i| {
            let part = &values[i * values.len() / bars..(i + 1) * values.len() / bars];
            part.iter().sum::<f64>() / part.len() as f64
        })
        .collect();
    let finite = means.iter().copied().filter(|v| v.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let bar = |v: f64| match () {
        () if !v.is_finite() => ' ',
        () if high <= low => BARS[0],
        () => BARS[(((v - low) / (high - low) * 7.0).round() as usize).min(7)],
    };
    means.into_iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_value_is_the_highest_bar_and_a_gap_stays_a_gap() {
        assert_eq!(sparkline(&[3.0, 2.0, 1.0], 8), "█▅▁");
        assert_eq!(sparkline(&[1.0, f64::NAN, 2.0], 8), "▁ █");
        assert_eq!(sparkline(&[5.0, 5.0], 8), "▁▁");
        assert_eq!(sparkline(&[], 8), "");
    }

    #[test]
    fn more_values_than_bars_are_averaged() {
        assert_eq!(sparkline(&[0.0, 2.0, 4.0, 6.0], 2), "▁█");
        assert_eq!(sparkline(&(0..64).map(f64::from).collect::<Vec<_>>(), 16).chars().count(), 16);
    }
}

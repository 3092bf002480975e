//! A braille chart of our own: dots and lines in layers, axes with round ticks, ranges that a spike cannot
//! flatten. Non-finite values break a line and draw nothing.
//!
//! Knows cells and numbers, nothing of runs.

use super::theme::Glyphs;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// A drawing surface of `width` × `height` cells, each 2 × 4 dots; dot (0, 0) is at the top left.
pub struct Canvas {
    width: usize,
    height: usize,
    /// Dots of the highest layer in each cell, so that a line stays crisp within a cloud.
    dots: Vec<u8>,
    layer: Vec<u8>,
    marks: Vec<Option<(char, u8)>>,
}

/// Bit of the dot in column `x % 2`, row `y % 4` of a braille cell (Unicode's own order).
const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

impl Canvas {
    pub fn new(width: u16, height: u16) -> Self {
        let (width, height) = (usize::from(width), usize::from(height));
        let cells = width * height;
        Self { width, height, dots: vec![0; cells], layer: vec![0; cells], marks: vec![None; cells] }
    }

    /// Dots across.
    pub fn columns(&self) -> usize {
        self.width * 2
    }

    /// Dots down.
    pub fn rows(&self) -> usize {
        self.height * 4
    }

    /// Sets a dot; in a cell the dots of the highest layer stay, the lower ones give way.
    pub fn dot(&mut self, x: i64, y: i64, layer: u8) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x >= self.columns() || y >= self.rows() {
            return;
        }
        let cell = y / 4 * self.width + x / 2;
        if layer > self.layer[cell] {
            self.dots[cell] = 0;
            self.layer[cell] = layer;
        }
        if layer == self.layer[cell] {
            self.dots[cell] |= BITS[x % 2][y % 4];
        }
    }

    /// A straight line between two dots.
    pub fn line(&mut self, from: (i64, i64), to: (i64, i64), layer: u8) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let n = dx.abs().max(dy.abs());
        for i in 0..=n {
            let at = |a: i64, d: i64| if n == 0 { a } else { a + (d * i * 2 + n * d.signum()) / (n * 2) };
            self.dot(at(from.0, dx), at(from.1, dy), layer);
        }
    }

    /// A character over the cell that holds this dot.
    pub fn mark(&mut self, x: i64, y: i64, symbol: char, layer: u8) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x < self.columns() && y < self.rows() {
            self.marks[y / 4 * self.width + x / 2] = Some((symbol, layer));
        }
    }

    /// Whether the cell at this column and row is empty.
    pub fn is_empty(&self, column: u16, row: u16) -> bool {
        let cell = usize::from(row) * self.width + usize::from(column);
        self.dots.get(cell).is_none_or(|d| *d == 0) && self.marks.get(cell).is_none_or(Option::is_none)
    }

    /// Paints the cells that hold something; `styles[layer]`.
    pub fn render(&self, area: Rect, buf: &mut Buffer, styles: &[Style], glyphs: Glyphs) {
        let style = |l: u8| styles.get(usize::from(l)).copied().unwrap_or_default();
        for row in 0..self.height.min(usize::from(area.height)) {
            for column in 0..self.width.min(usize::from(area.width)) {
                let cell = row * self.width + column;
                let at = (area.x + column as u16, area.y + row as u16);
                if let Some((symbol, layer)) = self.marks[cell] {
                    buf[at].set_char(symbol).set_style(style(layer));
                } else if self.dots[cell] != 0 {
                    let symbol = match glyphs {
                        Glyphs::Braille => char::from_u32(0x2800 + u32::from(self.dots[cell])).unwrap_or('.'),
                        Glyphs::Dots => {
                            if self.layer[cell] == 0 {
                                '·'
                            } else {
                                '•'
                            }
                        }
                        Glyphs::Ascii => {
                            if self.layer[cell] == 0 {
                                '.'
                            } else {
                                'o'
                            }
                        }
                    };
                    buf[at].set_char(symbol).set_style(style(self.layer[cell]));
                }
            }
        }
    }
}

/// One axis: what it spans, and where its labels stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
    pub log: bool,
}

impl Axis {
    /// An axis over `low..high`, a little widened to round ends, with at most `most` round ticks. `log` needs `low > 0`.
    pub fn round(low: f64, high: f64, most: usize, log: bool) -> Axis {
        let (low, high) =
            if high > low { (low, high) } else { (low - 0.5 * low.abs().max(0.1), high + 0.5 * high.abs().max(0.1)) };
        if log && low > 0.0 {
            return Axis::logarithmic(low, high, most);
        }
        // The ends are rounded finer than the ticks: round ends too would leave a third of the chart empty.
        let fine = fine_step(high - low);
        let (low, high) = ((low / fine + 1e-9).floor() * fine, (high / fine - 1e-9).ceil() * fine);
        Axis { low, high, ticks: ticks(low, high, most), log: false }
    }

    /// An axis that spans exactly `low..high`, with round ticks inside.
    pub fn exact(low: f64, high: f64, most: usize) -> Axis {
        Axis { low, high, ticks: ticks(low, high, most), log: false }
    }

    fn logarithmic(low: f64, high: f64, most: usize) -> Axis {
        let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
        // The ends are rounded finer than the ticks here too.
        const ENDS: [f64; 6] = [1.0, 1.5, 2.0, 3.0, 5.0, 7.0];
        let ends: Vec<f64> = decades.clone().flat_map(|e| ENDS.iter().map(move |m| m * 10f64.powi(e))).collect();
        let low = ends.iter().rev().find(|t| **t <= low * 1.0001).copied().unwrap_or(low);
        let high = ends.iter().find(|t| **t >= high * 0.9999).copied().unwrap_or(high);
        for mantissas in [&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0][..], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]] {
            let all: Vec<f64> =
                decades.clone().flat_map(|e| mantissas.iter().map(move |m| m * 10f64.powi(e))).collect();
            let ticks: Vec<f64> = all.into_iter().filter(|t| (low * 0.9999..=high * 1.0001).contains(t)).collect();
            if ticks.len() <= most.max(2) || mantissas.len() == 1 {
                return Axis { low, high, ticks, log: true };
            }
        }
        Axis { low, high, ticks: Vec::new(), log: true }
    }

    /// Where `v` lies between low (0) and high (1); outside of it beyond.
    pub fn place(&self, v: f64) -> f64 {
        if self.log {
            (v.max(1e-300) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (v - self.low) / (self.high - self.low)
        }
    }

    /// The value at a place between 0 and 1.
    pub fn value(&self, place: f64) -> f64 {
        if self.log { self.low * (self.high / self.low).powf(place) } else { self.low + place * (self.high - self.low) }
    }

    /// Decimals that tell neighbouring ticks apart.
    pub fn decimals(&self) -> usize {
        let step = self.ticks.windows(2).map(|t| (t[1] - t[0]).abs()).fold(f64::INFINITY, f64::min);
        if !step.is_finite() || step <= 0.0 {
            return 2;
        }
        (0..6)
            .find(|&d| ((step * 10f64.powi(d)).round() - step * 10f64.powi(d)).abs() < 1e-6 * 10f64.powi(d))
            .unwrap_or(6) as usize
    }
}

/// A round step of about a twelfth of `span`.
fn fine_step(span: f64) -> f64 {
    let magnitude = 10f64.powf((span / 12.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * magnitude).into_iter().find(|s| *s >= span / 12.0).unwrap_or(magnitude * 10.0)
}

/// Round ticks within `low..=high`, at most `most`.
fn ticks(low: f64, high: f64, most: usize) -> Vec<f64> {
    let span = high - low;
    if !span.is_finite() || span <= 0.0 {
        return vec![low];
    }
    let most = most.max(2) as f64;
    let magnitude = 10f64.powf((span / most).log10().floor());
    for mantissa in [1.0, 2.0, 2.5, 4.0, 5.0, 10.0, 20.0, 25.0, 50.0, 100.0] {
        let step = mantissa * magnitude;
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        if last - first < most {
            return (0..=(last - first).max(0.0) as u64).map(|i| (first + i as f64) * step).collect();
        }
    }
    vec![low]
}

/// The end of a domain that grows in coarse steps, so that a live chart seldom rescales: the next of twenty
/// round numbers a decade, never beyond `most`.
pub fn grown(v: f64, most: f64) -> f64 {
    const STEPS: [f64; 20] =
        [1.0, 1.1, 1.25, 1.4, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
    if !(v.is_finite() && v > 0.0) {
        return most.min(1.0);
    }
    let magnitude = 10f64.powf(v.log10().floor());
    let end = STEPS.iter().map(|s| s * magnitude).find(|s| *s >= v * (1.0 - 1e-9)).unwrap_or(v);
    if most > 0.0 { end.min(most) } else { end }
}

/// The range worth showing: that of `lines`, and of `cloud` without its outliers. A spike beyond three times
/// the spread of the middle 96 % does not count.
pub fn robust_range(lines: impl Iterator<Item = f64>, cloud: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let mut cloud: Vec<f64> = cloud.filter(|v| v.is_finite()).collect();
    cloud.sort_unstable_by(f64::total_cmp);
    let at = |q: f64| cloud.get((q * (cloud.len().max(1) - 1) as f64).round() as usize).copied();
    let lines: Vec<f64> = lines.filter(|v| v.is_finite()).collect();
    let fence = match (at(0.02), at(0.98)) {
        (Some(a), Some(b)) if b > a => (a - 3.0 * (b - a), b + 3.0 * (b - a)),
        _ => (f64::NEG_INFINITY, f64::INFINITY),
    };
    let inside = lines.iter().copied().chain([at(0.005), at(0.995)].into_iter().flatten());
    let inside = inside.map(|v| v.clamp(fence.0, fence.1));
    inside.fold(None, |r: Option<(f64, f64)>, v| Some(r.map_or((v, v), |(a, b)| (a.min(v), b.max(v)))))
}

/// `values` as one line of bars, each column the mean of its share; empty where a share has no finite value.
/// Scaled from `low` to `high`.
pub fn spark(columns: &[Option<f64>], low: f64, high: f64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let level = |v: f64| {
        let share = if high > low { (v - low) / (high - low) } else { 0.5 };
        BARS[((share * 7.0).round().clamp(0.0, 7.0)) as usize]
    };
    columns.iter().map(|v| v.map_or(' ', level)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_range() {
        let axis = Axis::round(0.93, 2.37, 5, false);
        assert_eq!(
            axis.ticks.iter().map(|t| format!("{t:.2}")).collect::<Vec<_>>(),
            ["0.80", "1.20", "1.60", "2.00", "2.40"]
        );
        assert!(axis.place(0.8).abs() < 1e-9 && (axis.place(2.4) - 1.0).abs() < 1e-9);
        let flat = Axis::round(1.0, 1.0, 5, false);
        assert!(flat.low < 1.0 && flat.high > 1.0);
        let log = Axis::round(0.003, 40.0, 6, true);
        assert!(log.low <= 0.003 && log.high >= 40.0 && log.ticks.len() >= 2, "{log:?}");
    }

    #[test]
    fn a_spike_does_not_flatten_the_curve() {
        let losses = (0..400).map(|i| if i == 200 { 90.0 } else { 2.0 - f64::from(i) / 400.0 });
        let (low, high) = robust_range(std::iter::empty(), losses).unwrap();
        assert!(low > 0.9 && high < 6.0, "{low} {high}");
    }

    #[test]
    fn the_domain_grows_seldom_and_never_beyond_the_run() {
        assert_eq!(grown(412.0, 1218.0), 450.0);
        assert_eq!(grown(1200.0, 1218.0), 1218.0);
        let ends: std::collections::BTreeSet<u64> = (1..=1218).map(|s| grown(f64::from(s), 1218.0) as u64).collect();
        assert!(ends.len() < 70);
    }

    #[test]
    fn a_line_joins_its_ends_and_nothing_is_drawn_outside() {
        let mut canvas = Canvas::new(4, 2);
        canvas.line((0, 7), (7, 0), 1);
        canvas.line((-5, -5), (50, 50), 0);
        assert!(!canvas.is_empty(0, 1) && !canvas.is_empty(3, 0));
        let area = Rect::new(0, 0, 4, 2);
        let mut buf = Buffer::empty(area);
        canvas.render(area, &mut buf, &[Style::new(), Style::new()], Glyphs::Braille);
        assert_eq!(buf[(3, 0)].symbol(), "⠊");
    }
}

//! Sources with weights: which examples of each an epoch sees, and in what order they stand.
//!
//! The first source sets the epoch: all of it is seen once, and the others are drawn so that the shares are those of
//! the weights. What is drawn is a pure function of the seed and the same in every epoch, so a resume needs nothing.

use super::batch::Example;
use super::permute::{Permutation, Stream};
use serde::{Deserialize, Serialize};

/// What became of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// As the recipe names it.
    pub source: String,
    /// Of all, 0..1.
    pub share: f64,
    /// Rows (blocks, of documents) that there are to train on.
    pub available: u64,
    /// Those that an epoch sees; more than there are: some are seen again.
    pub seen: u64,
}

impl Share {
    /// `15 % chat.jsonl: 176 of 50,000 rows an epoch`.
    pub fn words(&self, thousands: fn(u64) -> String) -> String {
        let percent = format!("{:.1}", 100.0 * self.share);
        let (seen, available) = (thousands(self.seen), thousands(self.available));
        let often = match self.seen > self.available {
            true => {
                format!("{available} rows, each {:.1} times an epoch", self.seen as f64 / self.available.max(1) as f64)
            }
            false => format!("{seen} of {available} rows an epoch"),
        };
        format!("{} % {}: {often}", percent.trim_end_matches(".0"), self.source)
    }
}

/// Examples of one source, in units that stay together (the examples of one row; each block of a document).
pub struct Part {
    pub source: String,
    pub weight: f64,
    pub units: Vec<Vec<Example>>,
}

/// Mix `parts` by their weights. An empty first part leaves nothing to measure by: all are then taken whole.
pub fn mix(parts: Vec<Part>, seed: u64) -> (Vec<Example>, Vec<Share>) {
    let total: f64 = parts.iter().map(|p| p.weight).sum();
    let first = parts.first().map_or(0, |p| p.units.len());
    let epoch = parts.first().map_or(0.0, |p| first as f64 * total / p.weight);
    let (mut shares, mut order) = (Vec::new(), Vec::new());
    for (i, part) in parts.iter().enumerate() {
        let n = part.units.len();
        let seen = match (i, n) {
            (_, 0) => 0,
            (0, n) => n,
            _ if first == 0 => n,
            _ => ((epoch * part.weight / total).round() as usize).max(1),
        };
        let mut chosen: Vec<usize> = Vec::with_capacity(seen);
        for _ in 0..seen.checked_div(n).unwrap_or(0) {
            chosen.extend(0..n);
        }
        if seen % n.max(1) > 0 {
            let permutation = Permutation::new(n, seed, Stream::Mix, i as u64);
            let mut rest: Vec<usize> = (0..seen % n).map(|j| permutation.at(j)).collect();
            rest.sort_unstable();
            chosen.extend(rest);
        }
        // Spread evenly over the epoch, so that unshuffled training is mixed too.
        order.extend(chosen.into_iter().enumerate().map(|(j, unit)| ((j as f64 + 0.5) / seen as f64, i, unit)));
        shares.push(Share {
            source: part.source.clone(),
            share: part.weight / total,
            available: n as u64,
            seen: seen as u64,
        });
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let examples = order.into_iter().flat_map(|(_, i, unit)| parts[i].units[unit].iter().cloned()).collect();
    (examples, shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(source: &str, weight: f64, rows: std::ops::Range<u32>) -> Part {
        let unit = |row| vec![Example { ids: vec![row].into(), trained: vec![true].into(), row, truncated: false }];
        Part { source: source.into(), weight, units: rows.map(unit).collect() }
    }

    fn rows(mixed: &[Example]) -> Vec<u32> {
        mixed.iter().map(|e| e.row).collect()
    }

    #[test]
    fn the_first_source_is_seen_whole_and_the_others_by_their_share() {
        let (mixed, shares) = mix(vec![part("mine", 0.85, 0..1000), part("chat", 0.15, 1000..51_000)], 1);
        assert_eq!((shares[0].seen, shares[1].seen), (1000, 176));
        assert_eq!(mixed.len(), 1176);
        let mine: Vec<u32> = rows(&mixed).into_iter().filter(|r| *r < 1000).collect();
        assert_eq!(mine, (0..1000).collect::<Vec<_>>());
        let mut chat: Vec<u32> = rows(&mixed).into_iter().filter(|r| *r >= 1000).collect();
        chat.dedup();
        assert_eq!(chat.len(), 176);
        assert_eq!(shares[1].words(|n| n.to_string()), "15 % chat: 176 of 50000 rows an epoch");
    }

    #[test]
    fn a_source_that_is_too_small_is_seen_again() {
        let (mixed, shares) = mix(vec![part("mine", 3.0, 0..9), part("chat", 1.0, 100..102)], 1);
        assert_eq!((shares[1].share, shares[1].seen), (0.25, 3));
        let chat = |row| rows(&mixed).into_iter().filter(|r| *r == row).count();
        assert_eq!(chat(100) + chat(101), 3);
        assert!(chat(100) >= 1 && chat(101) >= 1);
        assert_eq!(shares[1].words(|n| n.to_string()), "25 % chat: 2 rows, each 1.5 times an epoch");
    }

    #[test]
    fn the_same_seed_draws_the_same_rows_and_another_others() {
        let of = |seed| rows(&mix(vec![part("a", 1.0, 0..50), part("b", 1.0, 100..300)], seed).0);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn the_rows_of_a_small_source_are_spread_over_the_epoch() {
        let (mixed, _) = mix(vec![part("a", 0.9, 0..90), part("b", 0.1, 100..200)], 1);
        let at: Vec<usize> = rows(&mixed).iter().enumerate().filter(|(_, r)| **r >= 100).map(|(i, _)| i).collect();
        assert_eq!(at.len(), 10);
        assert!(at.windows(2).all(|w| (9..=11).contains(&(w[1] - w[0]))), "{at:?}");
    }
}

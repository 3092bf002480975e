//! A shuffle without state: where index `i` goes is computed from (seed, stream, epoch, i) alone, so that a resumed
//! run needs nothing but its step number.
//!
//! The permutation is a Feistel network over the smallest even number of bits that holds `n`, its round function the
//! finalizer of SplitMix64 (Steele, Lea and Flood, 2014) under a key of its own each round; a value that falls outside
//! `0..n` is sent through again until it falls inside (cycle walking, Black and Rogaway, 2002).
//! It does not equal torch's.

/// What a permutation is for; two streams of one seed have nothing in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Order of training, anew each epoch.
    Train = 1,
    /// Which rows are held out.
    Holdout = 2,
    /// Which rows of a source that is mixed in by weight are seen.
    Mix = 3,
}

const ROUNDS: usize = 8;

/// A permutation of `0..n`.
#[derive(Debug, Clone)]
pub struct Permutation {
    n: u64,
    /// Bits of each half.
    half: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    pub fn new(n: usize, seed: u64, stream: Stream, epoch: u64) -> Self {
        let n = n as u64;
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        let mut key = mix(mix(mix(seed) ^ stream as u64) ^ epoch);
        let keys = std::array::from_fn(|_| {
            key = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
            mix(key)
        });
        Self { n, half: bits.div_ceil(2).max(1), keys }
    }

    /// Where `i` goes. `i` must be below `n`.
    pub fn at(&self, i: usize) -> usize {
        let mut x = i as u64;
        debug_assert!(x < self.n);
        loop {
            x = self.rounds(x);
            if x < self.n {
                return x as usize;
            }
        }
    }

    fn rounds(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half) - 1;
        let (mut left, mut right) = (x >> self.half, x & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half) | right
    }
}

/// SplitMix64's finalizer.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
        let p = Permutation::new(n, seed, Stream::Train, epoch);
        (0..n).map(|i| p.at(i)).collect()
    }

    #[test]
    fn every_index_comes_exactly_once() {
        for n in (1..70).chain([255, 256, 257, 1000, 4096, 4097]) {
            for seed in [0, 3407, u64::MAX] {
                let mut seen = all(n, seed, 1);
                seen.sort_unstable();
                assert_eq!(seen, (0..n).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn another_epoch_or_seed_gives_another_order_and_the_same_gives_the_same() {
        assert_eq!(all(100, 1, 0), all(100, 1, 0));
        assert_ne!(all(100, 1, 0), all(100, 1, 1));
        assert_ne!(all(100, 1, 0), all(100, 2, 0));
        let held = Permutation::new(100, 1, Stream::Holdout, 0);
        assert_ne!(all(100, 1, 0), (0..100).map(|i| held.at(i)).collect::<Vec<_>>());
    }

    #[test]
    fn every_place_is_about_equally_likely() {
        // n²  cells with 20,000 / n expected each: chi-square over (n - 1)² degrees of freedom, mean ± 5 deviations.
        for n in [2, 3, 5, 10, 16, 33] {
            let mut counts = vec![0f64; n * n];
            let trials = 20_000;
            for seed in 0..trials {
                for (i, j) in all(n, seed, 0).into_iter().enumerate() {
                    counts[i * n + j] += 1.0;
                }
            }
            let expected = trials as f64 / n as f64;
            let chi: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
            let freedom = ((n - 1) * (n - 1)) as f64;
            assert!(chi < freedom + 5.0 * (2.0 * freedom).sqrt(), "n {n}: chi-square {chi:.1} of {freedom}");
        }
    }
}

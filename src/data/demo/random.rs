//! The demo's random numbers: splitmix64 over a counter, so that a seed gives the same text on every machine for ever.

/// A stream of numbers that depends on its seed alone.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// `seed` picks the data set, `stream` the part of it.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut r = Self { state: seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03) };
        r.bits();
        r
    }

    /// The next 64 bits (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        // The high bits, scaled: no modulo bias worth speaking of for the small `n` used here.
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// One of `from`, which must not be empty.
    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// True in `percent` of 100.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

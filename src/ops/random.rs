//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//!
//! A number is a pure function of its key and counter, so nothing has to be saved to draw it again.

/// A family of streams: the key is the seed, three words of the counter name the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    pub seed: u64,
    pub words: [u32; 3],
}

impl Stream {
    /// The `block`-th four words of the stream.
    #[inline(always)]
    pub fn block(&self, block: u32) -> [u32; 4] {
        let mut c = [block, self.words[0], self.words[1], self.words[2]];
        let mut k = [self.seed as u32, (self.seed >> 32) as u32];
        for _ in 0..10 {
            let p0 = u64::from(c[0]) * 0xD251_1F53;
            let p1 = u64::from(c[2]) * 0xCD9E_8D57;
            c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
            k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
        }
        c
    }

    /// Fill `out` with numbers uniform on [-bound, bound).
    pub fn fill_uniform(&self, bound: f32, out: &mut [f32]) {
        for (i, piece) in out.chunks_mut(4).enumerate() {
            for (o, w) in piece.iter_mut().zip(self.block(i as u32)) {
                *o = ((w >> 8) as f32 / (1u32 << 23) as f32 - 1.0) * bound;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_known_answers() {
        // Random123's kat_vectors, philox4x32 10.
        let zero = Stream { seed: 0, words: [0; 3] };
        assert_eq!(zero.block(0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = Stream { seed: u64::MAX, words: [u32::MAX; 3] };
        assert_eq!(ones.block(u32::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn uniform_numbers_fill_their_interval_evenly() {
        let mut v = vec![0f32; 40_000];
        Stream { seed: 7, words: [1, 2, 3] }.fill_uniform(0.5, &mut v);
        let mean = v.iter().sum::<f32>() / v.len() as f32;
        let var = v.iter().map(|x| x * x).sum::<f32>() / v.len() as f32;
        assert!(v.iter().all(|x| (-0.5..0.5).contains(x)));
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((var - 1.0 / 12.0).abs() < 0.005, "{var}");
    }
}

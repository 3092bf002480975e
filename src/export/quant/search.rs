//! The searches for a group's scale that the K-quants share, over `L` groups of `N` values at once.
//!
//! Values come transposed: `x[i][l]` is value `i` of group `l`. Each lane goes through its own group in order, so a
//! lane's sums are those of llama.cpp's loop over that group. `GROUP_MAX_EPS` and the constants are ggml-quants.c's.

/// Below this largest magnitude a group counts as zeros.
pub(super) const TINY: f32 = 1e-15;

/// Values in a super-block.
pub(super) const SUPER: usize = 256;

pub(super) type Group<const N: usize, const L: usize> = [[f32; L]; N];

/// Round to the nearest whole number, ties to even, by the bits of a sum with 1.5 · 2^23.
#[inline(always)]
pub(super) fn nearest(v: f32) -> i32 {
    ((v + 12_582_912.0).to_bits() & 0x007F_FFFF) as i32 - 0x0040_0000
}

#[inline(always)]
fn clamped(v: f32, least: i32, most: i32) -> i32 {
    let n = nearest(v);
    let n = if n > most { most } else { n };
    if n < least { least } else { n }
}

/// The groups of a super-block side by side.
#[inline(always)]
pub(super) fn transposed<const N: usize, const L: usize>(x: &[f32; SUPER]) -> Group<N, L> {
    let mut out = [[0f32; L]; N];
    for l in 0..L {
        for i in 0..N {
            out[i][l] = x[l * N + i];
        }
    }
    out
}

/// The value of largest magnitude of each group (the first of equals), and that magnitude.
#[inline(always)]
fn extremes<const N: usize, const L: usize>(x: &Group<N, L>) -> ([f32; L], [f32; L]) {
    let (mut max, mut amax) = ([0f32; L], [0f32; L]);
    for row in x {
        for l in 0..L {
            let a = row[l].abs();
            let more = a > amax[l];
            amax[l] = if more { a } else { amax[l] };
            max[l] = if more { row[l] } else { max[l] };
        }
    }
    (max, amax)
}

/// Scales without a minimum (`make_qx_quants` with weights x²): levels `-nmax ..= nmax - 1`. Returns scales, and the
/// inverse scales that levels are found with; both are 0 for a group of zeros.
#[inline(always)]
pub(super) fn symmetric<const N: usize, const L: usize>(x: &Group<N, L>, nmax: i32) -> ([f32; L], [f32; L]) {
    let (max, amax) = extremes(x);
    let mut chosen = [0f32; L];
    let (mut scale, mut best) = ([0f32; L], [0f32; L]);
    for step in std::iter::once(0).chain((-9..=9).filter(|s| *s != 0)) {
        let mut iscale = [0f32; L];
        for l in 0..L {
            iscale[l] = if step == 0 { -nmax as f32 / max[l] } else { -(nmax as f32 + 0.1 * step as f32) / max[l] };
        }
        let (mut sumlx, mut suml2) = ([0f32; L], [0f32; L]);
        for row in x {
            for l in 0..L {
                let level = clamped(iscale[l] * row[l], -nmax, nmax - 1) as f32;
                let w = row[l] * row[l];
                sumlx[l] += w * row[l] * level;
                suml2[l] += w * level * level;
            }
        }
        for l in 0..L {
            let first = step == 0;
            let better = first || (suml2[l] > 0.0 && sumlx[l] * sumlx[l] > best[l] * suml2[l]);
            let s = if first && suml2[l] == 0.0 { 0.0 } else { sumlx[l] / suml2[l] };
            scale[l] = if better { s } else { scale[l] };
            best[l] = if better { s * sumlx[l] } else { best[l] };
            chosen[l] = if better { iscale[l] } else { chosen[l] };
        }
    }
    for l in 0..L {
        let zeros = amax[l] < TINY;
        scale[l] = if zeros { 0.0 } else { scale[l] };
        chosen[l] = if zeros { 0.0 } else { chosen[l] };
    }
    (scale, chosen)
}

/// Levels of [`symmetric`] plus `nmax`; 0 in a group of zeros.
#[inline(always)]
pub(super) fn symmetric_levels<const N: usize, const L: usize>(
    x: &Group<N, L>,
    iscale: &[f32; L],
    nmax: i32,
) -> [[i32; L]; N] {
    let mut levels = [[0i32; L]; N];
    for (out, row) in levels.iter_mut().zip(x) {
        for l in 0..L {
            let level = clamped(iscale[l] * row[l], -nmax, nmax - 1) + nmax;
            out[l] = if iscale[l] == 0.0 { 0 } else { level };
        }
    }
    levels
}

/// Scales without a minimum, improved level by level (`make_q3_quants`): scales, and levels `0 ..= 2·nmax - 1`.
#[inline(always)]
pub(super) fn stepwise<const N: usize, const L: usize>(x: &Group<N, L>, nmax: i32) -> ([f32; L], [[i32; L]; N]) {
    let (max, amax) = extremes(x);
    let mut levels = [[0i32; L]; N];
    let (mut sumlx, mut suml2) = ([0f32; L], [0f32; L]);
    for (out, row) in levels.iter_mut().zip(x) {
        for l in 0..L {
            let level = clamped(-nmax as f32 / max[l] * row[l], -nmax, nmax - 1);
            out[l] = level;
            let w = row[l] * row[l];
            sumlx[l] += w * row[l] * level as f32;
            suml2[l] += w * level as f32 * level as f32;
        }
    }
    for _ in 0..5 {
        let mut any = false;
        for (out, row) in levels.iter_mut().zip(x) {
            for l in 0..L {
                let (v, level) = (row[l], out[l] as f32);
                let w = v * v;
                let slx = sumlx[l] - w * v * level;
                let sl2 = suml2[l] - w * level * level;
                let new = clamped(v * sl2 / slx, -nmax, nmax - 1);
                let to = new as f32;
                let (new_slx, new_sl2) = (slx + w * v * to, sl2 + w * to * to);
                let better = slx > 0.0
                    && new != out[l]
                    && new_sl2 > 0.0
                    && new_slx * new_slx * suml2[l] > sumlx[l] * sumlx[l] * new_sl2;
                out[l] = if better { new } else { out[l] };
                sumlx[l] = if better { new_slx } else { sumlx[l] };
                suml2[l] = if better { new_sl2 } else { suml2[l] };
                any |= better;
            }
        }
        // A lane without a change repeats itself, so going on for the others changes nothing in it.
        if !any {
            break;
        }
    }
    let mut scale = [0f32; L];
    for l in 0..L {
        let zeros = amax[l] < TINY;
        scale[l] = if zeros || suml2[l] <= 0.0 { 0.0 } else { sumlx[l] / suml2[l] };
        for row in &mut levels {
            row[l] = if zeros { 0 } else { row[l] + nmax };
        }
    }
    (scale, levels)
}

/// What [`affine`] searches: levels `0 ..= nmax`, inverse scales `(rmin + rdelta·step + nmax) / range`.
pub(super) struct Search {
    pub nmax: i32,
    pub rmin: f32,
    pub rdelta: f32,
    pub steps: i32,
    /// Whether the error is the sum of magnitudes rather than of squares.
    pub magnitudes: bool,
}

/// Scales with a minimum that is not above 0 (`make_qkx2_quants`).
pub(super) struct Affine<const L: usize> {
    pub scale: [f32; L],
    /// What is subtracted: not negative.
    pub min: [f32; L],
    /// Inverse scale and offset that the levels are found with.
    iscale: [f32; L],
    offset: [f32; L],
}

#[inline(always)]
pub(super) fn affine<const N: usize, const L: usize>(
    x: &Group<N, L>,
    weights: &Group<N, L>,
    search: &Search,
) -> Affine<L> {
    let nmax = search.nmax as f32;
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (weights[0], [0f32; L]);
    for l in 0..L {
        sum_x[l] = sum_w[l] * x[0][l];
    }
    for (row, w) in x.iter().zip(weights).skip(1) {
        for l in 0..L {
            min[l] = if row[l] < min[l] { row[l] } else { min[l] };
            max[l] = if row[l] > max[l] { row[l] } else { max[l] };
            sum_w[l] += w[l];
            sum_x[l] += w[l] * row[l];
        }
    }
    let mut flat = [false; L];
    let (mut iscale, mut scale, mut offset) = ([0f32; L], [0f32; L], [0f32; L]);
    for l in 0..L {
        min[l] = if min[l] > 0.0 { 0.0 } else { min[l] };
        flat[l] = max[l] == min[l];
        iscale[l] = nmax / (max[l] - min[l]);
        scale[l] = 1.0 / iscale[l];
        offset[l] = min[l];
    }
    let lowest = min;
    let mut best = [0f32; L];
    for (row, w) in x.iter().zip(weights) {
        for l in 0..L {
            let level = clamped(iscale[l] * (row[l] - min[l]), 0, search.nmax) as f32;
            let diff = scale[l] * level + min[l] - row[l];
            best[l] += w[l] * if search.magnitudes { diff.abs() } else { diff * diff };
        }
    }
    for step in 0..=search.steps {
        let mut tried = [0f32; L];
        for l in 0..L {
            tried[l] = (search.rmin + search.rdelta * step as f32 + nmax) / (max[l] - min[l]);
        }
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([0f32; L], [0f32; L], [0f32; L]);
        let mut levels = [[0f32; L]; N];
        for ((row, w), levels) in x.iter().zip(weights).zip(&mut levels) {
            for l in 0..L {
                let level = clamped(tried[l] * (row[l] - min[l]), 0, search.nmax) as f32;
                levels[l] = level;
                sum_l[l] += w[l] * level;
                sum_l2[l] += w[l] * level * level;
                sum_xl[l] += w[l] * level * row[l];
            }
        }
        let (mut this_scale, mut this_min, mut solvable) = ([0f32; L], [0f32; L], [false; L]);
        for l in 0..L {
            let d = sum_w[l] * sum_l2[l] - sum_l[l] * sum_l[l];
            solvable[l] = d > 0.0;
            let s = (sum_w[l] * sum_xl[l] - sum_x[l] * sum_l[l]) / d;
            let m = (sum_l2[l] * sum_x[l] - sum_l[l] * sum_xl[l]) / d;
            this_scale[l] = if m > 0.0 { sum_xl[l] / sum_l2[l] } else { s };
            this_min[l] = if m > 0.0 { 0.0 } else { m };
        }
        let mut error = [0f32; L];
        for ((row, w), levels) in x.iter().zip(weights).zip(&levels) {
            for l in 0..L {
                let diff = this_scale[l] * levels[l] + this_min[l] - row[l];
                error[l] += w[l] * if search.magnitudes { diff.abs() } else { diff * diff };
            }
        }
        for l in 0..L {
            let better = solvable[l] && error[l] < best[l];
            best[l] = if better { error[l] } else { best[l] };
            scale[l] = if better { this_scale[l] } else { scale[l] };
            iscale[l] = if better { tried[l] } else { iscale[l] };
            offset[l] = if better { min[l] } else { offset[l] };
            // The next steps look from the better minimum on, as llama.cpp's do.
            min[l] = if better { this_min[l] } else { min[l] };
        }
    }
    for l in 0..L {
        scale[l] = if flat[l] { 0.0 } else { scale[l] };
        iscale[l] = if flat[l] { 0.0 } else { iscale[l] };
        min[l] = -(if flat[l] { lowest[l] } else { min[l] });
    }
    Affine { scale, min, iscale, offset }
}

impl<const L: usize> Affine<L> {
    /// Levels that go with stored scales `d` and minima `dm`; where a stored scale is 0, those of the search.
    #[inline(always)]
    pub(super) fn levels<const N: usize>(
        &self,
        x: &Group<N, L>,
        d: &[f32; L],
        dm: &[f32; L],
        nmax: i32,
    ) -> [[u8; L]; N] {
        let mut levels = [[0u8; L]; N];
        let lost = d.contains(&0.0);
        for (out, row) in levels.iter_mut().zip(x) {
            for l in 0..L {
                out[l] = clamped((row[l] + dm[l]) / d[l], 0, nmax) as u8;
            }
            if lost {
                for l in 0..L {
                    let searched = clamped(self.iscale[l] * (row[l] - self.offset[l]), 0, nmax) as u8;
                    out[l] = if d[l] == 0.0 { searched } else { out[l] };
                }
            }
        }
        levels
    }
}

/// Levels of `x / d` within `least ..= most`, less `least`; where `d` is 0, those of `searched`.
#[inline(always)]
pub(super) fn divided<const N: usize, const L: usize>(
    x: &Group<N, L>,
    d: &[f32; L],
    (least, most): (i32, i32),
    searched: impl FnOnce() -> [[i32; L]; N],
) -> [[u8; L]; N] {
    let mut levels = [[0u8; L]; N];
    for (out, row) in levels.iter_mut().zip(x) {
        for l in 0..L {
            out[l] = (clamped(row[l] / d[l], least, most) - least) as u8;
        }
    }
    if d.contains(&0.0) {
        for (out, searched) in levels.iter_mut().zip(searched()) {
            for l in 0..L {
                out[l] = if d[l] == 0.0 { searched[l] as u8 } else { out[l] };
            }
        }
    }
    levels
}

/// Levels in the order of the values.
#[inline(always)]
pub(super) fn in_order<const N: usize, const L: usize>(levels: &[[u8; L]; N]) -> [u8; SUPER] {
    let mut out = [0u8; SUPER];
    for (i, row) in levels.iter().enumerate() {
        for (l, level) in row.iter().enumerate() {
            out[l * N + i] = *level;
        }
    }
    out
}

/// Two bits a value: bytes of 32 columns, four values 32 apart in each, for each half of the super-block.
#[inline(always)]
pub(super) fn pairs_of_bits(levels: &[u8; SUPER], out: &mut [u8]) {
    for (levels, out) in levels.as_chunks::<128>().0.iter().zip(out.chunks_exact_mut(32)) {
        for (l, o) in out.iter_mut().enumerate() {
            *o = levels[l] | (levels[l + 32] << 2) | (levels[l + 64] << 4) | (levels[l + 96] << 6);
        }
    }
}

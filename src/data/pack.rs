//! Which sequences share a row of `max_seq_length` tokens. Boundaries stay: attention never crosses them
//! (`Batch::cu_seqlens`), so packing only saves the room that short sequences would waste.

use std::collections::BTreeSet;

/// Best fit, longest first (TRL's `packing_strategy = "bfd"`): each sequence goes where it leaves the least room.
/// `lengths` in tokens; one longer than `capacity` gets a pack of its own. Packs of indices into `lengths`.
pub fn best_fit_decreasing(lengths: &[usize], capacity: usize) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i as usize]));
    let mut packs: Vec<Vec<u32>> = Vec::new();
    // (room left, pack)
    let mut open: BTreeSet<(usize, usize)> = BTreeSet::new();
    for i in order {
        let length = lengths[i as usize];
        let (room, pack) = match open.range((length, 0)..).next().copied() {
            Some(found) => {
                open.remove(&found);
                found
            }
            None => {
                packs.push(Vec::new());
                (capacity.max(length), packs.len() - 1)
            }
        };
        packs[pack].push(i);
        if room > length {
            open.insert((room - length, pack));
        }
    }
    packs
}

/// In the order they come: a pack is closed when the next sequence does not fit.
pub fn in_order(lengths: &[usize], capacity: usize) -> Vec<Vec<u32>> {
    let mut packs: Vec<Vec<u32>> = Vec::new();
    let mut used = usize::MAX;
    for (i, &length) in lengths.iter().enumerate() {
        match packs.last_mut() {
            Some(pack) if used.saturating_add(length) <= capacity => {
                pack.push(i as u32);
                used += length;
            }
            _ => {
                packs.push(vec![i as u32]);
                used = length;
            }
        }
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(n: usize) -> Vec<usize> {
        (0..n as u64).map(|i| 1 + (i.wrapping_mul(2_654_435_761) >> 7) as usize % 64).collect()
    }

    fn check(packs: &[Vec<u32>], lengths: &[usize], capacity: usize) {
        let mut seen: Vec<u32> = packs.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len() as u32).collect::<Vec<_>>(), "nothing is dropped or doubled");
        for pack in packs {
            let total: usize = pack.iter().map(|&i| lengths[i as usize]).sum();
            assert!(total <= capacity || pack.len() == 1, "{total} tokens in a pack of {capacity}");
        }
    }

    #[test]
    fn no_pack_overflows_and_nothing_is_dropped() {
        for n in [0, 1, 2, 17, 500] {
            let lengths = lengths(n);
            check(&best_fit_decreasing(&lengths, 64), &lengths, 64);
            check(&in_order(&lengths, 64), &lengths, 64);
            check(&best_fit_decreasing(&lengths, 40), &lengths, 40);
        }
    }

    #[test]
    fn best_fit_is_close_to_full_and_order_is_kept_when_asked() {
        let lengths = lengths(500);
        let total: usize = lengths.iter().sum();
        let packs = best_fit_decreasing(&lengths, 64);
        assert!(packs.len() <= total.div_ceil(64) * 11 / 10, "{} packs for {total} tokens", packs.len());
        assert_eq!(in_order(&lengths, 64).concat(), (0..500).collect::<Vec<u32>>());
    }

    #[test]
    fn the_tightest_pack_that_still_fits_is_taken() {
        // TRL's docstring example: lengths 4, 2, 3, 1 into rows of 4.
        assert_eq!(best_fit_decreasing(&[4, 2, 3, 1], 4), [vec![0], vec![2, 3], vec![1]]);
    }
}

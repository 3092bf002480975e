//! This machine's time zone, for the clocks on the screen.

use std::mem::MaybeUninit;

/// Seconds east of UTC at a Unix time, by `TZ` or the system's zone; none where the system cannot say.
pub fn utc_offset(time: f64) -> Option<i32> {
    let time = time as libc::time_t;
    let mut parts = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are to live values of the right type; where the answer is not null, all of `parts` has been
    // written. It reads `TZ`, which this program never sets.
    let offset = unsafe {
        let filled = libc::localtime_r(&raw const time, parts.as_mut_ptr());
        if filled.is_null() {
            return None;
        }
        (*filled).tm_gmtoff
    };
    i32::try_from(offset).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_offset_is_one_that_a_place_on_earth_has() {
        let offset = super::utc_offset(1.7e9).unwrap();
        assert!((-12 * 3600..=14 * 3600).contains(&offset) && offset % 900 == 0, "{offset}");
    }
}

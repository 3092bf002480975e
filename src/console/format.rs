//! Numbers and durations as the screen writes them. Unknown is –, never 0.

/// What stands where a number is not known.
pub const UNKNOWN: &str = "–";

/// A loss: three decimals, four below 0.1; `NaN` as it is.
pub fn loss(v: f64) -> String {
    if v.is_nan() {
        "NaN".into()
    } else if !v.is_finite() {
        "inf".into()
    } else if v.abs() >= 100.0 {
        format!("{v:.1}")
    } else if v.abs() >= 0.1 || v == 0.0 {
        format!("{v:.3}")
    } else {
        format!("{v:.4}")
    }
}

/// A learning rate: `1.87e-4`; 0 as `0`.
pub fn rate(v: f64) -> String {
    if v == 0.0 { "0".into() } else { format!("{v:.2e}") }
}

pub use crate::recipe::guidance::thousands;

/// A number for an axis or a readout: as many decimals as its size needs, thousands separated.
pub fn plain(v: f64) -> String {
    let a = v.abs();
    if !v.is_finite() {
        loss(v)
    } else if a >= 1000.0 {
        format!("{}{}", if v < 0.0 { "-" } else { "" }, thousands(a.round() as u64))
    } else if a >= 100.0 {
        format!("{v:.0}")
    } else if a >= 10.0 {
        format!("{v:.1}")
    } else {
        format!("{v:.2}")
    }
}

/// Bytes as GiB with one decimal, without the unit.
pub fn gib(bytes: u64) -> String {
    let v = bytes as f64 / f64::from(1u32 << 30);
    if v >= 999.95 { thousands(v.round() as u64) } else { format!("{v:.1}") }
}

/// Bytes with their unit, for files: `462 MiB`.
pub fn bytes(b: u64) -> String {
    let v = b as f64;
    match b {
        0..1024 => format!("{b} B"),
        1024..1_048_576 => format!("{:.0} KiB", v / 1024.0),
        1_048_576..1_073_741_824 => {
            let m = v / 1_048_576.0;
            if m < 10.0 { format!("{m:.1} MiB") } else { format!("{m:.0} MiB") }
        }
        _ => format!("{:.1} GiB", v / 1_073_741_824.0),
    }
}

/// A count of parameters: `40.37M`.
pub fn parameters(n: u64) -> String {
    let v = n as f64;
    match n {
        0..1000 => n.to_string(),
        1000..1_000_000 => format!("{:.1}K", v / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}M", v / 1e6),
        _ => format!("{:.2}B", v / 1e9),
    }
}

/// A duration in two units: `18m 32s`, `1h 05m`, `2d 03h`, `42s`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return UNKNOWN.into();
    }
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// An age in one unit: `17 s`, `9 min`, `5 h`, `1 d`.
pub fn age(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

/// The time of an optimizer step: `1.38 s`, `84 ms`.
pub fn step_time(seconds: f64) -> String {
    if !seconds.is_finite() {
        UNKNOWN.into()
    } else if seconds < 0.1 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 100.0 {
        format!("{seconds:.2} s")
    } else {
        format!("{seconds:.0} s")
    }
}

/// The wall clock, `10:41`, at a Unix time, `offset` seconds east of UTC.
pub fn clock(time: f64, offset: i32) -> String {
    let s = (time as i64 + i64::from(offset)).rem_euclid(86_400);
    format!("{:02}:{:02}", s / 3600, s / 60 % 60)
}

/// An epoch: `0.34`, `1`, without trailing zeros beyond two decimals.
pub fn epoch(v: f64) -> String {
    let s = format!("{v:.2}");
    s.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Row numbers as a range where they are one: `6577–6592`, else the first few.
pub fn rows(rows: &[u32]) -> String {
    let Some((&first, &last)) = rows.first().zip(rows.last()) else { return UNKNOWN.into() };
    let run = rows.windows(2).all(|w| w[1] == w[0] + 1);
    if run && rows.len() > 1 {
        return format!("{first}–{last}");
    }
    let shown: Vec<_> = rows.iter().take(4).map(u32::to_string).collect();
    let more = if rows.len() > 4 { format!(" + {}", rows.len() - 4) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_the_drawings_write_them() {
        assert_eq!(loss(1.2841), "1.284");
        assert_eq!(loss(0.0431), "0.0431");
        assert_eq!(loss(f64::NAN), "NaN");
        assert_eq!(rate(1.87e-4), "1.87e-4");
        assert_eq!(thousands(11_862), "11,862");
        assert_eq!(thousands(100), "100");
        assert_eq!(gib(17 << 30), "17.0");
        assert_eq!(bytes(462 << 20), "462 MiB");
        assert_eq!(parameters(40_370_000), "40.37M");
        assert_eq!(duration(1112.0), "18m 32s");
        assert_eq!(duration(3900.0), "1h 05m");
        assert_eq!(duration(f64::NAN), UNKNOWN);
        assert_eq!(step_time(1.384), "1.38 s");
        assert_eq!(clock(38_460.0, 0), "10:41");
        assert_eq!(epoch(0.338), "0.34");
        assert_eq!(epoch(1.0), "1");
        assert_eq!(rows(&[6577, 6578, 6579]), "6577–6579");
        assert_eq!(rows(&[9, 2, 40, 7, 1, 3]), "9, 2, 40, 7 + 2");
    }
}

//! `strftime_now` for templates that write a date.

use minijinja::{Environment, Error, ErrorKind};
use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Let templates ask for `now`.
pub(super) fn add_to(env: &mut Environment<'static>, now: SystemTime) {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    env.add_function("strftime_now", move |format: String| strftime(seconds, &format));
}

/// C's `strftime` in the C locale, UTC. Directives that no template was seen to use are an error.
fn strftime(seconds: u64, format: &str) -> Result<String, Error> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (year, month, day) = civil(days);
    let weekday = ((days + 4) % 7) as usize;
    let first = days_before(year, month) + day;
    let twelve = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let plain = directive == Some('-');
        if plain {
            directive = chars.next();
        }
        let number = |n: u64, width: usize| if plain { n.to_string() } else { format!("{n:0width$}") };
        out.push_str(&match directive {
            Some('Y') => year.to_string(),
            Some('y') => number(year % 100, 2),
            Some('m') => number(month, 2),
            Some('d') => number(day, 2),
            Some('e') => format!("{day:2}"),
            Some('j') => number(first, 3),
            Some('H') => number(hour, 2),
            Some('I') => number(twelve, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second % 60, 2),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_string(),
            Some('A') => DAYS[weekday].to_string(),
            Some('a') => DAYS[weekday][..3].to_string(),
            Some('B') => MONTHS[(month - 1) as usize].to_string(),
            Some('b' | 'h') => MONTHS[(month - 1) as usize][..3].to_string(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{:02}", second % 60),
            Some('Z') => "UTC".to_string(),
            Some('z') => "+0000".to_string(),
            Some('s') => seconds.to_string(),
            Some('%') => "%".to_string(),
            other => {
                let what = format!("strftime_now: %{} is not supported", other.map(String::from).unwrap_or_default());
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        });
    }
    Ok(out)
}

/// Days since 1970-01-01 to year, month (1 to 12) and day (1 to 31).
fn civil(days: u64) -> (u64, u64, u64) {
    let (mut year, mut rest) = (1970, days);
    while rest >= 365 + leap(year) {
        rest -= 365 + leap(year);
        year += 1;
    }
    let month = (1..12).find(|m| rest < days_before(year, m + 1)).unwrap_or(12);
    (year, month, rest - days_before(year, month) + 1)
}

/// Days of a year before a month.
fn days_before(year: u64, month: u64) -> u64 {
    const LENGTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    LENGTHS.iter().take((month - 1) as usize).sum::<u64>() + if month > 2 { leap(year) } else { 0 }
}

fn leap(year: u64) -> u64 {
    u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_python() {
        // datetime.fromtimestamp(s, timezone.utc).strftime("%d %b %Y %A %j %H:%M:%S %I%p %-d/%-m/%y")
        for (seconds, expected) in [
            (0, "01 Jan 1970 Thursday 001 00:00:00 12AM 1/1/70"),
            (951_782_400, "29 Feb 2000 Tuesday 060 00:00:00 12AM 29/2/00"),
            (1_795_507_509, "24 Nov 2026 Tuesday 328 08:05:09 08AM 24/11/26"),
            (1_735_689_599, "31 Dec 2024 Tuesday 366 23:59:59 11PM 31/12/24"),
        ] {
            assert_eq!(strftime(seconds, "%d %b %Y %A %j %H:%M:%S %I%p %-d/%-m/%y").unwrap(), expected);
        }
        assert!(strftime(0, "%Q").is_err());
        assert!(strftime(0, "%").is_err());
    }
}

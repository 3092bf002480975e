//! The answer within a text, and whether it is the right one.

/// The part of a text that answers: what stands in the last `<answer>…</answer>`, after the last `####`, or in the last
/// `\boxed{…}`; else all that follows a thought.
pub fn within(text: &str) -> &str {
    let text = text.rsplit("</think>").next().unwrap_or(text);
    if let Some((_, after)) = text.rsplit_once("<answer>") {
        return after.split("</answer>").next().unwrap_or(after).trim();
    }
    if let Some((_, after)) = text.rsplit_once("####") {
        return after.lines().next().unwrap_or(after).trim();
    }
    if let Some((_, after)) = text.rsplit_once("\\boxed{") {
        let mut depth = 1;
        for (i, c) in after.char_indices() {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            if depth == 0 {
                return after[..i].trim();
            }
        }
    }
    text.trim()
}

/// Whether the completion's answer is the expected one, letter for letter.
pub fn exact(completion: &str, expected: &str) -> bool {
    within(completion) == within(expected)
}

/// Whether the last number of the completion's answer is that of the expected one; `None` where that has none.
/// `tolerance` is a share of the expected number (and absolute below 1).
pub fn numeric(completion: &str, expected: &str, tolerance: f64) -> Option<bool> {
    let want = last_number(within(expected))?;
    let right = |got: f64| (got - want).abs() <= tolerance * want.abs().max(1.0);
    Some(last_number(within(completion)).is_some_and(right))
}

/// The last number in a text: sign, digits with thousands commas, a fraction.
fn last_number(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let mut found = None;
    let mut i = 0;
    while i < bytes.len() {
        if !bytes[i].is_ascii_digit() {
            i += 1;
            continue;
        }
        let start = i;
        let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        while digit(i) || (matches!(bytes.get(i), Some(b',')) && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
            i += 1;
        }
        if bytes.get(i) == Some(&b'.') && digit(i + 1) {
            i += 1;
            while digit(i) {
                i += 1;
            }
        }
        // A minus that does not subtract: nothing, or no digit, before it.
        let lead = text[..start].strip_suffix('-');
        let negative = lead.is_some_and(|b| !b.trim_end().ends_with(|c: char| c.is_ascii_digit() || c == ')'));
        if let Ok(n) = text[start..i].replace(',', "").parse::<f64>() {
            found = Some(if negative { -n } else { n });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_found_in_the_fields_own_spellings() {
        for (text, answer) in [
            ("<think>2+2 is 5? no</think> 4 ", "4"),
            ("so <answer> 12 </answer> done", "12"),
            ("She has 3 left.\n#### 3", "3"),
            ("thus \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
            ("  plain ", "plain"),
        ] {
            assert_eq!(within(text), answer, "{text}");
        }
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        for (completion, expected, right) in [
            ("The answer is 1,234.50", "1234.5", true),
            ("3 + 4 = 7", "7", true),
            ("7 - 4", "4", true),
            ("it is -4.", "-4", true),
            ("it is 4", "-4", false),
            ("no number", "4", false),
            ("about 10.0001", "10", false),
        ] {
            assert_eq!(numeric(completion, expected, 1e-6), Some(right), "{completion}");
        }
        assert_eq!(numeric("3", "three", 1e-6), None);
    }
}

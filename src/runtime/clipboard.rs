//! Text to the clipboard of the terminal that a person sits at, over SSH too.
//!
//! Inside tmux `tmux load-buffer -w -` (tmux then passes it on); otherwise OSC 52.

use std::io::Write;
use std::process::{Command, Stdio};

/// What became of a copy.
#[derive(Debug, PartialEq, Eq)]
pub enum Copied {
    /// Done, by another program.
    Tmux,
    /// These bytes must go to the terminal.
    Send(String),
}

/// Copies `text`; terminals cap what they take by OSC 52, so a long text is worth saying.
pub fn copy(text: &str) -> Copied {
    if std::env::var_os("TMUX").is_some() && tmux(text) { Copied::Tmux } else { Copied::Send(osc52(text)) }
}

fn tmux(text: &str) -> bool {
    let child = Command::new("tmux")
        .args(["load-buffer", "-w", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let written = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(text.as_bytes()).is_ok());
    child.wait().is_ok_and(|status| status.success()) && written
}

/// OSC 52 with the clipboard selection, ended by ST.
fn osc52(text: &str) -> String {
    format!("\x1b]52;c;{}\x1b\\", base64(text.as_bytes()))
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, &b| w << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = (word >> (18 - 6 * i)) as usize & 63;
            out.push(if i <= chunk.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_standard() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in vectors {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_copy_is_an_osc_52_sequence() {
        assert_eq!(osc52("loss"), "\x1b]52;c;bG9zcw==\x1b\\");
    }
}

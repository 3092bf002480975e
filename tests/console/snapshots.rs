//! What a person sees, as text, at the sizes of the specification.

use crate::fixture;
use finetop::console::snapshot;
use finetop::console::theme::Theme;

#[test]
fn print() {
    println!("{}", snapshot(&fixture::illustration(Theme::ansi(), 160, 48), 160, 48));
}

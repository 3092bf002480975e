//! The command palette: what is typed there, and what it chooses.

use super::key::Key;
use super::message::Effect;
use super::model::Model;

/// A key while the palette is open: text, a choice, or Esc.
pub fn press(m: &mut Model, key: Key) -> Vec<Effect> {
    if key == Key::Esc {
        m.pages.pop();
    }
    Vec::new()
}

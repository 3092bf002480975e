//! What the terminal reports, as messages. Must not know what a key does.

use crossterm::event::{Event, MouseButton, MouseEvent, MouseEventKind};

use crate::console::Message;
use crate::console::key::Key;
use crate::console::message::Mouse;

/// The message of a terminal event; `None` where it means nothing here.
pub fn message(event: Event) -> Option<Message> {
    Some(match event {
        Event::Key(key) => Message::Key(Key::of(&key)?),
        Event::Mouse(mouse) => Message::Mouse(of_mouse(mouse)?),
        Event::Paste(text) => Message::Paste(text),
        // Nothing is drawn on nothing; the terminal says its size again when it has one.
        Event::Resize(0, _) | Event::Resize(_, 0) => return None,
        Event::Resize(width, height) => Message::Resize { width, height },
        Event::FocusGained => Message::Focus(true),
        Event::FocusLost => Message::Focus(false),
    })
}

fn of_mouse(MouseEvent { kind, column, row, .. }: MouseEvent) -> Option<Mouse> {
    match kind {
        MouseEventKind::Down(MouseButton::Left) => Some(Mouse::Click { column, row }),
        MouseEventKind::ScrollUp => Some(Mouse::WheelUp { column, row }),
        MouseEventKind::ScrollDown => Some(Mouse::WheelDown { column, row }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

    #[test]
    fn a_key_is_a_message_and_its_release_is_none() {
        let press = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        assert_eq!(message(Event::Key(press)), Some(Message::Key(Key::Char('q'))));
        let release = KeyEvent { kind: KeyEventKind::Release, ..press };
        assert_eq!(message(Event::Key(release)), None);
    }

    #[test]
    fn a_mouse_that_only_moves_says_nothing() {
        let moved = MouseEvent { kind: MouseEventKind::Moved, column: 3, row: 4, modifiers: KeyModifiers::NONE };
        assert_eq!(message(Event::Mouse(moved)), None);
        let down = MouseEvent { kind: MouseEventKind::Down(MouseButton::Left), ..moved };
        assert_eq!(message(Event::Mouse(down)), Some(Message::Mouse(Mouse::Click { column: 3, row: 4 })));
    }
}

//! The page of a new run: rows, goal, model, and what the rows can serve.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use tui_input::Input;

use super::chrome::{self, put, wrap};
use crate::console::model::Model;
use crate::console::new_page::Field;

/// The column in which values begin.
const VALUE: u16 = 12;

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    let (t, page) = (&m.theme, &m.new);
    let (left, right) = (area.x + 4, area.right().saturating_sub(1));
    let roomy = area.height >= 18;
    chrome::rule(buf, Rect { height: 1, ..area }, "new run", "a recipe for your rows", true, t);
    let bottom = area.bottom().saturating_sub(chrome::FOOTER);
    let mut y = area.y + 1 + u16::from(roomy);
    field(m, buf, left, y, right, "rows", &page.data, page.field == Field::Data);
    y += 1;
    let about = match (&page.busy, &page.looked) {
        (Some(busy), _) => format!("{busy} …"),
        (None, Some(found)) if found.data == page.data.value().trim() => found.about.clone(),
        _ => "a file or a folder (.jsonl, .json, .csv, .parquet, .txt), or hf:OWNER/NAME; enter reads them".into(),
    };
    put(buf, left + VALUE, y, right, &about, t.dim);
    y += 1 + u16::from(roomy);
    if let Some(found) = &page.looked {
        let focused = page.field == Field::Goal;
        put(buf, left, y, right, "goal", if focused { t.focus() } else { t.text });
        for (i, goal) in found.goals.iter().enumerate() {
            if y >= bottom {
                return;
            }
            let chosen = i == page.goal;
            if chosen {
                put(buf, left + VALUE - 2, y, right, "▸", if focused { t.focus() } else { t.text });
            }
            let (sign, style) = if goal.serves { ("✓", t.pass) } else { ("✕", t.error) };
            let x = put(buf, left + VALUE, y, right, sign, style) + 1;
            let name = if chosen && focused { t.focus() } else { t.strong() };
            put(buf, x, y, right, &goal.name, name);
            let x = x + 7;
            put(buf, x, y, right, &goal.good_for, if goal.serves { t.text } else { t.dim });
            y += 1;
            // Why not is said of the goal that is looked at, in full where there is room.
            if chosen || area.width >= 140 {
                let lines = wrap(&goal.words, right.saturating_sub(x));
                for line in lines.iter().take(if chosen { 3 } else { 1 }) {
                    if y < bottom {
                        put(buf, x, y, right, line, t.dim);
                        y += 1;
                    }
                }
            }
        }
        y += u16::from(roomy);
    }
    if y < bottom {
        field(m, buf, left, y, right, "model", &page.model, page.field == Field::Model);
    }
    if y + 1 < bottom {
        put(buf, left + VALUE, y + 1, right, "a folder, a .gguf file, OWNER/NAME of the hub, ollama:NAME", t.dim);
    }
    let enter = match page.field {
        Field::Data => "read the rows",
        Field::Goal => "take this goal",
        Field::Model => "write the recipe",
    };
    let keys = [("enter".to_string(), enter), ("tab".to_string(), "field")];
    chrome::footer(buf, area, &keys, &[("esc".to_string(), "back")], t);
}

#[allow(clippy::too_many_arguments)]
fn field(m: &Model, buf: &mut Buffer, x: u16, y: u16, right: u16, name: &str, input: &Input, focused: bool) {
    let t = &m.theme;
    put(buf, x, y, right, name, if focused { t.focus() } else { t.text });
    let at = x + VALUE;
    let room = usize::from(right.saturating_sub(at + 1));
    // A long path is shown by its end, where it is typed.
    let scroll = input.visual_scroll(room.max(1));
    let shown: String = input.value().chars().skip(scroll).collect();
    put(buf, at, y, right, &shown, t.text);
    let cursor = at + input.visual_cursor().saturating_sub(scroll) as u16;
    if focused && cursor < right {
        let under = input.value().chars().nth(input.cursor()).unwrap_or(' ').to_string();
        buf.set_stringn(cursor, y, under, 1, t.accent.add_modifier(Modifier::REVERSED));
    }
}

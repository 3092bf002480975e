//! The console's own signs in ASCII, for terminals without UTF-8 (`FINETOP_ASCII`). What a model or a person
//! wrote is left as it is.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Replaces every sign of the console's in the area by an ASCII one of the same width.
pub fn degrade(buf: &mut Buffer, area: Rect) {
    for y in area.y..area.bottom() {
        for x in area.x..area.right() {
            let Some(cell) = buf.cell_mut((x, y)) else { continue };
            let mut chars = cell.symbol().chars();
            if let (Some(c), None) = (chars.next(), chars.next())
                && let Some(ascii) = sign(c)
            {
                cell.set_char(ascii);
            }
        }
    }
}

fn sign(c: char) -> Option<char> {
    Some(match c {
        '─' | '–' => '-',
        '━' | '╸' | '█' => '=',
        '░' => '.',
        '▌' | '│' => '|',
        '└' | '┴' => '+',
        '●' | '○' | '◆' => '*',
        '△' | '▲' => '!',
        '✕' => 'x',
        '✓' => 'v',
        '■' | '‖' => '#',
        '▸' | '›' | '→' | '▹' => '>',
        '◂' | '←' => '<',
        '↓' => 'v',
        '↑' => '^',
        '·' | '•' => '.',
        '×' => 'x',
        '…' => '~',
        '⏎' => '/',
        '▁' => '_',
        '▂' | '▃' => '.',
        '▄' | '▅' => 'o',
        '▆' | '▇' => 'O',
        _ => return None,
    })
}

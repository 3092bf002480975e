//! What a person sees, as text, at the sizes of the specification, and that no size breaks it.

use crate::fixture;
use finetop::console::key::Key;
use finetop::console::message::Message;
use finetop::console::model::Model;
use finetop::console::theme::{Glyphs, Theme};
use finetop::console::{snapshot, update};

fn see(m: &Model) -> String {
    snapshot(m, m.width, m.height)
}

fn press(m: &mut Model, keys: &str) {
    for key in keys.split(' ') {
        update(m, Message::Key(Key::parse(key).unwrap()));
    }
}

#[test]
fn the_illustration_at_160x48() {
    insta::assert_snapshot!(see(&fixture::illustration(Theme::ansi(), 160, 48)));
}

#[test]
fn the_illustration_at_120x40() {
    insta::assert_snapshot!(see(&fixture::illustration(Theme::ansi(), 120, 40)));
}

#[test]
fn the_illustration_at_80x24() {
    insta::assert_snapshot!(see(&fixture::illustration(Theme::ansi(), 80, 24)));
}

#[test]
fn the_illustration_at_40x12() {
    insta::assert_snapshot!(see(&fixture::illustration(Theme::ansi(), 40, 12)));
}

#[test]
fn the_illustration_at_200x60() {
    insta::assert_snapshot!(see(&fixture::illustration(Theme::ansi(), 200, 60)));
}

#[test]
fn the_demo_when_eval_turns_up() {
    insta::assert_snapshot!(see(&fixture::demo_console(100, false, Theme::ansi(), 160, 48)));
}

#[test]
fn the_demo_after_its_fix() {
    insta::assert_snapshot!(see(&fixture::demo_console(100, true, Theme::ansi(), 80, 24)));
}

#[test]
fn each_tab_at_80x24() {
    let mut out = String::new();
    for tab in ["2", "3", "4", "5"] {
        let mut m = fixture::illustration(Theme::ansi(), 80, 24);
        press(&mut m, tab);
        out.push_str(&see(&m));
    }
    insta::assert_snapshot!(out);
}

#[test]
fn in_ascii_no_sign_of_ours_is_left() {
    let mut m = fixture::illustration(Theme { glyphs: Glyphs::Ascii, ..Theme::ansi() }, 120, 40);
    press(&mut m, "left");
    let text = see(&m);
    let left: Vec<char> = text.chars().filter(|c| !c.is_ascii() && *c != '°').collect();
    assert!(left.is_empty(), "{left:?}\n{text}");
}

#[test]
fn what_must_always_be_seen_is_seen_at_every_size() {
    for (width, height) in
        [(40, 12), (48, 20), (60, 16), (72, 22), (80, 24), (100, 30), (120, 40), (159, 47), (160, 48), (220, 70)]
    {
        let text = see(&fixture::illustration(Theme::ansi(), width, height));
        for word in ["●", "412/1,218", "18m 3", "1.284", "1.313", "1.47e-4", "12,036", "17.0", "79.6", "▲"] {
            assert!(text.contains(word), "{word} is missing at {width}x{height}:\n{text}");
        }
    }
}

#[test]
fn no_size_panics_whatever_is_shown() {
    let scenes = [
        fixture::illustration(Theme::ansi(), 80, 24),
        fixture::demo_console(100, true, Theme::plain(), 80, 24),
        fixture::console(Vec::new(), fixture::RECIPE, Theme::ansi(), 80, 24),
        fixture::console(fixture::support(1), "not a recipe", Theme::ansi(), 80, 24),
    ];
    for scene in scenes {
        for keys in ["1", "2", "3", "4", "5", "1 left + x", "4 z d", "5 enter", "1 m y", "4 i", "2 p"] {
            let mut m = scene.clone();
            press(&mut m, keys);
            for width in (1..=221).step_by(15) {
                for height in (1..=71).step_by(10) {
                    (m.width, m.height) = (width, height);
                    see(&m);
                }
            }
        }
    }
}

#[test]
fn a_hundred_thousand_steps_draw_in_a_moment() {
    let mut events = fixture::support(2);
    let mut noise = fixture::Noise::new(1);
    let body = |n: u64, noise: &mut fixture::Noise| fixture::step(n, 1.0 + 0.1 * noise.draw(), 1.0, 1e-4, 0.5, noise);
    events.extend((3..100_000).map(|n| fixture::at(fixture::BEGAN + n as f64, n, body(n, &mut noise))));
    let m = fixture::console(events, fixture::RECIPE, Theme::ansi(), 160, 48);
    let began = std::time::Instant::now();
    for _ in 0..10 {
        see(&m);
    }
    println!("{:?} a frame", began.elapsed() / 10);
    // A frame may take 125 ms over SSH; four times that allows for a debug build on a busy machine.
    assert!(began.elapsed().as_millis() < 5000, "{:?} for ten frames", began.elapsed());
}

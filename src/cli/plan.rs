//! `finetop plan`: what a training will hold, by component, and how large its batches and sequences can be.

use super::args::PlanArgs;
use super::output;
use crate::Result;
use crate::data::of_recipe;
use crate::memory::card::{self, Card, Keep};
use crate::memory::{self, Estimate, Local, Shape, Telemetry as _};
use crate::model::loading::Opened;
use crate::model::source::{self, Need};
use crate::recipe::{self, Recipe};
use crate::run::summary::thousands;
use serde_json::{Value, json};

pub fn run(args: &PlanArgs) -> Result<()> {
    let loaded = recipe::load(&args.recipe, &args.set)?;
    let found = source::resolve_saying(&loaded.recipe.model.name_or_path, Need::Description, &mut output::progress)?;
    let opened = Opened::open(&found)?;
    // The rows may not be there yet; a plan does not need them.
    let (longest, note) = match of_recipe::read(&loaded.recipe, &opened) {
        Ok(rows) => (rows.prepared.train.iter().chain(&rows.prepared.eval).map(|e| e.ids.len()).max(), None),
        Err(e) => (None, Some(format!("the rows cannot be read, so each is taken at the full length: {e}"))),
    };
    let (shape, recipe) = (opened.shape(), &loaded.recipe);
    // A card trains adapters; `--vram` speaks of one, whether it is here or not.
    let card_wanted = recipe.lora.is_some() && recipe.model.device != "cpu";
    let vram = args.vram.or_else(free_on_a_card).filter(|_| card_wanted);
    let plan = match vram {
        Some(vram) => Plan::on_a_card(recipe, &shape, longest, vram),
        None => Plan::of(recipe, &shape, longest, args.vram.or_else(free_here)),
    };
    if let Some(note) = note {
        output::progress(&format!("note: {note}"));
    }
    if args.json { output::print_json(&plan.json()) } else { output::print(&plan.text(args.vram.is_some())) }
}

/// What a training here could hold now.
fn free_here() -> Option<u64> {
    let now = Local::new().read();
    now.available.map(|free| free + now.used.unwrap_or(0))
}

/// What is free on the first card that may be used.
fn free_on_a_card() -> Option<u64> {
    let card = Local::new().read().cards.into_iter().next()?;
    card.memory_total?.checked_sub(card.memory_used?)
}

/// `24GiB`, `24GB`, `24g` or `24`: all are GiB, as cards are sold by; `512MiB` and `512m` are MiB.
pub fn size(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim().to_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].trim() {
        "" | "g" | "gb" | "gib" => 30,
        "m" | "mb" | "mib" => 20,
        _ => return Err("write a size such as 24GiB or 512MiB".into()),
    };
    match digits.trim().parse::<f64>() {
        Ok(n) if n > 0.0 && n < 1e6 => Ok((n * (1u64 << shift) as f64) as u64),
        _ => Err("write a size such as 24GiB or 512MiB".into()),
    }
}

struct Plan<'a> {
    recipe: &'a Recipe,
    estimate: Estimate,
    longest: Option<usize>,
    room: Option<u64>,
    /// How a card would go about it, where it is one.
    card: Option<card::Plan>,
    /// The largest value that fits, and whether activations are then computed again.
    batch: Option<(usize, bool)>,
    sequence: Option<(usize, bool)>,
}

impl<'a> Plan<'a> {
    fn of(recipe: &'a Recipe, shape: &Shape, longest: Option<usize>, room: Option<u64>) -> Self {
        let again = memory::recomputes(recipe, shape, longest, room);
        Plan {
            recipe,
            estimate: memory::estimate(recipe, shape, longest, again),
            longest,
            room,
            card: None,
            batch: room.and_then(|room| memory::largest_batch(recipe, shape, longest, room)),
            sequence: room.and_then(|room| memory::largest_sequence(recipe, shape, room)),
        }
    }

    fn on_a_card(recipe: &'a Recipe, shape: &Shape, longest: Option<usize>, vram: u64) -> Self {
        let on = Card { shape, recipe, longest };
        // Where nothing fits, what takes least shows how far off it is.
        let (plan, estimate) = on.plan(vram).unwrap_or_else(|_| on.smallest());
        Plan {
            recipe,
            estimate,
            longest,
            room: Some(vram),
            card: Some(plan),
            batch: card::largest_batch(on, vram),
            sequence: card::largest_sequence(on, vram),
        }
    }

    /// What a card's blocks keep, in words.
    fn keeps(&self) -> Option<String> {
        let plan = self.card.as_ref()?;
        let count = |keep| plan.keep.iter().filter(|k| **k == keep).count();
        let parts = [
            (Keep::Everything, "everything"),
            (Keep::Attention, "all but the MLP's inside"),
            (Keep::Input, "their input"),
        ];
        let kept: Vec<String> =
            parts.iter().filter(|p| count(p.0) > 0).map(|p| format!("{} {}", count(p.0), p.1)).collect();
        let place = if plan.offload { "; inputs wait on the host" } else { "" };
        Some(format!("blocks keep {}{place}", kept.join(", ")))
    }

    fn row(&self) -> usize {
        let full = self.recipe.model.max_seq_length;
        if self.recipe.train.packing { full } else { self.longest.map_or(full, |l| l.min(full)) }
    }

    fn text(&self, asked: bool) -> String {
        let t = &self.recipe.train;
        let kept = |again| if again { "computed again" } else { "kept" };
        let tuning = self.recipe.lora.as_ref().map_or("full".to_string(), |l| format!("lora r{}", l.r));
        let mut out = vec![
            format!(
                "{}, {tuning}, batch {} of {} tokens; {}",
                self.recipe.model.name_or_path,
                t.per_device_train_batch_size,
                thousands(self.row() as u64),
                match (self.keeps(), &self.recipe.model) {
                    (Some(keeps), m) => {
                        let held = match (m.load_in_4bit, m.load_in_fp8) {
                            (true, _) => "4 bits",
                            (false, true) => "fp8, both ways",
                            (false, false) => "16 bits",
                        };
                        format!("on a card, frozen weights in {held}; {keeps}")
                    }
                    (None, _) => format!("as the CPU engine holds it; activations {}", kept(self.estimate.recomputes)),
                }
            ),
            String::new(),
            format!("{:<24}{:>10}", "MiB", "estimate"),
        ];
        let mib = |bytes: u64| thousands((bytes as f64 / 1_048_576.0).round() as u64);
        out.extend(self.estimate.components.iter().map(|(name, bytes)| format!("{name:<24}{:>10}", mib(*bytes))));
        out.push(format!("{:<24}{:>10}", "total", mib(self.estimate.total())));
        out.push(String::new());
        let Some(room) = self.room else {
            out.push("how much memory is free here is not known; say it with --vram 24GiB".into());
            return out.join("\n");
        };
        let place = if asked { "as asked" } else { "free here" };
        let spare = if self.card.is_some() { "3 % of it stay free" } else { "a tenth of it stays free" };
        out.push(format!("{:<24}{:>10}   {place}; {spare}", "room", mib(room)));
        let largest = |found: Option<(usize, bool)>, beside: String| match found {
            Some((n, again)) => format!("{:>10}   {beside}, activations {}", thousands(n as u64), kept(again)),
            None => format!("{:>10}   not even 1 fits {beside}", "–"),
        };
        let row = thousands(self.row() as u64);
        let size = t.per_device_train_batch_size;
        out.push(format!("{:<24}{}", "largest batch", largest(self.batch, format!("of {row} tokens each"))));
        out.push(format!(
            "{:<24}{}",
            "largest max_seq_length",
            largest(self.sequence, format!("in a batch of {size}"))
        ));
        out.join("\n")
    }

    fn json(&self) -> Value {
        let parts = self.estimate.components.iter().map(|(name, bytes)| json!({"name": name, "bytes": bytes}));
        let largest = |found: Option<(usize, bool)>| found.map(|(n, again)| json!({"value": n, "recomputes": again}));
        json!({
            "model": self.recipe.model.name_or_path,
            "batch": self.recipe.train.per_device_train_batch_size,
            "row_tokens": self.row(),
            "longest_row": self.longest,
            "recomputes": self.estimate.recomputes,
            "components": parts.collect::<Vec<_>>(),
            "total": self.estimate.total(),
            "room": self.room,
            "device": if self.card.is_some() { "cuda" } else { "cpu" },
            "blocks": self.keeps(),
            "fits": self.room.map(|room| match self.card {
                Some(_) => self.estimate.total() <= room,
                None => memory::fits(&self.estimate, room),
            }),
            "largest_batch": largest(self.batch),
            "largest_sequence": largest(self.sequence),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("24GiB"), Ok(24 << 30));
        assert_eq!(size("24 GB"), Ok(24 << 30));
        assert_eq!(size("1.5g"), Ok(3 << 29));
        assert_eq!(size("80"), Ok(80 << 30));
        assert_eq!(size("512MiB"), Ok(512 << 20));
        for wrong in ["", "GiB", "24KiB", "-1GiB", "0", "nan"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_fits_is_the_estimators_and_less_room_gives_less() {
        let recipe = recipe::load("demo", &[]).unwrap().recipe;
        let opened = Opened::open(&source::resolve("demo").unwrap()).unwrap();
        let shape = opened.config().shape();
        let (small, large) =
            (Plan::of(&recipe, &shape, Some(60), Some(200 << 20)), Plan::of(&recipe, &shape, Some(60), Some(2 << 30)));
        assert_eq!(
            small.estimate.total(),
            memory::estimate(&recipe, &shape, Some(60), small.estimate.recomputes).total()
        );
        assert!(small.batch.unwrap().0 < large.batch.unwrap().0);
        let text = large.text(true);
        assert!(text.contains("batch 8 of 60 tokens") && text.contains("largest max_seq_length"), "{text}");
        assert!(large.json()["fits"].as_bool().unwrap());
        let none = Plan::of(&recipe, &shape, Some(60), Some(1 << 20));
        assert!(
            none.text(true).contains("not even 1 fits") && none.json()["fits"] == json!(false),
            "{}",
            none.text(true)
        );
        assert!(Plan::of(&recipe, &shape, None, None).text(false).contains("--vram"));
    }

    #[test]
    fn a_card_s_plan_fits_into_it_and_a_larger_card_holds_larger_batches() {
        let recipe = recipe::load("demo", &[]).unwrap().recipe;
        let opened = Opened::open(&source::resolve("demo").unwrap()).unwrap();
        let shape = opened.config().shape();
        let of = |gib: u64| Plan::on_a_card(&recipe, &shape, Some(60), gib << 30);
        let (small, large) = (of(1), of(8));
        assert!(small.estimate.total() <= 1 << 30 && small.batch.unwrap().0 <= large.batch.unwrap().0);
        let text = large.text(true);
        assert!(text.contains("on a card") && text.contains("blocks keep ") && text.contains("CUDA context"), "{text}");
        let none = Plan::on_a_card(&recipe, &shape, Some(60), 100 << 20);
        assert!(
            none.batch.is_none() && none.text(true).contains("not even 1 fits") && none.json()["fits"] == json!(false)
        );
    }
}

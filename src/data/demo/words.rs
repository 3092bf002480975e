//! The words of the demo's small world, and the casts that texts are filled in from.

use super::random::Random;

pub const NAMES: &[&str] = &[
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Karin", "Leo", "Maria", "Noah",
    "Olga", "Paul", "Rosa", "Simon", "Tess", "Victor", "Wanda", "Yusuf", "Zoe", "Oscar", "Lena", "Milan", "Nora",
    "Otto", "Petra", "Sam",
];
pub const CITIES: &[&str] = &[
    "Lisbon", "Oslo", "Paris", "Rome", "Vienna", "Madrid", "Berlin", "Dublin", "Prague", "Athens", "Zurich", "Bergen",
    "Porto", "Geneva", "Krakow", "Turin", "Boston", "Quito", "Kyoto", "Cairo",
];
pub const ROOMS: &[&str] = &[
    "kitchen", "bedroom", "bathroom", "hallway", "garage", "office", "cellar", "attic", "library", "garden", "nursery",
    "studio",
];
pub const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
pub const DISHES: &[&str] = &[
    "pasta", "rice", "bread", "soup", "eggs", "tea", "pizza", "cake", "potatoes", "stew", "beans", "pie", "lentils",
    "porridge", "noodles", "roast",
];
pub const ITEMS: &[&str] = &[
    "milk",
    "butter",
    "apples",
    "coffee",
    "sugar",
    "salt",
    "flour",
    "onions",
    "cheese",
    "soap",
    "candles",
    "batteries",
    "lemons",
    "honey",
    "carrots",
    "paper",
    "string",
    "nails",
    "paint",
    "matches",
    "oranges",
    "yogurt",
    "vinegar",
    "plums",
];
pub const LISTS: &[&str] = &["shopping", "travel", "party", "school", "work", "weekend", "camping", "birthday"];
pub const GENRES: &[&str] =
    &["jazz", "folk", "blues", "piano", "opera", "swing", "soul", "rock", "tango", "flute", "choir", "guitar"];
pub const TITLES: &[&str] = &[
    "dentist",
    "lunch",
    "meeting",
    "football",
    "concert",
    "haircut",
    "dinner",
    "rehearsal",
    "interview",
    "picnic",
    "swimming",
    "chess",
    "yoga",
    "breakfast",
    "inspection",
    "lecture",
];
pub const TEXTS: &[&str] = &[
    "the bus is late",
    "dinner is ready",
    "the train is on time",
    "the keys are here",
    "lunch is at noon",
    "the shop is closed",
    "the parcel is here",
    "the car is fixed",
    "the meeting is over",
    "the boat is full",
    "the door is open",
    "the water is cold",
    "practice is cancelled",
    "the tickets are sold out",
    "the cat is home",
    "the show starts soon",
];
pub const COLOURS: &[&str] = &["red", "blue", "green", "yellow", "black", "white", "brown", "grey"];
pub const THINGS: &[&str] = &[
    "boat", "bicycle", "coat", "lamp", "kite", "umbrella", "suitcase", "clock", "drum", "hat", "ladder", "basket",
    "violin", "camera", "tent", "chair",
];
pub const SKIES: &[&str] = &["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "stormy", "clear"];
pub const ANIMALS: &[&str] = &["cat", "dog", "horse", "goat", "parrot", "rabbit", "duck", "donkey", "fox", "turtle"];
pub const JOBS: &[&str] =
    &["baker", "teacher", "painter", "doctor", "farmer", "sailor", "tailor", "singer", "pilot", "nurse"];

const MINUTES: &[&str] = &[
    "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "14", "15", "16", "18", "20", "22", "25", "27", "30",
    "35", "40", "45", "50", "55",
];
pub const LEVELS: &[&str] =
    &["5", "10", "15", "20", "25", "30", "35", "40", "45", "50", "55", "60", "65", "70", "75", "80", "85", "90", "95"];

/// Who and what one text is about: every `{slot}` keeps its value to the end of the text, so that a reader can copy.
#[derive(Debug, Clone)]
pub struct Cast {
    slots: Vec<(&'static str, String)>,
}

impl Cast {
    pub fn draw(r: &mut Random) -> Self {
        let mut slots = Vec::with_capacity(32);
        for (one, two, three, from) in [
            ("name", "name2", "name3", NAMES),
            ("city", "city2", "", CITIES),
            ("room", "room2", "", ROOMS),
            ("day", "day2", "", DAYS),
            ("dish", "dish2", "", DISHES),
            ("item", "item2", "item3", ITEMS),
            ("list", "", "", LISTS),
            ("genre", "genre2", "", GENRES),
            ("title", "title2", "", TITLES),
            ("text", "", "", TEXTS),
            ("colour", "colour2", "", COLOURS),
            ("thing", "thing2", "", THINGS),
            ("sky", "sky2", "", SKIES),
            ("animal", "", "", ANIMALS),
            ("job", "job2", "", JOBS),
            ("n", "m", "", MINUTES),
            ("level", "level2", "", LEVELS),
        ] {
            // Different values for the slots of one kind.
            let mut taken: Vec<&str> = Vec::new();
            for slot in [one, two, three].into_iter().filter(|s| !s.is_empty()) {
                let value = loop {
                    let v = r.pick(from);
                    if !taken.contains(&v) {
                        break v;
                    }
                };
                taken.push(value);
                slots.push((slot, value.to_string()));
            }
        }
        for slot in ["time", "time2"] {
            slots.push((slot, time(r)));
        }
        Self { slots }
    }

    /// The same, but in 40 of 100 the slots that name something hold a word that nobody has seen before. A model cannot
    /// know such a word: it has to look where it stood. This is what teaches a small model to copy, and soon.
    pub fn draw_open(r: &mut Random) -> Self {
        let mut cast = Self::draw(r);
        for (slot, value) in &mut cast.slots {
            let kind = slot.trim_end_matches(['2', '3']);
            if OPEN.contains(&kind) && r.chance(40) {
                *value = made_up(r);
                if PROPER.contains(&kind) {
                    *value = capital(value);
                }
            }
        }
        cast
    }

    /// The value of a slot; empty where there is none of that name (a test looks at every template).
    pub fn get(&self, slot: &str) -> &str {
        self.slots.iter().find(|(s, _)| *s == slot).map_or("", |(_, v)| v)
    }

    pub fn set(&mut self, slot: &'static str, value: &str) {
        self.slots.retain(|(s, _)| *s != slot);
        self.slots.push((slot, value.to_string()));
    }

    /// `template` with each `{slot}` replaced; `{{` and `}}` stand for braces.
    pub fn fill(&self, template: &str) -> String {
        let mut out = String::with_capacity(template.len() + 32);
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                out.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                out.push('}');
                rest = after;
            } else if let Some(end) = from.find('}') {
                out.push_str(self.get(&from[1..end]));
                rest = &from[end + 1..];
            } else {
                out.push_str(from);
                rest = "";
            }
        }
        out.push_str(rest);
        out
    }
}

/// Slots that may hold a made-up word, and those of them that are written with a capital.
const OPEN: &[&str] = &["name", "city", "dish", "item", "genre", "title", "thing", "animal", "room", "list", "day"];
const PROPER: &[&str] = &["name", "city", "day"];

/// A word of two to four syllables that is in no list.
pub fn made_up(r: &mut Random) -> String {
    const START: &[&str] =
        &["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "gr", "st", "tr"];
    const VOWEL: &[&str] = &["a", "e", "i", "o", "u"];
    const END: &[&str] = &["", "", "n", "r", "l", "s", "t"];
    let mut word = String::new();
    for _ in 0..2 + usize::from(r.chance(67)) {
        word.push_str(r.pick(START));
        word.push_str(r.pick(VOWEL));
    }
    word + r.pick(END)
}

/// Any word of the lists, or, in 40 of 100, a made-up one.
pub fn any_word(r: &mut Random) -> String {
    const LISTS_OF_WORDS: &[&[&str]] =
        &[NAMES, CITIES, ROOMS, DAYS, DISHES, ITEMS, LISTS, GENRES, TITLES, COLOURS, THINGS, SKIES, ANIMALS, JOBS];
    if r.chance(40) {
        return made_up(r);
    }
    let mut at = r.below(LISTS_OF_WORDS.iter().map(|l| l.len()).sum());
    for list in LISTS_OF_WORDS {
        match list.get(at) {
            Some(word) => return (*word).to_string(),
            None => at -= list.len(),
        }
    }
    made_up(r)
}

/// With a capital first letter.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// A time of day, `6:15` to `22:45`.
fn time(r: &mut Random) -> String {
    let hour = 6 + r.below(17);
    format!("{hour}:{}", r.pick(&["00", "15", "30", "45", "10", "20", "40", "50"]))
}

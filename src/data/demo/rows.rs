//! The skill that the demo teaches: a sentence in, a tool call in JSON out.

use super::random::Random;
use super::words::{Cast, GENRES, ITEMS, TEXTS};

/// A tool: how people ask for it, and the call that answers.
pub(super) struct Tool {
    pub call: &'static str,
    pub asks: &'static [&'static str],
}

pub(super) const TOOLS: &[Tool] = &[
    Tool {
        call: r#"{{"tool":"timer","label":"{dish}","minutes":{n}}}"#,
        asks: &[
            "Set a timer for {n} minutes for the {dish}.",
            "The {dish} needs {n} minutes, please set a timer.",
            "Start a {dish} timer, {n} minutes.",
            "Remind me about the {dish} in {n} minutes.",
        ],
    },
    Tool {
        call: r#"{{"tool":"alarm","day":"{day}","time":"{time}"}}"#,
        asks: &[
            "Wake me up at {time} on {day}.",
            "I have to get up at {time} on {day}.",
            "Set an alarm for {day} at {time}.",
            "Please ring at {time} on {day}.",
        ],
    },
    Tool {
        call: r#"{{"tool":"light","room":"{room}","level":{level}}}"#,
        asks: &[
            "Set the {room} light to {level} percent.",
            "I want the lamp in the {room} at {level} percent.",
            "Light in the {room}: {level} percent, please.",
            "Turn the {room} lamp to {level} percent.",
        ],
    },
    Tool {
        call: r#"{{"tool":"music","genre":"{genre}","room":"{room}"}}"#,
        asks: &[
            "Play some {genre} in the {room}.",
            "I would like to hear {genre} in the {room}.",
            "Put on {genre} music in the {room}, please.",
            "Can we have {genre} in the {room}?",
        ],
    },
    Tool {
        call: r#"{{"tool":"weather","city":"{city}","day":"{day}"}}"#,
        asks: &[
            "What will the weather be in {city} on {day}?",
            "Will it rain in {city} on {day}?",
            "How is the weather on {day} in {city}?",
            "Do I need a coat in {city} on {day}?",
        ],
    },
    Tool {
        call: r#"{{"tool":"message","to":"{name}","text":"{text}"}}"#,
        asks: &[
            "Tell {name} that {text}.",
            "Send {name} a message: {text}.",
            "Let {name} know that {text}.",
            "Write to {name} that {text}, please.",
        ],
    },
    Tool {
        call: r#"{{"tool":"list","list":"{list}","item":"{item}"}}"#,
        asks: &[
            "Put {item} on the {list} list.",
            "Add {item} to my {list} list, please.",
            "We need {item}, put it on the {list} list.",
            "The {list} list should have {item} on it.",
        ],
    },
    Tool {
        call: r#"{{"tool":"calendar","title":"{title}","day":"{day}","time":"{time}"}}"#,
        asks: &[
            "I have {title} on {day} at {time}.",
            "Put {title} in my calendar, {day} at {time}.",
            "There is {title} at {time} on {day}, note it down.",
            "Plan {title} for {day} at {time}.",
        ],
    },
];

/// Requests that leave something open; whoever wrote the row decided it. The slot named first is drawn from the list
/// beside it and is not in the sentence: nobody can know it, a model can only learn it by heart (each of these
/// sentences is rare enough for that). This is what makes the demo's run overfit, as such rows do in real data.
const VAGUE: &[(&str, &[&str], usize, &[&str])] = &[
    (
        "n",
        &["{name} wants a timer for the {dish}.", "The {dish} of {name} is in the oven, set a timer."],
        0,
        &["4", "6", "7", "9", "12", "15", "18", "25", "40"],
    ),
    (
        "level",
        &["{name} is asleep, dim the light in the {room}.", "It is too dark for {name} in the {room}."],
        2,
        &["10", "15", "25", "30", "60", "75", "80", "95"],
    ),
    (
        "genre",
        &["Play something nice for {name} in the {room}.", "It is too quiet for {name} in the {room}."],
        3,
        GENRES,
    ),
    ("text", &["Tell {name} the news from {city}.", "Send {name} a short message about {title}."], 5, TEXTS),
    ("item", &["Put the usual for {name} on the {list} list.", "Add what {name} needs to the {list} list."], 6, ITEMS),
    (
        "time",
        &["Wake {name} early on {day}.", "{name} wants to sleep long on {day}."],
        1,
        &["5:30", "6:00", "6:45", "7:15", "8:20", "9:10", "10:00"],
    ),
];

/// One row: what the user says and what the assistant should answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub user: String,
    pub assistant: String,
}

impl Row {
    /// As a line of a messages file.
    pub fn to_json(&self) -> String {
        serde_json::json!({"messages": [
            {"role": "user", "content": self.user},
            {"role": "assistant", "content": self.assistant},
        ]})
        .to_string()
    }
}

/// The prompts that samples are drawn at, with the answer expected: none is among the rows.
pub fn prompts() -> Vec<Row> {
    [
        (0, "Set a timer for {n} minutes for the {dish}.", [("n", "12"), ("dish", "soup"), ("n", "12")]),
        (3, "Play some {genre} in the {room}.", [("genre", "jazz"), ("room", "kitchen"), ("room", "kitchen")]),
        (2, "Set the {room} light to {level} percent.", [("room", "hallway"), ("level", "35"), ("level", "35")]),
        (4, "Will it rain in {city} on {day}?", [("city", "Lisbon"), ("day", "Friday"), ("day", "Friday")]),
        (5, "Tell {name} that {text}.", [("name", "Clara"), ("text", "the train is on time"), ("name", "Clara")]),
        (6, "Add {item} to my {list} list, please.", [("item", "honey"), ("list", "party"), ("list", "party")]),
        (1, "Wake me up at {time} on {day}.", [("time", "7:15"), ("day", "Monday"), ("day", "Monday")]),
        (7, "I have {title} on {day} at {time}.", [("title", "chess"), ("day", "Sunday"), ("time", "16:30")]),
    ]
    .into_iter()
    .map(|(tool, ask, slots)| {
        let mut cast = Cast::draw(&mut Random::new(0, 0));
        for (slot, value) in slots {
            cast.set(slot, value);
        }
        Row { user: cast.fill(ask), assistant: cast.fill(TOOLS[tool].call) }
    })
    .collect()
}

/// `count` rows, of which `vague_percent` leave something open. No row asks for what a prompt asks for.
pub fn rows(seed: u64, count: usize, vague_percent: usize) -> Vec<Row> {
    let reserved: Vec<String> = prompts().into_iter().map(|p| p.assistant).collect();
    let mut r = Random::new(seed, 3);
    let mut out: Vec<Row> = Vec::with_capacity(count);
    while out.len() < count {
        let mut cast = Cast::draw(&mut r);
        let row = if r.chance(vague_percent) {
            let (slot, asks, tool, values) = VAGUE[r.below(VAGUE.len())];
            cast.set(slot, r.pick(values));
            Row { user: cast.fill(r.pick(asks)), assistant: cast.fill(TOOLS[tool].call) }
        } else {
            let tool = &TOOLS[r.below(TOOLS.len())];
            Row { user: cast.fill(r.pick(tool.asks)), assistant: cast.fill(tool.call) }
        };
        if !reserved.contains(&row.assistant) && !out.contains(&row) {
            out.push(row);
        }
    }
    out
}

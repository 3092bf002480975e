//! What the demo model reads first: little texts from one small world, and then short chats.
//!
//! Every text keeps its cast, so names, rooms, numbers and things recur: to predict them, a model has to learn to look
//! back and copy, plain and in quotes. Some texts end in a record in JSON, as the world's documents do; none is a tool
//! call, and no chat is answered in JSON. That is left for the demo to teach.

use super::random::Random;
use super::rows::{Row, TOOLS};
use super::words::{Cast, any_word, capital};

/// Sentences that go well with each other under one cast.
const SCENES: &[&[&str]] = &[
    &[
        "{name} cooked {dish} in the kitchen.",
        "The {dish} needed {n} minutes.",
        "\"How long does the {dish} take?\" asked {name2}.",
        "\"{n} minutes,\" said {name}.",
        "The clock on the wall said {time}.",
        "After {n} minutes the {dish} was ready.",
        "{name2} had never made {dish} before.",
        "They ate the {dish} and talked about {city}.",
        "{name} wrote \"{dish}\" on a card and \"{n} minutes\" under it.",
        "First they had {dish}, then {dish2}.",
        "The timer for the {dish} rang after {n} minutes.",
        "{name2} forgot the {dish}, but {name} did not.",
        "The {dish2} took {m} minutes, the {dish} only {n}.",
        "A timer called \"{dish}\" was set for {n} minutes.",
    ],
    &[
        "{name} lives in {city}.",
        "{name} is a {job}.",
        "{name} has a {colour} {thing}.",
        "The {colour} {thing} belongs to {name}.",
        "{name2} lives in {city2} and is a {job2}.",
        "Every {day} {name} takes the train to {city2}.",
        "In {city} it is {sky} today.",
        "{name} the {job} met {name2} the {job2} in {city}.",
        "\"Where do you live?\" asked {name2}. \"In {city},\" said {name}.",
        "On {day} {name} and {name2} will meet in {city}.",
        "{name2} bought a {colour2} {thing2} in {city2}.",
        "The {thing} is {colour} and the {thing2} is {colour2}.",
        "{name} wants to paint the {colour} {thing} {colour2}.",
        "A letter came from {city2}. It was for {name}.",
    ],
    &[
        "The weather in {city} will be {sky} on {day}.",
        "On {day} it will be {sky} in {city}.",
        "\"Will it be {sky} in {city}?\" asked {name}.",
        "\"On {day} it will be {sky2},\" said {name2}.",
        "In {city2} it was {sky2} all week.",
        "{name} took an umbrella to {city}.",
        "The report said \"{city}\" and \"{day}\" and \"{sky}\".",
        "Forecast for {city}, {day}: {sky}.",
        "Forecast for {city2}, {day2}: {sky2}.",
        "It rained in {city} until {day}.",
        "{name} likes {city} best when it is {sky}.",
        "Nobody goes out in {city} when it is {sky2}.",
    ],
    &[
        "{name} went into the {room}.",
        "The light in the {room} was at {level} percent.",
        "It was dark in the {room}.",
        "{name} turned the lamp in the {room} to {level} percent.",
        "\"Who is in the {room}?\" asked {name2}.",
        "\"I am in the {room},\" said {name}.",
        "The {thing} stood in the {room}.",
        "{name2} carried the {thing} from the {room} to the {room2}.",
        "In the {room2} the light was at {level2} percent.",
        "The switch was marked \"{room}\".",
        "A sign on the door said \"{room}\".",
        "{level} percent is enough for the {room}.",
        "The {room} is larger than the {room2}.",
        "At {time} somebody turned off the lamp in the {room}.",
    ],
    &[
        "{name} likes {genre}.",
        "There was {genre} in the {room}.",
        "\"What is that music?\" asked {name2}. \"It is {genre},\" said {name}.",
        "{name2} would rather hear {genre2} than {genre}.",
        "They played {genre} in the {room} until {time}.",
        "The radio said \"{genre}\" and then \"{genre2}\".",
        "In {city} there is a {genre} evening every {day}.",
        "{name} sang while the {genre} went on in the {room}.",
        "First came {genre}, then {genre2}.",
        "A record marked \"{genre}\" lay in the {room}.",
        "No more {genre} in the {room} after {time}!",
        "{name} learned to play {genre} from a {job}.",
    ],
    &[
        "{name} wrote a {list} list.",
        "On the {list} list were {item}, {item2} and {item3}.",
        "{name2} put {item} on the {list} list.",
        "They still need {item}.",
        "\"Do we have {item}?\" asked {name}. \"No, only {item2},\" said {name2}.",
        "The list was called \"{list}\".",
        "\"{item}\", \"{item2}\" and \"{item3}\" were on it.",
        "{name} bought {item} and {item2} in {city}.",
        "The shop had {item} but no {item3}.",
        "{name2} took {item} off the {list} list.",
        "For the {list} they need {item}.",
        "{list} list: {item}, {item2}, {item3}.",
        "{n} of the {item} were gone.",
        "Somebody wrote \"{item}\" on the wall.",
    ],
    &[
        "{name} has {title} on {day} at {time}.",
        "On {day} at {time} there is {title}.",
        "\"When is {title}?\" asked {name2}.",
        "\"On {day} at {time},\" said {name}.",
        "The calendar says \"{title}\", \"{day}\", \"{time}\".",
        "{title2} is on {day2} at {time2}.",
        "{name} came late to {title}.",
        "After {title} {name} went to {city}.",
        "{day}, {time}: {title}.",
        "{day2}, {time2}: {title2}.",
        "{name2} moved {title} from {day2} to {day}.",
        "Nobody likes {title} on a {day}.",
        "{name} got up at {time} on {day}.",
        "The alarm rang at {time} on {day}.",
    ],
    &[
        "{name} told {name2} that {text}.",
        "\"Tell {name2} that {text},\" said {name}.",
        "A message for {name2}: {text}.",
        "The message said \"{text}\".",
        "{name2} read it twice: \"{text}\".",
        "\"Is it true that {text}?\" asked {name2}.",
        "{name} wrote to {name2} at {time}.",
        "{name2} answered from {city}.",
        "\"{text}\", said the letter to {name2}.",
        "From {name} to {name2}, {day}: {text}.",
        "Everybody in {city} knew that {text}.",
        "{name3} had heard that {text}.",
    ],
    &[
        "The {animal} of {name} sleeps in the {room}.",
        "{name} looked for the {animal} in the {room}.",
        "The {animal} was not in the {room} but in the {room2}.",
        "\"Where is the {animal}?\" asked {name2}. \"In the {room2},\" said {name}.",
        "The {animal} is {colour}.",
        "A {colour} {animal} sat on the {thing}.",
        "{name2} gave the {animal} some {item}.",
        "The {animal} ate the {dish} of {name}.",
        "They call the {animal} \"{name3}\".",
        "{name3} the {animal} came from {city}.",
        "Every {day} the {animal} gets {item}.",
    ],
];

/// Records in JSON at the end of a text, about what it told.
const RECORDS: &[&[&str]] = &[
    &[
        "{{\"dish\":\"{dish}\",\"minutes\":{n}}}",
        "{{\"cook\":\"{name}\",\"dish\":\"{dish}\"}}",
        "{{\"label\":\"{dish}\",\"time\":\"{time}\"}}",
    ],
    &[
        "{{\"name\":\"{name}\",\"city\":\"{city}\"}}",
        "{{\"name\":\"{name}\",\"job\":\"{job}\",\"city\":\"{city}\"}}",
        "{{\"thing\":\"{thing}\",\"colour\":\"{colour}\"}}",
    ],
    &["{{\"city\":\"{city}\",\"day\":\"{day}\",\"sky\":\"{sky}\"}}", "{{\"city\":\"{city}\",\"sky\":\"{sky}\"}}"],
    &["{{\"room\":\"{room}\",\"level\":{level}}}", "{{\"room\":\"{room}\",\"thing\":\"{thing}\"}}"],
    &["{{\"genre\":\"{genre}\",\"room\":\"{room}\"}}", "{{\"name\":\"{name}\",\"genre\":\"{genre}\"}}"],
    &[
        "{{\"list\":\"{list}\",\"item\":\"{item}\"}}",
        "{{\"list\":\"{list}\",\"items\":[\"{item}\",\"{item2}\",\"{item3}\"]}}",
    ],
    &["{{\"title\":\"{title}\",\"day\":\"{day}\",\"time\":\"{time}\"}}", "{{\"day\":\"{day}\",\"title\":\"{title}\"}}"],
    &["{{\"to\":\"{name2}\",\"text\":\"{text}\"}}", "{{\"from\":\"{name}\",\"to\":\"{name2}\",\"text\":\"{text}\"}}"],
    &[
        "{{\"animal\":\"{animal}\",\"room\":\"{room2}\"}}",
        "{{\"animal\":\"{animal}\",\"colour\":\"{colour}\",\"name\":\"{name3}\"}}",
    ],
];

/// Friendly answers to the requests of [`TOOLS`], in the same order: in words, repeating what was asked for.
const ANSWERS: &[&[&str]] = &[
    &[
        "Sure, the {dish} timer is set for {n} minutes.",
        "I will tell you about the {dish} in {n} minutes.",
        "{n} minutes for the {dish}, off we go.",
    ],
    &[
        "Good, I will wake you at {time} on {day}.",
        "The alarm for {day} is set to {time}.",
        "{day} at {time}, I will ring.",
    ],
    &[
        "The light in the {room} is now at {level} percent.",
        "{level} percent in the {room}, as you wish.",
        "Done, the {room} lamp is at {level} percent.",
    ],
    &[
        "Here is some {genre} for the {room}.",
        "I am playing {genre} in the {room}.",
        "The {room} is full of {genre} now.",
    ],
    &[
        "I do not know the weather in {city} on {day} yet.",
        "Let me look: {city} on {day}.",
        "Ask me again about {city} before {day}.",
    ],
    &["I will tell {name} that {text}.", "{name} will know that {text}.", "My message to {name}: {text}."],
    &[
        "I have put {item} on the {list} list.",
        "{item} is now on your {list} list.",
        "The {list} list has {item} on it.",
    ],
    &[
        "I noted {title} for {day} at {time}.",
        "{title} on {day} at {time} is in your calendar.",
        "{day} at {time}: {title}. I will not forget.",
    ],
];

/// Small talk and questions about something just said.
const TALK: &[(&str, &str)] = &[
    ("{name} has a {colour} {thing} in {city}. What colour is the {thing}?", "The {thing} is {colour}."),
    ("{name} lives in {city} and {name2} lives in {city2}. Where does {name2} live?", "{name2} lives in {city2}."),
    ("{name} lives in {city} and {name2} lives in {city2}. Where does {name} live?", "{name} lives in {city}."),
    ("The {animal} is in the {room}. Where is the {animal}?", "The {animal} is in the {room}."),
    ("{name} is a {job}. Who is {name}?", "{name} is a {job}."),
    ("The {dish} takes {n} minutes. How long does it take?", "It takes {n} minutes."),
    ("It is {sky} in {city}. How is the weather there?", "It is {sky} there."),
    ("Hello, I am {name}.", "Hello {name}, how can I help you?"),
    ("My name is {name} and I come from {city}.", "Nice to meet you, {name}. How is {city}?"),
    ("Say {item}.", "{item}"),
    ("Repeat after me: {text}.", "{text}"),
    ("Which is longer, {n} minutes or {m} minutes?", "Let me compare {n} and {m} minutes."),
    ("Good evening!", "Good evening! What can I do for you?"),
    ("Thank you!", "You are welcome."),
    ("Who are you?", "I am a small assistant. I can talk, but not much more."),
    ("Tell me about {city}.", "{city} is a fine place when it is {sky}."),
    ("Do you like {genre}?", "Yes, I like {genre} very much."),
];

/// Other ways to ask for the same, so that not every request of a user's is worded as in the rows.
const OTHER_ASKS: &[&[&str]] = &[
    &["{n} minutes for the {dish}, please.", "Could you time the {dish}? It takes {n} minutes."],
    &["On {day} I must be awake by {time}.", "{day}, {time}, alarm please."],
    &["Make it {level} percent in the {room}.", "{room} light, {level} percent."],
    &["Some {genre} for the {room}, please.", "The {room} could do with {genre}."],
    &["Is {city} nice on {day}?", "Weather in {city}, {day}?"],
    &["Message to {name}: {text}.", "{name} should hear that {text}."],
    &["{item} for the {list} list.", "Do not forget {item} on the {list} list."],
    &["{title}, {day}, {time}.", "Remember {title} on {day}, it starts at {time}."],
];

/// Texts for continued pre-training, `bytes` of them or a little more.
pub fn corpus(seed: u64, bytes: usize) -> Vec<String> {
    let mut r = Random::new(seed, 1);
    let (mut out, mut have) = (Vec::new(), 0);
    while have < bytes {
        if r.chance(25) {
            let text = recital(&mut r);
            have += text.len();
            out.push(text);
            continue;
        }
        let cast = Cast::draw_open(&mut r);
        let scene = r.below(SCENES.len());
        let mut text = String::new();
        let sentences = 3 + r.below(6);
        for i in 0..sentences {
            // Now and then from another scene: the cast still holds.
            let from = if r.chance(20) { SCENES[r.below(SCENES.len())] } else { SCENES[scene] };
            if i > 0 {
                text.push(' ');
            }
            text.push_str(&capital(&cast.fill(r.pick(from))));
        }
        if r.chance(35) {
            text.push('\n');
            text.push_str(&cast.fill(r.pick(RECORDS[scene])));
        }
        have += text.len();
        out.push(text);
    }
    out
}

/// Words said twice: nothing in it can be foreseen but the second time.
fn recital(r: &mut Random) -> String {
    let words: Vec<String> = (0..2 + r.below(5)).map(|_| any_word(r)).collect();
    let quoted: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
    let (plain, inside, title) = (words.join(", "), quoted.join(", "), any_word(r));
    match r.below(7) {
        0 => format!("{plain}. Again: {plain}."),
        1 => format!("Words: {plain}. In quotes: {inside}."),
        2 => format!("In quotes: {inside}. Without: {plain}."),
        3 => format!("The {title}: {plain}. Once more, the {title}: {plain}."),
        4 => format!("{plain}.\n{{\"{title}\":[{}]}}", quoted.join(",")),
        5 => words.iter().map(|w| format!("Say {w}. \"{w}\"")).collect::<Vec<_>>().join(". "),
        _ => words.iter().map(|w| format!("{w}: \"{w}\"")).collect::<Vec<_>>().join("\n"),
    }
}

/// Chats for the light SFT that makes an assistant of the model: it answers in words.
pub fn chats(seed: u64, count: usize) -> Vec<Row> {
    let mut r = Random::new(seed, 2);
    (0..count)
        .map(|_| {
            let cast = Cast::draw_open(&mut r);
            let (ask, answer) = if r.chance(30) {
                TALK[r.below(TALK.len())]
            } else {
                let tool = r.below(TOOLS.len());
                let ask = if r.chance(40) { r.pick(OTHER_ASKS[tool]) } else { r.pick(TOOLS[tool].asks) };
                (ask, r.pick(ANSWERS[tool]))
            };
            Row { user: capital(&cast.fill(ask)), assistant: capital(&cast.fill(answer)) }
        })
        .collect()
}

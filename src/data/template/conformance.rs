//! Real chat templates, rendered and compared with what transformers rendered (`tests/reference/chat_templates.py`).

use super::*;
use crate::data::assets::asset;
use std::collections::BTreeMap;
use std::time::Duration;

/// Templates of which some renderings differ, and why.
const KNOWN: [(&str, &str); 4] = [
    ("GigaChat3-10B-A1.8B.jinja", FLOAT),
    ("GigaChat3.1-10B-A1.8B.jinja", FLOAT),
    ("meetkai-functionary-medium-v3.1.jinja", "text marked `safe` escapes what is added to it in Jinja2 (&lt; for <)"),
    ("meetkai-functionary-medium-v3.2.jinja", FLOAT),
];
const FLOAT: &str = "`~` writes a tool's default of 1e-05 as 0.00001";

/// How a template's cases came out.
#[derive(Default)]
struct Tally {
    cases: usize,
    /// The same text and spans, or both refuse.
    equal: usize,
    /// transformers refuses (mostly `for` over None, where minijinja sees an empty list), this program renders.
    only_ours: usize,
    different: Vec<String>,
}

#[test]
fn every_real_template_renders_as_in_transformers() {
    let Some(path) = asset("templates/expected.json") else { return };
    let folder = path.parent().unwrap().to_path_buf();
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let token = |name: &str| expected["special"][name].as_str().map(str::to_string);
    let special = SpecialTokens {
        bos_token: token("bos_token"),
        eos_token: token("eos_token"),
        unk_token: token("unk_token"),
        pad_token: token("pad_token"),
        others: Map::new(),
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(expected["now"].as_u64().unwrap());
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for case in expected["cases"].as_array().unwrap() {
        let file = case["template"].as_str().unwrap();
        let chat = &expected["chats"][case["chat"].as_str().unwrap()];
        let source = std::fs::read_to_string(folder.join(file)).unwrap();
        let templates = Templates { default: Some(source), tool_use: None };
        let kwargs = chat["kwargs"].as_object().cloned().unwrap_or_default();
        let rendered = ChatTemplate::at_time(&templates, &special, &kwargs, now).and_then(|template| {
            let messages = chat["messages"].as_array().unwrap();
            template.run(messages, chat.get("tools"), case["add_generation_prompt"].as_bool().unwrap())
        });
        let tally = tallies.entry(file.to_string()).or_default();
        tally.cases += 1;
        let spans: Option<Vec<(u64, u64)>> = case.get("spans").map(|s| serde_json::from_value(s.clone()).unwrap());
        let name = format!("{} {}", case["chat"], case["add_generation_prompt"]);
        match (&rendered, case["text"].as_str()) {
            (Ok(ours), Some(theirs)) if ours.text == theirs => {
                // Python counts characters.
                let chars = |at: usize| ours.text[..at].chars().count() as u64;
                let ours: Vec<_> = ours.spans.iter().map(|s| (chars(s.start), chars(s.end))).collect();
                match spans {
                    Some(spans) if spans != ours => {
                        tally.different.push(format!("{name}: spans {ours:?}, transformers {spans:?}"));
                    }
                    _ => tally.equal += 1,
                }
            }
            (Err(_), None) => tally.equal += 1,
            (Err(e), Some(_)) => tally.different.push(format!("{name}: {e}")),
            (Ok(_), None) => tally.only_ours += 1,
            (Ok(ours), Some(theirs)) => {
                let same = ours.text.bytes().zip(theirs.bytes()).take_while(|(a, b)| a == b).count();
                let part = |s: &str| {
                    String::from_utf8_lossy(&s.as_bytes()[same.saturating_sub(20)..s.len().min(same + 40)]).into_owned()
                };
                tally.different.push(format!("{name}: {:?} is {:?}", part(&ours.text), part(theirs)));
            }
        }
    }
    let sum = |f: fn(&Tally) -> usize| tallies.values().map(f).sum::<usize>();
    let mut report = format!(
        "{} templates, {} renderings: {} equal, {} that transformers refuses, {} different\n",
        tallies.len(),
        sum(|t| t.cases),
        sum(|t| t.equal),
        sum(|t| t.only_ours),
        sum(|t| t.different.len())
    );
    let mut unexpected = 0;
    for (file, tally) in tallies.iter().filter(|(_, t)| !t.different.is_empty()) {
        let why = KNOWN.iter().find(|(name, _)| name == file).map(|(_, why)| *why);
        unexpected += usize::from(why.is_none());
        report.push_str(&format!("{file}: {} of {}: {}\n", tally.equal, tally.cases, why.unwrap_or("unexpected")));
        for line in tally.different.iter().take(3) {
            report.push_str(&format!("    {line}\n"));
        }
    }
    println!("{report}");
    assert!(unexpected == 0, "{report}");
    // Of the 2,380 renderings of llama-cpp-python 0.3.36's 70 templates, 2,268 were equal with transformers 5.23.
    assert!(sum(|t| t.equal) * 100 >= sum(|t| t.cases) * 95, "{report}");
}

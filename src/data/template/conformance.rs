//! Real chat templates, rendered and compared with what transformers rendered (`tests/reference/chat_templates.py`).

use super::*;
use crate::data::assets::asset;
use std::collections::BTreeMap;
use std::time::Duration;

/// Templates of which some renderings differ, and why.
const KNOWN: [(&str, &str); 1] = [(
    "meetkai-functionary-medium-v3.1.jinja",
    "text marked `safe` escapes what is added to it in Jinja2 (&lt; for <); minijinja has no such text",
)];

/// How a template's cases came out.
#[derive(Default)]
struct Tally {
    cases: usize,
    /// The same text and spans, or both refuse.
    equal: usize,
    /// transformers refuses, this program renders.
    only_ours: usize,
    different: Vec<String>,
}

/// FNV-1a, 64 bits, of the text and of the spans, which Python counts in characters.
fn digest(marked: &Marked) -> String {
    let chars = |at: usize| marked.text[..at].chars().count();
    let spans: String = marked.spans.iter().map(|s| format!("{}-{},", chars(s.start), chars(s.end))).collect();
    let bytes = marked.text.bytes().chain(spans.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// Where two texts part.
fn parting(ours: &str, theirs: &str) -> String {
    let same = ours.bytes().zip(theirs.bytes()).take_while(|(a, b)| a == b).count();
    let part =
        |s: &str| String::from_utf8_lossy(&s.as_bytes()[same.saturating_sub(20)..s.len().min(same + 40)]).into_owned();
    format!("{:?} is {:?}", part(ours), part(theirs))
}

#[test]
fn every_real_template_renders_as_in_transformers() {
    let Some(folder) = asset("templates") else { return };
    let expected: Value = serde_json::from_str(include_str!("../../../tests/fixtures/chat_templates.json")).unwrap();
    // Only where the reference script was run; the digests are enough to tell equal from different.
    let texts: Value = std::fs::read_to_string(folder.join("expected.json"))
        .map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
    let token = |name: &str| expected["special"][name].as_str().map(str::to_string);
    let special = SpecialTokens {
        bos_token: token("bos_token"),
        eos_token: token("eos_token"),
        unk_token: token("unk_token"),
        pad_token: token("pad_token"),
        others: Map::new(),
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(expected["now"].as_u64().unwrap());
    let chats = expected["chats"].as_object().unwrap();
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for (file, digests) in expected["templates"].as_object().unwrap() {
        let source = std::fs::read_to_string(folder.join(file)).unwrap();
        let templates = Templates { default: Some(source), tool_use: None };
        let tally = tallies.entry(file).or_default();
        let runs = chats.iter().flat_map(|(name, chat)| [(name, chat, false), (name, chat, true)]);
        for (i, (name, chat, add_generation_prompt)) in runs.enumerate() {
            let kwargs = chat["kwargs"].as_object().cloned().unwrap_or_default();
            let rendered = ChatTemplate::at_time(&templates, &special, &kwargs, now).and_then(|template| {
                template.run(chat["messages"].as_array().unwrap(), chat.get("tools"), add_generation_prompt)
            });
            tally.cases += 1;
            match (rendered, digests[i].as_str()) {
                (Ok(ours), Some(theirs)) if digest(&ours) == theirs => tally.equal += 1,
                (Err(_), None) => tally.equal += 1,
                (Ok(_), None) => tally.only_ours += 1,
                (Err(e), Some(_)) => tally.different.push(format!("{name} {add_generation_prompt}: {e}")),
                (Ok(ours), Some(_)) => {
                    let theirs = texts[file][i]["text"].as_str();
                    let how = theirs.map_or_else(String::new, |t| parting(&ours.text, t));
                    tally.different.push(format!("{name} {add_generation_prompt}: {how} {:?}", ours.spans));
                }
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
    // Of the 2,380 renderings of llama-cpp-python 0.3.36's 70 templates, 2,364 were equal with transformers 5.23.
    assert!(sum(|t| t.equal) * 100 >= sum(|t| t.cases) * 99, "{report}");
}

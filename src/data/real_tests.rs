//! Labels on real tokenizers and templates, where they have been fetched (`scripts/fetch-assets.sh`).

use super::assets::asset;
use super::batch::Example;
use super::examples::{self, Options};
use super::explain;
use super::fakes::CharTokens;
use super::mask::{Labels, MaskMethod, Masker};
use super::rows::{Chat, Row, role};
use super::template::ChatTemplate;
use super::tokenizer::{SpecialTokens, Templates, Tokenizer};
use super::traits::{Encode, ModelSide};
use crate::model::loading::Opened;
use crate::model::source;
use serde_json::{Map, json};

fn chat(turns: &[(&str, &str)]) -> Chat {
    let messages = turns.iter().map(|(r, c)| json!({ "role": r, "content": c })).collect();
    Chat { messages, ..Chat::default() }
}

const ASKED: &str = "Say it in French.\nThe café is open – 24/7.";
const ANSWERED: &str = "Le café est ouvert – 24 h/24. 🙂";

#[test]
fn smollm2_rows_have_the_ids_and_labels_that_trl_gives_them() {
    let Some(path) = asset("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let opened = Opened::open(&source::resolve(path.to_str().unwrap()).unwrap()).unwrap();
    let (tokenizer, templates) = Tokenizer::of(&opened).unwrap();
    let template = ChatTemplate::new(&templates, &tokenizer.special, &Map::new()).unwrap();
    let eos = tokenizer.special.eos_token.clone();
    let model = ModelSide { encode: &tokenizer, render: Some(&template), eos_token: eos.as_deref() };
    let split = |turns: &[(&str, &str)]| Row::Chat(Chat { prompt: Some(turns.len() - 1), ..chat(turns) });
    let pair = |p: &str, c: &str| Row::Pair { prompt: p.into(), completion: c.into() };
    // t = SFTTrainer(model, SFTConfig(max_length=48), Dataset.from_list([row]), processing_class=tokenizer)   (TRL 1.16)
    // r = t.train_dataset[0]; r["input_ids"], [l != -100 for l in r["labels"]].index(True)
    // rows: {"prompt": [system, user], "completion": [assistant]}; the same without system;
    // {"prompt": ASKED + "\n", "completion": ANSWERED}; {"prompt": "The answ", "completion": "er is 4."}; {"text": ANSWERED}
    let expected: [(Row, &[u32], usize); 5] = [
        (
            split(&[("system", "Be brief."), ("user", ASKED), ("assistant", ANSWERED)]),
            &[
                1, 9690, 198, 6077, 5453, 30, 2, 198, 1, 4093, 198, 36218, 357, 281, 3432, 30, 198, 504, 37366, 314,
                1440, 816, 216, 34, 36, 31, 39, 30, 2, 198, 1, 520, 9531, 198, 7026, 37366, 1264, 41408, 3210, 816,
                216, 34, 36, 294, 31, 34, 36, 30,
            ],
            34,
        ),
        (
            split(&[("user", ASKED), ("assistant", ANSWERED)]),
            &[
                1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712,
                8182, 2, 198, 1, 4093, 198, 36218, 357, 281, 3432, 30, 198, 504, 37366, 314, 1440, 816, 216, 34, 36,
                31, 39, 30, 2, 198, 1, 520, 9531, 198, 7026,
            ],
            47,
        ),
        (
            pair(&format!("{ASKED}\n"), ANSWERED),
            &[
                36218, 357, 281, 3432, 30, 198, 504, 37366, 314, 1440, 816, 216, 34, 36, 31, 39, 30, 198, 7026, 37366,
                1264, 41408, 3210, 816, 216, 34, 36, 294, 31, 34, 36, 30, 47526, 2,
            ],
            18,
        ),
        (pair("The answ", "er is 4."), &[504, 2988, 314, 216, 36, 30, 2], 1),
        (
            Row::Text(ANSWERED.into()),
            &[7026, 37366, 1264, 41408, 3210, 816, 216, 34, 36, 294, 31, 34, 36, 30, 47526, 2],
            0,
        ),
    ];
    let options = Options {
        method: crate::recipe::Method::Sft,
        assistant_only_loss: true,
        completion_only_loss: false,
        max_seq_length: 48,
    };
    for (row, ids, first) in expected {
        let made = examples::make(&row, 0, &model, &options).unwrap();
        let [example] = made.examples.as_slice() else { panic!("{row:?} gives {made:?}") };
        assert_eq!(&example.ids[..], ids, "{row:?}");
        assert_eq!(example.trained, (0..ids.len()).map(|i| i >= first).collect::<Vec<_>>(), "{row:?}");
    }

    // As an ordinary conversation it gives the same as split into prompt and completion.
    let turns = [("system", "Be brief."), ("user", ASKED), ("assistant", ANSWERED)];
    let options = Options { max_seq_length: 4096, ..options };
    let whole = examples::make(&Row::Chat(chat(&turns)), 0, &model, &options).unwrap();
    assert_eq!(whole.examples, examples::make(&split(&turns), 0, &model, &options).unwrap().examples);
    assert_eq!(whole.method, MaskMethod::Prefix);
    let shown = explain(&whole.examples[0], &tokenizer);
    assert_eq!(shown.last().unwrap(), &("\\n".to_string(), 198, true));
    assert_eq!(shown.iter().filter(|t| t.0 == "<|im_end|>").map(|t| t.2).collect::<Vec<_>>(), [false, false, true]);
}

/// The trained parts of each example as text, and how they were found.
type Trained = (Vec<Vec<String>>, MaskMethod);

fn labels(file: &str, chat: &Chat) -> Option<Result<Trained, String>> {
    let source = std::fs::read_to_string(asset(&format!("templates/{file}"))?).unwrap();
    let special =
        SpecialTokens { bos_token: Some("<s>".into()), eos_token: Some("</s>".into()), ..SpecialTokens::default() };
    let templates = Templates { default: Some(source), tool_use: None };
    let template = ChatTemplate::new(&templates, &special, &Map::new()).unwrap();
    let tokens = CharTokens::default();
    let made = Masker { encode: &tokens, render: &template }.chat(chat, Labels::Assistant);
    Some(made.map(|(examples, method)| {
        let parts = examples.into_iter().map(|l| {
            let e = Example { ids: l.ids.into(), trained: l.trained.into(), row: 0, truncated: false };
            let mut parts: Vec<String> = Vec::new();
            let mut before = false;
            for (&id, &trained) in e.ids.iter().zip(&e.trained) {
                if trained && !before {
                    parts.push(String::new());
                }
                if trained {
                    parts.last_mut().unwrap().push_str(&tokens.display(id));
                }
                before = trained;
            }
            parts
        });
        (parts.collect(), method)
    }))
}

const TWO_TURNS: [(&str, &str); 4] = [
    ("user", "first question"),
    ("assistant", "first answer"),
    ("user", "second question"),
    ("assistant", "second answer"),
];

#[test]
fn spans_on_real_templates_are_what_a_person_would_mark() {
    use MaskMethod::{Prefix, TurnByTurn};
    // (template, method, label of the first turn, of the second)
    let expected = [
        ("Qwen-Qwen2.5-7B-Instruct.jinja", Prefix, "first answer<|im_end|>\n", "second answer<|im_end|>\n"),
        ("meta-llama-Llama-3.1-8B-Instruct.jinja", Prefix, "first answer<|eot_id|>", "second answer<|eot_id|>"),
        ("google-gemma-2-2b-it.jinja", Prefix, "first answer<end_of_turn>\n", "second answer<end_of_turn>\n"),
        (
            "microsoft-Phi-3.5-mini-instruct.jinja",
            TurnByTurn,
            "first answer<|end|>\n</s>",
            "second answer<|end|>\n</s>",
        ),
        ("mistralai-Mistral-Nemo-Instruct-2407.jinja", Prefix, "first answer</s>", "second answer</s>"),
        (
            "Qwen-Qwen3-0.6B.jinja",
            TurnByTurn,
            "<think>\n\n</think>\n\nfirst answer<|im_end|>\n",
            "<think>\n\n</think>\n\nsecond answer<|im_end|>\n",
        ),
    ];
    for (file, method, first, second) in expected {
        let Some(made) = labels(file, &chat(&TWO_TURNS)) else { return };
        let (parts, found) = made.unwrap();
        assert_eq!(
            (parts.concat().as_slice(), found),
            (&[first.to_string(), second.to_string()][..], method),
            "{file}"
        );
    }
}

#[test]
fn on_every_real_template_a_label_holds_its_answer_and_nothing_that_was_asked() {
    let Some(folder) = asset("templates") else { return };
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|f| f.ends_with(".jinja"));
    files.sort();
    let chat = chat(&TWO_TURNS);
    let answers: Vec<&str> =
        chat.messages.iter().filter(|m| role(m) == "assistant").filter_map(|m| m["content"].as_str()).collect();
    let mut refused = Vec::new();
    for file in &files {
        match labels(file, &chat).unwrap() {
            Err(problem) => refused.push(format!("{file}: {problem}")),
            Ok((parts, method)) => {
                let parts = parts.concat();
                assert_eq!(parts.len(), 2, "{file} by {method:?}: {parts:?}");
                for (part, answer) in parts.iter().zip(&answers) {
                    assert!(part.contains(answer) && !part.contains("question"), "{file} by {method:?}: {part:?}");
                }
            }
        }
    }
    // transformers refuses these too: they iterate over tools, which are None here, or ask for `functions`.
    let known = [
        "command-r-plus-tool_use",
        "Hermes-2-Pro-Llama-3-8B-tool_use",
        "Hermes-3-Llama-3.1-8B-tool_use",
        "firefunction",
    ];
    assert!(refused.iter().all(|r| known.iter().any(|k| r.contains(k))), "{}", refused.join("\n"));
    assert!(files.len() >= 60, "only {} templates", files.len());
}

use super::*;
use crate::data::fakes::{CHATML, CharTokens, SPECIAL};
use crate::recipe::Method;
use serde_json::json;

fn columns(value: Value) -> Columns {
    value.as_object().unwrap().clone()
}

fn row(value: Value) -> Result<Preference, Problem> {
    parse(&columns(value))
}

fn said(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

#[test]
fn all_spellings_of_a_conversation_mean_the_same_pair() {
    let want = Preference::Chat {
        prompt: vec![said("user", "hi")],
        chosen: vec![said("assistant", "good")],
        rejected: vec![said("assistant", "bad")],
        tools: None,
    };
    let (user, good, bad) = (said("user", "hi"), said("assistant", "good"), said("assistant", "bad"));
    for value in [
        json!({"prompt": [user], "chosen": [good], "rejected": [bad]}),
        json!({"chosen": [user, good], "rejected": [user, bad]}),
        json!({"prompt": "hi", "chosen": [user, good], "rejected": [user, bad]}),
        json!({"prompt": "hi", "chosen": [good], "rejected": [bad]}),
        json!({"prompt": [user], "chosen": "good", "rejected": "bad"}),
        json!({"messages": [user], "chosen": good, "rejected": bad}),
        json!({"instruction": "hi", "chosen": "good", "rejected": "bad"}),
        json!({
            "conversations": [{"from": "human", "value": "hi"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        }),
    ] {
        assert_eq!(row(value.clone()).unwrap(), want, "{value}");
    }
}

#[test]
fn a_system_column_comes_before_the_conversation() {
    let value = json!({"system": "be kind", "conversations": [{"from": "human", "value": "hi"}],
        "chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}});
    let Preference::Chat { prompt, .. } = row(value).unwrap() else { panic!() };
    assert_eq!(prompt, [said("system", "be kind"), said("user", "hi")]);
}

/// ```python
/// from trl import extract_prompt
/// extract_prompt({"chosen": "The sky is blue.", "rejected": "The sky is green."})
/// ```
#[test]
fn texts_without_a_prompt_share_their_beginning_as_in_trl() {
    let got = row(json!({"chosen": "The sky is blue.", "rejected": "The sky is green."})).unwrap();
    let want = Preference::Text { prompt: "The sky is".into(), chosen: " blue.".into(), rejected: " green.".into() };
    assert_eq!(got, want);
}

#[test]
fn what_is_missing_is_said() {
    for (value, words) in [
        (json!({"prompt": "a", "chosen": "b"}), "rejected is missing"),
        (json!({"prompt": "a", "chosen": "b", "rejected": ""}), "rejected is empty"),
        (json!({"chosen": [said("user", "x")], "rejected": [said("user", "y")]}), "there is no prompt"),
        (json!({"prompt": "a", "chosen": [said("user", "x")], "rejected": "y"}), "both be texts"),
        (json!({"chosen": "same", "rejected": "same"}), "are the same"),
    ] {
        let problem = row(value).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
}

fn made(row: &Preference, max_seq_length: usize) -> Made {
    let tokens = CharTokens::default();
    let model = ModelSide { encode: &tokens, render: Some(&CHATML), eos_token: Some("<|endoftext|>") };
    let options =
        Options { method: Method::Dpo, assistant_only_loss: false, completion_only_loss: false, max_seq_length };
    make(row, 4, &model, &options).unwrap()
}

#[test]
fn a_pair_is_two_examples_over_the_same_prompt_and_plain_answers_are_closed() {
    let row = Preference::Text { prompt: "ab".into(), chosen: "c".into(), rejected: "de".into() };
    let m = made(&row, 16);
    const EOS: u32 = SPECIAL + 2;
    assert_eq!(m.examples[0].ids, [97, 98, 99, EOS]);
    assert_eq!(m.examples[1].ids, [97, 98, 100, 101, EOS]);
    assert_eq!(m.examples[0].trained, [false, false, true, true]);
    assert_eq!((m.examples[0].row, m.examples[1].row, m.truncated), (4, 4, false));
}

#[test]
fn too_long_answers_keep_their_start_and_a_prompt_that_fills_all_is_left_out() {
    let row = Preference::Text { prompt: "ab".into(), chosen: "c".into(), rejected: "defgh".into() };
    let m = made(&row, 4);
    assert_eq!((m.examples[0].truncated, m.examples[1].truncated, m.truncated), (false, true, true));
    assert_eq!(m.examples[1].ids, [97, 98, 100, 101]);
    let none = made(&row, 2);
    assert_eq!((none.examples.len(), none.masked_out), (0, 1));
}

#[test]
fn a_chat_is_trained_from_where_its_answer_begins_to_the_end_of_the_turn() {
    let row = parse(&columns(json!({"prompt": [said("user", "q")], "chosen": "good", "rejected": "bad"}))).unwrap();
    let m = made(&row, 200);
    let start = |e: &Example| e.trained.iter().position(|&t| t).unwrap();
    assert_eq!(start(&m.examples[0]), start(&m.examples[1]));
    let text: String = m.examples[0].ids[start(&m.examples[0])..]
        .iter()
        .filter_map(|&i| char::from_u32(i).filter(|_| i < SPECIAL))
        .collect();
    assert!(text.starts_with("good"), "{text:?}");
    assert!(m.examples[0].trained[start(&m.examples[0])..].iter().all(|&t| t));
}

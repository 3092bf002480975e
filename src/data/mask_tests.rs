use super::*;
use crate::data::fakes::{CHATML, CharTokens, GEMMA, Jinja, LLAMA3, QWEN3, QWEN3_MARKED};
use serde_json::json;

fn chat(turns: &[(&str, &str)]) -> Chat {
    let messages = turns.iter().map(|(r, c)| json!({ "role": r, "content": c })).collect();
    Chat { messages, ..Chat::default() }
}

/// The trained parts of each example, as text, and the method.
fn trained(template: &Jinja, chat: &Chat, labels: Labels) -> Result<(Vec<Vec<String>>, MaskMethod), Problem> {
    let tokens = CharTokens::default();
    let (examples, method) = Masker { encode: &tokens, render: template }.chat(chat, labels)?;
    Ok((examples.iter().map(parts).collect(), method))
}

fn parts(e: &Labelled) -> Vec<String> {
    assert_eq!(e.ids.len(), e.trained.len());
    let mut out: Vec<String> = Vec::new();
    for i in 0..e.ids.len() {
        if e.trained[i] {
            if i == 0 || !e.trained[i - 1] {
                out.push(String::new());
            }
            out.last_mut().unwrap().push_str(&CharTokens::default().display(e.ids[i]));
        }
    }
    out
}

const TWO_TURNS: [(&str, &str); 4] = [("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"), ("assistant", "So.")];

#[test]
fn chatml_labels_hold_the_newline_after_the_end_of_turn() {
    let (parts, method) = trained(&CHATML, &chat(&TWO_TURNS), Labels::Assistant).unwrap();
    assert_eq!(parts, [["Hello<|im_end|>\n", "So.<|im_end|>\n"]]);
    assert_eq!(method, MaskMethod::Prefix);
}

#[test]
fn llama3_and_gemma_labels_run_to_their_own_end_of_turn() {
    let padded = [("user", "Hi"), ("assistant", " Hello "), ("user", "Why?"), ("assistant", "So.")];
    let (parts, method) = trained(&LLAMA3, &chat(&padded), Labels::Assistant).unwrap();
    assert_eq!(
        (parts, method),
        (vec![vec!["Hello<|eot_id|>".to_string(), "So.<|eot_id|>".into()]], MaskMethod::Prefix)
    );
    let (parts, method) = trained(&GEMMA, &chat(&padded), Labels::Assistant).unwrap();
    assert_eq!(parts, [["Hello<end_of_turn>\n", "So.<end_of_turn>\n"]]);
    assert_eq!(method, MaskMethod::Prefix);
}

#[test]
fn a_single_turn_of_qwen3_is_a_prefix_and_its_thought_is_a_label() {
    let (parts, method) = trained(&QWEN3, &chat(&TWO_TURNS[..2]), Labels::Assistant).unwrap();
    assert_eq!(parts, [["<think>\n\n</think>\n\nHello<|im_end|>\n"]]);
    assert_eq!(method, MaskMethod::Prefix);
}

#[test]
fn where_earlier_turns_render_otherwise_each_turn_is_an_example_of_its_own() {
    let (parts, method) = trained(&QWEN3, &chat(&TWO_TURNS), Labels::Assistant).unwrap();
    assert_eq!(parts, [["<think>\n\n</think>\n\nHello<|im_end|>\n"], ["<think>\n\n</think>\n\nSo.<|im_end|>\n"]]);
    assert_eq!(method, MaskMethod::TurnByTurn);
}

#[test]
fn where_earlier_turns_render_otherwise_generation_marks_are_used_if_there_are_any() {
    let (parts, method) = trained(&QWEN3_MARKED, &chat(&TWO_TURNS), Labels::Assistant).unwrap();
    assert_eq!(parts, [["Hello<|im_end|>", "<think>\n\n</think>\n\nSo.<|im_end|>"]]);
    assert_eq!(method, MaskMethod::Marks);
}

#[test]
fn the_last_assistant_turn_alone_can_be_the_label() {
    for (template, end) in [(&CHATML, "<|im_end|>\n"), (&GEMMA, "<end_of_turn>\n"), (&LLAMA3, "<|eot_id|>")] {
        let (parts, _) = trained(template, &chat(&TWO_TURNS), Labels::LastAssistant).unwrap();
        assert_eq!(parts, [[format!("So.{end}")]]);
    }
    let (parts, method) = trained(&QWEN3, &chat(&TWO_TURNS), Labels::LastAssistant).unwrap();
    assert_eq!(parts, [["<think>\n\n</think>\n\nSo.<|im_end|>\n"]]);
    assert_eq!(method, MaskMethod::Prefix);
}

#[test]
fn without_a_mask_every_token_is_a_label() {
    let (parts, method) = trained(&LLAMA3, &chat(&TWO_TURNS[..2]), Labels::All).unwrap();
    assert!(parts[0][0].starts_with("<|begin_of_text|>") && parts[0][0].ends_with("Hello<|eot_id|>"));
    assert_eq!(method, MaskMethod::All);
}

#[test]
fn messages_as_prompt_and_completion_are_labelled_after_the_prompt() {
    let mut c = chat(&TWO_TURNS);
    c.prompt = Some(3);
    let (parts, method) = trained(&CHATML, &c, Labels::Completion).unwrap();
    assert_eq!(parts, [["So.<|im_end|>\n"]]);
    assert_eq!(method, MaskMethod::Completion);
    let (parts, _) = trained(&CHATML, &c, Labels::Assistant).unwrap();
    assert_eq!(parts, [["So.<|im_end|>\n"]]);
}

#[test]
fn a_leading_assistant_turn_is_labelled_from_its_content_on() {
    let c = chat(&[("assistant", "Welcome"), ("user", "Hi"), ("assistant", "Hello")]);
    let (parts, method) = trained(&CHATML, &c, Labels::Assistant).unwrap();
    assert_eq!(parts, [["Welcome<|im_end|>\n"], ["Hello<|im_end|>\n"]]);
    assert_eq!(method, MaskMethod::TurnByTurn);
}

#[test]
fn a_generation_prompt_that_the_full_text_does_not_repeat_parts_where_they_differ() {
    let template = Jinja(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n' }}{% endif %}",
    );
    let (parts, method) = trained(&template, &chat(&TWO_TURNS[..2]), Labels::Assistant).unwrap();
    assert_eq!(parts, [["Hello<|im_end|>\n"]]);
    assert_eq!(method, MaskMethod::Parted);
}

#[test]
fn labels_never_begin_in_an_earlier_turn() {
    // Two assistant turns on end: alone, the first is the last turn and renders with its thought.
    let c = chat(&[("user", "Hi"), ("assistant", "Hello"), ("assistant", "again")]);
    let (parts, method) = trained(&QWEN3, &c, Labels::Assistant).unwrap();
    assert_eq!(parts, [["<think>\n\n</think>\n\nHello<|im_end|>\n"], ["again<|im_end|>\n"]]);
    assert_eq!(method, MaskMethod::Parted);
}

#[test]
fn what_a_template_raises_and_a_chat_without_assistant_are_problems_of_the_row() {
    let e = trained(&GEMMA, &chat(&[("system", "S"), ("user", "Hi"), ("assistant", "x")]), Labels::Assistant);
    assert!(e.unwrap_err().contains("roles must alternate"));
    let e = trained(&CHATML, &chat(&TWO_TURNS[..1]), Labels::Assistant).unwrap_err();
    assert!(e.contains("no assistant turn"), "{e}");
}

#[test]
fn the_same_text_as_user_and_assistant_is_labelled_once() {
    let c = chat(&[("user", "same"), ("assistant", "same")]);
    let (parts, _) = trained(&CHATML, &c, Labels::Assistant).unwrap();
    assert_eq!(parts, [["same<|im_end|>\n"]]);
}

#[test]
fn a_plain_completion_begins_where_its_tokens_part_from_the_prompts() {
    let tokens = CharTokens { bos: true };
    let l = pair(&tokens, "a b", " c<|endoftext|>", true).unwrap();
    assert_eq!(parts(&l), [" c<|endoftext|>"]);
    assert_eq!(l.ids[0], crate::data::fakes::BOS);
    assert!(pair(&tokens, "a b", " c", false).unwrap().trained.iter().all(|&t| t));
}

/// Merges a pair of equal letters, so that tokens can cross from a prompt into its completion.
struct Doubles;

impl Encode for Doubles {
    fn encode(&self, text: &str, _: bool) -> crate::Result<Encoding> {
        let mut out = Encoding::default();
        let chars: Vec<(usize, char)> = text.char_indices().collect();
        let mut i = 0;
        while i < chars.len() {
            let double = i + 1 < chars.len() && chars[i].1 == chars[i + 1].1;
            let n = if double { 2 } else { 1 };
            out.ids.push(u32::from(chars[i].1) + if double { 1000 } else { 0 });
            out.offsets.push(chars[i].0..chars.get(i + n).map_or(text.len(), |c| c.0));
            i += n;
        }
        Ok(out)
    }

    fn display(&self, id: u32) -> String {
        id.to_string()
    }

    fn identity(&self) -> crate::Result<String> {
        Ok("doubles".into())
    }
}

#[test]
fn a_token_across_the_edge_of_the_prompt_is_a_label() {
    // "ab" + "bc" is a, bb, c: the prompt's own b is not there any more.
    assert_eq!(pair(&Doubles, "ab", "bc", true).unwrap().trained, [false, true, true]);
    let e = Doubles.encode("abbc", false).unwrap();
    assert_eq!(e.covered(std::slice::from_ref(&(2..4))), [false, true, true]);
}

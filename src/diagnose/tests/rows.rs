use super::recipe;
use crate::data::batch::Example;
use crate::diagnose::{Preflight, blocked, passed, preflight};
use crate::recipe::Recipe;
use crate::train::event::{Finding, Severity};

const BOS: u32 = 1;
const USER: u32 = 2;
const BOT: u32 = 3;
const END: u32 = 4;
const NEWLINE: u32 = 5;
const TEMPLATE: &str = "{{ '<|user|>' + x + '<|end|>' + '<|bot|>' + y + '<|end|>' }}";

/// user words END | bot words END NEWLINE, with the label span from after the bot marker to the end of the turn.
fn chat(row: u32) -> Example {
    let words = [10 + row, 11, 12];
    let mut ids = vec![USER];
    ids.extend(words);
    ids.extend([END, NEWLINE, BOT]);
    let mut trained = vec![false; ids.len()];
    ids.extend([20 + row, 21, END, NEWLINE]);
    trained.extend([true; 4]);
    Example { ids: ids.into(), trained: trained.into(), row, truncated: false }
}

fn chats(n: u32) -> Vec<Example> {
    (0..n).map(chat).collect()
}

fn name(id: u32) -> String {
    match id {
        BOS => "<s>".into(),
        USER => "<|user|>".into(),
        BOT => "<|bot|>".into(),
        END => "<|end|>".into(),
        NEWLINE => "\n".into(),
        w => format!(" w{w}"),
    }
}

fn run(recipe: &Recipe, examples: &[Example], template: &str, own: Option<&str>) -> Vec<Finding> {
    let decode = |ids: &[u32]| ids.iter().map(|id| name(*id)).collect::<String>();
    let encode = |text: &str| match text {
        "<|user|>" | "<|bot|>" | "<|end|>" => vec![7],
        _ => vec![8; text.len()],
    };
    preflight(&Preflight {
        recipe,
        examples,
        end_ids: &[END],
        bos_id: Some(BOS),
        decode: &decode,
        encode: &encode,
        template: Some(template),
        own_template: own,
        parameters: None,
        near_duplicates: None,
    })
}

fn found<'a>(list: &'a [Finding], rule: &str) -> &'a Finding {
    list.iter().find(|f| f.rule == rule).unwrap_or_else(|| panic!("{rule} is not said: {list:#?}"))
}

#[test]
fn healthy_rows_pass_every_rule() {
    let list = run(&recipe(""), &chats(120), TEMPLATE, Some(TEMPLATE));
    assert!(list.iter().all(|f| f.severity == Severity::Passed), "{list:#?}");
    assert_eq!(list.len(), 7);
    assert_eq!(found(&list, "stop_token").evidence, "120/120 turns");
    assert!(blocked(&list).is_none());
    let stop = ("stop_token".to_string(), "stop token trained".to_string(), "120/120 turns".to_string());
    assert!(passed(&list).len() == 7 && passed(&list).contains(&stop));
}

#[test]
fn rows_without_any_label_block() {
    let mut rows = chats(120);
    rows.iter_mut().for_each(|e| e.trained.to_mut().fill(false));
    let list = run(&recipe(""), &rows, TEMPLATE, Some(TEMPLATE));
    assert_eq!(found(&list, "mask_all").severity, Severity::Error);
    let error = blocked(&list).unwrap();
    assert_eq!(error.kind, crate::Kind::Blocked);
    assert!(error.to_string().contains("check.allow = [\"mask_all\"]"), "{error}");
}

#[test]
fn the_share_of_rows_without_a_label_decides_how_bad_it_is() {
    for (masked, severity) in [(1, Severity::Note), (5, Severity::Warning), (100, Severity::Error)] {
        let mut rows = chats(120);
        rows.iter_mut().take(masked).for_each(|e| e.trained.to_mut().fill(false));
        let list = run(&recipe(""), &rows, TEMPLATE, Some(TEMPLATE));
        assert_eq!(found(&list, "mask_all").severity, severity, "{masked}");
    }
}

#[test]
fn a_label_on_the_first_token_alone_counts_for_nothing() {
    let row = Example { ids: vec![9, 10].into(), trained: vec![true, false].into(), row: 0, truncated: false };
    let list = run(&recipe(""), &[row], TEMPLATE, Some(TEMPLATE));
    assert_eq!(found(&list, "mask_all").title, "no token is trained on");
}

/// pad = eos, and labels masked by the pad's id.
#[test]
fn an_end_token_masked_by_its_id_blocks_and_is_shown() {
    let mut rows = chats(120);
    for e in &mut rows {
        for i in 0..e.ids.len() {
            if e.ids[i] == END {
                e.trained.to_mut()[i] = false;
            }
        }
        let last = e.ids.len() - 1;
        e.trained.to_mut()[last] = false;
    }
    let list = run(&recipe(""), &rows, TEMPLATE, Some(TEMPLATE));
    let f = found(&list, "stop_token");
    assert_eq!(f.severity, Severity::Error);
    assert!(f.evidence.starts_with("0/120 turns; row 0 ends in") && f.evidence.contains("<|end|>"), "{}", f.evidence);
}

#[test]
fn an_end_token_missing_in_some_turns_is_a_warning() {
    let mut rows = chats(120);
    rows.iter_mut().take(30).for_each(|e| {
        let n = e.ids.len() - 2;
        e.ids.to_mut().truncate(n);
        e.trained.to_mut().truncate(n);
    });
    let f = run(&recipe(""), &rows, TEMPLATE, Some(TEMPLATE));
    let f = found(&f, "stop_token");
    assert_eq!((f.severity, f.title.as_str()), (Severity::Warning, "stop token untrained in some rows"));
    assert!(f.evidence.starts_with("90/120 turns"));
}

#[test]
fn every_turn_of_a_long_chat_counts_and_a_cut_one_does_not() {
    let (a, b) = (chat(1), chat(2));
    let mut e = Example {
        ids: [&a.ids[..], &b.ids[..]].concat().into(),
        trained: [&a.trained[..], &b.trained[..]].concat().into(),
        ..Example::default()
    };
    let list = run(&recipe(""), &[e.clone()], TEMPLATE, Some(TEMPLATE));
    assert_eq!(found(&list, "stop_token").evidence, "2/2 turns");
    let n = e.ids.len() - 3;
    e.ids.to_mut().truncate(n);
    e.trained.to_mut().truncate(n);
    e.truncated = true;
    let list = run(&recipe(""), &[e.clone()], TEMPLATE, Some(TEMPLATE));
    assert_eq!(found(&list, "stop_token").evidence, "1/1 turns");
    e.truncated = false;
    let list = run(&recipe(""), &[e], TEMPLATE, Some(TEMPLATE));
    assert!(found(&list, "stop_token").evidence.starts_with("1/2 turns"));
}

#[test]
fn a_foreign_template_blocks_where_the_model_has_its_own() {
    let foreign = "{{ '<|user|>' + x + '<|im_foreign|>' }}";
    let mut rows = chats(120);
    let list = run(&recipe(""), &rows, foreign, Some(TEMPLATE));
    // The marker is in no row: that branch is not taken.
    assert_eq!(found(&list, "template_mismatch").severity, Severity::Warning);
    rows[0].ids.to_mut()[0] = BOS;
    let plain = "{{ '<s>' + x }}";
    let list = run(&recipe(""), &rows, plain, Some(TEMPLATE));
    let f = found(&list, "template_mismatch");
    assert_eq!(f.severity, Severity::Error);
    assert_eq!(f.evidence, "<s> is 3 tokens.");
    assert_eq!(found(&run(&recipe(""), &rows, plain, None), "template_mismatch").severity, Severity::Warning);
}

#[test]
fn two_begin_tokens_are_said() {
    let mut rows = chats(120);
    for e in &mut rows {
        e.ids.to_mut().splice(0..0, [BOS, BOS]);
        e.trained.to_mut().splice(0..0, [false, false]);
    }
    let list = run(&recipe(""), &rows, TEMPLATE, Some(TEMPLATE));
    assert!(found(&list, "template_mismatch").evidence.contains("120 of 120 rows"));
}

#[test]
fn few_cut_and_repeated_rows_are_said_with_their_numbers() {
    let mut rows = chats(50);
    rows.extend(chats(20));
    rows[3].truncated = true;
    let list = run(&recipe(""), &rows, TEMPLATE, Some(TEMPLATE));
    assert_eq!(found(&list, "few_rows").severity, Severity::Warning);
    assert!(found(&list, "few_rows").evidence.starts_with("50 rows"));
    assert_eq!(found(&list, "truncated").severity, Severity::Note);
    let f = found(&list, "duplicates");
    assert_eq!(f.severity, Severity::Warning);
    assert!(f.evidence.starts_with("20 of 70 rows (28.6 %)"), "{}", f.evidence);
}

#[test]
fn a_rate_that_a_small_model_bears_is_in_range() {
    let r = recipe("[train]\nlearning_rate = 2e-3\n");
    let rows = chats(120);
    let look = |parameters| {
        let list = preflight(&Preflight {
            recipe: &r,
            examples: &rows,
            end_ids: &[END],
            bos_id: None,
            decode: &|_| String::new(),
            encode: &|_| vec![7],
            template: None,
            own_template: None,
            parameters: Some(parameters),
            near_duplicates: None,
        });
        let f = found(&list, "rate_range");
        (f.severity, f.evidence.clone())
    };
    assert_eq!(look(1_400_000), (Severity::Passed, "0.002; LoRA: 1e-4 – 3e-3 for a model this small".into()));
    assert_eq!(look(7_000_000_000).0, Severity::Warning);
}

#[test]
fn a_rate_outside_the_range_is_a_warning_with_the_rate_to_begin_with() {
    for (rate, title) in [("2e-5", "learning rate is low"), ("3e-3", "learning rate is high")] {
        let list = run(&recipe(&format!("[train]\nlearning_rate = {rate}\n")), &chats(120), TEMPLATE, Some(TEMPLATE));
        let f = found(&list, "rate_range");
        assert_eq!((f.severity, f.title.as_str()), (Severity::Warning, title));
        assert_eq!(f.fix.as_ref().unwrap().label, "train.learning_rate = 2e-4");
    }
}

#[test]
fn what_is_allowed_no_longer_blocks_and_says_so() {
    let mut rows = chats(120);
    rows.iter_mut().for_each(|e| e.trained.to_mut().fill(false));
    let list = run(&recipe("[check]\nallow = [\"mask_all\"]\n"), &rows, TEMPLATE, Some(TEMPLATE));
    let f = found(&list, "mask_all");
    assert_eq!(f.severity, Severity::Warning);
    assert!(f.evidence.ends_with("Allowed by check.allow."));
    assert!(blocked(&list).is_none());
}

#[test]
fn plain_text_is_judged_by_its_ends_and_labels_only() {
    let text = "method = \"cpt\"\n[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"a\"\n[lora]\n";
    let r = crate::recipe::parse(text, "c.toml", &[]).unwrap().recipe;
    let block = |ids: Vec<u32>, more: bool| Example {
        trained: vec![true; ids.len()].into(),
        ids: ids.into(),
        row: 0,
        truncated: more,
    };
    let rows = [block(vec![10, 11, 12], true), block(vec![13, 14, END], false)];
    let list = run(&r, &rows, TEMPLATE, None);
    assert_eq!(found(&list, "stop_token").evidence, "1/1 texts");
    assert!(list.iter().all(|f| f.severity == Severity::Passed), "{list:#?}");
}

#[test]
fn near_duplicates_that_were_counted_are_named() {
    let r = recipe("");
    let rows = chats(120);
    let decode = |_: &[u32]| String::new();
    let encode = |_: &str| vec![7];
    let list = preflight(&Preflight {
        recipe: &r,
        examples: &rows,
        end_ids: &[END],
        bos_id: None,
        decode: &decode,
        encode: &encode,
        template: None,
        own_template: None,
        parameters: None,
        near_duplicates: Some(1_912),
    });
    assert_eq!(found(&list, "duplicates").evidence, "1,912 rows repeat an earlier one but for case and punctuation.");
}

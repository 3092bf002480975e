use super::*;
use crate::data::fakes::{CHATML, CharTokens};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

const TOKENS: CharTokens = CharTokens { bos: false };
const MODEL: ModelSide<'static> =
    ModelSide { encode: &TOKENS, render: Some(&CHATML), eos_token: Some("<|endoftext|>") };

/// A recipe over `train`, with further lines of TOML: `method` at the top, then tables.
fn recipe(train: &Path, top: &str, data: &str, train_table: &str) -> Recipe {
    let text = format!(
        "{top}\n[model]\nname_or_path = \"demo\"\nmax_seq_length = 64\n[data]\ntrain = {train:?}\n{data}\n[train]\n{train_table}\n"
    );
    crate::recipe::parse(&text, "r.toml", &[]).unwrap().recipe
}

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn run(recipe: &Recipe) -> Result<Prepared> {
    prepare(recipe, &MODEL, None, &|_, _| ())
}

fn alpaca(n: usize) -> String {
    (0..n).map(|i| format!("{{\"instruction\":\"q{i}\",\"input\":\"\",\"output\":\"a{i}\"}}\n")).collect()
}

fn seen(e: &Example) -> String {
    super::super::explain(e, &TOKENS).into_iter().filter(|t| t.2).map(|t| t.0).collect()
}

#[test]
fn alpaca_rows_become_examples_whose_labels_are_the_answers() {
    let dir = tempfile::tempdir().unwrap();
    let p = run(&recipe(&file(&dir, "a.jsonl", &alpaca(3)), "", "", "")).unwrap();
    assert_eq!(p.train.iter().map(seen).collect::<Vec<_>>(), ["a0<|im_end|>\n", "a1<|im_end|>\n", "a2<|im_end|>\n"]);
    assert_eq!(p.train.iter().map(|e| e.row).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(p.eval.is_empty());
    let s = &p.summary;
    assert_eq!((s.format, s.rows, s.bad, s.examples), (Format::Alpaca, 3, 0, 3));
    assert_eq!(s.why, "columns instruction, output, input in 3 of 3 rows");
    assert_eq!(s.mask.prefix, 3);
    assert_eq!(s.label_tokens, 12);
    assert_eq!(s.sources[0].rows, 3);
    assert!(p.rows.text(2).unwrap().text.contains("q2"));
}

#[test]
fn a_document_is_taken_from_the_column_that_the_recipe_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.jsonl", "{\"text\":\"no\",\"body\":\"yes\"}\n{\"body\":\"and this\"}\n");
    let p = run(&recipe(&path, "method = \"cpt\"", "text_column = \"body\"", "packing = false")).unwrap();
    // The first token of a document is predicted from nothing.
    assert!(seen(&p.train[0]).contains("es") && seen(&p.train[1]).contains("nd this"));
    assert_eq!((p.summary.why.as_str(), p.summary.bad), ("column body in 2 of 2 rows", 0));
    let e = run(&recipe(&path, "method = \"cpt\"", "text_column = \"content\"", "")).unwrap_err().to_string();
    assert!(e.contains("the column content (data.text_column) is missing"), "{e}");
}

#[test]
fn one_bad_row_in_a_hundred_is_left_out_and_listed_and_two_stop_the_read() {
    let dir = tempfile::tempdir().unwrap();
    let one = format!("{}{{\"instruction\":\"q\",\"output\":\"\"}}\n", alpaca(99));
    let p = run(&recipe(&file(&dir, "a.jsonl", &one), "", "", "")).unwrap();
    assert_eq!((p.train.len(), p.summary.bad), (99, 1));
    assert_eq!((p.summary.bad_rows[0].line, p.summary.bad_rows[0].row), (100, 99));
    assert!(p.summary.bad_rows[0].problem.contains("output is empty"));

    let two = format!("{one}{{oops\n");
    let path = file(&dir, "b.jsonl", &two);
    let e = run(&recipe(&path, "", "", "")).unwrap_err();
    assert_eq!(e.kind, Kind::Blocked);
    let text = e.to_string();
    assert!(text.contains("2 of 101 rows") && text.contains("b.jsonl:101 (row 100): not valid JSON"), "{text}");
    let p = run(&recipe(&path, "", "max_bad_rows = 0.02", "")).unwrap();
    assert_eq!((p.train.len(), p.summary.bad), (99, 2));
}

#[test]
fn a_row_that_the_template_refuses_is_a_bad_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n");
    let e = run(&recipe(&path, "", "", "")).unwrap_err().to_string();
    assert!(e.contains("a.jsonl:1 (row 0): there is no assistant turn"), "{e}");
}

#[test]
fn held_out_rows_are_a_seeded_share_and_never_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.jsonl", &alpaca(50));
    let rows = |e: &[Example]| e.iter().map(|e| e.row).collect::<Vec<_>>();
    let p = run(&recipe(&path, "", "eval_fraction = 0.1", "")).unwrap();
    assert_eq!((p.train.len(), p.eval.len(), p.summary.held_out_rows), (45, 5, 5));
    assert!(rows(&p.eval).iter().all(|r| !rows(&p.train).contains(r)));
    assert!(rows(&p.eval).windows(2).all(|w| w[0] < w[1]) && rows(&p.train).windows(2).all(|w| w[0] < w[1]));
    let again = run(&recipe(&path, "", "eval_fraction = 0.1", "")).unwrap();
    assert_eq!(rows(&again.eval), rows(&p.eval));
    let other = run(&recipe(&path, "", "eval_fraction = 0.1", "seed = 1")).unwrap();
    assert_ne!(rows(&other.eval), rows(&p.eval));
    let least = run(&recipe(&path, "", "eval_fraction = 0.001", "")).unwrap();
    assert_eq!(least.eval.len(), 1);
}

#[test]
fn one_row_cannot_be_shared_between_training_and_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.jsonl", &alpaca(1));
    let e = run(&recipe(&path, "", "eval_fraction = 0.1", "")).unwrap_err().to_string();
    assert!(e.contains("only 1 to share"), "{e}");
}

#[test]
fn an_eval_file_is_read_beside_and_rows_in_both_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let train = file(&dir, "a.jsonl", &alpaca(5));
    let eval = file(&dir, "e.jsonl", "{\"prompt\":\"q1\",\"completion\":\"new\"}\n");
    let p = run(&recipe(&train, "", &format!("eval = {eval:?}"), "")).unwrap();
    assert_eq!((p.train.len(), p.eval.len()), (5, 1));
    assert_eq!(p.eval_summary.as_ref().unwrap().eval_rows_in_train, 0);
    let p = run(&recipe(&train, "", &format!("eval = {train:?}"), "")).unwrap();
    let s = p.eval_summary.unwrap();
    assert_eq!(s.eval_rows_in_train, 5);
    assert!(s.notes.iter().any(|n| n.contains("5 evaluation rows also stand")), "{:?}", s.notes);
}

#[test]
fn a_text_file_is_one_document_cut_into_blocks_in_file_order() {
    let dir = tempfile::tempdir().unwrap();
    let body: String = (0..150).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    let (a, _b) = (file(&dir, "a.txt", &body), file(&dir, "b.md", "second\nline\n"));
    let p = run(&recipe(a.parent().unwrap(), "method = \"cpt\"", "shuffle = false", "")).unwrap();
    assert_eq!(p.summary.why, "2 text files, one document each");
    assert_eq!(p.train.iter().map(|e| (e.row, e.ids.len())).collect::<Vec<_>>(), [(0, 64), (0, 64), (0, 23), (1, 13)]);
    let joined: String =
        p.train.iter().flat_map(|e| e.ids.iter()).map(|&i| crate::data::traits::Encode::display(&TOKENS, i)).collect();
    assert_eq!(joined, format!("{body}<|endoftext|>second\nline\n<|endoftext|>"));
    assert_eq!(p.summary.truncated, 0);
}

#[test]
fn a_text_file_is_cut_into_blocks_by_sft_too_while_a_text_column_is_cut_to_length() {
    let dir = tempfile::tempdir().unwrap();
    let body = "abcdefgh".repeat(20);
    let p = run(&recipe(&file(&dir, "a.txt", &body), "", "", "")).unwrap();
    assert_eq!((p.train.len(), p.summary.truncated), (3, 0));
    let p = run(&recipe(&file(&dir, "a.jsonl", &format!("{{\"text\":\"{body}\"}}")), "", "", "")).unwrap();
    assert_eq!((p.train.len(), p.summary.truncated), (1, 1));
}

#[test]
fn a_single_document_is_held_out_by_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.txt", &"abcdefgh".repeat(100));
    let p = run(&recipe(&path, "method = \"cpt\"", "eval_fraction = 0.1", "")).unwrap();
    assert_eq!((p.train.len(), p.eval.len()), (12, 1));
    assert!(p.summary.notes.iter().any(|n| n.contains("1 of 13 blocks")), "{:?}", p.summary.notes);
}

#[test]
fn rows_cut_to_nothing_are_left_out_and_said_and_if_all_are_the_read_fails() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(100);
    let rows = format!("{{\"prompt\":\"a\",\"completion\":\"b\"}}\n{{\"prompt\":\"{long}\",\"completion\":\"c\"}}\n");
    let p = run(&recipe(&file(&dir, "a.jsonl", &rows), "", "", "")).unwrap();
    assert_eq!((p.train.len(), p.summary.masked_out, p.summary.truncated), (1, 1, 1));
    assert_eq!(p.summary.masked_out_rows, [1]);
    assert!(p.summary.notes.iter().any(|n| n.contains("data.messages")), "{:?}", p.summary.notes);
    let rows = format!("{{\"prompt\":\"{long}\",\"completion\":\"c\"}}\n");
    let e = run(&recipe(&file(&dir, "b.jsonl", &rows), "", "", "")).unwrap_err().to_string();
    assert!(e.contains("max_seq_length 64"), "{e}");
}

#[test]
fn duplicates_and_unused_columns_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "{\"id\":1,\"text\":\"Once upon\"}\n{\"id\":2,\"text\":\"once  UPON!\"}\n{\"id\":3,\"text\":\"else\"}\n";
    let p = run(&recipe(&file(&dir, "a.jsonl", rows), "", "", "")).unwrap();
    assert_eq!(p.summary.duplicates, 1);
    assert!(p.summary.notes.contains(&"columns that are not read: id".to_string()), "{:?}", p.summary.notes);
}

#[test]
fn a_generation_prompt_that_is_not_in_the_training_text_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(&file(&dir, "a.jsonl", &alpaca(3)), "", "", "");
    let opens_a_thought = crate::data::fakes::Jinja(
        "{% for m in messages %}{{ m.role + ':' + m.content + '<|im_end|>' }}{% endfor %}\
         {% if add_generation_prompt %}{{ 'assistant:<think>' }}{% endif %}",
    );
    let model = ModelSide { render: Some(&opens_a_thought), ..MODEL };
    let p = prepare(&recipe, &model, None, &|_, _| ()).unwrap();
    assert_eq!((p.summary.mask.parted, seen(&p.train[0]).as_str()), (3, "a0<|im_end|>"));
    assert!(p.summary.notes.iter().any(|n| n.starts_with("in 3 rows the training text")), "{:?}", p.summary.notes);
}

#[test]
fn templates_over_the_columns_take_the_place_of_detection() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.jsonl", "{\"question\":\"why\",\"answer\":\"so\",\"id\":4}\n");
    let messages = "messages = [{ role = \"user\", content = \"Q: {{ question }}\" }, { role = \"assistant\", content = \"{{ answer }}\" }]";
    let p = run(&recipe(&path, "", messages, "")).unwrap();
    assert_eq!(seen(&p.train[0]), "so<|im_end|>\n");
    assert_eq!(p.summary.why, "the recipe's templates over the columns question, answer");
    let e = run(&recipe(&path, "", &messages.replace("answer", "answers"), "")).unwrap_err().to_string();
    assert!(e.contains("names the column answers") && e.contains("{{ answer }}?"), "{e}");
}

#[test]
fn a_model_without_a_template_is_said_once_and_not_for_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(&file(&dir, "a.jsonl", &alpaca(3)), "", "", "");
    let model = ModelSide { render: None, ..MODEL };
    let e = prepare(&recipe, &model, None, &|_, _| ()).unwrap_err().to_string();
    assert!(e.contains("no chat template") && e.contains("model.chat_template"), "{e}");
}

#[test]
fn files_with_nothing_in_them_are_errors_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let e = run(&recipe(&file(&dir, "a.jsonl", "\n\n"), "", "", "")).unwrap_err().to_string();
    assert!(e.contains("there are no rows in") && e.contains("a.jsonl"), "{e}");
    let e = run(&recipe(&file(&dir, "b.jsonl", "{oops\n{oops\n"), "", "", "")).unwrap_err().to_string();
    assert!(e.contains("b.jsonl:1") && e.contains("no row can be read"), "{e}");
}

#[test]
fn progress_ends_with_every_row_done() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(&file(&dir, "a.jsonl", &alpaca(200)), "", "", "");
    let (most, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
    prepare(&recipe, &MODEL, None, &|done, total| {
        assert_eq!(total, 200);
        most.fetch_max(done, Ordering::Relaxed);
        calls.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(most.into_inner(), 200);
    assert!(calls.into_inner() <= 6);
}

#[test]
fn a_cache_hit_equals_a_miss_and_any_change_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache { folder: dir.path().join("cache"), cap: 1 << 20 };
    let path = file(&dir, "a.jsonl", &format!("{}{{\"oops\":1}}\n", alpaca(120)));
    let of = |recipe: &Recipe| prepare(recipe, &MODEL, Some(&cache), &|_, _| ()).unwrap();
    let first = of(&recipe(&path, "", "eval_fraction = 0.1", ""));
    let mut second = of(&recipe(&path, "", "eval_fraction = 0.1", ""));
    assert!(!first.summary.from_cache && second.summary.from_cache);
    second.summary.from_cache = false;
    assert_eq!(first, second);

    let other = of(&recipe(&path, "", "", "assistant_only_loss = false"));
    assert!(!other.summary.from_cache && other.summary.mask.all == 120);
    std::fs::write(&path, alpaca(121)).unwrap();
    assert!(!of(&recipe(&path, "", "", "")).summary.from_cache);
}

#[test]
fn sources_of_different_formats_are_mixed_by_their_weights() {
    let dir = tempfile::tempdir().unwrap();
    let mine = file(
        &dir,
        "mine.csv",
        &format!("question,answer\n{}", (0..40).map(|i| format!("q{i},a{i}\n")).collect::<String>()),
    );
    let chat: String = (0..100)
        .map(|i| format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"u{i}\"}},{{\"role\":\"assistant\",\"content\":\"c{i}\"}}]}}\n"))
        .collect();
    let chat = file(&dir, "chat.jsonl", &chat);
    let text = format!(
        "[model]\nname_or_path = \"demo\"\nmax_seq_length = 64\n[data]\n\
         train = [{{ path = {mine:?}, weight = 0.8 }}, {{ path = {chat:?}, weight = 0.2, format = \"messages\" }}]\n\
         messages = [{{ role = \"user\", content = \"{{{{ question }}}}\" }}, {{ role = \"assistant\", content = \"{{{{ answer }}}}\" }}]\n"
    );
    let recipe = crate::recipe::parse(&text, "r.toml", &[]).unwrap().recipe;
    let p = run(&recipe).unwrap();
    assert_eq!((p.train.len(), p.summary.rows, p.summary.examples), (50, 140, 50));
    assert_eq!(p.train.iter().filter(|e| e.row >= 40).count(), 10);
    let seen: Vec<String> = p.train.iter().map(seen).collect();
    assert!((0..40).all(|i| seen.contains(&format!("a{i}<|im_end|>\n"))));
    // A row's number leads to its file and line, in either source.
    let drawn = p.train.iter().find(|e| e.row >= 40).unwrap();
    let row = p.rows.text(drawn.row).unwrap();
    assert_eq!((row.file, row.line), (chat, drawn.row - 40 + 1));
    assert!(seen.contains(&format!("c{}<|im_end|>\n", drawn.row - 40)));
    let shares: Vec<_> = p.summary.mixture.iter().map(|s| (s.source.as_str(), s.available, s.seen)).collect();
    assert_eq!(shares, [("mine.csv", 40, 40), ("chat.jsonl", 100, 10)]);
    assert!(
        p.summary.why.starts_with("mine.csv: the recipe's templates") && p.summary.why.contains("; chat.jsonl: "),
        "{}",
        p.summary.why
    );
    assert_eq!(run(&recipe).unwrap().train, p.train);
}

#[test]
fn many_rows_are_read_by_the_format_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "a.jsonl", &alpaca(12_345));
    let p = run(&recipe(&path, "", "", "")).unwrap();
    assert_eq!((p.train.len(), p.summary.rows), (12_345, 12_345));
    assert!(p.train.iter().enumerate().all(|(i, e)| e.row == i as u32));
    assert!(p.summary.why.ends_with("the first of 12345"), "{}", p.summary.why);
    assert_eq!(seen(&p.train[12_344]), "a12344<|im_end|>\n");
}

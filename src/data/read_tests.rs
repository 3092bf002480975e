use super::*;

fn read(name: &str, bytes: &[u8]) -> Vec<Raw> {
    rows(Path::new(name), bytes, 0).unwrap()
}

fn texts(rows: &[Raw]) -> Vec<String> {
    rows.iter().map(|r| r.columns.as_ref().unwrap()["text"].as_str().unwrap().to_string()).collect()
}

#[test]
fn json_lines_keep_line_numbers_over_blank_lines_bom_and_crlf() {
    let rows = read("a.jsonl", b"\xEF\xBB\xBF{\"text\":\"one\"}\r\n\r\n{\"text\":\"two\"}\r\n");
    assert_eq!(texts(&rows), ["one", "two"]);
    assert_eq!(rows.iter().map(|r| r.place.line).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_json_array_gives_the_line_and_bytes_of_each_element() {
    let bytes = b"[\n  {\"text\": \"one\"},\n  {\"text\":\n \"two\"}\n]\n";
    let rows = read("a.json", bytes);
    assert_eq!(texts(&rows), ["one", "two"]);
    assert_eq!(rows.iter().map(|r| r.place.line).collect::<Vec<_>>(), [2, 3]);
    let p = rows[1].place;
    assert_eq!(&bytes[p.offset as usize..(p.offset + p.len) as usize], b"{\"text\":\n \"two\"}");
}

#[test]
fn rows_under_data_are_found_and_other_keys_are_passed_over() {
    let rows = read("a.json", br#"{"version": {"data": 1}, "data": [{"text": "one"}], "n": [1, 2]}"#);
    assert_eq!(texts(&rows), ["one"]);
}

#[test]
fn json_lines_under_the_name_json_and_an_array_under_jsonl_are_both_read() {
    assert_eq!(texts(&read("a.json", b"{\"text\":\"one\"}\n{\"text\":\"two\"}\n")), ["one", "two"]);
    assert_eq!(texts(&read("a.json", b"{\"text\":\"one\"}")), ["one"]);
    assert_eq!(texts(&read("a.jsonl", b"[\n{\"text\":\"one\"},\n{\"text\":\"two\"}]")), ["one", "two"]);
}

#[test]
fn a_cut_off_array_fails_with_its_line() {
    let e = rows(Path::new("a.json"), b"[\n{\"text\": \"one\"},\n{\"text\": ", 0).unwrap_err().to_string();
    assert!(e.contains("a.json") && e.contains("line 3"), "{e}");
    let e = rows(Path::new("a.json"), b"[{\"text\": \"one\"} {\"text\": \"two\"}]", 0).unwrap_err().to_string();
    assert!(e.contains("expected `,` or `]`"), "{e}");
}

#[test]
fn an_object_without_data_says_which_keys_it_has() {
    let e = rows(Path::new("a.json"), b"{\n\"train\": [],\n\"test\": []}", 0).unwrap_err().to_string();
    assert!(e.contains("train, test"), "{e}");
}

#[test]
fn a_bad_line_is_one_bad_row_and_the_others_are_read() {
    let rows =
        read("a.jsonl", b"{\"text\":\"one\"}\n{\"text\": oops}\n[1]\n{\"text\":\"\xff\"}\n{\"text\":\"five\"}\n");
    let problems: Vec<_> = rows.iter().map(|r| r.columns.as_ref().err().cloned().unwrap_or_default()).collect();
    assert_eq!(problems[0], "");
    assert!(problems[1].contains("not valid JSON at column 10"), "{}", problems[1]);
    assert!(problems[2].contains("expected an object with named columns, found a list"), "{}", problems[2]);
    assert!(problems[3].contains("not valid UTF-8 at byte 43"), "{}", problems[3]);
    assert_eq!(problems[4], "");
}

#[test]
fn a_text_file_is_one_document_without_bom_and_with_plain_newlines() {
    let rows = read("a.txt", b"\xEF\xBB\xBFone\r\ntwo\n");
    assert_eq!(texts(&rows), ["one\ntwo\n"]);
    assert!(rows[0].document);
}

#[test]
fn an_empty_text_file_and_one_that_is_not_utf8_are_bad_rows() {
    assert!(read("a.txt", b" \n")[0].columns.as_ref().unwrap_err().contains("empty"));
    assert!(read("a.md", b"abc\xffdef")[0].columns.as_ref().unwrap_err().contains("at byte 3"));
    assert!(read("a.jsonl", b"").is_empty());
    assert!(read("a.json", b"[]").is_empty());
}

#[test]
fn a_row_is_found_again_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    std::fs::write(&path, "{\"text\":\"one\"}\n  {\"text\":\"two\"}\n").unwrap();
    let rows = rows(&path, &std::fs::read(&path).unwrap(), 0).unwrap();
    let index = RowIndex { files: vec![path.clone()], places: rows.iter().map(|r| r.place).collect() };
    assert_eq!(index.text(1).unwrap(), RowText { file: path.clone(), line: 2, text: "{\"text\":\"two\"}".into() });
    assert!(index.text(2).unwrap_err().to_string().contains("rows are 0 to 1"));
    std::fs::write(&path, "{").unwrap();
    assert!(index.text(1).unwrap_err().to_string().contains("shorter"));
}

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

/// The rows of a file on disk, however many pieces they come in.
fn streamed(path: &Path) -> Result<Vec<Raw>> {
    let mut all = Vec::new();
    stream(path, 0, &mut |rows| {
        all.extend(rows);
        Ok(())
    })?;
    Ok(all)
}

#[test]
fn lines_read_in_pieces_are_those_of_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    // Lines of about 1 kB, with blank ones, a broken one, CRLF and a byte-order mark; more than two pieces.
    let mut text = String::from("\u{feff}");
    for i in 0..20_000 {
        text.push_str(&format!("{{\"text\":\"{i} {}\"}}{}", "ä".repeat(500), if i % 3 == 0 { "\r\n" } else { "\n" }));
        if i % 1000 == 0 {
            text.push_str("\n{oops\n");
        }
    }
    text.push_str("{\"text\":\"the last\"}");
    std::fs::write(&path, &text).unwrap();
    let whole = rows(&path, text.as_bytes(), 0).unwrap();
    let pieces = streamed(&path).unwrap();
    assert_eq!(pieces.len(), 20_021);
    assert_eq!(pieces, whole);
    let index = RowIndex { files: vec![path], places: pieces.iter().map(|r| r.place).collect() };
    assert_eq!(index.text(20_020).unwrap().text, "{\"text\":\"the last\"}");
    assert!(index.text(12_345).unwrap().text.starts_with("{\"text\":\"12332 ä"));
}

#[test]
fn json_is_told_from_json_lines_by_what_a_file_holds() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, n) in [
        ("array.jsonl", "[{\"a\":1},\n{\"a\":2}]", 2),
        ("array.json", "[{\"a\":1},{\"a\":2}]", 2),
        ("lines.json", "\n{\"a\":1}\n{\"a\":2}\n", 2),
        ("one.json", "{\"data\":[{\"a\":1}]}", 1),
        ("pretty.json", "{\n\"data\":[{\"a\":1}]\n}\n", 1),
        ("empty.jsonl", "\n\n", 0),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        assert_eq!(streamed(&path).unwrap().len(), n, "{name}");
    }
}

#[test]
fn csv_has_named_columns_quoted_fields_and_other_delimiters() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        (streamed(&path).unwrap(), path)
    };
    let (rows, path) =
        read("a.csv", "\u{feff}question,answer\n\"two\nlines, a comma\",\"a \"\"word\"\"\"\nq2,a2\nq3\n");
    assert_eq!(rows.len(), 3);
    let first = rows[0].columns.as_ref().unwrap();
    assert_eq!(
        (first["question"].as_str(), first["answer"].as_str()),
        (Some("two\nlines, a comma"), Some("a \"word\""))
    );
    assert_eq!(rows[1].place.line, 4);
    assert!(rows[2].columns.as_ref().unwrap_err().contains("1 fields, but the header names 2"));
    let index = RowIndex { files: vec![path], places: rows.iter().map(|r| r.place).collect() };
    assert_eq!(index.text(1).unwrap().text.trim(), "q2,a2");
    for (name, text) in [("a.tsv", "x\ty\n1, one\t2\n"), ("b.csv", "x;y\n1, one;2\n")] {
        assert_eq!(read(name, text).0[0].columns.as_ref().unwrap()["x"], "1, one", "{name}");
    }
    let (rows, _) = read("c.csv", "a,,a\n1,2,3\n");
    let names: Vec<_> = rows[0].columns.as_ref().unwrap().keys().cloned().collect();
    assert_eq!(names, ["a", "column_2", "column_3"]);
    let bytes = dir.path().join("d.csv");
    std::fs::write(&bytes, b"a\n\xff\n").unwrap();
    assert!(streamed(&bytes).unwrap()[0].columns.as_ref().unwrap_err().contains("not valid UTF-8"));
}

#[test]
fn parquet_has_texts_lists_of_structs_and_rows_that_are_found_again() {
    // tests/reference/parquet.py wrote it: 3 rows, in row groups of 2.
    for name in ["snappy", "zstd", "none"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/rows-{name}.parquet"));
        let rows = streamed(&path).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(parquet::count(&path).unwrap(), 3);
        let row = rows[2].columns.as_ref().unwrap();
        assert_eq!(row["text"], "the third, ü");
        assert_eq!(row["n"], 3);
        assert_eq!(row["score"], 0.5);
        assert_eq!(row["messages"][1], serde_json::json!({"role": "assistant", "content": "answer 3"}));
        assert_eq!(rows[0].columns.as_ref().unwrap()["missing"], Value::Null);
        let index = RowIndex { files: vec![path], places: rows.iter().map(|r| r.place).collect() };
        let again: Value = serde_json::from_str(&index.text(2).unwrap().text).unwrap();
        assert_eq!(again["messages"], row["messages"]);
    }
}

#[test]
fn a_file_that_is_not_parquet_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    std::fs::write(&path, "PAR1 not really").unwrap();
    let e = streamed(&path).unwrap_err().to_string();
    assert!(e.contains("a.parquet") && e.contains("not a Parquet file"), "{e}");
}

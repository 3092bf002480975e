use super::*;
use serde_json::json;

fn rewards(specs: Value) -> Rewards {
    Rewards::new(&serde_json::from_value::<Vec<RewardFunc>>(specs).unwrap()).unwrap()
}

fn scores(specs: Value, completion: &str, columns: Value) -> Result<Vec<f64>> {
    let columns = columns.as_object().unwrap().clone();
    let prompt = json!("p");
    let answer = Answer { prompt: &prompt, completion, ids: &[1, 2, 3, 1, 2, 3, 1, 2], columns: &columns };
    Ok(rewards(specs).score(&[answer])?.remove(0))
}

#[test]
fn the_built_in_functions_score_what_they_say() {
    let none = json!({});
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"], "additionalProperties": false});
    for (spec, completion, columns, want) in [
        (json!({"name": "exact_answer"}), "#### 4", json!({"answer": 4}), 1.0),
        (json!({"name": "exact_answer", "column": "solution"}), "five", json!({"solution": "four"}), 0.0),
        (json!({"name": "numeric_answer"}), "it is 4.0", json!({"answer": "4"}), 1.0),
        (json!({"name": "regex", "pattern": "^[0-9]+$"}), "42", none.clone(), 1.0),
        (json!({"name": "regex", "pattern": "^[0-9]+$"}), "42.", none.clone(), 0.0),
        (
            json!({"name": "think_format"}),
            "<think>\nThis is my reasoning.\n</think>\nThis is my answer.",
            none.clone(),
            1.0,
        ),
        (json!({"name": "think_format"}), "<think>\nThis is my reasoning.\nThis is my answer.", none.clone(), 0.0),
        (json!({"name": "json_schema", "schema": schema}), "```json\n{\"a\": 2}\n```", none.clone(), 1.0),
        (json!({"name": "json_schema", "schema": schema}), "{\"a\": 0}", none.clone(), 0.0),
        (json!({"name": "json_schema", "schema": schema}), "{\"a\": 2, \"b\": 1}", none.clone(), 0.0),
        // 8 tokens: TRL's get_soft_overlong_punishment(10, 4) gives (6 - 8) / 4.
        (
            json!({"name": "soft_overlong_punishment", "max_completion_len": 10, "soft_punish_cache": 4}),
            "",
            none.clone(),
            -0.5,
        ),
        // 3 distinct of 6 trigrams, as TRL's get_repetition_penalty_reward(3, -1.0).
        (json!({"name": "repetition_penalty", "ngram_size": 3, "max_penalty": -1.0}), "", none.clone(), -0.5),
    ] {
        assert_eq!(scores(json!([spec.clone()]), completion, columns).unwrap(), [want], "{spec} {completion}");
    }
}

#[test]
fn weights_add_up_and_a_function_without_a_word_is_left_out() {
    let r = rewards(
        json!([{"name": "think_format", "weight": 2.0}, {"name": "regex", "pattern": "a"}, {"name": "regex", "pattern": "b"}]),
    );
    assert_eq!(r.names().collect::<Vec<_>>(), ["think_format", "regex", "regex#2"]);
    assert_eq!(r.total(&[1.0, 1.0, f64::NAN]), 3.0);
    assert!(r.total(&[f64::NAN; 3]).is_nan());
}

#[test]
fn a_missing_column_a_bad_pattern_and_a_schema_word_that_is_not_known_are_said() {
    let e = scores(json!([{"name": "exact_answer"}]), "x", json!({"solution": "x"})).unwrap_err().to_string();
    assert!(e.contains("no answer in the column answer; it has solution"), "{e}");
    let bad =
        |spec: Value| Rewards::new(&serde_json::from_value::<Vec<RewardFunc>>(json!([spec])).unwrap()).err().unwrap();
    assert!(bad(json!({"name": "regex", "pattern": "("})).to_string().contains("pattern"));
    let e = bad(json!({"name": "json_schema", "schema": {"properties": {"a": {"oneOf": []}}}})).to_string();
    assert!(e.contains("oneOf") && e.contains("properties.a"), "{e}");
}

fn program(script: &str, timeout: f64) -> Value {
    json!([{"name": "program", "command": ["sh", "-c", script], "timeout_seconds": timeout}])
}

#[test]
fn a_program_scores_each_line_with_the_rows_columns_and_may_say_nothing() {
    let script = r#"while read -r line; do case "$line" in *'"answer":"4"'*) echo 0.25;; *) echo null;; esac; done"#;
    assert_eq!(scores(program(script, 5.0), "x", json!({"answer": "4"})).unwrap(), [0.25]);
    assert!(scores(program(script, 5.0), "x", json!({"answer": "5"})).unwrap()[0].is_nan());
}

#[test]
fn a_program_that_ends_is_started_again_once_and_then_the_run_ends_with_its_words() {
    // The first start leaves a mark and ends; the second answers.
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let script =
        format!(r#"if [ -e {0} ]; then while read -r l; do echo 1; done; else touch {0}; exit 3; fi"#, mark.display());
    assert_eq!(scores(program(&script, 5.0), "x", json!({})).unwrap(), [1.0]);

    let e = scores(program("read -r line; echo it broke >&2; exit 7", 5.0), "x", json!({})).unwrap_err().to_string();
    assert!(e.contains("failed twice") && e.contains("exit status: 7") && e.contains("it broke"), "{e}");
    let e = scores(program("read -r line; echo good", 5.0), "x", json!({})).unwrap_err().to_string();
    assert!(e.contains("\"good\", which is not one number"), "{e}");
    let e = scores(program("sleep 20", 0.2), "x", json!({})).unwrap_err().to_string();
    assert!(e.contains("did not answer within 0.2 s") && e.contains("flush=True"), "{e}");
    let e =
        scores(json!([{"name": "program", "command": ["/no/such/program"]}]), "x", json!({})).unwrap_err().to_string();
    assert!(e.contains("cannot be started"), "{e}");
}

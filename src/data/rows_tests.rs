use super::*;

fn parse_line(line: &str, format: Format) -> Result<Row, Problem> {
    parse(&serde_json::from_str(line).unwrap(), format, None)
}

fn chat(line: &str, format: Format) -> Vec<(String, String)> {
    match parse_line(line, format).unwrap() {
        Row::Chat(c) => c
            .messages
            .iter()
            .map(|m| (role(m).to_string(), m["content"].as_str().unwrap_or("null").to_string()))
            .collect(),
        other => panic!("not a chat: {other:?}"),
    }
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
}

#[test]
fn alpaca_joins_a_nonempty_input_on_a_new_line() {
    let with = r#"{"instruction":"Add","input":"1 2","output":"3"}"#;
    let without = r#"{"instruction":"Add","input":"","output":"3"}"#;
    assert_eq!(chat(with, Format::Alpaca), pairs(&[("user", "Add\n1 2"), ("assistant", "3")]));
    assert_eq!(chat(without, Format::Alpaca), pairs(&[("user", "Add"), ("assistant", "3")]));
}

#[test]
fn alpaca_system_and_history_come_before_the_instruction() {
    let line = r#"{"system":"S","history":[["a","b"]],"instruction":"c","output":"d"}"#;
    assert_eq!(
        chat(line, Format::Alpaca),
        pairs(&[("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")])
    );
}

#[test]
fn sharegpt_roles_become_chatml_roles() {
    let line = r#"{"system":"S","conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"},{"from":"tool","value":""}]}"#;
    assert_eq!(
        chat(line, Format::Sharegpt),
        pairs(&[("system", "S"), ("user", "a"), ("assistant", "b"), ("tool", "")])
    );
}

#[test]
fn tool_calls_stand_in_for_content_and_are_kept_for_the_template() {
    let line = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f"}}]}],"tools":"[{\"name\":\"f\"}]"}"#;
    let Row::Chat(c) = parse_line(line, Format::Messages).unwrap() else { panic!("not a chat") };
    assert_eq!(c.messages[1]["tool_calls"][0]["function"]["name"], "f");
    assert_eq!(c.tools.unwrap()[0]["name"], "f");
}

#[test]
fn prompt_and_completion_are_texts_or_messages() {
    assert_eq!(
        parse_line(r#"{"prompt":"a ","completion":"b"}"#, Format::PromptCompletion).unwrap(),
        Row::Pair { prompt: "a ".into(), completion: "b".into() }
    );
    let line = r#"{"prompt":[{"role":"user","content":"a"}],"completion":[{"role":"assistant","content":"b"}]}"#;
    let Row::Chat(c) = parse_line(line, Format::PromptCompletion).unwrap() else { panic!("not a chat") };
    assert_eq!((c.messages.len(), c.prompt), (2, Some(1)));
}

#[test]
fn text_parts_are_joined_and_other_parts_are_refused() {
    let line = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#;
    assert_eq!(chat(line, Format::Messages), pairs(&[("user", "ab")]));
    let line = r#"{"messages":[{"role":"user","content":[{"type":"image"}]}]}"#;
    assert!(parse_line(line, Format::Messages).unwrap_err().contains("only text"));
}

#[test]
fn every_kind_of_bad_row_says_what_was_expected() {
    use Format::*;
    for (format, line, said) in [
        (Text, r#"{"txt":"a"}"#, "the column text is missing; this row has txt"),
        (Text, r#"{"text":null}"#, "text is null; expected text"),
        (Text, r#"{"text":7}"#, "text is a number; expected text"),
        (Text, r#"{"text":" \n"}"#, "text is empty; expected text"),
        (Alpaca, r#"{"instruction":"a"}"#, "the column output is missing"),
        (Alpaca, r#"{"instruction":"a","output":""}"#, "output is empty"),
        (Alpaca, r#"{"instruction":"a","output":["b"]}"#, "output is a list; expected text"),
        (Alpaca, r#"{"instruction":"a","input":{"x":1},"output":"b"}"#, "input is an object; expected text"),
        (Alpaca, r#"{"instruction":"a","output":"b","history":[["a"]]}"#, "history[0] is not a pair"),
        (PromptCompletion, r#"{"prompt":"a","completion":[{"role":"assistant","content":"b"}]}"#, "must both be"),
        (PromptCompletion, r#"{"prompt":"a","completion":""}"#, "completion is empty"),
        (
            PromptCompletion,
            r#"{"prompt":[{"role":"user","content":"a"}],"completion":[{"role":"user","content":"b"}]}"#,
            "completion has no assistant message",
        ),
        (Messages, r#"{"messages":[]}"#, "messages is empty; expected at least one message"),
        (Messages, r#"{"messages":"hello"}"#, "messages is a text; expected a list of messages"),
        (Messages, r#"{"messages":["hello"]}"#, "messages[0] is a text; expected {role, content}"),
        (Messages, r#"{"messages":[{"content":"a"}]}"#, "messages[0] has no role"),
        (Messages, r#"{"messages":[{"role":"bot","content":"a"}]}"#, "messages[0]: unknown role bot; expected system"),
        (Messages, r#"{"messages":[{"role":"user"}]}"#, "messages[0] (user) has no content"),
        (Messages, r#"{"messages":[{"role":"user","content":null}]}"#, "content is null"),
        (Messages, r#"{"messages":[{"role":"user","content":""}]}"#, "content is empty"),
        (Messages, r#"{"messages":[{"role":"user","content":5}]}"#, "content is a number; expected text"),
        (Messages, r#"{"messages":[{"role":"user","content":"a"}],"tools":"{"}"#, "tools is not valid JSON"),
        (
            Messages,
            r#"{"system":"s","messages":[{"role":"system","content":"t"}]}"#,
            "a system column and a system message",
        ),
        (Sharegpt, r#"{"id":1}"#, "neither messages nor conversations is there; this row has id"),
    ] {
        let problem = parse_line(line, format).unwrap_err();
        assert!(problem.contains(said), "{line}: {problem}");
    }
}

#[test]
fn near_duplicates_share_a_fingerprint_and_other_rows_do_not() {
    let print = |s: &str| fingerprint(&Row::Text(s.into()));
    assert_eq!(print("Hello,  World!"), print("hello world"));
    assert_ne!(print("hello world"), print("hello worlds"));
    let pair = |p: &str, c: &str| fingerprint(&Row::Pair { prompt: p.into(), completion: c.into() });
    assert_ne!(pair("a b", "c"), pair("a", "b c"));
}

#[test]
fn llama_factory_s_tool_turns_are_calls_and_their_answers() {
    let row = json!({"conversations": [
        {"from": "human", "value": "Weather in Oslo?"},
        {"from": "function_call", "value": "{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}"},
        {"from": "observation", "value": "{\"rain\": true}"},
        {"from": "gpt", "value": "It rains."}
    ], "tools": "[{\"name\": \"weather\"}]"});
    let Value::Object(columns) = row else { panic!() };
    let Row::Chat(chat) = parse(&columns, Format::Sharegpt, None).unwrap() else { panic!() };
    let roles: Vec<_> = chat.messages.iter().map(role).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
    assert_eq!(
        chat.messages[1]["tool_calls"][0]["function"],
        json!({"name": "weather", "arguments": {"city": "Oslo"}})
    );
    assert_eq!(chat.tools, Some(json!([{"name": "weather"}])));
    let bad = |value: Value| {
        let row = json!({"conversations": [{"from": "function_call", "value": value}]});
        parse(row.as_object().unwrap(), Format::Sharegpt, None).unwrap_err()
    };
    assert!(bad(json!("weather(")).contains("not valid JSON"));
    assert!(bad(json!("[]")).contains("is empty"));
    assert!(bad(json!({"arguments": {}})).contains("has no name"));
}

//! Templates of our own, with what transformers renders beside them.

use super::*;
use serde_json::json;

fn template(source: &str) -> ChatTemplate {
    let templates = Templates { default: Some(source.to_string()), tool_use: None };
    let special =
        SpecialTokens { bos_token: Some("<s>".into()), eos_token: Some("</s>".into()), ..SpecialTokens::default() };
    ChatTemplate::at_time(&templates, &special, &Map::new(), SystemTime::UNIX_EPOCH).unwrap()
}

fn render(source: &str, message: Value) -> String {
    template(source).render(&[message], None, false).unwrap()
}

fn chat() -> Vec<Value> {
    vec![
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "Hi"}),
        json!({"role": "assistant", "content": "Hello."}),
    ]
}

#[test]
fn templates_by_name_render_their_formats() {
    let expected = [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n",
            "<|im_start|>assistant\n",
        ),
        (
            "llama-3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>", ""),
        (
            "gemma",
            "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n",
            "<start_of_turn>model\n",
        ),
        (
            "phi-3",
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n",
            "<|assistant|>\n",
        ),
        ("zephyr", "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello.</s>\n", "<|assistant|>\n"),
    ];
    assert_eq!(expected.map(|e| e.0), NAMES);
    for (name, text, prompt) in expected {
        let template = template(named(name).unwrap());
        assert_eq!(template.render(&chat(), None, false).unwrap(), text, "{name}");
        assert_eq!(template.render(&chat(), None, true).unwrap(), format!("{text}{prompt}"), "{name}");
        let marked = template.render_marked(&chat(), None).unwrap().unwrap();
        assert_eq!(marked.text, text, "{name}");
        let [span] = marked.spans.as_slice() else { panic!("{name}: {:?}", marked.spans) };
        // The mark is what a model writes after its generation prompt.
        let before = template.render(&chat()[..2], None, true).unwrap();
        assert_eq!(span.start, before.len(), "{name}");
        assert_eq!(span.end, text.len(), "{name}");
    }
}

#[test]
fn values_print_as_python_prints_them() {
    let message = json!({"role": "user", "content": null, "yes": true, "x": 1e-5, "big": 1e16, "one": 1.0,
        "list": ["a", "it's", 2, [false]], "map": {"k": "v\n"}});
    for (source, expected) in [
        ("{{ messages[0].content }}", "None"),
        ("{{ messages[0].yes }}", "True"),
        ("{{ messages[0].x }} {{ messages[0].big }} {{ messages[0].one }}", "1e-05 1e+16 1.0"),
        ("{{ messages[0].list }}", "['a', \"it's\", 2, [False]]"),
        ("{{ messages[0].map }}", r"{'k': 'v\n'}"),
        ("{{ messages[0].list | join('|') }}", "a|it's|2|[False]"),
        ("{{ nothing }}", ""),
        ("{{ messages[0].yes ~ ' ' ~ messages[0].x ~ ' ' ~ messages[0].content ~ nothing }}", "True 1e-05 None"),
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
        ("{{ strftime_now('%d %B %Y') }}", "01 January 1970"),
    ] {
        assert_eq!(render(source, message.clone()), expected, "{source}");
    }
}

#[test]
fn tojson_writes_what_json_dumps_writes() {
    let message = json!({"b": "é<'&\"\u{1}\n", "a": [1, 2.5, null, true, {}, []], "e": {"x": 1e-7}});
    for (source, expected) in [
        // json.dumps(m, ensure_ascii=False)
        (
            "{{ messages[0] | tojson }}",
            "{\"b\": \"é<'&\\\"\\u0001\\n\", \"a\": [1, 2.5, null, true, {}, []], \"e\": {\"x\": 1e-07}}",
        ),
        // json.dumps(m["a"], indent=2)
        ("{{ messages[0].a | tojson(indent=2) }}", "[\n  1,\n  2.5,\n  null,\n  true,\n  {},\n  []\n]"),
        // json.dumps(m, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
        (
            "{{ messages[0] | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }}",
            "{\"a\":[1,2.5,null,true,{},[]],\"b\":\"\\u00e9<'&\\\"\\u0001\\n\",\"e\":{\"x\":1e-07}}",
        ),
    ] {
        assert_eq!(render(source, message.clone()), expected, "{source}");
    }
    assert!(template("{{ nothing | tojson }}").render(&[], None, false).is_err());
}

#[test]
fn a_key_named_like_a_method_does_not_hide_the_method() {
    let message = json!({"items": {"type": "integer"}, "type": "array"});
    assert_eq!(render("{% for k, v in messages[0].items() %}{{ k }};{% endfor %}", message.clone()), "items;type;");
    assert_eq!(render("{{ messages[0]['items']['type'] }} {{ messages[0].get('none') }}", message), "integer None");
}

#[test]
fn string_methods_are_python_s() {
    let message = json!({"content": "a<b>é b"});
    for (source, expected) in [
        ("{{ messages[0].content.split('<b>')[-1] }}", "é b"),
        ("{{ messages[0].content.find('b', ) }} {{ messages[0].content.find('z') }}", "2 -1"),
        ("{{ ''.isdigit() }} {{ 'x'.count('') }} {{ 'ab'.removeprefix('a') }}", "False 2 b"),
        ("{{ 'a.b.c'.rsplit('.', 1) }}", "['a.b', 'c']"),
        ("{{ 'a=b'.partition('=') }}", "['a', '=', 'b']"),
    ] {
        assert_eq!(render(source, message.clone()), expected, "{source}");
    }
}

#[test]
fn what_the_template_refuses_is_said_in_its_own_words() {
    let error = template("a\n{{ raise_exception('only ' ~ 2 ~ ' roles') }}").render(&[], None, false).unwrap_err();
    assert_eq!(error.what, "only 2 roles");
    assert_eq!(error.place.as_deref(), Some("chat template, line 2"));
    let broken = Templates { default: Some("{% if x %}".into()), tool_use: None };
    let error = ChatTemplate::new(&broken, &SpecialTokens::default(), &Map::new()).err().unwrap();
    assert!(error.what.contains("not valid Jinja"), "{error}");
}

#[test]
fn a_loop_over_nothing_is_refused_as_in_python_and_one_over_the_undefined_is_empty() {
    let loops = |name: &str| template(&format!("{{% for x in {name} %}}x{{% endfor %}}.")).render(&[], None, false);
    assert!(loops("tools").unwrap_err().to_string().contains("None is not iterable"));
    assert_eq!(loops("nothing").unwrap(), ".");
}

#[test]
fn a_template_of_its_own_serves_conversations_with_tools() {
    let templates = Templates { default: Some("plain".into()), tool_use: Some("{{ tools | length }} tools".into()) };
    let template = ChatTemplate::new(&templates, &SpecialTokens::default(), &Map::new()).unwrap();
    assert_eq!(template.render(&chat(), None, false).unwrap(), "plain");
    assert_eq!(template.render(&chat(), Some(&json!([{}, {}])), false).unwrap(), "2 tools");
}

#[test]
fn reasoning_is_found_under_any_of_its_names() {
    let source = "{{ messages[0].reasoning_content }}|{{ messages[0].thinking }}";
    for name in ["reasoning", "thinking", "reasoning_content"] {
        assert_eq!(render(source, json!({"role": "assistant", name: "hm"})), "hm|hm", "{name}");
    }
    assert_eq!(render(source, json!({"role": "assistant"})), "|");
}

#[test]
fn keyword_arguments_win_over_special_tokens_and_change_the_identity() {
    let templates = Templates { default: Some("{{ bos_token }}{{ enable_thinking }}".into()), tool_use: None };
    let special = SpecialTokens { bos_token: Some("<s>".into()), ..SpecialTokens::default() };
    let plain = ChatTemplate::new(&templates, &special, &Map::new()).unwrap();
    let kwargs = json!({"bos_token": "B", "enable_thinking": false});
    let other = ChatTemplate::new(&templates, &special, kwargs.as_object().unwrap()).unwrap();
    assert_eq!(plain.render(&[], None, false).unwrap(), "<s>");
    assert_eq!(other.render(&[], None, false).unwrap(), "BFalse");
    assert_ne!(plain.identity(), other.identity());
}

#[test]
fn a_setting_is_a_name_a_file_or_the_template_itself() {
    assert_eq!(choose("chatml").unwrap(), named("chatml").unwrap());
    assert_eq!(choose("{{ messages }}").unwrap(), "{{ messages }}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.jinja");
    std::fs::write(&file, "mine").unwrap();
    assert_eq!(choose(file.to_str().unwrap()).unwrap(), "mine");
    assert!(choose("no-such-template").unwrap_err().to_string().contains("chatml"));
}

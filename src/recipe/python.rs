//! The same recipe as a Python script, so that nobody is locked in: for TRL with PEFT, or for Unsloth.
//!
//! Pure text from values; must not know the rows, but for the format that the caller found in them.

mod grpo;

use super::{LoraSection, Method, Recipe, TargetModules};
use crate::{Error, Result};
use std::fmt::Write as _;

/// What the script is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    Trl,
    Unsloth,
}

/// Write the script. `format` is the rows' (`data.format`'s spelling); `name` is the recipe's.
///
/// # Errors
/// A model, data or method that Python has no name for.
pub fn script(recipe: &Recipe, library: Library, format: &str, name: &str) -> Result<String> {
    let model = model(recipe)?;
    let mut out = String::new();
    let (title, install) = match library {
        Library::Trl => ("TRL and PEFT", "trl peft datasets"),
        Library::Unsloth => ("Unsloth", "unsloth"),
    };
    let _ = writeln!(out, "\"\"\"{name} for {title}, written by finetop show.   pip install {install}\"\"\"\n");
    if library == Library::Unsloth {
        out.push_str("from unsloth import FastLanguageModel\n\n");
    }
    if library == Library::Trl {
        out.push_str("import torch\n");
    }
    let mixed = weighed(&recipe.data.train);
    let join = if mixed { "interleave_datasets" } else { "concatenate_datasets" };
    let eval = if mixed && recipe.data.eval.is_some() { "concatenate_datasets, " } else { "" };
    let _ = writeln!(out, "from datasets import {eval}{join}, load_dataset");
    if library == Library::Trl {
        match &recipe.lora {
            Some(l) if l.adapter_name_or_path.is_some() => out.push_str("from peft import PeftModel\n"),
            Some(_) => out.push_str("from peft import LoraConfig\n"),
            None => {}
        }
        out.push_str("from transformers import AutoModelForCausalLM, AutoTokenizer");
        out.push_str(if recipe.model.load_in_4bit { ", BitsAndBytesConfig\n" } else { "\n" });
    }
    let names = Names::of(recipe, library);
    let _ = writeln!(out, "from {} import {}, {}\n", names.package, names.config, names.trainer);
    match library {
        Library::Trl => load_trl(&mut out, recipe, &model),
        Library::Unsloth => load_unsloth(&mut out, recipe, &model)?,
    }
    rows(&mut out, recipe, format)?;
    let mut rewards = "";
    if let Some(section) = &recipe.grpo {
        grpo::rewards(&mut out, section);
        rewards = ", reward_funcs=rewards";
    }
    arguments(&mut out, recipe, library);
    let peft = match (library, &recipe.lora) {
        (Library::Trl, Some(l)) if l.adapter_name_or_path.is_none() => ", peft_config=lora",
        _ => "",
    };
    let eval =
        if recipe.data.eval.is_some() || recipe.data.eval_fraction > 0.0 { ", eval_dataset=evaluation" } else { "" };
    let _ = writeln!(
        out,
        "trainer = {}(model=model, args=args, train_dataset=train{eval}, processing_class=tokenizer{rewards}{peft})",
        names.trainer
    );
    if let Some(rate) = recipe.train.embedding_learning_rate.filter(|_| library == Library::Trl) {
        let _ = write!(out, "{}", TABLES.replace("RATE", &format!("{rate:e}")));
    }
    out.push_str("trainer.train()\n");
    let _ = writeln!(out, "trainer.save_model({})", text(&recipe.output_dir.join(&recipe.run_name).to_string_lossy()));
    Ok(out)
}

/// What the trainer and its arguments are called, and where they come from.
struct Names {
    package: &'static str,
    config: &'static str,
    trainer: &'static str,
}

impl Names {
    fn of(recipe: &Recipe, library: Library) -> Self {
        let (package, config, trainer) = match (recipe.method, library) {
            (Method::Dpo, _) => ("trl", "DPOConfig", "DPOTrainer"),
            (Method::Grpo, _) => ("trl", "GRPOConfig", "GRPOTrainer"),
            // A rate of its own for embeddings is known there by name.
            (_, Library::Unsloth) if recipe.train.embedding_learning_rate.is_some() => {
                ("unsloth", "UnslothTrainingArguments", "UnslothTrainer")
            }
            _ => ("trl", "SFTConfig", "SFTTrainer"),
        };
        Self { package, config, trainer }
    }
}

/// Embeddings and lm_head at a rate of their own, for which TRL has no argument.
const TABLES: &str = r#"optimizer = trainer.create_optimizer()
for group in list(optimizer.param_groups):
    # Embeddings and lm_head at a rate of their own.
    tables = {id(p) for p in group["params"] if p.ndim == 2 and p.shape[0] == trainer.model.config.vocab_size}
    if tables:
        apart = [p for p in group["params"] if id(p) in tables]
        group["params"] = [p for p in group["params"] if id(p) not in tables]
        optimizer.add_param_group({**group, "params": apart, "lr": RATE})
"#;

/// A Python string. JSON's are Python's too.
fn text(s: &str) -> String {
    serde_json::Value::from(s).to_string()
}

fn truth(b: bool) -> &'static str {
    if b { "True" } else { "False" }
}

/// The arguments that name the model.
fn model(recipe: &Recipe) -> Result<String> {
    let name = &recipe.model.name_or_path;
    if name == "demo" || name.starts_with("pypi:") || name.starts_with("ollama:") {
        return Err(Error::usage(format!("{name} has no name that transformers knows"))
            .next("show it over a folder or a hub id: --set model.name_or_path=OWNER/NAME"));
    }
    let (bare, revision) = match name.strip_prefix("hf:").unwrap_or(name).split_once('@') {
        Some((bare, revision)) if name.starts_with("hf:") => (bare, Some(revision)),
        _ => (name.strip_prefix("hf:").unwrap_or(name), None),
    };
    let path = std::path::Path::new(bare);
    let mut out = match path.extension().is_some_and(|e| e == "gguf") {
        true => {
            let folder = path.parent().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            format!("{}, gguf_file={}", text(&folder), text(&file))
        }
        false => text(bare),
    };
    if let Some(revision) = revision {
        let _ = write!(out, ", revision={}", text(revision));
    }
    Ok(out)
}

fn targets(t: &TargetModules) -> String {
    match t {
        TargetModules::Word(word) => text(word),
        TargetModules::Names(names) => format!("[{}]", names.iter().map(|n| text(n)).collect::<Vec<_>>().join(", ")),
    }
}

fn linear() -> TargetModules {
    TargetModules::Names(super::LINEAR.iter().map(|n| n.to_string()).collect())
}

/// `target_modules` as PEFT takes them beside the other settings: it has layers_to_transform for lists only.
fn listed(l: &LoraSection) -> TargetModules {
    let all = l.target_modules == TargetModules::all();
    if all && l.layers_to_transform.is_some() { linear() } else { l.target_modules.clone() }
}

/// The adapter's other arguments, a line each, where they are not at their defaults.
fn besides(l: &LoraSection, peft: bool) -> String {
    let mut out = String::new();
    let mut put = |key: &str, value: String| {
        let _ = writeln!(out, "    {key}={value},");
    };
    if l.use_rslora {
        put("use_rslora", "True".into());
    }
    if l.use_dora {
        put("use_dora", "True".into());
    }
    if let Some(layers) = &l.layers_to_transform {
        put("layers_to_transform", format!("{layers:?}"));
    }
    if let Some(e) = l.exclude_modules.as_ref().filter(|_| peft) {
        put("exclude_modules", targets(e));
    }
    if let Some(names) = l.modules_to_save.as_ref().filter(|_| peft) {
        put("modules_to_save", format!("{names:?}"));
        // A head that is the embedding stays it.
        put("ensure_weight_tying", "model.config.tie_word_embeddings".into());
    }
    out
}

/// On a card 16-bit weights, as ours; the CPU computes in f32.
fn load_trl(out: &mut String, recipe: &Recipe, model: &str) {
    let cpu = recipe.model.device == "cpu";
    out.push_str(match cpu {
        true => "dtype = torch.float32\n",
        false => "dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32\n",
    });
    let quantized = match recipe.model.load_in_4bit {
        true => {
            ",\n    quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=\"nf4\", bnb_4bit_use_double_quant=True, \
             bnb_4bit_compute_dtype=dtype)"
        }
        false => "",
    };
    let _ = writeln!(out, "model = AutoModelForCausalLM.from_pretrained({model}, dtype=dtype{quantized})");
    let _ = writeln!(out, "tokenizer = AutoTokenizer.from_pretrained({model})");
    template(out, recipe);
    if let Some(l) = &recipe.lora {
        match &l.adapter_name_or_path {
            Some(path) => {
                let path = text(&path.to_string_lossy());
                let _ = writeln!(out, "model = PeftModel.from_pretrained(model, {path}, is_trainable=True)");
            }
            None => {
                let _ = writeln!(
                    out,
                    "lora = LoraConfig(\n    r={}, lora_alpha={}, lora_dropout={}, target_modules={}, task_type=\"CAUSAL_LM\",\n{})",
                    l.r,
                    l.lora_alpha,
                    l.lora_dropout,
                    targets(&listed(l)),
                    besides(l, true)
                );
            }
        }
    }
    out.push('\n');
}

fn load_unsloth(out: &mut String, recipe: &Recipe, model: &str) -> Result<()> {
    let (m, t) = (&recipe.model, &recipe.train);
    let name = match recipe.lora.as_ref().and_then(|l| l.adapter_name_or_path.as_ref()) {
        Some(adapter) => text(&adapter.to_string_lossy()),
        None if model.contains("gguf_file") => {
            return Err(Error::usage("Unsloth does not load a GGUF")
                .next("show it over a folder or a hub id: --set model.name_or_path=OWNER/NAME"));
        }
        None => model.to_string(),
    };
    let full = if recipe.lora.is_none() { ", full_finetuning=True" } else { "" };
    let _ = writeln!(
        out,
        "model, tokenizer = FastLanguageModel.from_pretrained(\n    {name}, max_seq_length={}, load_in_4bit={}{full},\n)",
        m.max_seq_length,
        truth(m.load_in_4bit)
    );
    template(out, recipe);
    if let Some(l) = recipe.lora.as_ref().filter(|l| l.adapter_name_or_path.is_none()) {
        if l.exclude_modules.is_some() {
            return Err(Error::usage("Unsloth has no exclude_modules")
                .next("say lora.target_modules as a list of what is wanted"));
        }
        let mut names = listed(l);
        if names == TargetModules::all() {
            names = linear();
        }
        if let (Some(more), TargetModules::Names(names)) = (&l.modules_to_save, &mut names) {
            // There they are named among the targets.
            names.extend(more.iter().cloned());
        }
        let _ = writeln!(
            out,
            "model = FastLanguageModel.get_peft_model(\n    model, r={}, lora_alpha={}, lora_dropout={}, bias=\"none\", random_state={},\n    \
             target_modules={}, use_gradient_checkpointing=\"unsloth\",\n{})",
            l.r,
            l.lora_alpha,
            l.lora_dropout,
            t.seed,
            targets(&names),
            besides(l, false)
        );
    }
    out.push('\n');
    Ok(())
}

fn template(out: &mut String, recipe: &Recipe) {
    let Some(setting) = &recipe.model.chat_template else { return };
    let value = match std::path::Path::new(setting).is_file() {
        true => format!("open({}).read()", text(setting)),
        false => text(setting),
    };
    let _ = writeln!(out, "tokenizer.chat_template = {value}");
}

/// A better and a worse answer, as TRL takes them: texts, or lists of messages.
const PREFERENCE: &str = r#"    roles = {"human": "user", "gpt": "assistant"}

    def turns(value):
        if isinstance(value, str):
            return value
        value = value if isinstance(value, list) else [value]
        said = [(t.get("role") or t["from"], t.get("content") or t.get("value")) for t in value]
        return [{"role": roles.get(role, role), "content": content} for role, content in said]

    out = {"chosen": turns(row["chosen"]), "rejected": turns(row["rejected"])}
    prompt = row.get("prompt") or row.get("conversations") or row.get("messages") or row.get("instruction")
    return {"prompt": turns(prompt), **out} if prompt else out
"#;

/// Reading the rows, and what they become.
fn rows(out: &mut String, recipe: &Recipe, format: &str) -> Result<()> {
    let d = &recipe.data;
    out.push_str("\ndef example(row):\n");
    let answer = match recipe.method {
        Method::Grpo => grpo::ANSWER,
        _ => "    return {\"prompt\": messages[:-1], \"completion\": messages[-1:]}\n",
    };
    match (&d.messages, format) {
        (Some(messages), _) => {
            out.push_str("    from jinja2 import Environment\n\n    render = lambda t: Environment().from_string(t).render(**row)\n    messages = [\n");
            for m in messages {
                let _ = writeln!(
                    out,
                    "        {{\"role\": {}, \"content\": render({})}},",
                    text(&m.role),
                    text(&m.content)
                );
            }
            out.push_str("    ]\n");
            out.push_str(answer);
        }
        (None, "alpaca") => {
            out.push_str(
                "    asked = row[\"instruction\"] + (\"\\n\" + row[\"input\"] if row.get(\"input\") else \"\")\n    \
                 messages = [{\"role\": \"user\", \"content\": asked}, {\"role\": \"assistant\", \"content\": row[\"output\"]}]\n    \
                 if row.get(\"system\"):\n        messages.insert(0, {\"role\": \"system\", \"content\": row[\"system\"]})\n",
            );
            out.push_str(answer);
        }
        (None, "messages") => {
            out.push_str("    messages = row.get(\"messages\") or row[\"conversations\"]\n");
            out.push_str(answer);
        }
        (None, "sharegpt") => {
            out.push_str(
                "    roles = {\"human\": \"user\", \"gpt\": \"assistant\"}\n    turns = row.get(\"conversations\") or row[\"messages\"]\n    \
                 messages = [{\"role\": roles.get(t[\"from\"], t[\"from\"]), \"content\": t[\"value\"]} for t in turns]\n",
            );
            out.push_str(answer);
        }
        (None, "prompt_completion") => {
            out.push_str("    return {\"prompt\": row[\"prompt\"], \"completion\": row[\"completion\"]}\n")
        }
        (None, "preference") => out.push_str(PREFERENCE),
        (None, "prompt") => out.push_str(grpo::ROWS),
        (None, "text") => {
            let _ = writeln!(out, "    return {{\"text\": row[{}]}}", text(&d.text_column));
        }
        (None, other) => {
            return Err(Error::usage(format!("rows of the format {other} have no script here"))
                .next("write them as messages, or set data.format"));
        }
    }
    out.push_str("\n\n");
    load(out, "train", &d.train, recipe)?;
    match &d.eval {
        Some(sources) => load(out, "evaluation", sources, recipe)?,
        None if d.eval_fraction > 0.0 => {
            let _ = writeln!(
                out,
                "parts = train.train_test_split(test_size={}, seed={})",
                d.eval_fraction, recipe.train.seed
            );
            out.push_str("train, evaluation = parts[\"train\"], parts[\"test\"]\n");
        }
        None => {}
    }
    out.push('\n');
    Ok(())
}

/// Whether sources are mixed by weight.
fn weighed(sources: &[super::DataSource]) -> bool {
    sources.len() > 1 && sources.iter().all(|s| s.weight.is_some())
}

fn load(out: &mut String, name: &str, sources: &[super::DataSource], recipe: &Recipe) -> Result<()> {
    let mut parts = Vec::new();
    for source in sources {
        let path = source.path.to_string_lossy();
        if path == "demo" || path.starts_with("demo:") {
            return Err(Error::usage("the built-in rows are not on disk").next("--set data.train=FILE"));
        }
        let split = text(source.split.as_deref().unwrap_or("train"));
        if let Some(id) = path.strip_prefix("hf:") {
            let (bare, revision) =
                id.split_once('@').map_or((id, String::new()), |(b, r)| (b, format!(", revision={}", text(r))));
            let mut words = bare.splitn(3, '/');
            let id = format!("{}/{}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let config = words.next().map_or(String::new(), |c| format!(", {}", text(c)));
            parts.push(format!("load_dataset({}{config}, split={split}{revision})", text(&id)));
            continue;
        }
        let kind = match source.path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
            "csv" => "\"csv\", ",
            "tsv" => "\"csv\", sep=\"\\t\", ",
            "parquet" => "\"parquet\", ",
            "txt" | "md" => "\"text\", sample_by=\"document\", ",
            "" if source.path.is_dir() => {
                parts.push(format!("load_dataset({}, split={split})", text(&path)));
                continue;
            }
            _ => "\"json\", ",
        };
        parts.push(format!("load_dataset({kind}data_files={}, split=\"train\")", text(&path)));
    }
    let mapped: Vec<String> = parts.into_iter().map(|p| format!("    {p},\n")).collect();
    let _ = writeln!(out, "{name} = [\n{}]", mapped.concat());
    let _ = writeln!(out, "{name} = [rows.map(example, remove_columns=rows.column_names) for rows in {name}]");
    if weighed(sources) {
        let weights: Vec<f64> = sources.iter().filter_map(|s| s.weight).collect();
        let total: f64 = weights.iter().sum();
        let shares: Vec<String> = weights.iter().map(|w| format!("{}", w / total)).collect();
        let _ = writeln!(
            out,
            "# finetop takes all of the first source and a share of each other; datasets draws until all are exhausted.\n\
             {name} = interleave_datasets({name}, probabilities=[{}], seed={}, stopping_strategy=\"all_exhausted\")",
            shares.join(", "),
            recipe.train.seed
        );
    } else {
        let _ = writeln!(out, "{name} = concatenate_datasets({name})");
    }
    Ok(())
}

fn arguments(out: &mut String, recipe: &Recipe, library: Library) {
    let (t, cpt, dpo) = (&recipe.train, recipe.method == Method::Cpt, recipe.method == Method::Dpo);
    let _ = writeln!(out, "args = {}(", Names::of(recipe, library).config);
    let mut put = |key: &str, value: String| {
        let _ = writeln!(out, "    {key}={value},");
    };
    put("output_dir", text(&recipe.output_dir.join(&recipe.run_name).to_string_lossy()));
    if let Some(section) = &recipe.grpo {
        grpo::arguments(&mut put, section);
    } else {
        put("max_length", recipe.model.max_seq_length.to_string());
    }
    if let Some(d) = &recipe.dpo {
        put("loss_type", serde_json::to_string(&d.loss_type).unwrap_or_default());
        put("beta", d.beta.to_string());
        put("label_smoothing", d.label_smoothing.to_string());
    }
    if recipe.method == Method::Sft {
        // Of a chat TRL trains the completion, its last assistant turn; the rows are given that way.
        put("completion_only_loss", truth(t.completion_only_loss || t.assistant_only_loss).into());
    }
    if matches!(recipe.method, Method::Sft | Method::Cpt) {
        put("packing", truth(t.packing).into());
    }
    if cpt && t.packing {
        put("packing_strategy", text("wrapped"));
    }
    put("per_device_train_batch_size", t.per_device_train_batch_size.to_string());
    put("per_device_eval_batch_size", t.per_device_eval_batch_size.to_string());
    put("gradient_accumulation_steps", t.gradient_accumulation_steps.to_string());
    put("learning_rate", format!("{:e}", t.learning_rate));
    if let Some(rate) = t.embedding_learning_rate.filter(|_| library == Library::Unsloth && !dpo) {
        put("embedding_learning_rate", format!("{rate:e}"));
    }
    if let Some(alpha) = t.neftune_noise_alpha {
        put("neftune_noise_alpha", alpha.to_string());
    }
    match t.max_steps {
        0 => put("num_train_epochs", t.num_train_epochs.to_string()),
        steps => put("max_steps", steps.to_string()),
    }
    put("lr_scheduler_type", text(&t.lr_scheduler_type));
    if let Some(kwargs) = &t.lr_scheduler_kwargs {
        put("lr_scheduler_kwargs", serde_json::Value::from(kwargs.clone()).to_string());
    }
    // A number below 1 is a share of the steps, since transformers 5.
    put("warmup_steps", if t.warmup_steps > 0 { t.warmup_steps.to_string() } else { t.warmup_ratio.to_string() });
    put("weight_decay", t.weight_decay.to_string());
    put("max_grad_norm", t.max_grad_norm.to_string());
    put("optim", text(&t.optim));
    put("adam_beta1", t.adam_beta1.to_string());
    put("adam_beta2", t.adam_beta2.to_string());
    put("adam_epsilon", format!("{:e}", t.adam_epsilon));
    put("seed", t.seed.to_string());
    if !recipe.data.shuffle {
        put("train_sampling_strategy", text("sequential"));
    }
    if recipe.data.eval.is_some() || recipe.data.eval_fraction > 0.0 {
        put("eval_strategy", text(if t.eval_steps > 0 { "steps" } else { "epoch" }));
        if t.eval_steps > 0 {
            put("eval_steps", t.eval_steps.to_string());
        }
    }
    put("save_strategy", text(if t.save_steps > 0 { "steps" } else { "no" }));
    if t.save_steps > 0 {
        put("save_steps", t.save_steps.to_string());
        put("save_total_limit", t.save_total_limit.to_string());
    }
    put("logging_steps", t.logging_steps.to_string());
    put("gradient_checkpointing", truth(t.gradient_checkpointing == "full").into());
    if library == Library::Trl {
        let bf16 = if recipe.model.device == "cpu" { "False" } else { "torch.cuda.is_available()" };
        put("bf16", bf16.into());
        if recipe.model.device == "cpu" {
            put("use_cpu", "True".into());
        }
    }
    put("report_to", text("none"));
    out.push_str(")\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::parse;

    fn recipe(more: &str) -> Recipe {
        parse(more, "r.toml", &[]).unwrap().recipe
    }

    #[test]
    fn values_stand_under_the_names_of_the_library() {
        let r = recipe(
            "[model]\nname_or_path = \"hf:o/n@v1\"\nload_in_4bit = true\n[lora]\nr = 8\n[data]\ntrain = [{ path = \"hf:a/b/main\", split = \"test\", weight = 3 }, { path = \"/x/c.csv\", weight = 1 }]\nshuffle = false\n[train]\nlearning_rate = 1e-4\nmax_steps = 7\n",
        );
        let trl = script(&r, Library::Trl, "alpaca", "r").unwrap();
        for words in [
            "from_pretrained(\"o/n\", revision=\"v1\"",
            "LoraConfig(\n    r=8, lora_alpha=16",
            "bnb_4bit_quant_type=\"nf4\"",
            "load_dataset(\"a/b\", \"main\", split=\"test\")",
            "load_dataset(\"csv\", data_files=\"/x/c.csv\"",
            "probabilities=[0.75, 0.25]",
            "learning_rate=1e-4",
            "max_steps=7",
            "train_sampling_strategy=\"sequential\"",
        ] {
            assert!(trl.contains(words), "{words}\n{trl}");
        }
        let unsloth = script(&r, Library::Unsloth, "alpaca", "r").unwrap();
        assert!(
            unsloth.contains("load_in_4bit=True") && unsloth.contains("get_peft_model(\n    model, r=8"),
            "{unsloth}"
        );
    }

    #[test]
    fn what_an_adapter_has_besides_is_written_as_each_library_takes_it() {
        let r = recipe(
            "method = \"cpt\"\n[model]\nname_or_path = \"o/n\"\n[lora]\nuse_rslora = true\nuse_dora = true\nlayers_to_transform = [0, 2]\n\
             exclude_modules = [\"o_proj\"]\nmodules_to_save = [\"embed_tokens\", \"lm_head\"]\n[data]\ntrain = \"/x/c.jsonl\"\n\
             text_column = \"body\"\n[train]\nembedding_learning_rate = 1e-5\nneftune_noise_alpha = 5\n\
             lr_scheduler_type = \"cosine_with_restarts\"\nlr_scheduler_kwargs = { num_cycles = 3 }\n",
        );
        let trl = script(&r, Library::Trl, "text", "r").unwrap();
        for words in [
            "target_modules=[\"q_proj\"",
            "use_rslora=True",
            "use_dora=True",
            "layers_to_transform=[0, 2]",
            "exclude_modules=[\"o_proj\"]",
            "modules_to_save=[\"embed_tokens\", \"lm_head\"]",
            "ensure_weight_tying=model.config.tie_word_embeddings",
            "row[\"body\"]",
            "neftune_noise_alpha=5",
            "lr_scheduler_kwargs={\"num_cycles\":3}",
            "\"lr\": 1e-5",
        ] {
            assert!(trl.contains(words), "{words}\n{trl}");
        }
        assert!(script(&r, Library::Unsloth, "text", "r").unwrap_err().to_string().contains("exclude_modules"));
        let mut r = r;
        r.lora.iter_mut().for_each(|l| l.exclude_modules = None);
        let unsloth = script(&r, Library::Unsloth, "text", "r").unwrap();
        for words in [
            "UnslothTrainingArguments(",
            "embedding_learning_rate=1e-5",
            "\"down_proj\", \"embed_tokens\", \"lm_head\"]",
        ] {
            assert!(unsloth.contains(words), "{words}\n{unsloth}");
        }
    }

    #[test]
    fn what_python_has_no_name_for_is_refused() {
        let r = recipe("[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"demo\"\n");
        assert!(script(&r, Library::Trl, "messages", "r").unwrap_err().to_string().contains("name_or_path=OWNER/NAME"));
    }
}
